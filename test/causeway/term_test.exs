defmodule Causeway.TermTest do
  # Terms go into documents and come back the same: as values, as elements, as fields.
  use ExUnit.Case, async: true
  import Bitwise
  import Causeway.Property

  import Causeway.RandomTerms,
    only: [term: 1, edges: 0, floats: 0, sizes: 0, atoms: 0, ordered?: 2]

  alias Causeway.Doc

  @moduletag :asan

  defp doc(ops), do: Doc.new("a") |> Doc.update(ops)

  # Through the document, and through its bytes.
  defp check(terms) do
    values = for {term, i} <- Enum.with_index(terms), do: {:put, [:v, i], term}
    doc = doc(values)
    sets = for term <- terms, do: {:add, [:s], term}
    fields = for {term, i} <- Enum.with_index(terms), do: {:put, [:f, term], i}
    doc = Doc.update(doc, sets ++ fields)
    check_doc(doc, terms)
    check_doc(Doc.decode!(Doc.encode(doc), "b"), terms)
  end

  defp check_doc(doc, terms) do
    for {term, i} <- Enum.with_index(terms) do
      assert Doc.get(doc, [:v, i]) === term
      assert Doc.member?(doc, [:s], term)
      assert is_integer(Doc.get(doc, [:f, term]))
    end

    assert Doc.get(doc, [:s]) === MapSet.new(terms)
    assert doc |> Doc.get([:f]) |> Map.keys() |> MapSet.new() === MapSet.new(terms)
    {:set, elements} = :causeway_nif.doc_get(doc.ref, [:s], nil, false)
    assert length(elements) == MapSet.size(MapSet.new(terms))
    for [a, b] <- Enum.chunk_every(elements, 2, 1, :discard), do: assert(ordered?(a, b))
  end

  property "random terms come back, and elements in their order", runs: 200 do
    check(list_of(between(1, 30), fn -> term(between(0, 5)) end))
  end

  property "terms of different types that look alike are different", runs: 50 do
    n = between(-1000, 1000)

    check([
      n,
      n * 1.0,
      "#{n}",
      :"#{n}",
      ~c"#{n}",
      {n},
      [n],
      %{n => n},
      [[n]],
      {{n}},
      [n, n],
      {n, n},
      [n * 1.0]
    ])
  end

  test "integers of all sizes" do
    check(edges())

    check(
      for bits <- [511, 512, 513, 4095, 4096, 60_000],
          near <- -1..1,
          sign <- [1, -1],
          do: sign * ((1 <<< bits) + near)
    )

    for n <- edges(), do: assert(doc({:put, [:x], n}) |> Doc.get([:x]) === n)
  end

  test "floats of all sizes" do
    check(floats())
  end

  # They are one term before OTP 27; but not the same bits, which only the compiler mixes up.
  test "both zeros" do
    bits = fn f -> <<f::float>> end
    [plus, minus] = for sign <- [0, 1], <<f::float>> = <<sign::1, 0::63>>, do: f
    doc = doc([{:put, [:plus], plus}, {:put, [:minus], minus}, {:put, [:list], [plus, minus]}])
    assert doc |> Doc.get([:plus]) |> bits.() == <<0::64>>
    assert doc |> Doc.get([:minus]) |> bits.() == <<1::1, 0::63>>
    assert doc |> Doc.get([:list]) |> Enum.map(bits) == [<<0::64>>, <<1::1, 0::63>>]

    # Where they are one term there can be only one of them in a map or a MapSet.
    fields = [{:put, [:f, plus], 1}, {:put, [:f, minus], 2}]
    doc = doc([{:add, [:s], plus}, {:add, [:s], minus} | fields])

    doc = Doc.update(doc, {:put, [:v], [%{plus => 1}, %{minus => 1}]})
    size = MapSet.size(MapSet.new([plus, minus]))
    assert doc |> Doc.get([:s]) |> MapSet.size() == size
    assert doc |> Doc.get([:f]) |> map_size() == size
    assert {Doc.get(doc, [:f, plus]), Doc.get(doc, [:f, minus])} == {1, 2}
    assert doc |> Doc.encode() |> Doc.decode!("b") |> Doc.value() == Doc.value(doc)
    {:set, elements} = :causeway_nif.doc_get(doc.ref, [:s], nil, false)
    assert Enum.map(elements, bits) == [<<1::1, 0::63>>, <<0::64>>]
  end

  test "atoms of all sizes, and every sort of letter" do
    check(atoms() ++ [nil, true, false])
    # Each length in characters and bytes around the ends of the external format's length fields.
    letters = ["x", "ÿ", "日", "🚀"]

    check(
      for letter <- letters,
          n <- [1, 62, 63, 64, 85, 127, 128, 254, 255],
          do: String.to_atom(String.duplicate(letter, n))
    )
  end

  test "binaries of all sizes and every byte" do
    check(for byte <- 0..255, do: <<byte>>)
    check(for byte <- 0..255, do: <<byte, 0, byte>>)
    for fill <- [0, 1, 2, 254, 255], do: check(for n <- sizes(), do: :binary.copy(<<fill>>, n))
    check([:binary.list_to_bin(Enum.to_list(0..255))])
    # A part of a larger one, and one that was a part of a bitstring.
    <<_::3, odd::binary-size(20), _::bitstring>> = :binary.copy("abcdefgh", 20)
    check([binary_part(:binary.copy("abc", 1000), 100, 70), odd])
  end

  test "binaries around the largest element" do
    for n <- [4080, 4095, 4096, 4097, 8000, 8100],
        fill <- ["x", <<0>>],
        fill == "x" or n < 4090 do
      binary = :binary.copy(fill, n)
      doc = doc([{:add, [:s], binary}, {:put, [:f, binary], 1}])
      assert Doc.member?(doc, [:s], binary)

      assert doc |> Doc.encode() |> Doc.decode!("b") |> Doc.value() == %{
               s: MapSet.new([binary]),
               f: %{binary => 1}
             }
    end
  end

  test "values of up to megabytes" do
    for n <- [8191, 8192, 8193, 32_767, 32_768, 32_769, 65_535, 65_536, 1 <<< 20, 5_000_000] do
      for value <- [
            :binary.copy(<<0>>, n),
            [:binary.copy("x", n), n],
            Enum.to_list(1..div(n, 100))
          ] do
        doc = doc({:put, [:x], value})
        assert Doc.get(doc, [:x]) === value
        assert doc |> Doc.encode() |> Doc.decode!("b") |> Doc.value() === %{x: value}
      end
    end
  end

  test "compound terms of all shapes" do
    check([
      [],
      {},
      %{},
      [[]],
      {{}},
      %{%{} => %{}},
      [nil],
      {nil},
      %{nil => nil},
      [[], []],
      {[], {}}
    ])

    check(for n <- [0, 1, 2, 127, 128, 129, 255, 256, 300], do: Enum.to_list(1..n//1))

    check(
      for n <- [0, 1, 2, 127, 128, 129, 255, 256, 300], do: List.to_tuple(Enum.to_list(1..n//1))
    )

    # Small maps and large ones are kept differently in the VM.
    check(for n <- [1, 2, 31, 32, 33, 34, 127, 128, 200], do: Map.new(1..n, &{&1, -&1}))
    check(for n <- [32, 33, 100], do: Map.new(1..n, &{{&1, "x"}, [&1]}))

    check([
      ~c"letters",
      ~D[2024-02-29],
      ~U[2024-02-29 12:00:00Z],
      1..10//3,
      URI.parse("http://x/y"),
      MapSet.new([1, 2])
    ])
  end

  property "maps are the same whatever the order they were made in", runs: 50 do
    pairs = Map.new(list_of(between(1, 60), fn -> {term(2), term(2)} end)) |> Map.to_list()
    a = Map.new(pairs)
    b = pairs |> Enum.shuffle() |> Enum.reduce(%{}, fn {k, v}, map -> Map.put(map, k, v) end)

    c =
      pairs
      |> Enum.reduce(Map.new(1..100, &{{:gone, &1}, 1}), fn {k, v}, map -> Map.put(map, k, v) end)

    c = Enum.reduce(1..100, c, &Map.delete(&2, {:gone, &1}))

    docs = for map <- [a, b, c], do: doc({:put, [:x], map})
    [value] = docs |> Enum.map(&Doc.get(&1, [:x])) |> Enum.uniq()
    assert value === a
    # The stamp and the values are all there is in the bytes.
    assert docs |> Enum.map(&byte_size(Doc.encode(&1))) |> Enum.uniq() |> length() == 1
    small = Map.new(Enum.take(pairs, 3), fn {k, _} -> {:erlang.phash2(k), 1} end)

    [bytes] =
      Enum.uniq(
        for map <- [small, Map.new(Enum.reverse(Map.to_list(small)))],
            do: Doc.encode(doc({:add, [:s], map}))
      )

    assert Doc.decode!(bytes, "b") |> Doc.member?([:s], small)
  end
end
