defmodule Causeway.LogTest do
  use Causeway.LogCase, async: true
  doctest Causeway.Log, only: [cursor: 2]
  doctest Causeway.Log.Topic

  setup :database

  describe "publish" do
    test "a message comes with its headers", context do
      log = start_log!(context, publisher: "here")
      {:ok, ref, _} = Log.subscribe(log, "orders.paris")

      {:ok, {partition, 1}} =
        Log.publish(log, "orders.paris", %{id: 17, at: {1, "x"}}, key: "k", metadata: %{trace: 1})

      assert [
               %Message{
                 payload: %{id: 17, at: {1, "x"}},
                 topic: "orders.paris",
                 partition: ^partition,
                 sequence: 1,
                 publisher: "here",
                 key: "k",
                 metadata: %{trace: 1},
                 time: %DateTime{} = time
               }
             ] = receive_messages(ref, 1)

      assert abs(DateTime.diff(time, DateTime.utc_now())) < 60
    end

    test "many at once have their places in order", context do
      log = start_log!(context, partitions: 3, batch_messages: 7)
      {:ok, ref, cursor} = Log.subscribe(log, ">")
      messages = for i <- 1..100, do: {"t#{rem(i, 5)}", i}
      {:ok, places} = Log.publish_many(log, messages)
      got = receive_messages(ref, 100)
      assert_gapless!(got, cursor)
      by_place = Map.new(got, &{{&1.partition, &1.sequence}, {&1.topic, &1.payload}})
      assert Enum.map(places, &by_place[&1]) == messages

      for {_, own} <- Enum.group_by(got, & &1.topic) do
        payloads = Enum.map(own, & &1.payload)
        assert payloads == Enum.sort(payloads)
      end
    end

    test "JSON and bytes; SQL publishes them, too", context do
      log = start_log!(context, json: Causeway.TestJson)
      {:ok, ref, _} = Log.subscribe(log, "a")
      {:ok, _} = Log.publish(log, "a", %{"n" => [1, nil]}, format: :json, metadata: %{"m" => 1})
      {:ok, _} = Log.publish(log, "a", <<255, 0>>, format: :binary)
      sql!(context, ~s|select causeway.publish('a', '{"n": 2}', 'k', '{"m": 2}')|)
      sql!(context, ~S|select causeway.publish_bytes('a', '\xff00')|)
      [json, bytes, sql_json, sql_bytes] = receive_messages(ref, 4)
      assert %{payload: %{"n" => [1, nil]}, metadata: %{"m" => 1}} = json
      assert %{payload: <<255, 0>>, metadata: nil} = bytes

      assert %{payload: %{"n" => 2}, metadata: %{"m" => 2}, key: "k", publisher: "psql"} =
               sql_json

      assert %{payload: <<255, 0>>, key: nil} = sql_bytes
    end

    test "what cannot be is refused, and says why", context do
      log = start_log!(context, max_bytes: 1000)

      assert {:error, %Error{reason: {:too_large, bytes, 1000}} = error} =
               Log.publish(log, "a", String.duplicate("x", 2000))

      assert bytes > 2000
      assert Exception.message(error) =~ "1000 is the most"
      assert {:error, %Error{reason: {:bad_topic, "a.*", _}}} = Log.publish(log, "a.*", 1)
      assert {:error, %Error{reason: {:bad_topic, "", _}}} = Log.publish(log, "", 1)
      assert {:error, %Error{reason: {:bad_topic, _, _}}} = Log.publish(log, <<255>>, 1)

      assert {:error, %Error{reason: {:bad_payload, 1, _}}} =
               Log.publish(log, "a", 1, format: :binary)

      assert_raise Error, ~r/there is no such option/, fn ->
        Log.publish(log, "a", 1, kye: "k")
      end

      assert {:error, %Error{reason: {:not_running, :nobody}}} = Log.publish(:nobody, "a", 1)

      assert_raise RuntimeError, ~r/1000 is the most/, fn ->
        sql!(context, "select causeway.publish_bytes('a', convert_to(repeat('x', 2000), 'UTF8'))")
      end

      assert_raise RuntimeError, ~r/no token that is \*/, fn ->
        sql!(context, "select causeway.publish('a.*', '1')")
      end

      assert_raise RuntimeError, ~r/payload is NULL/, fn ->
        sql!(context, "select causeway.publish('a', null)")
      end
    end

    test "terms with atoms that nobody knows are given as bytes", context do
      log = start_log!(context)
      {:ok, ref, _} = Log.subscribe(log, "a")
      atom = "never_seen_#{System.unique_integer([:positive])}"
      term = <<131, 119, byte_size(atom), atom::binary>>

      sql!(
        context,
        "select causeway.log_publish('a', '\\x#{Base.encode16(term)}', null, null, null)"
      )

      # Compressed, a megabyte may be a gigabyte.
      bomb = :erlang.term_to_binary(String.duplicate("x", 10_000), [:compressed])

      sql!(
        context,
        "select causeway.log_publish('a', '\\x#{Base.encode16(bomb)}', null, null, null)"
      )

      assert [%{payload: nil, raw: ^term}, %{payload: nil, raw: ^bomb}] = receive_messages(ref, 2)

      trusting = start_log!(context, atoms: :create)
      {:ok, ref, _} = Log.subscribe(trusting, "a", from: :beginning)
      assert [%{payload: created, raw: nil}, _] = receive_messages(ref, 2)
      assert Atom.to_string(created) == atom
    end

    test "from many processes at once", context do
      log = start_log!(context)
      {:ok, ref, cursor} = Log.subscribe(log, ">")

      places =
        1..50
        |> Enum.map(fn i ->
          Task.async(fn -> for n <- 1..20, do: {i, n, Log.publish(log, "p.#{i}", {i, n})} end)
        end)
        |> Enum.flat_map(&Task.await(&1, 30_000))

      got = receive_messages(ref, 1000)
      assert_gapless!(got, cursor)

      assert Map.new(got, &{&1.payload, {&1.partition, &1.sequence}}) ==
               Map.new(places, fn {i, n, {:ok, place}} -> {{i, n}, place} end)

      for {_, own} <- Enum.group_by(got, & &1.topic),
          do: assert(Enum.map(own, &elem(&1.payload, 1)) == Enum.to_list(1..20))
    end
  end

  describe "transactions" do
    test "deliver if and only if they commit, together with their rows", context do
      log = start_log!(context)
      {:ok, ref, _} = Log.subscribe(log, "orders")
      {:ok, conn} = Postgres.start_link(context.options)
      Postgres.query!(conn, "CREATE TABLE orders (id int)")

      {:ok, _} =
        Postgres.transaction(conn, fn tx ->
          Postgres.query!(tx, "INSERT INTO orders VALUES (1)")
          :ok = Log.publish(log, "orders", 1, in: tx)
          nothing(ref)
          {sql, params} = Log.statement(log, "orders", 2)
          Postgres.query!(tx, sql, params)
        end)

      assert [%{payload: 1, sequence: 1}, %{payload: 2, sequence: 2}] = receive_messages(ref, 2)

      Postgres.transaction(conn, fn tx ->
        :ok = Log.publish(log, "orders", 3, in: tx)
        Postgres.rollback(tx, :no)
      end)

      Postgres.transaction(conn, fn tx ->
        :ok = Log.publish(log, "orders", 4, in: tx)

        {:error, :inner} =
          Postgres.transaction(tx, fn inner ->
            :ok = Log.publish(log, "orders", 5, in: inner)
            Postgres.rollback(inner, :inner)
          end)

        :ok = Log.publish(log, "orders", 6, in: tx)
      end)

      # The first publication of the transaction is the one that is undone.
      Postgres.transaction(conn, fn tx ->
        {:error, :inner} =
          Postgres.transaction(tx, fn inner ->
            :ok = Log.publish(log, "orders", 7, in: inner)
            Postgres.rollback(inner, :inner)
          end)

        :ok = Log.publish(log, "orders", 8, in: tx)
      end)

      assert [%{payload: 4, sequence: 3}, %{payload: 6, sequence: 4}, %{payload: 8, sequence: 5}] =
               receive_messages(ref, 3)

      nothing(ref)
      assert sql!(context, "select count(*) from causeway.log_outbox") == "0"
    end

    test "one that commits late is not skipped: numbers are given at the commit", context do
      log = start_log!(context)
      {:ok, ref, _} = Log.subscribe(log, "t", from: :beginning)
      {:ok, early} = Postgres.start_link(context.options)
      test = self()

      task =
        Task.async(fn ->
          Postgres.transaction(early, fn tx ->
            :ok = Log.publish(log, "t", :published_first, in: tx)
            send(test, :published)
            receive do: (:commit -> :ok)
          end)
        end)

      receive do: (:published -> :ok)
      # Does not wait for the other one, and is read before that commits.
      {:ok, {_, 1}} = Log.publish(log, "t", :committed_first)
      assert [%{payload: :committed_first, sequence: 1}] = receive_messages(ref, 1)
      send(task.pid, :commit)
      Task.await(task)
      assert [%{payload: :published_first, sequence: 2}] = receive_messages(ref, 1)
    end

    test "of any isolation can publish", context do
      log = start_log!(context)
      {:ok, ref, _} = Log.subscribe(log, "t")
      {:ok, conn} = Postgres.start_link(context.options)

      for {isolation, i} <- [repeatable_read: 1, serializable: 2] do
        {:ok, _} =
          Postgres.transaction(
            conn,
            fn tx ->
              Postgres.query!(tx, "SELECT count(*) FROM causeway.log_segments")
              # Its snapshot does not have this.
              {:ok, _} = Log.publish(log, "t", {:other, i})
              :ok = Log.publish(log, "t", {:own, i}, in: tx)
            end,
            isolation: isolation
          )
      end

      assert [{:other, 1}, {:own, 1}, {:other, 2}, {:own, 2}] ==
               ref
               |> receive_messages(4)
               |> Enum.map(& &1.payload)
               |> Enum.sort_by(fn {who, i} -> {i, who} end)

      assert sql!(context, "select count(*) from causeway.log_outbox") == "0"
    end

    test "SET CONSTRAINTS, and a publication after it", context do
      log = start_log!(context)
      {:ok, ref, _} = Log.subscribe(log, "t")

      sql!(context, """
      begin;
      select causeway.publish('t', '1');
      set constraints all immediate;
      select causeway.publish('t', '2');
      set constraints all deferred;
      select causeway.publish('t', '3');
      commit
      """)

      assert ["1", "2", "3"] == ref |> receive_messages(3) |> Enum.map(&to_string(&1.payload))
    end

    test "a large one, of many partitions", context do
      log = start_log!(context)
      {:ok, ref, cursor} = Log.subscribe(log, ">")

      sql!(
        context,
        "select causeway.publish('t.' || i % 13, to_jsonb(i)) from generate_series(1, 3000) i"
      )

      got = receive_messages(ref, 3000)
      assert_gapless!(got, cursor)

      assert got |> Enum.map(&"#{&1.payload}") |> Enum.map(&String.to_integer/1) |> Enum.sort() ==
               Enum.to_list(1..3000)
    end

    test "many that cross do not wait for each other in a circle", context do
      log = start_log!(context)
      {:ok, ref, cursor} = Log.subscribe(log, ">")
      script = Path.join(context.server.dir, "cross_#{context.database}.sql")

      File.write!(script, """
      \\set n random(1, 12)
      begin;
      select causeway.publish('x.' || (:n + i) % 12, to_jsonb(:client_id)) from generate_series(1, 4) i;
      commit;
      """)

      output =
        PostgresServer.pgbench!(context.server, ~w(-n -c 6 -t 100 -f #{script}), context.database)

      assert output =~ "number of transactions actually processed: 600/600"
      got = receive_messages(ref, 2400)
      assert_gapless!(got, cursor)
    end
  end

  describe "subscribe" do
    test "patterns", context do
      log = start_log!(context)
      {:ok, star, _} = Log.subscribe(log, "a.*.c")
      {:ok, rest, _} = Log.subscribe(log, "a.>")
      topics = ["a.b.c", "a.b", "a", "a.b.c.d", "b.b.c"]
      {:ok, _} = Log.publish_many(log, for(topic <- topics, do: {topic, topic}))
      assert ["a.b.c"] == star |> receive_messages(1) |> Enum.map(& &1.topic)

      assert ["a.b", "a.b.c", "a.b.c.d"] ==
               rest |> receive_messages(3) |> Enum.map(& &1.topic) |> Enum.sort()

      nothing(star)
      nothing(rest)
      assert {:error, %Error{reason: {:bad_topic, "a.>.b", _}}} = Log.subscribe(log, "a.>.b")

      assert {:error, %Error{reason: {:bad_option, :from, _}}} =
               Log.subscribe(log, "a", from: %{99 => 1})

      assert_raise Error, fn -> Log.subscribe(log, "a", from: :yesterday) end
    end

    test "from the beginning, now, a cursor, a time", context do
      log = start_log!(context)
      {:ok, _} = Log.publish_many(log, for(i <- 1..10, do: {"t", i}))
      {:ok, ref, cursor} = Log.subscribe(log, "t", from: :beginning)
      first = receive_messages(ref, 10)
      cursor = Log.cursor(cursor, Enum.take(first, 4))
      Process.sleep(20)
      time = DateTime.utc_now()
      Process.sleep(20)
      {:ok, now, _} = Log.subscribe(log, "t", from: :now)
      {:ok, _} = Log.publish_many(log, for(i <- 11..20, do: {"t", i}))
      payloads = fn ref, n -> ref |> receive_messages(n) |> Enum.map(& &1.payload) end
      assert payloads.(now, 10) == Enum.to_list(11..20)
      {:ok, later, _} = Log.subscribe(log, "t", from: cursor)
      assert payloads.(later, 16) == Enum.to_list(5..20)
      {:ok, since, _} = Log.subscribe(log, "t", from: time)
      assert payloads.(since, 10) == Enum.to_list(11..20)
      {:ok, ancient, _} = Log.subscribe(log, "t", from: ~U[2001-01-01 00:00:00Z])
      assert payloads.(ancient, 20) == Enum.to_list(1..20)
      {:ok, future, _} = Log.subscribe(log, "t", from: ~U[2101-01-01 00:00:00Z])
      nothing(future)
    end

    test "the backlog goes over into what is live without a gap or a repeat", context do
      log = start_log!(context, recent_bytes: 20_000)

      publisher =
        Task.async(fn ->
          for i <- 1..300,
              do:
                {:ok, _} =
                  Log.publish_many(log, for(n <- 1..10, do: {"t.#{rem(n, 4)}", i * 10 + n}))
        end)

      tasks =
        for n <- 1..20 do
          Task.async(fn ->
            Process.sleep(20 * n)
            {:ok, ref, cursor} = Log.subscribe(log, ">", from: :beginning, max_messages: n)
            got = receive_messages(ref, 3000, 30_000)
            assert_gapless!(got, cursor)
            nothing(ref, 50)
          end)
        end

      Task.await(publisher, 60_000)
      Task.await_many(tasks, 60_000)
    end

    test "one that does not read is sent no more than it has room for, and gets all", context do
      log = start_log!(context, recent_bytes: 10_000)
      {:ok, ref, cursor} = Log.subscribe(log, ">", max_queue: 5, max_messages: 10)

      for i <- 1..50,
          do: {:ok, _} = Log.publish_many(log, for(n <- 1..100, do: {"t", i * 100 + n}))

      Process.sleep(300)
      # What a batch is cut into comes at once.
      assert elem(Process.info(self(), :message_queue_len), 1) < 60
      assert_gapless!(receive_messages(ref, 5000), cursor)
    end

    test "ends with unsubscribe, and with the subscriber", context do
      log = start_log!(context)
      {:ok, ref, _} = Log.subscribe(log, "t")
      :ok = Log.unsubscribe(log, ref)
      :ok = Log.unsubscribe(log, ref)
      {:ok, _} = Log.publish(log, "t", 1)
      nothing(ref)
      Task.await(Task.async(fn -> {:ok, _, _} = Log.subscribe(log, "t") end))
      readers = Module.concat(log, Readers)
      eventually(fn -> DynamicSupervisor.which_children(readers) == [] end)
    end
  end

  describe "delivery" do
    test "without the server's log, from the table", context do
      log = start_log!(context, delivery: :poll, poll_interval: 20)
      {:ok, ref, cursor} = Log.subscribe(log, ">")
      for i <- 1..20, do: {:ok, _} = Log.publish(log, "t.#{i}", i)
      assert_gapless!(receive_messages(ref, 20), cursor)
    end

    test "goes on from the table while a slot waits for an open transaction", context do
      {:ok, conn} = Postgres.start_link(context.options)
      test = self()

      task =
        Task.async(fn ->
          Postgres.transaction(conn, fn tx ->
            Postgres.query!(tx, "SELECT pg_current_xact_id()")
            send(test, :open)
            receive do: (:end -> :ok)
          end)
        end)

      receive do: (:open -> :ok)
      name = :"log#{System.unique_integer([:positive])}"
      start_supervised!({Log, name: name, connection: context.options})
      {:ok, ref, _} = Log.subscribe(name, "t")
      {:ok, _} = Log.publish(name, "t", 1)
      assert [%{payload: 1}] = receive_messages(ref, 1)
      send(task.pid, :end)
      Task.await(task)
    end

    test "what is committed while the stream is cut is not missed", context do
      log = start_log!(context, check_interval: 60_000)
      {:ok, ref, cursor} = Log.subscribe(log, ">")

      task =
        Task.async(fn -> for i <- 1..300, do: {:ok, _} = Log.publish(log, "t.#{rem(i, 3)}", i) end)

      for _ <- 1..4 do
        Process.sleep(30)

        sql!(context, """
        select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'walsender' and datname = '#{context.database}'
        """)
      end

      Task.await(task, 60_000)
      assert_gapless!(receive_messages(ref, 300), cursor)
      nothing(ref)
    end
  end

  describe "tables" do
    test "are made once, by whoever comes first", context do
      connections = for _ <- 1..4, do: elem(Postgres.start_link(context.options), 1)

      tasks =
        for conn <- connections, do: Task.async(fn -> Log.Migration.up(conn, partitions: 4) end)

      assert Task.await_many(tasks) == [:ok, :ok, :ok, :ok]

      assert {:ok, %{partitions: 4, max_bytes: 1_048_576}} =
               Log.Migration.settings(hd(connections))
    end

    test "the statements make the same, and undo it", context do
      {:ok, conn} = Postgres.start_link(context.options)

      for sql <- Log.Migration.statements(schema: "other", partitions: 2),
          do: Postgres.query!(conn, sql)

      log = start_log!(context, schema: "other", install: false)
      {:ok, ref, _} = Log.subscribe(log, "t")
      sql!(context, "select other.publish('t', '1')")
      assert [_] = receive_messages(ref, 1)
      :ok = stop_supervised({Log, log})
      for sql <- Log.Migration.down_statements(schema: "other"), do: Postgres.query!(conn, sql)

      assert %{rows: [[0]]} =
               Postgres.query!(
                 conn,
                 "SELECT count(*) FROM pg_class WHERE relnamespace = 'other'::regnamespace"
               )

      assert %{rows: [[0]]} =
               Postgres.query!(
                 conn,
                 "SELECT count(*) FROM pg_proc WHERE pronamespace = 'other'::regnamespace"
               )
    end

    test "that are not there, are newer, or have other partitions", context do
      {:ok, conn} = Postgres.start_link(context.options)
      assert {:error, %Error{reason: {:not_installed, "causeway"}}} = Log.Migration.settings(conn)
      :ok = Log.Migration.up(conn)
      Postgres.query!(conn, "UPDATE causeway.log_settings SET version = 99")
      assert {:error, %Error{reason: {:newer, "causeway", 99, 1}}} = Log.Migration.up(conn)
      assert {:error, %Error{reason: {:newer, "causeway", 99, 1}}} = Log.Migration.settings(conn)
      assert_raise Error, ~r/small letters/, fn -> Log.Migration.up(conn, schema: "x; drop") end

      # Of an older release: its functions are replaced.
      Postgres.query!(conn, "UPDATE causeway.log_settings SET version = 0")
      Postgres.query!(conn, "DROP FUNCTION causeway.log_ends()")
      assert :ok = Log.Migration.up(conn)
      assert %{rows: [[1]]} = Postgres.query!(conn, "SELECT version FROM causeway.log_settings")
      assert %{num_rows: 8} = Postgres.query!(conn, "SELECT * FROM causeway.log_ends()")
    end

    @tag :capture_log
    test "that do not fit end the log, and one that comes later is waited for", context do
      Process.flag(:trap_exit, true)
      {:ok, conn} = Postgres.start_link(context.options)
      :ok = Log.Migration.up(conn, partitions: 4)
      {:ok, pid} = Log.start_link(name: Misfit, connection: context.options, partitions: 5)
      assert_receive {:EXIT, ^pid, _}, 10_000
      assert {:error, %Error{reason: {:not_running, Misfit}}} = Log.publish(Misfit, "t", 1)

      nowhere = Keyword.put(context.options, :port, 1)
      {:ok, pid} = Log.start_link(name: Early, connection: nowhere)

      assert {:error, %Error{reason: {:not_ready, Early, _}} = error} =
               Log.publish(Early, "t", 1, timeout: 500)

      assert Exception.message(error) =~ "no connection"
      Supervisor.stop(pid)
    end

    test "the partition of a topic is the same for Elixir and SQL", context do
      {:ok, conn} = Postgres.start_link(context.options)
      :ok = Log.Migration.up(conn)

      for topic <- ["a", "orders.paris", "äöü", String.duplicate("x", 1024)],
          n <- [1, 7, 8, 1024] do
        %{rows: [[p]]} =
          Postgres.query!(conn, "SELECT causeway.log_partition($1, $2)", [topic, n])

        assert p == Log.Topic.partition(topic, n)
      end
    end
  end
end
