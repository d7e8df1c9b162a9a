defmodule Causeway.DocTest do
  use ExUnit.Case, async: true
  import Bitwise
  import Causeway.SmallDoc
  alias Causeway.{Clock, Doc, Error}

  @moduletag :asan

  @sets [:set, :set_remove_wins, :set_grow]
  @kinds [:map, :map_grow, :register, :register_multi, :counter, :counter_bounded, :flag] ++
           [:flag_disable_wins | @sets]

  # Two replicas from one document, edited apart, and merged both ways.
  defp concurrently(base, ops_a, ops_b) do
    a = base |> Doc.fork("left") |> Doc.update(ops_a)
    b = base |> Doc.fork("right") |> Doc.update(ops_b)
    ab = Doc.merge(a, b)
    assert Doc.encode(ab) == Doc.encode(Doc.merge(b, a))
    ab
  end

  describe "registers" do
    test "hold the last value" do
      doc = doc([{:put, ["x"], 1}, {:put, ["x"], %{any: ["term"]}}])
      assert Doc.get(doc, ["x"]) == %{any: ["term"]}
      assert doc |> Doc.update({:put, ["x"], nil}) |> Doc.fetch(["x"]) == {:ok, nil}
    end

    test "the later of two concurrent writes wins, whoever made it" do
      for [first, second] <- [["left", "right"], ["right", "left"]] do
        base = doc({:put, ["x"], 0})
        one = base |> Doc.fork(first) |> Doc.update({:put, ["x"], 1})
        Process.sleep(3)
        two = base |> Doc.fork(second) |> Doc.update({:put, ["x"], 2})
        assert Doc.get(Doc.merge(one, two), ["x"]) == 2
        assert Doc.get(Doc.merge(two, one), ["x"]) == 2
      end
    end

    test "a write that has seen another one is later, whatever the clocks say" do
      a = doc("a", {:put, ["x"], 1})
      b = a |> Doc.fork("b") |> Doc.update({:put, ["x"], 2})
      assert Doc.get(Doc.merge(a, b), ["x"]) == 2
    end

    test "a multi-value register holds all concurrent values until the next write" do
      base = doc({:put, ["x"], 0, :register_multi})
      merged = concurrently(base, {:put, ["x"], 1}, {:put, ["x"], 2})
      assert merged |> Doc.get(["x"]) |> Enum.sort() == [1, 2]
      assert merged |> Doc.update({:put, ["x"], 3}) |> Doc.get(["x"]) == [3]
      assert concurrently(base, {:put, ["x"], 1}, {:put, ["x"], 1}) |> Doc.get(["x"]) == [1, 1]
    end

    test "what is written beside a delete stays" do
      base = doc({:put, ["x"], 0})
      assert concurrently(base, {:delete, ["x"]}, {:put, ["x"], 1}) |> Doc.value() == %{"x" => 1}
      assert base |> Doc.update({:delete, ["x"]}) |> Doc.value() == %{}
    end
  end

  describe "counters" do
    test "count, by one when nothing else is said" do
      up = [{:increment, [:n]}, {:increment, [:n], 5}]
      doc = doc(up ++ [{:decrement, [:n]}, {:decrement, [:n], 2}])

      assert Doc.get(doc, [:n]) == 3
      assert doc |> Doc.update({:increment, [:n], -4}) |> Doc.get([:n]) == -1
      assert doc |> Doc.update({:decrement, [:n], -4}) |> Doc.get([:n]) == 7
      assert doc |> Doc.update({:increment, [:n], 0}) |> Doc.get([:n]) == 3
    end

    test "add up" do
      base = doc({:increment, [:n], 10})

      assert concurrently(base, {:increment, [:n], 3}, {:decrement, [:n], 4}) |> Doc.get([:n]) ==
               9
    end

    test "deleted or reset while someone else adds 3 are 3" do
      for op <- [{:delete, [:n]}, {:reset, [:n]}, {:delete, [:n], :counter}] do
        base = doc({:increment, [:n], 10})
        assert concurrently(base, op, {:increment, [:n], 3}) |> Doc.get([:n]) == 3
        mine = base |> Doc.update(op)
        assert Doc.value(mine) == %{}
        assert mine |> Doc.update({:increment, [:n], 2}) |> Doc.get([:n]) == 2
      end
    end

    test "deleted with the map around them while someone else adds 3 are 3, and the rest is gone" do
      base =
        doc([
          {:increment, [:m, :n], 10},
          {:put, [:m, :r], 1},
          {:add, [:m, :s], 1},
          {:increment, [:m, :deep, :n], 5}
        ])

      merged = concurrently(base, {:delete, [:m]}, {:increment, [:m, :n], 3})
      assert Doc.value(merged) == %{m: %{n: 3}}
      assert merged |> Doc.update({:delete, [:m]}) |> Doc.value() == %{}
    end

    test "reset by two at once are not reset twice" do
      base = doc({:increment, [:n], 10})
      merged = concurrently(base, [{:reset, [:n]}, {:increment, [:n], 1}], {:reset, [:n]})
      assert Doc.get(merged, [:n]) == 1
    end

    test "grow beyond 64 bits" do
      most = (1 <<< 62) - 1
      all = for i <- 1..9, do: doc("r#{i}", {:increment, [:n], most})
      assert all |> Enum.reduce(&Doc.merge/2) |> Doc.get([:n]) == 9 * most
      all = for i <- 1..9, do: doc("r#{i}", {:decrement, [:n], most})
      assert all |> Enum.reduce(&Doc.merge/2) |> Doc.get([:n]) == -9 * most
      full = doc({:increment, [:n], most})
      assert reason(full, {:increment, [:n]}) == {:out_of_range, {:increment, [:n]}}
      assert {:out_of_range, {:increment, [:n], _}} = reason(full, {:increment, [:n], 1 <<< 62})
      assert {:out_of_range, {:increment, [:m], _}} = reason(full, {:increment, [:m], 1 <<< 64})
      assert {:out_of_range, {:decrement, [:m], _}} = reason(full, {:decrement, [:m], -1 <<< 63})
    end
  end

  describe "bounded counters" do
    test "spend what the replica has the right to" do
      doc = doc([{:increment, [:stock], 5, :counter_bounded}, {:decrement, [:stock], 2}])
      assert Doc.get(doc, [:stock]) == 3
      assert Doc.rights(doc, [:stock]) == {3, 0}
      assert doc |> Doc.update({:decrement, [:stock], 3}) |> Doc.get([:stock]) == 0
      op = {:decrement, [:stock], 4}
      assert reason(doc, op) == {:insufficient_rights, op, 3, 0}

      assert_raise Error, ~r/more rights than the 3 left.*others? .*hold 0.*:transfer/s, fn ->
        Doc.update(doc, op)
      end
    end

    test "rights are given away and counted where they are" do
      a = doc("a", [{:increment, [:stock], 5, :counter_bounded}, {:transfer, [:stock], 2, "b"}])
      b = Doc.fork(a, "b")
      assert {Doc.rights(a, [:stock]), Doc.rights(b, [:stock])} == {{3, 2}, {2, 3}}
      assert {:error, error} = Doc.try_update(b, {:decrement, [:stock], 3})
      assert error.reason == {:insufficient_rights, {:decrement, [:stock], 3}, 2, 3}
      b = Doc.update(b, {:decrement, [:stock], 2})
      a = Doc.update(a, {:decrement, [:stock], 3})
      assert a |> Doc.merge(b) |> Doc.get([:stock]) == 0
      assert a |> Doc.merge(b) |> Doc.rights([:stock]) == {0, 0}
    end

    test "giving to oneself changes nothing, and one cannot give what one has not" do
      a = doc("a", {:increment, [:stock], 5, :counter_bounded})
      assert a |> Doc.update({:transfer, [:stock], 5, "a"}) |> Doc.rights([:stock]) == {5, 0}
      op = {:transfer, [:stock], 6, "b"}
      assert reason(a, op) == {:insufficient_rights, op, 5, 0}

      assert reason(a, {:transfer, [:stock], -1, "b"}) ==
               {:out_of_range, {:transfer, [:stock], -1, "b"}}

      assert {:bad_replica, {:transfer, _, 1, nil}} = reason(a, {:transfer, [:stock], 1, nil})
      assert {:bad_replica, {:transfer, _, 1, 5}} = reason(a, {:transfer, [:stock], 1, 5})
      long = {:transfer, [:stock], 1, String.duplicate("x", 2000)}
      assert reason(a, long) == {:bad_replica, long}
      assert_raise Error, ~r/"xxx.* in {:transfer, .*at most 1 KiB/, fn -> Doc.update(a, long) end

      assert {:wrong_kind, _, [:c], :counter, :counter_bounded} =
               a |> Doc.update({:increment, [:c]}) |> reason({:transfer, [:c], 1, "b"})
    end

    test "a debt that a delete leaves behind is forgiven, not paid" do
      a = doc("a", [{:increment, [:n], 5, :counter_bounded}, {:transfer, [:n], 4, "b"}])
      b = a |> Doc.fork("b") |> Doc.update({:decrement, [:n], 4})

      both =
        a
        |> Doc.update({:delete, [:n]})
        |> Doc.merge(b)
        |> Doc.fork("c")
        |> then(&Doc.merge(b, &1))

      assert {Doc.get(both, [:n]), Doc.rights(both, [:n])} == {0, {0, 0}}
      assert {:insufficient_rights, _, 0, 0} = reason(both, {:decrement, [:n], 1})
      assert both |> Doc.update({:increment, [:n], 3}) |> Doc.rights([:n]) == {3, 0}
    end

    test "rights are none where there is none" do
      assert Doc.rights(Doc.new("a"), [:n]) == {0, 0}
      assert Doc.rights(doc({:increment, [:n]}), [:n]) == {0, 0}
      assert Doc.rights(doc({:add, [:n], 1}), []) == {0, 0}
    end
  end

  describe "sets" do
    test "hold what was added and not removed" do
      for kind <- [:set, :set_remove_wins] do
        doc =
          doc([{:add, [:s], 1, kind}, {:add, [:s], 1.0}, {:add, [:s], "x"}, {:remove, [:s], 1}])

        assert Doc.get(doc, [:s]) == MapSet.new([1.0, "x"])

        assert for(e <- [1, 1.0, "x", :no], do: Doc.member?(doc, [:s], e)) == [
                 false,
                 true,
                 true,
                 false
               ]

        assert doc |> Doc.update({:add, [:s], 1}) |> Doc.member?([:s], 1)
      end
    end

    test "an add wins over a remove that has not seen it, or the remove, or neither is there" do
      base = fn kind -> doc({:add, [:s], 1, kind}) end
      add = {:add, [:s], 1}
      remove = {:remove, [:s], 1}
      assert concurrently(base.(:set), add, remove) |> Doc.get([:s]) == MapSet.new([1])
      assert concurrently(base.(:set_remove_wins), add, remove) |> Doc.get([:s]) == MapSet.new()

      assert concurrently(base.(:set), {:add, [:s], 2}, remove) |> Doc.get([:s]) ==
               MapSet.new([2])

      grown = concurrently(base.(:set_grow), {:add, [:s], 2}, {:add, [:s], 3})
      assert Doc.get(grown, [:s]) == MapSet.new([1, 2, 3])
      assert reason(grown, remove) == {:no_such_operation, remove, :set_grow}
      assert reason(Doc.new("a"), {:remove, [:s], 1, :set_grow}) |> elem(0) == :no_such_operation
    end

    test "a remove that is known wins no more" do
      removed = doc([{:add, [:s], 1, :set_remove_wins}]) |> Doc.update({:remove, [:s], 1})
      assert removed |> Doc.update({:add, [:s], 1}) |> Doc.member?([:s], 1)
    end

    test "a set without elements is gone, but for one that remembers removals" do
      assert doc({:add, [:s], 1}) |> Doc.update({:remove, [:s], 1}) |> Doc.value() == %{}
      left = doc({:add, [:s], 1, :set_remove_wins}) |> Doc.update({:remove, [:s], 1})
      assert Doc.value(left) == %{s: MapSet.new()}
      assert left |> Doc.update({:delete, [:s]}) |> Doc.value() == %{}
    end

    test "an element added and removed at once was never there, and nothing changes" do
      base = doc({:put, [:x], 1})
      same = Doc.update(base, [{:add, [:s], 1}, {:remove, [:s], 1}])
      assert Doc.encode(same) == Doc.encode(base)
      assert Doc.clock(same) == Doc.clock(base)
    end

    test "elements of any size up to the limit" do
      for kind <- @sets do
        {most, doc} = longest(&Doc.try_update(Doc.new("a"), {:add, [:s], &1, kind}))
        assert most in 8000..8192
        assert doc |> Doc.get([:s]) |> Enum.to_list() == [:binary.copy("x", most)]

        assert doc
               |> Doc.encode()
               |> Doc.decode!("b")
               |> Doc.member?([:s], :binary.copy("x", most))

        too_long = {:add, [:s], :binary.copy("x", most + 1), kind}
        assert reason(Doc.new("a"), too_long) == {:too_large, too_long}
        refute Doc.member?(doc, [:s], :binary.copy("x", 1_000_000))
      end
    end
  end

  # The length of the longest binary that is accepted, and what came of it.
  defp longest(try) do
    length = Enum.find(8192..8000//-1, &match?({:ok, _}, try.(:binary.copy("x", &1))))
    {:ok, doc} = try.(:binary.copy("x", length))
    {length, doc}
  end

  describe "flags" do
    test "are on or off" do
      for kind <- [:flag, :flag_disable_wins] do
        on = doc({:enable, [:f], kind})
        assert Doc.get(on, [:f]) == true
        assert on |> Doc.update({:disable, [:f]}) |> Doc.get([:f], false) == false
        assert on |> Doc.update([{:disable, [:f]}, {:enable, [:f]}]) |> Doc.get([:f]) == true
      end

      assert doc([{:enable, [:f]}, {:disable, [:f]}]) |> Doc.value() == %{}
      assert doc({:disable, [:f], :flag_disable_wins}) |> Doc.value() == %{f: false}
    end

    test "enable wins, or disable" do
      on = doc({:enable, [:f]})
      assert concurrently(on, {:enable, [:f]}, {:disable, [:f]}) |> Doc.get([:f]) == true
      on = doc({:enable, [:f], :flag_disable_wins})
      assert concurrently(on, {:enable, [:f]}, {:disable, [:f]}) |> Doc.get([:f]) == false
    end
  end

  describe "maps" do
    test "are made by paths, and gone with their last field" do
      doc = doc([{:put, [:a, "b", 3, {4}], 1}, {:add, [:a, :s], 1}])
      assert Doc.value(doc) == %{a: %{"b" => %{3 => %{{4} => 1}}, s: MapSet.new([1])}}
      assert Doc.get(doc, [:a, "b"]) == %{3 => %{{4} => 1}}
      assert Doc.get(doc, [:a, "b", 3, {4}]) == 1

      assert doc |> Doc.update({:delete, [:a, "b", 3, {4}]}) |> Doc.value() == %{
               a: %{s: MapSet.new([1])}
             }

      assert doc |> Doc.update({:delete, [:a]}) |> Doc.value() == %{}
      assert doc |> Doc.update({:delete, [:a, "b"]}) |> Doc.get([:a]) == %{s: MapSet.new([1])}
    end

    test "take 64 fields on a path, of 8 KiB together" do
      path = Enum.to_list(1..64)
      doc = doc({:put, path, :here})
      assert Doc.get(doc, path) == :here
      assert doc |> Doc.encode() |> Doc.decode!("b") |> Doc.value() == Doc.value(doc)
      op = {:put, path ++ [65], 1}
      assert reason(doc, op) == {:bad_path, op}
      assert_raise Error, ~r/1 to 64 terms/, fn -> Doc.get(doc, path ++ [65]) end

      {most, doc} = longest(&Doc.try_update(Doc.new("a"), {:put, [&1], 1}))
      assert most in 8000..8192
      assert doc |> Doc.value() |> Map.keys() == [:binary.copy("x", most)]
      op = {:put, [:binary.copy("x", most + 1)], 1}
      assert reason(doc, op) == {:too_large, op}
      op = {:put, List.duplicate(:binary.copy("x", 500), 20), 1}
      assert reason(doc, op) == {:too_large, op}
      assert Doc.get(doc, [:binary.copy("x", 100_000)], :nothing) == :nothing
    end

    test "that only grow are declared with :in" do
      doc = doc({:in, [:log], :map_grow, [{:put, [1], :a}, {:increment, [:n, :m], 2}]})
      assert Doc.value(doc) == %{log: %{1 => :a, n: %{m: 2}}}
      assert doc |> Doc.update({:put, [:log, 1], :b}) |> Doc.get([:log, 1]) == :b
      op = {:delete, [:log, 1]}
      assert reason(doc, op) == {:no_such_operation, op, :map_grow}
      assert_raise Error, ~r/only grows/, fn -> Doc.update(doc, op) end
      assert doc |> Doc.update({:delete, [:log, :n, :m]}) |> Doc.value() == %{log: %{1 => :a}}
      assert doc |> Doc.update({:delete, [:log]}) |> Doc.value() == %{}
    end

    test "operations inside :in go on from its path" do
      ops = [
        {:in, [:a, :b], :map, [{:put, [:c], 1}, {:in, [:d], :map_grow, [{:add, [:e], 2}]}]},
        {:put, [:z], 3}
      ]

      assert doc(ops) |> Doc.value() == %{a: %{b: %{c: 1, d: %{e: MapSet.new([2])}}}, z: 3}
      assert doc({:in, [], :map, [{:put, [:c], 1}]}) |> Doc.value() == %{c: 1}
      assert doc({:in, [:a], :map, {:put, [:c], 1}}) |> Doc.value() == %{a: %{c: 1}}
      assert doc({:in, [:a], :map, []}) |> Doc.value() == %{}
    end

    test "what is wrong inside :in is named with its whole path" do
      doc = doc({:put, [:a, :b], 1})
      ops = [{:put, [:x], 1}, {:in, [:a], :map, [{:put, [:c], 1}, {:add, [:b, :d], 2}]}]
      assert reason(doc, ops) == {:wrong_kind, {:add, [:b, :d], 2}, [:a, :b], :register, :map}

      assert {:wrong_kind, _, [:a], :map, :map_grow} =
               reason(doc, {:in, [:a], :map_grow, [{:put, [:c], 1}]})

      for op <- [
            {:in, [:a], :set, []},
            {:in, [:a], :nothing, []},
            {:in, [:a], :map},
            {:in, [:a], :map, 1}
          ],
          do: assert({:bad_operation, _} = reason(doc, op))

      for op <- [{:in, [:a], :map, [{:put, [], 1}]}, {:in, [], :map_grow, [{:put, [:x], 1}]}],
          do: assert({:bad_path, {:put, _, 1}} = reason(doc, op))

      for op <- [{:in, :a, :map, [{:put, [:x], 1}]}, {:in, [:a | :b], :map, []}],
          do: assert(reason(doc, op) == {:bad_path, op})

      nested = Enum.reduce(1..100, {:put, [1], 1}, fn _, op -> {:in, [], :map, [op]} end)
      assert {:bad_operation, {:in, [], :map, _}} = reason(doc, nested)
      nested = Enum.reduce(1..70, {:put, [1], 1}, fn i, op -> {:in, [i], :map, [op]} end)
      assert {kind, _} = reason(doc, nested)
      assert kind in [:bad_path, :bad_operation]
    end
  end

  describe "kinds" do
    test "follow from the first operation, or are named" do
      for {op, kind} <- [
            {{:put, [:x], 1}, :register},
            {{:increment, [:x]}, :counter},
            {{:decrement, [:x], 1}, :counter},
            {{:add, [:x], 1}, :set},
            {{:enable, [:x]}, :flag},
            {{:put, [:x, :y], 1}, :map},
            {{:put, [:x], 1, :register_multi}, :register_multi},
            {{:increment, [:x], 1, :counter_bounded}, :counter_bounded},
            {{:increment, [:x], 1, :counter}, :counter},
            {{:add, [:x], 1, :set_grow}, :set_grow},
            {{:add, [:x], 1, :set_remove_wins}, :set_remove_wins},
            {{:enable, [:x], :flag_disable_wins}, :flag_disable_wins},
            {{:disable, [:x], :flag_disable_wins}, :flag_disable_wins},
            {{:in, [:x], :map_grow, [{:put, [:y], 1}]}, :map_grow}
          ] do
        doc = doc(op)

        assert [{path, leaf, nil, _}] =
                 Doc.diff(Doc.new("a"), doc) |> Enum.map(&without_nothing/1)

        if kind in [:map, :map_grow],
          do: assert(path == [:x, :y]),
          else: assert({path, leaf} == {[:x], kind})

        assert Doc.fetch(doc, [:x], kind: kind) == Doc.fetch(doc, [:x])
        for other <- @kinds -- [kind], do: assert(Doc.fetch(doc, [:x], kind: other) == :error)
      end
    end

    test "that are there are found by later operations" do
      for {first, then_, value} <- [
            {{:put, [:x], 1, :register_multi}, {:put, [:x], 2}, [2]},
            {{:increment, [:x], 5, :counter_bounded}, {:decrement, [:x], 2}, 3},
            {{:add, [:x], 1, :set_grow}, {:add, [:x], 2}, MapSet.new([1, 2])},
            {{:add, [:x], 1, :set_remove_wins}, {:remove, [:x], 1}, MapSet.new()},
            {{:enable, [:x], :flag_disable_wins}, {:disable, [:x]}, false}
          ] do
        assert doc(first) |> Doc.update(then_) |> Doc.get([:x]) == value
        assert doc([first, then_]) |> Doc.get([:x]) == value
      end
    end

    test "do not change while something is there" do
      firsts = [
        {:register, {:put, [:x], 1}},
        {:counter, {:increment, [:x]}},
        {:set, {:add, [:x], 1}},
        {:flag, {:enable, [:x]}},
        {:map, {:put, [:x, :y], 1}}
      ]

      for {have, first} <- firsts, {want, second} <- firsts, have != want do
        doc = doc([{:put, [:other], 1}, first])
        assert reason(doc, second) == {:wrong_kind, second, [:x], have, want}
        {:error, error} = Doc.try_update(doc, [{:put, [:other], 2}, second])
        assert error.reason == {:wrong_kind, second, [:x], have, want}
        message = Exception.message(error)

        for part <- [inspect(second), "[:x]", inspect(have), inspect(want), "{:delete, [:x]}"],
            do: assert(message =~ part)

        assert Doc.get(doc, [:other]) == 1
        after_delete = doc |> Doc.update([{:delete, [:x]}, second])
        assert Doc.fetch(after_delete, [:x], kind: want) != :error
      end
    end

    test "that are declared must be those that are there" do
      for {first, second} <- [
            {{:add, [:x], 1}, {:add, [:x], 2, :set_grow}},
            {{:add, [:x], 1, :set_grow}, {:add, [:x], 2, :set}},
            {{:increment, [:x]}, {:increment, [:x], 1, :counter_bounded}},
            {{:put, [:x], 1}, {:put, [:x], 1, :register_multi}},
            {{:enable, [:x]}, {:enable, [:x], :flag_disable_wins}}
          ] do
        assert {:wrong_kind, ^second, [:x], _, kind} = doc(first) |> reason(second)
        assert kind == elem(second, tuple_size(second) - 1)
      end
    end

    test "that an operation is not for are refused" do
      for {verb, args, fits} <- [
            {:put, [1], [:register, :register_multi]},
            {:increment, [1], [:counter, :counter_bounded]},
            {:add, [1], @sets},
            {:enable, [], [:flag, :flag_disable_wins]}
          ],
          kind <- @kinds do
        op = List.to_tuple([verb, [:x]] ++ args ++ [kind])

        if kind in fits,
          do: assert({:ok, _} = Doc.try_update(Doc.new("a"), op)),
          else: assert(reason(Doc.new("a"), op) == {:no_such_operation, op, kind})
      end
    end

    test "two at one path: the first in the order is shown, the others by :kind" do
      left = [
        {:put, [:x], 1},
        {:enable, [:y]},
        {:increment, [:z]},
        {:add, [:w], 1},
        {:put, [:m, :a], 1}
      ]

      right = [
        {:add, [:x], 2},
        {:put, [:y], 2},
        {:put, [:z], 2},
        {:put, [:w, :v], 2},
        {:increment, [:m], 2}
      ]

      merged = concurrently(Doc.new("base"), left, right)

      assert Doc.value(merged) ==
               %{x: MapSet.new([2]), y: 2, z: 1, w: %{v: 2}, m: %{a: 1}}

      assert Doc.get(merged, [:x], nil, kind: :register) == 1
      assert Doc.get(merged, [:x], nil, kind: :set) == MapSet.new([2])
      assert Doc.get(merged, [:y], nil, kind: :flag) == true
      assert Doc.get(merged, [:z], nil, kind: :register) == 2
      assert Doc.get(merged, [:m], nil, kind: :counter) == 2
      assert Doc.fetch(merged, [:x], kind: :counter) == :error

      # Each operation finds the one that it is for.
      edited = Doc.update(merged, [{:put, [:x], 5}, {:remove, [:x], 2}])
      assert Doc.get(edited, [:x]) == 5
      assert merged |> Doc.update({:delete, [:x], :set}) |> Doc.get([:x]) == 1
      assert merged |> Doc.update({:delete, [:x], :register}) |> Doc.get([:x]) == MapSet.new([2])
      assert merged |> Doc.update({:delete, [:x]}) |> Doc.get([:x]) == nil
      assert merged |> Doc.update({:delete, [:m], :map}) |> Doc.get([:m]) == 2
      assert merged |> Doc.encode() |> Doc.decode!("c") |> Doc.value() == Doc.value(merged)
    end

    test "a set is asked for its elements wherever it stands" do
      right = [{:put, [:m, :a], 1}, {:put, [:r], 1}]
      left = [{:add, [:m], 2}, {:add, [:r], 2}, {:add, [:g], 1}]
      merged = concurrently(Doc.new("base"), left, right)
      two = doc("x", {:add, [:g], 3, :set_grow}) |> Doc.merge(merged)
      assert Doc.get(merged, [:m]) == %{a: 1}

      assert for(path <- [[:m], [:r]], e <- [2, 3], do: Doc.member?(merged, path, e)) ==
               [true, false, true, false]

      assert Doc.member?(merged, [:m], 2, kind: :set)
      refute Doc.member?(merged, [:m], 2, kind: :set_grow)
      refute Doc.member?(merged, [:m], :a, kind: :map)
      assert {Doc.member?(two, [:g], 1), Doc.member?(two, [:g], 3)} == {true, false}
      assert Doc.member?(two, [:g], 3, kind: :set_grow)
    end

    test "two maps at one path" do
      left = {:put, [:m, :a], 1}
      right = {:in, [:m], :map_grow, [{:put, [:a], 2}]}
      merged = concurrently(Doc.new("base"), left, right)
      assert Doc.get(merged, [:m, :a]) == 1
      assert Doc.get(merged, [:m], nil, kind: :map_grow) == %{a: 2}

      assert merged |> Doc.update({:in, [:m], :map_grow, [{:put, [:a], 3}]}) |> Doc.get([:m, :a]) ==
               1

      assert merged |> Doc.update({:delete, [:m], :map}) |> Doc.get([:m, :a]) == 2
    end
  end

  # Of a set's change, the side on which nothing is.
  defp without_nothing({path, kind, old, new}), do: {path, kind, nothing(old), nothing(new)}
  defp nothing(value), do: if(value == MapSet.new(), do: nil, else: value)

  describe "updates" do
    test "are all or nothing, and each operation sees those before" do
      doc = doc([{:put, [:x], 1}])

      assert reason(doc, [{:put, [:x], 2}, {:put, [:y], 1}, {:add, [:x], 1}]) |> elem(0) ==
               :wrong_kind

      assert Doc.value(doc) == %{x: 1}

      assert doc |> Doc.update([{:delete, [:x]}, {:add, [:x], 1}]) |> Doc.get([:x]) ==
               MapSet.new([1])

      many = for i <- 1..5000, do: {:put, [i], i}
      assert doc |> Doc.update(many) |> Doc.value() |> map_size() == 5001

      assert reason(doc, many ++ [{:add, [17], 1}]) ==
               {:wrong_kind, {:add, [17], 1}, [17], :register, :set}
    end

    test "count as one edit, and not at all when nothing changes" do
      doc = doc([{:put, [:x], 1}, {:add, [:s], 1}])
      assert Doc.clock(doc) |> Clock.to_map() == %{"a" => 1}

      assert doc
             |> Doc.update([{:put, [:x], 1}, {:put, [:y], 1}])
             |> Doc.clock()
             |> Clock.get("a") == 2

      for ops <- [
            [],
            {:remove, [:s], 2},
            {:delete, [:none]},
            {:disable, [:f]},
            {:reset, [:c]},
            {:in, [:m], :map, []}
          ] do
        assert doc |> Doc.update(ops) |> Doc.clock() == Doc.clock(doc)
        assert doc |> Doc.update(ops) |> Doc.encode() == Doc.encode(doc)
      end
    end

    test "leave old handles as they were" do
      {docs, _} =
        Enum.map_reduce(1..300, Doc.new("a"), fn i, doc ->
          next =
            Doc.update(doc, [
              {:add, [:s], i},
              {:put, [:last], i},
              {:delete, [:m]},
              {:put, [:m, i], i}
            ])

          {{next, Doc.encode(next), Doc.hash(next)}, next}
        end)

      for {{doc, bytes, hash}, i} <- Enum.with_index(Enum.shuffle(docs), 1), rem(i, 3) == 0 do
        assert {Doc.encode(doc), Doc.hash(doc)} == {bytes, hash}
      end

      for {{doc, _, _}, i} <- Enum.with_index(docs, 1) do
        assert Doc.value(doc) == %{s: MapSet.new(1..i), last: i, m: %{i => i}}
      end
    end

    test "through old handles make branches" do
      old = doc({:add, [:s], 0})
      branches = for i <- 1..50, do: old |> Doc.fork("r#{i}") |> Doc.update({:add, [:s], i})
      assert Doc.get(old, [:s]) == MapSet.new([0])
      assert branches |> Enum.reduce(&Doc.merge/2) |> Doc.get([:s]) == MapSet.new(0..50)
    end
  end

  describe "reading" do
    test "what is not there" do
      doc = doc([{:put, [:m, :x], 1}, {:add, [:s], 1}])

      for path <- [[:y], [:m, :y], [:m, :x, :z], [:s, 1], [:m, :x, 1, 2, 3], ["m"]] do
        assert Doc.get(doc, path) == nil
        assert Doc.get(doc, path, :default) == :default
        assert Doc.fetch(doc, path) == :error
        refute Doc.member?(doc, path, 1)
      end

      refute Doc.member?(doc, [:m], :x)
      refute Doc.member?(doc, [], 1)
      assert Doc.value(Doc.new("a")) == %{}
      assert Doc.fetch(Doc.new("a"), []) == {:ok, %{}}
      assert Doc.get(doc, [], nil, kind: :map) == Doc.value(doc)
      for kind <- @kinds -- [:map], do: assert(Doc.fetch(doc, [], kind: kind) == :error)
    end

    test "about the document itself" do
      empty = Doc.new(:atom)
      assert %{replica: :atom, cells: 0, bytes: bytes} = Doc.info(empty)
      doc = Doc.update(empty, for(i <- 1..1000, do: {:add, [:s], i}))
      assert %{replica: :atom, cells: 1000, bytes: more} = Doc.info(doc)
      assert more > bytes + 8000
      assert %{replica: "é\0", cells: 1000} = doc |> Doc.fork("é\0") |> Doc.info()
    end

    test "hash and bytes are of the content alone" do
      ops = for i <- 1..100, do: {:add, [:s], i}
      hashes = for r <- ["a", "b"], do: doc(r, ops) |> Doc.hash()
      assert [<<_::128>>, <<_::128>>] = hashes
      a = doc("a", ops)
      b = Doc.decode!(Doc.encode(a), "b")

      assert {Doc.hash(a), Doc.encode(a), Doc.clock(a)} ==
               {Doc.hash(b), Doc.encode(b), Doc.clock(b)}

      assert Doc.hash(Doc.new("a")) == Doc.hash(Doc.new("b"))
      assert Doc.hash(Doc.update(a, {:add, [:s], 101})) != Doc.hash(a)
      assert Doc.info(b).replica == "b"
    end

    test "inspect shows the content, or of large documents the hash" do
      doc = doc([{:put, ["x"], 1}, {:add, [:s], 2}])
      assert inspect(doc) == "#Causeway.Doc<\"a\", #{inspect(Doc.value(doc))}>"
      large = doc(for i <- 1..2000, do: {:add, [:s], i})

      assert inspect(large) ==
               "#Causeway.Doc<\"a\", 2000 cells, #{Base.encode16(Doc.hash(large), case: :lower)}>"

      heavy = doc({:put, ["x"], :binary.copy("x", 1_000_000)})
      assert inspect(heavy) =~ ~r/^#Causeway.Doc<"a", 1 cells, [0-9a-f]{32}>$/
      assert inspect(Doc.new(:me)) == "#Causeway.Doc<:me, %{}>"
      assert inspect(Doc.clock(doc)) == ~s(#Causeway.Clock<%{"a" => 1}>)
    end
  end

  describe "diff" do
    test "names what changed, in the order of paths" do
      a =
        doc([
          {:put, [:reg], 1},
          {:put, [:multi], 1, :register_multi},
          {:increment, [:c], 1},
          {:increment, [:b], 1, :counter_bounded},
          {:add, [:s], 1},
          {:add, [:s], 2},
          {:enable, [:f]},
          {:put, [:m, :gone], 1},
          {:put, [:same], 1}
        ])

      b =
        Doc.update(a, [
          {:put, [:reg], 2},
          {:put, [:multi], 2},
          {:increment, [:c], 1},
          {:increment, [:b], 1},
          {:remove, [:s], 1},
          {:add, [:s], 3},
          {:disable, [:f]},
          {:delete, [:m]},
          {:put, [:new, :x], nil},
          {:put, [:same], 1}
        ])

      assert Doc.diff(a, b) == [
               {[:b], :counter_bounded, 1, 2},
               {[:c], :counter, 1, 2},
               {[:f], :flag, true, nil},
               {[:m, :gone], :register, 1, nil},
               {[:multi], :register_multi, [1], [2]},
               {[:new, :x], :register, nil, nil},
               {[:reg], :register, 1, 2},
               {[:s], :set, MapSet.new([1]), MapSet.new([3])}
             ]

      assert Doc.diff(a, a) == []
      assert Doc.diff(b, a) |> Enum.map(fn {p, k, x, y} -> {p, k, y, x} end) == Doc.diff(a, b)
    end

    test "of large documents" do
      a = doc(for i <- 1..3000, do: {:put, [:m, i], i})
      b = Doc.update(a, for(i <- 1..3000, do: {:put, [:m, i], -i}))
      assert Doc.diff(a, b) == for(i <- 1..3000, do: {[:m, i], :register, i, -i})
      assert length(Doc.diff(Doc.new("x"), b)) == 3000
    end
  end

  describe "exchange" do
    setup do
      a = doc("a", for(i <- 1..50, do: {:add, [:s], i}))
      b = a |> Doc.fork("b") |> Doc.update({:add, [:s], :new}) |> Doc.update({:remove, [:s], 7})
      %{a: a, b: b}
    end

    test "a delta since a clock, or since a document", %{a: a, b: b} do
      for since <- [Doc.clock(a), a] do
        delta = Doc.delta(b, since: since)
        assert byte_size(delta) < 200
        {:ok, got} = Doc.apply_delta(a, delta)
        assert Doc.encode(got) == Doc.encode(b)
        assert Doc.info(got).replica == "a"
        assert Doc.apply_delta!(got, delta) |> Doc.encode() == Doc.encode(b)
      end

      assert byte_size(Doc.delta(b, since: Doc.clock(b))) < 60
      assert byte_size(Doc.delta(b, since: b)) < 60
      whole = Doc.delta(b, since: Clock.new())
      assert Doc.decode!(whole, "c") |> Doc.encode() == Doc.encode(b)
    end

    test "a whole state can be applied like a delta", %{a: a, b: b} do
      mine = Doc.update(a, {:add, [:s], :mine})

      assert Doc.apply_delta!(mine, Doc.encode(b)) |> Doc.encode() ==
               Doc.encode(Doc.merge(mine, b))
    end

    test "one that builds on what was not seen is refused", %{a: a, b: b} do
      c = Doc.update(b, {:add, [:s], :newer})
      delta = Doc.delta(c, since: b)
      assert {:error, error} = Doc.apply_delta(a, delta)
      assert error.reason == {:gap, "b", 0, 2}

      assert Exception.message(error) =~
               ~s(builds on write 2 of replica "b", but only 0 have been seen)

      assert_raise Error, fn -> Doc.apply_delta!(a, delta) end
      first = Doc.delta(b, since: a)

      assert a |> Doc.apply_delta!(first) |> Doc.apply_delta!(delta) |> Doc.encode() ==
               Doc.encode(c)

      {:ok, joined} = Doc.join_deltas(delta, first)
      assert Doc.apply_delta!(a, joined) |> Doc.encode() == Doc.encode(c)
      d = Doc.update(c, {:add, [:s], :newest})

      assert {:error, %Error{reason: {:not_adjoining, nil}} = error} =
               Doc.join_deltas(first, Doc.delta(d, since: c))

      assert Exception.message(error) =~ "writes between the two are in neither"
    end

    test "a delta between documents of which the first is not a part of the second", %{a: a, b: b} do
      mine = Doc.update(a, {:add, [:s], :mine})
      error = assert_raise Error, ~r/merge them first/, fn -> Doc.delta(b, since: mine) end
      assert error.reason == {:not_an_ancestor, nil}
    end

    test "two documents under one name, where it shows" do
      a = doc("a", {:put, [:x], 1})
      b = doc("a", {:put, [:x], 2})
      error = assert_raise Error, ~r/same replica name.*fork/, fn -> Doc.merge(a, b) end
      assert error.reason == {:duplicate_replica, nil}

      assert {:error, %Error{reason: {:duplicate_replica, nil}}} =
               Doc.apply_delta(a, Doc.encode(b))

      assert {:error, %Error{reason: {:duplicate_replica, nil}}} =
               Doc.join_deltas(Doc.encode(a), Doc.encode(b))

      other = doc("a", {:put, [:y], 2})
      assert_raise Error, fn -> Doc.merge(a, other) end
    end

    test "documents of any replica name" do
      for name <- ["", "a", :a, :"", "\0", "日本", :日本, String.duplicate("x", 1000), :"Elixir.X"] do
        doc = doc(name, {:increment, [:n], 2})
        assert Doc.info(doc).replica == name
        assert Doc.clock(doc) |> Clock.to_map() == %{name => 1}

        assert Doc.decode!(Doc.encode(doc), "z")
               |> Doc.merge(doc("b", {:increment, [:n]}))
               |> Doc.get([:n]) == 3
      end

      two = Doc.merge(doc("a", {:increment, [:n]}), doc(:a, {:increment, [:n]}))
      assert Doc.get(two, [:n]) == 2

      for name <- [
            nil,
            true,
            false,
            1,
            1.5,
            [],
            {},
            %{},
            self(),
            <<1::3>>,
            String.duplicate("x", 1100)
          ] do
        error = assert_raise Error, ~r/cannot name a replica/, fn -> Doc.new(name) end
        assert error.reason == {:bad_replica, name}
        assert_raise Error, fn -> Doc.fork(Doc.new("a"), name) end
        assert_raise Error, fn -> Doc.decode(Doc.encode(Doc.new("a")), name) end
      end
    end
  end
end
