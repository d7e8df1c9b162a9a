# Causeway.Store beside what there is: commits, reads, replication between two VMs, recovery. Commits and
# reads are wall-clock rates, of all processes together. STORE_CELLS sets the size of the large store.

Code.require_file("support/bench.ex", __DIR__)

defmodule StoreBench do
  import Bench
  alias Causeway.{Clock, Doc, Store}

  def run do
    commits(:never, 4)
    commits(:always, 64)
    reads()
    replication()
    apart()
    recovery(1_000_000)

    large(
      String.to_integer(
        System.get_env("STORE_CELLS", if(quick?(), do: "1000000", else: "10000000"))
      )
    )
  end

  defp with_store(opts, fun) do
    dir = Path.join(System.tmp_dir!(), "causeway-bench-#{System.unique_integer([:positive])}")
    {:ok, _} = Store.start_link([name: Bench.Shop, replica: "bench", dir: dir] ++ opts)

    try do
      fun.(Bench.Shop, dir)
    after
      stop(Bench.Shop)
      File.rm_rf!(dir)
    end
  end

  # ---- commits and reads ----

  defp commits(fsync, writers) do
    with_store([fsync: fsync], fn store, dir ->
      each = div(if(fsync == :never, do: 100_000, else: 25_600), writers)

      write = fn one ->
        parallel(writers, fn w ->
          Enum.each(1..each, &one.(store, {"k", {w, rem(&1, 1000)}}, &1))
        end)
      end

      name = "fsync #{inspect(fsync)}, #{writers} writers"

      peers = if fsync == :always, do: [{"C loop", disk(dir, writers)}], else: delta_crdt_puts()

      line(
        "store",
        "commits, #{name}",
        rate(each * writers, fn -> write.(&put/3) end),
        "/s",
        peers
      )

      line(
        "store",
        "transactions that read, #{name}",
        rate(each * writers, fn -> write.(&read_and_put/3) end),
        "/s"
      )
    end)
  end

  defp put(store, address, value), do: {:ok, _} = Store.update(store, {:put, address, value})

  defp read_and_put(store, address, value) do
    {:ok, _, _} =
      Store.transaction(store, fn tx ->
        Store.get(tx, address)
        Store.update!(tx, {:put, address, value})
      end)
  end

  # A record of one put in a group of 64 takes some 40 bytes.
  defp disk(dir, group) do
    program = Path.expand(Path.join(System.get_env("BENCH_BIN", "_build/c/bin"), "group_commit"))
    {rate, 0} = System.cmd(program, [Path.join(dir, "disk"), "#{group}", "40"])
    rate |> String.trim() |> String.to_integer()
  end

  defp delta_crdt_puts do
    rate =
      peer(DeltaCrdt, fn ->
        {:ok, crdt} = DeltaCrdt.start_link(DeltaCrdt.AWLWWMap)

        rate(20_000, fn ->
          parallel(4, fn w ->
            Enum.each(1..5_000, &DeltaCrdt.put(crdt, {w, rem(&1, 1000)}, &1))
          end)
        end)
      end)

    [{"delta_crdt", rate}]
  end

  defp reads do
    with_store([fsync: :never], fn store, _dir ->
      {:ok, _} = Store.update(store, for(i <- 1..100_000, do: {:put, {"k", i}, i}))
      each = 500_000
      read = fn _ -> Enum.each(1..each, &Store.get(store, {"k", rem(&1 * 7919, 100_000)})) end

      line(
        "store",
        "reads of one object of 100000, 2 readers",
        rate(2 * each, fn -> parallel(2, read) end),
        "/s"
      )
    end)
  end

  # ---- two VMs ----

  defp replication do
    {peer, node} = start_node()
    {:ok, _} = Store.start_link(name: Bench.Shop, replica: "here")
    {:ok, _} = start_there(node, Store, [[name: Bench.Shop, replica: "there", peers: [node()]]])
    :ok = Store.wait(Bench.Shop, elem(put(Bench.Shop, {"k", 0}, 0), 1))

    ms =
      for round <- 1..if(quick?(), do: 1, else: 5) do
        1000 * seconds(fn -> puts(node, round) end)
      end

    line("store", "10000 puts here, visible there", median(ms), "ms", [
      {"delta_crdt", delta_crdt_sync(node)}
    ])

    stop(Bench.Shop)
    :peer.stop(peer)
  end

  defp puts(node, round) do
    clocks =
      parallel(4, fn w ->
        for(i <- 1..2500, do: put(Bench.Shop, {"k", {w, i}}, round)) |> List.last() |> elem(1)
      end)

    :ok = remote(node, Store, :wait, [Bench.Shop, Enum.reduce(clocks, &Clock.merge/2), 60_000])
  end

  # Tuned: its defaults lose entries when there are more than 200 at once.
  defp delta_crdt_sync(node) do
    peer(DeltaCrdt, fn ->
      opts = [sync_interval: 20, max_sync_size: :infinite]
      {:ok, a} = DeltaCrdt.start_link(DeltaCrdt.AWLWWMap, opts)
      {:ok, b} = start_there(node, DeltaCrdt, [DeltaCrdt.AWLWWMap, opts])
      DeltaCrdt.set_neighbours(a, [b])
      DeltaCrdt.set_neighbours(b, [a])

      1000 *
        seconds(fn ->
          Enum.each(1..10_000, &DeltaCrdt.put(a, &1, &1))
          await(fn -> map_size(Map.new(DeltaCrdt.to_map(b))) == 10_000 end)
        end)
    end)
  end

  defp await(fun), do: fun.() || (Process.sleep(10) && await(fun))

  # 1 % of 100k objects changed on each side while the link was cut.
  defp apart do
    here = node()
    {:ok, _} = Store.start_link(name: Bench.A, replica: "a")
    {:ok, _} = Store.start_link(name: Bench.B, replica: "b", peers: [{Bench.A, here}])
    {:ok, clock} = Store.update(Bench.A, for(e <- elements(1..100_000), do: {:put, {"k", e}, 1}))
    :ok = Store.wait(Bench.B, clock, 60_000)
    state = byte_size(Doc.encode(Store.snapshot(Bench.A)))
    for {x, y} <- [{Bench.A, Bench.B}, {Bench.B, Bench.A}], do: Store.disconnect(x, {y, here})

    clocks =
      for {store, range} <- [{Bench.A, 1..500}, {Bench.B, 501..1000}] do
        for(e <- elements(range), do: put(store, {"k", e}, 2)) |> List.last() |> elem(1)
      end

    before = cpu_ms()
    for {x, y} <- [{Bench.A, Bench.B}, {Bench.B, Bench.A}], do: Store.connect(x, {y, here})
    for store <- [Bench.A, Bench.B], clock <- clocks, do: :ok = Store.wait(store, clock, 60_000)
    true = Store.hash(Bench.A) == Store.hash(Bench.B)
    work = cpu_ms() - before

    bytes =
      Enum.sum(for store <- [Bench.A, Bench.B], peer <- Store.info(store).peers, do: peer.bytes)

    line("store", "1 % of 100000 changed apart, bytes", bytes / state * 100, "% of the state")
    line("store", "1 % of 100000 changed apart, work", work, "ms")
    stop(Bench.A)
    stop(Bench.B)
    forgotten(&{:put, {"k", &1}, 2}, "changed")
    forgotten(&{:delete, {"k", &1}}, "removed")
  end

  # The same where nobody remembers what was edited, as after a restart.
  defp forgotten(edit, what) do
    dir = Path.join(System.tmp_dir!(), "causeway-bench-#{System.unique_integer([:positive])}")
    here = node()
    a = [name: Bench.A, replica: "a", dir: dir]
    {:ok, _} = Store.start_link(a)
    {:ok, _} = Store.start_link(name: Bench.B, replica: "b", peers: [{Bench.A, here}])
    {:ok, clock} = Store.update(Bench.A, for(e <- elements(1..100_000), do: {:put, {"k", e}, 1}))
    :ok = Store.wait(Bench.B, clock, 60_000)
    state = byte_size(Doc.encode(Store.snapshot(Bench.A)))
    for {x, y} <- [{Bench.A, Bench.B}, {Bench.B, Bench.A}], do: Store.disconnect(x, {y, here})
    {:ok, clock} = Store.update(Bench.A, for(e <- elements(1..1_000), do: edit.(e)))
    :ok = Store.checkpoint(Bench.A)
    stop(Bench.A)
    {:ok, _} = Store.start_link(a)
    before = cpu_ms()
    for {x, y} <- [{Bench.A, Bench.B}, {Bench.B, Bench.A}], do: Store.connect(x, {y, here})
    :ok = Store.wait(Bench.B, clock, 60_000)
    work = cpu_ms() - before
    true = Store.hash(Bench.A) == Store.hash(Bench.B)
    [%{bytes: bytes}] = Store.info(Bench.B).peers

    for {figure, unit} <- [{bytes / state * 100, "% of the state"}, {work, "ms"}],
        do: line("store", "1 % of 100000 #{what} before a restart", figure, unit)

    for store <- [Bench.A, Bench.B], do: stop(store)
    File.rm_rf!(dir)
  end

  defp cpu_ms, do: elem(:erlang.statistics(:runtime), 0)

  # ---- recovery ----

  defp recovery(cells) do
    with_store([fsync: :never], fn store, dir ->
      fill(store, cells)
      :ok = Store.checkpoint(store)
      for i <- 1..10_000, do: put(store, {"k", element(i)}, 2)
      hash = Store.hash(store)
      stop(store)

      seconds =
        seconds(fn -> {:ok, _} = Store.start_link(name: store, replica: "bench", dir: dir) end)

      true = Store.hash(store) == hash
      line("store", "recovery of #{cells} cells and 10000 records", seconds, "s")
    end)
  end

  defp large(cells) do
    with_store([fsync: :never], fn store, dir ->
      fill(store, cells)

      line(
        "store",
        "checkpoint of #{cells} cells",
        seconds(fn -> :ok = Store.checkpoint(store) end),
        "s"
      )

      line(
        "store",
        "commits at #{cells} cells, 4 writers",
        rate(40_000, fn ->
          parallel(4, fn w ->
            Enum.each(1..10_000, &put(store, {"k", element(w * 1_000_000 + &1)}, 2))
          end)
        end),
        "/s"
      )

      memory = Store.info(store).bytes
      stop(store)

      seconds =
        seconds(fn -> {:ok, _} = Store.start_link(name: store, replica: "bench", dir: dir) end)

      line("store", "start with #{cells} cells", seconds, "s")
      line("store", "memory of a cell, of #{cells}", memory / cells, "bytes")
    end)
  end

  defp fill(store, cells) do
    1..cells
    |> Stream.chunk_every(10_000)
    |> Enum.each(fn chunk ->
      {:ok, _} = Store.update(store, for(i <- chunk, do: {:put, {"k", element(i)}, 1}))
    end)
  end

  # ---- nodes ----

  defp start_node do
    unless Node.alive?() do
      System.cmd("epmd", ["-daemon"])
      {:ok, _} = Node.start(:"bench#{System.pid()}@127.0.0.1")
    end

    paths = Enum.flat_map(:code.get_path(), &[~c"-pa", &1])
    name = :"there#{System.pid()}"
    {:ok, peer, node} = :peer.start_link(%{name: name, host: ~c"127.0.0.1", args: paths})
    {:ok, _} = remote(node, Application, :ensure_all_started, [:elixir])

    {peer, node}
  end

  # What a call starts would end with it; a supervisor of the kernel's is there anyway.
  defp start_there(node, module, args) do
    :supervisor.start_child({:kernel_safe_sup, node}, %{
      id: module,
      start: {module, :start_link, args}
    })
  end

  defp remote(node, module, fun, args), do: :erpc.call(node, module, fun, args, 120_000)
  defp stop(name), do: Supervisor.stop(name)
end

StoreBench.run()
