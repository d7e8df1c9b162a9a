defmodule Causeway.Workload do
  @moduledoc false
  # Random clients of several stores that are cut off from each other, stopped and killed meanwhile; what they have
  # read and written is checked by test/support/history.ex. What the clients do comes from the seed; when, from the
  # scheduler.
  #
  # A place is `{name, node}`, a store. What is done to it is done on its node: here, or in a VM of its own.
  import Causeway.{Cluster, Property}
  import ExUnit.Assertions
  alias Causeway.{Clock, History, Store, WallClock}
  alias Causeway.History.Tx
  alias Causeway.Store.Runtime

  @objects [:w, :x, :y, :z]
  @call_timeout 30_000

  # world: places and the options of their stores; machines: an ETS table of `{place, machine}`, empty when all
  # places are here; kinds: chances of each kind of trouble; pause: milliseconds at most between two steps
  defstruct world: %{}, machines: nil, kinds: [], pause: 4

  @doc "Stores of random peers: some know all others, and all know the first."
  def world([first | _] = places, replica, dir) do
    for {name, _} = place <- places, into: %{} do
      peers = for other <- places, other != place, other == first or chance(50), do: other
      opts = [name: name, replica: replica.(place), peers: peers, fsync: :never]
      {place, if(dir, do: [{:dir, Path.join(dir, opts[:replica])} | opts], else: opts)}
    end
  end

  @doc "Runs clients and trouble on stores that are open; asserts that what they saw was right."
  def run(load) do
    places = Map.keys(load.world)
    clients = for c <- 1..between(3, 6), do: client(c, places, load.pause, below(1_000_000))
    trouble = trouble(load, below(1_000_000))
    txs = clients |> Task.await_many(120_000) |> Enum.concat()
    send(trouble.pid, :enough)
    Task.await(trouble, 60_000)
    for a <- places, b <- places, a != b, do: store(a, :connect, [b])
    met!(places)
    finals = for place <- places, do: {place, call(place, :read, [])}
    assert History.check(txs, finals) == []
    assert Enum.count(txs, &(&1.writes != [] and &1.outcome == :ok)) > 10
  end

  defp met!(places, tries \\ 1_000) do
    if places |> Enum.map(&store(&1, :hash)) |> Enum.uniq() |> length() > 1 do
      infos = fn -> inspect(Enum.map(places, &store(&1, :info)), pretty: true) end
      assert tries > 0, "no convergence: #{infos.()}"
      Process.sleep(20)
      met!(places, tries - 1)
    end
  end

  # ---- places ----

  defp store({name, node}, fun, args \\ []), do: at(node, Store, fun, [name | args])
  defp call({name, node}, fun, args), do: at(node, __MODULE__, fun, [name | args])

  defp at(node, module, fun, args) when node == node(), do: apply(module, fun, args)
  defp at(node, module, fun, args), do: :erpc.call(node, module, fun, args, @call_timeout)

  @doc "Starts the store of a place."
  def open({_, node}, opts), do: {:ok, _} = at(node, Causeway.Cluster, :start_unlinked, [opts])

  # ---- clients ----

  defp client(c, places, pause, seed) do
    Task.async(fn ->
      :rand.seed(:exsss, {seed, c, 0})
      at = one_of(places)

      {txs, _, _} =
        Enum.reduce(1..between(20, 60), {[], at, nil}, &step(&1, &2, c, places, pause))

      txs
    end)
  end

  # When a client goes to another store, or the store was restarted, its clock goes with it.
  defp step(n, {txs, at, clock}, c, places, pause) do
    Process.sleep(below(pause))
    at = if chance(15), do: one_of(places), else: at
    long = if chance(30), do: below(pause), else: 0
    {kind, tx} = random(%Tx{id: c * 1_000 + n, session: {c, n}, store: at, pause: long})
    {tx, new} = transaction(kind, tx, clock)
    {if(tx, do: [tx | txs], else: txs), at, new || clock}
  end

  defp random(tx) do
    writes = Enum.take_random(@objects, between(1, 3))

    case between(1, 10) do
      1 -> {:blind, %{tx | writes: writes}}
      2 -> {one_of([:raised, :rolled_back]), %{tx | writes: writes}}
      3 -> {:interactive, tx}
      4 -> {:interactive, %{tx | writes: writes, certify: true}}
      _ -> {:interactive, %{tx | writes: writes}}
    end
  end

  # What is to be noted of it, if anything, and the client's new clock, if there is one.
  defp transaction(kind, tx, clock) do
    result =
      try do
        call(tx.store, kind, [tx, clock])
      catch
        # Its VM was killed.
        :error, {:erpc, reason} when reason in [:noconnection, :timeout] -> {:unknown, nil, nil}
      end

    case result do
      {:ok, reads, clock, actor} -> {committed(%{tx | reads: reads}, clock, actor), clock}
      {:unknown, reads, clock} -> {%{tx | reads: reads, outcome: :unknown}, clock}
      {:error, error} -> {nil, refused(error)}
      :undone -> {nil, nil}
    end
  end

  defp committed(tx, _clock, actor) when tx.writes == [] or actor == nil, do: tx
  defp committed(tx, clock, actor), do: %{tx | clock: Clock.to_map(clock), actor: actor}

  defp refused(%Store.Error{reason: {tag, _}})
       when tag in [:behind, :conflict, :not_running],
       do: nil

  defp refused(error), do: raise(error)

  # ---- on the store's node ----

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

  def blind(name, tx, clock) do
    case stopped(fn -> Store.update(name, ops(tx), after_clock(clock)) end) do
      {:ok, clock} -> {:ok, nil, clock, actor(name)}
      {:error, error} -> {:error, error}
      :unknown -> {:unknown, nil, nil}
    end
  end

  def interactive(name, tx, clock) do
    opts = [certify: tx.certify] ++ after_clock(clock)
    Process.delete(:read)

    result =
      stopped(fn ->
        Store.transaction(
          name,
          fn t ->
            reads = read(t)
            Process.put(:read, {reads, Store.clock(t)})
            Store.update!(t, ops(tx))
            own!(tx, reads, read(t))
            Process.sleep(tx.pause)
          end,
          opts
        )
      end)

    case {result, Process.get(:read)} do
      {{:ok, _, clock}, {reads, _}} -> {:ok, reads, clock, actor(name)}
      {{:error, error}, _} -> {:error, error}
      # It has not got so far as to write.
      {:unknown, nil} -> :undone
      {:unknown, {reads, clock}} -> {:unknown, reads, clock}
    end
  end

  # nil when the store has stopped since.
  defp actor(name) do
    name |> Runtime.fetch!() |> Runtime.actor()
  rescue
    ArgumentError -> nil
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

  def raised(name, tx, _clock), do: undone(name, tx, fn _ -> raise "no" end)
  def rolled_back(name, tx, _clock), do: undone(name, tx, &Store.rollback(&1, :no))

  defp undone(name, tx, leave) do
    try do
      stopped(fn -> Store.transaction(name, &(Store.update!(&1, ops(tx)) && leave.(&1))) end)
    rescue
      RuntimeError -> :ok
    end

    :undone
  end

  defp ops(tx) do
    for object <- tx.writes,
        op <- [
          {:add, ["objects", object, "all"], tx.id},
          {:put, ["objects", object, "last"], tx.id},
          {:increment, ["objects", object, "count"]}
        ],
        do: op
  end

  @doc "All objects: of a store, all at once, or in a transaction."
  def read(name) when is_atom(name) do
    {:ok, reads, _} = Store.transaction(name, &read/1)
    reads
  end

  def read(tx) do
    for object <- @objects, into: %{} do
      {object, Store.get(tx, {"objects", object}, History.nothing())}
    end
  end

  # ---- trouble ----

  defp trouble(load, seed) do
    Task.async(fn ->
      :rand.seed(:exsss, {seed, 0, 0})
      make_trouble(load)
    end)
  end

  # `{kind, chance, how often at most}`
  defp make_trouble(load) do
    receive do
      :enough -> :ok
    after
      between(5, 40) ->
        kind =
          one_of(for {kind, chance, times} <- load.kinds, times > 0, _ <- 1..chance, do: kind)

        [a, b] = load.world |> Map.keys() |> Enum.take_random(2)
        make(kind, a, b, load)
        make_trouble(%{load | kinds: Enum.map(load.kinds, &count(&1, kind))})
    end
  end

  defp count({kind, chance, times}, kind) when is_integer(times), do: {kind, chance, times - 1}
  defp count(other, _kind), do: other

  # Its supervisor starts it again, as long as that does not happen too often.
  defp make(:crash, place, _, _load), do: call(place, :crash, [])

  defp make(:restart, {_, _} = place, _, load),
    do: call(place, :restart, [load.world[place], below(30)])

  defp make(:disconnect, a, b, _load), do: store(a, :disconnect, [b])

  defp make(:cut, a, b, _load),
    do: for({x, y} <- [{a, b}, {b, a}], do: store(x, :disconnect, [y]))

  defp make(:connect, a, b, _load), do: store(a, :connect, [b])

  defp make(:jump, {_, node} = place, _, load) do
    machine = machine(load, place)
    WallClock.set(machine.clock, off())
    if machine.jumps?, do: WallClock.is_off!({machine.peer, node}, machine.clock)
  end

  defp make(:kill, {_, node} = place, _, load) do
    %{peer: peer} = machine = machine(load, place)
    kill({peer, node})
    start_machine(load, place, machine.clock, machine.preload)
    open(place, load.world[place])
  end

  defp machine(load, place), do: :ets.lookup_element(load.machines, place, 2)

  def crash(name) do
    committer = Process.whereis(Module.concat(name, Committer))
    pid = Process.whereis(Module.concat(name, one_of([Committer, LogWriter])))
    if pid, do: Process.exit(pid, :kill)
    if committer, do: back!(name, committer)
  end

  defp back!(name, old, tries \\ 5_000) do
    last = Process.whereis(Module.concat(name, Rights))
    now = Process.whereis(Module.concat(name, Committer))

    if last == nil or now in [nil, old] do
      assert tries > 0 and Process.whereis(name) != nil, "the store did not come back"
      Process.sleep(2)
      back!(name, old, tries - 1)
    end
  end

  def restart(name, opts, pause) do
    Supervisor.stop(name)
    Process.sleep(pause)
    {:ok, _} = start_unlinked(opts)
    :ok
  end

  # ---- machines, whose clocks go wrong ----

  @hour 3_600

  @doc "Starts the VM of a place, with a clock that is wrong."
  def start_machine(load, {_, node} = place, clock, preload) do
    name = "#{node}" |> String.split("@") |> hd() |> String.to_atom()
    jumps? = chance(50)
    WallClock.set(clock, off())
    {peer, ^node} = WallClock.start(name, preload, clock, jumps?)
    machine = %{peer: peer, clock: clock, preload: preload, jumps?: jumps?}
    :ets.insert(load.machines, {place, machine})
  end

  # Hours ahead or behind, or some seconds, or right again.
  defp off do
    one_of([0, between(-20, 20), between(-48 * @hour, 48 * @hour), between(-5, 5) * @hour])
  end
end
