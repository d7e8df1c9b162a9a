defmodule Causeway.Store do
  @moduledoc """
  A transactional, replicated store of mergeable objects, inside the application's own VM.

      children = [
        {Causeway.Store, name: Shop, replica: "paris", dir: "data/shop", peers: [:"shop@tokyo"]}
      ]

  Every replica commits by itself and at once. What is committed reaches the others whole, after everything it
  has seen, and merges: transactional causal consistency, and replicas that have seen the same are the same.

  ## Objects

  An object has an address, `{bucket, key}`, and is of any kind of `Causeway.Doc`, which says what there is and
  what concurrent edits do. What is inside a map is addressed by a list, `[bucket, key, field, ...]`.

      Causeway.Store.update(Shop, {:put, {"names", 1}, "Ada"})
      Causeway.Store.update(Shop, [{:add, ["carts", 1, "items"], "milk"}, {:increment, ["carts", 1, "visits"]}])
      Causeway.Store.get(Shop, {"carts", 1})
      #=> %{"items" => MapSet.new(["milk"]), "visits" => 1}

  ## Transactions

      {:ok, total, clock} =
        Causeway.Store.transaction(Shop, fn tx ->
          Causeway.Store.update!(tx, {:remove, ["carts", 1, "items"], "milk"})
          Causeway.Store.get(tx, ["carts", 1, "visits"], 0)
        end)

  A transaction reads one version of the store, sees its own writes, and is committed as a whole. It is never
  refused because of others, unless it asks for it (`:certify`): what it removes or replaces is what it has read,
  and merges with what they did. The clock it returns goes to whoever must see it next, on whichever replica:

      Causeway.Store.get(Shop, {"carts", 1}, nil, after: clock)

  ## What is kept

  With `:dir`, a commit is in the log before it returns; see `:fsync`. Without, peers have it, or nobody.

  ## Options

  #{Causeway.Store.Options.docs(:start)}

  ## Options of transactions

  #{Causeway.Store.Options.docs(:transaction)}
  """

  use Supervisor
  alias Causeway.{Clock, Doc}
  alias Causeway.Store.{Committer, Disconnected, Error, Feeder, Gate, Link, LogWriter, Options}
  alias Causeway.Store.{Publisher, Rights, Runtime, Transaction}

  @type address :: {bucket :: term(), key :: term()} | nonempty_list(term())

  @typedoc "An operation of `t:Causeway.Doc.op/0` with an address in the place of its path."
  @type op :: tuple()

  @type source :: atom() | Transaction.t()

  # Whoever can write here is a node of this cluster, which may do more than make atoms.
  @read [atoms: :create]

  @doc "Starts a store, as a child of a supervisor mostly. Options are those of the module."
  def start_link(opts) do
    opts = Options.start!(opts)

    case Supervisor.start_link(__MODULE__, opts, name: opts[:name]) do
      {:error, {:shutdown, {:failed_to_start_child, _, %Error{} = error}}} -> {:error, error}
      result -> result
    end
  end

  @doc false
  def child_spec(opts) do
    %{id: {__MODULE__, opts[:name]}, start: {__MODULE__, :start_link, [opts]}, type: :supervisor}
  end

  @impl true
  def init(opts) do
    rt = Runtime.new(opts)

    children = [
      {LogWriter, rt},
      {Committer, rt},
      {Publisher, rt},
      {DynamicSupervisor, name: Runtime.process(rt.name, Feeders)},
      {DynamicSupervisor, name: Runtime.process(rt.name, Links)},
      {Gate, rt},
      {Rights, rt}
    ]

    Supervisor.init(children, strategy: :rest_for_one)
  end

  # ---- reading ----

  @doc """
  The object at an address, or `default`. From a store: as it is now, or `:after` a clock; in a transaction: as it
  was when that began, with its own writes.

  Options: `:after` and `:timeout` as in transactions, `:kind` as in `Causeway.Doc.get/4`.
  """
  @spec get(source(), address(), term(), keyword()) :: term()
  def get(source, address, default \\ nil, opts \\ []) do
    case fetch(source, address, opts) do
      {:ok, value} -> value
      :error -> default
    end
  end

  @doc "`{:ok, object}`, or `:error` when there is none. Options as in `get/4`."
  @spec fetch(source(), address(), keyword()) :: {:ok, term()} | :error
  def fetch(source, address, opts \\ [])
  def fetch(source, address, []), do: source |> doc!() |> Doc.fetch(path!(address), @read)

  def fetch(source, address, opts) do
    {read, opts} = Keyword.split(opts, [:kind])
    source |> doc!(opts) |> Doc.fetch(path!(address), read ++ @read)
  end

  @doc "Whether the set at an address has an element, without reading the set."
  @spec member?(source(), address(), term()) :: boolean()
  def member?(source, address, element),
    do: source |> doc!() |> Doc.member?(path!(address), element)

  @doc "What may be spent of a bounded counter: `{here, elsewhere}`."
  @spec rights(source(), address()) :: {non_neg_integer(), non_neg_integer()}
  def rights(source, address), do: source |> doc!() |> Doc.rights(path!(address))

  @doc "What this replica, or the transaction's snapshot, has seen."
  @spec clock(source()) :: Clock.t()
  def clock(%Transaction{} = tx), do: tx |> Transaction.seen() |> Doc.clock()
  def clock(name), do: name |> doc!() |> Doc.clock()

  @doc "The hash of all content; equal on replicas that have seen the same."
  @spec hash(source()) :: <<_::128>>
  def hash(source), do: source |> doc!() |> Doc.hash()

  @doc """
  All of it as a `Causeway.Doc`, for what reads much: a version that stays as it is, at no cost.
  """
  @spec snapshot(source()) :: Doc.t()
  def snapshot(source), do: doc!(source)

  defp doc!(source, opts \\ [])
  defp doc!(%Transaction{} = tx, []), do: Transaction.doc(tx)
  defp doc!(%Transaction{}, opts), do: not_in_transaction!(opts)
  defp doc!(name, []), do: name |> Runtime.fetch!() |> Runtime.doc()

  defp doc!(name, opts) do
    opts = Options.transaction!(opts)
    if opts[:after], do: ok!(wait(name, opts[:after], opts[:timeout]))
    doc!(name)
  end

  @doc "Waits until this replica has seen a clock, `timeout` milliseconds at most."
  @spec wait(atom(), Clock.t(), non_neg_integer()) :: :ok | {:error, Error.t()}
  def wait(name, %Clock{} = clock, timeout \\ 5_000) do
    Options.transaction!(timeout: timeout)
    rt = Runtime.fetch!(name)

    if Clock.contains?(Doc.clock(Runtime.doc(rt)), clock),
      do: :ok,
      else: LogWriter.wait(rt, clock, timeout)
  end

  # ---- writing ----

  @doc """
  Does one operation, or several as one. On a store, that is a transaction of its own, and the result is
  `{:ok, clock}`; in a transaction `:ok`. An `{:error, error}` has done nothing.
  """
  @spec update(source(), op() | [op()], keyword()) ::
          {:ok, Clock.t()} | :ok | {:error, Error.t() | Causeway.Error.t()}
  def update(source, ops, opts \\ [])
  def update(%Transaction{} = tx, ops, []), do: Transaction.update(tx, ops!(ops))
  def update(%Transaction{}, _ops, opts), do: not_in_transaction!(opts)

  def update(name, ops, opts) do
    opts = Options.transaction!(opts)
    rt = Runtime.fetch!(name)

    with :ok <- if(opts[:after], do: wait(name, opts[:after], opts[:timeout]), else: :ok),
         do: Transaction.send_ops(rt, ops!(ops), nil, opts)
  end

  @doc "`update/3` that raises."
  @spec update!(source(), op() | [op()], keyword()) :: Clock.t() | :ok
  def update!(source, ops, opts \\ []), do: ok!(update(source, ops, opts))

  @doc """
  Runs a function in a transaction: `{:ok, what it returned, clock}`.

  When it raises, throws or exits, nothing is committed and the caller sees that; after `rollback/2` the result is
  `{:error, error}` with reason `{:rolled_back, reason}`. So it is, with other reasons, when it cannot be
  committed. The function runs once.
  """
  @spec transaction(atom(), (Transaction.t() -> result), keyword()) ::
          {:ok, result, Clock.t()} | {:error, Error.t() | Causeway.Error.t()}
        when result: term()
  def transaction(name, fun, opts \\ []) when is_function(fun, 1) do
    with {:ok, tx} <- begin(name, opts), do: run(tx, fun)
  end

  defp run(tx, fun) do
    result = fun.(tx)
    with {:ok, clock} <- commit(tx), do: {:ok, result, clock}
  catch
    :throw, {:causeway_rollback, ^tx, reason} -> {:error, %Error{reason: {:rolled_back, reason}}}
  after
    if Transaction.open?(tx), do: Transaction.rollback(tx)
  end

  @doc "Begins a transaction that `commit/1` or `rollback/1` ends, for code that cannot be a function."
  @spec begin(atom(), keyword()) :: {:ok, Transaction.t()} | {:error, Error.t()}
  def begin(name, opts \\ []), do: name |> Runtime.fetch!() |> Transaction.begin(opts)

  @doc "Commits what `begin/2` began: `{:ok, clock}`, or `{:error, error}` and nothing is committed."
  @spec commit(Transaction.t()) :: {:ok, Clock.t()} | {:error, Error.t() | Causeway.Error.t()}
  def commit(%Transaction{} = tx), do: Transaction.commit(tx)

  @doc "Forgets what `begin/2` began."
  @spec rollback(Transaction.t()) :: :ok
  def rollback(%Transaction{} = tx), do: Transaction.rollback(tx)

  @doc "Leaves the function of `transaction/3`, of which nothing is committed."
  @spec rollback(Transaction.t(), term()) :: no_return()
  def rollback(%Transaction{} = tx, reason) do
    Transaction.rollback(tx)
    throw({:causeway_rollback, tx, reason})
  end

  # ---- subscribing ----

  @doc """
  Sends the caller a `Causeway.Store.Event` for each transaction that changes something below a prefix: `[]` for
  everything, `[bucket]`, or an address. Returns `{:ok, ref, snapshot}`: what is in the snapshot is not told again.

  With `:since`, the clock of an earlier event, it goes on after that one; where this replica does not remember
  so far back, with a jump. It lasts until the caller or the store ends, or `unsubscribe/2`.
  """
  @spec subscribe(atom(), [] | [term()] | address(), since: Clock.t()) ::
          {:ok, reference(), Doc.t()}
  def subscribe(name, prefix \\ [], opts \\ []) do
    opts = Options.subscribe!(opts)
    name |> Runtime.running!() |> Publisher.subscribe(prefix!(prefix), opts[:since])
  end

  @doc "Ends what `subscribe/3` began. Events that are in the mailbox stay there."
  @spec unsubscribe(atom(), reference()) :: :ok
  def unsubscribe(name, ref), do: name |> Runtime.running!() |> Publisher.unsubscribe(ref)

  # ---- the store itself ----

  @doc "Writes a checkpoint now, so that the next start is fast."
  @spec checkpoint(atom()) :: :ok | {:error, Error.t()}
  def checkpoint(name), do: name |> Runtime.fetch!() |> LogWriter.checkpoint()

  @doc "Replicates with a peer, a node or `{name, node}`, from now on."
  @spec connect(atom(), node() | {atom(), node()}) :: :ok | {:error, Error.t()}
  def connect(name, peer), do: name |> Runtime.running!() |> Gate.connect(Options.peer!(peer))

  @doc """
  Takes nothing from a peer any more, and gives it nothing, until `connect/2`. With `:dir`, that is so over restarts,
  also when `:peers` has it. An `{:error, error}`, of the disk, has done nothing.
  """
  @spec disconnect(atom(), node() | {atom(), node()}) :: :ok | {:error, Error.t()}
  def disconnect(name, peer),
    do: name |> Runtime.running!() |> Gate.disconnect(Options.peer!(peer))

  @doc """
  What there is to know: `:replica` and `:actor`, `:cells` and `:bytes` in memory, `:clock`, `:version`, `:log` and
  `:checkpoint`; `:disconnected`, those that are by `disconnect/2`; `:peers`, each with

    * whether it is `:connected`, or the `:reason` why not
    * `:lag`, how many writes of those here it is not known to have; nil when it was never connected
    * `:clock`, what it had seen when it was connected last
    * the `:bytes` and `:deltas` that came from it
  """
  @spec info(atom()) :: map()
  def info(name) do
    rt = Runtime.fetch!(name)
    doc = Runtime.doc(rt)
    facts = Map.merge(LogWriter.info(rt), Map.take(Doc.info(doc), [:cells, :bytes]))

    Map.merge(facts, %{
      replica: rt.opts.replica,
      clock: Doc.clock(doc),
      dir: rt.opts[:dir],
      peers: for(peer <- Link.infos(rt), do: Map.put(peer, :lag, Feeder.lag(rt, peer.peer))),
      disconnected: rt |> Disconnected.all() |> Enum.sort()
    })
  end

  # ---- addresses ----

  defp path!({bucket, key}), do: [bucket, key]
  defp path!([_, _ | _] = path), do: path
  defp path!(other), do: raise(Error, reason: {:bad_address, other})

  defp prefix!([]), do: []
  defp prefix!([bucket]), do: [bucket]
  defp prefix!(address), do: path!(address)

  defp ops!(ops), do: ops |> List.wrap() |> Enum.map(&op!/1)

  @doc false
  def op!({:in, address, kind, ops}), do: {:in, path!(address), kind, ops}

  def op!(op) when is_tuple(op) and tuple_size(op) > 1, do: put_elem(op, 1, path!(elem(op, 1)))
  def op!(other), do: raise(Causeway.Error, reason: {:bad_operation, other})

  defp not_in_transaction!(opts) do
    why = "is for the transaction as a whole, not for what is done in it"
    Options.transaction!(opts)
    raise Error, reason: {:bad_option, opts |> Keyword.keys() |> hd(), why}
  end

  defp ok!(:ok), do: :ok
  defp ok!({:ok, value}), do: value
  defp ok!({:error, error}), do: raise(error)
end
