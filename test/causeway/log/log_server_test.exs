defmodule Causeway.LogServerTest do
  # What can go wrong with a server that is not killed: clocks, disks, slots, upgrades.
  use Causeway.LogCase, async: true
  alias Causeway.{Preload, Privileges, StallProxy, WallClock}
  alias Causeway.Log.Consumer

  @moduletag :capture_log

  @clock Preload.build("wall_clock")
  @disk Preload.build("disk_faults")
  @hour 3600

  defmodule Teller do
    use Consumer

    # The argument is `{pid, function of a message}`.
    @impl true
    def handle_messages(messages, %{argument: {pid, answer}}) do
      send(pid, {:handled, messages})

      case Enum.filter(messages, &(answer.(&1) != :ok)) do
        [] -> :ok
        failed -> {:failed, Enum.map(failed, &{&1, "no"})}
      end
    end
  end

  # ---- servers ----

  defp server!(opts \\ []) do
    server = PostgresServer.start!(opts)
    %{server: server, options: PostgresServer.options(server), database: "postgres"}
  end

  # Whoever the server runs as has to read what is preloaded, and its orders.
  defp preload!(built, variable) do
    dir = Path.join(System.tmp_dir!(), "causeway-preload-#{System.unique_integer([:positive])}")
    File.mkdir!(dir)
    File.chmod!(dir, 0o755)
    on_exit(fn -> File.rm_rf!(dir) end)
    library = Path.join(dir, "library.so")
    File.cp!(Preload.path!(built), library)
    orders = Path.join(dir, "orders")
    if variable == "WALL_CLOCK", do: File.write!(orders, <<0::64>>)
    {orders, Preload.env(library, variable, orders)}
  end

  defp publish!(log, range) do
    {:ok, places} = Log.publish_many(log, for(i <- range, do: {"t.#{rem(i, 5)}", i}))
    places
  end

  defp consume!(log, opts) do
    {answer, opts} = Keyword.pop(opts, :answer, fn _ -> :ok end)
    handler = {Teller, {self(), answer}}
    own = [log: log, group: "g", handler: handler, lease: 600, backoff: {50, 200}]
    opts = Keyword.merge(own ++ [from: :beginning], opts)

    start_supervised!(
      Supervisor.child_spec({Consumer, opts}, id: make_ref(), restart: :temporary)
    )
  end

  # Payloads, each at least once.
  defp handled!(payloads, ms \\ 10_000), do: handled!(MapSet.new(payloads), ms, [])

  defp handled!(wanted, ms, got) do
    if MapSet.size(wanted) == 0 do
      got |> Enum.reverse() |> Enum.concat()
    else
      receive do
        {:handled, messages} ->
          left = Enum.reduce(messages, wanted, &MapSet.delete(&2, &1.payload))
          handled!(left, ms, [messages | got])
      after
        ms -> flunk("not handled: #{inspect(wanted)}, after #{inspect(got)}")
      end
    end
  end

  # All connections are there again.
  defp back!(log) do
    topics = for i <- 0..4, do: {"t.#{i}", :back}

    eventually(
      fn ->
        match?({:ok, _}, Log.publish_many(log, topics)) and match?({:ok, _}, Log.info(log))
      end,
      20_000
    )
  end

  # What has come of a subscription when it has all that there is. Who publishes until it is done may have done so twice.
  defp all(ref, log, known) do
    {:ok, %{partitions: partitions}} = Log.info(log)
    total = partitions |> Enum.map(& &1.last) |> Enum.sum()
    got = receive_messages(ref, total - known)
    nothing(ref)
    got
  end

  defp stream(log), do: Log.Runtime.get(Log.Runtime.fetch!(log), :stream)

  # ---- clocks ----

  describe "the server's clock" do
    @describetag skip: Privileges.skip(@clock)

    setup do
      {file, env} = preload!(@clock, "WALL_CLOCK")
      {:ok, Map.put(server!(env: env), :clock, file)}
    end

    defp set!(context, hours) do
      WallClock.set(context.clock, hours * @hour)
      now = sql!(context, "select extract(epoch from clock_timestamp())::int8")
      assert_in_delta String.to_integer(now), System.os_time(:second) + hours * @hour, 10
    end

    test "is set back and forward: order, times and subscribers go on", context do
      log = start_log!(context, partitions: 2)
      {:ok, ref, cursor} = Log.subscribe(log, ">")
      consume!(log, [])
      jumps = [0, -2, 1, -30, 24, 0]

      got =
        for {hours, n} <- Enum.with_index(jumps) do
          set!(context, hours)
          places = publish!(log, (n * 50 + 1)..(n * 50 + 50))
          assert length(places) == 50
          receive_messages(ref, 50)
        end

      got = Enum.concat(got)
      assert_gapless!(got, cursor)

      for {_, own} <- Enum.group_by(got, & &1.partition) do
        times = Enum.map(own, & &1.time)
        assert times == Enum.sort(times, DateTime)
      end

      handled!(1..300)
      eventually(fn -> match?({:ok, [%{lag: 0, parked: 0}]}, Log.consumers(log)) end)

      # By time, one comes to a place that all before it are older than.
      %{time: time} = Enum.find(got, &(&1.payload == 201))
      {:ok, since, from} = Log.subscribe(log, ">", from: time)
      again = receive_messages(since, Enum.count(got, &(DateTime.compare(&1.time, time) != :lt)))
      assert_gapless!(again, from)
      assert Enum.any?(again, &(&1.payload == 201))
    end

    test "is set forward: members lose what they have, and no message; set back: none keeps it for hours",
         context do
      log = start_log!(context, partitions: 4)
      one = consume!(log, [])
      two = consume!(log, [])
      eventually(fn -> match?({:ok, [%{members: [_, _]}]}, Log.consumers(log)) end)
      publish!(log, 1..50)
      handled!(1..50)
      set!(context, 24)
      publish!(log, 51..100)
      handled!(51..100)
      eventually(fn -> match?({:ok, [%{lag: 0, members: [_, _]}]}, Log.consumers(log)) end)

      # What these have is theirs until tomorrow, by the clock that is set back.
      for pid <- [one, two], do: kill_consumer(pid)
      set!(context, 0)
      consume!(log, [])
      publish!(log, 101..150)
      handled!(101..150)
      eventually(fn -> match?({:ok, [%{lag: 0, members: [_]}]}, Log.consumers(log)) end)
    end

    test "is set back: a message that failed is delivered again as soon as it would be",
         context do
      log = start_log!(context, partitions: 1)
      once = :atomics.new(1, [])
      answer = fn _ -> if :atomics.add_get(once, 1, 1) == 1, do: :failed, else: :ok end
      one = consume!(log, answer: answer, backoff: {20_000, 20_000})
      publish!(log, 1..1)
      handled!([1])
      eventually(fn -> match?({:ok, [%{parked: 1}]}, Log.consumers(log)) end)
      kill_consumer(one)
      set!(context, -24)
      # Another one knows how long it would have waited at most.
      consume!(log, answer: answer)
      assert [%{deliveries: 2}] = handled!([1])
    end

    test "is set forward and back: retention drops what seems to be old, and goes on", context do
      log = start_log!(context, partitions: 1, keep_ms: 8 * @hour * 1000, recent_bytes: 1)
      publish!(log, 1..10)
      set!(context, 2)
      # A new segment; nothing is old enough.
      assert {:ok, []} = Log.retain(log)
      publish!(log, 11..20)
      set!(context, -2)
      assert {:ok, []} = Log.retain(log)
      publish!(log, 21..30)
      set!(context, 11)
      assert {:ok, [1]} = Log.retain(log)
      set!(context, 0)
      assert {:ok, []} = Log.retain(log)
      publish!(log, 31..40)
      {:ok, ref, _} = Log.subscribe(log, ">", from: %{0 => 4})
      assert_receive {:causeway, ^ref, {:gap, %{from: 5, to: 10}}}
      got = receive_messages(ref, 30)
      assert Enum.map(got, & &1.payload) == Enum.to_list(11..40)
      times = Enum.map(got, & &1.time)
      assert times == Enum.sort(times, DateTime)
    end
  end

  defp kill_consumer(pid) do
    ref = Process.monitor(pid)
    Process.exit(pid, :kill)
    assert_receive {:DOWN, ^ref, _, _, _}
  end

  # ---- disks ----

  describe "the server's disk is full" do
    @describetag skip: Privileges.skip(@disk)

    @enospc 28

    setup do
      {orders, env} = preload!(@disk, "DISK_FAULTS")
      {:ok, Map.put(server!(env: env), :orders, orders)}
    end

    defp full!(context, path) do
      File.write!(context.orders <> ".new", "write #{@enospc} #{path}\n")
      File.rename!(context.orders <> ".new", context.orders)
    end

    test "where its tables are: publishers are told, and what is there is read", context do
      log = start_log!(context, partitions: 2, recent_bytes: 1)
      {:ok, ref, cursor} = Log.subscribe(log, ">")
      publish!(log, 1..20)
      full!(context, "/base/")
      big = String.duplicate("x", 100_000)

      # Those before the table has to grow are committed.
      {done, error} =
        Enum.reduce_while(1..1000, {0, nil}, fn _, {n, _} ->
          case Log.publish(log, "t.1", big) do
            {:ok, _} -> {:cont, {n + 1, nil}}
            {:error, error} -> {:halt, {n, error}}
          end
        end)

      assert %Error{reason: {:server, %{postgres: %{code: :disk_full}}}} = error
      assert Exception.message(error) =~ "No space left on device"
      assert length(receive_messages(ref, 20 + done)) == 20 + done
      # In transactions, too.
      {:ok, conn} = Postgres.start_link(context.options)

      assert {:error, _} =
               Postgres.transaction(conn, fn tx ->
                 for _ <- 1..1000,
                     {:error, error} <- [Log.publish(log, "t.1", big, in: tx)],
                     do: Postgres.rollback(tx, error)
               end)

      nothing(ref)
      # Somebody makes room.
      File.rm!(context.orders)
      publish!(log, 21..40)
      receive_messages(ref, 20)
      {:ok, again, _} = Log.subscribe(log, ">", from: :beginning)
      got = receive_messages(again, 40 + done)
      assert_gapless!(got, cursor)

      assert for(%{payload: i} when is_integer(i) <- got, do: i) |> Enum.sort() ==
               Enum.to_list(1..40)
    end

    test "where its log is: it is down until there is room, and has what was acknowledged",
         context do
      log = start_log!(context, partitions: 2, recent_bytes: 1)
      {:ok, ref, _} = Log.subscribe(log, ">")
      publish!(log, 1..20)
      full!(context, "/pg_wal/")
      assert {:error, %Error{reason: reason}} = Log.publish(log, "t.1", :lost, timeout: 5_000)
      assert elem(reason, 0) in [:unknown, :server]
      # It recovers, which it has to write down, and so on.
      panic = ~r/PANIC: .* No space left on device/
      eventually(fn -> length(Regex.scan(panic, PostgresServer.log(context.server))) > 1 end)
      assert {:error, %Error{}} = Log.publish(log, "t.1", :lost, timeout: 200)
      File.rm!(context.orders)
      back!(log)
      eventually(fn -> stream(log) == :streaming end)
      publish!(log, 21..40)
      # That of which nobody knew may be there.
      got = ref |> all(log, 0) |> Enum.map(& &1.payload)
      assert got |> Enum.filter(&is_integer/1) |> Enum.sort() == Enum.to_list(1..40)
      assert :back in got
    end
  end

  # ---- slots ----

  describe "slots" do
    test "one that falls too far behind is lost, and what it had is not", context do
      context =
        Map.merge(
          context,
          server!(settings: [max_slot_wal_keep_size: "1MB", min_wal_size: "32MB"])
        )

      log = start_log!(context, partitions: 2, recent_bytes: 10_000)
      {:ok, ref, cursor} = Log.subscribe(log, ">")
      publish!(log, 1..20)
      first = receive_messages(ref, 20)
      [walsender] = PostgresServer.backends(context.server, "backend_type = 'walsender'")
      PostgresServer.signal(walsender, "STOP")
      publish!(log, 21..40)
      # They are looked for in the table meanwhile.
      second = receive_messages(ref, 20)

      for i <- 1..4 do
        sql!(context, [
          "select pg_logical_emit_message(false, 'x', '#{i}')",
          "select pg_switch_wal()"
        ])
      end

      # The server ends it to take its slot away, once it can.
      checkpoint = Task.async(fn -> sql!(context, "checkpoint") end)
      eventually(fn -> PostgresServer.log(context.server) =~ "to release replication slot" end)
      publish!(log, 41..60)
      PostgresServer.signal(walsender, "CONT")
      Task.await(checkpoint, 30_000)
      third = receive_messages(ref, 20)

      eventually(fn ->
        PostgresServer.backends(context.server, "backend_type = 'walsender'") not in [
          [],
          [walsender]
        ]
      end)

      eventually(fn -> stream(log) == :streaming end)
      publish!(log, 61..80)
      assert_gapless!(first ++ second ++ third ++ receive_messages(ref, 20), cursor)
      nothing(ref)
    end

    test "when none is free, the table is looked into until one is", context do
      context = Map.merge(context, server!(settings: [max_replication_slots: 1]))
      sql!(context, "select pg_create_physical_replication_slot('taken')")
      name = :"log#{System.unique_integer([:positive])}"
      start_supervised!({Log, name: name, connection: context.options, poll_interval: 20})
      {:ok, ref, cursor} = Log.subscribe(name, ">")
      publish!(name, 1..20)
      first = receive_messages(ref, 20)
      eventually(fn -> stream(name) == :polling end)
      assert {:ok, %{stream: :polling, error: error}} = Log.info(name)
      assert Exception.message(error) =~ "replication slots are in use"
      sql!(context, "select pg_drop_replication_slot('taken')")
      eventually(fn -> stream(name) == :streaming end, 20_000)
      publish!(name, 21..40)
      assert_gapless!(first ++ receive_messages(ref, 20), cursor)
    end

    test "while a transaction is open for long, messages go on", context do
      context = Map.merge(context, server!())
      log = start_log!(context, partitions: 2, poll_interval: 20)
      {:ok, ref, cursor} = Log.subscribe(log, ">")
      {:ok, conn} = Postgres.start_link(context.options)
      test = self()

      open =
        Task.async(fn ->
          Postgres.transaction(conn, fn tx ->
            :ok = Log.publish(log, "t.0", :late, in: tx)
            send(test, :open)
            receive do: (:end -> :ok)
          end)
        end)

      receive do: (:open -> :ok), after: (5_000 -> flunk("it was not opened"))
      publish!(log, 1..20)
      # The stream is cut, and there is no new slot while that transaction is open.
      PostgresServer.signal(
        PostgresServer.backends(context.server, "backend_type = 'walsender'"),
        "TERM"
      )

      eventually(fn -> stream(log) == :polling end)
      publish!(log, 21..40)
      got = receive_messages(ref, 40)
      assert stream(log) == :polling
      send(open.pid, :end)
      Task.await(open)
      assert [%{payload: :late}] = last = receive_messages(ref, 1)
      assert_gapless!(got ++ last, cursor)
      eventually(fn -> stream(log) == :streaming end, 20_000)
    end
  end

  # ---- upgrades ----

  describe "an upgrade" do
    # What consumers say is in the same mailbox.
    @all [max_queue: 1_000_000]

    test "by a restart with other settings, of which one takes the stream away and gives it back",
         context do
      context = Map.merge(context, server!())
      log = start_log!(context, partitions: 2, poll_interval: 20)
      {:ok, ref, cursor} = Log.subscribe(log, ">", @all)
      consume!(log, [])
      publish!(log, 1..20)

      PostgresServer.stop!(context.server)
      assert {:error, %Error{}} = Log.publish(log, "t.0", :nobody, timeout: 100)
      PostgresServer.configure!(context.server, wal_level: "replica", shared_buffers: "16MB")
      PostgresServer.start_again(context.server)
      back!(log)
      eventually(fn -> stream(log) == :polling end)
      publish!(log, 21..40)

      PostgresServer.stop!(context.server)
      PostgresServer.configure!(context.server, wal_level: "logical", max_connections: 50)
      PostgresServer.start_again(context.server)
      back!(log)
      eventually(fn -> stream(log) == :streaming end, 20_000)
      publish!(log, 41..60)
      assert_gapless!(all(ref, log, 0), cursor)
      handled!(1..60)
    end

    test "by a standby that is promoted: another timeline, the same numbers", context do
      context = Map.merge(context, server!())
      standby = PostgresServer.standby!(context.server)
      {:ok, proxy} = StallProxy.start_link(context.server.port)
      options = Keyword.put(context.options, :port, StallProxy.port(proxy))
      log = start_log!(%{options: options}, partitions: 2)
      {:ok, ref, cursor} = Log.subscribe(log, ">", @all)
      consume!(log, [])
      publish!(log, 1..40)

      # It has everything when the primary is shut down.
      StallProxy.refuse(proxy)
      StallProxy.cut(proxy)
      PostgresServer.stop!(context.server)
      PostgresServer.promote!(standby)
      StallProxy.target(proxy, standby.port)
      StallProxy.accept(proxy)
      back!(log)
      eventually(fn -> stream(log) == :streaming end, 20_000)
      publish!(log, 41..60)
      assert_gapless!(all(ref, log, 0), cursor)
      handled!(1..60)
      assert {:ok, %{wal: %{timeline: 2}}} = Log.info(log)
    end

    # A standby that is behind, and a proxy that goes to the primary, until `fail_over!/1`.
    defp behind!(context, answer, lease \\ 60_000) do
      context = Map.merge(context, server!())
      standby = PostgresServer.standby!(context.server)
      {:ok, proxy} = StallProxy.start_link(context.server.port)
      options = Keyword.put(context.options, :port, StallProxy.port(proxy))
      log = start_log!(%{options: options}, partitions: 1)
      # No lease ends meanwhile, unless it is to.
      consume!(log, answer: answer, lease: lease)
      publish!(log, 1..20)
      handled!(1..20)
      eventually(fn -> match?({:ok, [%{lag: 0}]}, Log.consumers(log)) end)
      lsn = sql!(context, "select pg_current_wal_lsn()")
      replayed = "select pg_last_wal_replay_lsn() >= '#{lsn}'"
      eventually(fn -> PostgresServer.psql!(standby, replayed) == "t\n" end)
      PostgresServer.stop!(standby)
      {log, %{primary: context.server, standby: standby, proxy: proxy}}
    end

    defp fail_over!(%{proxy: proxy} = servers) do
      StallProxy.refuse(proxy)
      StallProxy.cut(proxy)
      PostgresServer.kill!(servers.primary)
      PostgresServer.start_again(servers.standby)
      PostgresServer.promote!(servers.standby)
      StallProxy.target(proxy, servers.standby.port)
    end

    test "by a standby that lacks messages: who has read them is told, and reads what is there now",
         context do
      done = :atomics.new(1, [])

      answer = fn
        %{payload: 40} -> eventually(fn -> :atomics.get(done, 1) == 1 end, 20_000) && :ok
        _ -> :ok
      end

      {log, servers} = behind!(context, answer)
      {:ok, ref, cursor} = Log.subscribe(log, ">", [from: :beginning] ++ @all)
      first = receive_messages(ref, 20)
      cursor = Log.cursor(cursor, first)
      publish!(log, 21..39)
      handled!(21..39)
      publish!(log, 40..40)
      receive_messages(ref, 20)
      # This one is being handled.
      handled!([40])

      fail_over!(servers)
      # There are as many as before when this node comes: their numbers say nothing.
      select = "select causeway.publish('t.1', to_jsonb('new'::text)) from generate_series(1, 30)"
      PostgresServer.psql!(servers.standby, select)
      StallProxy.accept(servers.proxy)

      assert_receive {:causeway, ^ref, {:rewound, %{partition: 0, to: 20} = rewound}}, 20_000
      cursor = Log.cursor(cursor, {:rewound, rewound})
      assert cursor == %{0 => 20}
      back!(log)
      publish!(log, 41..60)
      got = all(ref, log, 20)
      assert_gapless!(got, cursor)
      assert length(got) >= 30 + 20
      # What the group has handled is not acknowledged here: it has what was published instead.
      :atomics.put(done, 1, 1)
      handled = handled!(41..60)
      eventually(fn -> match?({:ok, [%{lag: 0, parked: 0}]}, Log.consumers(log)) end)
      new = for %{publisher: "psql", sequence: n} <- handled, do: n
      assert Enum.uniq(new) == Enum.to_list(21..50)
    end

    test "by a standby that lacks messages, which a consumer finds first: it does not handle what is gone",
         context do
      {log, servers} = behind!(context, fn _ -> :ok end, 600)
      publish!(log, 21..40)
      handled!(21..40)
      rt = Log.Runtime.fetch!(log)
      tail = :sys.get_state(Log.Runtime.process(rt, :Tail)).consumer
      late = [Process.whereis(Log.Runtime.process(rt, :Ends)), tail]
      Enum.each(late, &:sys.suspend/1)

      fail_over!(servers)
      select = "select causeway.publish('t.1', to_jsonb('new'::text)) from generate_series(1, 30)"
      PostgresServer.psql!(servers.standby, select)
      StallProxy.accept(servers.proxy)
      claimed = "select owner is not null and expires > now() from causeway.log_positions"
      PostgresServer.psql!(servers.standby, "update causeway.log_positions set owner = null")
      eventually(fn -> PostgresServer.psql!(servers.standby, claimed) == "t\n" end, 20_000)
      refute_receive {:handled, _}, 1_000

      Enum.each(late, &:sys.resume/1)
      back!(log)
      publish!(log, 41..60)
      handled = handled!(41..60)
      eventually(fn -> match?({:ok, [%{lag: 0, parked: 0}]}, Log.consumers(log)) end)
      new = for %{publisher: "psql", sequence: n} <- handled, do: n
      assert Enum.uniq(new) == Enum.to_list(21..50)
    end

    # What another server would have sent: the last message again, with each of the next numbers.
    defp lost!(rt, p, count) do
      head = Log.Runtime.head(rt, p)
      {_, _, _, time, publisher, topics, payloads, _, _} = Log.Recent.fetch(rt, p, head)
      topics = Enum.take(topics, -1)
      payloads = Enum.take(payloads, -1)

      for n <- (head + 1)..(head + count)//1 do
        :ets.insert(rt.recent, {{p, n}, {p, n, n, time, publisher, topics, payloads, nil, nil}})
      end

      Log.Runtime.advance(rt, p, head + count)
      Log.Runtime.wake(rt, p)
    end

    # One message in each batch.
    defp each!(log, count), do: for(i <- 1..count, do: {:ok, _} = Log.publish(log, "t.1", i))

    test "that is noticed by the stream, after a look: what came in between is compared, too",
         context do
      context = Map.merge(context, server!())
      log = start_log!(context, partitions: 1)
      {:ok, ref, _} = Log.subscribe(log, ">", @all)
      each!(log, 10)
      receive_messages(ref, 10)
      rt = Log.Runtime.fetch!(log)
      # More than are remembered of one partition.
      lost!(rt, 0, 5_000)
      receive_messages(ref, 5_000)
      nothing(ref)
      {:ok, _} = Log.Tail.handle_event({:rewound, %{}}, %{rt: rt})
      assert_receive {:causeway, ^ref, {:rewound, %{partition: 0, from: 5_010, to: to}}}
      # Nothing is left out, and little comes again.
      assert to in 1..10
      each!(log, 1)
      assert [%{sequence: n} | _] = receive_messages(ref, 11 - to)
      assert n == to + 1
      nothing(ref)
    end

    test "that the stream still does not come from: what it brings is not taken", context do
      context = Map.merge(context, server!())
      log = start_log!(context, partitions: 1, check_interval: 60_000)
      each!(log, 1)
      rt = Log.Runtime.fetch!(log)
      eventually(fn -> Log.Recent.begins?(rt, 0, 1) end)
      batch = Tuple.to_list(Log.Recent.fetch(rt, 0, 1))
      columns = ~w(partition first last time publisher topics payloads keys metadata)
      row = Map.merge(Map.new(Enum.zip(columns, batch)), %{"first" => 2, "last" => 2})
      transaction = %{changes: [%{op: :insert, new: row}]}
      tail = :sys.get_state(:sys.get_state(Log.Runtime.process(rt, :Tail)).consumer).state

      {:ack, _} = Log.Tail.handle_transaction(transaction, %{tail | timeline: 7})
      assert Log.Runtime.head(rt, 0) == 1
      refute Log.Recent.begins?(rt, 0, 2)
      {:ack, _} = Log.Tail.handle_transaction(transaction, tail)
      assert Log.Runtime.head(rt, 0) == 2
      assert Log.Recent.begins?(rt, 0, 2)
    end

    test "when all that is remembered is gone: all is read anew", context do
      context = Map.merge(context, server!())
      log = start_log!(context, partitions: 1)
      {:ok, ref, _} = Log.subscribe(log, ">", @all)
      each!(log, 3)
      receive_messages(ref, 3)
      rt = Log.Runtime.fetch!(log)
      lost!(rt, 0, 1)
      receive_messages(ref, 1)
      for n <- 1..3, do: :ets.delete(rt.recent, {0, n})
      :sys.replace_state(Log.Runtime.process(rt, :Ends), &%{&1 | marks: %{}})
      {:ok, _} = Log.Tail.handle_event({:rewound, %{}}, %{rt: rt})
      assert_receive {:causeway, ^ref, {:rewound, %{partition: 0, from: 4, to: 0}}}
      assert [1, 2, 3] = Enum.map(receive_messages(ref, 3), & &1.payload)
    end

    test "after streams that were lost: no partition is forgotten for the others", context do
      context = Map.merge(context, server!())
      log = start_log!(context, partitions: 16, recent_bytes: 1_000_000_000)
      {:ok, ref, _} = Log.subscribe(log, ">", @all)
      {:ok, places} = Log.publish_many(log, for(i <- 1..500, do: {"t.#{i}", i}))
      receive_messages(ref, 500)

      ends =
        for {p, own} <- Enum.group_by(places, &elem(&1, 0), &elem(&1, 1)), do: {p, Enum.max(own)}

      assert length(ends) == 16
      rt = Log.Runtime.fetch!(log)
      for {p, _} <- ends, do: lost!(rt, p, 1_500)
      receive_messages(ref, 16 * 1_500)

      PostgresServer.signal(
        PostgresServer.backends(context.server, "backend_type = 'walsender'"),
        "TERM"
      )

      eventually(fn -> :ets.info(rt.recent, :size) == 0 end)
      eventually(fn -> stream(log) == :streaming end, 20_000)
      {:ok, _} = Log.Tail.handle_event({:rewound, %{}}, %{rt: rt})

      for {p, last} <- ends do
        from = last + 1_500
        assert_receive {:causeway, ^ref, {:rewound, %{partition: ^p, from: ^from, to: to}}}
        assert to <= last
      end
    end

    test "by a dump into another cluster: no server has this one's identifier, and the numbers go on",
         context do
      context = Map.merge(context, server!())
      log = start_log!(context, partitions: 2, keep_bytes: 1_000_000_000)
      {:ok, ref, cursor} = Log.subscribe(log, ">", @all)
      consume!(log, [])
      publish!(log, 1..40)
      first = receive_messages(ref, 40)
      handled!(1..40)
      eventually(fn -> match?({:ok, [%{lag: 0}]}, Log.consumers(log)) end)
      dump = Path.join(context.server.dir, "dump.sql")
      connection = ["-h", "127.0.0.1", "-U", "postgres", "-d", "postgres", "-p"]
      PostgresServer.client!("pg_dump", connection ++ ["#{context.server.port}", "-f", dump])
      PostgresServer.stop!(context.server)
      new = PostgresServer.start!(port: context.server.port)
      # Nobody may come before it is filled: an empty one would be made a log of.
      PostgresServer.client!("psql", connection ++ ["#{new.port}", "-qX", "-1", "-f", dump])
      back!(log)
      eventually(fn -> stream(log) == :streaming end, 20_000)
      publish!(log, 41..60)
      assert_gapless!(first ++ all(ref, log, 40), cursor)
      handled!(41..60)
    end
  end
end
