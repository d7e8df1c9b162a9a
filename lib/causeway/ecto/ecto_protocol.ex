if Code.ensure_loaded?(Ecto.Adapters.SQL) and Code.ensure_loaded?(Postgrex) do
  defmodule Causeway.Ecto.Protocol do
    @moduledoc false
    # DBConnection over the port program: what the pool holds, and what a client does with it. See docs/ecto_path.md for
    # the way that a query goes.
    #
    # The state is copied out of the pool's table and back for each call, so it is small. All that is needed seldom is in
    # the connection's own table:
    #
    #     {name, ref, server_name}     a prepared statement: which of that name, and what it is called there
    #     {{:query, name}, query}      all of it, if Ecto makes it anew each time
    #     {{:cursor, name}}            whose first part was given
    #     {:types, types}  {:options, options}

    use DBConnection

    alias Causeway.Ecto.{Commits, ConnectOptions, Copies, Copy, Cursors, Errors, Keeper}
    alias Causeway.Ecto.{Query, Script, Scripts, Statements, Wire}
    alias Causeway.Postgres.{Options, Protocol, Types}

    @enforce_keys [:port, :keeper, :table, :id]
    # With begin? the status is :transaction, but the server does not know yet: BEGIN goes along with the first statement.
    defstruct [:port, :keeper, :table, :id, :copy, status: :idle, begin?: false]

    @type t :: %__MODULE__{
            port: port,
            keeper: pid,
            table: :ets.table(),
            id: pos_integer,
            copy: term,
            status: :idle | :transaction | :error,
            begin?: boolean
          }

    # ---- connecting ----

    @impl true
    def connect(opts) do
      # So that DBConnection calls disconnect/2 whatever the process ends of.
      Process.flag(:trap_exit, true)
      {options, _rest} = opts |> ConnectOptions.known() |> Options.split!()

      case Keeper.start_link() do
        {:ok, keeper, port} -> connect(%{port: port, keeper: keeper}, options, opts)
        {:error, why} -> {:error, Errors.lost("no port program: #{why}")}
      end
    end

    defp connect(program, options, opts) do
      timeout = if options.connect_timeout == :infinity, do: 0, else: options.connect_timeout

      with :ok <- Wire.take(program, Protocol.connect(options.conninfo), timeout),
           {:ok, facts} <- connected(program.port) do
        Wire.give_back(program)
        {:ok, new(program, Map.new(facts), options, opts)}
      else
        {:lost, why, _} -> refused(program, Errors.lost(why || Wire.fate(program)))
        {:error, error} -> refused(program, error)
      end
    end

    defp connected(port) do
      case Wire.next(port) do
        {:event, {:connected, _, facts}} -> {:ok, facts}
        {:event, {:failed, _, why, message}} -> {:error, Errors.connect(why, message)}
        {:lost, why} -> {:lost, why, nil}
        _ -> connected(port)
      end
    end

    defp refused(program, error) do
      Keeper.stop(program.keeper, program.port)
      Wire.forget(program.port)
      {:error, error}
    end

    defp new(program, facts, options, opts) do
      table = :ets.new(__MODULE__, [:public])

      :ets.insert(table, [
        {:types, Types.new(ConnectOptions.types(opts))},
        {:options,
         %{
           disconnect_on: options.disconnect_on_error_codes,
           prepare: options.prepare,
           ping_timeout: ping_timeout(opts[:ping_timeout] || options.timeout)
         }}
      ])

      struct!(
        __MODULE__,
        Map.merge(program, %{table: table, id: facts[:pid]})
      )
    end

    defp ping_timeout(:infinity), do: 0
    defp ping_timeout(ms), do: ms

    @impl true
    def checkout(s), do: {:ok, s}

    @impl true
    def ping(s) do
      case Wire.run(s, [{:simple, ""}], Statements.option(s, :ping_timeout)) do
        {:ok, %{ended: [{:error, why, fields}]}, s} ->
          {:disconnect, Errors.server(why, fields, s.id, nil), s}

        {:ok, _, s} ->
          {:ok, s}

        {:lost, why, _} ->
          {:disconnect, Errors.lost(why), s}
      end
    end

    @impl true
    def disconnect(_error, s) do
      Keeper.stop(s.keeper, s.port)
      :ets.delete(s.table)
      :ok
    rescue
      # Another one has been here.
      ArgumentError -> :ok
    end

    # ---- transactions ----

    @impl true
    def handle_begin(opts, s) do
      case {mode(opts), s.status} do
        {:transaction, :idle} ->
          with {:ok, s} <- Commits.wait(opts, s),
               do: {:ok, unsaid(:begin, s), %{s | status: :transaction, begin?: true}}

        {:savepoint, :transaction} ->
          savepoint(["SAVEPOINT causeway_savepoint"], opts, s)

        {_, status} ->
          {status, s}
      end
    end

    @impl true
    def handle_commit(opts, s) do
      case {mode(opts), s.status} do
        {:transaction, :transaction} -> commit(opts, s)
        {:savepoint, :transaction} -> savepoint(["RELEASE SAVEPOINT causeway_savepoint"], opts, s)
        {_, status} -> {status, s}
      end
    end

    defp commit(opts, s) do
      with {:ok, statement} <- commented("COMMIT", opts[:commit_comment], s) do
        cond do
          s.begin? -> {:ok, unsaid(:commit, s), not_begun(s)}
          Commits.wanted?(opts) -> Commits.commit(statement, opts, s)
          true -> command(statement, opts, s)
        end
      end
    end

    # The transaction ends as it began: without a word to the server.
    defp not_begun(s), do: %{s | status: :idle, begin?: false}

    defp unsaid(command, s),
      do: %Postgrex.Result{command: command, num_rows: 0, connection_id: s.id, messages: []}

    defp commented(statement, nil, _s), do: {:ok, statement}

    # Postgrex disconnects, too: the transaction is rolled back.
    defp commented(statement, comment, s) do
      if String.contains?(comment, ["*/", <<0>>]) do
        message = "`:commit_comment` option cannot contain null bytes and \"*/\" sequence"
        {:disconnect, %Postgrex.Error{message: message}, s}
      else
        {:ok, "/* #{comment} */\n#{statement}"}
      end
    end

    @impl true
    def handle_rollback(opts, s) do
      s = Copies.abandon(s)

      case {mode(opts), s.status} do
        {_, :idle} ->
          {:idle, s}

        {:transaction, _} when s.begin? ->
          {:ok, unsaid(:rollback, s), not_begun(s)}

        {:transaction, _} ->
          command("ROLLBACK", opts, s)

        {:savepoint, _} ->
          undo = "ROLLBACK TO SAVEPOINT causeway_savepoint"
          savepoint([undo, "RELEASE SAVEPOINT causeway_savepoint"], opts, s)
      end
    end

    @impl true
    def handle_status(_opts, s), do: {s.status, s}

    defp mode(opts), do: Keyword.get(opts, :mode, :transaction)

    defp command(statement, opts, s),
      do: unless_closed(s, fn -> s |> Statements.script(statement, opts) |> said() end)

    defp savepoint(commands, opts, s) do
      opts = Keyword.put(opts, :mode, :transaction)
      unless_closed(s, fn -> s |> Statements.commands(commands, opts) |> said() end)
    end

    defp said({:ok, ended, notices, s}),
      do: {:ok, Statements.result(List.last(ended), notices, s), s}

    defp said(other), do: other

    # ---- statements ----

    @impl true
    def handle_prepare(%Script{} = script, _opts, s), do: {:ok, script, s}

    # Postgrex's own functions, such as Postgrex.query!/3 as `:after_connect`.
    def handle_prepare(%Postgrex.Query{} = query, opts, s) do
      keep = query.name != ""
      own = %{Query.new(query.statement) | name: query.name, keep: keep}
      handle_prepare(own, opts, s)
    end

    def handle_prepare(query, opts, s),
      do: unless_closed(s, fn -> Statements.prepare(s, query, opts) end)

    @impl true
    def handle_execute(query, params, opts, s),
      do: unless_closed(s, fn -> execute(query, params, opts, s) end)

    defp execute(%Query{kind: :copy} = query, _params, opts, s), do: Copies.read(s, query, opts)

    defp execute(%Query{} = query, values, opts, s) do
      with {:ok, s} <- Commits.wait(opts, s), do: Statements.execute(s, query, values, opts)
    end

    defp execute(%Script{} = script, _params, opts, s), do: Scripts.execute(s, script, opts)
    defp execute(%Copy{} = copy, message, opts, s), do: Copies.write(s, copy, message, opts)

    @impl true
    def handle_close(query, opts, s),
      do: unless_closed(s, fn -> Statements.close(s, query, opts) end)

    # When time is up the pool closes the connection, whoever is using it: its table is gone then.
    defp unless_closed(s, fun) do
      fun.()
    rescue
      error in ArgumentError ->
        if :ets.info(s.table) == :undefined,
          do: {:disconnect, Errors.lost("the connection was closed while it was in use"), s},
          else: reraise(error, __STACKTRACE__)
    end

    # ---- cursors ----

    @impl true
    def handle_declare(%Query{kind: :copy} = query, _params, _opts, s),
      do: Copies.declare(s, query)

    def handle_declare(query, values, opts, s) do
      unless_closed(s, fn ->
        with {:ok, s} <- Commits.wait(opts, s), do: Cursors.declare(s, query, values, opts)
      end)
    end

    @impl true
    def handle_fetch(%Query{kind: :copy} = query, _cursor, _opts, s), do: Copies.fetch(s, query)

    def handle_fetch(query, cursor, opts, s),
      do: unless_closed(s, fn -> Cursors.fetch(s, query, cursor, opts) end)

    @impl true
    def handle_deallocate(%Query{kind: :copy}, _cursor, _opts, s), do: Copies.deallocate(s)

    def handle_deallocate(query, cursor, opts, s),
      do: unless_closed(s, fn -> Cursors.close(s, query, cursor, opts) end)
  end
end
