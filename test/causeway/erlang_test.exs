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
    assert :causeway_clock.contains(newer, clock)
    refute :causeway_clock.contains(clock, newer)
    assert :causeway_clock.get(newer, "a") == 3
    assert :causeway_clock.get(newer, :a) == 0
    assert :causeway_clock.decode(clock) == {:ok, clock}
    assert :causeway_clock.decode("") == {:error, :etruncated}
    assert_raise ErlangError, ~r/etruncated/, fn -> :causeway_clock.merge(clock, "") end
    assert Enum.sort(:causeway_clock.to_list(clock, atoms: :create)) == [{:b, 2}, {"a", 1}]
    assert_raise ErlangError, ~r/bad_option/, fn -> :causeway_clock.to_list(clock, kind: 1) end
  end

  test "options", %{a: a} do
    {:ok, other} = :causeway_doc.update(:causeway_doc.new("c"), {:put, ["s"], 7})
    {:ok, both} = :causeway_doc.merge(a, other)
    assert :causeway_doc.get(both, ["s"]) == [1, 2]
    assert :causeway_doc.get(both, ["s"], :none, kind: :register) == 7
    assert :causeway_doc.fetch(both, ["s"], kind: :counter, atoms: :create) == :error
    assert :causeway_doc.is_member(both, ["s"], 1, kind: :set)
    refute :causeway_doc.is_member(both, ["s"], 1, kind: :set_grow)
    assert :causeway_doc.value(both, atoms: :create) == :causeway_doc.value(both)
    assert :causeway_doc.diff(both, both, atoms: :create) == []

    for {option, call} <- [
          {:knid, fn -> :causeway_doc.get(a, [:x], nil, knid: :set) end},
          {:bogus, fn -> :causeway_doc.fetch(a, [:x], kind: :bogus) end},
          {:kind, fn -> :causeway_doc.value(a, kind: :map) end},
          {:atoms, fn -> :causeway_doc.diff(a, a, atoms: true) end},
          {:set, fn -> :causeway_doc.is_member(a, [:x], 1, :set) end},
          {:tail, fn -> :causeway_doc.value(a, [{:atoms, :create} | :tail]) end}
        ],
        do: assert_raise(ErlangError, ~r/bad_option.*#{option}/, call)
  end

  test "reasons have sentences", %{a: a, b: b} do
    shared = Enum.reduce(1..60, 0, fn _, term -> [term, term] end)
    large = Bitwise.bsl(1, 4_000_000)
    {:ok, c} = :causeway_doc.update(b, {:increment, [:n]})
    {:ok, delta} = :causeway_doc.delta(c, b)
    {:ok, first} = :causeway_doc.delta(b, :causeway_doc.clock(b))

    for {result, part} <- [
          {:causeway_doc.update(a, [{:put, [:x], 2}, {:add, [:x], 1}]),
           "operation 1 is for a set"},
          {:causeway_doc.update(a, :what), "what is no operation"},
          {:causeway_doc.update(a, {:bogus, [:x], shared}), "is no operation"},
          {:causeway_doc.update(a, {:put, shared, 1}), "an operation put is too large"},
          {:causeway_doc.update(a, {:put, {shared}, 1}), "1 to 64 terms"},
          {:causeway_doc.update(a, {:put, [:x], self()}), "cannot be kept"},
          {:causeway_doc.update(a, {:put, [:x], large}), "an operation put is too large"},
          {:causeway_doc.update(a, {:transfer, [:x], 1, nil}), "cannot name a replica"},
          {:causeway_doc.update(a, {:increment, [:c], large}), "out of range"},
          {:causeway_doc.update(b, {:decrement, [:n], 6}), "than the 5 left"},
          {:causeway_doc.update(a, {:remove, [:g], 1, :set_grow}),
           "cannot be done to a set_grow"},
          {:causeway_doc.delta(a, b), "merge them first"},
          {:causeway_doc.apply_delta(a, delta), "builds on write 2 of replica <<\"b\">>"},
          {:causeway_doc.apply_delta(a, ""), "damaged"},
          {:causeway_doc.join_deltas(first, "x"), "damaged"},
          {{:error, {:bad_entry, {large, shared}}}, "cannot be in a clock"},
          {{:error, {shared, large}}, "..."}
        ] do
      assert {:error, reason} = result
      text = reason |> :causeway_doc.format_error() |> to_string()
      assert text =~ part
      assert String.length(text) < 700
    end

    for reason <-
          [:enomem, :eversion, :egap, :eduplicate, :ereplica, :eclock, :erange, :elimit] ++
            [{:epath, {0, 1}}, {:bad_option, {:knid, 1}}, {:unknown_atom, "x"}],
        do: assert(reason |> :causeway_doc.format_error() |> to_string() =~ " ")
  end

  test "failures", %{a: a, b: b} do
    assert_raise ErlangError, ~r/{:bad_replica, 1}/, fn -> :causeway_doc.new(1) end
    assert_raise ErlangError, ~r/{:bad_replica, nil}/, fn -> :causeway_doc.fork(a, nil) end
    assert :causeway_doc.decode("", "b") == {:error, :etruncated}
    assert_raise ErlangError, ~r/{:bad_replica, 1}/, fn -> :causeway_doc.decode("", 1) end
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
