defmodule Causeway.Postgres.WAL.Error do
  @moduledoc """
  Why a `Causeway.Postgres.WAL` does not stream, in `:reason` for programs and in `message/1` for people. What the server or
  the network refused otherwise is a `Causeway.Postgres.Error`.

  Reasons:

    * `{:slot_in_use, slot, pid}` - another process of the server, perhaps one of a consumer that it does not know to
      be dead yet, uses it
    * `{:slot_missing, slot}` - there is no such slot, and none is to be made
    * `{:slot_timeout, slot, ms}` - it could not be made in `:slot_timeout`, as transactions that were open then still are
    * `{:slot_lost, slot, why}` - it was there, and is gone, or the server has invalidated it: what was committed since
      is not in it
    * `{:standby, slot}` - the server is a standby, and has no such slot
    * `{:slot_of_another_kind, slot, what}` - it is physical, or of another output plugin or database
    * `{:publication_missing, names}` - changes of tables cannot be told without
    * `{:publication_too_new, names}` - the publication is younger than what is to be read with it
    * `{:ahead, lsn, flushed}` - the position to begin after, of `:start_lsn` or the handler's `init/1`, is beyond the
      end of the server's log: it is one of another server, or of this one before it was restored from a copy
    * `{:silent, ms}` - the server did not answer for so long: see `:silence_timeout`
    * `{:spill, message}` - a streamed transaction could not be kept in a file; it is read again without streaming
    * `{:protocol, message}` - the server sent what cannot be understood
    * `{:decode, reason}` - a value is not of the type that its column has
    * `{:unsupported, message}` - by this release of the server
    * `{:ended, message}` - the port program has
  """

  alias Causeway.Postgres.LSN

  defexception [:reason]

  @type t :: %__MODULE__{reason: term}

  @impl true
  def message(%__MODULE__{reason: reason}), do: format(reason)

  defp format({:slot_in_use, slot, pid}) do
    "replication slot #{inspect(slot)} is in use#{by(pid)}; only one consumer can read from a slot. If it is not " <>
      "another one of yours, the server has not noticed yet that it is gone"
  end

  defp format({:slot_missing, slot}) do
    "there is no replication slot #{inspect(slot)}; make it, or let it be made with create_slot: true"
  end

  defp format({:slot_timeout, slot, ms}) do
    "replication slot #{inspect(slot)} could not be made in #{ms} ms: the server waits until all transactions have ended " <>
      "that were open when it was asked. See pg_stat_activity (xact_start) and pg_prepared_xacts for those; or :slot_timeout"
  end

  defp format({:slot_lost, slot, why}) do
    "replication slot #{inspect(slot)} is lost: #{why}. What was committed since the last confirmed position cannot be " <>
      "read any more. Bring what depends on it in order again, and start with a new slot; or see on_slot_lost: :recreate"
  end

  defp format({:standby, slot}) do
    "the server is a standby without the replication slot #{inspect(slot)}; with target_server_type: :primary among the " <>
      "options of the connection, standbys are passed over"
  end

  defp format({:slot_of_another_kind, slot, what}),
    do: "replication slot #{inspect(slot)} #{what}; choose another name"

  defp format({:publication_missing, names}) do
    "there is no publication #{list(names)}; make it, or let it be made with :create_publication"
  end

  defp format({:publication_too_new, names}) do
    "publication #{list(names)} was made, or made again, after changes that are still to be read, which the server " <>
      "cannot tell with it. A new slot can: see on_slot_lost"
  end

  defp format({:ahead, lsn, flushed}) do
    "the position to begin after, #{LSN.to_string(lsn)}, is beyond the end of the server's log, #{LSN.to_string(flushed)}: " <>
      "it is of another server, or of this one before it was restored. Begun there, all up to it would be missed. Bring " <>
      "what depends on it in order, and begin without a position"
  end

  defp format({:silent, ms}) do
    "the server has not answered for #{ms} ms, so the connection is taken for lost. A server that reads much of its log " <>
      "without anything to send may be silent as long: see :silence_timeout"
  end

  defp format({:spill, message}), do: message

  defp format({:protocol, message}), do: message

  defp format({:decode, {:unknown_relation, oid}}),
    do: "the server sent a change of table #{oid}, which it had not described"

  defp format({:decode, reason}),
    do: "a value is not of the type that its column has: #{inspect(reason)}"

  defp format({:unsupported, message}), do: message
  defp format({:ended, message}), do: message
  defp format(reason), do: inspect(reason)

  defp by(nil), do: ""
  defp by(pid), do: " by the server's process #{pid}"

  defp list(names), do: Enum.map_join(names, ", ", &inspect/1)
end
