defmodule Causeway.Postgres do
  @moduledoc """
  A connection to PostgreSQL, by libpq in a process of its own.

      children = [{Causeway.Postgres, name: Db, hostname: "db", database: "shop"}]

      Causeway.Postgres.query(Db, "SELECT name FROM people WHERE age > $1", [17])
      #=> {:ok, %Causeway.Postgres.Result{columns: ["name"], rows: [["Ada"]], num_rows: 1, ...}}

  libpq runs in the program `causeway_port`, not in the VM: a fault of it loses a connection, which is made again. It
  connects in all the ways that libpq can: several hosts, TLS, SCRAM, service and password files. Values are the terms
  that Postgrex has for them; see `docs/postgres_types.md`.

  One connection does one thing at a time. Who calls while it is busy waits for their turn, until the deadline.

  ## Deadlines

  Each call has `:timeout`, by default the connection's. When it passes, the statement is cancelled on the server and the
  call returns an error; the connection can be used on. Streams and COPY have none unless it is given.

  ## Options

  #{Causeway.Postgres.Options.docs()}

  Of the connection:

  #{Enum.map_join(Causeway.Postgres.Connection.schema(), "\n", fn {name, doc} -> "  * `:#{name}` - #{doc}" end)}
  """

  alias Causeway.Postgres.{
    CallOptions,
    Connection,
    Copy,
    CopyIn,
    Error,
    Events,
    Listeners,
    Pipeline,
    Protocol,
    Query,
    Request,
    Result,
    Session,
    Statements,
    Streaming,
    Transaction
  }

  @typedoc "A connection, by pid or name, or what the function of `transaction/3` is given."
  @type conn :: GenServer.server() | Session.t()

  @typedoc "What goes wrong: an `Error`, or for a parameter that cannot be sent an `EncodeError`."
  @type error :: Error.t() | Causeway.Postgres.EncodeError.t()

  # ---- connections ----

  @doc """
  Starts a connection, as a child of a supervisor mostly. Options are those of the module, or a connection string. It
  returns before it is connected, unless `sync_connect: true`; calls wait until it is.
  """
  @spec start_link(keyword | String.t()) :: GenServer.on_start()
  def start_link(opts) when is_function(opts, 0), do: start_link(opts.())

  def start_link(opts) do
    {options, own} = Connection.split!(opts)
    Connection.start_link(fn -> options end, own)
  end

  # Supervisors print what they start: a function does not show the password in it.
  @doc false
  def child_spec(opts) do
    id = if Keyword.keyword?(opts), do: opts[:name]
    %{id: {__MODULE__, id}, start: {__MODULE__, :start_link, [fn -> opts end]}}
  end

  @doc """
  What there is to know of a connection: `:status`, `:server_version`, `:host`, the server's `:parameters` as of connecting,
  `:connection_id`, how many calls are `:waiting`, and more.
  """
  @spec info(conn) :: map
  def info(conn), do: GenServer.call(Session.fetch(conn).pid, :info)

  @doc "The server's parameters as they are now, such as `\"TimeZone\"` and `\"in_hot_standby\"`."
  @spec parameters(conn, keyword) :: {:ok, %{String.t() => String.t()}} | {:error, Error.t()}
  def parameters(conn, opts \\ []) do
    session = Session.fetch(conn)

    with {:ok, %{ended: [{:parameters, list}]}} <-
           Request.call(session, Protocol.info(), timeout(session, opts)),
         do: {:ok, Map.new(list)}
  end

  @doc """
  Cancels what the connection runs now, whoever has asked for it: that call returns an error with reason `:cancelled`.

  What is not known yet, a query that is run for the first time, is asked for before it is run. A cancel that comes so early
  finds nothing to cancel, or something that has just ended.
  """
  @spec cancel(conn) :: :ok
  def cancel(conn), do: GenServer.call(Session.fetch(conn).pid, :cancel)

  # ---- statements ----

  @doc """
  Runs a statement. From the second time on it is a prepared one, in one round trip.

  Options: `:timeout` in milliseconds or `:infinity`; `:telemetry_options`, which the event of it has in its metadata.
  """
  @spec query(conn, iodata, [term], keyword) :: {:ok, Result.t()} | {:error, error}
  def query(conn, sql, params \\ [], opts \\ []) do
    session = Session.fetch(conn)
    sql = IO.iodata_to_binary(sql)

    Events.query(session.pid, sql, opts, fn ->
      session |> Statements.query(sql, params, timeout(session, opts)) |> look_at(session)
    end)
  end

  @doc "`query/4` that raises."
  @spec query!(conn, iodata, [term], keyword) :: Result.t()
  def query!(conn, sql, params \\ [], opts \\ []), do: ok!(query(conn, sql, params, opts))

  @doc """
  Runs any number of statements without parameters, as psql would, and returns their results. Values are the server's
  texts. Unless they begin transactions themselves, they are one; what they begin they have to end.
  """
  @spec script(conn, iodata, keyword) :: {:ok, [Result.t()]} | {:error, error}
  def script(conn, sql, opts \\ []) do
    session = Session.fetch(conn)
    sql = IO.iodata_to_binary(sql)

    Events.query(session.pid, sql, opts, fn ->
      session |> Statements.script(sql, timeout(session, opts)) |> look_at(session)
    end)
  end

  @doc """
  Prepares a statement, to be run with `execute/4` and closed with `close/3`. `query/4` does so by itself; this is for
  those that shall never be closed to make room for others.
  """
  @spec prepare(conn, iodata, keyword) :: {:ok, Query.t()} | {:error, error}
  def prepare(conn, sql, opts \\ []) do
    session = Session.fetch(conn)
    Statements.prepare(session, IO.iodata_to_binary(sql), timeout(session, opts))
  end

  @doc "`prepare/3` that raises."
  @spec prepare!(conn, iodata, keyword) :: Query.t()
  def prepare!(conn, sql, opts \\ []), do: ok!(prepare(conn, sql, opts))

  @doc """
  Runs a prepared statement. The query that comes back is the one to go on with: it is another one when the statement
  had to be prepared again, after a reconnect or because its columns have changed.
  """
  @spec execute(conn, Query.t(), [term], keyword) ::
          {:ok, Query.t(), Result.t()} | {:error, error}
  def execute(conn, %Query{} = query, params, opts \\ []) do
    session = Session.fetch(conn)

    Events.query(session.pid, query.statement, opts, fn ->
      session |> Statements.execute(query, params, timeout(session, opts)) |> look_at(session)
    end)
  end

  @doc "`execute/4` that raises, and returns the result only."
  @spec execute!(conn, Query.t(), [term], keyword) :: Result.t()
  def execute!(conn, query, params, opts \\ []) do
    case execute(conn, query, params, opts) do
      {:ok, _query, result} -> result
      {:error, error} -> raise error
    end
  end

  @doc "Closes a prepared statement. That it is not there any more is no error."
  @spec close(conn, Query.t(), keyword) :: :ok | {:error, error}
  def close(conn, %Query{} = query, opts \\ []) do
    session = Session.fetch(conn)
    Statements.close(session, query, timeout(session, opts))
  end

  @doc """
  Runs statements in one round trip (and one before it, for those that are run for the first time). Each is SQL, or
  `{sql, params}`, or `{query, params}`.

  Statements with parameters are described first, and so cannot need what an earlier one of the same pipeline makes;
  those without parameters may.

  They are one transaction: `{:ok, results}`, or an error, whose `:step` says which one it was (nil: all
  could be run, but not committed), and nothing is done.
  (Inside `transaction/3`, that has failed then.) With `transaction: false`, each is one by itself, and the result is
  `{:ok, list}` of `{:ok, result}` and `{:error, error}`.
  """
  @spec pipeline(conn, [String.t() | {String.t() | Query.t(), [term]}], keyword) ::
          {:ok, [Result.t()] | [{:ok, Result.t()} | {:error, error}]} | {:error, error}
  def pipeline(conn, statements, opts \\ []) do
    CallOptions.check!(opts, [:transaction])
    session = Session.fetch(conn)
    session |> Pipeline.run(statements, opts) |> look_at(session)
  end

  # ---- transactions ----

  @doc """
  Runs a function in a transaction: `{:ok, what it returned}`. It is given the connection to use inside.

      Causeway.Postgres.transaction(Db, fn tx ->
        Causeway.Postgres.query!(tx, "UPDATE accounts SET amount = amount - $2 WHERE id = $1", [1, 5])
        Causeway.Postgres.query!(tx, "UPDATE accounts SET amount = amount + $2 WHERE id = $1", [2, 5])
      end)

  When it raises, throws or exits, the transaction is rolled back, and the caller sees that; after `rollback/2` the result
  is `{:error, reason}`; so it is, with an `Error`, when it cannot be committed. After a statement has failed, nothing can be
  committed; but a transaction inside this one is a savepoint, and what fails there undoes no more than that.

  Others wait for the connection until it ends. When the process dies, it is rolled back. A statement that begins or ends
  a transaction by itself is refused, after it was run: outside, what it began is rolled back; inside, the transaction has
  ended with it.

  Options: `:timeout` of the statements that begin and end it; `:isolation` (`:serializable`, `:repeatable_read`,
  `:read_committed`), `:read_only`, `:deferrable`.
  """
  @spec transaction(conn, (conn -> result), keyword) :: {:ok, result} | {:error, term}
        when result: term
  def transaction(conn, fun, opts \\ []) when is_function(fun, 1) do
    CallOptions.check!(Keyword.take(opts, [:timeout]))
    conn |> Session.fetch() |> Transaction.run(fun, opts)
  end

  @doc "Leaves the function of `transaction/3`, of which nothing is committed."
  @spec rollback(conn, term) :: no_return
  def rollback(%Session{} = tx, reason), do: Transaction.rollback(tx, reason)

  # ---- streams ----

  @doc """
  The rows of a statement, read from the server as they are consumed: a stream of results, whose `:rows` are a piece
  each. It raises when something goes wrong.

      Db |> Causeway.Postgres.stream("SELECT * FROM events") |> Stream.flat_map(& &1.rows) |> Enum.each(&handle/1)

  Nothing else can run on the connection until it ends. Whoever stops before the end cancels the statement; a
  transaction goes on. (If the statement does more than read, that may be done or not.)

  Options: `:max_rows` of a piece, 500 by default; a piece has about 64 kB at most. `:timeout` for all of it,
  `:infinity` by default.
  """
  @spec stream(conn, iodata | Query.t(), [term], keyword) :: Enumerable.t()
  def stream(conn, statement, params \\ [], opts \\ [])

  def stream(conn, statement, params, opts) do
    CallOptions.check!(opts, [:max_rows])
    statement = with sql when not is_struct(sql) <- statement, do: IO.iodata_to_binary(sql)
    Streaming.rows(Session.fetch(conn), statement, params, opts)
  end

  @doc """
  The data of a `COPY ... TO STDOUT` as a stream of binaries of about 64 kB, each of whole rows. As `stream/4` otherwise.
  """
  @spec copy_out(conn, iodata, keyword) :: Enumerable.t()
  def copy_out(conn, sql, opts \\ []) do
    CallOptions.check!(opts)
    Streaming.copy(Session.fetch(conn), IO.iodata_to_binary(sql), opts)
  end

  @doc """
  Copies an enumerable of iodata into a table with a `COPY ... FROM STDIN`; returns how many rows there were. When the
  enumerable raises, nothing is copied.

      Causeway.Postgres.copy_in(Db, "COPY people FROM STDIN (FORMAT csv)", File.stream!("people.csv"))

  That the server refuses a row is known at the end. Options: `:timeout`, `:infinity` by default.
  """
  @spec copy_in(conn, iodata, Enumerable.t(), keyword) :: {:ok, non_neg_integer} | {:error, error}
  def copy_in(conn, sql, data, opts \\ []) do
    CallOptions.check!(opts)
    timeout = Keyword.get(opts, :timeout, :infinity)
    CopyIn.run(Session.fetch(conn), IO.iodata_to_binary(sql), data, timeout)
  end

  @doc """
  Something to collect iodata into, as `copy_in/4` does: `Enum.into(data, Causeway.Postgres.copy(Db, "COPY t FROM STDIN"))`.
  It raises when something goes wrong.
  """
  @spec copy(conn, iodata, keyword) :: Copy.t()
  def copy(conn, sql, opts \\ []) do
    CallOptions.check!(opts)
    %Copy{conn: conn, sql: IO.iodata_to_binary(sql), opts: opts}
  end

  # ---- notifications ----

  @doc """
  Has the caller receive `{:notification, pid, ref, channel, payload}` for each NOTIFY on a channel, until `unlisten/2` or
  its end. It listens across reconnects; notifications may be lost between two connections, and with `gaps: true` the
  caller receives `{:notification_gap, pid, ref, channel}` then.

  While the connection is busy, notifications come when that ends or with what it reads. Inside `transaction/3` this is
  refused, as it would be undone with the transaction.
  """
  @spec listen(conn, String.t(), keyword) :: {:ok, reference} | {:error, error}
  def listen(conn, channel, opts \\ []) do
    CallOptions.check!(opts, [:gaps])
    Listeners.check!(channel)
    conn |> Session.fetch() |> do_listen(channel, opts)
  end

  defp do_listen(%Session{lock: lock}, _channel, _opts) when lock != nil do
    message = "listen/3 inside transaction/3 would be undone when that is rolled back"
    {:error, Error.server(:refused, message: message)}
  end

  defp do_listen(session, channel, opts) do
    ref = GenServer.call(session.pid, {:listen, self(), channel, Keyword.get(opts, :gaps, false)})

    case query(session, "LISTEN #{Protocol.quoted(channel)}", [], Keyword.take(opts, [:timeout])) do
      {:ok, _} ->
        {:ok, ref}

      {:error, error} ->
        unlisten(session, ref)
        {:error, error}
    end
  end

  @doc "Ends what `listen/3` began. What is in the mailbox stays there."
  @spec unlisten(conn, reference) :: :ok
  def unlisten(conn, ref), do: GenServer.call(Session.fetch(conn).pid, {:unlisten, ref})

  @doc "Notifies those who listen on a channel."
  @spec notify(conn, String.t(), String.t(), keyword) :: :ok | {:error, error}
  def notify(conn, channel, payload \\ "", opts \\ []) do
    with {:ok, _} <- query(conn, "SELECT pg_catalog.pg_notify($1, $2)", [channel, payload], opts),
         do: :ok
  end

  # ----

  defp timeout(session, []), do: session.timeout

  defp timeout(session, opts) do
    CallOptions.check!(opts)
    Keyword.get(opts, :timeout, session.timeout)
  end

  # Some errors say that this is the wrong server to be connected to.
  defp look_at(
         {:error, %Error{postgres: %{code: code}}} = result,
         %{disconnect_on: [_ | _] = codes} = session
       ) do
    if code in codes, do: send(session.pid, {:causeway_disconnect, "the server said #{code}"})
    result
  end

  defp look_at(result, _session), do: result

  defp ok!({:ok, value}), do: value
  defp ok!({:error, error}), do: raise(error)
end
