defmodule Causeway.Store.Transaction do
  @moduledoc """
  A transaction under way, as `Causeway.Store.transaction/3` hands it to its function and
  `Causeway.Store.begin/2` returns it. It belongs to the process that began it; the functions of
  `Causeway.Store` that take a store take it as well.
  """

  alias Causeway.{Doc, Store}
  alias Causeway.Store.{Committer, Error, LogWriter, Options, Rights, Runtime}

  @enforce_keys [:store, :ref]
  defstruct [:store, :ref]

  @type t :: %__MODULE__{store: atom(), ref: reference()}

  # In the process dictionary. seen: the snapshot; doc: with the own writes; ops: newest first

  @doc false
  def begin(rt, opts) do
    opts = Options.transaction!(opts)

    with :ok <- await(rt, opts[:after], opts[:timeout]) do
      tx = %__MODULE__{store: rt.name, ref: make_ref()}
      doc = Runtime.doc(rt)
      Process.put(tx, %{rt: rt, seen: doc, doc: doc, ops: [], opts: opts})
      {:ok, tx}
    end
  end

  defp await(_rt, nil, _timeout), do: :ok

  defp await(rt, clock, timeout) do
    if Causeway.Clock.contains?(Doc.clock(Runtime.doc(rt)), clock),
      do: :ok,
      else: LogWriter.wait(rt, clock, timeout)
  end

  @doc false
  def doc(tx), do: state!(tx).doc

  @doc false
  def seen(tx), do: state!(tx).seen

  @doc false
  # Own writes are done to the snapshot, where the transaction sees them, and done again by the committer.
  def update(tx, ops) do
    state = state!(tx)
    ops = List.wrap(ops)

    with {:error, error} <- Doc.try_update(state.doc, ops),
         {:error, error} <- update_elsewhere(state, ops, error) do
      {:error, error}
    else
      {:ok, doc} ->
        Process.put(tx, %{state | doc: doc, ops: Enum.reverse(ops, state.ops)})
        :ok
    end
  end

  # Rights that are missing here are had from elsewhere, for the commit. The snapshot stays the same, but that in
  # the transaction's own view of it they have been here.
  defp update_elsewhere(state, ops, %{reason: {:insufficient_rights, _, _, _}} = error) do
    all = Enum.reverse(state.ops, ops)
    needs = Rights.needs(all)

    if Rights.obtain(state.rt, needs, state.opts[:timeout]) != :short,
      do: state.seen |> Rights.borrow(needs) |> Doc.try_update(all),
      else: {:error, error}
  end

  defp update_elsewhere(_state, _ops, error), do: {:error, error}

  @doc false
  def commit(tx) do
    %{rt: rt, seen: seen, ops: ops, opts: opts} = state!(tx)
    Process.delete(tx)
    if ops == [], do: {:ok, Doc.clock(seen)}, else: send_ops(rt, Enum.reverse(ops), seen, opts)
  end

  @doc false
  # `seen` is nil for operations that no reading led to.
  def send_ops(rt, ops, seen, opts) do
    with {:ok, ops} <- before_commit(rt.opts.before_commit, ops),
         certify = if(opts[:certify], do: objects(ops), else: []),
         {:ok, clock} <- commit(rt, ops, seen, certify, opts) do
      Rights.spent(rt, ops)
      after_commit(rt, ops, clock)
      {:ok, clock}
    end
  end

  # Rights that are missing here may be had from elsewhere. Others may spend them before this gets to it.
  defp commit(rt, ops, seen, certify, opts) do
    until = System.monotonic_time(:millisecond) + opts[:timeout]
    commit(rt, ops, seen, certify, call_timeout(opts), until)
  end

  defp commit(rt, ops, seen, certify, timeout, until) do
    with {:error, %Causeway.Error{reason: {:insufficient_rights, _, _, _}}} <-
           Committer.commit(rt, ops, seen, certify, timeout) do
      case Rights.obtain(rt, Rights.needs(ops), until - System.monotonic_time(:millisecond)) do
        :obtained -> commit(rt, ops, seen, certify, timeout, until)
        _ -> Committer.commit(rt, ops, seen, certify, timeout)
      end
    end
  end

  # The committer is late when the disk is; better a late answer than none.
  defp call_timeout(opts), do: max(opts[:timeout], 60_000)

  @doc false
  def rollback(tx) do
    state!(tx)
    Process.delete(tx)
    :ok
  end

  @doc false
  def open?(tx), do: Process.get(tx) != nil

  defp state!(tx) do
    Process.get(tx) || raise Error, reason: {:no_transaction, tx}
  end

  # Objects are what is certified: the first two fields of each path.
  defp objects(ops),
    do: ops |> Enum.flat_map(&paths/1) |> Enum.map(&Enum.take(&1, 2)) |> Enum.uniq()

  defp paths({:in, path, _kind, ops}) do
    if length(path) >= 2,
      do: [path],
      else: for(op <- List.wrap(ops), sub <- paths(op), do: path ++ sub)
  end

  defp paths(op), do: [elem(op, 1)]

  # ---- hooks ----

  defp before_commit([], ops), do: {:ok, ops}

  defp before_commit([hook | hooks], ops) do
    case hook.(ops) do
      {:ok, ops} ->
        before_commit(hooks, Enum.map(List.wrap(ops), &Store.op!/1))

      {:error, reason} ->
        {:error, %Error{reason: {:rolled_back, reason}}}

      other ->
        raise ArgumentError,
              "a before_commit hook returned #{inspect(other)} instead of {:ok, operations} or {:error, reason}"
    end
  end

  defp after_commit(rt, ops, clock) do
    for hook <- rt.opts.after_commit do
      try do
        hook.(%{operations: ops, clock: clock})
      catch
        kind, reason -> report(rt, hook, kind, reason, __STACKTRACE__)
      end
    end
  end

  defp report(rt, hook, kind, reason, stacktrace) do
    :logger.error(~c"causeway: an after_commit hook failed: ~ts", [
      Exception.format(kind, reason, stacktrace)
    ])

    Store.Events.emit(rt.name, :hook_failed, %{}, %{
      hook: hook,
      error: reason,
      stacktrace: stacktrace
    })
  end
end
