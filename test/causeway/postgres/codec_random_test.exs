defmodule Causeway.Postgres.CodecRandomTest do
  # The codec in C with random types and values, whole and damaged. Nothing may crash or hang; under ASan nothing may
  # touch memory that is not its own.
  use ExUnit.Case, async: true

  import Bitwise
  import Causeway.Property
  alias Causeway.{PostgresRandom, RandomTerms}

  @moduletag :asan
  @moduletag timeout: 300_000

  @options [:causeway, :numeric]

  # Under ASan everything is ten times slower.
  @runs if(System.get_env("CAUSEWAY_NIF"), do: 4000, else: 10_000)

  defp compile(specs, options \\ []),
    do:
      :causeway_nif.pg_codec_compile(for(spec <- specs, do: {-1, spec}), [], @options ++ options)

  property "what is written is read again", runs: @runs do
    specs = list_of(below(6), fn -> PostgresRandom.spec(3) end)
    codec = compile(specs, [one_of([:copy, :reference])])
    rows = list_of(between(0, 4), fn -> for spec <- specs, do: PostgresRandom.value(spec) end)
    bytes = for row <- rows, into: <<>>, do: encode!(codec, row)
    assert :causeway_nif.pg_decode_rows(codec, bytes, length(rows), [:tail]) === rows ++ [:tail]

    copied = for row <- rows, into: <<>>, do: <<length(specs)::16, encode!(codec, row)::binary>>
    assert :causeway_nif.pg_encode_rows(codec, rows) == copied
  end

  defp encode!(codec, row) do
    bytes = :causeway_nif.pg_encode(codec, row)
    if is_binary(bytes), do: bytes, else: flunk("#{inspect(row)}: #{inspect(bytes)}")
  end

  property "damaged rows", runs: @runs do
    specs = list_of(between(1, 3), fn -> PostgresRandom.spec(3, :any) end)
    known = [{16, :bool}, {23, :int4}, {25, :text}, {2249, :record}]
    columns = for spec <- specs, do: {one_of([-1, 0, 3, 6, 1 <<< 30]), spec}

    codec =
      :causeway_nif.pg_codec_compile(
        columns,
        known,
        @options ++ one_of([[], [:reference], [:duration]])
      )

    bytes = for spec <- specs, into: <<>>, do: item(spec, codec)
    mutated = mutate(bytes)

    for bytes <- [bytes, mutated], n <- [0, 1, 2, 1_000_000, 4_294_967_295] do
      case :causeway_nif.pg_decode_rows(codec, bytes, n, []) do
        rows when is_list(rows) -> assert length(rows) == n
        {:error, :emalformed} -> :ok
        {:error, {:unknown_type, oid}} -> assert oid in 0..4_294_967_295
        {:error, :elimit} -> :ok
      end
    end
  end

  # Of a value if one can be made, else of something that looks like one.
  defp item(spec, _codec) do
    codec = compile([spec])
    value = if writable?(spec), do: PostgresRandom.value(spec, 2), else: nil

    case value do
      nil -> like(spec)
      value -> encode!(codec, [value])
    end
  end

  defp writable?({:array, _, spec}), do: writable?(spec)
  defp writable?({:vector, _, spec}), do: writable?(spec)
  defp writable?({_range, spec}) when is_atom(spec) or is_tuple(spec), do: writable?(spec)
  defp writable?({:composite, fields}), do: Enum.all?(fields, &writable?(elem(&1, 1)))
  defp writable?(spec), do: spec in PostgresRandom.scalars()

  defp like(spec) do
    value =
      case spec do
        :record -> record(3)
        :anyarray -> <<1::32, 0::32, 23::32, 2::32, 1::32, 4::32, 7::32, -1::32>>
        :tsquery -> query(between(1, 20))
        :snapshot -> <<1::32, 1::64, 2::64, 1::64>>
        _ -> <<one_of([0, 1, 2, 255])::8, :rand.bytes(below(60))::binary>>
      end

    <<byte_size(value)::32, value::binary>>
  end

  defp record(0), do: <<0::32>>

  defp record(depth) do
    inner = record(depth - 1)

    <<3::32, 23::32, 4::32, 1::32, one_of([25, 16_400])::32, one_of([-1, 0])::32, 2249::32,
      byte_size(inner)::32, inner::binary>>
  end

  # Chains, with operators in front.
  defp query(n) do
    operators = for _ <- 2..n//1, into: <<>>, do: one_of([<<2, 2>>, <<2, 3>>, <<2, 4, 1::16>>])

    operands =
      for _ <- 1..n,
          into: <<>>,
          do: one_of([<<1, 0, 0, "a", 0>>, <<1, 15, 1, "it's", 0>>, <<2, 1, 1, 0, 0, "n", 0>>])

    count = for(<<2, op <- operands>>, op == 1, do: 1) |> length()
    <<2 * n - 1 + count::32, operators::binary, operands::binary>>
  end

  defp mutate(bytes),
    do: Enum.reduce(1..between(1, 4), bytes, fn _, bytes -> mutate_once(bytes) end)

  defp mutate_once(""), do: :rand.bytes(3)

  defp mutate_once(bytes) do
    at = below(byte_size(bytes))
    {head, <<byte, tail::binary>>} = :erlang.split_binary(bytes, at)

    case below(6) do
      0 ->
        head

      1 ->
        head <> tail

      2 ->
        <<head::binary, bxor(byte, 1 <<< below(8)), tail::binary>>

      3 ->
        <<head::binary, below(256), tail::binary>>

      4 ->
        <<head::binary, one_of([<<-1::32>>, <<0::32>>, <<1 <<< 31::32>>, <<7::32>>])::binary,
          tail::binary>>

      5 ->
        <<head::binary, one_of([0, 1, 127, 128, 255]), tail::binary>>
    end
  end

  property "any term for any type", runs: @runs do
    spec = PostgresRandom.spec(2, :any)
    codec = compile([spec])

    for term <- [RandomTerms.term(3), odd(spec), [odd(spec)], {odd(spec)}] do
      case :causeway_nif.pg_encode(codec, [term]) do
        bytes when is_binary(bytes) ->
          assert is_list(:causeway_nif.pg_decode_rows(codec, bytes, 1, [])) or not writable?(spec)

        {:error, {0, kind, reason, _term}} ->
          assert is_atom(kind) and is_atom(reason)
      end

      assert {:error, {:count, 1, 2}} = :causeway_nif.pg_encode(codec, [nil, term])
      refute match?({:error, {:row, 0, _}}, :causeway_nif.pg_encode_rows(codec, [[nil], term]))
    end
  end

  # A value of which a part is something else.
  defp odd(spec) do
    case if(writable?(spec), do: PostgresRandom.value(spec, 0), else: nil) do
      %module{} = struct ->
        fields = Map.from_struct(struct)
        key = fields |> Map.keys() |> Enum.random()
        one_of([Map.delete(struct, key), struct!(module, %{fields | key => odd_part()})])

      [head | tail] ->
        one_of([[head | odd_part()], [odd_part() | tail], [head | tail] ++ [odd_part()]])

      tuple when is_tuple(tuple) ->
        List.to_tuple(Tuple.to_list(tuple) ++ [odd_part()])

      _ ->
        odd_part()
    end
  end

  defp odd_part do
    one_of([
      nil,
      -1,
      1 <<< 31,
      1 <<< 63,
      1 <<< 64,
      -(1 <<< 64),
      1 <<< 500_000,
      1.0e300,
      :inf,
      "",
      <<0>>,
      <<255>>,
      <<1::3>>,
      [],
      {},
      %{},
      self(),
      [1 | 2],
      Enum.reduce(1..100, 1, fn _, t -> [t] end)
    ])
  end

  property "any term for a spec", runs: @runs do
    args = [
      one_of([[{-1, RandomTerms.term(2)}], RandomTerms.term(2), [{RandomTerms.term(0), :int4}]]),
      one_of([[], [{2, :int4}, {1, :text}], [{1, RandomTerms.term(1)}], RandomTerms.term(1)]),
      one_of([[], [:copy], RandomTerms.term(1)])
    ]

    try do
      ref = apply(:causeway_nif, :pg_codec_compile, args)
      assert is_reference(ref)

      for rows <- [[], RandomTerms.term(2)],
          do: call(:pg_decode_rows, [ref, RandomTerms.term(1), 1, rows])

      call(:pg_encode, [RandomTerms.term(1), []])
      call(:pg_encode, [ref, RandomTerms.term(2)])
    rescue
      ArgumentError -> :ok
    end
  end

  defp call(name, args) do
    apply(:causeway_nif, name, args)
  rescue
    ArgumentError -> :badarg
  end

  test "specs of any depth and size" do
    deep = Enum.reduce(1..100, :int4, fn i, spec -> {:array, i, spec} end)
    assert call(:pg_codec_compile, [[{-1, deep}], [], []]) == :badarg
    shared = Enum.reduce(1..60, :int4, fn _, spec -> {:composite, [{1, spec}, {2, spec}]} end)
    assert call(:pg_codec_compile, [[{-1, shared}], [], []]) == :badarg
  end

  test "records in records" do
    codec = :causeway_nif.pg_codec_compile([{-1, :record}], [{2249, :record}], [])

    record = fn depth ->
      Enum.reduce(
        1..depth,
        <<0::32>>,
        &<<&1 - &1 + 1::32, 2249::32, byte_size(&2)::32, &2::binary>>
      )
    end

    item = fn value -> <<byte_size(value)::32, value::binary>> end
    assert [[{_}]] = :causeway_nif.pg_decode_rows(codec, item.(record.(60)), 1, [])
    assert {:error, :elimit} = :causeway_nif.pg_decode_rows(codec, item.(record.(2_000)), 1, [])
  end

  test "a query as deep as it is long" do
    codec = compile([:tsquery])
    n = 200_000

    left =
      <<n * 2 + 1::32, String.duplicate(<<2, 2, 1, 0, 0, "a", 0>>, n)::binary, 1, 0, 0, "a", 0>>

    right =
      <<n * 2 + 1::32, String.duplicate(<<2, 2>>, n)::binary,
        String.duplicate(<<1, 0, 0, "a", 0>>, n + 1)::binary>>

    nots = <<n + 1::32, String.duplicate(<<2, 1>>, n)::binary, 1, 0, 0, "a", 0>>

    for query <- [left, right, nots] do
      assert [[text]] =
               :causeway_nif.pg_decode_rows(codec, <<byte_size(query)::32, query::binary>>, 1, [])

      assert byte_size(text) > n
    end
  end

  test "large values go to a dirty scheduler, and come back" do
    list = Enum.to_list(1..200_000)
    text = String.duplicate("x", 10_000_000)
    big = %Causeway.Postgres.Numeric{coef: 7 ** 50_000}
    codec = compile([{:array, 23, :int4}, :text, :numeric])
    bytes = encode!(codec, [list, text, big])
    assert :causeway_nif.pg_decode_rows(codec, bytes, 1, []) == [[list, text, big]]

    rows = for i <- 1..20_000, do: [[i], "text", nil]
    encoded = for row <- rows, into: <<>>, do: encode!(codec, row)
    assert :causeway_nif.pg_decode_rows(codec, encoded, 20_000, []) == rows
    assert byte_size(:causeway_nif.pg_encode_rows(codec, rows)) == byte_size(encoded) + 40_000
  end

  test "rows of no columns" do
    codec = compile([])
    assert :causeway_nif.pg_decode_rows(codec, "", 3, []) == [[], [], []]
    assert :causeway_nif.pg_decode_rows(codec, "", 1 <<< 30, []) == {:error, :emalformed}
    assert :causeway_nif.pg_encode(codec, []) == ""
  end
end
