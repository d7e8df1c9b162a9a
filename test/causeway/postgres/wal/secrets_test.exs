defmodule Causeway.Postgres.WAL.SecretsTest do
  # What must not be in logs, crash reports, states and errors: passwords, rows, the handler's argument and state.
  use Causeway.WalCase, async: false

  setup :database

  @password "secret-of-ours"
  @row "row-of-ours"
  @argument "argument-of-ours"

  defmodule Crasher do
    @moduledoc false
    use WAL.Handler

    @impl true
    def init({_, :no_init, _, _} = argument), do: apply(__MODULE__, :refused, [argument])
    def init(argument), do: {:ok, argument}

    @impl true
    def handle_transaction(_, {_, :raise, _, _}), do: raise("crash of ours")

    def handle_transaction(transaction, {_, :no_clause, _, _}),
      do: apply(__MODULE__, :refused, [transaction])

    def handle_transaction(_, {_, :exit, _, _}), do: exit(:crash_of_ours)

    def handle_transaction(_, {_, :stop, _, _} = state), do: {:stop, :crash_of_ours, state}

    def handle_transaction(_, {_, :killed, wal, to} = state) do
      send(to, {:handling, self()})
      receive do: (:never -> {:ack, {state, wal}})
    end

    @impl true
    def handle_event(event, {_, _, _, to} = state) do
      send(to, {:event, event})
      {:ok, state}
    end

    # Called by apply: a compiler that infers types sees that no clause can match.
    def refused(:crash_of_ours), do: :ok
  end

  # All that is logged, as it is before anything formats it.
  def log(event, %{config: %{to: to}}),
    do: send(to, {:log, inspect(event, limit: :infinity, printable_limit: :infinity)})

  defp logged(text) do
    receive do
      {:log, more} -> logged(text <> more)
    after
      500 -> text
    end
  end

  setup do
    :ok = :logger.add_handler(__MODULE__, __MODULE__, %{config: %{to: self()}, level: :all})
    on_exit(fn -> :logger.remove_handler(__MODULE__) end)
  end

  defp start_crasher(context, how) do
    options = Keyword.put(context.options, :password, @password)
    handler = {Crasher, {@argument, how, nil, self()}}
    Process.flag(:trap_exit, true)
    WAL.start_link(wal_options(context, connection: options, handler: handler))
  end

  for how <- [:raise, :no_clause, :exit, :stop] do
    test "a handler that crashes: #{how}", context do
      {:ok, wal} = start_crasher(context, unquote(how))
      receive_event(:connected)

      sql!(context, "create table t (v text)")

      for _ <- 1..3, do: sql!(context, "insert into t values ('#{@row}')")

      assert_receive {:EXIT, ^wal, reason}, 10_000
      text = logged("") <> inspect(reason, limit: :infinity, printable_limit: :infinity)
      assert text =~ "of_ours" or text =~ "of ours" or text =~ "function_clause"
      clean(text)
    end
  end

  test "a handler that cannot begin", context do
    assert {:error, reason} = start_crasher(context, :no_init)
    clean(logged("") <> inspect(reason, limit: :infinity, printable_limit: :infinity))
  end

  test "a consumer that is killed", context do
    {:ok, wal} = start_crasher(context, :killed)
    sql!(context, "create table t (v text)")
    receive_event(:connected)
    sql!(context, "insert into t values ('#{@row}')")
    assert_receive {:handling, handler}, 10_000
    for _ <- 1..3, do: sql!(context, "insert into t values ('#{@row}')")
    Process.exit(handler, :kill)
    assert_receive {:EXIT, ^wal, :killed}, 10_000
    clean(logged(""))
  end

  test "what is asked of the processes", context do
    {:ok, wal} = start_crasher(context, :raise)
    receive_event(:connected)
    {:links, links} = Process.info(wal, :links)
    consumer = Enum.find(links, &(is_pid(&1) and &1 != self()))

    for pid <- [wal, consumer] do
      text = inspect(:sys.get_status(pid), limit: :infinity, printable_limit: :infinity)
      assert text =~ "Crasher"
      clean(text)
    end

    WAL.stop(wal)
  end

  # libpq repeats a part of what it cannot read.
  test "connection strings that are wrong", context do
    for url <- [
          "postgres://u:#{@password}@localhost:port/x",
          "postgres://u:#{@password}@[::1/x",
          "postgres://u:#{@password}%zz@localhost/x",
          "host=localhost password='#{@password}",
          "host=localhost port=1 password=#{@password}"
        ] do
      try do
        start_wal(context, connection: url)
        %{error: error} = receive_event(:disconnected)

        clean(Exception.message(error) <> inspect(error))
      rescue
        error in ArgumentError -> clean(Exception.message(error))
      end
    end

    clean(logged(""))
  end

  defp clean(text) do
    for secret <- [@password, @row, @argument], text =~ secret do
      [before, _] = String.split(text, secret, parts: 2)
      flunk("#{secret} is told after: #{inspect(String.slice(before, -300..-1//1))}")
    end
  end
end
