defmodule Causeway.ErlangTest do
  # The modules for Erlang do what those for Elixir do; here are the forms in which they differ.
  use ExUnit.Case, async: true
  alias Causeway.{Clock, Doc}

  @moduletag :asan

  setup do
    a = :causeway_doc.new(:a)

    {:ok, a} =
      :causeway_doc.update(a, [
        {:put, [:x], 1},
        {:add, ["s"], 2},
        {:add, ["s"], 1},
        {:put, [:m, :y], nil}
      ])

    b = :causeway_doc.fork(a, "b")
    {:ok, b} = :causeway_doc.update(b, {:remove, ["s"], 2})
    {:ok, b} = :causeway_doc.update(b, {:increment, [:n], 5, :counter_bounded})
    %{a: a, b: b}
  end

  test "reading", %{a: a, b: b} do
    assert :causeway_doc.value(a) == %{:x => 1, "s" => [1, 2], :m => %{y: nil}}
    assert :causeway_doc.get(a, [:x]) == 1
    assert :causeway_doc.get(a, [:no]) == :undefined
    assert :causeway_doc.get(a, [:no], :default) == :default
    assert :causeway_doc.fetch(a, [:m]) == {:ok, %{y: nil}}
    assert :causeway_doc.fetch(a, [:no]) == :error
    assert :causeway_doc.is_member(a, ["s"], 1)
    refute :causeway_doc.is_member(a, ["s"], 3)
    refute :causeway_doc.is_member(a, ["none"], 3)
    assert :causeway_doc.rights(b, [:n]) == {5, 0}
    assert :causeway_doc.rights(a, [:n]) == {0, 0}
    assert {:a, 4, bytes} = :causeway_doc.info(a)
    assert bytes > 0
  end

  test "exchange", %{a: a, b: b} do
    {:ok, merged} = :causeway_doc.merge(a, b)
    assert :causeway_doc.hash(merged) == :causeway_doc.hash(b)
    assert :causeway_doc.encode(merged) == :causeway_doc.encode(b)
    {:ok, delta} = :causeway_doc.delta(b, :causeway_doc.clock(a))
    {:ok, applied} = :causeway_doc.apply_delta(a, delta)
    assert :causeway_doc.encode(applied) == :causeway_doc.encode(b)
    {:ok, other} = :causeway_doc.delta(b, a)
    {:ok, joined} = :causeway_doc.join_deltas(delta, other)
    {:ok, applied} = :causeway_doc.apply_delta(a, joined)
    assert :causeway_doc.encode(applied) == :causeway_doc.encode(b)
    {:ok, decoded} = :causeway_doc.decode(:causeway_doc.encode(b), "c")
    assert :causeway_doc.value(decoded) == :causeway_doc.value(b)
    # One document can be used from both languages.
    assert Doc.value(%Doc{ref: b}) == %{:x => 1, "s" => MapSet.new([1]), :m => %{y: nil}, :n => 5}
  end

  test "diff", %{a: a, b: b} do
    assert :causeway_doc.diff(a, b) == [
             {[:n], :counter_bounded, :absent, 5},
             {["s"], :set, [2], []}
           ]

    assert :causeway_doc.diff(b, b) == []
  end

  test "clocks" do
    clock = :causeway_clock.new([{"a", 1}, {:b, 2}])
    assert clock == Clock.new(%{"a" => 1, :b => 2}).bytes
    assert Enum.sort(:causeway_clock.to_list(clock)) == [{:b, 2}, {"a", 1}]
    newer = :causeway_clock.merge(clock, :causeway_clock.new([{"a", 3}]))
    assert :causeway_clock.compare(clock, newer) == :before
    assert :causeway_clock.compare(newer, clock) == :after
    assert :causeway_clock.tick(0, 1000) == 65_536_000
    assert :causeway_clock.merge(clock, "") |> elem(0) == :error
  end

  test "failures", %{a: a, b: b} do
    assert :causeway_doc.new(1) == {:error, {:bad_replica, 1}}
    assert :causeway_doc.fork(a, nil) == {:error, {:bad_replica, nil}}
    assert :causeway_doc.decode("", "b") == {:error, :etruncated}
    assert :causeway_doc.decode("", 1) == {:error, {:bad_replica, 1}}
    assert :causeway_doc.update(a, {:add, [:x], 1}) == {:error, {:ekind, {0, 1, :register, :set}}}
    assert :causeway_doc.update(a, :what) == {:error, {:bad_op, :what}}
    assert :causeway_doc.update(a, {:put, :x, 1}) == {:error, {:bad_path, {:put, :x, 1}}}
    assert :causeway_doc.update(b, {:decrement, [:n], 6}) == {:error, {:erights, {0, 5, 0}}}
    assert :causeway_doc.delta(a, b) == {:error, :eclock}
    {:ok, c} = :causeway_doc.update(b, {:increment, [:n]})
    {:ok, delta} = :causeway_doc.delta(c, b)
    assert :causeway_doc.apply_delta(a, delta) == {:error, {:egap, {"b", 0, 2}}}
    assert_raise ErlangError, ~r/bad_path/, fn -> :causeway_doc.get(a, :x) end
    assert_raise ErlangError, ~r/bad_term/, fn -> :causeway_doc.is_member(a, ["s"], self()) end
    assert_raise ArgumentError, fn -> :causeway_doc.value(make_ref()) end
  end
end
