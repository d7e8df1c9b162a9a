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
  alias Causeway.Doc
  alias Causeway.Store.{Committer, Gate, Runtime}

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
    for {:decrement, path, n} <- Enum.map(ops, &spending/1), n > 0 do
      :ets.update_counter(rt.table, {:spent, path}, n, {{:spent, path}, 0})
    end

    :ok
  end

  defp spending({:decrement, path, n, :counter_bounded}), do: {:decrement, path, n}
  defp spending({:decrement, path, n}) when is_integer(n), do: {:decrement, path, n}
  defp spending({:decrement, path}), do: {:decrement, path, 1}
  defp spending(_), do: nil

  @doc """
  Gets rights from peers until this replica has `need`, or the time is over. `true` when it may be worth trying
  again.
  """
  def obtain(rt, path, need, timeout) do
    until = System.monotonic_time(:millisecond) + timeout
    ask_all(rt, path, need, until)
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
    request = {:give, make_ref(), path, max(need - here, 0), Runtime.actor(rt)}

    case ask(peer, request, until) do
      {:ok, 0, _clock} ->
        ask_richest(rt, path, need, until, poorer)

      {:ok, _given, clock} ->
        _ = Committer.wait(rt, clock, max(left(until), 0))
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

  def handle_call({:give, id, path, n, to}, _from, state) do
    case state.answers do
      %{^id => answer} ->
        {:reply, answer, state}

      _ ->
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
        Task.start(fn -> obtain(rt, path, min(2 * low, here + div(elsewhere + 1, 2)), @ask) end)

      _ ->
        :ok
    end
  end
end
