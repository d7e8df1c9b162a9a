defmodule Causeway.WalCase do
  @moduledoc false
  # Tests of consumers of the write-ahead log: a database on the shared cluster, or a cluster of the test's own, and a
  # handler that tells the test what it gets.
  #
  #     wal = start_wal!(context, slot: "s")
  #     sql!(context, "insert into t values (1)")
  #     assert [{:insert, "t", %{"id" => 1}}] = changes(next())
  use ExUnit.CaseTemplate

  alias Causeway.Postgres.WAL
  alias Causeway.PostgresServer

  using do
    quote do
      import Causeway.Eventually
      import Causeway.WalCase
      alias Causeway.{PostgresServer, StallProxy}
      alias Causeway.Postgres.{LSN, WAL}
      alias Causeway.Postgres.WAL.{Change, Message, Relation, Transaction, Truncate}

      @moduletag :postgres
    end
  end

  defmodule Teller do
    @moduledoc false
    # Tells a process; what it answers with, that process has said, or `:ack`.
    use WAL.Handler

    @impl true
    def init(%{lsn: lsn} = state), do: {:ok, state, lsn}
    def init(state), do: {:ok, state}

    @impl true
    def handle_transaction(transaction, state) do
      send(state.to, {:transaction, transaction})
      answer(state[:answer], transaction, state)
    end

    @impl true
    def handle_message(message, state) do
      send(state.to, {:message, message})
      answer(state[:answer], message, state)
    end

    @impl true
    def handle_event(event, state) do
      send(state.to, {:event, event})
      {:ok, state}
    end

    @impl true
    def handle_snapshot(snapshot, state) do
      send(state.to, {:snapshot, snapshot, self()})
      receive do: ({:snapshot, result} -> result)
    end

    defp answer(nil, _what, state), do: {:ack, state}
    defp answer(answer, _what, state) when is_atom(answer), do: {answer, state}
    defp answer(answer, what, state), do: answer.(what, state)
  end

  @doc "A database on the shared cluster, for `setup`: its slots go when the test has ended."
  def database(_context) do
    options = PostgresServer.database!()
    server = PostgresServer.shared()
    ExUnit.Callbacks.on_exit(fn -> drop_slots(server, options[:database]) end)
    {:ok, server: server, options: options, database: options[:database]}
  end

  @doc "A cluster of the test's own."
  def cluster(settings \\ []) do
    server = PostgresServer.start!(settings: settings)

    %{server: server, options: PostgresServer.options(server), database: "postgres"}
  end

  @doc "Ends what uses the slots of a database, and drops them."
  def drop_slots(server, database) do
    PostgresServer.psql!(server, """
    select pg_terminate_backend(active_pid) from pg_replication_slots
      where database = '#{database}' and active_pid is not null
    """)

    PostgresServer.psql!(server, """
    select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = '#{database}' and not active
    """)
  end

  def sql!(context, sql),
    do: String.trim(PostgresServer.psql!(context.server, sql, context.database))

  @doc "A name for a slot, which is the cluster's and not the database's."
  def slot_name(context), do: "s_#{context.database}"

  @doc """
  Starts a consumer of all tables, and waits until it streams. `:answer` is what the handler returns: `:ack`, `:noack`, or a
  function of what it got and its state.
  """
  def start_wal!(context, opts \\ []) do
    wal = start_wal(context, opts)
    receive_event(:connected)
    wal
  end

  @doc "Likewise, without waiting."
  def start_wal(context, opts \\ []) do
    child = {WAL, wal_options(context, opts)}
    spec = Supervisor.child_spec(child, restart: :temporary, id: make_ref())
    ExUnit.Callbacks.start_supervised!(spec)
  end

  def wal_options(context, opts) do
    {handler, opts} = Keyword.split(opts, [:answer, :lsn])
    handler = {Teller, Map.new([to: self()] ++ handler)}

    defaults = [
      connection: context.options,
      slot: slot_name(context),
      publication: "p",
      create_publication: [],
      handler: handler,
      backoff_min: 50,
      backoff_max: 300
    ]

    Keyword.merge(defaults, opts)
  end

  @doc "Ends it as a supervisor would."
  def stop_wal(wal), do: WAL.stop(wal)

  @doc "The next transaction."
  def next(ms \\ 10_000) do
    receive do
      {:transaction, transaction} -> transaction
    after
      ms -> raise ExUnit.AssertionError, message: "no transaction came: #{mailbox()}"
    end
  end

  @doc "That no transaction comes."
  def nothing(ms \\ 300) do
    receive do
      {:transaction, transaction} ->
        raise ExUnit.AssertionError, message: "unexpected: #{inspect(transaction)}"
    after
      ms -> :ok
    end
  end

  @doc "Waits for an event of this name, and returns what it says. Others before it are dropped."
  def receive_event(name, ms \\ 10_000) do
    receive do
      {:event, {^name, about}} -> about
    after
      ms -> raise ExUnit.AssertionError, message: "no event #{inspect(name)} came: #{mailbox()}"
    end
  end

  defp mailbox, do: inspect(elem(Process.info(self(), :messages), 1), limit: 20)

  @doc "What a transaction has changed, in short: `{op, table, row}`, of an update `{:update, table, key or old, new}`."
  def changes(%{changes: changes}), do: Enum.map(changes, &change/1)

  defp change(%WAL.Change{op: :insert} = c), do: {:insert, c.relation.table, c.new}
  defp change(%WAL.Change{op: :delete} = c), do: {:delete, c.relation.table, c.key || c.old}

  defp change(%WAL.Change{op: :update} = c),
    do: {:update, c.relation.table, c.key || c.old, c.new}

  defp change(%WAL.Truncate{} = c), do: {:truncate, Enum.map(c.relations, & &1.table)}
  defp change(%WAL.Message{} = m), do: {:message, m.prefix, m.content}

  @doc "What the server has of the slot."
  def slot(context) do
    sql = """
    select confirmed_flush_lsn, active, restart_lsn from pg_replication_slots
    where slot_name = '#{slot_name(context)}'
    """

    case String.split(sql!(context, sql), "|") do
      [confirmed, active, restart] ->
        %{
          confirmed: Causeway.Postgres.LSN.parse!(confirmed),
          active: active == "t",
          restart: restart
        }

      [""] ->
        nil
    end
  end

  @doc "The process of the server that serves the consumer."
  def walsender(context) do
    [pid] =
      PostgresServer.backends(
        context.server,
        "backend_type = 'walsender' and datname = '#{context.database}'"
      )

    pid
  end
end
