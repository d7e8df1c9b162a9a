defmodule Causeway.Postgres.WAL.RefusalTest do
  # Servers speak many languages; codes and names of functions are the same in all.
  use ExUnit.Case, async: true

  alias Causeway.Postgres.{Error, WAL}
  alias Causeway.Postgres.WAL.Refusal

  @options %{publication: ["p"], slot: "s"}

  defp error(code, routine, message),
    do: Error.server(:server, code: code, routine: routine, message: message)

  test "a publication that is not there" do
    error = error("42704", "get_publication_oid", "la publication « p » n'existe pas")
    missing = %WAL.Error{reason: {:publication_missing, ["p"]}}
    assert Refusal.known(error, @options, nil) == missing

    too_new = %WAL.Error{reason: {:publication_too_new, ["p"]}}
    assert Refusal.known(error, @options, missing) == too_new
    assert Refusal.known(error, @options, too_new) == too_new
  end

  test "a slot that is not there, though it has the word in its name" do
    error =
      error("42704", "ReplicationSlotAcquire", "replication slot \"publication\" does not exist")

    assert Refusal.known(error, @options, nil) == error
  end

  test "a slot in use" do
    error = error("55006", "ReplicationSlotAcquire", "Replikations-Slot »s« ist aktiv für PID 1")
    assert Refusal.known(error, @options, nil) == %WAL.Error{reason: {:slot_in_use, "s", nil}}
  end

  test "a publication that is left out, as PostgreSQL 18 has it" do
    left_out = [severity: "WARNUNG", code: "55000", routine: "LoadPublications", message: "..."]
    missing = %WAL.Error{reason: {:publication_missing, ["p"]}}
    assert Refusal.skipped(left_out, @options, nil) == missing
    too_new = %WAL.Error{reason: {:publication_too_new, ["p"]}}
    assert Refusal.skipped(left_out, @options, missing) == too_new
    assert Refusal.skipped(left_out, @options, too_new) == too_new

    other = [code: "55000", routine: "other", message: "publication"]
    for fields <- [other, []], do: assert(Refusal.skipped(fields, @options, missing) == nil)
  end
end
