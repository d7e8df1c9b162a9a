defmodule Causeway.Store.InterfaceTest do
  # One store, or two in this VM: hooks, subscriptions, rights, events, and what is said to wrong calls.
  use ExUnit.Case, async: false
  import Causeway.Eventually
  alias Causeway.{Clock, Doc, Store}
  alias Causeway.Store.{Error, Event}

  setup do: Causeway.Silence.logger()

  setup do
    %{name: :"#{__MODULE__}.#{System.unique_integer([:positive])}"}
  end

  defp open(name, opts \\ []) do
    start_supervised!({Store, [name: name, replica: Atom.to_string(name)] ++ opts})
    name
  end

  defp pair(name) do
    other = :"#{name}.other"
    open(name, peers: [{other, node()}])
    open(other, peers: [{name, node()}])
    {name, other}
  end

  defp met!(a, b), do: eventually(fn -> Store.hash(a) == Store.hash(b) end)

  # ---- hooks ----

  test "a hook before commit may change the operations, or refuse them", %{name: name} do
    stamp = fn ops -> {:ok, ops ++ [{:increment, {"meta", "commits"}}]} end
    veto = fn ops -> if {:delete, ["a", 1]} in ops, do: {:error, :kept}, else: {:ok, ops} end
    open(name, before_commit: [veto, stamp])

    {:ok, _} = Store.update(name, {:put, {"a", 1}, "x"})
    {:ok, _, _} = Store.transaction(name, &Store.update!(&1, {:put, {"a", 2}, "y"}))
    assert Store.get(name, {"meta", "commits"}) == 2

    assert {:error, %Error{reason: {:rolled_back, :kept}} = error} =
             Store.update(name, [{:put, {"a", 2}, "z"}, {:delete, {"a", 1}}])

    assert Exception.message(error) == "the transaction was rolled back: :kept"
    assert Store.get(name, {"a", 1}) == "x" and Store.get(name, {"a", 2}) == "y"
    # What has only been read is no commit.
    {:ok, "x", _} = Store.transaction(name, &Store.get(&1, {"a", 1}))
    assert Store.get(name, {"meta", "commits"}) == 2
  end

  test "a hook that raises before commit aborts, and one that answers wrongly", %{name: name} do
    hook = fn
      [{:put, _, :raise}] -> raise "no"
      [{:put, _, :wrong}] -> :wrong
      ops -> {:ok, ops}
    end

    open(name, before_commit: [hook])
    clock = Store.clock(name)
    assert_raise RuntimeError, "no", fn -> Store.update(name, {:put, {"a", 1}, :raise}) end

    assert_raise RuntimeError, "no", fn ->
      Store.transaction(name, &Store.update!(&1, {:put, {"a", 1}, :raise}))
    end

    assert_raise ArgumentError, ~r/returned :wrong instead of/, fn ->
      Store.update(name, {:put, {"a", 1}, :wrong})
    end

    assert Store.clock(name) == clock
    {:ok, _} = Store.update(name, {:put, {"a", 1}, :right})
  end

  test "a hook after commit is told what was committed; that it fails is reported", %{name: name} do
    me = self()
    bad = fn _ -> raise "too late" end
    open(name, after_commit: [bad, &send(me, {:committed, &1})])

    {:ok, clock} = Store.update(name, {:put, {"a", 1}, 1})
    assert_received {:committed, %{operations: [{:put, ["a", 1], 1}], clock: ^clock}}
    assert Store.get(name, {"a", 1}) == 1

    {:error, _} = Store.update(name, {:add, {"a", 1}, 1})
    {:error, _} = Store.transaction(name, &Store.rollback(&1, :no))
    refute_received {:committed, _}
  end

  # ---- transactions ----

  test "leaving a transaction in any way but by its end leaves nothing", %{name: name} do
    open(name)
    put = &Store.update!(&1, {:put, {"a", 1}, 1})

    assert_raise RuntimeError, fn ->
      Store.transaction(name, fn tx -> put.(tx) && raise("no") end)
    end

    assert catch_throw(Store.transaction(name, fn tx -> put.(tx) && throw(:no) end)) == :no
    assert catch_exit(Store.transaction(name, fn tx -> put.(tx) && exit(:no) end)) == :no

    assert {:error, %Error{reason: {:rolled_back, :no}}} =
             Store.transaction(name, fn tx -> put.(tx) && Store.rollback(tx, :no) end)

    assert Store.fetch(name, {"a", 1}) == :error

    {:ok, tx} = Store.begin(name)
    put.(tx)
    :ok = Store.rollback(tx)
    assert_raise Error, ~r/no transaction of this process/, fn -> Store.commit(tx) end
    {:ok, tx} = Store.begin(name)
    elsewhere = Task.async(fn -> catch_error(Store.get(tx, {"a", 1})) end)
    assert %Error{reason: {:no_transaction, ^tx}} = Task.await(elsewhere)
  end

  test "a transaction's clock is that of its snapshot", %{name: name} do
    open(name)
    {:ok, clock} = Store.update(name, {:put, {"a", 1}, 1})

    {:ok, _, after_it} =
      Store.transaction(name, fn tx ->
        Store.update!(tx, {:put, {"a", 1}, 2})
        assert Store.clock(tx) == clock
      end)

    assert Clock.compare(clock, after_it) == :before
    assert Store.clock(name) == after_it
  end

  test "a transaction reads its snapshot, whatever is committed meanwhile", %{name: name} do
    {name, other} = pair(name)
    {:ok, clock} = Store.update(name, [{:put, {"a", 1}, 1}, {:add, {"a", 2}, 1}])
    :ok = Store.wait(other, clock)
    read = fn tx -> for key <- [1, 2], do: Store.get(tx, {"a", key}) end

    {:ok, _, after_it} =
      Store.transaction(name, fn tx ->
        Store.update!(tx, {:add, {"a", 3}, 1})
        {:ok, clock} = Store.update(name, {:put, {"a", 1}, 2})
        # Of two puts in one millisecond that do not know of each other, either may win.
        :ok = Store.wait(other, clock)
        {:ok, clock} = Store.update(other, [{:put, {"a", 1}, 3}, {:add, {"a", 2}, 2}])
        :ok = Store.wait(name, clock)
        assert read.(name) == [3, MapSet.new([1, 2])]
        assert read.(tx) == [1, MapSet.new([1])]
        assert Store.get(tx, {"a", 3}) == MapSet.new([1])
        assert Store.fetch(name, {"a", 3}) == :error
      end)

    assert Store.get(other, {"a", 3}, nil, after: after_it) == MapSet.new([1])
    assert read.(other) == [3, MapSet.new([1, 2])]
  end

  test "reads wait for nobody", %{name: name} do
    open(name)
    {:ok, clock} = Store.update(name, [{:put, {"a", 1}, 1}, {:add, {"a", 2}, 1}])
    writers = for role <- [Committer, LogWriter], do: Process.whereis(Module.concat(name, role))
    Enum.each(writers, &:sys.suspend/1)
    assert Store.get(name, {"a", 1}) == 1
    assert Store.get(name, {"a", 1}, nil, after: clock) == 1
    assert Store.member?(name, {"a", 2}, 1)
    assert {:ok, 1, ^clock} = Store.transaction(name, &Store.get(&1, {"a", 1}))
    assert Doc.get(Store.snapshot(name), ["a", 1]) == 1
    {:ok, _, _} = Store.subscribe(name)
    Enum.each(writers, &:sys.resume/1)
  end

  # ---- subscriptions ----

  test "events tell whole transactions below the prefix, with old and new values", %{name: name} do
    open(name)
    {:ok, _} = Store.update(name, {:put, {"a", 1}, "old"})
    {:ok, all, snapshot} = Store.subscribe(name)
    {:ok, bucket, _} = Store.subscribe(name, ["a"])
    {:ok, object, _} = Store.subscribe(name, {"b", 1})
    assert Doc.get(snapshot, ["a", 1]) == "old"

    {:ok, clock} =
      Store.update(name, [{:put, {"a", 1}, "new"}, {:add, {"a", 2}, "x"}, {:put, {"b", 1}, 1}])

    a = [{["a", 1], :register, "old", "new"}, {["a", 2], :set, MapSet.new(), MapSet.new(["x"])}]
    b = [{["b", 1], :register, nil, 1}]

    for {ref, changes} <- [{all, a ++ b}, {bucket, a}, {object, b}] do
      assert_receive {:causeway, ^ref, %Event{changes: ^changes, jump: false} = event}
      assert event.clock == clock
      assert Doc.get(event.snapshot, ["a", 1]) == "new"
    end

    {:ok, _} = Store.update(name, {:remove, {"a", 2}, "x"})
    changes = [{["a", 2], :set, MapSet.new(["x"]), MapSet.new()}]
    assert_receive {:causeway, ^bucket, %Event{changes: ^changes}}
    refute_received {:causeway, ^object, _}

    :ok = Store.unsubscribe(name, all)
    {:ok, _} = Store.update(name, {:put, {"b", 1}, 2})
    assert_receive {:causeway, ^object, _}
    refute_received {:causeway, ^all, %Event{changes: [{["b", 1], _, 1, 2}]}}
  end

  test "from a clock on, without a gap and without repeating", %{name: name} do
    {name, other} = pair(name)
    {:ok, ref, _} = Store.subscribe(name, ["n"])

    writers =
      for {store, w} <- [{name, 1}, {name, 2}, {other, 3}] do
        Task.async(fn ->
          for i <- 1..60, do: {:ok, _} = Store.update(store, {:put, {"n", {w, i}}, i})
        end)
      end

    # Goes away and comes back, again and again, wherever it is.
    seen = follow(name, ref, nil, [])
    Task.await_many(writers)
    assert length(seen) == 180 and Enum.uniq(seen) == seen
    for w <- 1..3, do: assert(for({^w, i} <- seen, do: i) == Enum.to_list(1..60))
  end

  defp follow(_name, _ref, _clock, seen) when length(seen) >= 180, do: Enum.reverse(seen)

  defp follow(name, ref, clock, seen) do
    receive do
      {:causeway, ^ref, %Event{jump: false} = event} ->
        new = for {["n", key], :register, nil, _} <- event.changes, do: key
        follow(name, ref, event.clock, Enum.reverse(new, seen))
    after
      if(clock && rem(length(seen), 3) == 0, do: 0, else: 1_000) ->
        assert clock, "nothing comes"
        :ok = Store.unsubscribe(name, ref)
        {:ok, ref, _} = Store.subscribe(name, ["n"], since: drop(ref, clock))
        follow(name, ref, clock, seen)
    end
  end

  # Events that were in the mailbox are not looked at: they will come again.
  defp drop(ref, clock) do
    receive do
      {:causeway, ^ref, _} -> drop(ref, clock)
    after
      0 -> clock
    end
  end

  test "one who does not read gets a jump, and others are not kept waiting", %{name: name} do
    open(name)
    slow = for _ <- 1..3, do: spawn_link(fn -> slow(name) end)

    eventually(fn ->
      Enum.all?(
        slow,
        &(Process.info(&1, :current_function) == {:current_function, {__MODULE__, :pause, 0}})
      )
    end)

    {:ok, ref, _} = Store.subscribe(name)

    for i <- 1..3_000, do: {:ok, _} = Store.update(name, {:put, {"a", 1}, i})
    assert last_of(ref) == 3_000

    for pid <- slow do
      {:message_queue_len, n} = Process.info(pid, :message_queue_len)
      assert n <= 1_000
    end

    # The publisher looks at each that lags every 100 ms, however many they are.
    publisher = Process.whereis(Module.concat(name, Publisher))
    Process.sleep(300)
    {:reductions, before} = Process.info(publisher, :reductions)
    Process.sleep(300)
    {:reductions, now} = Process.info(publisher, :reductions)
    assert now - before < 10_000

    for pid <- slow, do: send(pid, {:go_on, self()})
    # Another jump is for all, when there were more versions than the publisher could take.
    for _ <- slow do
      assert_receive {:events, n, 3_000, jumps}, 2_000
      assert n <= 1_002
      assert jumps in 1..5
    end
  end

  defp slow(name) do
    {:ok, ref, _} = Store.subscribe(name)
    tester = pause()
    send(tester, count(ref, 0, 0, nil))
  end

  def pause do
    receive do
      {:go_on, tester} -> tester
    end
  end

  # How many events came, the last value, and how many jumps.
  defp count(ref, n, jumps, last) do
    receive do
      {:causeway, ^ref, event} ->
        jumps = if event.jump, do: jumps + 1, else: jumps
        count(ref, n + 1, jumps, Doc.get(event.snapshot, ["a", 1]))
    after
      400 -> {:events, n, last, jumps}
    end
  end

  defp last_of(ref, last \\ nil) do
    receive do
      {:causeway, ^ref, event} -> last_of(ref, Doc.get(event.snapshot, ["a", 1]))
    after
      200 -> last
    end
  end

  test "a clock from before what is remembered is answered with a jump", %{name: name} do
    open(name)
    {:ok, early} = Store.update(name, {:put, {"a", 1}, 1})
    {:ok, late} = Store.update(name, {:put, {"a", 1}, 2})
    {:ok, ref, _} = Store.subscribe(name, [], since: early)
    assert_receive {:causeway, ^ref, %Event{jump: true, changes: [], clock: ^late}}
    {:ok, ref, _} = Store.subscribe(name, [], since: late)
    {:ok, _} = Store.update(name, {:put, {"a", 1}, 3})
    assert_receive {:causeway, ^ref, %Event{jump: false, changes: [{_, _, 2, 3}]}}
  end

  test "a subscription outlives a crash of who writes, or of who tells it, and is told of it",
       %{
         name: name
       } do
    open(name)
    {:ok, all, _} = Store.subscribe(name)
    {:ok, bucket, _} = Store.subscribe(name, ["b"])
    {:ok, ended, _} = Store.subscribe(name)
    :ok = Store.unsubscribe(name, ended)
    gone = Task.async(fn -> Store.subscribe(name) end)
    Task.await(gone)

    for {role, n} <- [LogWriter: 1, Publisher: 2] do
      {:ok, before} = Store.update(name, {:put, {"a", 1}, n})
      assert_receive {:causeway, ^all, %Event{jump: false, clock: ^before}}
      crash(name, role)

      for ref <- [all, bucket] do
        assert_receive {:causeway, ^ref, %Event{jump: true, changes: [], clock: ^before} = event}
        assert Doc.get(event.snapshot, ["a", 1]) == n
      end

      {:ok, clock} = Store.update(name, {:put, {"b", 1}, n})

      for ref <- [all, bucket] do
        old = if n > 1, do: n - 1
        changes = [{["b", 1], :register, old, n}]
        assert_receive {:causeway, ^ref, %Event{jump: false, changes: ^changes, clock: ^clock}}
      end
    end

    :ok = Store.unsubscribe(name, all)
    :ok = Store.unsubscribe(name, bucket)
    crash(name, Committer)
    {:ok, _} = Store.update(name, {:put, {"b", 1}, 3})
    refute_receive {:causeway, _, _}, 50
  end

  defp crash(name, role) do
    process = Module.concat(name, role)
    last = Module.concat(name, Rights)
    old = for name <- [process, last], do: Process.whereis(name)
    Process.exit(hd(old), :kill)

    eventually(fn ->
      new = for name <- [process, last], do: Process.whereis(name)
      nil not in new and Enum.zip(old, new) |> Enum.all?(fn {a, b} -> a != b end)
    end)
  end

  test "a store that crashes again and again stops, and who monitors it is told", %{name: name} do
    Process.flag(:trap_exit, true)
    {:ok, store} = Store.start_link(name: name, replica: "a")
    monitor = Process.monitor(name)
    for _ <- 1..3, do: crash(name, Committer)
    assert {:ok, _} = Store.update(name, {:put, {"a", 1}, 1})
    name |> Module.concat(Committer) |> Process.whereis() |> Process.exit(:kill)
    assert_receive {:DOWN, ^monitor, :process, _, :shutdown}
    assert_receive {:EXIT, ^store, :shutdown}
    assert_raise Error, ~r/no store/, fn -> Store.get(name, {"a", 1}) end
  end

  # ---- replicas in memory ----

  test "a store in memory that starts again does not write under the same numbers", %{name: name} do
    {name, other} = pair(name)
    for i <- 1..3, do: {:ok, _} = Store.update(name, {:add, {"a", 1}, i})
    met!(name, other)
    stop_supervised!({Store, name})

    open(name)
    {:ok, _} = Store.update(name, {:add, {"a", 1}, 4})
    :ok = Store.connect(name, {other, node()})
    met!(name, other)
    assert Store.get(other, {"a", 1}) == MapSet.new(1..4)
    assert Store.get(name, {"a", 1}) == MapSet.new(1..4)
  end

  test "two replicas of one name do not meet", %{name: name} do
    other = :"#{name}.other"
    open(name, peers: [{other, node()}])
    start_supervised!({Store, name: other, replica: Atom.to_string(name)})
    eventually(fn -> match?([%{reason: {:same_replica, _}}], Store.info(name).peers) end)
  end

  test "peers that come and go leave nothing behind", %{name: name} do
    {name, other} = pair(name)
    eventually(fn -> match?([%{connected: true}], Store.info(name).peers) end)

    for _ <- 1..30 do
      :ok = Store.disconnect(name, {other, node()})
      :ok = Store.connect(name, {other, node()})
      eventually(fn -> match?([%{connected: true}], Store.info(other).peers) end)
    end

    {:ok, clock} = Store.update(name, {:put, {"a", 1}, 1})
    :ok = Store.wait(other, clock)

    for store <- [name, other] do
      feeders = DynamicSupervisor.which_children(Module.concat(store, Feeders))
      assert length(feeders) == 1
      # One feeder and one link wait for the next version.
      %{armed: armed} = :sys.get_state(Module.concat(store, LogWriter))
      assert armed |> Enum.filter(&Process.alive?/1) |> length() <= 2
    end
  end

  test "a link that works one way only, and how far a peer is behind", %{name: name} do
    {name, other} = pair(name)
    {:ok, clock} = Store.update(name, {:put, {"a", 1}, 1})
    :ok = Store.wait(other, clock)
    lag = fn store -> with [%{lag: lag}] <- Store.info(store).peers, do: lag end
    for store <- [name, other], do: eventually(fn -> lag.(store) == 0 end)

    # What comes from the other is not taken in.
    link = Process.whereis(Causeway.Store.Link.name(%{name: name}, {other, node()}))
    :sys.suspend(link)
    for i <- 1..10, do: {:ok, _} = Store.update(other, {:put, {"b", i}, i})
    {:ok, clock} = Store.update(name, {:put, {"a", 1}, 2})
    :ok = Store.wait(other, clock)
    assert Store.get(name, {"b", 1}) == nil
    assert {:error, %{reason: {:behind, [{_, 0, 10}]}}} = Store.wait(name, Store.clock(other), 50)
    # It cannot even tell that it has its own.
    assert lag.(other) == 11
    eventually(fn -> lag.(name) == 0 end)

    :sys.resume(link)
    met!(name, other)
    for store <- [name, other], do: eventually(fn -> lag.(store) == 0 end)
  end

  test "who is disconnected is given no rights", %{name: name} do
    {name, other} = pair(name)
    {:ok, clock} = Store.update(name, {:increment, {"stock", 1}, 10, :counter_bounded})
    :ok = Store.wait(other, clock)
    :ok = Store.disconnect(name, {other, node()})
    # This one does not know that it is.
    assert [%{peer: {^name, _}}] = Store.info(other).peers

    assert {:error, %{reason: {:insufficient_rights, _, _, _}}} =
             Store.update(other, {:decrement, {"stock", 1}}, timeout: 100)

    assert Store.rights(name, {"stock", 1}) == {10, 0}
    :ok = Store.connect(name, {other, node()})
    {:ok, _} = Store.update(other, {:decrement, {"stock", 1}})
  end

  test "a peer that asks nonsense is asked again, and costs nobody else", %{name: name} do
    {name, other} = pair(name)
    met!(name, other)
    {:ok, _} = Store.update(name, {:put, {"a", 1}, 1})
    link = Process.whereis(Causeway.Store.Link.name(%{name: name}, {other, node()}))

    for _ <- 1..5 do
      feeder = eventually(fn -> :sys.get_state(link).feeder end)
      send(link, {:reconcile, feeder, {:begin, "no clock", ["no key"]}})
      eventually(fn -> :sys.get_state(link).feeder != feeder end)
    end

    {:ok, clock} = Store.update(other, {:put, {"a", 2}, 2})
    :ok = Store.wait(name, clock)
    assert Process.alive?(link)
  end

  # ---- events ----

  defp listen(events) do
    me = self()
    handler = fn name, measured, data, _ -> send(me, {:event, name, measured, data}) end
    names = for e <- events, do: [:causeway, :store, e]
    # By apply: the module is not always there when this is compiled.
    :ok = apply(:telemetry, :attach_many, [__MODULE__, names, handler, nil])
    on_exit(fn -> apply(:telemetry, :detach, [__MODULE__]) end)
  end

  @tag integration: :telemetry
  test "events are told where :telemetry is", %{name: name} do
    # Nobody listens.
    open(name)
    {:ok, _} = Store.update(name, {:put, {"a", 1}, 1})
    stop_supervised!({Store, name})

    listen([:open, :commit, :apply, :peer_up, :peer_down, :hook_failed])
    {name, other} = pair(:"#{name}.heard")
    third = open(:"#{name}.third", after_commit: [fn _ -> raise "too late" end])
    {:ok, clock} = Store.update(name, {:put, {"a", 1}, 1})
    :ok = Store.wait(other, clock)
    assert_receive {:event, [:causeway, :store, :open], %{duration: _, cells: 0}, %{store: ^name}}
    assert_receive {:event, [:causeway, :store, :commit], commit, %{store: ^name}}
    assert commit.transactions == 1 and commit.duration > 0
    peer = {name, node()}
    assert_receive {:event, [:causeway, :store, :peer_up], %{}, %{store: ^other, peer: ^peer}}

    assert_receive {:event, [:causeway, :store, :apply], %{bytes: n},
                    %{store: ^other, peer: ^peer}}

    assert n > 0
    :ok = Store.disconnect(name, {other, node()})
    assert_receive {:event, [:causeway, :store, :peer_down], %{}, %{store: ^other, peer: ^peer}}
    {:ok, _} = Store.update(third, {:put, {"a", 1}, 1})

    assert_receive {:event, [:causeway, :store, :hook_failed], %{},
                    %{store: ^third, error: error}}

    assert error == %RuntimeError{message: "too late"}
  end

  # ---- what is wrong ----

  test "options and addresses", %{name: name} do
    for {opts, message} <- [
          {[replica: "a"], "option :name: is required"},
          {[name: name], "option :replica: is required"},
          {[name: "x", replica: "a"], ~s(option :name: expected an atom, got "x")},
          {[name: name, replica: :a],
           "option :replica: expected a string of at most 200 bytes, got :a"},
          {[name: name, replica: "a", peers: ["b@c"]],
           ~s(option :peers: expected a list of nodes, or of {name, node}, got ["b@c"])},
          {[name: name, replica: "a", fsync: 1],
           "option :fsync: expected :always, {:every, milliseconds} or :never, got 1"},
          {[name: name, replica: "a", before_commit: [&Map.get/2]],
           ~r/option :before_commit: expected a list of functions of one argument/},
          {[name: name, replica: "a", colour: 1],
           ~r/option :colour: unknown; there are :name, :replica/},
          {[:name], "option :name: expected a keyword list"},
          {:name, "option :options: expected a keyword list, got :name"}
        ] do
      assert_raise Error, message, fn -> Store.start_link(opts) end
    end

    open(name)
    address = "is no address; one looks like {bucket, key} or [bucket, key | path]"

    for bad <- ["a", ["a"], [], {"a"}, {"a", 1, 2}] do
      assert_raise Error, "#{inspect(bad)} #{address}", fn -> Store.get(name, bad) end

      assert_raise Error, "#{inspect(bad)} #{address}", fn ->
        Store.update(name, {:put, bad, 1})
      end
    end

    assert_raise Error, ~r/"a" is no address/, fn -> Store.subscribe(name, "a") end

    assert_raise Error, ~r/option :since: expected a Causeway.Clock/, fn ->
      Store.subscribe(name, [], since: 1)
    end

    assert_raise Error, ~r/option :sinse: unknown/, fn -> Store.subscribe(name, [], sinse: 1) end

    assert_raise Error, ~r/option :after: expected a Causeway.Clock/, fn ->
      Store.get(name, {"a", 1}, nil, after: 1)
    end

    assert_raise Error, ~r/option :certify: expected true or false/, fn ->
      Store.begin(name, certify: 1)
    end

    assert_raise Error, ~r/option :timeout: expected milliseconds/, fn ->
      Store.wait(name, Clock.new(), :infinity)
    end

    Store.transaction(name, fn tx ->
      for call <- [&Store.get(tx, {"a", 1}, nil, &1), &Store.update(tx, {:put, {"a", 1}, 1}, &1)] do
        message = ~r/option :after: is for the transaction as a whole/
        assert_raise Error, message, fn -> call.(after: Clock.new()) end
        assert_raise Error, ~r/option :afterwards: unknown/, fn -> call.(afterwards: 1) end
      end
    end)

    for bad <- ["a", nil, {name, "node"}, {name}] do
      assert_raise Error, ~r/option :peer: expected a node or {name, node}/, fn ->
        Store.connect(name, bad)
      end

      assert_raise Error, ~r/option :peer: expected a node or {name, node}/, fn ->
        Store.disconnect(name, bad)
      end
    end

    assert_raise Causeway.Error, ~r/is no operation/, fn -> Store.update(name, :put) end

    assert {:error, %Causeway.Error{reason: {:bad_term, _, _}}} =
             Store.update(name, {:put, {"a", 1}, self()})

    # None of which has hurt it.
    {:ok, _} = Store.update(name, {:put, {"a", 1}, 1})
    assert Store.info(name).version == 1
  end

  test "a store that is not there, or not any more", %{name: name} do
    message = ~r/no store #{inspect(name)} runs in this VM; start it with {Causeway.Store, name:/

    calls = [
      &Store.get(&1, {"a", 1}),
      &Store.update!(&1, {:put, {"a", 1}, 1}),
      &Store.begin/1,
      &Store.clock/1,
      &Store.info/1,
      &Store.subscribe/1,
      &Store.connect(&1, :node@host),
      &Store.disconnect(&1, :node@host),
      &Store.wait(&1, Clock.new(%{"a" => 1}))
    ]

    for call <- calls, do: assert_raise(Error, message, fn -> call.(name) end)
    open(name)
    stop_supervised!({Store, name})
    for call <- calls, do: assert_raise(Error, message, fn -> call.(name) end)
  end
end
