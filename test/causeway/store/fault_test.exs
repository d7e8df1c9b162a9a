defmodule Causeway.Store.FaultTest do
  # A disk that does not do what it should, by test/preload/disk_faults.c, beneath a VM of its own: what is not
  # acknowledged is not there, what is acknowledged stays, and the store says which file it is and what the system said.
  use Causeway.StoreCase, async: false
  import Causeway.StoreCase, except: [kill: 1]
  import Causeway.Cluster
  alias Causeway.{Preload, Privileges}

  @preload Preload.build("disk_faults")
  @moduletag skip: Privileges.skip(@preload)
  @moduletag timeout: 120_000

  @eio 5
  @store __MODULE__.Store

  setup %{dir: dir} do
    distribute!()
    orders = Path.join(dir, "faults")
    on_exit(fn -> File.rm(orders) end)
    {:ok, orders: orders, dir: Path.join(dir, "store")}
  end

  # ---- the machine ----

  # A line a fault; see test/preload/disk_faults.c.
  defp break(%{orders: orders}, faults) do
    File.write!(orders <> ".new", for({call, path} <- faults, do: "#{call} #{@eio} #{path}\n"))
    File.rename!(orders <> ".new", orders)
  end

  defp mend(%{orders: orders}), do: File.rm!(orders)

  defp machine(%{orders: orders}) do
    env = Preload.env(Preload.path!(@preload), "DISK_FAULTS", orders)
    {peer, _} = node = start_node("faults", env: env)
    Process.unlink(peer)
    on_exit(fn -> if Process.alive?(peer), do: :peer.stop(peer) end)
    # What it logs comes here, as what is logged here does.
    :ok = on(node, :logger, :set_primary_config, [:level, :warning])
    filter = {&Causeway.StoreCase.log/2, self()}
    :ok = on(node, :logger, :add_primary_filter, [:test, filter])
    node
  end

  defp open(node, %{dir: dir}, opts) do
    start_store(node, Keyword.merge([name: @store, replica: "paris", dir: dir], opts))
  end

  defp open!(node, world, opts) do
    {:ok, _} = open(node, world, opts)
    node
  end

  defp start(world, opts), do: world |> machine() |> open!(world, opts)

  # A VM that dies at once, and another one.
  defp restart(node, world, opts) do
    kill(node)
    start(world, opts)
  end

  defp store(node, fun, args \\ []), do: on(node, Store, fun, [@store | args])

  # An exit is of a store that stopped before it could answer.
  defp add(node, n) do
    store(node, :update, [[{:add, {"n", "set"}, n}, {:put, {"n", "last"}, n}]])
  catch
    :exit, _ -> :unknown
  end

  defp added(node), do: store(node, :get, [{"n", "set"}, MapSet.new()])

  # ---- the log ----

  # A write that fails, one that fails half way, and data that does not get to the disk, or is forgotten then.
  for call <- ["write", "half", "sync", "lose"] do
    test "the log, #{call}: commits fail, and go on when the disk does", world do
      node = start(world, fsync: :always)
      {:ok, clock} = add(node, 1)
      hash = store(node, :hash)
      {:ok, ref, _} = eval(node, subscribe(), name: @store, test: self())
      break(world, [{unquote(call), "/log-"}])

      for n <- 2..4 do
        assert {:error, %Error{reason: {:disk, action, path, :eio}} = error} = add(node, n)
        assert action =~ "log"
        assert path =~ ~r"^#{world.dir}/log-\d{16}$"
        assert Exception.message(error) =~ ~r"#{path}: I/O error \(:eio\)"
      end

      assert {store(node, :hash), store(node, :clock)} == {hash, clock}
      mend(world)
      {:ok, clock} = add(node, 5)
      assert added(node) == MapSet.new([1, 5])
      # Nobody was told of what was not committed.
      assert_receive {:causeway, ^ref, %{clock: ^clock, changes: changes, jump: false}}, 5_000
      assert {["n", "set"], :set, MapSet.new(), MapSet.new([5])} in changes
      refute_received {:causeway, ^ref, _}

      # A VM that dies while the disk is broken.
      break(world, [{unquote(call), "/log-"}])
      assert {:error, _} = add(node, 6)
      kill(node)
      mend(world)
      node = start(world, fsync: :always)
      assert added(node) == MapSet.new([1, 5])
      assert store(node, :clock) == clock
      {:ok, _} = add(node, 7)
      node = restart(node, world, [])
      assert added(node) == MapSet.new([1, 5, 7])
    end
  end

  defp subscribe do
    quote do
      me = self()

      spawn(fn ->
        send(me, {:subscribed, Causeway.Store.subscribe(name)})

        forward = fn forward ->
          receive(do: (event -> send(test, event)))
          forward.(forward)
        end

        forward.(forward)
      end)

      receive(do: ({:subscribed, subscribed} -> subscribed))
    end
  end

  test "many writers, and a disk that comes and goes", world do
    node = start(world, fsync: :always)

    writer =
      quote do
        Stream.iterate(1, &(&1 + 1))
        |> Stream.take_while(fn _ -> not File.exists?(enough) end)
        |> Enum.map(&{{w, &1}, Causeway.Store.update(name, {:add, {"n", "set"}, {w, &1}})})
      end

    enough = world.orders <> ".enough"

    writers =
      for w <- 1..4 do
        Task.async(fn -> eval(node, writer, [name: @store, w: w, enough: enough], 60_000) end)
      end

    for call <- ["write", "half", "sync", "lose"] |> Stream.cycle() |> Enum.take(20) do
      Process.sleep(:rand.uniform(10))
      break(world, [{call, "/log-"}])
      Process.sleep(:rand.uniform(10))
      mend(world)
    end

    File.write!(enough, "")
    results = writers |> Task.await_many(60_000) |> Enum.concat()
    acknowledged = for {id, {:ok, _}} <- results, into: MapSet.new(), do: id
    assert Enum.any?(results, &match?({_, {:error, %Error{reason: {:disk, _, _, :eio}}}}, &1))
    assert added(node) == acknowledged
    node = restart(node, world, [])
    assert added(node) == acknowledged
  end

  # What was half written cannot be taken back: only a new start can tell what is there.
  for call <- ["half", "sync"] do
    test "the log, #{call}, and what stands there cannot be taken back", world do
      node = start(world, fsync: :always)
      {:ok, _} = add(node, 1)
      break(world, [{unquote(call), "/log-"}, {"truncate", "/log-"}])
      result = add(node, 2)
      refute match?({:ok, _}, result)
      mend(world)

      # It may have stopped, which is for its supervisor to see.
      eventually(fn ->
        if on(node, Process, :whereis, [@store]) == nil, do: open(node, world, [])
        match?({:ok, _}, add(node, 3))
      end)

      there = added(node)
      assert 1 in there and 3 in there
      # What was refused is not there; what was not answered may be, as a whole.
      if match?({:error, _}, result), do: refute(2 in there)
      hash = store(node, :hash)
      node = restart(node, world, [])
      assert {added(node), store(node, :hash)} == {there, hash}
    end
  end

  test "data that does not get to the disk in time is reported, and lost by no crash of the VM",
       world do
    node = start(world, fsync: {:every, 10})
    {:ok, _} = add(node, 1)
    break(world, [{"sync", "/log-"}])
    {:ok, _} = add(node, 2)
    assert_receive {:logged, _, text}, 5_000
    assert text =~ ~r"could not sync #{world.dir}/log-\d+: I/O error"
    kill(node)
    mend(world)
    node = start(world, fsync: {:every, 10})
    assert added(node) == MapSet.new([1, 2])
  end

  # The system says so once, and then that all is well.
  test "what a failed sync has forgotten is written again, as a checkpoint", world do
    for fsync <- [{:every, 10}, :never] do
      world = %{world | dir: Path.join(world.dir, inspect(fsync))}
      node = start(world, fsync: fsync)
      {:ok, _} = add(node, 1)
      break(world, [{"lose", "/log-"}])
      {:ok, _} = add(node, 2)
      if fsync == :never, do: {:error, _} = store(node, :checkpoint), else: Process.sleep(100)
      {:ok, _} = add(node, 3)
      mend(world)
      writer = Module.concat(@store, LogWriter)

      eventually(fn ->
        %{rewrite: rewrite, checkpoint: running} = on(node, :sys, :get_state, [writer])
        not rewrite and running == nil and store(node, :info).checkpoint.number > 0
      end)

      {:ok, _} = add(node, 4)
      node = restart(node, world, fsync: fsync)
      assert added(node) == MapSet.new(1..4)
      kill(node)
    end
  end

  # ---- checkpoints ----

  for {call, file} <- [
        {"write", "/checkpoint-"},
        {"half", "/checkpoint-"},
        {"rename", "/checkpoint-"},
        {"sync", "/log-"}
      ] do
    test "a checkpoint, #{call} of #{file}: the log has it all, and the next one is made",
         world do
      node = start(world, fsync: :never)
      for n <- 1..3, do: {:ok, _} = add(node, n)
      assert store(node, :checkpoint) == :ok
      for n <- 4..6, do: {:ok, _} = add(node, n)
      break(world, [{unquote(call), unquote(file)}])

      assert {:error, %Error{reason: {:disk, _, path, :eio}} = error} = store(node, :checkpoint)
      assert path =~ ~r"^#{world.dir}#{unquote(file)}\d{16}$"
      assert Exception.message(error) =~ ~r"could not \w+ #{path}: I/O error"
      assert_receive {:logged, _, text}, 1_000
      assert text =~ path and text =~ "no checkpoint"

      {:ok, _} = add(node, 7)
      hash = store(node, :hash)
      kill(node)
      mend(world)
      node = start(world, fsync: :never)
      assert {added(node), store(node, :hash)} == {MapSet.new(1..7), hash}
      assert Enum.filter(files(world.dir), &String.ends_with?(&1, ".new")) == []

      assert store(node, :checkpoint) == :ok
      assert length(checkpoints(world.dir)) == 1
      node = restart(node, world, [])
      assert {added(node), store(node, :hash)} == {MapSet.new(1..7), hash}
    end
  end

  test "a checkpoint in the background that fails is reported; another one follows", world do
    node = start(world, fsync: :never)
    break(world, [{"write", "/checkpoint-"}])
    blob = fn -> store(node, :update, [{:put, {"blob", 1}, :rand.bytes(1_000_000)}]) end
    for _ <- 1..9, do: {:ok, _} = blob.()
    assert_receive {:logged, _, text}, 5_000
    assert text =~ ~r"no checkpoint: could not write #{world.dir}/checkpoint-\d+: I/O error"
    {:ok, _} = add(node, 1)
    mend(world)
    for _ <- 1..9, do: {:ok, _} = blob.()
    eventually(fn -> checkpoints(world.dir) != [] end)
    hash = store(node, :hash)
    node = restart(node, world, [])
    assert {added(node), store(node, :hash)} == {MapSet.new([1]), hash}
  end

  # ---- whom it does not replicate with ----

  for call <- ["write", "rename"] do
    test "who is disconnected, #{call}: it is not, and the store says so", world do
      node = start(world, peers: [:other@host])
      break(world, [{unquote(call), "/DISCONNECTED"}])

      assert {:error, %Error{reason: {:disk, "write", path, :eio}}} =
               store(node, :disconnect, [:other@host])

      assert path == Path.join(world.dir, "DISCONNECTED")
      assert [%{peer: {_, :other@host}}] = store(node, :info).peers
      mend(world)
      :ok = store(node, :disconnect, [:other@host])
      break(world, [{unquote(call), "/DISCONNECTED"}])
      assert {:error, %Error{reason: {:disk, _, _, :eio}}} = store(node, :connect, [:other@host])
      assert store(node, :info).peers == []
      mend(world)
      node = restart(node, world, peers: [:other@host])
      assert store(node, :info).peers == []
      {:ok, _} = add(node, 1)
    end
  end

  # ---- starting ----

  test "a disk that cannot be read, or written to, when the store starts", world do
    node = start(world, fsync: :always)
    for n <- 1..3, do: {:ok, _} = add(node, n)
    assert store(node, :checkpoint) == :ok
    for n <- 4..6, do: {:ok, _} = add(node, n)
    hash = store(node, :hash)
    :ok = on(node, Supervisor, :stop, [@store])

    for {call, file} <- [
          {"read", "/IDENTITY"},
          {"write", "/IDENTITY"},
          {"rename", "/IDENTITY"},
          {"read", "/checkpoint-"},
          {"read", "/log-"},
          {"sync", "/log-"},
          {"write", "/log-"}
        ] do
      break(world, [{call, file}])
      assert {:error, %Error{reason: {:disk, _, path, :eio}} = error} = open(node, world, [])
      assert path =~ ~r"^#{world.dir}#{file}", "#{call} #{file}: #{path}"
      message = Exception.message(error)
      assert message =~ "#{path}: I/O error (:eio)"
      # Nothing was taken for damage and cut off.
      mend(world)
      open!(node, world, fsync: :always)
      assert {added(node), store(node, :hash)} == {MapSet.new(1..6), hash}
      :ok = on(node, Supervisor, :stop, [@store])
      assert Enum.any?(logged(), &(&1 =~ message))
    end
  end
end
