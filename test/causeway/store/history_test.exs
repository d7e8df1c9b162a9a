defmodule Causeway.HistoryTest do
  # The checker of histories finds what is wrong with histories that are.
  use ExUnit.Case, async: true
  alias Causeway.History
  alias Causeway.History.Tx

  defp reads(x, y, changes \\ %{}) do
    object = fn ids ->
      Map.merge(
        %{
          "all" => MapSet.new(ids),
          "last" => Enum.max(ids, fn -> nil end),
          "count" => length(ids)
        },
        changes
      )
    end

    %{x: object.(x), y: object.(y)}
  end

  # a1 writes both, a2 has seen it and writes x.
  defp a1, do: %Tx{id: 1, session: {:a, 1}, store: :s, reads: reads([], []), writes: [:x, :y]}
  defp a2, do: %Tx{id: 2, session: {:a, 2}, store: :s, reads: reads([1], [1]), writes: [:x]}
  defp reader(reads, n \\ 1), do: %Tx{id: 100 + n, session: {:r, n}, store: :t, reads: reads}

  defp faults(txs, last \\ []), do: for(fault <- History.check(txs, last), do: elem(fault, 0))

  test "a history that is right" do
    txs = [a1(), a2(), reader(reads([1], [1])), reader(reads([1, 2], [1]), 2)]
    assert History.check(txs, [{:s, reads([1, 2], [1])}]) == []
  end

  test "what is wrong" do
    assert :fractured in faults([a1(), reader(reads([1], []))])
    assert :aborted in faults([a1(), reader(reads([1, 7], [1]))])
    assert :causal in faults([a1(), a2(), reader(reads([2], []))])
    assert :stale in faults([a1(), reader(reads([1], [1])), reader(reads([], []), 2)])
    assert :stale in faults([a1(), %{a2() | reads: reads([], [])}])
    assert :overwritten in faults([a1(), a2(), reader(reads([1, 2], [1], %{"last" => 1}))])
    assert :uncounted in faults([a1(), reader(reads([1], [1], %{"count" => 2}))])
    assert :lost in faults([a1(), a2()], [{:s, reads([1], [1])}])
    assert :cyclic in faults([%{a1() | reads: reads([2], [])}, a2()])

    # Without having read, but in the same session.
    blind = %Tx{id: 3, session: {:a, 2}, store: :s, writes: [:x]}
    assert :overwritten in faults([a1(), blind, reader(reads([1, 3], [1], %{"last" => 1}))])
    assert :causal in faults([a1(), blind, reader(reads([3], []))])

    # s committed b3 when it knew a1, which b3 had not seen.
    a1 = %{a1() | actor: "s", clock: %{"s" => 1}}
    b3 = %{a1 | id: 3, session: {:b, 1}, clock: %{"s" => 2}}
    assert :overruled in faults([a1, b3, reader(reads([1, 3], [1, 3], %{"last" => 1}))])
    assert faults([a1, b3, reader(reads([1, 3], [1, 3], %{"last" => 3}))]) == []
    # t did not know it.
    t3 = %{b3 | store: :t, actor: "t", clock: %{"s" => 1, "t" => 1}}
    assert faults([a1, t3, reader(reads([1, 3], [1, 3], %{"last" => 1}))]) == []
    t2 = %{t3 | id: 2, session: {:c, 1}, writes: [:y], clock: %{"s" => 1, "t" => 1}}
    t3 = %{t3 | clock: %{"s" => 1, "t" => 2}}
    last = %{"last" => 1}
    assert :overruled in faults([a1, t2, t3, reader(reads([1, 3], [1, 2, 3], last))])

    other = %{a1() | id: 3, session: {:b, 1}, certify: true}
    assert :conflict in faults([%{a1() | certify: true}, other])
  end

  test "what may have been committed need not be there" do
    txs = [%{a1() | outcome: :unknown}, reader(reads([], []))]
    assert History.check(txs, [{:s, reads([], [])}]) == []
    assert History.check(txs, [{:s, reads([1], [1])}]) == []
  end
end
