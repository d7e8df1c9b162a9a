defmodule Causeway.HLCTest do
  use ExUnit.Case, async: true
  import Bitwise
  import Causeway.Property
  alias Causeway.{Error, HLC}

  @moduletag :asan

  @most (1 <<< 62) - 1

  property "stamps only grow, and do not run behind the wall clock", runs: 200 do
    now = one_of([0, 1, 1_700_000_000_000, (1 <<< 46) - 1, below(1 <<< 46)])
    last = one_of([0, 1, now <<< 16, (now <<< 16) + 5, below(@most), @most - 1])
    stamp = HLC.tick(last, now)
    assert stamp > last
    assert stamp >= now <<< 16
    assert stamp == max(now <<< 16, last + 1)
  end

  property "two that exchange stamps never see one twice", runs: 50 do
    walls = fn -> 1_000_000 + between(-500, 500) end

    Enum.reduce(1..100, {[0, 0], MapSet.new()}, fn _, {lasts, seen} ->
      i = below(2)
      stamp = HLC.tick(Enum.at(lasts, i), walls.())
      lasts = List.replace_at(lasts, i, stamp)
      # Half of the stamps arrive at the other one.
      lasts = if chance(50), do: Enum.map(lasts, &HLC.receive(&1, stamp)), else: lasts
      refute {i, stamp} in seen
      {lasts, MapSet.put(seen, {i, stamp})}
    end)
  end

  test "the wall clock's part" do
    assert HLC.to_datetime(HLC.tick(0, 1_700_000_000_123)) == ~U[2023-11-14 22:13:20.123Z]
    before = System.system_time(:millisecond)

    assert DateTime.to_unix(HLC.to_datetime(HLC.tick(0)), :millisecond) in before..(before +
                                                                                      60_000)

    assert HLC.to_datetime(@most).year == 4199
    assert HLC.receive(3, 5) == 5
    assert HLC.receive(5, 3) == 5
  end

  test "stamps stay at the greatest, and are not beyond" do
    for {last, now} <- [{@most + 1, 0}, {0, 1 <<< 46}, {0, (1 <<< 64) - 1}] do
      error = assert_raise Error, ~r/out of range/, fn -> HLC.tick(last, now) end
      assert error.reason == {:out_of_range, {:tick, last, now}}
    end

    assert HLC.tick(@most - 1, 0) == @most
    assert HLC.tick(@most, 0) == @most

    for {last, now} <- [{-1, 0}, {0, -1}, {1 <<< 64, 0}, {:a, 0}, {0, 1.5}, {"", 0}],
        do: assert_raise(ArgumentError, ~r/takes whole numbers/, fn -> HLC.tick(last, now) end)

    for bad <- [-1, 1 <<< 200, :a, 1.5] do
      assert_raise ArgumentError, ~r/takes whole numbers/, fn -> HLC.receive(5, bad) end
      assert_raise ArgumentError, ~r/takes whole numbers/, fn -> HLC.receive(bad, 5) end
      assert_raise ArgumentError, ~r/takes whole numbers/, fn -> HLC.to_datetime(bad) end
    end

    assert HLC.receive(5, @most) == @most
    assert_raise Error, ~r/year 4199/, fn -> HLC.receive(5, @most + 1) end
    assert_raise Error, ~r/year 4199/, fn -> HLC.to_datetime(@most + 1) end
  end
end
