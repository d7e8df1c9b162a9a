defmodule Causeway.PostgresSamples do
  @moduledoc false
  # Values of every type, at and around its limits: the server's literal, and the term it is. Tests send and receive
  # them both ways, in both forms, and show them to Postgrex.

  import Bitwise

  alias Causeway.Postgres.{
    Box,
    Circle,
    INET,
    Interval,
    Lexeme,
    Line,
    LineSegment,
    MACADDR,
    Multirange,
    Numeric,
    Path,
    Point,
    Polygon,
    Range
  }

  @extensions ~w(citext hstore ltree)

  @doc "SQL for the types that a new database does not have."
  def setup do
    for(name <- @extensions, do: "create extension #{name}") ++
      [
        "create type mood as enum ('sad', 'happy')",
        "create domain posint as int4 check (value > 0)",
        "create domain posints as posint[]",
        "create type pair as (a int4, b text)",
        "create type deep as (p pair, ps pair[], m mood, d posint, j jsonb)",
        "create domain lucky as pair",
        "create type floatrange as range (subtype = float8)",
        "create type moodrange as range (subtype = mood)",
        "create table row_type (a int4, gone text, b timestamptz(3))",
        "alter table row_type drop column gone"
      ]
  end

  @doc "Types with samples; `{type, [{literal, term}]}`."
  def all do
    numbers() ++ texts() ++ times() ++ addresses() ++ figures() ++ documents() ++ made_of_others()
  end

  @doc "A term with the structs that a connection here would give."
  def here(term) do
    structs = if Code.ensure_loaded?(Postgrex), do: Postgrex, else: Causeway.Postgres
    with_structs(term, structs, if(Code.ensure_loaded?(Decimal), do: Decimal, else: Numeric))
  end

  @doc "A term with the structs of another library."
  def with_structs(%Numeric{} = number, _structs, numbers),
    do: struct!(numbers, Map.from_struct(number))

  def with_structs(%module{} = struct, structs, numbers) do
    case Module.split(module) do
      ["Causeway", "Postgres", name] ->
        fields =
          for {key, value} <- Map.from_struct(struct),
              do: {key, with_structs(value, structs, numbers)}

        struct!(Module.concat(structs, name), fields)

      _ ->
        struct
    end
  end

  def with_structs(list, structs, numbers) when is_list(list),
    do: for(term <- list, do: with_structs(term, structs, numbers))

  def with_structs(tuple, structs, numbers) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> with_structs(structs, numbers) |> List.to_tuple()

  def with_structs(term, _structs, _numbers), do: term

  # ---- numbers ----

  defp numbers do
    [
      {"bool", [{"t", true}, {"f", false}]},
      {"int2", integers(16)},
      {"int4", integers(32)},
      {"int8", integers(64)},
      {"oid", [{"0", 0}, {"4294967295", 4_294_967_295}]},
      {"xid", [{"3", 3}, {"4294967295", 4_294_967_295}]},
      {"cid", [{"3", 3}]},
      {"xid8", [{"0", 0}, {"18446744073709551615", (1 <<< 64) - 1}]},
      {"regclass", [{"0", 0}, {"4294967294", 4_294_967_294}]},
      {"money", [{"12.34", 1234}, {"-92233720368547758.08", -(1 <<< 63)}, {"0", 0}]},
      {"pg_lsn",
       [{"0/0", 0}, {"16/B374D848", 0x16B374D848}, {"7FFFFFFF/FFFFFFFF", (1 <<< 63) - 1}]},
      {"float4",
       floats() ++ [{"3.4028235e38", 3.4028234663852886e38}, {"1e-45", 1.401298464324817e-45}]},
      {"float8",
       floats() ++
         [
           {"0.1", 0.1},
           {"1.7976931348623157e308", 1.7976931348623157e308},
           {"5e-324", 5.0e-324},
           {"2.2250738585072014e-308", 2.2250738585072014e-308},
           {"1e20", 1.0e20}
         ]},
      {"numeric", numerics()},
      {"numeric(10,2)",
       [{"1.005", numeric(101, -2)}, {"99999999.99", numeric(9_999_999_999, -2)}]}
    ]
  end

  defp integers(bits) do
    most = (1 <<< (bits - 1)) - 1
    for n <- [0, 1, -1, most, most - 1, -most, -most - 1], do: {Integer.to_string(n), n}
  end

  defp floats do
    [
      {"0", 0.0},
      {"-0", -0.0},
      {"1.5", 1.5},
      {"-1.5", -1.5},
      {"NaN", :NaN},
      {"Infinity", :inf},
      {"-Infinity", :"-inf"}
    ]
  end

  defp numeric(coef, exp \\ 0, sign \\ 1), do: %Numeric{sign: sign, coef: coef, exp: exp}

  defp numerics do
    around_groups =
      for digits <- [1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 18, 19, 20, 21, 37, 100],
          scale <- [0, 1, 2, 3, 4, 5, 8, 17, 40] do
        coef = 10 ** digits - 2
        {to_string(numeric(coef, -scale)), numeric(coef, -scale)}
      end

    around_groups ++
      [
        {"0", numeric(0)},
        {"0.0000", numeric(0, -4)},
        {"-0.00", numeric(0, -2)},
        {"-1", numeric(1, 0, -1)},
        {"-0.00001", numeric(1, -5, -1)},
        {"10000", numeric(10_000)},
        {"100000000", numeric(100_000_000)},
        {"1.0", numeric(10, -1)},
        {"10000.00010000", numeric(1_000_000_010_000, -8)},
        {"0.00000001", numeric(1, -8)},
        {"9223372036854775807", numeric((1 <<< 63) - 1)},
        {"9223372036854775808", numeric(1 <<< 63)},
        {"18446744073709551616", numeric(1 <<< 64)},
        {"NaN", %Numeric{coef: :NaN}},
        {"Infinity", %Numeric{coef: :inf}},
        {"-Infinity", %Numeric{coef: :inf, sign: -1}},
        {"1" <> zeros(131_071), numeric(10 ** 131_071)},
        {String.duplicate("9", 131_072), numeric(10 ** 131_072 - 1)},
        {"0." <> zeros(16_382) <> "1", numeric(1, -16_383)}
      ]
  end

  defp zeros(n), do: String.duplicate("0", n)

  # ---- texts and bytes ----

  defp texts do
    texts = for text <- ["", "a", "NULL", "O'Neil, \"x\" \\ {}()", "żółć 日本 🎈"], do: {text, text}

    [
      {"text", [{String.duplicate("x", 100_000), String.duplicate("x", 100_000)} | texts]},
      {"varchar(20)", texts},
      {"bpchar(3)", [{"a", "a  "}]},
      {"citext", texts},
      {"refcursor", texts},
      {"name", [{"a", "a"}, {String.duplicate("n", 63), String.duplicate("n", 63)}]},
      {"\"char\"", [{"x", "x"}, {"", <<0>>}]},
      {"cstring", [{"abc", "abc"}]},
      {"xml", [{"<a>b</a>", "<a>b</a>"}]},
      {"mood", [{"sad", "sad"}, {"happy", "happy"}]},
      {"bytea",
       [
         {"", ""},
         {"\\x00ff5c27", <<0, 255, 92, 39>>},
         {"\\x" <> String.duplicate("ab", 9_000), String.duplicate(<<0xAB>>, 9_000)}
       ]},
      {"uuid",
       [
         {"00000000-0000-0000-0000-000000000000", <<0::128>>},
         {"f0e1d2c3-b4a5-9687-7869-5a4b3c2d1e0f", <<0xF0E1D2C3B4A5968778695A4B3C2D1E0F::128>>}
       ]},
      {"bit(8)", [{"10110010", <<0b10110010>>}]},
      {"bit(3)", [{"101", <<0b101::3>>}]},
      {"varbit",
       [{"", <<>>}, {"1", <<1::1>>}, {"000000001", <<1::9>>}, {zeros(1000), <<0::1000>>}]},
      {"ltree", [{"Top.Science", "Top.Science"}, {"", ""}]},
      {"lquery", [{"Top.*{1,2}.!a", "Top.*{1,2}.!a"}]},
      {"ltxtquery", [{"Europe & Russia", "Europe & Russia"}]},
      {"jsonpath", [{"$.\"a\"[*]", "$.\"a\"[*]"}]},
      {"tid", [{"(0,0)", {0, 0}}, {"(4294967295,65535)", {4_294_967_295, 65_535}}]},
      {"pg_snapshot", [{"10:20:10,14,15", "10:20:10,14,15"}, {"7:7:", "7:7:"}]},
      {"txid_snapshot", [{"10:20:10", "10:20:10"}]}
    ]
  end

  # ---- times ----

  defp times do
    [
      {"date",
       [
         {"2000-01-01", ~D[2000-01-01]},
         {"1999-12-31", ~D[1999-12-31]},
         {"2024-02-29", ~D[2024-02-29]},
         {"1900-02-28", ~D[1900-02-28]},
         {"0001-01-01", ~D[0001-01-01]},
         {"0001-12-31 BC", ~D[0000-12-31]},
         {"4714-11-24 BC", %{~D[0000-11-24] | year: -4713}},
         {"9999-12-31", ~D[9999-12-31]},
         {"10000-01-01", %{~D[0000-01-01] | year: 10_000}},
         {"5874897-12-31", %{~D[0000-12-31] | year: 5_874_897}},
         {"infinity", :inf},
         {"-infinity", :"-inf"}
       ]},
      {"time",
       [
         {"00:00:00", ~T[00:00:00.000000]},
         {"23:59:59.999999", ~T[23:59:59.999999]},
         {"24:00:00", %{~T[00:00:00.000000] | hour: 24}}
       ]},
      {"time(0)", [{"12:34:56", %{~T[12:34:56] | microsecond: {0, 0}}}]},
      {"time(3)", [{"12:34:56.789", ~T[12:34:56.789]}]},
      {"timetz", [{"12:34:56.5+00", ~T[12:34:56.500000]}]},
      {"timestamp", stamps(&Function.identity/1)},
      {"timestamp(0)", [{"2024-02-29 12:00:00", ~N[2024-02-29 12:00:00]}]},
      {"timestamp(2)", [{"1990-02-28 12:00:00.25", ~N[1990-02-28 12:00:00.25]}]},
      {"timestamptz", stamps(&utc/1, "+00")},
      {"timestamptz(3)", [{"2024-02-29 12:00:00.125+00", ~U[2024-02-29 12:00:00.125Z]}]},
      {"interval", intervals()}
    ]
  end

  defp stamps(term, zone \\ "") do
    finite = [
      {"2000-01-01 00:00:00", "", ~N[2000-01-01 00:00:00.000000]},
      {"1999-12-31 23:59:59.999999", "", ~N[1999-12-31 23:59:59.999999]},
      {"1969-12-31 23:59:59.999999", "", ~N[1969-12-31 23:59:59.999999]},
      {"2024-02-29 12:34:56.000001", "", ~N[2024-02-29 12:34:56.000001]},
      {"0001-01-01 00:00:00", " BC", ~N[0000-01-01 00:00:00.000000]},
      {"4714-11-24 00:00:00", " BC", %{~N[0000-11-24 00:00:00.000000] | year: -4713}},
      {"294276-12-31 23:59:59.999999", "", %{~N[0000-12-31 23:59:59.999999] | year: 294_276}}
    ]

    for({text, era, value} <- finite, do: {text <> zone <> era, term.(value)}) ++
      [{"infinity", :inf}, {"-infinity", :"-inf"}]
  end

  defp utc(naive) do
    fields = %{std_offset: 0, utc_offset: 0, time_zone: "Etc/UTC", zone_abbr: "UTC"}
    struct!(DateTime, Map.merge(Map.from_struct(naive), fields))
  end

  defp intervals do
    [
      {"00:00:00", %Interval{}},
      {"1 year 2 mons 3 days 04:05:06.789",
       %Interval{months: 14, days: 3, secs: 14_706, microsecs: 789_000}},
      {"-1 mons +3 days -00:00:01.5",
       %Interval{months: -1, days: 3, secs: -1, microsecs: -500_000}},
      {"-2147483648 mons -2147483648 days",
       %Interval{months: -2_147_483_648, days: -2_147_483_648}},
      {"2147483647 days", %Interval{days: 2_147_483_647}},
      {"-00:00:00.000001", %Interval{microsecs: -1}},
      {"9223372036854.775807 secs", %Interval{secs: 9_223_372_036_854, microsecs: 775_807}}
    ]
  end

  # ---- addresses, figures ----

  defp addresses do
    [
      {"inet",
       [
         {"127.0.0.1", %INET{address: {127, 0, 0, 1}}},
         {"255.255.255.255/0", %INET{address: {255, 255, 255, 255}, netmask: 0}},
         {"10.1.2.3/31", %INET{address: {10, 1, 2, 3}, netmask: 31}},
         {"::1", %INET{address: {0, 0, 0, 0, 0, 0, 0, 1}}},
         {"ffff:ffff::/127", %INET{address: {65_535, 65_535, 0, 0, 0, 0, 0, 0}, netmask: 127}},
         {"::ffff:1.2.3.4", %INET{address: {0, 0, 0, 0, 0, 65_535, 258, 772}}}
       ]},
      {"cidr",
       [
         {"10.0.0.0/8", %INET{address: {10, 0, 0, 0}, netmask: 8}},
         {"10.0.0.1/32", %INET{address: {10, 0, 0, 1}, netmask: 32}},
         {"::/0", %INET{address: {0, 0, 0, 0, 0, 0, 0, 0}, netmask: 0}},
         {"::1/128", %INET{address: {0, 0, 0, 0, 0, 0, 0, 1}, netmask: 128}}
       ]},
      {"macaddr", [{"08:00:2b:01:02:ff", %MACADDR{address: {8, 0, 0x2B, 1, 2, 255}}}]},
      {"macaddr8",
       [{"08:00:2b:01:02:03:04:ff", %MACADDR{address: {8, 0, 0x2B, 1, 2, 3, 4, 255}}}]}
    ]
  end

  defp point(x, y), do: %Point{x: x, y: y}

  defp figures do
    [
      {"point",
       [
         {"(1.5,-2)", point(1.5, -2.0)},
         {"(NaN,Infinity)", point(:NaN, :inf)},
         {"(0,-Infinity)", point(0.0, :"-inf")},
         {"(1e+300,5e-324)", point(1.0e300, 5.0e-324)}
       ]},
      {"line", [{"{1,-2,3.5}", %Line{a: 1.0, b: -2.0, c: 3.5}}]},
      {"lseg",
       [{"[(1,2),(3,4)]", %LineSegment{point1: point(1.0, 2.0), point2: point(3.0, 4.0)}}]},
      {"box",
       [{"(3,4),(1,2)", %Box{upper_right: point(3.0, 4.0), bottom_left: point(1.0, 2.0)}}]},
      {"path",
       [
         {"((1,2),(3,4))", %Path{points: [point(1.0, 2.0), point(3.0, 4.0)], open: false}},
         {"[(1,2)]", %Path{points: [point(1.0, 2.0)], open: true}}
       ]},
      {"polygon",
       [
         {"((1,2),(3,4),(5,6))",
          %Polygon{vertices: [point(1.0, 2.0), point(3.0, 4.0), point(5.0, 6.0)]}}
       ]},
      {"circle", [{"<(1,2),0>", %Circle{center: point(1.0, 2.0), radius: 0.0}}]}
    ]
  end

  # ---- documents ----

  defp documents do
    documents = [
      {"null", nil},
      {"{}", %{}},
      {"[1, 2.5, \"a\", null, true]", [1, 2.5, "a", nil, true]},
      {~s({"a": {"b": ["ż"]}}), %{"a" => %{"b" => ["ż"]}}},
      {~s("text"), "text"}
    ]

    [
      # A null document is sent as NULL.
      {"json", for({text, term} <- tl(documents), do: {compact(text), term})},
      {"jsonb", tl(documents)},
      {"hstore",
       [
         {"", %{}},
         {~s("a"=>"1", "b"=>NULL, "c\\"\\\\"=>""), %{"a" => "1", "b" => nil, "c\"\\" => ""}}
       ]},
      {"tsvector",
       [
         {"", []},
         {"'a':1A,2B,3C,4 'it''s' 'b\\\\c':16383",
          [
            %Lexeme{word: "a", positions: [{1, :A}, {2, :B}, {3, :C}, {4, nil}]},
            %Lexeme{word: "b\\c", positions: [{16_383, nil}]},
            %Lexeme{word: "it's", positions: []}
          ]}
       ]},
      {"tsquery", for(query <- queries(), do: {query, query})}
    ]
  end

  # It keeps its text as it was sent.
  defp compact(text), do: String.replace(text, ~r/(?<=[,:]) /, "")

  defp queries do
    [
      "",
      "'a'",
      "'it''s' & 'b\\\\c'",
      "'a' & 'b' | !'c'",
      "( 'a' | 'b' ) & 'c':*AB",
      "!( 'a' & 'b' )",
      "'a' <-> ( 'b' <-> 'c' )",
      "'a' <-> 'b' <3> 'c':D",
      "'a' <-> ( 'b' | 'c' )",
      "!!'a'",
      Enum.map_join(1..200, " | ", &"'w#{&1}'")
    ]
  end

  # ---- types that are made of others ----

  defp range(lower, upper, inclusive \\ "[)") do
    %Range{
      lower: lower,
      upper: upper,
      lower_inclusive: String.starts_with?(inclusive, "["),
      upper_inclusive: String.ends_with?(inclusive, "]")
    }
  end

  defp empty, do: range(:empty, :empty, "()")

  defp made_of_others do
    arrays() ++
      ranges() ++
      [
        {"posint", [{"7", 7}]},
        {"posints", [{"{7,8}", [7, 8]}]},
        {"pair",
         [
           {"(1,x)", {1, "x"}},
           {"(,)", {nil, nil}},
           {~s[(-1,"a ""b"", (c)")], {-1, "a \"b\", (c)"}}
         ]},
        {"lucky", [{"(1,x)", {1, "x"}}]},
        {"deep",
         [
           {~S|("(1,x)","{""(2,\\""y z\\"")"",NULL}",happy,3,"{""k"": [1]}")|,
            {{1, "x"}, [{2, "y z"}, nil], "happy", 3, %{"k" => [1]}}},
           {"(,,,,)", {nil, nil, nil, nil, nil}}
         ]},
        {"row_type",
         [{~s[(1,"2024-02-29 12:00:00.125+00")], {1, ~U[2024-02-29 12:00:00.125000Z]}}]}
      ]
  end

  defp arrays do
    [
      {"int4[]",
       [
         {"{}", []},
         {"{1,NULL,-3}", [1, nil, -3]},
         {"{{1,2},{3,4}}", [[1, 2], [3, 4]]},
         {"{{{{{{1},{2}}}}}}", [[[[[[1], [2]]]]]]},
         {"{#{Enum.join(1..1000, ",")}}", Enum.to_list(1..1000)}
       ]},
      {"text[]",
       [{~S({"","a b",NULL,"NULL","q\"\\","{}"}), ["", "a b", nil, "NULL", "q\"\\", "{}"]}]},
      {"box[]",
       [
         {"{(3,4),(1,2);(3,4),(1,2)}",
          List.duplicate(%Box{upper_right: point(3.0, 4.0), bottom_left: point(1.0, 2.0)}, 2)}
       ]},
      {"timestamptz(3)[]",
       [{~s({"2024-02-29 12:00:00.125+00"}), [~U[2024-02-29 12:00:00.125Z]]}]},
      {"numeric[]", [{"{1.50,NaN}", [numeric(150, -2), %Numeric{coef: :NaN}]}]},
      {"jsonb[]", [{~S({"{\"a\": 1}",NULL}), [%{"a" => 1}, nil]}]},
      {"mood[]", [{"{sad,happy}", ["sad", "happy"]}]},
      {"pair[]", [{~S[{"(1,x)",NULL}], [{1, "x"}, nil]}]},
      {"posint[]", [{"{1}", [1]}]},
      {"posints[]", [{~S({"{1,2}","{3}"}), [[1, 2], [3]]}]},
      {"tsvector[]",
       [
         {~S({'a':1,"'b' 'c'"}),
          [
            [%Lexeme{word: "a", positions: [{1, nil}]}],
            [%Lexeme{word: "b", positions: []}, %Lexeme{word: "c", positions: []}]
          ]}
       ]},
      {"int4range[]", [{~S|{"[1,3)",empty}|, [range(1, 3), empty()]}]},
      {"varbit[]", [{"{101,1}", [<<0b101::3>>, <<1::1>>]}]},
      {"int2vector", [{"1 2 -3", [1, 2, -3]}]},
      {"oidvector", [{"1 4294967295", [1, 4_294_967_295]}]}
    ]
  end

  defp ranges do
    [
      {"int4range",
       [
         {"[1,5)", range(1, 5)},
         {"empty", empty()},
         {"(,5)", range(:unbound, 5, "()")},
         {"(,)", range(:unbound, :unbound, "()")}
       ]},
      {"int8range",
       [{"[-9223372036854775808,9223372036854775807)", range(-(1 <<< 63), (1 <<< 63) - 1)}]},
      {"numrange", [{"(1.5,2.50]", range(numeric(15, -1), numeric(250, -2), "(]")}]},
      {"daterange",
       [
         {"[2024-02-29,)", range(~D[2024-02-29], :unbound)},
         {"[-infinity,infinity)", range(:"-inf", :inf)}
       ]},
      {"tsrange",
       [
         {~S|["2024-02-29 12:00:00","2024-03-01 00:00:00"]|,
          range(~N[2024-02-29 12:00:00.000000], ~N[2024-03-01 00:00:00.000000], "[]")}
       ]},
      {"tstzrange",
       [
         {~S|["2024-02-29 12:00:00+00",infinity]|,
          range(~U[2024-02-29 12:00:00.000000Z], :inf, "[]")}
       ]},
      {"floatrange", [{"[1.5,Infinity)", range(1.5, :inf)}]},
      {"moodrange", [{"[sad,happy]", range("sad", "happy", "[]")}]},
      {"int4multirange",
       [
         {"{}", %Multirange{ranges: []}},
         {"{[1,3),[5,9)}", %Multirange{ranges: [range(1, 3), range(5, 9)]}}
       ]},
      {"floatmultirange",
       [
         {"{(,1.5],[2,)}",
          %Multirange{ranges: [range(:unbound, 1.5, "(]"), range(2.0, :unbound)]}}
       ]},
      {"tstzmultirange",
       [
         {~S|{["2024-02-29 12:00:00+00",)}|,
          %Multirange{ranges: [range(~U[2024-02-29 12:00:00.000000Z], :unbound)]}}
       ]}
    ]
  end
end
