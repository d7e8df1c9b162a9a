if Code.ensure_loaded?(Ecto.Adapters.SQL) and Code.ensure_loaded?(Postgrex) do
  defmodule Causeway.Ecto.Storage do
    @moduledoc false
    # mix ecto.create, drop, dump and load. The server's programs connect as the port program does: what libpq was asked,
    # they are told by libpq's variables in the environment, which nobody else on the machine can read.

    alias Causeway.Ecto.Adapter.Connection
    alias Causeway.Ecto.{ConnectOptions, Protocol}
    alias Causeway.Postgres.Options

    # ---- databases ----

    def up(opts) do
      database = Keyword.fetch!(opts, :database)

      case query("SELECT FROM pg_database WHERE datname = #{text(database)}", maintenance(opts)) do
        {:ok, %{num_rows: 1}} -> {:error, :already_up}
        _ -> with :ok <- opts |> create(database) |> done(opts), do: set_timezone(opts, database)
      end
    end

    defp done(sql, opts) do
      case query(sql, maintenance(opts)) do
        {:ok, _} -> :ok
        {:error, %{postgres: %{code: :duplicate_database}}} -> {:error, :already_up}
        {:error, error} -> {:error, Exception.message(error)}
      end
    end

    # What ecto_sql sets if it is not told: something since 3.14, which also gives options to insert/8.
    @timezone if {:insert, 8} in Ecto.Adapters.SQL.Connection.behaviour_info(:callbacks),
                do: "Etc/UTC"

    defp set_timezone(opts, database) do
      case Keyword.get(opts, :timezone, @timezone) do
        none when none in [nil, false] ->
          :ok

        zone ->
          done("ALTER DATABASE #{name(database)} SET timezone TO #{text("#{zone}")}", opts)
      end
    end

    defp create(opts, database) do
      encoding = if opts[:encoding] == :unspecified, do: nil, else: opts[:encoding] || "UTF8"

      Enum.join([
        "CREATE DATABASE #{name(database)}",
        setting("ENCODING ", encoding, &text/1),
        setting("TEMPLATE=", opts[:template], & &1),
        setting("LC_CTYPE=", opts[:lc_ctype], &text/1),
        setting("LC_COLLATE=", opts[:lc_collate], &text/1)
      ])
    end

    defp setting(_word, nil, _quoted), do: ""
    defp setting(word, value, quoted), do: " #{word}#{quoted.("#{value}")}"

    def down(opts) do
      database = Keyword.fetch!(opts, :database)
      force = if opts[:force_drop], do: " WITH (FORCE)", else: ""

      case query("DROP DATABASE #{name(database)}#{force}", maintenance(opts)) do
        {:ok, _} -> :ok
        {:error, %{postgres: %{code: :invalid_catalog_name}}} -> {:error, :already_down}
        {:error, error} -> {:error, Exception.message(error)}
      end
    end

    def status(opts) do
      database = Keyword.fetch!(opts, :database)

      case query("SELECT FROM pg_database WHERE datname = #{text(database)}", maintenance(opts)) do
        {:ok, %{num_rows: 0}} -> :down
        {:ok, _} -> :up
        other -> other
      end
    end

    defp maintenance(opts),
      do: Keyword.put(opts, :database, opts[:maintenance_database] || "postgres")

    defp name(name), do: ~s("#{String.replace(name, "\"", "\"\"")}")
    defp text(text), do: "'#{String.replace(text, "'", "''")}'"

    # In a process of its own: nothing stays behind.
    defp query(sql, opts) do
      {:ok, _} = Application.ensure_all_started(:ecto_sql)
      {:ok, _} = Application.ensure_all_started(:postgrex)
      timeout = Keyword.get(opts, :timeout, 15_000)

      task =
        Task.Supervisor.async_nolink(Ecto.Adapters.SQL.StorageSupervisor, fn -> run(sql, opts) end)

      case Task.yield(task, timeout) || Task.shutdown(task) do
        {:ok, result} -> result
        {:exit, {%{__exception__: true} = error, _}} -> {:error, error}
        {:exit, reason} -> {:error, RuntimeError.exception(Exception.format_exit(reason))}
        nil -> {:error, RuntimeError.exception("command timed out")}
      end
    end

    # What DBConnection logs of a connection that it cannot make, it logs of this one.
    defp run(sql, opts) do
      opts =
        opts
        |> Keyword.drop([:name, :log, :pool, :pool_size])
        |> Keyword.merge(backoff_type: :stop, max_restarts: 0)

      {:ok, conn} = DBConnection.start_link(Protocol, opts)
      result = Connection.query(conn, sql, [], opts)
      GenServer.stop(conn)
      result
    end

    # ---- structure ----

    def structure_dump(default, config) do
      table = config[:migration_source] || "schema_migrations"

      with {:ok, versions} <- versions(table, config),
           {:ok, path} <- dump_schema(path(default, config), config) do
        File.write!(path, versions, [:append])
        {:ok, path}
      end
    end

    # INSERTs of the migrations that were run, in the schemas that are dumped.
    defp versions(table, config) do
      Enum.reduce_while(config[:dump_prefixes] || ["public"], {:ok, []}, fn schema, {:ok, done} ->
        case query(~s[SELECT version FROM #{schema}."#{table}" ORDER BY version], config) do
          {:ok, %{rows: rows}} -> {:cont, {:ok, [done | inserts(schema, table, rows)]}}
          {:error, %{postgres: %{code: :undefined_table}}} -> {:cont, {:ok, done}}
          error -> {:halt, error}
        end
      end)
    end

    defp inserts(schema, table, rows) do
      for [version] <- rows,
          do: ~s[INSERT INTO #{schema}."#{table}" (version) VALUES (#{version});\n]
    end

    defp dump_schema(path, config) do
      schemas = Enum.flat_map(config[:dump_prefixes] || [], &["-n", &1])
      args = schemas ++ ["--file", path, "--schema-only", "--no-acl", "--no-owner"]
      File.mkdir_p!(Path.dirname(path))

      case dump(args, [], config) do
        {_output, 0} -> {:ok, path}
        {output, _} -> {:error, output}
      end
    end

    def structure_load(default, config) do
      path = path(default, config)
      args = ["--quiet", "--file", path, "-vON_ERROR_STOP=1", "--single-transaction"]

      case command("psql", args, [], config) do
        {_output, 0} -> {:ok, path}
        {output, _} -> {:error, output}
      end
    end

    defp path(default, config), do: config[:dump_path] || Path.join(default, "structure.sql")

    def dump(args, opts, config), do: command("pg_dump", args, opts, config)

    defp command(program, args, opts, config) do
      unless System.find_executable(program) do
        raise "could not find executable `#{program}` in path, " <>
                "please guarantee it is available before running ecto commands"
      end

      {options, _} = config |> ConnectOptions.known() |> Options.split!()

      opts =
        opts
        |> Keyword.put_new(:stderr_to_stdout, true)
        |> Keyword.update(:env, environment(options), &(environment(options) ++ &1))

      System.cmd(program, dbname(config[:conninfo]) ++ args, opts)
    end

    # There is no variable for a connection string. Arguments are for all to see.
    defp dbname(nil), do: []

    defp dbname(conninfo) do
      if conninfo =~ ~r/password\s*=|:\/\/[^\/@]*:[^\/@]*@/i do
        raise ArgumentError,
              "option :conninfo has a password, which pg_dump and psql could only be told as an argument, where " <>
                "everybody on the machine can read it: give it as the option :password"
      end

      ["--dbname", conninfo]
    end

    # libpq's names of what it is asked, and of the variables that say the same. What has none is of no consequence
    # to these programs.
    @variables ~w(host:PGHOST hostaddr:PGHOSTADDR port:PGPORT dbname:PGDATABASE user:PGUSER
      password:PGPASSWORD passfile:PGPASSFILE service:PGSERVICE options:PGOPTIONS
      application_name:PGAPPNAME sslmode:PGSSLMODE sslcert:PGSSLCERT sslkey:PGSSLKEY
      sslrootcert:PGSSLROOTCERT sslcrl:PGSSLCRL sslcrldir:PGSSLCRLDIR sslsni:PGSSLSNI
      sslnegotiation:PGSSLNEGOTIATION requirepeer:PGREQUIREPEER require_auth:PGREQUIREAUTH
      ssl_min_protocol_version:PGSSLMINPROTOCOLVERSION
      ssl_max_protocol_version:PGSSLMAXPROTOCOLVERSION channel_binding:PGCHANNELBINDING
      gssencmode:PGGSSENCMODE krbsrvname:PGKRBSRVNAME gsslib:PGGSSLIB
      target_session_attrs:PGTARGETSESSIONATTRS load_balance_hosts:PGLOADBALANCEHOSTS)
               |> Map.new(&(&1 |> String.split(":") |> List.to_tuple()))

    defp environment(options) do
      known = for {name, value} <- options.conninfo, key = @variables[name], do: {key, value}
      [{"PGCONNECT_TIMEOUT", "10"} | known]
    end
  end
end
