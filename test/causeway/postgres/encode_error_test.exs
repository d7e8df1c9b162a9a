defmodule Causeway.Postgres.EncodeErrorTest do
  # Parameters that are refused before anything is sent.
  use ExUnit.Case, async: true

  import Bitwise

  alias Causeway.Postgres.{
    Codec,
    EncodeError,
    INET,
    Interval,
    Lexeme,
    MACADDR,
    Multirange,
    Numeric,
    Path,
    Point,
    Polygon,
    Range,
    Types
  }

  defp codec(oids) do
    types = Types.new(structs: :causeway, numbers: :numeric, json: Causeway.TestJson)
    {:ok, codec} = Types.params(types, oids, fn _ -> flunk("asked") end)
    codec
  end

  defp refused(oid, value) do
    assert {:error, %EncodeError{} = error} = Codec.encode(codec([23, oid]), [1, value])
    assert error.param == 2
    assert Exception.message(error) =~ "parameter $2 of type "
    error.reason
  end

  @limits [
    {21, [32_768, -32_769, 1 <<< 70]},
    {23, [1 <<< 31, -(1 <<< 31) - 1]},
    {20, [1 <<< 63, -(1 <<< 63) - 1, 1 <<< 64]},
    {26, [-1, 1 <<< 32]},
    {5069, [-1, 1 <<< 64]},
    {700, [3.5e38, -3.5e38, 10 ** 39]},
    {1700,
     [
       %Numeric{coef: 10 ** 131_072},
       %Numeric{coef: 1, exp: 131_072},
       %Numeric{coef: 1, exp: -16_384},
       %Numeric{coef: 1, exp: 1 <<< 62},
       10 ** 131_072,
       10 ** 200_000
     ]},
    {1082,
     [
       %{~D[2000-01-01] | year: 5_874_898},
       %{~D[2000-11-23] | year: -4713},
       %{~D[2001-02-28] | day: 29},
       %{~D[2001-01-01] | month: 13}
     ]},
    {1083,
     [
       %{~T[00:00:00.000001] | hour: 24},
       %{~T[00:00:00] | minute: 60},
       %{~T[00:00:00] | second: 60},
       %{~T[00:00:00] | microsecond: {1_000_000, 6}}
     ]},
    {1114,
     [
       %{~N[2000-01-01 00:00:00] | year: 294_277},
       %{~N[2000-11-23 00:00:00] | year: -4713},
       %{~N[2000-01-01 00:00:00] | hour: 24}
     ]},
    {1184,
     [%{~U[2000-01-01 00:00:00Z] | year: 294_277}, %{~U[2000-01-01 00:00:00Z] | year: 1 <<< 62}]},
    {1186,
     [
       %Interval{months: 1 <<< 31},
       %Interval{days: -(1 <<< 31) - 1},
       %Interval{secs: 9_223_372_036_855},
       %Interval{secs: 1 <<< 70}
     ]},
    {869,
     [
       %INET{address: {1, 2, 3, 256}},
       %INET{address: {1, 2, 3, 4}, netmask: 33},
       %INET{address: {0, 0, 0, 0, 0, 0, 0, 1 <<< 16}}
     ]},
    {829, [%MACADDR{address: {0, 0, 0, 0, 0, -1}}]},
    {718, [%Causeway.Postgres.Circle{center: %Point{x: 1, y: 1}, radius: -1}]},
    {3614, [[%Lexeme{word: "a", positions: [{0, nil}]}]]}
  ]

  test "intervals of what is no integer" do
    for value <- [%Interval{months: 1.5}, %Interval{days: "1"}, %Interval{secs: nil}],
        do: assert(refused(1186, value) == :wrong)
  end

  test "numbers beyond their limits" do
    for {oid, values} <- @limits,
        value <- values,
        do: assert({oid, refused(oid, value)} == {oid, :out_of_range})
  end

  # The digits of a large coefficient take time that grows with the square of their number: here hundreds of
  # milliseconds, against none.
  test "numbers far beyond their limits are refused before their digits are made" do
    codec = codec([1700])
    taken = fn value -> fn -> Codec.encode(codec, [value]) end |> :timer.tc() |> elem(0) end
    limit = taken.(10 ** 131_071)

    for value <- [
          10 ** 140_000,
          -(10 ** 140_000),
          %Numeric{coef: 10 ** 131_000, exp: 131_072},
          %Numeric{coef: 10 ** 120_000, exp: 20_000},
          %Numeric{coef: 10 ** 131_000, exp: -16_384},
          %Numeric{coef: 1 <<< 4_000_000}
        ] do
      assert refused(1700, value) == :out_of_range
      assert taken.(value) < limit / 10
    end

    # At the limits.
    for value <- [10 ** 131_072 - 1, %Numeric{coef: 10 ** 147_455 - 1, exp: -16_383}],
        do: assert({:ok, _} = Codec.encode(codec, [value]))

    for value <- [10 ** 131_072, %Numeric{coef: 10 ** 147_455, exp: -16_383}],
        do: assert(refused(1700, value) == :out_of_range)
  end

  test "large integers as floats" do
    assert {:ok, <<8::32, float::float-64>>} = Codec.encode(codec([701]), [1 <<< 80])
    assert float == :math.pow(2, 80)
    assert {:ok, _} = Codec.encode(codec([1022]), [[10 ** 300, 1, 1.5, nil]])
    assert refused(701, 10 ** 400) == :wrong
  end

  test "floats as numeric" do
    text = fn value ->
      {:ok, bytes} = Codec.encode(codec([1700]), [value])

      {:ok, types} =
        Types.columns(Types.new(structs: :causeway, numbers: :numeric), [{1700, -1}], nil)

      {:ok, [[number]]} = Codec.decode_rows(types, bytes, 1)
      to_string(number)
    end

    assert for(value <- [1.0, -0.1, 1.5e-7, 123.456, 0.0], do: text.(value)) ==
             ["1.0", "-0.1", "0.00000015", "123.456", "0.0"]

    assert text.(1.0e22) == "10000000000000000000000"
  end

  @wrong [
    {16, [1, :yes, "t"]},
    {23, ["1", 1.0, true, :inf]},
    {701, ["1.5", :nan]},
    {1700,
     [
       "1",
       :NaN,
       %Numeric{sign: 0, coef: 1},
       %Numeric{coef: -1},
       %Numeric{coef: 1.5},
       %Numeric{coef: 1, exp: nil},
       %{__struct__: Numeric, coef: 1}
     ]},
    {25, [1, :atom, ~c"chars", <<1::3>>]},
    {17, [<<1::3>>, ["a"]]},
    {18, ["", "ab"]},
    {2950, ["f0e1d2c3-b4a5-9687-7869-5a4b3c2d1e0f", ""]},
    {1560, [~c"10", 2]},
    {1082, ["2024-01-01", ~N[2024-01-01 00:00:00]]},
    {1083, [~N[2024-01-01 00:00:00], :inf]},
    {1114, [~D[2024-01-01], "now"]},
    {1184, [~N[2024-01-01 00:00:00]]},
    {1186, [5, %{months: 1}]},
    {869, [{127, 0, 0, 1}, "127.0.0.1", %INET{address: {1, 2}}]},
    {829, [%MACADDR{address: {1, 2, 3, 4, 5, 6, 7, 8}}]},
    {774, [%MACADDR{address: {1, 2, 3, 4, 5, 6}}]},
    {27, [1, {-1, 0}, {0, 65_536}, {1, 2, 3}]},
    {600, [{1, 2}, %Point{x: "1", y: 2}, %Point{}]},
    {602,
     [
       %Path{points: [], open: nil},
       %Path{points: [1], open: true},
       %Path{points: [%Point{x: 1, y: 1} | 2], open: true}
     ]},
    {604, [%Polygon{}]},
    {1007, [1, {1, 2}, [1, "2"], [1 | 2]]},
    {3904,
     [
       {1, 2},
       %Range{lower: "1", upper: 2},
       %Range{lower: 1, upper: 2, lower_inclusive: nil},
       %Range{lower: :empty, upper: 1}
     ]},
    {4451, [[], %Multirange{}, %Multirange{ranges: [1]}]},
    {3614,
     ["a", [1], [%Lexeme{word: "a", positions: [{1, :D}]}], [%Lexeme{word: "a", positions: nil}]]},
    {2278, ["", :ok]}
  ]

  test "terms of another kind" do
    for {oid, values} <- @wrong,
        value <- values,
        do: assert({oid, value, refused(oid, value)} == {oid, value, :wrong})
  end

  test "text that is none" do
    bad = [
      "\xFF",
      "a\xC3",
      "\xED\xA0\x80",
      "\xF4\x90\x80\x80",
      "\xC0\x80",
      "\xE0\x80\x80",
      "\xF0\x80\x80\x80",
      "12345678\x80"
    ]

    for text <- bad, oid <- [25, 1043, 19, 142, 4072], do: assert(refused(oid, text) == :bad_utf8)
    for oid <- [25, 19], do: assert(refused(oid, "a\0b") == :zero_byte)
    assert refused(19, String.duplicate("x", 64)) == :too_large

    good = [
      "\u{10FFFF}\u{800}\u{7FF}\u{FFFF}\u{D7FF}\u{E000}",
      "12345678żółć12345678",
      "\x7F\x01"
    ]

    for text <- good, do: assert({:ok, _} = Codec.encode(codec([25]), [text]))
  end

  test "others" do
    assert refused(1007, [[1], [2, 3]]) == :uneven
    assert refused(1007, [[1], 2]) == :uneven
    assert refused(1007, [1, [2]]) == :uneven
    assert refused(1007, [[], [1]]) == :uneven
    assert refused(1007, [[[[[[[1]]]]]]]) == :too_deep
    assert refused(2249, {1}) == :unsupported
    assert refused(22, []) == :unsupported

    assert refused(3614, [%Lexeme{word: String.duplicate("x", 2047), positions: []}]) ==
             :too_large

    assert refused(3614, [%Lexeme{word: "x", positions: List.duplicate({1, nil}, 256)}]) ==
             :too_large

    assert refused(114, self()) == :json
    assert refused(3807, [%{"a" => 1}, {1}]) == :json

    berlin = %{
      ~U[2024-01-01 00:00:00Z]
      | utc_offset: 3600,
        time_zone: "Europe/Berlin",
        zone_abbr: "CET"
    }

    assert refused(1184, berlin) == :not_utc
    assert {:ok, _} = Codec.encode(codec([1114]), [berlin])
    assert refused(1082, %{~D[2024-01-01] | calendar: Some.Calendar}) == :calendar
  end

  test "too few, too many, no list" do
    assert {:error, %{reason: :count, param: 2, value: 1} = error} =
             Codec.encode(codec([23, 25]), [1])

    assert Exception.message(error) == "the statement has 2 parameters, 1 given"
    assert {:error, %{reason: :count, param: 1, value: 3}} = Codec.encode(codec([114]), [1, 2, 3])
    assert {:error, %{reason: :list} = error} = Codec.encode(codec([23]), [1 | 2])
    assert Exception.message(error) =~ "must be a list"
    assert {:error, %{reason: :list}} = Codec.encode(codec([23]), %{})
    assert {:error, %{reason: :list}} = Codec.encode_rows(codec([23]), [[1], 2])
  end

  test "rows say which one it is" do
    assert {:error, error} = Codec.encode_rows(codec([23, 25]), [[1, "a"], [2, 3]])

    assert Exception.message(error) ==
             "row 1: parameter $2 of type text: expected a binary, got 3"

    assert {:error, %{row: 1, reason: :json}} = Codec.encode_rows(codec([114]), [[1], [self()]])
  end

  test "messages name the value and what is expected" do
    message = fn oid, value ->
      {:error, error} = Codec.encode(codec([oid]), [value])
      Exception.message(error)
    end

    assert message.(1007, [1, 3_000_000_000]) ==
             "parameter $1 of type _int4: 3000000000 is out of range; expected an integer from -2147483648 to 2147483647"

    assert message.(25, "\xFF") =~ "is not valid UTF-8"
    assert message.(1184, ~N[2024-01-01 00:00:00]) =~ "expected a DateTime in UTC"

    kinds = for {kind, _} <- Causeway.Postgres.BuiltinTypes.known(), do: kind
    for oid <- kinds, value <- [self(), -1, "\xFF", [], {1}, %{}], do: safe(oid, value)
  end

  # Whatever it is, the message can be made.
  defp safe(oid, value) do
    with {:error, error} <- Codec.encode(codec([oid]), [value]),
         do: assert(byte_size(Exception.message(error)) < 500)
  end
end
