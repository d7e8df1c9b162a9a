defmodule Causeway.LogFaultTest do
  # Nodes publish and read while nodes, connections, walsenders and the server are killed. CAUSEWAY_FAULTS says how often,
  # CAUSEWAY_MESSAGES how many messages there are at least, CAUSEWAY_SEED repeats a run's choices.
  use Causeway.LogCase, async: false
  alias Causeway.{Cluster, LogChecker, LogLedger, Preload, Privileges, WallClock}

  @moduletag :capture_log
  @moduletag timeout: 7_200_000
  @publishers 4
  # For what takes a moment, and for what may have to read all.
  @soon 60_000
  @long 600_000

  @clock Preload.build("wall_clock")
  @faults [:walsender, :backends, :some_backends, :port_program, :node, :server, :restart]

  test "whatever is killed" do
    faults = setting("CAUSEWAY_FAULTS", 6)
    seed = setting("CAUSEWAY_SEED", :rand.uniform(1_000_000))
    # By default, what comes in the meantime.
    messages = setting("CAUSEWAY_MESSAGES", 0)
    :rand.seed(:exsss, {seed, 1, 2})
    Cluster.distribute!()
    server = PostgresServer.start!(settings: [wal_sender_timeout: "5s"])
    {:ok, ledger} = LogLedger.start_link()
    run = %{server: server, ledger: ledger, seed: seed, next: 1, nodes: %{}, killed: []}
    run = Enum.reduce(["one", "two", "three"], run, &start_node(&2, &1, :beginning))
    wait!(run, "there are messages", @soon, fn -> LogLedger.count(ledger) > 0 end)

    run =
      Enum.reduce(1..faults, run, fn n, run ->
        Process.sleep(200 + :rand.uniform(500))
        wanted = div(messages * n, faults)

        wait!(run, "#{wanted} messages after #{n - 1} faults", @long, fn ->
          wrong!(run)
          LogLedger.count(ledger) >= wanted
        end)

        fault(Enum.random(@faults), run)
      end)

    Process.sleep(1_000)
    finish(run)
  end

  # As the VM takes it by default. One that has been told not to correct time, `+c false`, lets its timers leap with the
  # clock, and calls time out.
  @tag skip: Privileges.skip(@clock)
  test "a node's clock is set back and forward" do
    Cluster.distribute!()
    server = PostgresServer.start!()
    {:ok, ledger} = LogLedger.start_link()
    file = Path.join(server.dir, "clock")
    WallClock.set(file, 0)

    {peer, _} =
      node = WallClock.start(Cluster.unique("clock"), Preload.path!(@clock), file, false)

    on_exit(fn -> if Process.alive?(peer), do: :peer.stop(peer) end)
    run = %{server: server, ledger: ledger, seed: 1, next: 1, nodes: %{}, killed: []}
    run = start_checker(run, "one", node, :beginning)

    for hours <- [-48, 1, 1000, 0] do
      WallClock.set(file, hours * 3600)
      there = Cluster.on(node, System, :os_time, [:second])
      assert_in_delta there, System.os_time(:second) + hours * 3600, 5
      wanted = LogLedger.count(ledger) + 500

      wait!(run, "messages with a clock that is #{hours} hours off", @soon, fn ->
        wrong!(run)
        LogLedger.count(ledger) >= wanted
      end)
    end

    counts = finish(run)
    assert counts.unknown == 0, inspect(LogLedger.why(ledger))
  end

  defp setting(name, default), do: String.to_integer(System.get_env(name) || "#{default}")

  defp start_node(run, name, from) do
    start_checker(run, name, Cluster.start_node("log_#{name}"), from)
  end

  defp start_checker(run, name, node, from) do
    true = Cluster.on(node, :net_kernel, :connect_node, [Node.self()])
    publishers = Enum.to_list(run.next..(run.next + @publishers - 1))

    about = %{
      options: PostgresServer.options(run.server, timeout: 10_000),
      ledger: Node.self(),
      reader: name,
      from: from,
      publishers: publishers,
      seed: run.seed
    }

    :ok = Cluster.on(node, LogChecker, :start, [about])
    nodes = Map.put(run.nodes, name, {node, publishers})
    %{run | nodes: nodes, next: run.next + @publishers}
  end

  # ---- faults ----

  defp fault(:walsender, run) do
    run.server
    |> PostgresServer.backends("backend_type = 'walsender'")
    |> Enum.take_random(1)
    |> PostgresServer.signal("TERM")

    run
  end

  defp fault(:backends, run) do
    PostgresServer.signal(PostgresServer.backends(run.server), "TERM")
    run
  end

  defp fault(:some_backends, run) do
    run.server
    |> PostgresServer.backends()
    |> Enum.take_random(5)
    |> PostgresServer.signal("TERM")

    run
  end

  # The children of a node that are ours.
  defp fault(:port_program, run) do
    {_, {node, _}} = Enum.random(run.nodes)
    {pids, _} = System.cmd("pgrep", ["-P", Cluster.os_pid(node), "causeway_port"])

    pids
    |> String.split()
    |> Enum.map(&String.to_integer/1)
    |> Enum.take_random(3)
    |> PostgresServer.signal("KILL")

    run
  end

  # The next reader goes on where this one last said that it was, or begins anew.
  defp fault(:node, run) do
    {name, {node, publishers}} = Enum.random(run.nodes)
    Cluster.kill(node)
    from = if :rand.uniform(4) == 1, do: :beginning, else: LogLedger.read(run.ledger, name)
    start_node(%{run | killed: publishers ++ run.killed}, name, from)
  end

  defp fault(:server, run) do
    PostgresServer.restart!(run.server, "immediate")
    run
  end

  defp fault(:restart, run) do
    PostgresServer.restart!(run.server, "fast")
    run
  end

  # ---- what must hold ----

  # All publishers end; all readers come to the end; all have read what is in the tables, and that is what publishers say.
  defp finish(run) do
    for {_, {node, _}} <- run.nodes, do: Cluster.on(node, LogChecker, :stop, [])
    alive = for {_, {_, publishers}} <- run.nodes, id <- publishers, do: id

    wait!(run, "the publishers end", @soon, fn ->
      wrong!(run)
      Enum.all?(alive, &(&1 in LogLedger.ended(run.ledger)))
    end)

    {:ok, conn} = Postgres.start_link(PostgresServer.options(run.server))
    settled!(run)
    ends = ends(conn)

    for {name, {node, _}} <- run.nodes do
      wait!(run, "the reader of #{name} comes to #{inspect(ends)}", @long, fn ->
        wrong!(run)
        numbers(Cluster.on(node, LogChecker, :at, [])) == ends
      end)
    end

    check!(run, conn, ends)
  end

  # Transactions of nodes that were killed have ended, and nothing is left in the outbox.
  defp settled!(run) do
    idle = "state like 'idle in transaction%'"
    PostgresServer.signal(PostgresServer.backends(run.server, idle), "TERM")
    working = "backend_type = 'client backend' and xact_start is not null"

    wait!(run, "no transaction is open", @soon, fn ->
      PostgresServer.backends(run.server, working) == []
    end)

    wait!(run, "nothing is left in the outbox", @soon, fn ->
      PostgresServer.psql!(run.server, "select count(*) from causeway.log_outbox") == "0\n"
    end)
  end

  defp ends(conn) do
    %{rows: rows} = Postgres.query!(conn, "SELECT partition, last FROM causeway.log_ends()")
    Map.new(rows, &List.to_tuple/1)
  end

  defp numbers(state) when is_map(state), do: Map.new(state, fn {p, {n, _}} -> {p, n} end)
  defp numbers(other), do: other

  defp check!(run, conn, ends) do
    assert {:ok, counts, there} = LogLedger.check(run.ledger, conn), "seed #{run.seed}"
    assert numbers(there) == ends

    for {name, {node, _}} <- run.nodes do
      assert Cluster.on(node, LogChecker, :at, []) == there,
             "seed #{run.seed}: #{name} has read something else than there is"
    end

    total = ends |> Map.values() |> Enum.sum()
    assert total > 100 and counts.acknowledged > 0 and counts.undone > 0, inspect(counts)
    IO.puts("\n#{total} messages; of those published #{inspect(counts)}; seed #{run.seed}")
    counts
  end

  defp wrong!(run) do
    case LogLedger.wrong(run.ledger) do
      [] -> :ok
      wrong -> flunk("seed #{run.seed}: #{inspect(wrong, limit: 50)}")
    end
  end

  # A wait in vain says where everybody is.
  defp wait!(run, what, ms, fun) do
    eventually(fun, ms, fn ->
      where =
        for {name, {node, _}} <- run.nodes,
            do:
              {name, Cluster.on(node, LogChecker, :at, []),
               Cluster.on(node, LogChecker, :where, [])}

      said = {LogLedger.ended(run.ledger), LogLedger.wrong(run.ledger)}
      activity = PostgresServer.psql!(run.server, "select * from pg_stat_activity")

      "#{what}, seed #{run.seed}: #{inspect({said, where}, limit: :infinity, pretty: true)}\n#{activity}"
    end)
  end
end
