defmodule Causeway.Postgres.WAL.PatienceTest do
  use ExUnit.Case, async: true
  alias Causeway.Postgres.WAL.Patience

  test "a server that gets no further is given more time, one that does as much as ever" do
    {times, patience} =
      Enum.map_reduce([10, 10, 10, 10], Patience.new(100), fn position, patience ->
        {Patience.ms(patience), Patience.lost(patience, position)}
      end)

    assert times == [100, 100, 200, 400]
    assert Patience.ms(patience) == 800
    assert Patience.ms(Patience.lost(patience, 11)) == 100
  end

  test "there is an end to it" do
    patience = Enum.reduce(1..100, Patience.new(1_000), fn _, p -> Patience.lost(p, 0) end)
    assert Patience.ms(patience) == 86_400_000
    assert Patience.ms(Patience.new(:infinity)) == 0
    week = 7 * 86_400_000
    assert week |> Patience.new() |> Patience.lost(0) |> Patience.ms() == week
  end
end
