defmodule Causeway.ClockTest do
  # Clocks against plain maps.
  use ExUnit.Case, async: true
  import Bitwise
  import Causeway.Property
  alias Causeway.{Clock, Doc, Error}

  @moduletag :asan

  @most (1 <<< 62) - 1

  defp counters do
    names =
      one_of([["a", "b", "c"], [:a, "a", :é, "\0", "日本"], for(i <- 1..300, do: "replica #{i}")])

    high = one_of([3, 255, 256, 65_535, 65_536, (1 <<< 32) - 1, 1 <<< 32, @most])

    for name <- names,
        chance(70),
        into: %{},
        do: {name, one_of([high, between(1, high), between(1, 3)])}
  end

  # Nearly the same as another one.
  defp like(map) do
    case below(4) do
      0 -> counters()
      1 -> map
      2 -> Map.new(map, fn {name, n} -> {name, if(chance(30), do: between(1, n), else: n)} end)
      3 -> Map.reject(map, fn _ -> chance(20) end)
    end
  end

  defp join(a, b), do: Map.merge(a, b, fn _, x, y -> max(x, y) end)
  defp within?(a, b), do: Enum.all?(a, fn {name, n} -> Map.get(b, name, 0) >= n end)

  defp order(a, b) do
    case {within?(a, b), within?(b, a)} do
      {true, true} -> :equal
      {true, false} -> :before
      {false, true} -> :after
      {false, false} -> :concurrent
    end
  end

  property "clocks are maps", runs: 300 do
    a = counters()
    b = like(a)
    {x, y} = {Clock.new(a), Clock.new(b)}
    assert Clock.to_map(x) == a
    assert Clock.compare(x, y) == order(a, b)
    assert Clock.contains?(x, y) == within?(b, a)
    assert Clock.to_map(Clock.merge(x, y)) == join(a, b)

    for name <- Enum.take_random(Map.keys(a) ++ Map.keys(b), 5) ++ ["nobody"],
        do: assert(Clock.get(x, name) == Map.get(a, name, 0))

    assert {:ok, x} == Clock.decode(Clock.encode(x))
  end

  property "merge is commutative, associative and idempotent, byte by byte", runs: 300 do
    a = counters()
    [x, y, z] = Enum.map([a, like(a), like(a)], &Clock.new/1)
    assert Clock.merge(x, y) == Clock.merge(y, x)
    assert Clock.merge(Clock.merge(x, y), z) == Clock.merge(x, Clock.merge(y, z))
    assert Clock.merge(x, x) == x
    assert Clock.merge(Clock.merge(x, y), y) == Clock.merge(x, y)
    assert Clock.merge(x, Clock.new()) == x
    assert Clock.compare(x, Clock.merge(x, y)) in [:equal, :before]
    assert Clock.compare(Clock.merge(x, y), y) in [:equal, :after]
  end

  test "a clock has one form" do
    assert Clock.new() == Clock.new(%{"a" => 0})
    assert Clock.to_map(Clock.new(%{"a" => 0, "b" => 1})) == %{"b" => 1}
    map = Map.new(1..500, &{"r#{&1}", &1})
    assert Clock.new(map) == map |> Enum.shuffle() |> Map.new() |> Clock.new()
    entries = Enum.shuffle(Map.to_list(map))
    assert :causeway_clock.new(entries) == Clock.new(map).bytes

    assert :causeway_clock.new(entries ++ for({r, n} <- entries, do: {r, div(n, 2)})) ==
             Clock.new(map).bytes
  end

  test "many replicas" do
    map = Map.new(1..20_000, &{"r#{&1}", &1})
    clock = Clock.new(map)
    assert Clock.to_map(clock) == map
    other = Clock.new(Map.put(map, "other", 1))
    assert Clock.compare(clock, other) == :before
    assert Clock.merge(clock, other) == other
    assert Clock.merge(clock, clock) == clock
  end

  test "a document's clock counts its edits" do
    a = Doc.new("a") |> Doc.update({:put, [:x], 1}) |> Doc.update({:put, [:x], 2})
    b = a |> Doc.fork("b") |> Doc.update({:put, [:x], 3})
    assert Clock.to_map(Doc.clock(b)) == %{"a" => 2, "b" => 1}
    assert Clock.compare(Doc.clock(a), Doc.clock(b)) == :before
    assert Clock.to_map(Doc.clock(Doc.new("c"))) == %{}
  end

  test "names and counters that cannot be" do
    for {name, n} = entry <-
          [{"a", -1}, {"a", @most + 1}, {"a", 1 <<< 70}, {"a", 1.0}, {"a", nil}, {1, 1}, {nil, 1}] ++
            [{true, 1}, {{}, 1}, {self(), 1}, {<<1::3>>, 1}, {String.duplicate("x", 1100), 1}] do
      error = assert_raise Error, ~r/cannot be in a clock/, fn -> Clock.new(%{name => n}) end
      assert error.reason == {:bad_entry, entry}
      assert catch_error(:causeway_clock.new([{"b", 1}, entry])) == {:bad_entry, entry}
    end

    assert Clock.to_map(Clock.new(%{"a" => @most})) == %{"a" => @most}

    clock = Clock.new(%{"a" => 1})

    for name <- [nil, true, 5, self(), String.duplicate("x", 1100)],
        do: assert_raise(Error, ~r/cannot name a replica/, fn -> Clock.get(clock, name) end)

    for bad <- [:x, [:x | :y], [{"a", 1} | :x], nil],
        do: assert_raise(ArgumentError, fn -> :causeway_clock.new(bad) end)

    for bad <- [[:x], [{"a"}], [{"a", 1, 2}]],
        do: assert({:bad_entry, _} = catch_error(:causeway_clock.new(bad)))
  end

  test "bytes that are no clock" do
    clock = Clock.new(%{"a" => 300, :b => 1, "long name" => 70_000})
    bytes = Clock.encode(clock)

    for n <- 0..(byte_size(bytes) - 1) do
      assert {:error, %Error{reason: {:malformed, "the clock"}}} =
               Clock.decode(binary_part(bytes, 0, n))

      part = %Clock{bytes: binary_part(bytes, 0, n)}
      assert_raise Error, ~r/the clock is damaged/, fn -> Clock.to_map(part) end
      assert_raise Error, ~r/the clock is damaged/, fn -> Clock.get(part, "a") end
      assert_raise Error, ~r/one of the clocks is damaged/, fn -> Clock.merge(clock, part) end
      assert_raise Error, ~r/one of the clocks is damaged/, fn -> Clock.compare(part, clock) end
    end

    assert {:error, _} = Clock.decode(bytes <> <<0>>)

    for at <- 0..(byte_size(bytes) - 1), flip <- 1..255 do
      {before, <<byte, rest::binary>>} = :erlang.split_binary(bytes, at)
      changed = <<before::binary, bxor(byte, flip), rest::binary>>

      case Clock.decode(changed) do
        {:ok, clock} ->
          check_decoded(clock, changed)

        {:error, %Error{reason: {reason, "the clock"}}} ->
          assert reason in [:malformed, :unknown_version]
      end
    end
  end

  # What is accepted is what would be written.
  defp check_decoded(clock, bytes) do
    assert Clock.new(Clock.to_map(clock)) |> Clock.encode() == bytes
  rescue
    error in Error -> assert {:unknown_atom, _} = error.reason
  end

  # Where both hold the same names, counters are merged without a look at the names.
  test "malformed names do not get past merge and compare as anything but themselves" do
    <<bytes::binary>> = Clock.encode(Clock.new(%{"a" => 1, "b" => 2}))

    for at <- 0..(byte_size(bytes) - 1), flip <- [1, 128, 255] do
      {before, <<byte, rest::binary>>} = :erlang.split_binary(bytes, at)
      changed = %Clock{bytes: <<before::binary, bxor(byte, flip), rest::binary>>}

      for call <- [&Clock.merge/2, &Clock.compare/2],
          args <- [[changed, changed], [changed, %Clock{bytes: bytes}]] do
        try do
          apply(call, args)
        rescue
          error in Error ->
            assert elem(error.reason, 0) in [:malformed, :unknown_version, :replica_clash]
        end
      end
    end
  end
end
