defmodule Causeway.Postgres.SQLFaultTest do
  # Faults at random instants, while several connections write: what a call said has to be so.
  #
  # CAUSEWAY_FAULTS is how many there are (8), CAUSEWAY_CONNECTS how many connections are made one after another (60).
  # `make soak` makes more.
  use ExUnit.Case, async: false

  import Causeway.{Eventually, Property}
  import Causeway.PostgresCase
  alias Causeway.{Postgres, PostgresChild, PostgresServer, StallProxy}

  @moduletag :postgres
  @moduletag timeout: :infinity
  @faults String.to_integer(System.get_env("CAUSEWAY_FAULTS") || "8")
  @connects String.to_integer(System.get_env("CAUSEWAY_CONNECTS") || "60")
  @wait 60_000

  # What is killed is reported at length.
  setup_all do: Causeway.Silence.logger()

  setup do
    :rand.seed(:exsss, {ExUnit.configuration()[:seed], @faults, 5})
    :ok
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
  defp program(conn) do
    for {:os_pid, pid} <- :ets.lookup(Causeway.Postgres.Session.fetch(conn).table, :os_pid),
        do: pid
  end

  @kinds [
           :program_killed,
           :program_paused,
           :backends_ended,
           :statements_cancelled,
           :restarted,
           :crashed
         ] ++
           [:paused, :cut, :forgotten, :stalled]

  test "what a call said was done is there, and nothing that it said was not" do
    server = PostgresServer.start!()
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

  # ---- what is said of a backend that dies ----

  test "killed, nobody knows; ended by the server, it has done nothing" do
    server = PostgresServer.start!()
    conn = connect!(PostgresServer.options(server))
    killed = fn signal, run -> killed(server, conn, signal, run) end
    assert {:error, %{reason: :disconnected}} = killed.("KILL", &Postgres.query(conn, &1))

    assert {:error, %{reason: :disconnected}} =
             killed.("KILL", &Postgres.pipeline(conn, [&1, "select 2"]))

    assert {:error, %{reason: :server, postgres: %{code: :admin_shutdown}}} =
             killed.("TERM", &Postgres.query(conn, &1))

    assert {:error, %{reason: :server, step: 1, postgres: %{code: :admin_shutdown}}} =
             killed.("TERM", &Postgres.pipeline(conn, ["select 2", &1]))
  end

  defp killed(server, conn, signal, run) do
    # After a backend is killed, the server restarts all others.
    eventually(fn -> match?({:ok, _}, Postgres.query(conn, "select 1")) end, @wait)
    sql = "select pg_sleep(600) as sleeping"
    task = Task.async(fn -> run.(sql) end)

    pids = fn ->
      PostgresServer.backends(server, "query like '%sleeping' and state = 'active'")
    end

    pids |> until_there() |> PostgresServer.signal(signal)
    Task.await(task, @wait)
  end

  defp until_there(pids) do
    eventually(fn ->
      try do
        with [] <- pids.(), do: nil
      rescue
        RuntimeError -> nil
      end
    end)
  end

  # ---- nothing is left ----

  # How a VM ends, some of it in order.
  @deaths [
    {"idle", "KILL"},
    {"idle", "TERM"},
    {"in_query", "KILL"},
    {"in_query", "ABRT"},
    {"in_transaction", "QUIT"},
    {"in_stream", "KILL"},
    {"in_copy", "KILL"},
    {"following", "KILL"},
    {"following", "TERM"}
  ]

  test "no VM that dies leaves a process, here or at the server" do
    for result <- Task.async_stream(@deaths, &die/1, max_concurrency: 3, timeout: 60_000),
        do: assert(result == {:ok, :ok})
  end

  defp die({state, signal}) do
    options = PostgresServer.database!()
    {port, vm, program} = PostgresChild.start(state, child_options(state, options))
    assert alive?(program)
    assert backends(options) != []
    PostgresServer.signal(vm, signal)
    eventually(fn -> not alive?(program) end)
    eventually(fn -> backends(options) == [] end)
    assert_receive {^port, {:exit_status, _}}, 10_000
    if state == "following", do: drop_slots(options)
    :ok
  end

  defp child_options("following", options) do
    {options, slot: options[:database], publication: "all", create_publication: [tables: :all]}
  end

  defp child_options(_, options), do: options

  defp backends(options),
    do: PostgresServer.backends(PostgresServer.shared(), "datname = '#{options[:database]}'")

  defp drop_slots(options) do
    sql = "select pg_drop_replication_slot('#{options[:database]}')"
    PostgresServer.psql!(PostgresServer.shared(), sql)
  end

  test "nor one that dies while it connects to who does not answer" do
    {:ok, proxy} = start_supervised({StallProxy, PostgresServer.shared().port})
    StallProxy.stall(proxy)
    options = PostgresServer.options(PostgresServer.shared(), port: StallProxy.port(proxy))
    {_port, vm, program} = PostgresChild.start("connecting", options)
    assert alive?(program)
    PostgresServer.signal(vm, "KILL")
    eventually(fn -> not alive?(program) end)
  end

  test "a program that is stopped when its VM dies ends when it goes on" do
    options = PostgresServer.database!()
    {_port, vm, program} = PostgresChild.start("in_query", options)
    PostgresServer.signal(program, "STOP")
    PostgresServer.signal(vm, "KILL")
    Process.sleep(100)
    assert backends(options) != []
    PostgresServer.signal(program, "CONT")
    eventually(fn -> not alive?(program) end)
    eventually(fn -> backends(options) == [] end)
  end

  @tag skip: if(not File.dir?("/proc/self/fd"), do: "no /proc/self/fd")
  test "many connections, one after another, leave nothing in this VM" do
    options = PostgresServer.database!()
    # The first ones load code, and start what is shared.
    for _ <- 1..5, do: connect_once(options)
    eventually(fn -> backends(options) == [] end)
    before = held()
    for _ <- 1..@connects, do: connect_once(options)
    eventually(fn -> backends(options) == [] end)

    # Other tests' things come and go.
    eventually(fn ->
      Enum.all?(held(), fn {what, n} ->
        n <= before[what] + if(what == :atoms, do: 50, else: 2)
      end)
    end)
  end

  defp connect_once(options) do
    {:ok, conn} = Postgres.start_link([sync_connect: true] ++ options)
    assert one!(conn, "select 1") == 1
    GenServer.stop(conn)
  end

  defp held do
    %{
      files: length(File.ls!("/proc/self/fd")),
      children: children(),
      ports: length(Port.list()),
      tables: length(:ets.all()),
      atoms: :erlang.system_info(:atom_count)
    }
  end

  # Of the process that starts ports for the VM, zombies too.
  defp children do
    parents = for {pid, parent} <- processes(), parent == System.pid(), do: pid
    Enum.count(processes(), fn {_, parent} -> parent in parents end)
  end

  defp processes do
    for "/proc/" <> _ = file <- Path.wildcard("/proc/[0-9]*/stat"),
        {:ok, stat} <- [File.read(file)],
        [pid | _] = String.split(stat),
        [_state, parent | _] = stat |> String.split(") ") |> List.last() |> String.split(),
        do: {pid, parent}
  end
end
