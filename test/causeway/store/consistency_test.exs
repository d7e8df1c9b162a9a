defmodule Causeway.Store.ConsistencyTest do
  # Random clients of several stores that are cut off from each other, stopped and killed meanwhile; what they
  # have read and written is checked by test/support/history.ex. What the clients do comes from the seed; when,
  # from the scheduler.
  use ExUnit.Case, async: false
  import Causeway.Property
  alias Causeway.{History, Store}
  alias Causeway.History.Tx

  @objects [:w, :x, :y, :z]

  # Supervisors report each process that is killed here.
  setup do
    %{level: level} = :logger.get_primary_config()
    :logger.set_primary_config(:level, :none)
    on_exit(fn -> :logger.set_primary_config(:level, level) end)
  end

  property "histories are causally consistent, on disks, with restarts", runs: 4 do
    run(3, true)
  end

  property "histories are causally consistent, in memory", runs: 6 do
    run(between(2, 4), false)
  end

  defp run(n, disks?) do
    dir =
      Path.join(
        System.tmp_dir!(),
        "causeway-#{System.pid()}-#{System.unique_integer([:positive])}"
      )

    names = for i <- 1..n, do: :"#{__MODULE__}.#{System.unique_integer([:positive])}.#{i}"
    world = for name <- names, into: %{}, do: {name, options(name, names, disks? && dir)}
    for {_, opts} <- world, do: open(opts)

    try do
      clients = for c <- 1..between(3, 6), do: client(c, names, below(1_000_000))
      trouble = trouble(world, disks?, below(1_000_000))
      txs = clients |> Task.await_many(60_000) |> Enum.concat()
      send(trouble.pid, :enough)
      Task.await(trouble, 60_000)
      for name <- names, other <- names, other != name, do: Store.connect(name, {other, node()})
      met!(names)
      assert History.check(txs, for(name <- names, do: {name, read(name)})) == []
      assert Enum.count(txs, &(&1.writes != [] and &1.outcome == :ok)) > 10
    after
      for name <- names, pid = Process.whereis(name), do: Supervisor.stop(pid)
      File.rm_rf!(dir)
    end
  end

  # Some know all others, and all know the first.
  defp options(name, [first | _] = names, dir) do
    peers = for other <- names, other != name, other == first or chance(50), do: {other, node()}
    opts = [name: name, replica: Atom.to_string(name), peers: peers, fsync: :never]
    if dir, do: [{:dir, Path.join(dir, Atom.to_string(name))} | opts], else: opts
  end

  defp open(opts) do
    {:ok, pid} = Store.start_link(opts)
    Process.unlink(pid)
  end

  defp met!(names, tries \\ 500) do
    if names |> Enum.map(&Store.hash/1) |> Enum.uniq() |> length() > 1 do
      assert tries > 0, "no convergence: #{inspect(Enum.map(names, &Store.info/1), pretty: true)}"
      Process.sleep(20)
      met!(names, tries - 1)
    end
  end

  # ---- clients ----

  defp client(c, names, seed) do
    Task.async(fn ->
      :rand.seed(:exsss, {seed, c, 0})
      at = one_of(names)
      {txs, _, _} = Enum.reduce(1..between(20, 60), {[], at, nil}, &step(&1, &2, c, names))
      txs
    end)
  end

  # When a client goes to another store, or the store was restarted, its clock goes with it.
  defp step(n, {txs, at, clock}, c, names) do
    Process.sleep(below(4))
    at = if chance(15), do: one_of(names), else: at
    tx = %Tx{id: c * 1_000 + n, session: {c, n}, store: at}

    {tx, clock} = transaction(tx, clock)
    {if(tx, do: [tx | txs], else: txs), at, clock}
  end

  defp transaction(tx, clock) do
    writes = Enum.take_random(@objects, between(1, 3))

    case between(1, 10) do
      1 -> blind(%{tx | writes: writes}, clock)
      2 -> undone(tx, writes)
      3 -> interactive(tx, clock)
      4 -> interactive(%{tx | writes: writes, certify: true}, clock)
      _ -> interactive(%{tx | writes: writes}, clock)
    end
    |> then(fn {tx, new} -> {tx, new || clock} end)
  end

  # A store that is being restarted; whether the transaction was committed is not known.
  defp stopped(fun) do
    fun.()
  rescue
    error in Store.Error -> {:error, error}
  catch
    :exit, _ -> :unknown
  end

  defp after_clock(nil), do: []
  defp after_clock(clock), do: [after: clock, timeout: 100]

  defp blind(tx, clock) do
    case stopped(fn -> Store.update(tx.store, ops(tx), after_clock(clock)) end) do
      {:ok, clock} -> {tx, clock}
      {:error, error} -> {nil, refused(error)}
      :unknown -> {%{tx | outcome: :unknown}, nil}
    end
  end

  defp interactive(tx, clock) do
    opts = [certify: tx.certify] ++ after_clock(clock)
    me = self()

    result =
      stopped(fn ->
        Store.transaction(
          tx.store,
          fn t ->
            reads = read(t)
            send(me, {:reads, tx.id, reads})
            Store.update!(t, ops(tx))
            own!(tx, reads, read(t))
          end,
          opts
        )
      end)

    id = tx.id

    reads =
      receive do
        {:reads, ^id, reads} -> reads
      after
        0 -> nil
      end

    case result do
      {:ok, _, clock} -> {%{tx | reads: reads}, clock}
      {:error, error} -> {nil, refused(error)}
      :unknown when reads == nil -> {nil, nil}
      :unknown -> {%{tx | reads: reads, outcome: :unknown}, nil}
    end
  end

  # A transaction sees its own writes, and besides only its snapshot.
  defp own!(tx, before, now) do
    for object <- @objects do
      if object in tx.writes do
        assert now[object]["all"] == MapSet.put(before[object]["all"], tx.id)
        assert now[object]["last"] == tx.id
      else
        assert now[object] == before[object]
      end
    end
  end

  defp undone(tx, writes) do
    fun = fn t ->
      Store.update!(t, ops(%{tx | writes: writes}))
      if chance(50), do: Store.rollback(t, :no), else: raise("no")
    end

    try do
      stopped(fn -> Store.transaction(tx.store, fun) end)
    rescue
      RuntimeError -> :ok
    end

    {nil, nil}
  end

  defp refused(%Store.Error{reason: {tag, _}})
       when tag in [:behind, :conflict, :not_running],
       do: nil

  defp refused(error), do: raise(error)

  defp ops(tx) do
    for object <- tx.writes,
        op <- [
          {:add, ["objects", object, "all"], tx.id},
          {:put, ["objects", object, "last"], tx.id},
          {:increment, ["objects", object, "count"]}
        ],
        do: op
  end

  # From a store, all at once.
  defp read(name) when is_atom(name) do
    {:ok, reads, _} = Store.transaction(name, &read/1)
    reads
  end

  defp read(tx) do
    for object <- @objects, into: %{} do
      {object, Store.get(tx, {"objects", object}, History.nothing())}
    end
  end

  # ---- trouble ----

  defp trouble(world, disks?, seed) do
    Task.async(fn ->
      :rand.seed(:exsss, {seed, 0, 0})
      make_trouble(world, Map.keys(world), disks?, 2)
    end)
  end

  defp make_trouble(world, names, disks?, crashes) do
    receive do
      :enough -> :ok
    after
      between(5, 40) ->
        [a, b] = Enum.take_random(names, 2)

        trouble = between(1, 10)

        case trouble do
          1 when crashes > 0 -> crash(a)
          2 when disks? -> restart(world[a])
          n when n <= 4 -> Store.disconnect(a, {b, node()})
          5 -> for({x, y} <- [{a, b}, {b, a}], do: Store.disconnect(x, {y, node()}))
          _ -> Store.connect(a, {b, node()})
        end

        make_trouble(world, names, disks?, if(trouble == 1, do: crashes - 1, else: crashes))
    end
  end

  defp restart(opts) do
    Supervisor.stop(opts[:name])
    Process.sleep(below(30))
    open(opts)
  end

  # Its supervisor starts it again, as long as that does not happen too often.
  defp crash(name) do
    committer = Process.whereis(Module.concat(name, Committer))
    pid = Process.whereis(Module.concat(name, Enum.random([Committer, LogWriter])))
    if pid, do: Process.exit(pid, :kill)
    if committer, do: back!(name, committer)
  end

  defp back!(name, old, tries \\ 5_000) do
    gate = Process.whereis(Module.concat(name, Rights))
    now = Process.whereis(Module.concat(name, Committer))

    if gate == nil or now in [nil, old] do
      assert tries > 0 and Process.whereis(name) != nil, "the store did not come back"
      Process.sleep(2)
      back!(name, old, tries - 1)
    end
  end
end
