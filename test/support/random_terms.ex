defmodule Causeway.RandomTerms do
  @moduledoc false
  # Terms of every kind that a document takes, with a liking for the edges of their encodings.
  import Bitwise
  import Causeway.Property

  @edges for bits <- [
               6,
               7,
               8,
               14,
               15,
               16,
               31,
               32,
               53,
               59,
               60,
               62,
               63,
               64,
               65,
               127,
               128,
               256,
               2040
             ],
             near <- -2..2,
             sign <- [1, -1],
             do: sign * ((1 <<< bits) + near)

  @floats [0.0, -1.0, 1.0, 0.1, -0.1, 1.0e308, -1.0e308, 5.0e-324, -5.0e-324] ++
            [1.7976931348623157e308, 2.2250738585072014e-308, 4.9e-324, 9_007_199_254_740_993.0]

  @sizes [0, 1, 2, 7, 8, 15, 16, 63, 64, 65, 127, 128, 129, 254, 255, 256, 257, 300, 511, 512]

  @atoms [:a, :b, :"", :ok, :"with space", :ünï, :日本, :"\0", :"a\0b", Causeway.Doc] ++
           [:é, :ÿ, :Ā, :"🚀", String.to_atom(String.duplicate("x", 255))] ++
           [
             String.to_atom(String.duplicate("ÿ", 255)),
             String.to_atom(String.duplicate("🚀", 255))
           ]

  def edges, do: @edges
  def floats, do: @floats
  def sizes, do: @sizes
  def atoms, do: @atoms

  @doc "Of at most `depth` compound terms inside one another."
  def term(depth \\ 3) do
    case below(if depth > 0, do: 14, else: 9) do
      n when n < 2 -> integer()
      2 -> float()
      n when n < 6 -> binary()
      6 -> one_of(@atoms)
      7 -> one_of([nil, true, false])
      8 -> below(10)
      9 -> list_of(below(5), fn -> term(depth - 1) end)
      10 -> fn -> term(depth - 1) end |> then(&list_of(below(5), &1)) |> List.to_tuple()
      11 -> Map.new(list_of(below(5), fn -> {term(depth - 1), term(depth - 1)} end))
      12 -> ~c"a list of characters"
      13 -> one_of([1..3, %URI{path: "/x"}, ~D[2024-02-29], MapSet.new([1, :a])])
    end
  end

  def integer do
    case below(4) do
      0 -> one_of(@edges)
      1 -> between(-300, 300)
      2 -> one_of([1, -1]) * (:rand.uniform(1 <<< 62) >>> below(62))
      3 -> one_of([1, -1]) * :binary.decode_unsigned(:rand.bytes(between(1, 300)))
    end
  end

  def float do
    <<f::64>> = :rand.bytes(8)

    case {below(3), <<f::64>>} do
      {0, _} -> one_of(@floats)
      {1, _} -> (:rand.uniform() - 0.5) * 1.0e6
      {2, <<finite::float>>} -> finite
      {2, _} -> 1.5
    end
  end

  def binary do
    case below(4) do
      0 -> :rand.bytes(one_of(@sizes))
      1 -> :binary.copy(<<one_of([0, 1, 254, 255])>>, one_of(@sizes))
      2 -> list_of(below(20), fn -> one_of([0, 0, 255, 1]) end) |> :binary.list_to_bin()
      3 -> one_of(["", "a", "b", "ab", "a\0", "a\0b", "a\xff", "日本", <<0>>, <<0, 0>>, <<255>>])
    end
  end

  # ---- the order of elements and fields ----

  @doc "Whether `a` comes before or is `b` in the order that documents keep."
  def ordered?(a, b), do: compare(a, b) != :gt

  def compare(a, b) do
    case {rank(a), rank(b)} do
      {same, same} -> compare_same(a, b)
      {x, y} -> order(x, y)
    end
  end

  defp rank(nil), do: 0
  defp rank(false), do: 1
  defp rank(true), do: 2
  defp rank(t) when is_integer(t), do: 3
  defp rank(t) when is_float(t), do: 4
  defp rank(t) when is_atom(t), do: 5
  defp rank(t) when is_binary(t), do: 6
  defp rank(t) when is_tuple(t), do: 7
  defp rank(t) when is_list(t), do: 8
  defp rank(t) when is_map(t), do: 9

  defp compare_same(a, b) when is_atom(a), do: order(Atom.to_string(a), Atom.to_string(b))
  defp compare_same(a, b) when is_tuple(a), do: in_turn(Tuple.to_list(a), Tuple.to_list(b))
  defp compare_same(a, b) when is_list(a), do: in_turn(a, b)
  defp compare_same(a, b) when is_map(a), do: in_turn(pairs(a), pairs(b))
  defp compare_same(a, b), do: order(a, b)

  defp in_turn([], []), do: :eq
  defp in_turn([], _), do: :lt
  defp in_turn(_, []), do: :gt

  defp in_turn([a | as], [b | bs]) do
    with :eq <- compare(a, b), do: in_turn(as, bs)
  end

  defp pairs(map) do
    map
    |> Map.to_list()
    |> Enum.sort(fn {a, _}, {b, _} -> ordered?(a, b) end)
    |> Enum.flat_map(&Tuple.to_list/1)
  end

  defp order(a, b) when a < b, do: :lt
  defp order(a, b) when a > b, do: :gt
  defp order(_, _), do: :eq
end
