if Code.ensure_loaded?(Postgrex.Types) do
  Postgrex.Types.define(Causeway.PostgrexTypes, [],
    json: Causeway.TestJson,
    allow_infinite_timestamps: true
  )
end

defmodule Causeway.Postgres.CodecTest do
  # Every type both ways, against a server: what it makes of our bytes, and we make of its bytes and texts. And, where
  # Postgrex is here, the same terms as Postgrex gives and takes.
  use ExUnit.Case, async: true

  alias Causeway.Postgres.{Codec, TextValues, Types}
  alias Causeway.{PostgresSamples, PostgresServer, PostgresValues}

  @moduletag :postgres
  @moduletag timeout: 300_000

  @samples PostgresSamples.all()

  # Parameters of these types are sent as text.
  @as_text ~w(tsquery pg_snapshot txid_snapshot)

  # As text these are names, even those of nothing.
  @named ~w(regclass)

  setup_all do
    database = PostgresServer.database!()
    columns = for {{type, _}, i} <- Enum.with_index(@samples), do: "c#{i} #{column(type)}"
    setup = PostgresSamples.setup() ++ ["create table samples (#{Enum.join(columns, ", ")})"]
    PostgresServer.psql!(PostgresServer.shared(), setup, database[:database])

    {:ok, attributes} =
      PostgresValues.texts(
        database,
        "select atttypid, atttypmod from pg_attribute where attrelid = 'samples'::regclass and attnum > 0 order by attnum"
      )

    oids =
      for [oid, typmod] <- attributes, do: {String.to_integer(oid), String.to_integer(typmod)}

    columns = @samples |> Enum.zip(oids) |> Map.new(fn {{type, _}, column} -> {type, column} end)
    {:ok, database: database, columns: columns}
  end

  # No column can be of this type.
  defp column("cstring"), do: "text"
  defp column(type), do: type

  defp types(opts), do: Types.new([json: Causeway.TestJson] ++ opts)
  defp ours, do: types(structs: :causeway, numbers: :numeric)
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
      {oid, typmod} = column = ctx.columns[type]
      {literals, terms} = Enum.unzip(samples)
      types = ours()

      {:ok, params} = Types.params(types, [oid], fetch(ctx))
      {:ok, codec} = Types.columns(types, [column], fetch(ctx))
      rows = if type in @as_text, do: "", else: encode!(params, terms)
      stored = PostgresValues.stored(ctx.database, type, literals, rows)
      {from_literals, from_terms} = Enum.split(stored, length(terms))

      # What the server sends of its literals, and of what we have sent.
      for stored <- [from_literals, from_terms], stored != [] do
        for {{term, got}, [bytes, text]} <-
              Enum.zip(Enum.zip(terms, decode!(codec, Enum.map(stored, &hd/1))), stored),
            do:
              assert(
                got === term,
                "#{text} (#{inspect(bytes)}): #{inspect(got)}, not #{inspect(term)}"
              )
      end

      # What it prints of both.
      unless rows == "" do
        for {[_, expected], [_, got]} <- Enum.zip(from_literals, from_terms),
            do: assert(got == expected)

        assert length(from_literals) == length(from_terms)
      end

      # The text as it prints it.
      unless type in @named do
        for {[_, text], term} <- Enum.zip(from_literals, terms),
            do: assert(text(codec, text, typmod) === term)
      end
    end
  end

  defp encode!(params, terms) do
    {:ok, rows} = Codec.encode_rows(params, for(term <- terms, do: [term]))
    rows
  end

  # As a statement with a column of unknown type would have it.
  defp text(codec, text, typmod) do
    [spec] = codec.specs

    [TextValues.decode(text, spec, typmod, codec.options)]
    |> then(&Codec.decode_json(codec, &1))
    |> hd()
  end
end
