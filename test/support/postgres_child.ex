defmodule Causeway.PostgresChild do
  @moduledoc false
  # A VM of its own with one connection in some state, to be killed. It says `ready`, its process and that of its port
  # program, and goes on until it dies.
  alias Causeway.{Postgres, PostgresCase}

  # ---- in the test ----

  @doc "Starts one: `{port, process of the VM, of the port program}`."
  def start(state, options) do
    own = for path <- :code.get_path(), not List.starts_with?(path, :code.lib_dir()), do: path
    paths = Enum.flat_map(own -- [~c"."], &["-pa", Path.expand(&1)])
    main = "'#{__MODULE__}':main()"
    options = options |> :erlang.term_to_binary() |> Base.encode64()

    # No crash dump, for it takes its time, and the script that starts Erlang complains when it is killed.
    args = ["-noshell"] ++ paths ++ ["-eval", main, "-extra", "#{state}", options]
    env = [{~c"ERL_CRASH_DUMP_BYTES", ~c"0"}]

    port =
      Port.open(
        {:spawn_executable, System.find_executable("sh")},
        [:binary, :exit_status, {:line, 1_000}, env: env, cd: System.tmp_dir!()] ++
          [args: ["-c", "exec \"$0\" \"$@\" 2>/dev/null", System.find_executable("erl") | args]]
      )

    receive do
      {^port, {:data, {:eol, "ready " <> numbers}}} ->
        [vm, program] = numbers |> String.split() |> Enum.map(&String.to_integer/1)
        {port, vm, program}

      {^port, other} ->
        raise "a VM did not start: #{inspect(other)}"
    after
      60_000 -> raise "a VM did not start in time"
    end
  end

  # ---- in the process ----

  def main do
    {:ok, _} = :application.ensure_all_started(:elixir)
    {:ok, _} = :application.ensure_all_started(:logger)
    :logger.set_primary_config(:level, :none)
    [state, options] = Enum.map(:init.get_plain_arguments(), &to_string/1)
    options = options |> Base.decode64!() |> :erlang.binary_to_term()
    be(state, options)
    Process.sleep(:infinity)
  end

  defp be("connecting", options) do
    spawn(fn ->
      {:ok, _} = Postgres.start_link(options)
      Process.sleep(:infinity)
    end)

    Process.sleep(300)
    ready(hd(programs()))
  end

  defp be("following", {connection, options}) do
    handler = {__MODULE__.Handler, self()}
    {:ok, _} = Postgres.WAL.start_link([connection: connection, handler: handler] ++ options)
    receive do: (:connected -> ready(hd(programs())))
  end

  defp be(state, options) do
    {:ok, conn} = Postgres.start_link(options)
    1 = PostgresCase.one!(conn, "select 1")
    spawn(fn -> occupy(state, conn) end)
    Process.sleep(200)
    ready(PostgresCase.os_pid(conn))
  end

  defp occupy("idle", _conn), do: :ok

  defp occupy("in_query", conn),
    do: Postgres.query(conn, "select pg_sleep(600)", [], timeout: :infinity)

  defp occupy("in_transaction", conn) do
    Postgres.transaction(conn, fn tx ->
      Postgres.query!(tx, "create temp table t (x int)")
      Process.sleep(:infinity)
    end)
  end

  # More than fits any buffer, and nobody takes it.
  defp occupy("in_stream", conn) do
    sql = "select repeat('x', 1000) from generate_series(1, 10000000)"
    for _ <- Postgres.stream(conn, sql), do: Process.sleep(:infinity)
  end

  defp occupy("in_copy", conn) do
    Postgres.query!(conn, "create temp table t (x text)")

    Postgres.copy_in(
      conn,
      "copy t from stdin",
      Stream.repeatedly(fn -> Process.sleep(1) && "line\n" end)
    )
  end

  defp ready(program), do: IO.puts("ready #{System.pid()} #{program}")

  defp programs do
    for port <- Port.list(),
        {:name, name} <- [Port.info(port, :name)],
        Path.basename(to_string(name)) =~ "causeway_port",
        {:os_pid, pid} <- [Port.info(port, :os_pid)],
        do: pid
  end

  defmodule Handler do
    @moduledoc false
    use Causeway.Postgres.WAL.Handler

    @impl true
    def handle_transaction(_, main), do: {:ack, main}

    @impl true
    def handle_event({:connected, _}, main) do
      send(main, :connected)
      {:ok, main}
    end

    def handle_event(_, main), do: {:ok, main}
  end
end
