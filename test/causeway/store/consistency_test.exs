defmodule Causeway.Store.ConsistencyTest do
  # Random clients and trouble of test/support/workload.ex: on stores in this VM, and in VMs of their own whose
  # clocks jump.
  use ExUnit.Case, async: false
  import Causeway.Cluster
  import Causeway.Property, except: [run: 3]
  alias Causeway.{Preload, Privileges, Store, WallClock, Workload}

  # Supervisors report each process that is killed here.
  setup do: Causeway.Silence.logger()

  # Each with how many times of ten or so it happens, and how often at most: more crashes of the committer, and the
  # supervisor would give up.
  @cuts [{:disconnect, 3, :any}, {:cut, 1, :any}, {:connect, 5, :any}]

  property "histories are causally consistent, on disks, with restarts", runs: 4 do
    run(3, dir(), [{:crash, 1, 2}, {:restart, 1, :any} | @cuts])
  end

  property "histories are causally consistent, in memory", runs: 6 do
    run(between(2, 4), nil, [{:crash, 1, 2} | @cuts])
  end

  defp run(n, dir, kinds) do
    places = for i <- 1..n, do: {:"#{unique(__MODULE__)}.#{i}", node()}
    world = Workload.world(places, fn {name, _} -> Atom.to_string(name) end, dir)
    for {place, opts} <- world, do: Workload.open(place, opts)

    try do
      Workload.run(%Workload{world: world, kinds: kinds})
    after
      for {name, _} <- places, pid = Process.whereis(name), do: Supervisor.stop(pid)
      if dir, do: File.rm_rf!(dir)
    end
  end

  defp dir do
    dir = Path.join(System.tmp_dir!(), "#{unique("causeway")}")
    File.mkdir_p!(dir)
    dir
  end

  # ---- wall clocks ----

  @preload Preload.build("wall_clock")

  @tag skip: Privileges.skip(@preload)
  property "histories are causally consistent, whatever the wall clocks do", runs: 3 do
    distribute!()
    dir = dir()
    places = for i <- 1..3, do: {__MODULE__.Store, :"#{unique("clock#{i}")}@127.0.0.1"}
    world = Workload.world(places, fn {_, node} -> hd(String.split("#{node}", "@")) end, dir)
    kinds = [{:jump, 6, :any}, {:kill, 1, 3}, {:crash, 1, 2}, {:restart, 1, :any} | @cuts]
    machines = :ets.new(:machines, [:public])
    load = %Workload{world: world, kinds: kinds, machines: machines, pause: 80}

    try do
      preload = Preload.path!(@preload)

      for {place, opts} <- world do
        Workload.start_machine(load, place, Path.join(dir, opts[:replica] <> ".clock"), preload)
        Workload.open(place, opts)
      end

      Workload.run(load)
    after
      for {_, %{peer: peer}} <- :ets.tab2list(machines),
          Process.alive?(peer),
          do: :peer.stop(peer)

      File.rm_rf!(dir)
    end
  end

  # Of what has not been seen, that is: what has been seen is replaced, whatever the clocks say.
  @tag skip: Privileges.skip(@preload)
  test "what a replica commits later stays, though its clock goes back, or another's was ahead" do
    distribute!()
    dir = dir()
    on_exit(fn -> File.rm_rf!(dir) end)
    [p, q] = for name <- ["p", "q"], do: %{name: unique(name), clock: Path.join(dir, name)}

    a = start(p, 5 * 3_600, [])
    b = start(q, 0, [elem(a, 1)])
    # p is five hours ahead; a transaction at q has begun before q knew.
    commit!(b, put(a, 1), 2, [a, b])
    # p goes back by fifteen.
    back = quote(do: Causeway.WallClock.set(unquote(p.clock), -10 * 3_600))
    commit!(a, [put(a, 3), back], 4, [a, b])
    # And is two days behind when it starts again.
    kill(a)
    a = start(p, -48 * 3_600, [elem(b, 1)])
    commit!(a, put(b, 5), 6, [a, b])
    commit!(b, put(a, 7), 8, [a, b])
  end

  defp start(at, seconds, peers) do
    preload = Preload.path!(@preload)
    WallClock.set(at.clock, seconds)
    {peer, _} = node = WallClock.start(at.name, preload, at.clock, true)
    on_exit(fn -> if Process.alive?(peer), do: :peer.stop(peer) end)
    opts = [name: __MODULE__.Store, replica: "#{at.name}", dir: at.clock <> ".store"]
    {:ok, _} = start_store(node, [{:peers, peers} | opts])
    node
  end

  @address {"register", 1}

  # In a transaction that has begun before something else was done.
  defp commit!(at, meanwhile, value, nodes) do
    code =
      quote do
        {:ok, tx} = Causeway.Store.begin(unquote(__MODULE__.Store))
        unquote_splicing(List.wrap(meanwhile))
        :ok = Causeway.Store.update(tx, {:put, unquote(@address), unquote(value)})
        {:ok, clock} = Causeway.Store.commit(tx)
        clock
      end

    args = [__MODULE__.Store, @address, nil, [after: eval(at, code)]]
    for node <- nodes, do: assert(on(node, Store, :get, args) == value)
  end

  defp put({_, node}, value) do
    quote do
      args = [unquote(__MODULE__.Store), {:put, unquote(@address), unquote(value)}]
      {:ok, clock} = :erpc.call(unquote(node), Causeway.Store, :update, args)
      :ok = Causeway.Store.wait(unquote(__MODULE__.Store), clock)
    end
  end
end
