defmodule Causeway.Error do
  @moduledoc """
  What went wrong, in `:reason` for programs and in `message/1` for people.

  Reasons:

    * `{:wrong_kind, op, path, have, want}` - the path holds another kind than the operation is for
    * `{:no_such_operation, op, kind}` - the kind does not have this operation
    * `{:bad_operation, term}` - not an operation, see `t:Causeway.Doc.op/0`
    * `{:bad_path, path_or_op}` - a path must be a list of at most 64 terms; an operation's needs one, and
      so does each inside an `:in`
    * `{:bad_term, term, where}` - a pid, function, reference or port, an improper list or a bitstring,
      which no other node could read, and the operation, path or element that it is in
    * `{:bad_replica, name_or_op}` - a replica's name is an atom or a binary of at most 1 KiB, and none of
      `nil`, `true`, `false`; of a `:transfer`, the operation
    * `{:bad_entry, term}` - a clock holds replicas with numbers below 2^62
    * `{:insufficient_rights, op, here, elsewhere}` - a bounded counter has fewer rights left at this
      replica than the operation spends
    * `{:out_of_range, op}` and `{:too_large, op}` - a number or a term over its limit
    * `{:not_adjoining, nil}` - two deltas that do not overlap or adjoin cannot be joined
    * `{:gap, replica, seen, needed}` - a delta builds on writes this document has not seen
    * `{:malformed, what}` and `{:unknown_version, what}` - bytes that this release cannot read
    * `{:duplicate_replica, replica}` - two documents have been edited under one replica name
    * `{:replica_clash, nil}` - two replica names share an id
    * `{:not_an_ancestor, nil}` - a delta between two documents of which the first is not a part of the
      second
    * `{:unknown_atom, name}` - an atom this VM does not have; see the option `:atoms`
    * `:out_of_memory`
  """

  defexception [:reason]

  @type t :: %__MODULE__{reason: term()}

  @impl true
  def message(%__MODULE__{reason: reason}), do: format(reason)

  defp format({:wrong_kind, op, path, have, want}) do
    "#{short(op)} is for a #{kind(want)}, but #{short(path)} holds a #{kind(have)}; " <>
      "use another path, or delete what is there first with #{short({:delete, path})}"
  end

  defp format({:no_such_operation, op, kind}) do
    "#{short(op)} cannot be done to a #{kind(kind)}#{why_not(kind)}"
  end

  defp format({:bad_operation, term}) do
    "#{short(term)} is no operation; one looks like {:put, [\"name\"], value}, see Causeway.Doc.op()"
  end

  defp format({:bad_path, what}) do
    "#{short(what)}: a path must be a list of 1 to 64 terms, none only to read everything"
  end

  defp format({:bad_term, term, where}) do
    "#{within(term, where)} cannot be kept in a document: only atoms, numbers, binaries, and proper " <>
      "lists, tuples and maps of them mean the same on every node"
  end

  defp format({:bad_replica, {:transfer, _, _, name} = op}), do: bad_replica(within(name, op))
  defp format({:bad_replica, {:transfer, _, _, name, _} = op}), do: bad_replica(within(name, op))
  defp format({:bad_replica, term}), do: bad_replica(short(term))

  defp format({:bad_entry, term}) do
    "#{short(term)} cannot be in a clock: that takes a replica's name and a number from 0 to 2^62 - 1"
  end

  defp format({:insufficient_rights, op, here, elsewhere}) do
    "#{short(op)} needs more rights than the #{short(here)} left at this replica; other replicas hold " <>
      "#{short(elsewhere)}, which they can give with {:transfer, path, n, replica}"
  end

  defp format({:out_of_range, {name, _, _} = call}) when name in [:tick, :receive],
    do: stamp(call)

  defp format({:out_of_range, {:to_datetime, _} = call}), do: stamp(call)

  defp format({:out_of_range, op}) do
    "a number in #{short(op)} is out of range: what one replica has added to a counter, and what it has " <>
      "taken, end at 2^62 - 1 each, and a transfer is of 0 at least"
  end

  defp format({:too_large, op}) do
    "#{short(op)} is too large: path and element may take 8 KiB encoded, a value 64 MiB, an integer " <>
      "64 KiB, nesting 64 levels"
  end

  defp format({:gap, replica, seen, needed}) do
    "the delta builds on write #{short(needed)} of replica #{short(replica)}, but only #{short(seen)} " <>
      "have been seen here; ask its sender for a delta since this document's clock"
  end

  defp format({:not_adjoining, _}) do
    "the deltas cannot be joined: writes between the two are in neither, or both are deltas between " <>
      "documents that begin apart; apply one after the other, or ask for one since this document's clock"
  end

  defp format({:malformed, what}), do: "#{name(what)} is damaged, or is not one"

  defp format({:unknown_version, what}) do
    "#{name(what)} is of a newer format than this release reads; update causeway here"
  end

  defp format({:duplicate_replica, _}) do
    "two documents have been edited under the same replica name at the same time; give each its own " <>
      "with Causeway.Doc.fork/2"
  end

  defp format({:replica_clash, _}), do: "two replica names have the same id; rename one of them"

  defp format({:not_an_ancestor, _}) do
    "the older document has seen writes that the newer one has not; merge them first"
  end

  defp format({:unknown_atom, name}) do
    "the atom #{short(name)} does not exist in this VM; pass atoms: :create if the writer is trusted"
  end

  defp format(:out_of_memory), do: "out of memory; the document is unchanged"
  defp format(other), do: short(other)

  defp stamp(call) do
    "a number in #{short(call)} is out of range: stamps end at 2^62 - 1, which is the wall clock at 2^46 " <>
      "milliseconds, in the year 4199"
  end

  defp bad_replica(what) do
    "#{what} cannot name a replica: that takes a binary of at most 1 KiB, or an atom other than nil, " <>
      "true and false"
  end

  defp within(part, part), do: short(part)
  defp within(part, whole), do: "#{short(part)} in #{short(whole)}"

  defp name(what) when is_binary(what) and byte_size(what) < 100, do: what
  defp name(what), do: short(what)

  @doc false
  def short(term), do: Causeway.Error.Short.inspect(term)

  defp kind(nil), do: ":map"
  defp kind(kind), do: short(kind)

  defp why_not(kind) when kind in [:map_grow, :set_grow], do: ", which only grows"
  defp why_not(_kind), do: ""

  @doc false
  # From what the NIF returns to an exception; `what` names the bytes at hand.
  def from_nif(error, ops \\ [], what \\ "the binary")

  def from_nif({:error, {:ekind, {at, fields, have, want}}}, ops, _) do
    {op, path} = op_at(ops, at)
    %__MODULE__{reason: {:wrong_kind, op, Enum.take(path, fields), have, want}}
  end

  def from_nif({:error, {:eop, {at, kind}}}, ops, _) do
    {op, _} = op_at(ops, at)
    %__MODULE__{reason: {:no_such_operation, op, kind}}
  end

  def from_nif({:error, {:erights, {at, here, elsewhere}}}, ops, _) do
    {op, _} = op_at(ops, at)
    %__MODULE__{reason: {:insufficient_rights, op, here, elsewhere}}
  end

  def from_nif({:error, {:epath, {at, _field}}}, ops, _) do
    {op, _} = op_at(ops, at)
    %__MODULE__{reason: {:bad_path, op}}
  end

  # An operation that was read is known by its number, one that could not be by itself.
  def from_nif({:error, {code, op}}, ops, _) when code in [:erange, :elimit] do
    op = if is_integer(op), do: ops |> op_at(op) |> elem(0), else: op
    %__MODULE__{reason: {if(code == :erange, do: :out_of_range, else: :too_large), op}}
  end

  def from_nif({:error, {:egap, {replica, seen, needed}}}, _, _),
    do: %__MODULE__{reason: {:gap, replica, seen, needed}}

  def from_nif({:error, {:bad_op, term}}, _, _), do: %__MODULE__{reason: {:bad_operation, term}}

  def from_nif({:error, {:bad_term, {term, where}}}, _, _),
    do: %__MODULE__{reason: {:bad_term, term, where}}

  def from_nif({:error, {code, term}}, _, _)
      when code in [:bad_path, :bad_replica, :bad_entry, :unknown_atom],
      do: %__MODULE__{reason: {code, term}}

  def from_nif({:error, code}, _, what), do: %__MODULE__{reason: plain(code, what)}

  defp plain(:enomem, _), do: :out_of_memory
  defp plain(:eversion, what), do: {:unknown_version, what}
  defp plain(:eduplicate, _), do: {:duplicate_replica, nil}
  defp plain(:ereplica, _), do: {:replica_clash, nil}
  defp plain(:eclock, _), do: {:not_an_ancestor, nil}
  defp plain(:egap, _), do: {:not_adjoining, nil}
  defp plain(_code, what), do: {:malformed, what}

  # Operations as the NIF counts them: those inside an `:in` one by one, with their whole path.
  defp op_at(ops, at) do
    ops |> List.wrap() |> Enum.flat_map(&flatten(&1, [])) |> Enum.at(at, {nil, []})
  end

  defp flatten({:in, path, _kind, ops}, base) do
    ops |> List.wrap() |> Enum.flat_map(&flatten(&1, base ++ path))
  end

  defp flatten(op, base) when is_tuple(op) and tuple_size(op) > 1 do
    [{op, base ++ List.wrap(elem(op, 1))}]
  end

  defp flatten(op, base), do: [{op, base}]
end
