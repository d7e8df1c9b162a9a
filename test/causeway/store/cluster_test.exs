defmodule Causeway.Store.ClusterTest do
  # Stores on Erlang nodes of their own: what several data centres would do.
  use ExUnit.Case, async: false
  import Causeway.{Cluster, Eventually}
  alias Causeway.Store

  setup_all do
    distribute!()
    [a, b, c] = ["a", "b", "c"] |> Enum.map(&Task.async(fn -> start(&1) end)) |> Task.await_many()
    on_exit(fn -> for {peer, _} <- [a, b, c], do: stop(peer) end)
    %{a: a, b: b, c: c}
  end

  # Whatever a test has cut.
  setup %{a: a, b: b, c: c} do
    on_exit(fn -> for {x, y} <- [{a, b}, {b, c}, {a, c}], do: heal(x, y) end)
  end

  # Killed and cut off processes are reported by their supervisors.
  setup do: Causeway.Silence.logger()

  setup do
    dir =
      Path.join(
        System.tmp_dir!(),
        "causeway-#{System.pid()}-#{System.unique_integer([:positive])}"
      )

    on_exit(fn -> File.rm_rf!(dir) end)
    %{name: :"Store#{System.unique_integer([:positive])}", dir: dir}
  end

  defp start(name) do
    {peer, _} = node = start_node(name)
    Process.unlink(peer)
    node
  end

  defp stop(peer), do: if(Process.alive?(peer), do: :peer.stop(peer))

  # ---- short names; the replica is named as the node ----

  defp open(%{name: name} = world, keys, opts \\ []) do
    nodes = for key <- keys, do: world[key]

    for key <- keys do
      peers = for {_, node} <- List.delete(nodes, world[key]), do: node
      opts = Keyword.merge([name: name, replica: Atom.to_string(key), peers: peers], opts)
      {:ok, _} = start_store(world[key], opts)
    end

    on_exit(fn -> for {_, node} <- nodes, do: :erpc.cast(node, Supervisor, :stop, [name]) end)
    List.to_tuple(nodes)
  end

  defp update(node, %{name: name}, ops, opts \\ []),
    do: on(node, Store, :update, [name, ops, opts])

  defp update!(node, world, ops, opts \\ []) do
    {:ok, clock} = update(node, world, ops, opts)
    clock
  end

  defp get(node, %{name: name}, address, default \\ nil, opts \\ []),
    do: on(node, Store, :get, [name, address, default, opts])

  defp info(node, %{name: name}), do: on(node, Store, :info, [name])
  defp hash(node, %{name: name}), do: on(node, Store, :hash, [name])

  defp same!(nodes, world) do
    eventually(fn -> nodes |> Enum.map(&hash(&1, world)) |> Enum.uniq() |> length() == 1 end)
  end

  defp connected?(node, world, {_, to}) do
    Enum.any?(info(node, world).peers, &(&1.connected and elem(&1.peer, 1) == to))
  end

  # ---- replication ----

  test "every kind gets there, whole", world do
    {a, b, c} = open(world, [:a, :b, :c])

    update!(a, world, [
      {:put, {"k", :register}, %{"any" => {:term, 1.5}}},
      {:put, {"k", :register_multi}, "x", :register_multi},
      {:increment, {"k", :counter}, 5},
      {:increment, {"k", :counter_bounded}, 7, :counter_bounded},
      {:add, {"k", :set}, 1},
      {:add, {"k", :set_remove_wins}, 2, :set_remove_wins},
      {:add, {"k", :set_grow}, 3, :set_grow},
      {:enable, {"k", :flag}},
      {:enable, {"k", :flag_disable_wins}, :flag_disable_wins},
      {:put, ["k", :map, "field"], 1},
      {:in, {"k", :map_grow}, :map_grow, [{:put, ["field"], 2}]}
    ])

    for {key, value} <- [
          register: %{"any" => {:term, 1.5}},
          register_multi: ["x"],
          counter: 5,
          counter_bounded: 7,
          set: MapSet.new([1]),
          set_remove_wins: MapSet.new([2]),
          set_grow: MapSet.new([3]),
          flag: true,
          flag_disable_wins: true,
          map: %{"field" => 1},
          map_grow: %{"field" => 2}
        ],
        node <- [b, c] do
      assert eventually(fn -> get(node, world, {"k", key}) end) == value
    end

    clock =
      update!(b, world, [
        {:decrement, {"k", :counter}, 2},
        {:remove, {"k", :set}, 1},
        {:remove, {"k", :set_remove_wins}, 2},
        {:disable, {"k", :flag}},
        {:delete, {"k", :map}},
        {:put, {"k", :register_multi}, "y"}
      ])

    assert get(c, world, {"k", :counter}, nil, after: clock) == 3
    assert get(c, world, {"k", :set}, :gone) == :gone
    assert get(c, world, {"k", :map}, :gone) == :gone
    assert get(c, world, {"k", :register_multi}) == ["y"]
    same!([a, b, c], world)
  end

  test "what follows from something comes after it, also by another way", world do
    {a, b, c} = open(world, [:a, :b, :c])
    cut(a, c)

    watch = Task.async(fn -> eval(c, causes(), [name: world.name, n: 30], 20_000) end)

    for i <- 1..30 do
      clock = update!(a, world, {:put, {"chain", "cause"}, i})
      assert get(b, world, {"chain", "cause"}, nil, after: clock) == i
      update!(b, world, {:put, {"chain", "effect"}, i})
    end

    assert Task.await(watch, 20_000) == :in_order
  end

  # Reads until the last effect is there; an effect never without its cause.
  defp causes do
    quote do
      look = fn look ->
        {:ok, {cause, effect}, _} =
          Causeway.Store.transaction(name, fn tx ->
            {Causeway.Store.get(tx, {"chain", "cause"}, 0),
             Causeway.Store.get(tx, {"chain", "effect"}, 0)}
          end)

        cond do
          effect > cause -> {:effect_without_cause, effect, cause}
          effect == n -> :in_order
          true -> look.(look)
        end
      end

      look.(look)
    end
  end

  test "readers and subscribers over there see whole transactions, in order", world do
    {a, b} = open(world, [:a, :b])

    readers =
      for _ <- 1..2,
          do: Task.async(fn -> eval(b, whole(), [name: world.name, n: 200], 20_000) end)

    subscriber = Task.async(fn -> eval(b, events(), [name: world.name, n: 200], 20_000) end)
    eventually(fn -> on(b, Process, :whereis, [:"subscribed-#{world.name}"]) end)

    eval(
      a,
      quote do
        for i <- 1..200 do
          {:ok, _, _} =
            Causeway.Store.transaction(name, fn tx ->
              for key <- [1, 2, 3], do: Causeway.Store.update!(tx, {:put, {"whole", key}, i})
            end)
        end
      end,
      name: world.name
    )

    assert Task.await_many(readers, 20_000) == [:whole, :whole]
    seen = Task.await(subscriber, 20_000)
    assert Enum.all?(seen, &match?([{i, i, i}], &1))
    firsts = for [{i, _, _}] <- seen, do: i
    assert firsts == Enum.sort(firsts) and List.last(firsts) == 200
  end

  defp whole do
    quote do
      look = fn look ->
        doc = Causeway.Store.snapshot(name)

        case for(key <- [1, 2, 3], do: Causeway.Doc.get(doc, ["whole", key])) do
          [i, i, i] when i == n -> :whole
          [i, i, i] -> look.(look)
          torn -> {:torn, torn}
        end
      end

      look.(look)
    end
  end

  # The new values of each event, which should be the three of one transaction.
  defp events do
    quote do
      {:ok, ref, _} = Causeway.Store.subscribe(name, ["whole"])
      Process.register(self(), :"subscribed-#{name}")

      take = fn take, seen ->
        receive do
          {:causeway, ^ref, %{changes: changes, jump: false}} ->
            values = for {["whole", key], :register, _, value} <- changes, do: {key, value}
            seen = [[for({_, value} <- Enum.sort(values), do: value) |> List.to_tuple()] | seen]
            if {3, n} in values, do: Enum.reverse(seen), else: take.(take, seen)
        end
      end

      take.(take, [])
    end
  end

  # ---- partitions ----

  test "cut off, both go on; together again, they catch up", world do
    {a, b} = open(world, [:a, :b])
    update!(a, world, {:put, {"p", 1}, "before"})
    same!([a, b], world)
    cut(a, b)

    for i <- 1..50 do
      update!(a, world, [{:add, {"p", "set"}, {:a, i}}, {:increment, {"p", "n"}}])
      update!(b, world, [{:add, {"p", "set"}, {:b, i}}, {:increment, {"p", "n"}}])
    end

    assert get(a, world, {"p", "n"}) == 50
    eventually(fn -> not connected?(a, world, b) end)
    [%{connected: false, reason: reason}] = info(a, world).peers
    assert reason != nil

    heal(a, b)
    same!([a, b], world)
    assert get(a, world, {"p", "n"}) == 100
    assert MapSet.size(get(b, world, {"p", "set"})) == 100
    # Each had the half of it.
    [%{bytes: bytes}] = info(a, world).peers
    assert bytes > 0
  end

  test "a peer that was away for long gets what differs", world do
    {a, b, c} = open(world, [:a, :b, :c])
    value = String.duplicate("x", 100)
    update!(a, world, for(i <- 1..5_000, do: {:put, {"away", i}, value}))
    update!(a, world, for(i <- 1..500, do: {:add, {"away", "set"}, i}))
    same!([a, b, c], world)
    %{bytes: before} = from(info(a, world), c)
    for x <- [a, b], do: cut(x, c)

    for i <- 1..1_000 do
      update!(a, world, [
        {:put, {"away", 1 + rem(i, 50)}, i},
        {:remove, {"away", "set"}, rem(i, 50)}
      ])

      update!(c, world, [
        {:delete, {"away", 100 + rem(i, 50)}},
        {:add, {"away", "set"}, {:c, rem(i, 50)}}
      ])
    end

    update!(b, world, {:add, {"away", "set"}, 20})
    for x <- [a, b], do: heal(x, c)
    same!([a, b, c], world)
    assert MapSet.size(get(c, world, {"away", "set"})) in 501..502
    assert get(a, world, {"away", 120}) == nil
    assert get(c, world, {"away", 20}) in 951..1_000
    %{bytes: bytes} = from(info(a, world), c)
    assert bytes - before < 200_000
  end

  defp from(info, {_, node}), do: Enum.find(info.peers, &(elem(&1.peer, 1) == node))

  test "disconnect is for one peer, connect makes up for it at once", world do
    {a, b, c} = open(world, [:a, :b, :c])
    same!([a, b, c], world)
    eventually(fn -> connected?(b, world, a) and connected?(c, world, a) end)
    for {_, peer} <- [b, c], do: :ok = on(a, Store, :disconnect, [world.name, peer])
    update!(a, world, {:put, {"p", 1}, "a"})
    clock = update!(b, world, {:put, {"p", 2}, "b"})
    assert get(c, world, {"p", 2}, nil, after: clock) == "b"
    # Long enough for the others to try again ever more seldom.
    Process.sleep(800)
    assert get(a, world, {"p", 2}) == nil
    assert get(b, world, {"p", 1}) == nil

    assert %{reason: :disconnected} =
             Enum.find(info(b, world).peers, &(elem(&1.peer, 1) == elem(a, 1)))

    :ok = on(a, Store, :connect, [world.name, elem(b, 1)])
    {time, _} = :timer.tc(fn -> same!([a, b, c], world) end)
    assert time < 1_000_000
  end

  test "a read waits for a clock, or says how far it is", world do
    {a, b} = open(world, [:a, :b])
    same!([a, b], world)
    clock = update!(a, world, {:put, {"w", 1}, 1})
    assert get(b, world, {"w", 1}, nil, after: clock) == 1

    cut(a, b)
    clock = update!(a, world, {:put, {"w", 1}, 2})
    actor = info(a, world).actor
    {:error, error} = on(b, Store, :wait, [world.name, clock, 50])
    assert error.reason == {:behind, [{actor, 1, 2}]}
    assert Exception.message(error) =~ "1 of 2 writes of #{inspect(actor)}"
    assert {:error, ^error} = on(b, Store, :begin, [world.name, [after: clock, timeout: 50]])
    assert {:error, ^error} = update(b, world, {:put, {"w", 1}, 3}, after: clock, timeout: 50)

    waiting = Task.async(fn -> get(b, world, {"w", 1}, nil, after: clock, timeout: 10_000) end)
    eventually(fn -> info(b, world).waiting == 1 end)
    heal(a, b)
    assert Task.await(waiting, 10_000) == 2
  end

  test "all write at once", world do
    nodes = [a, b, c] = Tuple.to_list(open(world, [:a, :b, :c]))

    code =
      quote do
        1..4
        |> Enum.map(fn w ->
          Task.async(fn ->
            for i <- 1..50 do
              {:ok, _} =
                Causeway.Store.update(name, [
                  {:increment, {"all", "n"}},
                  {:add, {"all", "set"}, {node(), w, i}},
                  {:put, {"all", "last"}, i}
                ])
            end
          end)
        end)
        |> Task.await_many()
      end

    nodes
    |> Enum.map(&Task.async(fn -> eval(&1, code, name: world.name) end))
    |> Task.await_many(15_000)

    same!([a, b, c], world)
    assert get(a, world, {"all", "n"}) == 600
    assert MapSet.size(get(b, world, {"all", "set"})) == 600
    assert get(c, world, {"all", "last"}) in 1..50
  end

  # ---- members ----

  test "a node is killed, and comes back to what happened meanwhile", %{a: a} = world do
    {killed, node} = d = start_node("d")
    {:ok, _} = start_store(a, name: world.name, replica: "a", peers: [node])
    opts = [name: world.name, replica: "d", dir: world.dir, peers: [elem(a, 1)]]
    {:ok, _} = start_store(d, opts)
    for i <- 1..20, do: update!(d, world, {:add, {"kill", "d"}, i})
    same!([a, d], world)
    actor = info(d, world).actor

    # In the middle of commits.
    writer =
      Task.async(fn ->
        Enum.reduce_while(21..5_000, 20, fn i, done ->
          try do
            {:ok, _} = update(d, world, {:add, {"kill", "d"}, i})
            {:cont, i}
          catch
            :exit, _ -> {:halt, done}
          end
        end)
      end)

    Process.sleep(50)
    kill({killed, node})
    acknowledged = Task.await(writer)
    for i <- 1..20, do: update!(a, world, {:add, {"kill", "a"}, i})

    d = start_node("d")
    {:ok, _} = start_store(d, opts)
    # It knows the other's address, which does not know the new one.
    same!([a, d], world)
    set = get(a, world, {"kill", "d"})
    assert Enum.all?(1..acknowledged, &(&1 in set))
    assert MapSet.size(get(d, world, {"kill", "a"})) == 20
    assert info(d, world).actor == actor
    update!(d, world, {:add, {"kill", "d"}, :again})
    same!([a, d], world)
  end

  test "all but one are killed at once", %{a: a} = world do
    starts = for name <- ["d", "e"], do: Task.async(fn -> start(name) end)
    [{_, d}, {_, e}] = nodes = Task.await_many(starts)
    {:ok, _} = start_store(a, name: world.name, replica: "a", peers: [d])
    on_exit(fn -> on(a, Supervisor, :stop, [world.name]) end)

    open = fn nodes ->
      for {node, replica} <- Enum.zip(nodes, ["d", "e"]) do
        dir = Path.join(world.dir, replica)
        opts = [name: world.name, replica: replica, dir: dir, peers: [elem(a, 1), d, e]]
        {:ok, _} = start_store(node, opts)
      end
    end

    open.(nodes)
    same!([a | nodes], world)

    for {_, name} = node <- nodes, i <- 1..20 do
      update!(node, world, {:add, {"kill", "set"}, {name, i}})
    end

    for node <- nodes, do: kill(node)
    for i <- 1..20, do: update!(a, world, {:add, {"kill", "set"}, i})

    starts = for name <- ["d", "e"], do: Task.async(fn -> start(name) end)
    nodes = Task.await_many(starts)
    on_exit(fn -> for {peer, _} <- nodes, do: stop(peer) end)
    open.(nodes)
    same!([a | nodes], world)
    assert MapSet.size(get(a, world, {"kill", "set"})) == 60
  end

  test "who joins late knows one member, and learns of the others", world do
    {a, b} = open(world, [:a, :b])
    update!(a, world, for(i <- 1..500, do: {:put, {"late", i}, i}))
    same!([a, b], world)

    {:ok, _} = start_store(world.c, name: world.name, replica: "c", peers: [elem(a, 1)])
    on_exit(fn -> on(world.c, Supervisor, :stop, [world.name]) end)
    same!([a, b, world.c], world)
    eventually(fn -> connected?(world.c, world, b) and connected?(b, world, world.c) end)

    # Without the member that it knew.
    on(a, Supervisor, :stop, [world.name])
    clock = update!(b, world, {:put, {"late", 1}, "new"})
    assert get(world.c, world, {"late", 1}, nil, after: clock) == "new"
  end

  test "one leaves for good, and its rights with it to another", world do
    {a, b, c} = open(world, [:a, :b, :c])
    update!(c, world, {:increment, {"stock", 1}, 10, :counter_bounded})
    heir = info(a, world).actor
    clock = update!(c, world, [{:transfer, {"stock", 1}, 10, heir}, {:put, {"left", 1}, true}])
    for node <- [a, b], do: :ok = on(node, Store, :wait, [world.name, clock])
    on(c, Supervisor, :stop, [world.name])
    for node <- [a, b], do: :ok = on(node, Store, :disconnect, [world.name, elem(c, 1)])

    assert [%{connected: true}] = info(a, world).peers
    assert [%{connected: true}] = info(b, world).peers
    update!(a, world, {:decrement, {"stock", 1}, 10})
    same!([a, b], world)
    assert get(b, world, {"stock", 1}) == 0
  end

  # ---- bounded counters ----

  test "rights come from the richest, and their sum stays", world do
    {a, b, c} = open(world, [:a, :b, :c], rights_interval: 60_000)
    stock = {"stock", 1}
    update!(a, world, {:increment, stock, 100, :counter_bounded})
    clock = update!(a, world, {:transfer, stock, 10, info(b, world).actor})
    assert get(c, world, stock, nil, after: clock) == 100

    # a has 90, b 10, c nothing
    clock = update!(c, world, {:decrement, stock, 20})
    :ok = on(b, Store, :wait, [world.name, clock])
    same!([a, b, c], world)
    assert on(b, Store, :rights, [world.name, stock]) == {10, 70}
    assert sum(world, [a, b, c], stock) == 80

    # More than either has: from both.
    update!(c, world, {:decrement, stock, 75})
    same!([a, b, c], world)
    assert get(a, world, stock) == 5
    assert sum(world, [a, b, c], stock) == 5

    assert {:error, error} = update(c, world, {:decrement, stock, 6}, timeout: 100)
    {here, elsewhere} = on(c, Store, :rights, [world.name, stock])
    assert here + elsewhere == 5
    op = {:decrement, ["stock", 1], 6}
    assert error.reason == {:insufficient_rights, op, here, elsewhere}
    assert Exception.message(error) =~ "the #{here} left at this replica"
    assert Exception.message(error) =~ "other replicas hold #{elsewhere}"
  end

  defp sum(world, nodes, address) do
    nodes |> Enum.map(&elem(on(&1, Store, :rights, [world.name, address]), 0)) |> Enum.sum()
  end

  test "a transaction that reads first, and one that spends twice, get rights as well", world do
    {a, b} = open(world, [:a, :b], rights_interval: 60_000)
    stock = {"stock", 1}
    clock = update!(a, world, {:increment, stock, 10, :counter_bounded})
    :ok = on(b, Store, :wait, [world.name, clock])

    update!(b, world, [{:decrement, stock, 2}, {:decrement, stock, 3}])

    assert {:ok, {5, 4}, _} =
             eval(
               b,
               quote do
                 Causeway.Store.transaction(name, fn tx ->
                   before = Causeway.Store.get(tx, stock)
                   Causeway.Store.update!(tx, {:decrement, stock, 1})
                   {before, Causeway.Store.get(tx, stock)}
                 end)
               end,
               name: world.name,
               stock: stock
             )

    assert {:error, %{reason: {:insufficient_rights, _, _, _}}} =
             eval(
               b,
               quote do
                 Causeway.Store.transaction(name, fn tx ->
                   with {:error, error} <- Causeway.Store.update(tx, {:decrement, stock, 5}),
                        do: Causeway.Store.rollback(tx, error)
                 end)
                 |> then(fn {:error, %{reason: {:rolled_back, error}}} -> {:error, error} end)
               end,
               name: world.name,
               stock: stock
             )

    same!([a, b], world)
    assert get(a, world, stock) == 4
  end

  test "never oversold: all sell what there is, one of them cut off", world do
    nodes = [a, b, c] = Tuple.to_list(open(world, [:a, :b, :c], rights_interval: 20))
    clock = update!(a, world, {:increment, {"stock", 1}, 120, :counter_bounded})
    for node <- nodes, do: :ok = on(node, Store, :wait, [world.name, clock])
    update!(c, world, {:decrement, {"stock", 1}, 1})
    for x <- [a, b], do: cut(x, c)

    sell =
      quote do
        Enum.count(1..100, fn _ ->
          Process.sleep(1)
          result = Causeway.Store.update(name, {:decrement, {"stock", 1}, 1}, timeout: 30)
          true = Causeway.Store.get(name, {"stock", 1}) >= 0
          match?({:ok, _}, result)
        end)
      end

    sold =
      nodes
      |> Enum.map(&Task.async(fn -> eval(&1, sell, [name: world.name], 30_000) end))
      |> Task.await_many(30_000)

    for x <- [a, b], do: heal(x, c)
    same!(nodes, world)
    left = get(a, world, {"stock", 1}, 0)
    assert Enum.sum(sold) + left == 119
    assert sum(world, nodes, {"stock", 1}) == left
    # Who was together with the rights has sold them.
    assert Enum.at(sold, 0) + Enum.at(sold, 1) >= 100
  end

  # ---- conditions ----

  test "certify: of those that have read the same, one wins", world do
    {a} = open(world, [:a])
    update!(a, world, {:put, {"c", 1}, 0})

    won =
      eval(
        a,
        quote do
          me = self()

          tasks =
            for i <- 1..8 do
              Task.async(fn ->
                {:ok, tx} = Causeway.Store.begin(name, certify: true)
                n = Causeway.Store.get(tx, {"c", 1})
                Causeway.Store.update!(tx, {:put, {"c", 1}, n + i})
                send(me, :read)

                receive do
                  :go -> Causeway.Store.commit(tx)
                end
              end)
            end

          for _ <- tasks, do: receive(do: (:read -> :ok))
          for task <- tasks, do: send(task.pid, :go)
          Task.await_many(tasks)
        end,
        name: world.name
      )

    assert Enum.count(won, &match?({:ok, _}, &1)) == 1
    assert {:error, error} = Enum.find(won, &match?({:error, _}, &1))
    assert error.reason == {:conflict, [["c", 1]]}
    assert Exception.message(error) =~ "changed since the transaction's snapshot"
  end

  test "certify also fails for what came from a peer", world do
    {a, b} = open(world, [:a, :b])

    assert {:error, %{reason: {:conflict, [["c", 2]]}}} =
             eval(
               b,
               quote do
                 {:ok, tx} = Causeway.Store.begin(name, certify: true)
                 :ok = Causeway.Store.update(tx, {:put, {"c", 2}, "b"})
                 args = [name, {:put, {"c", 2}, "a"}]
                 {:ok, clock} = :erpc.call(a, Causeway.Store, :update, args)
                 :ok = Causeway.Store.wait(name, clock)
                 Causeway.Store.commit(tx)
               end,
               name: world.name,
               a: elem(a, 1)
             )

    assert get(b, world, {"c", 2}) == "a"
  end

  # ---- a slow peer ----

  test "a peer that stands still costs little, and is soon there again", world do
    {a, b} = open(world, [:a, :b])
    same!([a, b], world)
    pid = os_pid(b)
    {_, 0} = System.cmd("kill", ["-STOP", pid])

    {before, now} =
      try do
        eval(
          a,
          quote do
            value = :binary.copy("x", 20_000)
            before = :erlang.memory(:total)

            for i <- 1..3_000 do
              {:ok, _} = Causeway.Store.update(name, {:put, {"slow", rem(i, 10)}, {i, value}})
            end

            %{peers: [%{connected: _}]} = Causeway.Store.info(name)
            {before, :erlang.memory(:total)}
          end,
          [name: world.name],
          30_000
        )
      after
        {_, 0} = System.cmd("kill", ["-CONT", pid])
      end

    # 60 MB were written, of which 200 kB are left.
    assert now - before < 20_000_000
    {time, _} = :timer.tc(fn -> same!([a, b], world) end)
    assert time < 5_000_000
  end

  # ---- backups ----

  test "a replica restored from an old copy does not write under the same numbers again", world do
    {a, _} = open(world, [:a, :b])
    {node, old} = {world.c, world.dir <> "/copy"}
    opts = [name: world.name, replica: "c", dir: world.dir <> "/c", peers: [elem(a, 1)]]
    {:ok, _} = start_store(node, opts)
    on_exit(fn -> on(node, Supervisor, :stop, [world.name]) end)

    for i <- 1..3, do: update!(node, world, {:add, {"backup", "set"}, i})
    on(node, Supervisor, :stop, [world.name])
    File.cp_r!(opts[:dir], old)
    {:ok, _} = start_store(node, opts)
    for i <- 4..6, do: update!(node, world, {:add, {"backup", "set"}, i})
    same!([a, node], world)

    on(node, Supervisor, :stop, [world.name])
    # What is not deleted keeps its inodes to itself.
    File.rename!(opts[:dir], world.dir <> "/lost")
    File.cp_r!(old, opts[:dir])
    # Nobody to ask.
    for peer <- [a, world.b], do: cut(peer, node)
    {:ok, _} = start_store(node, opts)
    assert info(node, world).actor =~ ~r/^c~/
    update!(node, world, {:add, {"backup", "set"}, 7})
    for peer <- [a, world.b], do: heal(peer, node)
    same!([a, world.b, node], world)
    assert get(a, world, {"backup", "set"}) == MapSet.new(1..7)
    assert get(node, world, {"backup", "set"}) == MapSet.new(1..7)
  end

  # As a file system's snapshot does it.
  test "nor when it cannot be seen that it was restored, but from what peers have", world do
    {a, _} = open(world, [:a, :b])
    node = world.c
    opts = [name: world.name, replica: "c", dir: world.dir <> "/c", peers: [elem(a, 1)]]
    {:ok, _} = start_store(node, opts)
    on_exit(fn -> on(node, Supervisor, :stop, [world.name]) end)
    for i <- 1..3, do: update!(node, world, {:add, {"backup", "set"}, i})
    on(node, Supervisor, :stop, [world.name])
    back = keep(opts[:dir], world.dir <> "/copy")
    {:ok, _} = start_store(node, opts)
    for i <- 4..6, do: update!(node, world, {:add, {"backup", "set"}, i})
    same!([a, world.b, node], world)
    on(node, Supervisor, :stop, [world.name])

    back.()
    {:ok, _} = start_store(node, opts)
    same!([a, world.b, node], world)
    assert info(node, world).actor =~ ~r/^c~/
    update!(node, world, {:add, {"backup", "set"}, 7})
    same!([a, world.b, node], world)
    assert get(a, world, {"backup", "set"}) == MapSet.new(1..7)

    # And when it writes before it meets anybody, it is not let in.
    on(node, Supervisor, :stop, [world.name])
    back = keep(opts[:dir], world.dir <> "/copy2")
    {:ok, _} = start_store(node, opts)
    for i <- 8..9, do: update!(node, world, {:add, {"backup", "set"}, i})
    same!([a, world.b, node], world)
    on(node, Supervisor, :stop, [world.name])
    back.()
    for peer <- [a, world.b], do: cut(peer, node)
    {:ok, _} = start_store(node, opts)
    update!(node, world, {:add, {"backup", "set"}, :other})
    for peer <- [a, world.b], do: heal(peer, node)

    eventually(fn ->
      Enum.any?(info(node, world).peers, &match?(%{reason: %{reason: {:reused, _, _}}}, &1))
    end)

    assert get(a, world, {"backup", "set"}) == MapSet.new(1..9)
    refute 9 in get(node, world, {"backup", "set"})
  end

  # Copies the directory; the function puts it back, as if IDENTITY had been there all the time.
  defp keep(dir, copy) do
    File.cp_r!(dir, copy)

    fn ->
      File.rm_rf!(dir)
      File.cp_r!(copy, dir)
      stat = File.stat!(dir <> "/IDENTITY", time: :posix)
      File.write!(dir <> "/LOCK", "#{stat.major_device} #{stat.inode} #{stat.ctime}\n")
    end
  end
end
