defmodule Causeway.Postgres.WALFaultTest do
  # Faults at random instants under a load that does not stop, and an oracle: what was delivered has to be, transaction by
  # transaction, what the tables hold in the end.
  #
  # CAUSEWAY_FAULTS is how many faults each test makes (8); `make soak` makes more.
  use ExUnit.Case, async: false

  import Causeway.{Eventually, Property}
  alias Causeway.{PostgresLoad, PostgresReplica, PostgresServer, StallProxy}
  alias Causeway.Postgres.{LSN, WAL}

  @moduletag :postgres
  @moduletag timeout: :infinity
  @faults String.to_integer(System.get_env("CAUSEWAY_FAULTS") || "8")
  @wait 60_000

  # What is killed is reported at length.
  setup_all do: Causeway.Silence.logger()

  setup do
    seed = ExUnit.configuration()[:seed]
    :rand.seed(:exsss, {seed, @faults, 4})
    # What is paused for longer is gone for the server, and for the port program.
    server = PostgresServer.start!(settings: [wal_sender_timeout: "2s"])
    PostgresLoad.create!(server, "postgres")
    {:ok, server: server}
  end

  # A supervisor as an application has one, which a consumer that is killed does not take along.
  defp start_consumer(server, copy, opts \\ []) do
    {port, opts} = Keyword.pop(opts, :port, server.port)

    options =
      [
        connection: PostgresServer.options(server, port: port, connect_timeout: 5_000),
        slot: "faults",
        publication: "faults",
        create_publication: [tables: ["events", "totals"]],
        handler: {PostgresReplica, copy},
        name: __MODULE__.Consumer,
        backoff_min: 20,
        backoff_max: 500
      ]
      |> Keyword.merge(opts)

    supervisor =
      start_supervised!(%{
        id: :consumer,
        type: :supervisor,
        start:
          {Supervisor, :start_link,
           [[{WAL, options}], [strategy: :one_for_one, max_restarts: 1_000_000, max_seconds: 1]]}
      })

    streaming()
    supervisor
  end

  # It may be restarting.
  defp info do
    WAL.info(__MODULE__.Consumer)
  catch
    :exit, _ -> %{status: :dead, confirmed_lsn: 0, connects: 0}
  end

  defp streaming, do: eventually(fn -> info().status == :streaming end, @wait)

  defp port_programs do
    for port <- Port.list(),
        {:name, name} <- [Port.info(port, :name)],
        Path.basename(to_string(name)) =~ "causeway_port",
        {:os_pid, pid} <- [Port.info(port, :os_pid)],
        do: pid
  end

  # ---- faults ----

  @faults_of_all [
    :port_killed,
    :port_paused,
    :walsender_ended,
    :consumer_killed,
    :server_restarted,
    :server_crashed,
    :walsender_killed,
    :server_paused,
    :cut,
    :stalled,
    :refused
  ]

  defp fault(:port_killed, _), do: PostgresServer.signal(port_programs(), "KILL")

  defp fault(:port_paused, _) do
    pids = port_programs()
    PostgresServer.signal(pids, "STOP")
    Process.sleep(one_of([50, 500, 3_000]))
    PostgresServer.signal(pids, "CONT")
  end

  # The server may be on its way up.
  defp fault(:walsender_ended, %{server: server}) do
    PostgresServer.psql!(server, "select pg_terminate_backend(pid) from pg_stat_replication")
  rescue
    RuntimeError -> :ok
  end

  # The server takes this for a crash, and restarts all of itself.
  defp fault(:walsender_killed, %{server: server}) do
    server
    |> PostgresServer.backends("backend_type = 'walsender'")
    |> PostgresServer.signal("KILL")

    eventually(fn -> up?(server) end, @wait)
  rescue
    RuntimeError -> :ok
  end

  # The handler, and with it the consumer. The other way round there may be two handlers for a moment, one of which is
  # at its last transaction, and this copy is no database to keep them apart.
  defp fault(:consumer_killed, %{copy: copy}),
    do: copy |> PostgresReplica.handler() |> Process.exit(:kill)

  defp fault(:server_restarted, %{server: server}),
    do: PostgresServer.restart!(server, one_of(["fast", "immediate"]))

  defp fault(:server_crashed, %{server: server}) do
    PostgresServer.kill!(server)
    Process.sleep(below(300))
    PostgresServer.start_again(server)
  end

  defp fault(:server_paused, %{server: server}) do
    PostgresServer.pause!(server)
    Process.sleep(one_of([50, 500, 3_000]))
    PostgresServer.resume!(server)
  end

  defp fault(:cut, %{proxy: proxy}), do: StallProxy.cut(proxy)

  defp fault(:stalled, %{proxy: proxy}) do
    StallProxy.stall(proxy)
    Process.sleep(one_of([50, 500, 5_000]))
    StallProxy.resume(proxy)
  end

  defp fault(:refused, %{proxy: proxy}) do
    StallProxy.refuse(proxy)
    StallProxy.cut(proxy)
    Process.sleep(below(500))
    StallProxy.accept(proxy)
  end

  defp up?(server) do
    PostgresServer.psql!(server, "select 1") == "1\n"
  rescue
    RuntimeError -> false
  end

  # ---- the oracle ----

  # Ends the load, lets the consumer have everything, and compares.
  defp compare(server, copy, load, faults) do
    PostgresLoad.stop!(load)
    explain = "after #{inspect(faults)}, seed #{ExUnit.configuration()[:seed]}"
    catch_up(server, copy, explain)
    same(PostgresReplica.problems(copy), [], explain)
    held = PostgresLoad.tables(server, "postgres")
    delivered = PostgresReplica.contents(copy)
    same(delivered.totals, held.totals, explain)
    same(Map.to_list(delivered.events) -- Map.to_list(held.events), [], explain)
    same(Map.to_list(held.events) -- Map.to_list(delivered.events), [], explain)
    assert map_size(held.events) > 0
  end

  defp same(same, same, _), do: :ok

  defp same(ours, theirs, explain) do
    shown = inspect({ours, theirs}, limit: 20, printable_limit: 200, pretty: true)
    flunk("#{explain}\n#{String.slice(shown, 0, 5_000)}")
  end

  defp catch_up(server, copy, explain) do
    target =
      server
      |> PostgresServer.psql!("select pg_current_wal_insert_lsn()")
      |> String.trim()
      |> LSN.parse!()

    try do
      eventually(fn -> caught_up?(target) end, @wait)
    rescue
      ExUnit.AssertionError ->
        flunk("""
        not caught up #{explain}
        the server is at #{target}, the copy at #{PostgresReplica.lsn(copy)}
        #{inspect(info())}
        #{inspect(Enum.take(PostgresReplica.problems(copy), -3))}
        #{inspect(PostgresReplica.counts(copy))}
        """)
    end
  end

  defp caught_up?(target) do
    info = info()
    info.status == :streaming and info.confirmed_lsn >= target
  end

  # `before` is waited for before the end.
  defp run(server, copy, kinds, context, before \\ fn -> :ok end) do
    context = Map.put(context, :copy, copy)
    load = PostgresLoad.start!(server, "postgres")

    faults =
      for _ <- 1..@faults do
        Process.sleep(below(600))
        kind = one_of(kinds)
        fault(kind, context)
        kind
      end

    before.()
    compare(server, copy, load, faults)
  end

  test "whatever is killed, stopped or restarted, nothing is missed and nothing comes twice", %{
    server: server
  } do
    {:ok, proxy} =
      start_supervised(%{id: :proxy, start: {StallProxy, :start_link, [server.port]}})

    copy = PostgresReplica.new()
    start_consumer(server, copy, port: StallProxy.port(proxy))
    run(server, copy, @faults_of_all, %{server: server, proxy: proxy})
  end

  test "while a handler lives, it is given no transaction twice", %{server: server} do
    copy = PostgresReplica.new(trust: true)
    start_consumer(server, copy)
    kinds = [:port_killed, :port_paused, :walsender_ended, :server_restarted, :server_crashed]
    run(server, copy, kinds, %{server: server})
    assert PostgresReplica.counts(copy).repeated == 0
  end

  test "a handler that keeps no position misses nothing when it is killed", %{server: server} do
    copy = PostgresReplica.new(trust: true)
    start_consumer(server, copy)
    run(server, copy, [:consumer_killed, :port_killed, :server_crashed], %{server: server})
  end

  test "a connection that is dead without a word is given up", %{server: server} do
    {:ok, proxy} =
      start_supervised(%{id: :proxy, start: {StallProxy, :start_link, [server.port]}})

    copy = PostgresReplica.new()
    start_consumer(server, copy, port: StallProxy.port(proxy), silence_timeout: 3_000)
    load = PostgresLoad.start!(server, "postgres", rate: 200)
    Process.sleep(500)
    StallProxy.forget(proxy)
    eventually(fn -> info().connects > 1 end, @wait)
    compare(server, copy, load, [:forgotten])
  end

  test "large transactions are streamed, spilled and come in parts, and are begun again", %{
    server: server
  } do
    PostgresServer.configure!(server, logical_decoding_work_mem: "64kB")
    PostgresServer.reload!(server)
    copy = PostgresReplica.new()
    start_consumer(server, copy, max_transaction_bytes: 20_000, spool_bytes: 0)
    large = Task.async(fn -> large(server, 10) end)
    kinds = [:port_killed, :walsender_ended, :consumer_killed]
    run(server, copy, kinds, %{server: server}, fn -> Task.await(large, :infinity) end)
    assert PostgresReplica.counts(copy).parts > 0
  end

  # Transactions like those of the load, a thousand times as large; each in two steps, so that others come between.
  defp large(_server, 0), do: 1

  defp large(server, n) do
    insert =
      "insert into events (client, k, note) select 0, i, md5(i::text) from generate_series(1, 3000) i"

    update =
      "update totals set rows = rows + 6000, transactions = transactions + 1 where client = 0"

    try do
      PostgresServer.psql!(
        server,
        Enum.join(["begin", insert, "select pg_sleep(0.05)", insert, update, "commit"], "; ")
      )
    rescue
      RuntimeError -> :ok
    end

    large(server, n - 1)
  end

  test "a standby takes over, and nothing confirmed comes again", %{server: server} do
    # The slot is made anew there: only PostgreSQL 17 keeps it on standbys.
    standby = PostgresServer.standby!(server, slot: "standby")

    {:ok, proxy} =
      start_supervised(%{id: :proxy, start: {StallProxy, :start_link, [server.port]}})

    copy = PostgresReplica.new()
    start_consumer(server, copy, port: StallProxy.port(proxy), on_slot_lost: :recreate)
    load = PostgresLoad.start!(server, "postgres")
    Process.sleep(1_000)
    PostgresLoad.stop!(load)

    target =
      server
      |> PostgresServer.psql!("select pg_current_wal_insert_lsn()")
      |> String.trim()
      |> LSN.parse!()

    eventually(fn -> caught_up?(target) end, @wait)
    eventually(fn -> not behind?(standby, target) end, @wait)
    PostgresServer.kill!(server)
    PostgresServer.promote!(standby)
    StallProxy.target(proxy, standby.port)
    StallProxy.cut(proxy)

    eventually(
      fn -> Enum.any?(PostgresReplica.counts(copy).events, &match?({:gap, _}, &1)) end,
      @wait
    )

    streaming()
    load = PostgresLoad.start!(standby, "postgres")
    Process.sleep(500)
    compare(standby, copy, load, [:failover])
  end

  defp behind?(standby, target) do
    lsn =
      standby
      |> PostgresServer.psql!("select pg_last_wal_replay_lsn()")
      |> String.trim()
      |> LSN.parse!()

    lsn < target
  end

  test "what is connected anew many times leaves nothing in this VM", %{server: server} do
    copy = PostgresReplica.new()
    start_consumer(server, copy)

    again = fn ->
      %{connects: n} = info()
      PostgresServer.signal(port_programs(), "KILL")
      eventually(fn -> match?(%{status: :streaming, connects: m} when m > n, info()) end, @wait)
    end

    for _ <- 1..3, do: again.()
    before = held()
    for _ <- 1..(@faults * 2), do: again.()

    for {what, n} <- held(),
        do: assert(n <= before[what] + 2, "#{what}: #{before[what]}, then #{n}")
  end

  defp held do
    %{
      files: if(File.dir?("/proc/self/fd"), do: length(File.ls!("/proc/self/fd")), else: 0),
      ports: length(Port.list()),
      processes: length(Process.list()),
      tables: length(:ets.all())
    }
  end

  # ---- large ----

  # Counts what it is given, and keeps nothing.
  defmodule Counter do
    @moduledoc false
    use Causeway.Postgres.WAL.Handler

    @impl true
    def handle_transaction(transaction, counts) do
      ids = for %{op: :insert, new: %{"id" => id}} <- transaction.changes, do: id
      :counters.add(counts, 1, if(transaction.last, do: 1, else: 0))
      :counters.add(counts, 2, length(ids))
      :counters.add(counts, 3, Enum.sum(ids))
      {:ack, counts}
    end
  end

  @large if System.get_env("CAUSEWAY_LARGE"), do: nil, else: "takes minutes: CAUSEWAY_LARGE=1"

  @tag skip: @large
  test "a million transactions, and one of five million rows, in bounded memory", %{
    server: server
  } do
    counts = :counters.new(3, [])
    start_consumer(server, nil, handler: {Counter, counts})
    rows = 5_000_000
    transactions = 1_000_000

    PostgresServer.psql!(server, [
      "set synchronous_commit = off",
      """
      do $$ begin
        for i in 1 .. #{transactions} loop
          insert into events (client, k) values (1, i);
          commit;
        end loop;
      end $$
      """,
      "insert into events (client, k) select 2, i from generate_series(1, #{rows}) i"
    ])

    n = rows + transactions
    eventually(fn -> :counters.get(counts, 2) >= n end, 600_000)
    assert :counters.get(counts, 1) == transactions + 1
    assert :counters.get(counts, 2) == n
    assert :counters.get(counts, 3) == div(n * (n + 1), 2)
    [program] = port_programs()
    assert peak(program) < 300
  end

  # Megabytes.
  defp peak(os_pid) do
    [_, kb] = Regex.run(~r/VmHWM:\s+(\d+)/, File.read!("/proc/#{os_pid}/status"))
    div(String.to_integer(kb), 1_000)
  end
end
