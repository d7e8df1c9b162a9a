defmodule Causeway.Store.KindsTest do
  # Each kind through the store's own interface, as the suites of AntidoteDB go through their types: in a transaction
  # and outside, edited at the same time by two replicas that are cut off from each other, and after a restart.
  use Causeway.StoreCase, async: false

  @paris __MODULE__.Paris
  @tokyo __MODULE__.Tokyo
  @at {"kinds", 1}

  # What is done before they are cut off, by paris and by tokyo meanwhile, and what is there when they meet again; `nil`
  # is nothing. A function tells more than one value.
  @cases [
    register: {[{:put, @at, 1}], [{:put, @at, 2}], [{:put, @at, 3}], {:one_of, [2, 3]}},
    register_multi:
      {[{:put, @at, 1, :register_multi}], [{:put, @at, 2}], [{:put, @at, 3}],
       {:any_order, [2, 3]}},
    counter: {[{:increment, @at, 10}], [{:decrement, @at, 3}], [{:increment, @at}], 8},
    "counter, reset": {[{:increment, @at, 10}], [{:reset, @at}], [{:increment, @at, 2}], 2},
    counter_bounded:
      {[{:increment, @at, 10, :counter_bounded}, {:transfer, @at, 4, :tokyo}],
       [{:decrement, @at, 6}], [{:decrement, @at, 3}], 1},
    set:
      {[{:add, @at, 1}, {:add, @at, 2}], [{:remove, @at, 1}], [{:add, @at, 1}],
       MapSet.new([1, 2])},
    "set, emptied": {[{:add, @at, 1}], [{:remove, @at, 1}], [{:remove, @at, 1}], nil},
    set_remove_wins:
      {[{:add, @at, 1, :set_remove_wins}, {:add, @at, 2}], [{:remove, @at, 1}], [{:add, @at, 1}],
       MapSet.new([2])},
    set_grow: {[{:add, @at, 1, :set_grow}], [{:add, @at, 2}], [{:add, @at, 3}], MapSet.new(1..3)},
    flag: {[{:enable, @at}], [{:disable, @at}], [{:enable, @at}], true},
    flag_disable_wins:
      {[{:enable, @at, :flag_disable_wins}], [{:disable, @at}], [{:enable, @at}], false},
    map:
      {[{:put, ["kinds", 1, "a"], 1}, {:add, ["kinds", 1, "in", "b"], 1}], [{:delete, @at}],
       [{:add, ["kinds", 1, "in", "b"], 2}, {:increment, ["kinds", 1, "c"]}],
       %{"in" => %{"b" => MapSet.new([2])}, "c" => 1}},
    map_grow:
      {[{:in, @at, :map_grow, [{:put, ["a"], 1}]}], [{:put, ["kinds", 1, "b"], 2}],
       [{:increment, ["kinds", 1, "c"], 3}], %{"a" => 1, "b" => 2, "c" => 3}},
    deleted: {[{:add, @at, 1}, {:delete, @at}], [], [], nil}
  ]

  setup %{dir: dir} do
    open = fn ->
      for {name, other} <- [{@paris, @tokyo}, {@tokyo, @paris}], do: open(dir, name, other)
    end

    open.()
    on_exit(fn -> eventually(fn -> Process.whereis(@tokyo) == nil end) end)
    {:ok, open: open}
  end

  defp open(dir, name, other) do
    opts = [name: name, replica: "#{name}", peers: [{other, node()}]]
    open!(Path.join(dir, "#{name}"), opts)
  end

  for {kind, _} <- @cases do
    test "#{kind}", %{open: open} do
      {before, here, there, expected} = Keyword.fetch!(@cases, unquote(kind))

      meet!(fn -> for op <- before, do: Store.update!(@paris, named(op)) end)

      for {a, b} <- [{@paris, @tokyo}, {@tokyo, @paris}],
          do: :ok = Store.disconnect(a, {b, node()})

      # By one call, and in a transaction, which sees what it has done.
      if here != [], do: {:ok, _} = Store.update(@paris, here)

      {:ok, own, _} =
        Store.transaction(@tokyo, fn tx ->
          for op <- there, do: :ok = Store.update(tx, op)
          Store.get(tx, @at)
        end)

      assert Store.get(@tokyo, @at) == own

      meet!(fn ->
        for {a, b} <- [{@paris, @tokyo}, {@tokyo, @paris}],
            do: :ok = Store.connect(a, {b, node()})
      end)

      for store <- [@paris, @tokyo], do: assert_value(Store.get(store, @at), expected)
      assert Store.get(@paris, @at) == Store.get(@tokyo, @at)

      value = Store.fetch(@paris, @at)
      for store <- [@paris, @tokyo], do: stop(store)
      open.()
      for store <- [@paris, @tokyo], do: assert(Store.fetch(store, @at) == value)
      for store <- [@paris, @tokyo], do: stop(store)
    end
  end

  defp named({:transfer, at, n, :tokyo}), do: {:transfer, at, n, Store.info(@tokyo).actor}
  defp named(op), do: op

  defp meet!(fun) do
    fun.()
    eventually(fn -> Store.hash(@paris) == Store.hash(@tokyo) end)
  end

  defp assert_value(value, {:one_of, values}), do: assert(value in values)
  defp assert_value(value, {:any_order, values}), do: assert(Enum.sort(value) == values)
  defp assert_value(value, expected), do: assert(value == expected)

  test "what does not fit a kind is refused, alone or in a transaction, and nothing of it done" do
    for {first, wrong} <- [
          {{:put, @at, 1}, {:add, @at, 1}},
          {{:increment, @at}, {:put, @at, 1}},
          {{:add, @at, 1}, {:enable, @at}},
          {{:add, @at, 1, :set_grow}, {:remove, @at, 1}},
          {{:increment, @at, 1, :counter_bounded}, {:decrement, @at, 2}},
          {{:put, @at, 1}, {:put, ["kinds", 1, "field"], 1}}
        ] do
      {:ok, clock} = Store.update(@paris, first)
      value = Store.get(@paris, @at)
      other = {:put, {"other", 1}, 1}

      assert {:error, %Causeway.Error{} = error} =
               Store.update(@paris, [other, wrong], timeout: 50)

      assert {:error, %Error{reason: {:rolled_back, ^error}}} =
               Store.transaction(
                 @paris,
                 fn tx ->
                   :ok = Store.update(tx, other)
                   {:error, error} = Store.update(tx, wrong)
                   # It goes on without.
                   assert Store.get(tx, @at) == value and Store.get(tx, {"other", 1}) == 1
                   Store.rollback(tx, error)
                 end,
                 timeout: 50
               )

      assert Store.clock(@paris) == clock and Store.fetch(@paris, {"other", 1}) == :error
      Store.update!(@paris, {:delete, @at})
    end

    for store <- [@paris, @tokyo], do: stop(store)
  end

  test "two kinds at one address are read by their names" do
    for {a, b} <- [{@paris, @tokyo}, {@tokyo, @paris}], do: :ok = Store.disconnect(a, {b, node()})
    Store.update!(@paris, {:put, @at, "new, sale"})
    Store.update!(@tokyo, {:add, @at, "new"})

    meet!(fn ->
      for {a, b} <- [{@paris, @tokyo}, {@tokyo, @paris}], do: :ok = Store.connect(a, {b, node()})
    end)

    for store <- [@paris, @tokyo] do
      assert Store.get(store, @at) == MapSet.new(["new"])
      assert Store.get(store, @at, nil, kind: :register) == "new, sale"
      assert Store.fetch(store, @at, kind: :set) == {:ok, MapSet.new(["new"])}
      assert Store.fetch(store, @at, kind: :counter) == :error
      assert Store.member?(store, @at, "new") and not Store.member?(store, @at, "sale")

      assert {:ok, "new, sale", _} =
               Store.transaction(store, &Store.get(&1, @at, nil, kind: :register))
    end

    for store <- [@paris, @tokyo], do: stop(store)
  end
end
