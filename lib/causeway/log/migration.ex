defmodule Causeway.Log.Migration do
  @moduledoc """
  Makes a log's tables and functions, or brings them up to date.

  A `Causeway.Log` does so itself when it starts, unless it has `install: false`: where the application may not make
  tables, a migration does. With Ecto:

      def up, do: for(sql <- Causeway.Log.Migration.statements(), do: execute(sql))
      def down, do: for(sql <- Causeway.Log.Migration.down_statements(), do: execute(sql))

  or over a connection, `Causeway.Log.Migration.up(conn)`. The user has to own the database, or have the right to create
  in it.
  """

  alias Causeway.Log.{Error, Options}
  alias Causeway.Postgres

  @version 1

  @sources for name <- ["log_tables.sql", "log_functions.sql"], do: Path.join(__DIR__, name)
  for source <- @sources, do: @external_resource(source)
  [tables, functions] = Enum.map(@sources, &File.read!/1)
  @tables tables
  @functions functions

  @defaults [schema: "causeway", partitions: 8, max_bytes: 1_048_576]

  @doc """
  Makes what is not there, and replaces functions of an earlier release. Several may do so at once.

  Options: `:schema`, `:partitions` and `:max_bytes` as of `Causeway.Log`.
  """
  @spec up(Postgres.conn(), keyword) :: :ok | {:error, Exception.t()}
  def up(conn, opts \\ []), do: make(conn, opts!(opts))

  defp make(conn, opts) do
    result =
      Postgres.transaction(conn, fn tx ->
        run!(tx, "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended($1, 0))", [
          "causeway.log." <> opts[:schema]
        ])

        case version(tx, opts[:schema]) do
          nil -> Enum.each(statements(opts), &run!(tx, &1))
          @version -> :ok
          newer when newer > @version -> newer!(opts[:schema], newer)
          _older -> replace(tx, opts)
        end
      end)

    with {:ok, _} <- result, do: :ok
  rescue
    error in [Error, Postgres.Error] -> {:error, error}
  end

  defp replace(tx, opts) do
    Enum.each(statements(functions(), opts), &run!(tx, &1))
    run!(tx, "UPDATE #{opts[:schema]}.log_settings SET version = $1", [@version])
  end

  @doc """
  What is there: `{:ok, %{partitions: n, max_bytes: n}}`, or an error when there is nothing, or it is of a newer release.
  """
  @spec settings(Postgres.conn(), keyword) :: {:ok, map} | {:error, Exception.t()}
  def settings(conn, opts \\ []), do: read(conn, opts!(opts)[:schema])

  defp read(conn, schema) do
    case version(conn, schema) do
      nil ->
        {:error, %Error{reason: {:not_installed, schema}}}

      version when version > @version ->
        newer!(schema, version)

      _ ->
        sql = "SELECT partitions, max_bytes FROM #{schema}.log_settings"
        %{rows: [[partitions, max_bytes]]} = run!(conn, sql)
        {:ok, %{partitions: partitions, max_bytes: max_bytes}}
    end
  rescue
    error in [Error, Postgres.Error] -> {:error, error}
  end

  @doc "The statements that make everything where there is nothing, in order. Options as in `up/2`."
  @spec statements(keyword) :: [String.t()]
  def statements(opts \\ []) do
    opts = opts!(opts)
    schema = opts[:schema]

    # The log's own publication: with it, every node sees the tables of all segments as one.
    publication =
      "CREATE PUBLICATION #{publication(schema)} FOR TABLE #{schema}.log_batches " <>
        "WITH (publish = 'insert', publish_via_partition_root = true)"

    ["CREATE SCHEMA IF NOT EXISTS #{schema}"] ++
      statements(@tables, opts) ++ statements(@functions, opts) ++ [publication]
  end

  @doc "The statements that remove everything, messages included. They leave the schema, which may hold other things."
  @spec down_statements(keyword) :: [String.t()]
  def down_statements(opts \\ []) do
    schema = opts!(opts)[:schema]

    tables =
      ~w(log_parked log_positions log_members log_groups log_batches log_segments log_outbox log_settings)

    functions =
      ~r/FUNCTION SCHEMA\.(\w+)\(/
      |> Regex.scan(@functions, capture: :all_but_first)
      |> List.flatten()
      |> Enum.uniq()

    [
      "DROP PUBLICATION IF EXISTS #{publication(schema)}",
      "DROP VIEW IF EXISTS #{schema}.messages"
    ] ++
      for(table <- tables, do: "DROP TABLE IF EXISTS #{schema}.#{table}") ++
      for(function <- functions, do: "DROP FUNCTION IF EXISTS #{schema}.#{function}")
  end

  @doc false
  def publication(schema), do: schema <> "_log"

  @doc false
  # What its settings and messages in the server's log are called.
  def namespace(schema), do: "log_" <> schema

  defp functions, do: @functions

  defp statements(source, opts) do
    for statement <- String.split(source, ~r/^--;$/m),
        statement = String.trim(statement),
        do: fill(statement, opts)
  end

  defp fill(sql, opts) do
    sql
    |> String.replace("SCHEMA", opts[:schema])
    |> String.replace("NAMESPACE", namespace(opts[:schema]))
    |> String.replace("PARTITIONS", "#{opts[:partitions]}")
    |> String.replace("MAX_BYTES", "#{opts[:max_bytes]}")
  end

  defp opts!(opts) do
    for {key, _} <- opts, not Keyword.has_key?(@defaults, key) do
      Options.bad!(key, "there is no such option; there are :schema, :partitions and :max_bytes")
    end

    opts = Keyword.merge(@defaults, opts)
    Options.schema!(opts[:schema])
    opts
  end

  defp version(conn, schema) do
    case run!(conn, "SELECT pg_catalog.to_regclass($1)::text", [schema <> ".log_settings"]).rows do
      [[nil]] ->
        nil

      _ ->
        conn
        |> run!("SELECT version FROM #{schema}.log_settings")
        |> Map.fetch!(:rows)
        |> hd()
        |> hd()
    end
  end

  defp newer!(schema, version), do: raise(Error, reason: {:newer, schema, version, @version})

  defp run!(conn, sql, params \\ []), do: Postgres.query!(conn, sql, params)
end
