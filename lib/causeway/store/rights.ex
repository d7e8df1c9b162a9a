defmodule Causeway.Store.Rights do
  @moduledoc false
  # Moves rights in bounded counters to where they are spent. A transfer is an operation like any other, so the
  # sum of rights stays what it is whatever gets lost or comes twice; all that can go wrong is that rights are
  # where they are not needed.
  #
  # Two things ask for rights: a transaction that is short of them, which waits, and a look at what was spent
  # lately (a moving average), which keeps enough for some moments in stock. Both ask the richest peer first. A
  # request has a number, and whoever has answered it answers the same when it comes again.

  use GenServer
  alias Causeway.{Clock, Doc}
  alias Causeway.Store.{Committer, Disconnected, Gate, LogWriter, Runtime}

  @ask 1_000
  # How many intervals' spending to keep in stock, and how fast the average follows.
  @stock 10
  @follow 0.3
  @remember 1_000

  defstruct [:rt, averages: %{}, answers: %{}, order: :queue.new()]

  def start_link(rt),
    do: GenServer.start_link(__MODULE__, rt, name: Runtime.process(rt.name, Rights))

  @doc "Notes what operations have spent, for the average."
  def spent(rt, ops) do
    for op <- ops, {path, n} <- spending(op), n < 0 do
      :ets.update_counter(rt.table, {:spent, path}, -n, {{:spent, path}, 0})
    end

    :ok
  rescue
    # The store has stopped since it committed them.
    ArgumentError -> :ok
  end

  @doc "The rights that must be here for operations that are done one after the other, by path."
  def needs(ops) do
    sums =
      for op <- ops, {path, n} <- spending(op), reduce: %{} do
        sums ->
          {sum, least} = Map.get(sums, path, {0, 0})
          Map.put(sums, path, {sum + n, min(least, sum + n)})
      end

    for {path, {_, least}} <- sums, least < 0, into: %{}, do: {path, -least}
  end

  # What an operation adds to the rights here, or takes, if it is one of a bounded counter.
  defp spending({:increment, path}), do: [{path, 1}]
  defp spending({:decrement, path}), do: [{path, -1}]
  defp spending({:transfer, path, n, _to}) when is_integer(n), do: [{path, -n}]
  defp spending({verb, path, n, :counter_bounded}), do: spending({verb, path, n})
  defp spending({:increment, path, n}) when is_integer(n), do: [{path, n}]
  defp spending({:decrement, path, n}) when is_integer(n), do: [{path, -n}]

  defp spending({:in, path, _kind, ops}),
    do: for(op <- List.wrap(ops), {rest, n} <- spending(op), do: {path ++ rest, n})

  defp spending(_), do: []

  @doc """
  Gets rights from peers until this replica has `needs`, or the time is over: `:obtained`, or `:enough` when they were
  here, or `:short`.
  """
  def obtain(rt, needs, timeout) do
    until = System.monotonic_time(:millisecond) + timeout
    doc = Runtime.doc(rt)

    missing =
      for {path, need} <- needs, {here, elsewhere} = Doc.rights(doc, path), here < need do
        {path, need, here + elsewhere}
      end

    cond do
      missing == [] -> :enough
      timeout <= 0 or Enum.any?(missing, fn {_, need, all} -> need > all end) -> :short
      Enum.all?(missing, fn {path, need, _} -> ask_all(rt, path, need, until) end) -> :obtained
      true -> :short
    end
  end

  @doc "A document like this one, to look at, in which other replicas have given `needs` to its own."
  def borrow(doc, needs) do
    others = doc |> Doc.clock() |> Clock.to_map() |> Map.keys()

    for {path, need} <- needs,
        other <- others,
        reduce: doc,
        do: (doc -> lend(doc, path, need, other))
  end

  defp lend(doc, path, need, other) do
    me = Doc.info(doc).replica
    lender = Doc.fork(doc, other)
    n = min(elem(Doc.rights(lender, path), 0), need - elem(Doc.rights(doc, path), 0))

    if other != me and n > 0,
      do: lender |> Doc.update({:transfer, path, n, me}) |> Doc.fork(me),
      else: doc
  end

  # ---- asking, in the process that needs them ----

  defp ask_all(rt, path, need, until) do
    {here, _} = Doc.rights(Runtime.doc(rt), path)

    cond do
      here >= need -> true
      left(until) <= 0 -> false
      true -> ask_richest(rt, path, need, until, rich(rt, path, until))
    end
  end

  defp left(until), do: until - System.monotonic_time(:millisecond)

  # Nobody has any that could be reached.
  defp ask_richest(_rt, _path, _need, _until, []), do: false

  defp ask_richest(rt, path, need, until, [{_, peer} | poorer]) do
    {here, _} = Doc.rights(Runtime.doc(rt), path)
    request = {:give, make_ref(), path, max(need - here, 0), Runtime.actor(rt), {rt.name, node()}}

    case ask(peer, request, until) do
      {:ok, 0, _clock} ->
        ask_richest(rt, path, need, until, poorer)

      {:ok, _given, clock} ->
        _ = LogWriter.wait(rt, clock, max(left(until), 0))
        ask_all(rt, path, need, until)

      :error ->
        ask_richest(rt, path, need, until, poorer)
    end
  end

  # A lost answer: the same request once more is not given twice.
  defp ask(peer, request, until, again \\ 1) do
    GenServer.call(peer, request, max(min(@ask, left(until)), 1))
  catch
    :exit, {:timeout, _} when again > 0 -> ask(peer, request, until, again - 1)
    :exit, _ -> :error
  end

  defp rich(rt, path, until) do
    peers = for {name, node} <- Gate.members(rt), do: {Runtime.process(name, Rights), node}

    peers
    |> Task.async_stream(&{rights_at(&1, path, until), &1},
      max_concurrency: 16,
      timeout: :infinity
    )
    |> Enum.flat_map(fn {:ok, {n, peer}} -> if(n > 0, do: [{n, peer}], else: []) end)
    |> Enum.sort(:desc)
  end

  defp rights_at(peer, path, until) do
    GenServer.call(peer, {:rights, path}, max(min(@ask, left(until)), 1))
  catch
    :exit, _ -> 0
  end

  # ---- giving ----

  @impl true
  def init(rt) do
    Process.send_after(self(), :look, rt.opts.rights_interval)
    {:ok, %__MODULE__{rt: rt}}
  end

  @impl true
  def handle_call({:rights, path}, _from, state) do
    {here, _} = Doc.rights(Runtime.doc(state.rt), path)
    {:reply, here, state}
  end

  def handle_call({:give, id, path, n, to, store}, _from, state) do
    case state.answers do
      %{^id => answer} ->
        {:reply, answer, state}

      _ ->
        # Who is not told of what is given cannot spend it.
        n = if Disconnected.member?(state.rt, store), do: 0, else: n
        answer = give(state.rt, path, n, to)
        {:reply, answer, remember(state, id, answer)}
    end
  end

  defp give(rt, path, n, to) do
    {here, _} = Doc.rights(Runtime.doc(rt), path)
    n = min(n, here)

    with true <- n > 0,
         {:ok, clock} <- Committer.commit(rt, [{:transfer, path, n, to}], nil, [], 5_000) do
      {:ok, n, clock}
    else
      _ -> {:ok, 0, nil}
    end
  end

  defp remember(state, id, answer) do
    state = %{
      state
      | answers: Map.put(state.answers, id, answer),
        order: :queue.in(id, state.order)
    }

    if map_size(state.answers) > @remember do
      {{:value, oldest}, order} = :queue.out(state.order)
      %{state | answers: Map.delete(state.answers, oldest), order: order}
    else
      state
    end
  end

  # ---- looking ahead ----

  @impl true
  def handle_info(:look, state) do
    state = average(state)
    for {path, rate} <- state.averages, do: restock(state.rt, path, ceil(rate * @stock))
    Process.send_after(self(), :look, state.rt.opts.rights_interval)
    {:noreply, state}
  end

  def handle_info(_, state), do: {:noreply, state}

  defp average(state) do
    spent =
      for [path] <- :ets.match(state.rt.table, {{:spent, :"$1"}, :_}),
          do: {path, take(state.rt, path)}

    averages =
      for {path, _} <- Enum.concat(spent, state.averages), into: %{} do
        n = :proplists.get_value(path, spent, 0)
        {path, Map.get(state.averages, path, 0) * (1 - @follow) + n * @follow}
      end

    %{state | averages: Map.filter(averages, fn {_, rate} -> rate >= 0.05 end)}
  end

  defp take(rt, path) do
    case :ets.take(rt.table, {:spent, path}) do
      [{_, n}] -> n
      [] -> 0
    end
  end

  # In a process of its own: peers that ask each other must not wait for each other.
  defp restock(rt, path, low) do
    case Doc.rights(Runtime.doc(rt), path) do
      {here, elsewhere} when here < low and elsewhere > 0 ->
        need = min(2 * low, here + div(elsewhere + 1, 2))
        Task.start(fn -> obtain(rt, %{path => need}, @ask) end)

      _ ->
        :ok
    end
  end
end
