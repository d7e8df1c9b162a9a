defmodule Causeway.Postgres.SQLFaultTest do
  # Faults at random instants, while several connections write: what a call said has to be so.
  #
  # CAUSEWAY_FAULTS is how many there are (8), CAUSEWAY_CONNECTS how many connections are made one after another (200).
  # `make soak` makes more.
  use ExUnit.Case, async: false

  import Causeway.{Eventually, Property}
  import Causeway.PostgresCase
  alias Causeway.{Postgres, PostgresChild, PostgresServer, StallProxy}

  @moduletag :postgres
  @moduletag timeout: :infinity
  @faults String.to_integer(System.get_env("CAUSEWAY_FAULTS") || "8")
  @connects String.to_integer(System.get_env("CAUSEWAY_CONNECTS") || "200")
  @wait 60_000

  # What is killed is reported at length.
  setup_all do
    %{level: level} = :logger.get_primary_config()
    :logger.set_primary_config(:level, :none)
    on_exit(fn -> :logger.set_primary_config(:level, level) end)
  end

  setup do
    :rand.seed(:exsss, {ExUnit.configuration()[:seed], @faults, 5})
    {:ok, server: PostgresServer.start!()}
  end

  # ---- what was said is so ----

  @writers 3

  # Of each number that is written, what the call said.
  defp write(conn, writer, n, said) do
    receive do
      :stop -> said
    after
      0 -> write(conn, writer, n + 1, Map.put(said, n, insert(conn, writer, n)))
    end
  end

  defp insert(conn, writer, n) do
    case rem(n, 3) do
      0 -> alone(conn, [writer, n])
      1 -> in_transaction(conn, [writer, n])
      2 -> in_pipeline(conn, [writer, n])
    end
  end

  @insert "insert into written values ($1, $2)"
  @opts [timeout: 1_500]

  defp alone(conn, row), do: said(Postgres.query(conn, @insert, row, @opts))

  defp in_transaction(conn, row) do
    run = fn tx ->
      with {:error, error} <- Postgres.query(tx, @insert, row, @opts),
           do: Postgres.rollback(tx, error)
    end

    said(Postgres.transaction(conn, run, @opts))
  end

  defp in_pipeline(conn, row) do
    statements = ["select 1", {@insert, row}]
    said(Postgres.pipeline(conn, statements, @opts))
  end

  defp said({:ok, _}), do: :done
  defp said({:error, %Postgres.Error{reason: :disconnected}}), do: :unknown

  # There is nothing to do until it is back.
  defp said({:error, %Postgres.Error{reason: :not_connected}}) do
    Process.sleep(20)
    :not_done
  end

  defp said({:error, %Postgres.Error{reason: reason}})
       when reason in [
              :server,
              :timeout,
              :queue_timeout,
              :transaction_lost,
              :rolled_back,
              :aborted
            ],
       do: :not_done

  defp fault(:program_killed, %{conns: conns}),
    do: conns |> one_of() |> program() |> PostgresServer.signal("KILL")

  defp fault(:program_paused, %{conns: conns}) do
    pid = conns |> one_of() |> program()
    PostgresServer.signal(pid, "STOP")
    Process.sleep(one_of([50, 500, 2_500]))
    PostgresServer.signal(pid, "CONT")
  end

  defp fault(:backends_ended, %{server: server}) do
    PostgresServer.psql!(
      server,
      "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'causeway'"
    )
  end

  defp fault(:statements_cancelled, %{server: server}) do
    PostgresServer.psql!(
      server,
      "select pg_cancel_backend(pid) from pg_stat_activity where application_name = 'causeway'"
    )
  end

  defp fault(:restarted, %{server: server}),
    do: PostgresServer.restart!(server, one_of(["fast", "immediate"]))

  defp fault(:crashed, %{server: server}) do
    PostgresServer.kill!(server)
    Process.sleep(below(300))
    PostgresServer.start_again(server)
  end

  defp fault(:paused, %{server: server}) do
    PostgresServer.pause!(server)
    Process.sleep(one_of([50, 500, 2_500]))
    PostgresServer.resume!(server)
  end

  defp fault(:cut, %{proxy: proxy}), do: StallProxy.cut(proxy)
  defp fault(:forgotten, %{proxy: proxy}), do: StallProxy.forget(proxy)

  defp fault(:stalled, %{proxy: proxy}) do
    StallProxy.stall(proxy)
    Process.sleep(one_of([50, 500, 2_500]))
    StallProxy.resume(proxy)
  end

  # Between two connections there is none.
  defp program(conn), do: os_pid(conn)

  @kinds [
           :program_killed,
           :program_paused,
           :backends_ended,
           :statements_cancelled,
           :restarted,
           :crashed
         ] ++
           [:paused, :cut, :forgotten, :stalled]

  test "what a call said was done is there, and nothing that it said was not", %{server: server} do
    PostgresServer.psql!(server, "create table written (writer int, n int)")

    {:ok, proxy} =
      start_supervised(%{id: :proxy, start: {StallProxy, :start_link, [server.port]}})

    options = PostgresServer.options(server, port: StallProxy.port(proxy), connect_timeout: 2_000)
    conns = for _ <- 1..@writers, do: connect!(options, backoff_min: 20, backoff_max: 200)

    for conn <- conns,
        do: eventually(fn -> match?({:ok, _}, Postgres.query(conn, "select 1")) end)

    context = %{server: server, proxy: proxy, conns: conns}

    writers =
      for {conn, writer} <- Enum.with_index(conns),
          do: Task.async(fn -> write(conn, writer, 0, %{}) end)

    faults =
      for _ <- 1..@faults do
        Process.sleep(below(600))
        kind = one_of(@kinds)
        fault(kind, context)
        kind
      end

    # All of them work again.
    for conn <- conns,
        do: eventually(fn -> match?({:ok, _}, Postgres.query(conn, "select 1")) end, @wait)

    for writer <- writers, do: send(writer.pid, :stop)
    said = Task.await_many(writers, @wait)
    written = rows(server)
    explain = "after #{inspect(faults)}, seed #{ExUnit.configuration()[:seed]}"

    for {said, writer} <- Enum.with_index(said) do
      there = Map.get(written, writer, [])
      assert Enum.uniq(there) == there, explain
      there = MapSet.new(there)
      assert for({n, :done} <- said, n not in there, do: n) == [], explain
      assert for({n, :not_done} <- said, n in there, do: n) == [], explain
      assert MapSet.size(there) > 0
    end
  end

  defp rows(server) do
    for line <- server |> PostgresServer.psql!("select writer, n from written") |> String.split() do
      [writer, n] = line |> String.split("|") |> Enum.map(&String.to_integer/1)
      {writer, n}
    end
    |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
  end

  # ---- nothing is left ----

  # What erl does not survive, and what it ends by in order.
  @deaths [:kill, :abrt, :term, :quit]

  for {state, death} <-
        Enum.zip(~w(idle in_query in_transaction in_stream in_copy), Stream.cycle(@deaths)) do
    test "no orphan: a VM that dies of SIG#{death |> to_string() |> String.upcase()} while #{state}",
         %{server: server} do
      {port, vm, program, backend} =
        PostgresChild.start(unquote(state), PostgresServer.options(server))

      assert alive?(program)
      assert backend in PostgresServer.backends(server)
      PostgresServer.signal(vm, unquote(death |> to_string() |> String.upcase()))
      eventually(fn -> not alive?(program) end)
      eventually(fn -> backend not in PostgresServer.backends(server) end)
      assert_receive {^port, {:exit_status, _}}, 10_000
    end
  end

  test "no orphan: a VM that dies while it connects to who does not answer", %{server: server} do
    PostgresServer.pause!(server)
    {_port, vm, program, _} = PostgresChild.start("connecting", PostgresServer.options(server))
    assert alive?(program)
    PostgresServer.signal(vm, "KILL")
    eventually(fn -> not alive?(program) end)
    PostgresServer.resume!(server)
  end

  test "a program that is stopped when its VM dies ends when it goes on", %{server: server} do
    {_port, vm, program, backend} =
      PostgresChild.start("in_query", PostgresServer.options(server))

    PostgresServer.signal(program, "STOP")
    PostgresServer.signal(vm, "KILL")
    Process.sleep(100)
    PostgresServer.signal(program, "CONT")
    eventually(fn -> not alive?(program) end)
    eventually(fn -> backend not in PostgresServer.backends(server) end)
  end

  defp files, do: length(File.ls!("/proc/self/fd"))

  defp children,
    do:
      System.cmd("sh", [
        "-c",
        "grep -l \"^PPid:.$(cat /proc/$PPID/status | sed -n 's/^PPid:.//p')$\" /proc/[0-9]*/status 2>/dev/null | wc -l"
      ])
      |> elem(0)
      |> String.trim()
      |> String.to_integer()

  @tag skip: if(not File.dir?("/proc/self/fd"), do: "no /proc/self/fd")
  test "descriptors, processes, atoms and ETS tables stay as many over many connections", %{
    server: server
  } do
    options = PostgresServer.options(server, sync_connect: true)

    counts = fn ->
      %{
        files: files(),
        children: children(),
        ports: length(Port.list()),
        tables: length(:ets.all())
      }
    end

    # The first ones load code, and start what is shared.
    for _ <- 1..5, do: connect_once(options)
    eventually_idle(server)
    before = counts.()
    atoms = :erlang.system_info(:atom_count)
    for _ <- 1..@connects, do: connect_once(options)
    eventually_idle(server)
    now = counts.()

    for {what, n} <- now,
        do: assert(n <= before[what] + 2, "#{what}: #{before[what]} before, #{n} now")

    assert :erlang.system_info(:atom_count) < atoms + 50
  end

  defp connect_once(options) do
    {:ok, conn} = Postgres.start_link(options)
    assert one!(conn, "select 1") == 1
    GenServer.stop(conn)
  end

  defp eventually_idle(server), do: eventually(fn -> PostgresServer.backends(server) == [] end)
end
