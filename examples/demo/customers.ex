defmodule Demo.Customers do
  @moduledoc """
  Customers of one place: some processes that order without pause. Whatever is confirmed to them, they report to
  a journal outside of all machines.
  """
  use GenServer

  @customers 4

  # ---- the journal, on the machine that watches ----

  def journal do
    table = :ets.new(:journal, [:public, :set])
    pid = spawn_link(fn -> keep(table) end)
    %{table: table, pid: pid}
  end

  defp keep(table) do
    receive do
      {:confirmed, place, ids} -> :ets.insert(table, for(id <- ids, do: {id, place}))
      {:flush, from} -> send(from, :flushed)
    end

    keep(table)
  end

  def acknowledged(journal) do
    flush(journal)
    for {id, _} <- :ets.tab2list(journal.table), do: id
  end

  def acknowledged(journal, place) do
    flush(journal)
    for {id, ^place} <- :ets.tab2list(journal.table), do: id
  end

  defp flush(journal) do
    send(journal.pid, {:flush, self()})
    receive do: (:flushed -> :ok)
  end

  # ---- orders, on the machines ----

  def start_link([place, store, products, seed, journal]) do
    GenServer.start_link(__MODULE__, {place, store, products, seed, journal.pid})
  end

  @doc "Orders confirmed and refused so far."
  def counts(nil), do: {0, 0}
  def counts(pid), do: GenServer.call(pid, :counts)

  def stop(pid), do: GenServer.call(pid, :stop, 30_000)

  @impl true
  def init({place, store, products, seed, journal}) do
    Process.flag(:trap_exit, true)
    counts = :counters.new(3, [])
    products = List.to_tuple(products)
    # A place that comes back does not use its numbers again.
    run = System.unique_integer([:positive]) + System.os_time()

    customers =
      for n <- 1..@customers do
        state = %{
          place: place,
          store: store,
          products: products,
          journal: journal,
          counts: counts,
          run: run,
          n: n
        }

        spawn_link(fn ->
          :rand.seed(:exsss, {seed, :erlang.phash2(place), n}) && shop(state, 1)
        end)
      end

    {:ok, %{counts: counts, customers: customers}}
  end

  defp shop(state, i) do
    id = "#{state.place}-#{state.run}-#{state.n}-#{i}"
    items = for _ <- 1..:rand.uniform(3), into: %{}, do: {pick(state.products), :rand.uniform(2)}

    case Shop.order(id, "#{state.place}-#{state.n}", items, state.store) do
      {:ok, _clock} ->
        send(state.journal, {:confirmed, state.place, [id]})
        :counters.add(state.counts, 1, 1)

      {:error, :sold_out} ->
        :counters.add(state.counts, 2, 1)
    end

    # People take their time, or the shop would be empty at once.
    Process.sleep(1)
    if :counters.get(state.counts, 3) == 0, do: shop(state, i + 1)
  end

  # Some are wanted more than others.
  defp pick(products) do
    size = tuple_size(products)
    elem(products, min(:rand.uniform(size), :rand.uniform(size)) - 1)
  end

  @impl true
  def handle_call(:counts, _from, state),
    do: {:reply, {:counters.get(state.counts, 1), :counters.get(state.counts, 2)}, state}

  def handle_call(:stop, from, state) do
    :counters.put(state.counts, 3, 1)
    {:noreply, Map.put(state, :stopping, from)}
  end

  @impl true
  def handle_info({:EXIT, pid, _}, state) do
    state = %{state | customers: List.delete(state.customers, pid)}
    if state.customers == [] and state[:stopping], do: GenServer.reply(state.stopping, :ok)
    {:noreply, state}
  end

  # ---- for the account ----

  def offer(store, records) do
    for chunk <- Enum.chunk_every(records, 200) do
      {:ok, _} = Causeway.Store.update(store, Enum.flat_map(chunk, &product/1))
    end

    :ok
  end

  defp product(record) do
    puts =
      for {path, value} <- record.registers,
          value,
          do: {:put, ["products", record.name | path], value}

    adds =
      for {path, all} <- record.sets, e <- all, do: {:add, ["products", record.name | path], e}

    puts ++ adds
  end

  def missing(store, ids),
    do: Enum.reject(ids, &Causeway.Store.get(store, ["orders", &1, "customer"]))

  @doc "Pieces sold by product, of all orders."
  def sold(store) do
    store
    |> Causeway.Store.snapshot()
    |> Causeway.Doc.get(["orders"], %{})
    |> Enum.reduce(%{}, fn {_, order}, sum ->
      Map.merge(sum, order["items"], fn _, a, b -> a + b end)
    end)
  end
end
