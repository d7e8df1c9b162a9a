# The shop of examples/shop on three virtual machines: customers order everywhere at once, links are cut, one of
# the machines is killed in the middle of its commits and comes back, and in the end all is accounted for.
# `make demo` runs it, DEMO_SEED=n repeats a run's orders.

for file <- ~w(shop/lib/shop demo/screen demo/records demo/machine demo/customers) do
  Code.require_file("#{file}.ex", __DIR__)
end

defmodule ShopDemo do
  import Demo.Screen

  alias Causeway.{Clock, Store}
  alias Demo.{Customers, Machine, Records}

  @names ~w(paris tokyo lima)
  @store Shop.Store
  # Of these there is stock, and everybody wants them.
  @wanted 40
  @stock 2_000
  @seconds 3
  @deadline 60_000

  def run do
    seed = System.get_env("DEMO_SEED") || "#{:rand.uniform(999_999)}"
    line([:bright, "Causeway.Store: one shop on three machines"])
    line("seed #{seed}; DEMO_SEED=#{seed} makes the same orders again")
    dir = Path.join(System.tmp_dir!(), "causeway-demo-#{System.pid()}")

    try do
      world = start(dir, String.to_integer(seed))
      world |> offer() |> together() |> cut_off() |> kill() |> restart() |> heal() |> account()
      stop(world)
    after
      File.rm_rf!(dir)
    end
  end

  # ---- 1. start, and load ----

  defp start(dir, seed) do
    title("1. Three machines, each with a directory of its own")
    Machine.distribute()
    machines = for name <- @names, into: %{}, do: {name, Machine.start(name)}
    world = %{dir: dir, seed: seed, machines: machines, journal: Customers.journal()}
    for name <- @names, do: open(world, name)

    for {name, machine} <- ordered(world),
        do: line([name(name, 7), "process #{machine.os_pid}, #{path(world, name)}"])

    world
  end

  defp ordered(world), do: for(name <- @names, do: {name, world.machines[name]})
  defp path(world, name), do: Path.join(world.dir, name)

  defp open(world, name) do
    machine = world.machines[name]
    peers = for other <- @names, other != name, do: world.machines[other].node
    opts = [name: @store, replica: name, dir: path(world, name), fsync: :never, peers: peers]
    {:ok, _} = Machine.start_child(machine, {Store, opts})
  end

  defp store(world, name, fun, args \\ []),
    do: Machine.call(world.machines[name], Store, fun, [@store | args])

  defp offer(world) do
    title("2. The catalogue is split over them, and they meet")
    progress("reading the data set ...")
    {records, what} = Records.load()
    clear_progress()
    thirds = Enum.chunk_every(records, ceil(length(records) / 3))

    {micros, _} =
      :timer.tc(fn ->
        for {name, third} <- Enum.zip(@names, thirds) do
          Task.async(fn ->
            Machine.call(world.machines[name], Customers, :offer, [@store, third])
          end)
        end
        |> Task.await_many(:infinity)

        settle(world)
      end)

    line(
      "#{number(length(records))} #{what}: committed in thirds, and on all machines, in #{time(micros)}"
    )

    products = records |> Enum.take(@wanted) |> Enum.map(& &1.name)

    {:ok, _} =
      store(world, "paris", :update, [
        for(p <- products, do: {:increment, {"stock", p}, @stock, :counter_bounded})
      ])

    settle(world)

    line(
      "#{@wanted} of them are in stock, #{number(@stock)} each; all rights to sell are in paris at first"
    )

    show_hashes(world)
    Map.put(world, :products, products)
  end

  # ---- 3. orders ----

  defp together(world) do
    title("3. Customers order everywhere")
    head()
    world = customers(world)
    watch(world, @seconds)
    world
  end

  defp customers(world),
    do: for(name <- @names, reduce: world, do: (world -> customers(world, name)))

  defp customers(world, name) do
    args = [name, @store, world.products, world.seed, world.journal]
    {:ok, pid} = Machine.start_child(world.machines[name], {Customers, args})
    put_in(world.machines[name][:customers], pid)
  end

  defp cut_off(world) do
    title("4. The links of lima are cut; it goes on selling what it has")
    each_link("lima", &store(world, &1, :disconnect, [world.machines[&2].node]))
    head()
    watch(world, @seconds)
    world
  end

  defp each_link(name, fun) do
    for other <- @names, other != name, {a, b} <- [{name, other}, {other, name}], do: fun.(a, b)
  end

  defp kill(world) do
    machine = world.machines["tokyo"]
    title("5. kill -9 #{machine.os_pid}: tokyo dies in the middle of its commits")
    Machine.kill(machine)
    world = %{world | machines: Map.delete(world.machines, "tokyo")}
    head()
    watch(world, @seconds)
    world
  end

  defp restart(world) do
    title("6. tokyo comes back on its directory")
    world = put_in(world.machines["tokyo"], Machine.start("tokyo"))
    {micros, _} = :timer.tc(fn -> open(world, "tokyo") end)
    acknowledged = Customers.acknowledged(world.journal, "tokyo")
    lost = Enum.reject(acknowledged, &store(world, "tokyo", :get, [{"orders", &1}]))

    line(
      "recovered in #{time(micros)}; of #{number(length(acknowledged))} orders that it had confirmed, #{length(lost)} are missing"
    )

    if lost != [], do: fail("tokyo lost #{inspect(Enum.take(lost, 3))}")
    world = customers(world, "tokyo")
    head()
    watch(world, @seconds)
    world
  end

  defp heal(world) do
    title("7. The links of lima heal; all go on, then stop")
    each_link("lima", &store(world, &1, :connect, [world.machines[&2].node]))
    head()
    watch(world, @seconds)
    for {_, machine} <- world.machines, do: Customers.stop(machine.customers)
    {micros, _} = :timer.tc(fn -> settle(world) end)
    line("the last orders were everywhere #{time(micros)} later")
    world
  end

  # ---- the table ----

  defp head do
    line(
      dim("        orders/s   sold out/s     lag, writes   from peers      log     stock, rights")
    )
  end

  defp watch(world, seconds) do
    for _ <- 1..seconds, reduce: facts(world) do
      before ->
        Process.sleep(1_000)
        now = facts(world)
        for {name, _} <- ordered(world), now[name], do: row(name, now[name], before[name], now)
        line(dim(String.duplicate("-", 88)))
        now
    end
  end

  defp facts(world) do
    for {name, machine} <- world.machines, into: %{} do
      info = store(world, name, :info)
      rights = for p <- world.products, do: store(world, name, :rights, [{"stock", p}])

      {name,
       %{
         counts: Customers.counts(machine[:customers]),
         clock: Clock.to_map(info.clock),
         bytes: info.peers |> Enum.map(& &1.bytes) |> Enum.sum(),
         log: info.log.bytes,
         here: rights |> Enum.map(&elem(&1, 0)) |> Enum.sum()
       }}
    end
  end

  defp row(name, now, before, all) do
    {orders, refused} = now.counts
    {orders_before, refused_before} = if before, do: before.counts, else: {0, 0}

    line([
      name(name, 7),
      right(number(orders - orders_before), 9),
      right(number(refused - refused_before), 13),
      right(number(lag(now.clock, all)), 16),
      right(bytes(now.bytes), 13),
      right(bytes(now.log), 11),
      right(number(now.here), 18)
    ])
  end

  # Writes that somebody has and this one has not.
  defp lag(clock, all) do
    newest =
      Enum.reduce(all, %{}, fn {_, facts}, sum ->
        Map.merge(sum, facts.clock, fn _, a, b -> max(a, b) end)
      end)

    newest |> Enum.map(fn {replica, n} -> n - Map.get(clock, replica, 0) end) |> Enum.sum()
  end

  # ---- the end ----

  defp settle(world) do
    clock =
      for name <- @names,
          reduce: Clock.new(),
          do: (clock -> Clock.merge(clock, store(world, name, :clock)))

    for name <- @names do
      with {:error, error} <- store(world, name, :wait, [clock, @deadline]),
           do: fail("#{name}: #{Exception.message(error)}")
    end

    # Rights may have been moved meanwhile.
    if Enum.uniq(for name <- @names, do: store(world, name, :clock)) |> length() > 1,
      do: settle(world)
  end

  defp show_hashes(world),
    do: for(name <- @names, do: line([name(name, 7), hash(store(world, name, :hash))]))

  defp account(world) do
    title("8. The account")
    show_hashes(world)

    if length(Enum.uniq(for name <- @names, do: store(world, name, :hash))) > 1,
      do: fail("the machines are not equal")

    confirmed = Customers.acknowledged(world.journal)
    for name <- @names, do: account(world, name, confirmed)

    line([
      good("ok  "),
      "each of #{number(length(confirmed))} confirmed orders is on all three machines"
    ])

    sold = Machine.call(world.machines["paris"], Customers, :sold, [@store])
    for product <- world.products, do: balance(world, product, Map.get(sold, product, 0))
    total = sold |> Map.values() |> Enum.sum()

    line([
      good("ok  "),
      "#{number(total)} pieces sold of #{number(@wanted * @stock)}: what was ordered is what left the stock, for each product, and none was oversold"
    ])

    line()
    line(good("All three machines are equal, and nothing that was confirmed is lost."))
  end

  defp account(world, name, confirmed) do
    case Machine.call(world.machines[name], Customers, :missing, [@store, confirmed]) do
      [] ->
        :ok

      missing ->
        fail("#{name} lacks #{length(missing)} confirmed orders, #{inspect(hd(missing))} for one")
    end
  end

  defp balance(world, product, sold) do
    left = store(world, "lima", :get, [{"stock", product}, 0])

    if left < 0 or left + sold != @stock,
      do: fail("#{product}: #{@stock} pieces, #{sold} sold, but #{left} left")
  end

  defp stop(world), do: for({_, machine} <- world.machines, do: Machine.stop(machine))

  defp fail(why) do
    line(bad("\nFAILED: #{why}"))
    exit({:shutdown, 1})
  end
end

ShopDemo.run()
