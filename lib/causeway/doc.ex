defmodule Causeway.Doc do
  @moduledoc """
  A document that can be edited anywhere at once, and merges.

      iex> alias Causeway.Doc
      iex> a = Doc.new("paris") |> Doc.update([{:put, ["title"], "Shopping"}, {:add, ["items"], "milk"}])
      iex> b = Doc.fork(a, "tokyo")
      iex> a = Doc.update(a, {:add, ["items"], "bread"})
      iex> b = Doc.update(b, [{:remove, ["items"], "milk"}, {:increment, ["visits"], 2}])
      iex> merged = Doc.merge(a, b)
      iex> Doc.value(merged)
      %{"items" => MapSet.new(["bread"]), "title" => "Shopping", "visits" => 2}
      iex> Doc.encode(merged) == Doc.encode(Doc.merge(b, a))
      true

  A document is a value: every call that changes it returns a new one and leaves the old one as it was,
  in time and memory proportional to the change. It belongs to a *replica*, the name under which its
  edits are counted: an atom or a binary.

  > #### One name, one editor {: .warning}
  >
  > Two documents that are edited under the same replica name at the same time cannot be told apart by
  > those who receive both. `fork/2` gives a copy a name of its own. Where a merge sees that it happened,
  > it raises.

  ## What it holds

  A document is a map of fields; a *path* is the list of fields that leads to something. Fields, elements
  and values are any terms that mean the same on every node: atoms, numbers, binaries, and lists, tuples
  and maps of them.

  | kind | operations | read as | concurrent edits |
  |---|---|---|---|
  | `:register` | `:put` | the value | the later one wins, by hybrid logical clock |
  | `:register_multi` | `:put` | list of values | all stay, until the next `:put` |
  | `:counter` | `:increment`, `:decrement`, `:reset` | integer | added up |
  | `:counter_bounded` | the same, and `:transfer` | integer, never below 0 | added up; spending needs rights |
  | `:set` | `:add`, `:remove` | `MapSet` | an add wins over a remove that has not seen it |
  | `:set_grow` | `:add` | `MapSet` | all stay |
  | `:set_remove_wins` | `:add`, `:remove` | `MapSet` | a remove wins over an add that has not seen it |
  | `:flag` | `:enable`, `:disable` | boolean | enable wins |
  | `:flag_disable_wins` | `:enable`, `:disable` | boolean | disable wins |
  | `:map` | operations on paths, `:delete` | map | field by field |
  | `:map_grow` | operations on paths | map | field by field; fields cannot be deleted |

  The kind of a new thing follows from its first operation: `{:add, path, element}` makes a `:set`. Another
  one is named at the end: `{:add, path, element, :set_remove_wins}`. Later operations find the kind that
  is there. Something is there as long as anything is in it: a set whose last element was removed is gone.

  `{:delete, path}` removes what it sees at the path and below, whatever its kind. What others write there
  at the same time, unseen, stays, exactly: a counter deleted while someone else adds 3 is 3 afterwards.

  Should two kinds be written at one path at the same time, both are kept. `get/3` and `value/1` show the
  one that comes first in the order map, set, counter, register, flag (and as in the table within them);
  the option `:kind` reads the other, and `{:delete, path, kind}` removes one of them.

      iex> a = Causeway.Doc.new("a") |> Causeway.Doc.update({:add, [:s], 1, :set_remove_wins})
      iex> b = Causeway.Doc.new("b") |> Causeway.Doc.update({:add, [:s], 2, :set_grow})
      iex> both = Causeway.Doc.merge(a, b)
      iex> {Causeway.Doc.get(both, [:s]), Causeway.Doc.get(both, [:s], nil, kind: :set_remove_wins)}
      {MapSet.new([2]), MapSet.new([1])}

  ## Exchanging edits

  `merge/2` joins two documents of one VM. Between nodes, `encode/1` gives the whole state and `delta/2`
  only what a peer lacks; `apply_delta/2` takes either. Deltas may come twice, or late; one that builds on
  edits not seen yet is refused with an error that says so, and nothing happens.

      clock = Doc.clock(mine)                       # sent to the peer
      delta = Doc.delta(theirs, since: clock)       # what comes back
      {:ok, mine} = Doc.apply_delta(mine, delta)
  """

  alias Causeway.{Clock, Error, ReadOptions}

  @enforce_keys [:ref]
  defstruct [:ref]

  @opaque t :: %__MODULE__{ref: :causeway_nif.doc()}

  @typedoc "The name under which edits are counted."
  @type replica :: binary() | atom()

  @type path :: [term()]

  @type kind :: :causeway_nif.kind()

  @typedoc """
  An edit. `n` is 1 when left out. `:in` does operations below a map of the kind it names; their paths go
  on from its own.
  """
  @type op ::
          {:put, path(), value :: term()}
          | {:put, path(), value :: term(), kind()}
          | {:increment | :decrement, path()}
          | {:increment | :decrement, path(), n :: integer()}
          | {:increment | :decrement, path(), n :: integer(), kind()}
          | {:transfer, path(), n :: non_neg_integer(), to :: replica()}
          | {:add | :remove, path(), element :: term()}
          | {:add | :remove, path(), element :: term(), kind()}
          | {:enable | :disable, path()}
          | {:enable | :disable, path(), kind()}
          | {:reset, path()}
          | {:delete, path()}
          | {:delete, path(), kind()}
          | {:in, path(), :map | :map_grow, [op()]}

  @typedoc """
  A change: path, kind, and what was and is there; `nil` for nothing. Of a set, the elements that are gone
  and those that came.
  """
  @type change :: {path(), kind(), old :: term(), new :: term()}

  @doc "An empty document of this replica."
  @spec new(replica()) :: t()
  def new(replica), do: replica |> :causeway_nif.doc_new() |> wrap!()

  @doc """
  The same content, to be edited under another name.

      iex> a = Causeway.Doc.new("a") |> Causeway.Doc.update({:put, [:x], 1})
      iex> a |> Causeway.Doc.fork("b") |> Causeway.Doc.get([:x])
      1
  """
  @spec fork(t(), replica()) :: t()
  def fork(%__MODULE__{ref: ref}, replica), do: ref |> :causeway_nif.doc_fork(replica) |> wrap!()

  @doc """
  Does one operation, or several as one edit: all or none, each seeing those before it.

  Raises `Causeway.Error`, having done nothing, when an operation does not fit what is there. When nothing
  changes, as when an element is removed that is not in the set, the edit does not count.

  With `:as_of`, an earlier state of the same document, the edit is that of somebody who has read this state:
  it replaces and removes what was there, and leaves alone what has come since.

      iex> doc = Causeway.Doc.new("a") |> Causeway.Doc.update([{:increment, [:n], 3}, {:decrement, [:n]}])
      iex> Causeway.Doc.get(doc, [:n])
      2
  """
  @spec update(t(), op() | [op()], as_of: t()) :: t()
  def update(%__MODULE__{} = doc, ops, opts \\ []), do: ok!(try_update(doc, ops, opts))

  @doc """
  `update/3` for edits that may be refused, such as spending from a bounded counter.

      iex> doc = Causeway.Doc.new("a") |> Causeway.Doc.update({:increment, [:stock], 2, :counter_bounded})
      iex> {:error, error} = Causeway.Doc.try_update(doc, {:decrement, [:stock], 3})
      iex> error.reason
      {:insufficient_rights, {:decrement, [:stock], 3}, 2, 0}
  """
  @spec try_update(t(), op() | [op()], as_of: t()) :: {:ok, t()} | {:error, Error.t()}
  def try_update(doc, ops, opts \\ [])

  def try_update(%__MODULE__{ref: ref}, ops, []) do
    case :causeway_nif.doc_update(ref, ops) do
      new when is_reference(new) -> {:ok, %__MODULE__{ref: new}}
      error -> {:error, Error.from_nif(error, ops)}
    end
  end

  def try_update(%__MODULE__{ref: ref}, ops, as_of: %__MODULE__{ref: seen}) do
    ref |> :causeway_nif.doc_update(seen, ops) |> wrap(ops)
  end

  def try_update(%__MODULE__{}, _ops, opts) do
    raise ArgumentError,
          "Causeway.Doc.update/3 takes the option as_of: an earlier state of the document, not " <>
            Error.short(opts)
  end

  @doc """
  What is at a path, or `default`.

  Options: `:kind` reads this kind where two were written; `atoms: :create` makes atoms that this VM does
  not have instead of raising, which only trusted writers should be allowed to cause.
  """
  @spec get(t(), path(), term(), kind: kind(), atoms: :create) :: term()
  def get(%__MODULE__{ref: ref}, path, default \\ nil, opts \\ []) do
    {kind, new_atoms} = ReadOptions.read!(opts, "Causeway.Doc.get/4", [:kind, :atoms])

    case read(ref, path, kind, new_atoms) do
      {:ok, value} -> value
      :error -> default
    end
  end

  @doc "`{:ok, value}` of what is at a path, or `:error`. Options as in `get/4`."
  @spec fetch(t(), path(), kind: kind(), atoms: :create) :: {:ok, term()} | :error
  def fetch(%__MODULE__{ref: ref}, path, opts \\ []) do
    {kind, new_atoms} = ReadOptions.read!(opts, "Causeway.Doc.fetch/3", [:kind, :atoms])
    read(ref, path, kind, new_atoms)
  end

  defp read(ref, path, kind, new_atoms) do
    case :causeway_nif.doc_get(ref, path, kind, new_atoms) do
      :absent -> :error
      {:error, _} = error -> raise Error.from_nif(error, {:get, path})
      typed -> {:ok, plain(typed)}
    end
  end

  @doc "All of it, as a map. The option `:atoms` is as in `get/4`."
  @spec value(t(), atoms: :create) :: map()
  def value(%__MODULE__{ref: ref}, opts \\ []) do
    {nil, new_atoms} = ReadOptions.read!(opts, "Causeway.Doc.value/2", [:atoms])
    {:ok, value} = read(ref, [], nil, new_atoms)
    value
  end

  @doc """
  Whether the set at a path has an element, without reading the set.

  Where two kinds were written, that is the first set among them, or the one that the option `:kind` names.

      iex> doc = Causeway.Doc.new("a") |> Causeway.Doc.update({:add, [:tags], "new"})
      iex> {Causeway.Doc.member?(doc, [:tags], "new"), Causeway.Doc.member?(doc, [:tags], "old")}
      {true, false}
  """
  @spec member?(t(), path(), term(), kind: kind()) :: boolean()
  def member?(%__MODULE__{ref: ref}, path, element, opts \\ []) do
    {kind, _} = ReadOptions.read!(opts, "Causeway.Doc.member?/4", [:kind])

    case :causeway_nif.doc_member(ref, path, element, kind) do
      {:error, _} = error -> raise Error.from_nif(error, {:member?, path, element})
      answer -> answer == true
    end
  end

  @doc """
  The rights in the bounded counter at a path: `{here, elsewhere}`, what this replica may spend, and what
  all others together may. `{0, 0}` when there is none.
  """
  @spec rights(t(), path()) :: {non_neg_integer(), non_neg_integer()}
  def rights(%__MODULE__{ref: ref}, path) do
    case :causeway_nif.doc_rights(ref, path) do
      :absent -> {0, 0}
      {:error, _} = error -> raise Error.from_nif(error, {:rights, path})
      rights -> rights
    end
  end

  @doc """
  Everything that either document has seen, for the replica of the first.

  Commutative, associative and idempotent; in time proportional to what differs.
  """
  @spec merge(t(), t()) :: t()
  def merge(%__MODULE__{ref: a}, %__MODULE__{ref: b}),
    do: a |> :causeway_nif.doc_merge(b) |> wrap!()

  @doc """
  What has changed, as bytes for `apply_delta/2`.

  `:since` is the clock of the one who lacks it, or an earlier document. With a clock, the document's memory
  of its recent edits is asked; where that does not reach back far enough, the delta is the whole state.
  """
  @spec delta(t(), since: Clock.t() | t()) :: binary()
  def delta(%__MODULE__{ref: ref}, since: %Clock{bytes: bytes}) do
    ref |> :causeway_nif.doc_delta(bytes) |> bytes!("the clock")
  end

  def delta(%__MODULE__{ref: ref}, since: %__MODULE__{ref: old}) do
    old |> :causeway_nif.doc_delta_between(ref) |> bytes!("the delta")
  end

  def delta(%__MODULE__{}, opts) do
    raise ArgumentError,
          "Causeway.Doc.delta/2 takes since: a Causeway.Clock or an earlier Causeway.Doc, not " <>
            Error.short(opts)
  end

  @doc """
  Takes in a delta or an encoded document.

  `{:error, error}` with reason `{:gap, ...}` when it builds on edits that have not been seen here, and with
  `{:malformed, _}` or `{:unknown_version, _}` when the bytes cannot be read; the document is then as before.
  """
  @spec apply_delta(t(), binary()) :: {:ok, t()} | {:error, Error.t()}
  def apply_delta(%__MODULE__{ref: ref}, delta) when is_binary(delta) do
    ref |> :causeway_nif.doc_apply(delta) |> wrap([], "the delta")
  end

  @doc "`apply_delta/2` that raises."
  @spec apply_delta!(t(), binary()) :: t()
  def apply_delta!(doc, delta), do: ok!(apply_delta(doc, delta))

  @doc """
  One delta that does what both do, whichever comes first.

  They must overlap or adjoin: `{:error, _}` with reason `{:not_adjoining, nil}` when edits between them are in
  neither.
  """
  @spec join_deltas(binary(), binary()) :: {:ok, binary()} | {:error, Error.t()}
  def join_deltas(a, b) when is_binary(a) and is_binary(b) do
    case :causeway_nif.fragment_join(a, b) do
      joined when is_binary(joined) -> {:ok, joined}
      error -> {:error, Error.from_nif(error, [], "one of the deltas")}
    end
  end

  @doc """
  The changes from one document to another, in the order of their paths.

      iex> a = Causeway.Doc.new("a") |> Causeway.Doc.update([{:put, [:x], 1}, {:add, [:s], 1}])
      iex> b = Causeway.Doc.update(a, [{:put, [:x], 2}, {:add, [:s], 2}])
      iex> Causeway.Doc.diff(a, b)
      [{[:s], :set, MapSet.new([]), MapSet.new([2])}, {[:x], :register, 1, 2}]
  """
  @spec diff(t(), t(), atoms: :create) :: [change()]
  def diff(%__MODULE__{ref: old}, %__MODULE__{ref: new}, opts \\ []) do
    {nil, new_atoms} = ReadOptions.read!(opts, "Causeway.Doc.diff/3", [:atoms])

    case :causeway_nif.doc_diff(old, new, new_atoms) do
      {:error, _} = error -> raise Error.from_nif(error)
      changes -> Enum.map(changes, &plain_change/1)
    end
  end

  @doc "What the document has seen, to be sent, kept and compared."
  @spec clock(t()) :: Clock.t()
  def clock(%__MODULE__{ref: ref}), do: %Clock{bytes: bytes!(:causeway_nif.doc_clock(ref), "")}

  @doc """
  The hash of the content: 16 bytes, equal for equal content, kept up to date by every edit. It guards against
  accidents, not against forgery.
  """
  @spec hash(t()) :: <<_::128>>
  def hash(%__MODULE__{ref: ref}), do: :causeway_nif.doc_hash(ref)

  @doc """
  The hash of what is at a path and below, through maps; sixteen zero bytes when nothing is.

      iex> doc = Causeway.Doc.new("a") |> Causeway.Doc.update({:put, ["x", "y"], 1})
      iex> new = Causeway.Doc.update(doc, {:put, ["z"], 1})
      iex> Causeway.Doc.hash(doc, ["x"]) == Causeway.Doc.hash(new, ["x"])
      true
  """
  @spec hash(t(), path()) :: <<_::128>>
  def hash(%__MODULE__{ref: ref}, path) do
    case :causeway_nif.doc_hash(ref, path) do
      hash when is_binary(hash) -> hash
      error -> raise Error.from_nif(error, {:hash, path})
    end
  end

  @doc "The whole state as bytes, the same on all replicas that have seen the same edits."
  @spec encode(t()) :: binary()
  def encode(%__MODULE__{ref: ref}), do: bytes!(:causeway_nif.doc_encode(ref), "")

  @doc "A document of `encode/1`'s bytes, for this replica."
  @spec decode(binary(), replica()) :: {:ok, t()} | {:error, Error.t()}
  def decode(bytes, replica) when is_binary(bytes) do
    replica
    |> new()
    |> then(& &1.ref)
    |> :causeway_nif.doc_apply(bytes)
    |> wrap([], "the document")
  end

  @doc "`decode/2` that raises."
  @spec decode!(binary(), replica()) :: t()
  def decode!(bytes, replica), do: ok!(decode(bytes, replica))

  @doc "The document's replica, how many cells it has, and the bytes of memory they take."
  @spec info(t()) :: %{replica: replica(), cells: non_neg_integer(), bytes: non_neg_integer()}
  def info(%__MODULE__{ref: ref}) do
    case :causeway_nif.doc_info(ref) do
      {:error, _} = error -> raise Error.from_nif(error)
      {replica, cells, bytes} -> %{replica: replica, cells: cells, bytes: bytes}
    end
  end

  # ---- from the NIF ----

  defp wrap(result, ops, what \\ "the binary")
  defp wrap(ref, _ops, _what) when is_reference(ref), do: {:ok, %__MODULE__{ref: ref}}
  defp wrap(error, ops, what), do: {:error, Error.from_nif(error, ops, what)}

  defp wrap!(result), do: ok!(wrap(result, []))

  defp ok!({:ok, value}), do: value
  defp ok!({:error, error}), do: raise(error)

  defp bytes!(bytes, _what) when is_binary(bytes), do: bytes
  defp bytes!(error, what), do: raise(Error.from_nif(error, [], what))

  defp plain({kind, fields}) when kind in [:map, :map_grow] do
    Map.new(fields, fn {field, typed} -> {field, plain(typed)} end)
  end

  defp plain({kind, elements}) when kind in [:set, :set_grow, :set_remove_wins] do
    MapSet.new(elements)
  end

  defp plain({_kind, value}), do: value

  defp plain_change({path, kind, old, new}) when kind in [:set, :set_grow, :set_remove_wins] do
    {path, kind, MapSet.new(old), MapSet.new(new)}
  end

  defp plain_change({path, kind, old, new}), do: {path, kind, plain_side(old), plain_side(new)}

  defp plain_side(:absent), do: nil
  defp plain_side(typed), do: plain(typed)

  defimpl Inspect do
    import Inspect.Algebra

    # As much of the content as the options allow, and never the cost of a large document. What it takes in
    # memory is asked, which takes a walk, when there is little to walk through.
    @cells 1_000
    @bytes 512_000

    def inspect(doc, opts) do
      {replica, cells} = :causeway_nif.doc_about(doc.ref)

      concat([
        "#Causeway.Doc<",
        to_doc(replica, opts),
        ", ",
        content(doc, cells, opts),
        ">"
      ])
    end

    # Somebody else's atoms are not worth a place in the table for being looked at.
    defp content(doc, cells, opts) when cells <= @cells do
      if Causeway.Doc.info(doc).bytes <= @bytes,
        do: to_doc(Causeway.Doc.value(doc), opts),
        else: content(doc, cells)
    rescue
      Causeway.Error -> content(doc, cells)
    end

    defp content(doc, cells, _opts), do: content(doc, cells)

    defp content(doc, cells) do
      "#{cells} cells, " <> Base.encode16(Causeway.Doc.hash(doc), case: :lower)
    end
  end
end
