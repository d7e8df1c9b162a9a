if Code.ensure_loaded?(Ecto.Adapters.SQL) and Code.ensure_loaded?(Postgrex) do
  defmodule Causeway.Ecto.Adapter.Connection do
    @moduledoc false
    # What Ecto.Adapters.SQL asks of an adapter: SQL is made by ecto_sql's own generator for PostgreSQL, statements are run
    # by Causeway.Ecto.Protocol.

    @behaviour Ecto.Adapters.SQL.Connection

    alias Causeway.Ecto.{Bulk, ConnectOptions, Cursors, Query, Scripts}
    alias Ecto.Adapters.Postgres.Connection, as: Generator

    @impl true
    def child_spec(opts) do
      ConnectOptions.check!(opts)
      DBConnection.child_spec(Causeway.Ecto.Protocol, opts)
    end

    # ---- SQL, made by ecto_sql ----

    @impl true
    defdelegate to_constraints(exception, opts), to: Generator
    @impl true
    defdelegate all(query), to: Generator
    defdelegate all(query, as_prefix), to: Generator
    @impl true
    defdelegate update_all(query), to: Generator
    defdelegate update_all(query, prefix), to: Generator
    @impl true
    defdelegate delete_all(query), to: Generator
    # Since ecto_sql 3.14 with options from insert_all, and without from insert.
    if {:insert, 8} in Ecto.Adapters.SQL.Connection.behaviour_info(:callbacks) do
      @impl true
      def insert(prefix, table, header, rows, on_conflict, returning, placeholders, opts \\ []) do
        Generator.insert(prefix, table, header, rows, on_conflict, returning, placeholders, opts)
      end
    else
      @impl true
      defdelegate insert(prefix, table, header, rows, on_conflict, returning, placeholders),
        to: Generator
    end

    @impl true
    defdelegate update(prefix, table, fields, filters, returning), to: Generator
    @impl true
    defdelegate delete(prefix, table, filters, returning), to: Generator
    @impl true
    defdelegate execute_ddl(command), to: Generator
    @impl true
    defdelegate ddl_logs(result), to: Generator
    @impl true
    defdelegate table_exists_query(table), to: Generator

    # ---- statements ----

    @impl true
    def prepare_execute(conn, name, sql, params, opts) do
      ConnectOptions.check_deadline!(opts)
      query = %Query{name: name(name, opts), statement: commented(sql, opts)}

      with :ok <- sendable(params),
           do: conn |> DBConnection.prepare_execute(query, params, opts) |> with_hint()
    end

    # A comparison of JSON with a text that stands in the query, not in a parameter.
    defp with_hint({:error, %Postgrex.Error{postgres: %{pg_code: "22P02"} = postgres} = error}) do
      hint = """
      . If you are trying to query a JSON field, the parameter may need to be interpolated. \\
      Instead of

          p.json["field"] != "value"

      do

          p.json["field"] != ^"value"
      """

      {:error, %{error | postgres: %{postgres | message: postgres.message <> hint}}}
    end

    defp with_hint(other), do: other

    @impl true
    def query(conn, sql, params, opts) do
      ConnectOptions.check_deadline!(opts)

      with :ok <- sendable(params),
           {:ok, _query, result} <- prepared(conn, sql, params, opts),
           do: {:ok, result}
    end

    defp prepared(conn, sql, params, opts) do
      if opts[:causeway_bulk],
        do: Bulk.query(conn, sql, params, opts),
        else: DBConnection.prepare_execute(conn, once(sql, params, opts), params, opts)
    end

    defp once(sql, params, opts) do
      statement = commented(sql, opts)

      case name(Keyword.get(opts, :cache_statement), opts) do
        "" -> %Query{statement: statement, kind: kind(statement, params)}
        name -> %Query{statement: statement, name: name, keep: true}
      end
    end

    # What gives no rows, or only such as have a binary form, need not be described before it is run.
    @rows ~w(select with values table fetch execute call)

    defp kind(statement, []) do
      case Query.first_word(statement) do
        "copy" -> :copy
        word when word in @rows -> :prepared
        _ -> if statement =~ ~r/\breturning\b/i, do: :prepared, else: :direct
      end
    end

    defp kind(_statement, _params), do: :prepared

    @impl true
    def execute(conn, %Query{ref: ref} = query, params, opts) do
      ConnectOptions.check_deadline!(opts)

      case execute_prepared(conn, query, params, opts) do
        {:ok, %{ref: ^ref}, result} -> {:ok, result}
        {:ok, _, _} = anew -> anew
        {:error, error} -> if reset?(error), do: {:reset, error}, else: {:error, error}
      end
    end

    # A comment is a part of the statement, which is then another one each time.
    defp execute_prepared(conn, query, params, opts) do
      if opts[:comment] do
        query = %Query{statement: commented(query.statement, opts)}
        DBConnection.prepare_execute(conn, query, params, opts)
      else
        DBConnection.execute(conn, query, params, opts)
      end
    end

    # What it was prepared for is not what is there now.
    @anew ~w(feature_not_supported datatype_mismatch undefined_function indeterminate_datatype cannot_coerce)a

    defp reset?(%Postgrex.Error{postgres: %{code: code}}), do: code in @anew
    defp reset?(_), do: false

    @impl true
    def query_many(conn, sql, params, opts) do
      ConnectOptions.check_deadline!(opts)
      Scripts.run(conn, sql, list!(params), opts)
    end

    @impl true
    def stream(conn, sql, params, opts) do
      ConnectOptions.check_deadline!(opts)
      Cursors.check_max_rows!(opts)
      statement = IO.iodata_to_binary(sql)
      %Causeway.Ecto.Stream{conn: conn, statement: statement, params: list!(params), opts: opts}
    end

    # ---- explain ----

    @explain ~w[analyze verbose costs settings buffers timing summary format plan]a

    @impl true
    def explain_query(conn, query, params, opts) do
      {explain, opts} = Keyword.split(opts, @explain)
      {plan, explain} = Keyword.pop(explain, :plan)

      case explained(conn, plan, query, params, explain, opts) do
        {:ok, %{rows: rows}} when rows != nil ->
          if explain[:format] == :map,
            do: {:ok, List.flatten(rows)},
            else: {:ok, Enum.map_join(rows, "\n", & &1)}

        other ->
          other
      end
    end

    defp explained(conn, :fallback_generic, query, params, explain, opts) do
      if explain[:analyze] do
        raise ArgumentError,
              "analyze cannot be used with a `:fallback_generic` explain plan " <>
                "as the actual parameter values are ignored under this plan type." <>
                "You may either change the plan type to `:custom` or remove the `:analyze` option."
      end

      {prepare, set, execute, deallocate} =
        Generator.build_fallback_generic_queries(query, length(params), explain)

      with {:ok, _} <- query(conn, prepare, [], opts),
           {:ok, _} <- query(conn, set, [], opts),
           {:ok, result} <- query(conn, execute, [], opts),
           {:ok, _} <- query(conn, deallocate, [], opts),
           do: {:ok, result}
    end

    defp explained(conn, _plan, query, params, explain, opts),
      do: query(conn, Generator.build_explain_query(query, explain), params, opts)

    # ---- options ----

    defp name(nil, _opts), do: ""
    defp name(name, opts), do: if(opts[:comment], do: "", else: name)

    defp commented(sql, opts) do
      case opts[:comment] do
        nil -> IO.iodata_to_binary(sql)
        comment -> IO.iodata_to_binary(["/*", checked(comment), "*/ ", sql])
      end
    end

    defp checked(comment) do
      if String.contains?(comment, [<<0>>, "*/"]),
        do:
          raise(Postgrex.Error,
            message: "`:comment` option cannot contain null bytes and \"*/\" sequence"
          )

      comment
    end

    # As many as a message can have.
    @most 65_535

    defp sendable(params) do
      n = length(list!(params))

      if n > @most do
        message = "postgresql protocol can not handle #{n} parameters, the maximum is #{@most}"
        {:error, Postgrex.QueryError.exception(message)}
      else
        :ok
      end
    end

    defp list!(params) when is_list(params), do: params

    defp list!(params),
      do: raise(ArgumentError, "expected params to be a list, got: #{inspect(params)}")
  end
end
