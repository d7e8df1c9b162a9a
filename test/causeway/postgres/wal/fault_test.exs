defmodule Causeway.Postgres.WAL.FaultTest do
  # What happens to connections, slots and publications, on a cluster of these tests' own.
  use Causeway.WalCase, async: true

  # A program built with a sanitizer takes what it likes.
  @most_kb if System.get_env("CAUSEWAY_PORT"), do: 2_000_000, else: 60_000

  setup_all do
    server = PostgresServer.start!(settings: [wal_sender_timeout: "2s", max_wal_size: "64MB"])
    {:ok, server: server}
  end

  setup %{server: server} do
    options = PostgresServer.database!(server)
    context = %{server: server, options: options, database: options[:database]}
    sql!(context, "create table t (id int primary key, v text)")
    on_exit(fn -> drop_slots(server, options[:database]) end)
    {:ok, options: options, database: options[:database]}
  end

  defp insert!(context, id), do: sql!(context, "insert into t values (#{id})")
  defp id(%{changes: [%{new: %{"id" => id}}]}), do: id

  # ---- connections ----

  test "the port program is killed", context do
    wal = start_wal!(context)
    insert!(context, 1)
    assert id(next()) == 1
    PostgresServer.signal(WAL.info(wal).os_pid, "KILL")
    assert %{error: %{reason: {:ended, message}}, retry_ms: ms} = receive_event(:disconnected)
    assert message =~ "signal 9"
    assert ms in 1..300
    insert!(context, 2)
    receive_event(:connected)
    assert id(next()) == 2
    assert %{connects: 2, status: :streaming, error: nil} = WAL.info(wal)
  end

  test "the walsender is told to end", context do
    start_wal!(context)
    PostgresServer.signal(walsender(context), "TERM")
    assert %{error: error} = receive_event(:disconnected)
    assert Exception.message(error) =~ "terminating connection"
    receive_event(:connected)
    insert!(context, 1)
    assert id(next()) == 1
  end

  test "a handler that is slower than wal_sender_timeout keeps its connection", context do
    slow = fn transaction, state ->
      if id(transaction) == 1, do: Process.sleep(7_000)
      {:ack, state}
    end

    wal = start_wal!(context, answer: slow)
    for id <- 1..3, do: insert!(context, id)
    assert [1, 2, 3] = for(_ <- 1..3, do: id(next(15_000)))
    assert WAL.info(wal).connects == 1
    refute_received {:event, {:disconnected, _}}
  end

  test "a handler that takes nothing: the port program's memory is bounded, the connection stays",
       context do
    test = self()

    block = fn _transaction, state ->
      send(test, {:blocked, self()})
      receive do: (:go_on -> {:ack, Map.delete(state, :answer)})
    end

    wal = start_wal!(context, answer: block, values: :text, buffer_bytes: 0x10000)
    insert!(context, 1)
    assert_receive {:blocked, handler}, 5_000

    # 300 MB of changes; a part of that is streamed, the server keeps the rest.
    for i <- 1..30 do
      sql!(
        context,
        "insert into t select #{i} * 10000 + i, repeat(md5(i::text), 300) from generate_series(1, 1000) i"
      )
    end

    # Longer than the server would wait.
    Process.sleep(5_000)
    assert %{connects: 1, in_flight_bytes: bytes, os_pid: os_pid} = WAL.info(wal)
    assert bytes < 0x40000
    assert rss(os_pid) < @most_kb
    send(handler, :go_on)
    ids = for _ <- 1..31, do: next(60_000).changes |> length()
    assert Enum.sum(ids) == 30_001
    assert rss(os_pid) < @most_kb
    assert WAL.info(wal).connects == 1
  end

  defp rss(os_pid) do
    [[_, kb]] = Regex.scan(~r/VmRSS:\s+(\d+)/, File.read!("/proc/#{os_pid}/status"))
    String.to_integer(kb)
  end

  test "a network that swallows everything", context do
    {:ok, proxy} = StallProxy.start_link(context.options[:port])
    options = Keyword.put(context.options, :port, StallProxy.port(proxy))
    wal = start_wal!(context, connection: options, status_interval: 200, silence_timeout: 1_000)
    insert!(context, 1)
    assert id(next()) == 1
    # While it answers, any time may pass.
    Process.sleep(1_500)
    assert WAL.info(wal).connects == 1

    StallProxy.stall(proxy)
    assert %{error: error} = receive_event(:disconnected, 20_000)
    assert error == %WAL.Error{reason: {:silent, 1_000}}
    assert Exception.message(error) =~ "not answered for 1000 ms"
    insert!(context, 2)
    StallProxy.cut(proxy)
    StallProxy.resume(proxy)
    receive_event(:connected, 20_000)
    assert id(next(20_000)) == 2
  end

  # What the server would have said is not read then, and what it is told goes nowhere, which Linux notices.
  @tag skip: if(:os.type() != {:unix, :linux}, do: "there is no tcp_user_timeout")
  test "a network that swallows everything while the handler is behind", context do
    {:ok, proxy} = StallProxy.start_link(context.options[:port], recbuf: 1024, buffer: 1024)
    options = Keyword.put(context.options, :port, StallProxy.port(proxy))
    test = self()

    block = fn _transaction, state ->
      send(test, {:blocked, self()})
      receive do: (:go_on -> {:ack, Map.delete(state, :answer)})
    end

    wal =
      start_wal!(context,
        connection: options,
        answer: block,
        buffer_bytes: 0x10000,
        status_interval: 10,
        silence_timeout: 1_000
      )

    insert!(context, 1)
    assert_receive {:blocked, handler}, 5_000
    # More than it may have on its way.
    for i <- 2..11, do: sql!(context, "insert into t values (#{i}, repeat('x', 50000))")
    eventually(fn -> WAL.info(wal).in_flight_bytes > 0x10000 end)
    # It is told by the server's system that all is well.
    Process.sleep(2_000)
    assert %{connects: 1, status: :streaming} = WAL.info(wal)

    StallProxy.forget(proxy)
    eventually(fn -> WAL.info(wal).status == :draining end, 30_000)
    # Its handler is where it was, and nothing comes twice.
    send(handler, :go_on)
    receive_event(:disconnected)
    receive_event(:connected)
    assert for(_ <- 1..11, do: id(next())) == Enum.to_list(1..11)
    nothing()
  end

  test "confirmations that find no answer are not taken for many questions", context do
    {:ok, proxy} = StallProxy.start_link(context.options[:port])
    options = Keyword.put(context.options, :port, StallProxy.port(proxy))

    wal =
      start_wal!(context,
        connection: options,
        answer: :noack,
        status_interval: 600,
        silence_timeout: 4_800
      )

    for id <- 1..24, do: insert!(context, id)
    transactions = for _ <- 1..24, do: next()
    StallProxy.stall(proxy)

    for transaction <- transactions do
      WAL.ack(wal, transaction)
      Process.sleep(50)
    end

    assert %{connects: 1, status: :streaming} = WAL.info(wal)
    StallProxy.resume(proxy)
    eventually(fn -> slot(context).confirmed >= List.last(transactions).end_lsn end)
    assert WAL.info(wal).connects == 1
  end

  # It asks at each answer, as fast as it is answered, until what it has sent is confirmed.
  test "a server that shuts down is answered, and not in a frenzy" do
    context = cluster()
    sql!(context, "create table t (id int primary key, v text)")
    wal = start_wal!(context, answer: :noack)
    insert!(context, 1)
    transaction = next()
    %{os_pid: program} = WAL.info(wal)
    stop = Task.async(fn -> PostgresServer.stop!(context.server) end)
    eventually(fn -> PostgresServer.log(context.server) =~ "received fast shutdown request" end)
    before = ticks(program)
    Process.sleep(2_000)
    assert Task.yield(stop, 0) == nil
    assert %{connects: 1, status: :streaming} = WAL.info(wal)
    if before, do: assert(ticks(program) - before < 50)
    WAL.ack(wal, transaction)
    receive_event(:disconnected, 30_000)
    Task.await(stop, 60_000)
    stop_wal(wal)
  end

  # Of a process's time, a hundred a second.
  defp ticks(os_pid) do
    with {:ok, stat} <- File.read("/proc/#{os_pid}/stat") do
      fields = stat |> String.split(") ") |> List.last() |> String.split()
      fields |> Enum.slice(11, 2) |> Enum.map(&String.to_integer/1) |> Enum.sum()
    else
      _ -> nil
    end
  end

  test "a server that is silent before the stream has begun", context do
    {:ok, proxy} = StallProxy.start_link(context.options[:port])
    options = Keyword.put(context.options, :port, StallProxy.port(proxy))
    {:ok, client} = WAL.Client.open(Causeway.Postgres.Options.new!(options), [], 300)
    assert WAL.Client.query(client, "select 1") == {:ok, [["1"]]}
    assert {:error, %{reason: :timeout}} = WAL.Client.query(client, "select pg_sleep(60)")
    assert WAL.Client.query(client, "select 1") == {:ok, [["1"]]}
    StallProxy.stall(proxy)
    assert {:error, _} = WAL.Client.query(client, "select 1")
    WAL.Client.close(client)
  end

  test "refused connections are tried again, ever more slowly", context do
    options = Keyword.merge(context.options, username: "nobody_#{context.database}")
    wal = start_wal(context, connection: options, backoff_max: 400)
    # Each is one and a half times the one before, at least.
    pauses = for _ <- 1..10, do: receive_event(:disconnected).retry_ms
    assert Enum.sort(pauses) == pauses
    assert List.last(pauses) == 400
    assert %{status: :waiting, error: error, connects: 0} = WAL.info(wal)
    assert Exception.message(error) =~ "does not exist"
    sql!(context, "create role nobody_#{context.database} superuser login")
    receive_event(:connected)
  end

  # ---- slots ----

  test "a slot that is in use: waits, says so, goes on", context do
    first = start_wal!(context)
    pid = walsender(context)
    second = start_wal(context)
    assert %{error: %{reason: {:slot_in_use, slot, ^pid}} = error} = receive_event(:disconnected)
    assert slot == slot_name(context)
    assert Exception.message(error) =~ "in use by the server's process #{pid}"
    assert %{status: status} = WAL.info(second)
    assert status in [:waiting, :connecting]
    stop_wal(first)
    receive_event(:connected)
    insert!(context, 1)
    assert id(next()) == 1
  end

  test "a slot that was dropped ends the consumer", context do
    Process.flag(:trap_exit, true)
    {:ok, wal} = WAL.start_link(wal_options(context, []))
    receive_event(:connected)
    drop_slot!(context)
    assert %{slot: slot, why: why} = receive_event(:slot_lost)
    assert slot == slot_name(context)
    assert why =~ "not there"
    assert_receive {:EXIT, ^wal, {:shutdown, {:slot_lost, ^why}}}, 5_000
  end

  test "or it is made again, and the gap is told", context do
    wal = start_wal!(context, on_slot_lost: :recreate)
    insert!(context, 1)
    one = next()
    drop_slot!(context)
    receive_event(:slot_lost)
    assert %{from: from, to: to, why: :new_slot} = receive_event(:gap)
    assert from == one.end_lsn
    assert to >= from
    receive_event(:connected)
    insert!(context, 2)
    assert id(next()) == 2
    assert WAL.info(wal).status == :streaming
  end

  defp drop_slot!(context) do
    PostgresServer.signal(walsender(context), "TERM")
    name = slot_name(context)
    # In the moment when it is free.
    eventually(fn ->
      try do
        sql!(context, """
        select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = '#{name}' and active;
        select pg_drop_replication_slot('#{name}')
        """)
      rescue
        RuntimeError -> false
      end
    end)
  end

  test "a slot that the server has invalidated", context do
    wal = start_wal!(context)
    insert!(context, 1)
    next()
    stop_wal(wal)
    sql!(context, "alter system set max_slot_wal_keep_size = '1MB'")
    PostgresServer.reload!(context.server)

    eventually(
      fn ->
        sql!(context, "select pg_switch_wal()")
        sql!(context, "create table if not exists x (v text)")

        sql!(
          context,
          "insert into x select repeat(md5(i::text), 100) from generate_series(1, 5000) i"
        )

        sql!(context, "checkpoint")

        sql!(
          context,
          "select wal_status from pg_replication_slots where slot_name = '#{slot_name(context)}'"
        ) == "lost"
      end,
      60_000
    )

    sql!(context, "alter system reset max_slot_wal_keep_size")
    PostgresServer.reload!(context.server)
    start_wal(context, on_slot_lost: :recreate)
    assert receive_event(:slot_lost).why =~ "max_slot_wal_keep_size"
    receive_event(:connected)
    insert!(context, 2)
    assert id(next()) == 2
  end

  test "a slot of another kind, of another database; none, and none to be made", context do
    sql!(
      context,
      "select pg_create_logical_replication_slot('#{slot_name(context)}', 'test_decoding')"
    )

    start_wal(context)

    assert %{error: %{reason: {:slot_of_another_kind, _, _}} = error} =
             receive_event(:disconnected)

    assert Exception.message(error) =~ "output plugin test_decoding"
    sql!(context, "select pg_drop_replication_slot('#{slot_name(context)}')")
    receive_event(:connected)

    other = Keyword.put(context.options, :database, "postgres")
    start_wal(context, connection: other)

    assert %{error: %{reason: {:slot_of_another_kind, _, _}} = error} =
             receive_event(:disconnected)

    assert Exception.message(error) =~ context.database

    start_wal(context, slot: "none", create_slot: false)
    assert %{error: %{reason: {:slot_missing, "none"}}} = next_error(:slot_missing)
  end

  defp next_error(name) do
    case receive_event(:disconnected) do
      %{error: %{reason: {^name, _}}} = about -> about
      _ -> next_error(name)
    end
  end

  test "a temporary slot: what happens between two connections is a gap", context do
    wal = start_wal!(context, temporary: true)
    insert!(context, 1)
    one = next()
    PostgresServer.signal(WAL.info(wal).os_pid, "KILL")
    assert %{temporary: true} = receive_event(:slot_created)
    assert %{why: :temporary_slot, from: from} = receive_event(:gap)
    assert from == one.end_lsn
    receive_event(:connected)
    insert!(context, 2)
    assert id(next()) == 2
    stop_wal(wal)
    eventually(fn -> slot(context) == nil end)
  end

  # A task with a transaction that has written, until it is told to `:commit`.
  defp open_transaction(context) do
    {:ok, conn} = Causeway.Postgres.start_link(context.options)
    test = self()

    task =
      Task.async(fn ->
        Causeway.Postgres.transaction(conn, fn tx ->
          Causeway.Postgres.query!(tx, "insert into t values (1)")
          send(test, :open)
          receive do: (:commit -> :ok)
        end)
      end)

    assert_receive :open, 5_000
    task
  end

  test "the making of a slot waits for open transactions, and says so", context do
    task = open_transaction(context)
    wal = start_wal(context)
    assert_receive {:event, {:waiting, :slot_creation}}, 10_000
    assert WAL.info(wal).status == {:waiting, :slot_creation}
    send(task.pid, :commit)
    receive_event(:connected)
    Task.await(task)
    insert!(context, 2)
    assert id(next()) == 2
  end

  test "or is given up after a while, and tried again; or stopped, and leaves nothing", context do
    task = open_transaction(context)
    wal = start_wal(context, slot_timeout: 300)
    slot = slot_name(context)

    for _ <- 1..2 do
      assert %{error: error} = receive_event(:disconnected)
      assert error == %WAL.Error{reason: {:slot_timeout, slot, 300}}
      assert Exception.message(error) =~ "could not be made in 300 ms"
    end

    assert %{status: status, error: %WAL.Error{reason: {:slot_timeout, _, _}}} = WAL.info(wal)
    assert status in [:waiting, :connecting]
    stop_wal(wal)

    # One that waits for any time ends when it is told to.
    waiting = start_wal(context)
    assert_receive {:event, {:waiting, :slot_creation}}, 10_000
    assert WAL.info(waiting).status == {:waiting, :slot_creation}
    {time, :ok} = :timer.tc(fn -> stop_wal(waiting) end)
    assert time < 5_000_000
    eventually(fn -> slot(context) == nil end)

    wal = start_wal(context, slot_timeout: 60_000)
    send(task.pid, :commit)
    Task.await(task)
    receive_event(:connected)
    insert!(context, 2)
    assert id(next()) == 2
    stop_wal(wal)
  end

  # ---- snapshots ----

  test "a snapshot, and what comes after it: everything once", context do
    for id <- 1..10, do: insert!(context, id)
    wal = start_wal(context, snapshot: true)
    assert_receive {:snapshot, %{name: name, lsn: lsn}, handler}, 10_000
    for id <- 11..15, do: insert!(context, id)

    # Another connection reads it.
    seen =
      sql!(context, """
      begin isolation level repeatable read; set transaction snapshot '#{name}'; select count(*) from t; commit
      """)

    assert seen == "10"
    assert WAL.info(wal).status == :snapshot
    send(handler, {:snapshot, {:ok, %{to: self()}}})
    assert [11, 12, 13, 14, 15] = transactions = for(_ <- 1..5, do: next()) |> Enum.map(&id/1)
    assert length(transactions) == 5
    assert slot(context).confirmed >= lsn

    # Once only.
    stop_wal(wal)
    start_wal!(context, snapshot: true)
    refute_received {:snapshot, _, _}
  end

  test "a snapshot that fails leaves no slot", context do
    Process.flag(:trap_exit, true)
    {:ok, wal} = WAL.start_link(wal_options(context, snapshot: true))
    assert_receive {:snapshot, _, handler}, 10_000
    assert slot(context)
    send(handler, {:snapshot, {:stop, {:shutdown, :failed}, %{}}})
    assert_receive {:EXIT, ^wal, {:shutdown, :failed}}, 5_000
    assert slot(context) == nil
  end

  test "a connection that is lost while the snapshot is taken: another slot, another snapshot",
       context do
    wal = start_wal(context, snapshot: true)
    assert_receive {:snapshot, _, handler}, 10_000
    PostgresServer.signal(WAL.info(wal).os_pid, "KILL")
    eventually(fn -> WAL.info(wal).os_pid == nil end)
    insert!(context, 1)
    send(handler, {:snapshot, {:ok, %{to: self()}}})
    assert_receive {:snapshot, %{name: name}, ^handler}, 10_000

    sql =
      "begin isolation level repeatable read; set transaction snapshot '#{name}'; select count(*) from t; commit"

    assert sql!(context, sql) == "1"
    send(handler, {:snapshot, {:ok, %{to: self()}}})
    receive_event(:connected)
    insert!(context, 2)
    assert id(next()) == 2
  end

  # ---- publications ----

  test "publications are made and altered on request", context do
    sql!(context, "create table u (id int primary key)")
    wal = start_wal!(context, create_publication: [tables: ["t"], publish: [:insert]])
    sql!(context, "insert into u values (1); insert into t values (1); delete from t")
    assert [{:insert, "t", _}] = changes(next())
    stop_wal(wal)

    wal = start_wal!(context, create_publication: [tables: ["t", {"public", "u"}]])
    sql!(context, "insert into u values (2); insert into t values (2); delete from t")
    assert [{:insert, "u", _}, {:insert, "t", _}, {:delete, "t", _}] = changes(next())
    stop_wal(wal)

    start_wal(context, create_publication: [tables: :all])
    assert %{error: %{reason: {:unsupported, message}}} = receive_event(:disconnected)
    assert message =~ "is not for all tables"
  end

  test "a publication that is missing, and then comes", context do
    start_wal(context, create_publication: nil)
    assert %{error: %{reason: {:publication_missing, ["p"]}}} = receive_event(:disconnected)
    # Nothing was made that could hold back the log.
    assert slot(context) == nil
    sql!(context, "create publication p for all tables")
    receive_event(:connected)
    insert!(context, 1)
    assert id(next()) == 1
  end

  test "a publication that is dropped, and made again: the slot cannot use it", context do
    Process.flag(:trap_exit, true)

    {:ok, wal} =
      WAL.start_link(wal_options(context, create_publication: nil) |> with_publication(context))

    receive_event(:connected)
    insert!(context, 1)
    assert %{end_lsn: end_lsn} = one = next()
    assert id(one) == 1
    eventually(fn -> slot(context).confirmed >= end_lsn end)
    sql!(context, "drop publication p")
    insert!(context, 2)
    assert %{error: %{reason: {:publication_missing, ["p"]}}} = next_error(:publication_missing)
    sql!(context, "create publication p for all tables")
    insert!(context, 3)
    assert %{why: why} = receive_event(:slot_lost)
    assert why =~ "was made, or made again"
    assert_receive {:EXIT, ^wal, {:shutdown, {:slot_lost, _}}}, 5_000

    start_wal(context, create_publication: nil, on_slot_lost: :recreate)
    receive_event(:gap)
    receive_event(:connected)
    insert!(context, 4)
    assert id(next()) == 4
  end

  defp with_publication(options, context) do
    sql!(context, "create publication p for all tables")
    options
  end

  # ---- options ----

  test "options that cannot be", context do
    for {opts, message} <- [
          {[slot: nil], ~r/option :slot: is required/},
          {[handler: nil], ~r/option :handler: is required/},
          {[handler: String], ~r/option :handler: String is no/},
          {[publication: []], ~r/option :publication: expected a name/},
          {[publication: ["a", "b"], create_publication: []], ~r/is for one publication/},
          {[create_publication: [tables: []]], ~r/:tables is :all/},
          {[create_publication: [publish: [:all]]], ~r/:publish is a list/},
          {[values: :json], ~r/option :values: expected one of/},
          {[buffer_bytes: 1], ~r/option :buffer_bytes: expected an integer from/},
          {[start_lsn: "0/1"], ~r/LSN.parse!/},
          {[spool_dir: "/nowhere"], ~r/is no folder/},
          {[backoff_min: 10, backoff_max: 5], ~r/is more than/},
          {[nonsense: 1], ~r/option :nonsense: there is no such option/},
          {[connection: [hostnam: "x"]], ~r/hostnam/}
        ] do
      assert_raise ArgumentError, message, fn -> WAL.start_link(wal_options(context, opts)) end
    end
  end

  test "a password is not in the process's state, nor in the supervisor's", context do
    options = Keyword.put(context.options, :password, "secret-of-ours")
    wal = start_wal!(context, connection: options)

    refute inspect(:sys.get_state(wal), limit: :infinity, printable_limit: :infinity) =~
             "secret-of-ours"

    refute inspect(:sys.get_status(wal), limit: :infinity) =~ "secret-of-ours"
    spec = WAL.child_spec(wal_options(context, connection: options))
    refute inspect(spec, limit: :infinity) =~ "secret-of-ours"
  end
end
