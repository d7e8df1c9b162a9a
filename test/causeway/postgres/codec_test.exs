defmodule Causeway.Postgres.CodecTest do
  # Every type both ways, against a server: what it makes of our bytes, and we make of its bytes and texts. And, where
  # Postgrex is here, the same terms as Postgrex gives and takes.
  use ExUnit.Case, async: true

  import Causeway.Property
  alias Causeway.Postgres.{Codec, TextValues, Types}
  alias Causeway.{PostgresRandom, PostgresSamples, PostgresServer, PostgresValues}

  @moduletag :postgres
  @moduletag timeout: 300_000

  @samples PostgresSamples.all()

  # Parameters of these types are sent as text.
  @as_text ~w(tsquery pg_snapshot txid_snapshot)

  # Terms that do not say by themselves what they are: as text they need another form.
  @ambiguous ~w["char" money pg_lsn tid uuid bit(8) bit(3) varbit json jsonb deep hstore int2vector oidvector tsvector] ++
               ~w(varbit[] jsonb[] posints[])

  # As text these are names, even those of nothing.
  @named ~w(regclass)

  setup_all do
    database = PostgresServer.database!()
    columns = for {{type, _}, i} <- Enum.with_index(@samples), do: "c#{i} #{column(type)}"
    setup = PostgresSamples.setup() ++ ["create table samples (#{Enum.join(columns, ", ")})"]
    PostgresServer.psql!(PostgresServer.shared(), setup, database[:database])
    ctx = %{database: database}

    {:ok, attributes} =
      PostgresValues.texts(
        database,
        "select atttypid, atttypmod from pg_attribute where attrelid = 'samples'::regclass and attnum > 0 order by attnum"
      )

    columns =
      for column <- attributes, do: column |> Enum.map(&String.to_integer/1) |> List.to_tuple()

    :persistent_term.put(__MODULE__, database)
    {:ok, stored: store(ctx, columns), columns: Enum.zip(types(), columns), database: database}
  end

  # No column can be of this type.
  defp column("cstring"), do: "text"
  defp column(type), do: type

  defp types, do: for({type, _} <- @samples, do: type)

  # The samples of each type, as literals and as our bytes.
  defp store(ctx, columns) do
    types = catalogue()

    values =
      for {{type, samples}, {oid, _typmod}} <- Enum.zip(@samples, columns) do
        {literals, terms} = Enum.unzip(samples)
        {:ok, params} = Types.params(types, [oid], fetch(ctx))

        {column(type), literals ++ forms(type, terms),
         if(type in @as_text, do: "", else: encode!(params, terms))}
      end

    types() |> Enum.zip(PostgresValues.stored(ctx.database, values)) |> Map.new()
  end

  defp forms(type, _terms) when type in @ambiguous, do: []

  defp forms(_type, terms) do
    for term <- terms do
      {:ok, <<_length::32, text::binary>>} = Codec.encode(Types.inferred(catalogue(), 1), [term])
      text
    end
  end

  defp encode!(params, terms) do
    {:ok, rows} = Codec.encode_rows(params, for(term <- terms, do: [term]))
    rows
  end

  defp catalogue, do: Types.new(structs: :causeway, numbers: :numeric, json: Causeway.TestJson)
  defp fetch(ctx), do: &PostgresValues.texts(ctx.database, &1)

  defp decode!(codec, values) do
    bytes = for value <- values, into: <<>>, do: item(value)
    {:ok, rows} = Codec.decode_rows(codec, bytes, length(values))
    for [term] <- rows, do: term
  end

  defp item(nil), do: <<-1::32>>
  defp item(value), do: <<byte_size(value)::32, value::binary>>

  for {type, samples} <- @samples do
    @tag samples: samples, type: type
    test "#{type}", %{type: type, samples: samples} = ctx do
      {_, {_oid, typmod} = column} = List.keyfind(ctx.columns, type, 0)
      terms = for {_literal, term} <- samples, do: term
      {:ok, codec} = Types.columns(catalogue(), [column], fetch(ctx))
      {from_literals, rest} = Enum.split(ctx.stored[type], length(terms))

      {from_texts, from_terms} =
        if type in @ambiguous, do: {[], rest}, else: Enum.split(rest, length(terms))

      # What the server sends of its literals, and of what we have sent.
      assert decode!(codec, for([bytes, _] <- from_literals, do: bytes)) === terms

      # And what it prints of both.
      unless type in @as_text do
        assert decode!(codec, for([bytes, _] <- from_terms, do: bytes)) === terms
        assert for([_, text] <- from_terms, do: text) == for([_, text] <- from_literals, do: text)
      end

      # And what it takes our texts for.
      unless type in @ambiguous,
        do:
          assert(
            for([bytes, _] <- from_texts, do: bytes) ==
              for([bytes, _] <- from_literals, do: bytes)
          )

      unless type in @named,
        do: assert(for([_, text] <- from_literals, do: text(codec, text, typmod)) === terms)
    end
  end

  # The term of a text, as in a statement that has a column of unknown type.
  defp text(codec, text, typmod) do
    [spec] = codec.specs
    [term] = Codec.decode_json(codec, [TextValues.decode(text, spec, typmod, codec.options)])
    term
  end

  # Of each kind, those that the server gives back as they were sent.
  @random [
    {"bool", :bool},
    {"int2", :int2},
    {"int4", :int4},
    {"int8", :int8},
    {"oid", :oid},
    {"xid8", :xid8},
    {"float4", :float4},
    {"float8", :float8},
    {"numeric", :numeric},
    {"text", :text},
    {"name", :name},
    {"\"char\"", :char},
    {"bytea", :bytea},
    {"uuid", :uuid},
    {"varbit", :bit},
    {"date", :date},
    {"time", :time},
    {"timetz", :timetz},
    {"timestamp", :timestamp},
    {"timestamptz", :timestamptz},
    {"interval", :interval},
    {"inet", :inet},
    {"macaddr", :macaddr},
    {"macaddr8", :macaddr8},
    {"tid", :tid},
    {"point", :point},
    {"lseg", :lseg},
    {"circle", :circle},
    {"hstore", :hstore},
    {"int4[]", {:array, 23, :int4}},
    {"numeric[]", {:array, 1700, :numeric}},
    {"text[]", {:array, 25, :text}},
    {"timestamptz[]", {:array, 1184, :timestamptz}},
    {"hstore[]", {:array, :hstore}}
  ]

  property "random values come back as they were sent", runs: 5 do
    # A property has no context.
    ctx = %{database: :persistent_term.get(__MODULE__)}
    types = for {type, _spec} <- @random, do: type
    oids = for type <- types, do: PostgresValues.oid(ctx.database, type)
    rows = list_of(200, fn -> for {_type, spec} <- @random, do: value(spec) end)

    {:ok, params} = Types.params(catalogue(), oids, fetch(ctx))
    {:ok, bytes} = Codec.encode_rows(params, rows)
    {:ok, columns} = Types.columns(catalogue(), for(oid <- oids, do: {oid, -1}), fetch(ctx))

    sent =
      for row <- PostgresValues.round_trip(ctx.database, types, bytes),
          into: <<>>,
          do: Enum.map_join(row, &item/1)

    {:ok, got} = Codec.decode_rows(columns, sent, 200)

    for {expected, got} <- Enum.zip(rows, got),
        field <- Enum.zip([types, expected, got]),
        do: assert({_type, same, same} = field)
  end

  defp value({:array, :hstore}), do: PostgresRandom.value({:array, 1, :hstore})
  defp value(spec), do: PostgresRandom.value(spec)
end
