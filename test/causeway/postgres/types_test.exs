defmodule Causeway.Postgres.TypesTest do
  # The catalogue: which types a database has, and what codecs are made of that.
  use ExUnit.Case, async: true

  alias Causeway.Postgres.{BuiltinTypes, Codec, Types}
  alias Causeway.{PostgresServer, PostgresValues}

  @moduletag :postgres

  setup do
    {:ok, database: PostgresServer.database!()}
  end

  defp sql(ctx, statements),
    do: PostgresServer.psql!(PostgresServer.shared(), statements, ctx.database[:database])

  # Counts the queries.
  defp fetch(ctx) do
    fn query ->
      send(self(), {:asked, query})
      PostgresValues.texts(ctx.database, query)
    end
  end

  defp no_fetch, do: fn query -> flunk("asked #{query}") end

  defp asked(n \\ 0) do
    receive do
      {:asked, _} -> asked(n + 1)
    after
      0 -> n
    end
  end

  defp oid(ctx, type) do
    {:ok, [[oid]]} = PostgresValues.texts(ctx.database, "select '#{type}'::regtype::oid")
    String.to_integer(oid)
  end

  defp types, do: Types.new(structs: :causeway, numbers: :numeric, json: Causeway.TestJson)

  # What the server sends of the query's only column, as a frame.
  defp frame(ctx, query) do
    rows = PostgresValues.selected(ctx.database, query)

    bytes =
      for [value] <- rows,
          into: <<>>,
          do: if(value, do: <<byte_size(value)::32, value::binary>>, else: <<-1::32>>)

    {bytes, length(rows)}
  end

  test "those that every server has are the server's own", ctx do
    {:ok, rows} =
      PostgresValues.texts(ctx.database, """
      select t.oid, t.typname, coalesce(r.rngsubtype, t.typelem), p.proname from pg_type t
      left join pg_range r on r.rngtypid = t.oid or r.rngmultitypid = t.oid
      left join pg_proc p on p.oid = t.typsend
      where t.oid < 10000 and t.typtype in ('b', 'r', 'm')
      """)

    theirs = Map.new(rows, fn [oid | row] -> {String.to_integer(oid), row} end)
    names = BuiltinTypes.names()

    for {oid, name} <- names, row = theirs[oid] do
      assert hd(row) == name
      {^name, spec} = BuiltinTypes.get(oid)

      # As the catalogue would have it.
      [_, sub, send] = row

      case spec do
        {:array, elem, _} -> assert {elem, send} == {String.to_integer(sub), "array_send"}
        {:range, spec} -> assert {_, ^spec} = BuiltinTypes.get(String.to_integer(sub))
        {:multirange, spec} -> assert {_, ^spec} = BuiltinTypes.get(String.to_integer(sub))
        _ -> :ok
      end
    end

    # New releases may have more; none of these is gone.
    pseudo = [705, 2249, 2275, 2277, 2278, 2287]
    assert Enum.sort(Map.keys(names)) -- Map.keys(theirs) == pseudo
    new = ~w(pg_brin_bloom_summary pg_brin_minmax_multi_summary regdatabase _regdatabase)
    unknown = for {oid, [name | _]} <- theirs, oid not in Map.keys(names), do: name
    assert unknown -- (new ++ catalogs(theirs)) == []
  end

  # Arrays of the rows of the catalogue's tables.
  defp catalogs(types), do: for({_, ["_pg_" <> _ = name | _]} <- types, do: name)

  test "a type is looked up once, with all that it is made of", ctx do
    sql(ctx, [
      "create type pair as (a int4, b text)",
      "create domain pairs as pair[]",
      "create type deep as (p pairs, r int4range, t timestamptz)"
    ])

    types = types()
    oid = oid(ctx, "deep")
    assert {:ok, codec} = Types.params(types, [oid, 23], fetch(ctx))

    pair = {:composite, [{23, :int4}, {25, :text}]}
    array = {:array, oid(ctx, "pair"), pair}

    assert codec.specs == [
             {:composite,
              [{oid(ctx, "pairs"), array}, {3904, {:range, :int4}}, {1184, :timestamptz}]},
             :int4
           ]

    assert codec.names == ["deep", "int4"]
    assert asked() in 3..4
    assert {:ok, _} = Types.columns(types, [{oid, -1}], no_fetch())

    # Another connection to the same database asks once, to know that it is the same.
    other = types()
    assert {:ok, _} = Types.columns(other, [{oid, -1}], fetch(ctx))
    assert asked() >= 1
    assert {:ok, _} = Types.columns(other, [{oid(ctx, "pairs"), -1}], no_fetch())
  end

  test "what was looked up is forgotten with the last connection", ctx do
    sql(ctx, "create type pair as (a int4, b text)")
    oid = oid(ctx, "pair")
    test = self()

    pid =
      spawn(fn ->
        types = types()
        {:ok, _} = Types.columns(types, [{oid, -1}], &PostgresValues.texts(ctx.database, &1))
        send(test, {:types, types})
        receive do: (:stop -> :ok)
      end)

    assert_receive {:types, theirs}, 10_000
    key = Causeway.Postgres.TypeCache.key(theirs.id)
    assert {"pair", _} = Causeway.Postgres.TypeCache.type(key, oid)
    send(pid, :stop)
    Causeway.Eventually.eventually(fn -> Causeway.Postgres.TypeCache.types(key) == [] end)
    assert Causeway.Postgres.TypeCache.key(theirs.id) == nil
  end

  test "a connection that was made anew is another one", ctx do
    sql(ctx, "create type pair as (a int4, b text)")
    oid = oid(ctx, "pair")
    [first, second] = [types(), types()]
    for types <- [first, second], do: {:ok, _} = Types.params(types, [oid], fetch(ctx))
    assert Causeway.Postgres.TypeCache.key(first.id) == nil
    key = Causeway.Postgres.TypeCache.key(second.id)
    assert {"pair", _} = Causeway.Postgres.TypeCache.type(key, oid)
    assert {:ok, _} = Types.params(second, [oid], no_fetch())
  end

  test "types that are made later, and changed", ctx do
    types = types()

    sql(ctx, [
      "create type pair as (a int4, b text)",
      "create table t (p pair)",
      "insert into t values ((1, 'x'))"
    ])

    oid = oid(ctx, "pair")
    {:ok, codec} = Types.columns(types, [{oid, -1}], fetch(ctx))
    frame = frame(ctx, "select p from t")
    assert {:ok, [[{1, "x"}]], ^codec} = Types.decode(types, codec, [frame], no_fetch())

    sql(ctx, "alter type pair add attribute c numeric cascade")
    frame = frame(ctx, "select p from t")
    assert {:error, :emalformed} = Codec.decode_rows(codec, elem(frame, 0), 1)
    assert {:ok, [[{1, "x", nil}]], codec} = Types.decode(types, codec, [frame], fetch(ctx))
    assert {:ok, [[{1, "x", nil}]], _} = Types.decode(types, codec, [frame], no_fetch())

    # What is no value of the type stays that.
    assert {:error, :emalformed} = Types.decode(types, codec, [{<<1::32, 7>>, 1}], fetch(ctx))

    sql(ctx, ["drop type pair cascade", "create type pair as enum ('a', 'b')"])
    assert {:ok, %{specs: [:text]}} = Types.columns(types, [{oid(ctx, "pair"), -1}], fetch(ctx))
  end

  test "records hold any type, also those that were not met before", ctx do
    sql(ctx, ["create extension hstore", "create type mood as enum ('sad')"])
    types = types()
    {:ok, codec} = Types.columns(types, [{2249, -1}], no_fetch())

    frame =
      frame(ctx, "select row(1, 'a'::text, row(2.5, null), '{\"a\": [1]}'::jsonb, array[1, 2])")

    half = %Causeway.Postgres.Numeric{coef: 25, exp: -1}
    record = {1, "a", {half, nil}, %{"a" => [1]}, [1, 2]}
    assert {:ok, [[^record]], ^codec} = Types.decode(types, codec, [frame], no_fetch())

    frame = frame(ctx, "select row('a=>1'::hstore, 'sad'::mood, row('sad'::mood))")
    record = {%{"a" => "1"}, "sad", {"sad"}}
    assert {:ok, [[^record]], codec} = Types.decode(types, codec, [frame], fetch(ctx))
    assert asked() == 2
    assert {:ok, [[^record]], _} = Types.decode(types, codec, [frame], no_fetch())
  end

  test "arrays of any type" do
    {:ok, codec} = Types.columns(types(), [{2277, -1}], no_fetch())
    bytes = <<1::32, 0::32, 25::32, 2::32, 1::32, 1::32, "a", -1::32>>

    assert {:ok, [[["a", nil]]]} =
             Codec.decode_rows(codec, <<byte_size(bytes)::32, bytes::binary>>, 1)
  end

  test "a type without a binary form makes the whole result text, with the same terms" do
    types = types()
    columns = [{1033, -1}, {1114, 3}, {1007, -1}, {16, -1}, {3802, -1}, {4451, -1}]
    {:ok, codec} = Types.columns(types, columns, no_fetch())
    assert codec.result_format == 0

    texts = [
      "postgres=r/postgres",
      "2024-02-29 12:00:00.125",
      "{1,NULL}",
      "t",
      "{\"a\": 1}",
      "{[1,3)}"
    ]

    bytes = for text <- texts, into: <<>>, do: <<byte_size(text)::32, text::binary>>
    nulls = for _ <- texts, into: <<>>, do: <<-1::32>>
    assert {:ok, [row, nils, :tail]} = Codec.decode_rows(codec, bytes <> nulls, 2, [:tail])

    assert [
             "postgres=r/postgres",
             ~N[2024-02-29 12:00:00.125],
             [1, nil],
             true,
             %{"a" => 1},
             range
           ] = row

    assert %Causeway.Postgres.Multirange{ranges: [%{lower: 1, upper: 3}]} = range
    assert nils == List.duplicate(nil, 6)

    # A parameter of it goes as text, others as ever.
    {:ok, params} = Types.params(types, [1033, 23, 3615], no_fetch())
    assert params.param_formats == <<0, 1, 0>>

    assert Codec.encode(params, ["a", 1, "b & c"]) ==
             {:ok, <<1::32, "a", 4::32, 1::32, 5::32, "b & c">>}

    # A replicated value of such a type comes as text, or, in a binary form that is not known, marked.
    {:ok, relation} = Types.relation(types, [{1033, -1}, {23, -1}], no_fetch())

    assert {:ok, [[{:undecoded, "x"}, 1]]} =
             Codec.decode_rows(relation, <<1::32, "x", 4::32, 1::32>>, 1)
  end

  test "an OID that no type has", ctx do
    {:ok, codec} = Types.columns(types(), [{4_000_000_000, -1}], fetch(ctx))
    assert codec.result_format == 0
    assert codec.names == ["oid 4000000000"]
  end

  test "a lookup that fails" do
    error = fn _ -> {:error, :closed} end
    assert Types.columns(types(), [{4_000_000_000, -1}], error) == {:error, :closed}
    assert Types.params(types(), [4_000_000_000], error) == {:error, :closed}
  end

  test "no json library: the text", ctx do
    types = Types.new(structs: :causeway, json: nil)
    {:ok, codec} = Types.columns(types, [{114, -1}, {3807, -1}], fetch(ctx))
    array = <<1::32, 0::32, 3802::32, 1::32, 1::32, 3::32, 1, "{}">>
    bytes = <<1::32, "1", byte_size(array)::32, array::binary>>
    assert Codec.decode_rows(codec, bytes, 1) == {:ok, [["1", ["{}"]]]}
    {:ok, params} = Types.params(types, [114, 3807], fetch(ctx))
    assert Codec.encode(params, ["1", ["{}"]]) == {:ok, bytes}
  end

  test "durations", ctx do
    types = Types.new(structs: :causeway, interval_decode_type: Duration)
    {:ok, codec} = Types.columns(types, [{1186, 0x7FFF0003}], no_fetch())
    {bytes, 1} = frame(ctx, "select interval '1 year 3 days 4.5 seconds'")
    assert {:ok, [[duration]]} = Codec.decode_rows(codec, bytes, 1)

    assert duration == %{
             __struct__: Duration,
             year: 0,
             month: 12,
             week: 0,
             day: 3,
             hour: 0,
             minute: 0,
             second: 4,
             microsecond: {500_000, 3}
           }

    {:ok, params} = Types.params(types, [1186], no_fetch())
    assert Codec.encode(params, [duration]) == {:ok, bytes}
    duration = %{duration | week: 1, day: -4, minute: 1, second: -56}
    assert Codec.encode(params, [duration]) == {:ok, bytes}
  end
end
