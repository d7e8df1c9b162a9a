if Code.ensure_loaded?(Ecto.Adapters.SQL) and Code.ensure_loaded?(Postgrex) do
  defmodule Causeway.Ecto.Bulk do
    @moduledoc false
    # insert_all of many rows, with an array for each column instead of a parameter for each value:
    #
    #     INSERT INTO "items" ("name","price") VALUES ($1,$2),($3,$4),...                ecto_sql's
    #     INSERT INTO "items" ("name","price") SELECT * FROM unnest($1,$2)               this one's
    #
    # The server need not parse and plan thousands of parameters, of which there may be 65,535 at most, and the text is the
    # same for any number of rows. What the columns are it says of the first form for one row; arrays of those are the
    # parameters' types.
    #
    # It is for plain values. Where there is more (defaults, placeholders, queries, values that are lists or tuples
    # themselves, conflicts with parameters) ecto_sql's form does it.

    alias Causeway.Ecto.{Query, Statements}
    alias Ecto.Adapters.Postgres.Connection, as: Generator
    alias Ecto.Adapters.SQL

    @from 100

    @doc "Inserts, or says that it is not for this."
    @spec insert_all(tuple) :: {non_neg_integer, [[term]] | nil} | :unsuited
    def insert_all({meta, schema, header, rows, on_conflict, returning, placeholders, opts}) do
      with true <- placeholders == [] and elem(on_conflict, 1) == [] and header != [],
           true <- is_list(rows) and many?(rows, meta, opts),
           false <- known_unsuited?(meta, schema.source, header),
           columns when is_list(columns) <- columns(header, rows) do
        %{prefix: prefix, source: source} = schema
        one = Generator.insert(prefix, source, header, [header], on_conflict, returning, [])

        insert(meta, source, header, IO.iodata_to_binary(one), columns, opts)
      else
        _ -> :unsuited
      end
    end

    defp many?(rows, meta, opts) do
      case Keyword.get(opts, :bulk, Keyword.get(meta.opts, :bulk, @from)) do
        false ->
          false

        n when is_integer(n) and n > 0 ->
          opts[:comment] == nil and Enum.drop(rows, n - 1) != []

        other ->
          raise ArgumentError,
                "option :bulk: expected a number of rows, from 1, or false, got #{inspect(other)}"
      end
    end

    # ---- columns ----

    defp columns(header, rows) do
      rows |> Enum.map(&values(header, &1)) |> Enum.zip_with(& &1)
    catch
      :unsuited -> :unsuited
    end

    # Mostly, a row has its fields in the header's order.
    defp values([key | keys], [{key, value} | row])
         when not is_list(value) and not is_tuple(value),
         do: [value | values(keys, row)]

    defp values([], []), do: []
    defp values(keys, row), do: Enum.map(keys, &value(:lists.keyfind(&1, 1, row)))

    defp value({_, value}) when not is_list(value) and not is_tuple(value), do: value
    defp value(_), do: throw(:unsuited)

    # ---- inserting ----

    defp insert(meta, source, header, one, columns, opts) do
      opts = [causeway_bulk: one, source: source] ++ opts

      case SQL.query!(meta, statement(one, length(header)), columns, opts) do
        %{num_rows: n, rows: rows} ->
          {n, rows}

        :unsuited ->
          remember_unsuited(meta, source, header)
          :unsuited
      end
    end

    defp statement(one, n) do
      parameters = Enum.map_join(1..n, ",", &"$#{&1}")
      values = "VALUES (#{parameters})"
      String.replace(one, values, "SELECT * FROM unnest(#{parameters})", global: false)
    end

    # A column may be an array, and all values NULL: then it is the server who says that it is none for this.
    defp known_unsuited?(meta, source, header),
      do: :persistent_term.get(key(meta, source, header), false)

    defp remember_unsuited(meta, source, header),
      do: :persistent_term.put(key(meta, source, header), true)

    defp key(meta, source, header), do: {__MODULE__, meta.repo, source, header}

    # ---- on the connection ----

    @doc "What `Causeway.Ecto.Adapter.Connection.query/4` does with such a statement."
    def query(conn, sql, columns, opts) do
      {one, opts} = Keyword.pop!(opts, :causeway_bulk)
      name = "bulk #{:erlang.phash2(sql)}"
      query = %Query{statement: sql, name: name, keep: true, kind: {:bulk, one}}

      # To prepare it is no query of the user's, and is not logged.
      with {:ok, query} <- DBConnection.prepare(conn, query, Keyword.delete(opts, :log)) do
        case query do
          %{kind: :unsuited} -> {:ok, query, :unsuited}
          query -> DBConnection.execute(conn, query, columns, opts)
        end
      end
    end

    @doc "Describes the statement for one row, and with that the one for many."
    def describe(s, %{kind: {:bulk, one}} = query, opts) do
      steps = [{:prepare, "", one, ""}, {:describe, ""}]

      with {:ok, [_, {:described, oids, columns}], _, s} <-
             Statements.perform(s, steps, one, opts),
           {:ok, arrays} <- arrays(s, oids) do
        if arrays,
          do: s |> Statements.described(query, nil, arrays, columns) |> binary_only(),
          else: {:ok, %{query | kind: :unsuited}, s}
      else
        {:error, error} -> {:error, error, s}
        other -> other
      end
    end

    # What has no binary form would be sent as a text of the whole array.
    defp binary_only({:ok, %{formats: formats} = query, s}) do
      if :binary.match(formats, <<0>>) == :nomatch,
        do: {:ok, query, s},
        else: {:ok, %{query | kind: :unsuited}, s}
    end

    defp binary_only(error), do: error

    # Array types of those; nil when one has none, is an array by another name, or would be more than one column.
    defp arrays(s, oids) do
      sql =
        "SELECT oid, CASE WHEN typtype IN ('b', 'd', 'e', 'r', 'm') AND typcategory NOT IN ('A', 'C') THEN typarray ELSE 0 END " <>
          "FROM pg_catalog.pg_type WHERE oid IN (#{Enum.join(oids, ",")})"

      with {:ok, rows} <- Statements.catalogue(s, sql) do
        arrays =
          Map.new(rows, fn [oid, array] -> {String.to_integer(oid), String.to_integer(array)} end)

        arrays = Enum.map(oids, &Map.get(arrays, &1, 0))
        {:ok, if(0 in arrays, do: nil, else: arrays)}
      end
    end
  end
end
