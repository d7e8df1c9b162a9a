defmodule Causeway.DocRefusalTest do
  # What is refused, and how that is said: bytes, atoms, terms, arguments.
  use ExUnit.Case, async: true
  import Bitwise
  import Causeway.SmallDoc
  alias Causeway.{Clock, Doc, Error}

  @moduletag :asan

  describe "bytes that are no document" do
    setup do
      ops = [
        {:put, [:r], %{"k" => [1, 2.5, :atom, nil]}},
        {:put, ["m"], 1, :register_multi},
        {:increment, [:c], 1000},
        {:increment, [:b], 7, :counter_bounded},
        {:transfer, [:b], 3, "other"},
        {:add, [:s], {1}},
        {:add, [:rw], "e", :set_remove_wins},
        {:remove, [:rw], "e"},
        {:enable, [:f]},
        {:in, [:g], :map_grow, [{:put, [1], 1}]}
      ]

      a = doc("a", ops)
      b = a |> Doc.fork("b") |> Doc.update([{:increment, [:c]}, {:put, ["m"], 2}])
      c = a |> Doc.fork("c") |> Doc.update([{:delete, [:c]}, {:put, ["m"], 3}])
      %{a: a, doc: Doc.merge(b, c), delta: Doc.delta(Doc.merge(b, c), since: Doc.clock(a))}
    end

    test "every beginning of one is refused", %{a: a, doc: doc, delta: delta} do
      for bytes <- [Doc.encode(doc), delta, Doc.delta(doc, since: a)],
          n <- 0..(byte_size(bytes) - 1) do
        part = binary_part(bytes, 0, n)
        assert {:error, %Error{reason: {:malformed, "the document"}}} = Doc.decode(part, "x")

        assert {:error, %Error{reason: {:malformed, "the delta"}} = error} =
                 Doc.apply_delta(a, part)

        assert Exception.message(error) =~ "the delta is damaged"

        assert {:error, %Error{reason: {:malformed, "one of the deltas"}}} =
                 Doc.join_deltas(part, bytes)

        assert {:error, %Error{reason: {:malformed, "one of the deltas"}}} =
                 Doc.join_deltas(bytes, part)
      end
    end

    test "and anything after one", %{doc: doc} do
      for more <- [<<0>>, <<255>>, Doc.encode(doc)],
          do:
            assert(
              {:error, %Error{reason: {:malformed, _}}} = Doc.decode(Doc.encode(doc) <> more, "x")
            )
    end

    test "every change of a byte is refused, or is a document", %{a: a, doc: doc, delta: delta} do
      for bytes <- [Doc.encode(doc), delta],
          at <- 0..(byte_size(bytes) - 1),
          flip <- [1, 2, 4, 16, 128, 255] do
        {before, <<byte, rest::binary>>} = :erlang.split_binary(bytes, at)
        bytes = <<before::binary, bxor(byte, flip), rest::binary>>

        case Doc.apply_delta(a, bytes) do
          {:ok, got} ->
            assert {:ok, _} = Doc.decode(Doc.encode(got), "x")
            assert is_binary(inspect(got))
            assert got |> Doc.merge(a) |> Doc.encode() == Doc.encode(got)

          {:error, %Error{reason: reason}} ->
            assert elem(reason, 0) in [
                     :malformed,
                     :unknown_version,
                     :gap,
                     :duplicate_replica,
                     :replica_clash
                   ]
        end
      end
    end

    test "of a newer version", %{a: a, doc: doc} do
      <<magic, type, rest::binary>> = Doc.encode(doc)
      newer = <<magic, type + 0x10, rest::binary>>

      assert {:error, %Error{reason: {:unknown_version, "the document"}} = error} =
               Doc.decode(newer, "x")

      assert Exception.message(error) =~ "newer format"
      assert {:error, %Error{reason: {:unknown_version, "the delta"}}} = Doc.apply_delta(a, newer)
      <<magic, type, rest::binary>> = Clock.encode(Doc.clock(doc))

      assert {:error, %Error{reason: {:unknown_version, "the clock"}}} =
               Clock.decode(<<magic, type + 0x10, rest::binary>>)
    end

    test "of another type", %{a: a} do
      clock = Clock.encode(Doc.clock(a))
      assert {:error, %Error{reason: {:malformed, _}}} = Doc.decode(clock, "x")
      assert {:error, %Error{reason: {:malformed, _}}} = Clock.decode(Doc.encode(a))

      assert_raise Error, ~r/the clock is damaged/, fn ->
        Doc.delta(a, since: %Clock{bytes: "what?"})
      end
    end
  end

  describe "atoms that this VM does not have" do
    # Written here under another name of the same length; only bytes change it, so it is new to the VM.
    setup do
      known = "causeway_test_atom_0000"

      new =
        "causeway_test_atom_" <>
          (:rand.bytes(8) |> Base.encode16(case: :lower) |> binary_part(0, 4))

      _ = String.to_atom(known)
      a = String.to_atom(known)

      swap = fn ops, replica ->
        doc(replica, ops) |> Doc.encode() |> String.replace(known, new) |> Doc.decode!("reader")
      end

      %{atom: a, new: new, swap: swap}
    end

    test "are not made, unless asked for", %{atom: atom, new: new, swap: swap} do
      for ops <- [
            {:put, ["x"], [atom]},
            {:add, ["x"], atom},
            {:put, ["x", atom], 1},
            {:put, ["x"], %{atom => 1}, :register_multi}
          ] do
        doc = swap.(ops, "writer")
        error = assert_raise Error, ~r/#{new}.*atoms: :create/, fn -> Doc.value(doc) end
        assert error.reason == {:unknown_atom, new}
        assert_raise Error, fn -> Doc.get(doc, ["x"]) end
        assert_raise Error, fn -> Doc.fetch(doc, ["x"]) end
        assert_raise Error, fn -> Doc.diff(Doc.new("z"), doc) end
        assert inspect(doc) =~ "1 cells"
        assert Doc.encode(Doc.decode!(Doc.encode(doc), "q")) == Doc.encode(doc)
      end

      assert_raise ArgumentError, fn -> String.to_existing_atom(new) end
      doc = swap.({:put, ["x"], [atom]}, "writer")
      assert [[made]] = Map.values(Doc.value(doc, atoms: :create))
      assert Atom.to_string(made) == new
      assert Doc.value(doc) == %{"x" => [made]}
      assert [{["x"], :register, nil, [^made]}] = Doc.diff(Doc.new("z"), doc)
    end

    test "in replica names", %{atom: atom, new: new, swap: swap} do
      doc = swap.({:put, ["x"], 1}, atom)
      assert Doc.value(doc) == %{"x" => 1}
      clock = Doc.clock(doc)
      assert_raise Error, ~r/#{new}.*atoms: :create/, fn -> Clock.to_map(clock) end
      assert Clock.get(clock, "a") == 0
      assert inspect(clock) =~ new
      assert {:ok, ^clock} = clock |> Clock.encode() |> Clock.decode()
      more = Doc.update(doc, {:put, ["x"], 2})
      assert Clock.compare(Doc.clock(more), clock) == :after
      # A gap in what it wrote is told with the name as a binary.
      bytes =
        doc(atom, {:put, ["x"], 1})
        |> then(&Doc.delta(Doc.update(&1, {:put, ["x"], 2}), since: &1))

      bytes = String.replace(bytes, Atom.to_string(atom), new)
      assert {:error, %Error{reason: {:gap, ^new, 0, 1}}} = Doc.apply_delta(Doc.new("z"), bytes)
      assert_raise ArgumentError, fn -> String.to_existing_atom(new) end
      assert [{made, 1}] = clock |> Clock.to_map(atoms: :create) |> Map.to_list()
      assert Atom.to_string(made) == new
      assert Clock.get(clock, made) == 1
    end
  end

  describe "what cannot be kept" do
    test "is named" do
      doc = Doc.new("a")

      for bad <- [self(), make_ref(), fn -> 1 end, hd(Port.list()), [1 | 2], <<1::3>>, [[] | :x]] do
        for term <- [bad, [1, bad], {bad}, %{bad => 1}, %{x: %{y: [bad]}}, [[[[bad]]]]] do
          for op <- [
                {:put, [:x], term},
                {:add, [:x], term},
                {:remove, [:x], term},
                {:put, [:x, term], 1},
                {:in, [term], :map, [{:put, [:x], 1}]}
              ] do
            assert reason(doc, op) == {:bad_term, bad, op}
            assert reason(doc, [{:put, [:y], 1}, op, {:put, [:z], 1}]) == {:bad_term, bad, op}
            assert reason(doc, {:in, [:m], :map, [{:put, [:y], 1}, op]}) == {:bad_term, bad, op}
          end

          error = assert_raise Error, ~r/cannot be kept/, fn -> Doc.get(doc, [term]) end
          assert error.reason == {:bad_term, bad, [term]}
          assert_raise Error, ~r/cannot be kept/, fn -> Doc.rights(doc, [term]) end
          some = Doc.update(doc, {:add, [:x], 1})
          assert_raise Error, ~r/cannot be kept/, fn -> Doc.member?(some, [:x], term) end
        end
      end
    end

    test "is too large, or too deep" do
      doc = Doc.new("a")
      nest = fn n, wrap -> Enum.reduce(1..n, 0, fn _, term -> wrap.(term) end) end

      for wrap <- [fn x -> [x] end, fn x -> {x} end, fn x -> %{x: x} end, fn x -> %{x => 1} end] do
        deep = nest.(64, wrap)
        doc = Doc.update(doc, [{:put, [:x], deep}, {:add, [:s], deep}, {:put, [:m, deep], 1}])

        assert doc |> Doc.encode() |> Doc.decode!("b") |> Doc.value() == %{
                 x: deep,
                 s: MapSet.new([deep]),
                 m: %{deep => 1}
               }

        op = {:put, [:x], nest.(65, wrap)}
        assert reason(doc, op) == {:too_large, op}
        assert {:too_large, _} = reason(doc, {:add, [:s], nest.(65, wrap)})
      end

      op = {:put, [:x], nest.(1_000_000, &[&1])}
      assert {:too_large, _} = reason(doc, op)
      most = (1 <<< (8 * 65_536)) - 1
      for n <- [most, -most], do: assert(Doc.get(Doc.update(doc, {:put, [:x], n}), [:x]) == n)

      for op <- [{:put, [:x], most + 1}, {:put, [:x], [-most - 1]}, {:add, [:x], most}],
          do: assert({:error, %Error{reason: {:too_large, ^op}}} = Doc.try_update(doc, op))

      op = {:add, [:x], 1 <<< (8 * 9000)}
      assert {:error, error} = Doc.try_update(doc, op)
      assert byte_size(Exception.message(error)) < 1000
    end

    # A part that is there twice is one term in memory, and two in bytes.
    test "is too large for all that it shares" do
      share = fn wrap -> Enum.reduce(1..60, [], fn _, term -> wrap.(term) end) end
      tuples = share.(fn term -> {term, term} end)

      for term <- [tuples, share.(&[&1 | &1]), share.(&%{1 => &1, 2 => &1})],
          op <- [{:add, [:x], term}, {:put, [term], 1}],
          do:
            assert({:error, %Error{reason: {:too_large, ^op}}} = Doc.try_update(Doc.new("a"), op))

      op = {:put, [:x], tuples}
      assert {:error, %Error{reason: {:too_large, ^op}}} = Doc.try_update(Doc.new("a"), op)
    end

    test "is a value of more than 64 MiB" do
      large = :binary.copy("x", (64 <<< 20) - 64)
      doc = doc({:put, [:x], large})
      assert Doc.get(doc, [:x]) == large
      assert {:too_large, _} = reason(doc, {:put, [:x], [large, :binary.copy("x", 64)]})
    end
  end

  test "what is no operation is named" do
    doc = doc({:put, [:x], 1})

    for bad <- [
          nil,
          :put,
          1,
          "put",
          %{},
          {},
          {:put},
          {:put, [:x]},
          {:put, [:x], 1, :register, 2},
          {:putt, [:x], 1},
          {:put, [:x], 1, :nothing},
          {:put, [:x], 1, nil},
          {"put", [:x], 1},
          {:increment},
          {:increment, [:x], 1.5},
          {:increment, [:x], :one},
          {:increment, [:x], nil},
          {:increment, [:x], :counter},
          {:add, [:x]},
          {:enable, [:x], 1},
          {:enable},
          {:transfer, [:x], 1},
          {:transfer, [:x], 1.5, "b"},
          {:reset},
          {:delete},
          {:delete, [:x], :nothing},
          {:reset, [:x], 1},
          {:in, [:x], :map},
          [[{:put, [:x], 1}]]
        ] do
      named = if is_list(bad), do: hd(bad), else: bad
      assert reason(doc, bad) == {:bad_operation, named}
      assert reason(doc, [{:put, [:x], 2}, named]) == {:bad_operation, named}
      assert_raise Error, ~r/is no operation; one looks like/, fn -> Doc.update(doc, bad) end
    end

    assert reason(doc, [{:put, [:x], 1} | :rest]) == {:bad_operation, :rest}
    assert Doc.value(doc) == %{x: 1}
  end

  test "what is no path is named" do
    doc = doc({:put, [:x], 1})

    for path <- [:x, "x", 1, {:x}, {:x, :y}, %{}, nil, [:x | :y], Enum.to_list(1..65)] do
      for op <- [
            {:put, path, 1},
            {:reset, path},
            {:delete, path},
            {:increment, path},
            {:in, path, :map, []}
          ] do
        assert reason(doc, op) == {:bad_path, op}
        assert reason(doc, [{:put, [:y], 1}, op]) == {:bad_path, op}
      end

      for read <- [&Doc.get/2, &Doc.fetch/2, &Doc.rights/2, &Doc.member?(&1, &2, 1)] do
        error = assert_raise Error, ~r/must be a list/, fn -> read.(doc, path) end
        assert error.reason == {:bad_path, path}
      end
    end

    for op <- [{:put, [], 1}, {:reset, []}, {:delete, []}, {:add, [], 1}],
        do: assert(reason(doc, op) == {:bad_path, op})

    assert Doc.rights(doc, []) == {0, 0}
  end

  test "error messages are sentences, for every reason" do
    op = {:put, [:x], 1}

    for reason <- [
          {:wrong_kind, op, [:x], :set, :register},
          {:wrong_kind, op, [:x], :set, nil},
          {:no_such_operation, op, :set_grow},
          {:bad_operation, 1},
          {:bad_path, op},
          {:bad_term, self(), op},
          {:bad_term, self(), self()},
          {:bad_replica, 1},
          {:bad_entry, 1},
          {:insufficient_rights, op, 1, 2},
          {:out_of_range, op},
          {:too_large, op},
          {:gap, "a", 1, 2},
          {:not_adjoining, nil},
          {:out_of_range, {:tick, -1, 0}},
          {:bad_replica, {:transfer, [:x], 1, nil}},
          {:malformed, "the delta"},
          {:unknown_version, "the delta"},
          {:duplicate_replica, nil},
          {:replica_clash, nil},
          {:not_an_ancestor, nil},
          {:unknown_atom, "x"},
          :out_of_memory
        ] do
      message = Exception.message(%Error{reason: reason})
      assert message =~ " "
      refute message =~ "nil have"
      assert message != inspect(reason)
    end
  end

  # A term can be short in memory and print for ever.
  test "error messages are short, and made in no time, for any term in any place" do
    shared = Enum.reduce(1..60, 0, fn _, term -> [term, term] end)
    tuples = Enum.reduce(1..60, 0, fn _, term -> {term, term} end)
    maps = Enum.reduce(1..60, 0, fn _, term -> %{1 => term, 2 => term} end)

    terms = [
      shared,
      tuples,
      maps,
      MapSet.new([shared]),
      # About the largest that OTP 27 and later have.
      1 <<< 4_000_000,
      [-1 <<< 4_000_000],
      Enum.to_list(1..1_000_000),
      List.to_tuple(Enum.to_list(1..1_000_000)),
      Map.new(1..200_000, &{&1, &1}),
      :binary.copy("x", 10_000_000),
      :binary.copy(<<0>>, 10_000_000),
      <<0::size(1_000_001)>>,
      [shared | shared],
      Enum.reduce(1..100_000, 0, fn _, term -> [term] end)
    ]

    for term <- terms, reason <- reasons(term) do
      {us, message} = :timer.tc(fn -> Exception.message(%Error{reason: reason}) end)
      assert us < 1_000_000
      assert byte_size(message) < 5000
      assert String.valid?(message)
    end

    # As they come from calls.
    for term <- terms,
        op <- [{:bogus, [:x], term}, {:put, [:x], [self(), term]}, {:put, term, 1}] do
      assert {:error, error} = Doc.try_update(Doc.new("a"), op)
      assert byte_size(Exception.message(error)) < 5000
    end

    small = {:put, ["x", :y], %{a: [1, 2.5, nil], b: ~D[2024-01-02], c: ~c"text", d: [k: {1}]}}
    assert Exception.message(%Error{reason: {:bad_operation, small}}) =~ inspect(small)
  end

  defp reasons(t) do
    [
      {:wrong_kind, t, t, :set, :register},
      {:wrong_kind, t, t, t, t},
      {:no_such_operation, t, :set_grow},
      {:bad_operation, t},
      {:bad_path, t},
      {:bad_term, t, t},
      {:bad_term, self(), t},
      {:bad_replica, t},
      {:bad_replica, {:transfer, t, t, t}},
      {:bad_entry, t},
      {:insufficient_rights, t, t, t},
      {:out_of_range, t},
      {:out_of_range, {:tick, t, t}},
      {:too_large, t},
      {:gap, t, t, t},
      {:malformed, t},
      {:unknown_version, t},
      {:duplicate_replica, t},
      {:unknown_atom, t},
      {t, t},
      t
    ]
  end

  # ---- wrong arguments ----

  @junk [
          nil,
          :atom,
          0,
          -1,
          1.5,
          1 <<< 70,
          "binary",
          <<1::3>>,
          [],
          [1],
          [1 | 2],
          {},
          {1, 2},
          %{},
          %{a: 1}
        ] ++
          [[kind: :nothing], [since: nil], [since: %{}], [atoms: 5]]

  defp junk,
    do:
      @junk ++
        [
          self(),
          make_ref(),
          &is_atom/1,
          struct(Doc, ref: make_ref()),
          struct(Doc),
          struct(Clock),
          %Clock{bytes: "x"}
        ]

  test "options that there are not are refused, with those that there are" do
    doc = doc([{:put, [:x], 1}, {:add, [:s], 1}])
    clock = Doc.clock(doc)

    for {call, message} <- [
          {fn -> Doc.get(doc, [:x], nil, kind: :bogus) end,
           ~r/get\/4: kind: .*:bogus.*:set_grow/},
          {fn -> Doc.get(doc, [:x], nil, knid: :set) end,
           ~r/no option :knid.*kind: one of .*atoms:/},
          {fn -> Doc.get(doc, [:x], nil, :set) end, ~r/keyword list :set/},
          {fn -> Doc.get(doc, [:x], nil, %{kind: :set}) end, ~r/keyword list %{/},
          {fn -> Doc.fetch(doc, [:x], atoms: true) end,
           ~r/fetch\/3: atoms: .*true.*atoms: :create/},
          {fn -> Doc.value(doc, kind: :map) end,
           ~r/value\/2: .*no option :kind; it takes atoms:/},
          {fn -> Doc.diff(doc, doc, kind: :map) end, ~r/diff\/3: .*no option :kind/},
          {fn -> Doc.member?(doc, [:s], 1, atoms: :create) end,
           ~r/member\?\/4: .*no option :atoms/},
          {fn -> apply(Doc, :update, [doc, [], [as_of: 5]]) end,
           ~r/takes the option as_of.*not \[as_of: 5\]/},
          {fn -> Doc.try_update(doc, [], asof: doc) end, ~r/takes the option as_of/},
          {fn -> Doc.delta(doc, since: 5) end, ~r/takes since: .*not \[since: 5\]/},
          {fn -> Doc.delta(doc, clock) end, ~r/takes since:/},
          {fn -> Clock.to_map(clock, kind: :set) end, ~r/to_map\/2: .*no option :kind/}
        ],
        do: assert_raise(ArgumentError, message, call)

    assert Doc.get(doc, [:x], nil, kind: nil, atoms: :create) == 1
  end

  test "any wrong argument to any function raises, and nothing worse" do
    doc = doc([{:put, [:x], 1}, {:add, [:s], 1}])
    clock = Doc.clock(doc)
    good = [doc, [:x], "a", clock, 5, Doc.encode(doc), {:put, [:x], 1}, [since: doc]]

    for module <- [Doc, Clock, Causeway.HLC], args <- calls(module, good) do
      check_call(module, args, [ArgumentError, FunctionClauseError, Error])
    end

    good = [doc.ref, [:x], "a", clock.bytes, 5, Doc.encode(doc), {:put, [:x], 1}, [{"a", 1}]]

    for module <- [:causeway_doc, :causeway_clock, :causeway_nif], args <- calls(module, good) do
      check_call(module, args, [ArgumentError, FunctionClauseError, ErlangError])
    end

    assert Doc.value(doc) == %{x: 1, s: MapSet.new([1])}
  end

  defp calls(module, good) do
    for {name, arity} <- module.module_info(:exports),
        name not in [:module_info, :__info__, :__struct__, :file_lock],
        args <- arguments(arity, good),
        do: {name, args}
  end

  defp check_call(module, {name, args}, allowed) do
    apply(module, name, args)
  rescue
    error ->
      unless error.__struct__ in allowed do
        flunk("#{inspect(module)}.#{name}(#{inspect(args)}) raised #{inspect(error)}")
      end
  end

  defp arguments(0, _good), do: [[]]
  defp arguments(1, good), do: for(a <- junk() ++ good, do: [a])
  defp arguments(2, good), do: for(a <- junk() ++ good, b <- junk() ++ good, do: [a, b])

  defp arguments(arity, good) do
    for _ <- 1..1000, do: for(_ <- 1..arity, do: Enum.random(junk() ++ good ++ good ++ good))
  end
end
