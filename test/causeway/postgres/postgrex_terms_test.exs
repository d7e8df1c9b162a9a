if Code.ensure_loaded?(Postgrex.Types) do
  Postgrex.Types.define(Causeway.PostgrexTypes, [],
    json: Causeway.TestJson,
    allow_infinite_timestamps: true
  )
end

defmodule Causeway.Postgres.PostgrexTermsTest do
  # The same terms as Postgrex gives, and takes. Where it does neither, the list below says so.
  use ExUnit.Case, async: true

  @compile {:no_warn_undefined, Postgrex}

  alias Causeway.Postgres.{Codec, Types}
  alias Causeway.{PostgresSamples, PostgresServer, PostgresValues}

  @moduletag :postgres
  @moduletag integration: :postgrex
  @moduletag integration: :decimal
  @moduletag timeout: 300_000
  @moduletag :capture_log

  # Types that Postgrex does not know.
  @unknown ~w(money macaddr8 tsquery pg_snapshot txid_snapshot jsonpath int2vector oidvector xml cstring)

  # Values that it does not read: it raises.
  @unread [
    {"point", "(NaN,Infinity)"},
    {"point", "(0,-Infinity)"},
    {"time", "24:00:00"},
    # A day in the year 5881580 or so, or as far as Elixir's calendar goes in this release.
    {"date", "infinity"},
    {"date", "-infinity"},
    {"date", "4714-11-24 BC"},
    {"date", "10000-01-01"},
    {"date", "5874897-12-31"},
    {"daterange", "[-infinity,infinity)"},
    {"timestamp", "294276-12-31 23:59:59.999999"},
    {"timestamptz", "294276-12-31 23:59:59.999999+00"}
  ]

  # Terms that it does not take, or takes for something else: atoms are no bounds in its ranges.
  @untaken [
    {"timestamp", "infinity"},
    {"timestamp", "-infinity"},
    {"timestamptz", "infinity"},
    {"timestamptz", "-infinity"},
    {"tstzrange", "[\"2024-02-29 12:00:00+00\",infinity]"},
    {"floatrange", "[1.5,Infinity)"},
    {"timestamptz", "4714-11-24 00:00:00+00 BC"},
    {"timestamptz", "0001-01-01 00:00:00+00 BC"}
    | @unread
  ]

  # Types of which it takes no terms.
  @only_read ~w(lucky posints[] tsvector[])

  setup_all do
    {:ok, _} = Application.ensure_all_started(:postgrex)
    database = PostgresServer.database!()
    PostgresServer.psql!(PostgresServer.shared(), PostgresSamples.setup(), database[:database])
    {:ok, pid} = Postgrex.start_link([types: Causeway.PostgrexTypes] ++ database)
    {:ok, database: database, postgrex: pid}
  end

  for {type, samples} <- PostgresSamples.all(), type not in @unknown do
    @tag samples: samples, type: type
    test "#{type}", %{type: type, samples: samples} = ctx do
      for {literal, term} <- samples do
        theirs = as_theirs(term)
        value = "'#{String.replace(literal, "'", "''")}'::#{type}"

        if {type, literal} not in @unread,
          do: assert(ask(ctx, "select #{value}", []) === {:ok, theirs})

        if type not in @only_read and {type, literal} not in @untaken do
          {:ok, text} = ask(ctx, "select format('%s', #{value})", [])
          assert ask(ctx, "select format('%s', $1::#{type})", [theirs]) === {:ok, text}
        end
      end
    end
  end

  test "their structs are taken and made as ours are", ctx do
    types = Types.new(structs: :postgrex, numbers: :decimal, json: Causeway.TestJson)

    for {type, samples} <- PostgresSamples.all(), type not in @unknown do
      {:ok, [[oid]]} = PostgresValues.texts(ctx.database, "select to_regtype('#{type}')::oid")
      oid = String.to_integer(oid)
      {:ok, params} = Types.params(types, [oid], &PostgresValues.texts(ctx.database, &1))
      {:ok, columns} = Types.columns(types, [{oid, -1}], &PostgresValues.texts(ctx.database, &1))

      for {_literal, term} <- samples do
        {:ok, bytes} = Codec.encode(params, [as_theirs(term)])
        assert Codec.encode(params, [term]) == {:ok, bytes}
        {:ok, [[decoded]]} = Codec.decode_rows(columns, bytes, 1)
        assert without_precision(decoded) === without_precision(as_theirs(term))
      end
    end
  end

  # The column here has none.
  defp without_precision(%{microsecond: {us, _}} = time), do: %{time | microsecond: us}
  defp without_precision([_ | _] = list), do: Enum.map(list, &without_precision/1)
  defp without_precision(term), do: term

  defp ask(ctx, query, params) do
    case Postgrex.query(ctx.postgrex, query, params) do
      {:ok, %{rows: [[term]]}} -> {:ok, term}
      {:error, error} -> {:error, error}
    end
  rescue
    error -> {:error, error}
  catch
    :exit, reason -> {:error, reason}
  end

  defp as_theirs(term), do: PostgresSamples.with_structs(term, Postgrex, Decimal)
end
