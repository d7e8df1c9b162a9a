defmodule Causeway.LogRetentionTest do
  use Causeway.LogCase, async: true

  setup :database

  defp fill(log, from, to), do: {:ok, _} = Log.publish_many(log, for(i <- from..to, do: {"t", i}))

  test "by time: segments are dropped, and numbers go on", context do
    log =
      start_log!(context, partitions: 2, keep_ms: 400, retention_interval: 60_000, recent_bytes: 1)

    {:ok, ref, cursor} = Log.subscribe(log, "t", from: :beginning)
    [p] = Map.keys(cursor)
    fill(log, 1, 10)
    assert_gapless!(receive_messages(ref, 10), cursor)
    Process.sleep(100)
    assert {:ok, []} = Log.retain(log)

    {:ok,
     %{segments: [%{segment: 1, messages: 10, closed: %DateTime{}}, %{segment: 2, closed: nil}]}} =
      Log.info(log)

    fill(log, 11, 20)
    Process.sleep(500)
    assert {:ok, [1]} = Log.retain(log)
    {:ok, %{partitions: partitions}} = Log.info(log)
    assert %{first: 11, last: 20} = Enum.find(partitions, &(&1.partition == p))

    # Who has been asleep is told what is gone, and goes on after it.
    {:ok, late, _} = Log.subscribe(log, "t", from: %{p => 4})
    assert_receive {:causeway, ^late, {:gap, %{partition: ^p, from: 5, to: 10} = gap}}, 5_000
    assert Log.cursor(cursor, {:gap, gap}) == %{p => 10}
    assert Enum.map(receive_messages(late, 10), & &1.payload) == Enum.to_list(11..20)
    {:ok, beginning, at} = Log.subscribe(log, "t", from: :beginning)
    assert at == %{p => 10}
    assert Enum.map(receive_messages(beginning, 10), & &1.payload) == Enum.to_list(11..20)

    # All of it.
    Process.sleep(500)
    {:ok, _} = Log.retain(log)
    Process.sleep(500)
    {:ok, _} = Log.retain(log)
    {:ok, empty, _} = Log.subscribe(log, "t", from: %{p => 12})
    assert_receive {:causeway, ^empty, {:gap, %{partition: ^p, from: 13, to: 20}}}, 5_000
    fill(log, 21, 22)
    assert [%{sequence: 21}, %{sequence: 22}] = receive_messages(empty, 2)
    # The one that was awake has missed nothing.
    assert Enum.map(receive_messages(ref, 12), & &1.sequence) == Enum.to_list(11..22)
  end

  test "by size", context do
    log = start_log!(context, partitions: 1, keep_bytes: 2_000_000, retention_interval: 60_000)
    payload = String.duplicate("x", 1000)

    for _ <- 1..12 do
      {:ok, _} = Log.publish_many(log, for(_ <- 1..400, do: {"t", payload}))
      {:ok, _} = Log.retain(log)
    end

    {:ok, %{segments: segments, partitions: [%{first: first, last: 4800}]}} = Log.info(log)
    assert first > 1000
    assert segments |> Enum.map(& &1.bytes) |> Enum.sum() < 3_500_000

    assert sql!(context, "select count(*) from pg_class where relname ~ '^log_batches_\\d+$'") ==
             "#{length(segments)}"
  end

  test "while messages are published and read, loses nothing that is to be kept", context do
    log = start_log!(context, partitions: 3, keep_bytes: 1, keep_ms: 3_600_000, recent_bytes: 1)
    {:ok, conn} = Postgres.start_link(context.options)
    {:ok, ref, cursor} = Log.subscribe(log, ">", from: :beginning)

    task =
      Task.async(fn -> for i <- 1..300, do: {:ok, _} = Log.publish(log, "t.#{rem(i, 9)}", i) end)

    for _ <- 1..10, do: Postgres.query!(conn, "SELECT causeway.log_roll()")
    Task.await(task, 60_000)
    assert_gapless!(receive_messages(ref, 300), cursor)
    {:ok, again, _} = Log.subscribe(log, ">", from: :beginning)
    assert_gapless!(receive_messages(again, 300), cursor)
    {:ok, %{segments: segments}} = Log.info(log)
    assert length(segments) == 11
    assert segments |> Enum.map(& &1.messages) |> Enum.sum() == 300
  end

  test "a consumer group is told", context do
    defmodule Told do
      use Log.Consumer
      @impl true
      def handle_messages(messages, %{argument: pid}),
        do: send(pid, {:handled, Enum.map(messages, & &1.payload)}) && :ok

      @impl true
      def handle_gap(gap, %{argument: pid}), do: send(pid, {:gap, gap})
    end

    log = start_log!(context, partitions: 1, keep_bytes: 1, recent_bytes: 1)
    fill(log, 1, 10)
    {:ok, _} = Log.retain(log)
    fill(log, 11, 12)

    start_supervised!(
      {Log.Consumer, log: log, group: "g", handler: {Told, self()}, from: %{0 => 3}, lease: 600}
    )

    assert_receive {:gap, %{partition: 0, from: 4, to: 10}}, 5_000
    assert_receive {:handled, [11, 12]}, 5_000
  end

  describe "a consumer group that sleeps while retention passes" do
    defmodule Sleeper do
      use Log.Consumer

      # Asks the test what to return.
      @impl true
      def handle_messages(messages, %{argument: pid}) do
        send(pid, {:handle, self(), Enum.map(messages, & &1.payload)})
        receive do: ({:return, how} -> how.(messages)), after: (20_000 -> {:error, :no_answer})
      end

      @impl true
      def handle_gap(gap, %{argument: pid}), do: send(pid, {:gap, gap})
    end

    defp sleeper!(log, opts \\ []) do
      own = [log: log, group: "g", handler: {Sleeper, self()}, lease: 600, from: :beginning]
      own = own ++ [batch: 5, backoff: {300, 300}]
      start_supervised!({Log.Consumer, Keyword.merge(own, opts)}, id: make_ref())
    end

    defp handle!(payloads, how \\ fn _ -> :ok end) do
      assert_receive {:handle, pid, ^payloads}, 5_000
      send(pid, {:return, how})
    end

    # All but what comes after it is dropped.
    defp pass!(log) do
      {:ok, [_ | _]} = Log.retain(log)
      :ok
    end

    defp done!(log) do
      eventually(fn -> match?({:ok, [%{lag: 0, parked: 0, dead: 0}]}, Log.consumers(log)) end)
    end

    test "as it has no members: it is told what it has missed, once, and goes on", context do
      log = start_log!(context, partitions: 1, keep_bytes: 1, recent_bytes: 1)
      fill(log, 1, 5)
      one = sleeper!(log)
      handle!([1, 2, 3, 4, 5])
      done!(log)
      :ok = GenServer.stop(one)
      fill(log, 6, 20)
      pass!(log)
      fill(log, 21, 22)
      assert {:ok, [%{lag: 17}]} = Log.consumers(log)
      two = sleeper!(log)
      assert_receive {:gap, %{partition: 0, from: 6, to: 20}}, 5_000
      handle!([21, 22])
      done!(log)
      :ok = GenServer.stop(two)
      sleeper!(log)
      fill(log, 23, 23)
      handle!([23])
      done!(log)
      refute_received {:gap, _}
    end

    test "as all is gone: it is told, and goes on with what comes", context do
      log = start_log!(context, partitions: 1, keep_bytes: 1, recent_bytes: 1)
      one = sleeper!(log)
      eventually(fn -> match?({:ok, [%{members: [_]}]}, Log.consumers(log)) end)
      :ok = GenServer.stop(one)
      fill(log, 1, 20)
      pass!(log)
      sleeper!(log)
      assert_receive {:gap, %{partition: 0, from: 1, to: 20}}, 5_000
      done!(log)
      fill(log, 21, 22)
      handle!([21, 22])
      done!(log)
    end

    test "as it is slow, with and without transactions: what it has is handled, then the gap",
         context do
      for {transactional, group} <- [{false, "g"}, {true, "h"}] do
        log =
          start_log!(context,
            partitions: 1,
            keep_bytes: 1,
            recent_bytes: 1,
            schema: "s_#{group}"
          )

        # A row each, of which a page has some.
        for i <- 1..100, do: fill(log, i, i)
        sleeper!(log, group: group, transactional: transactional)
        assert_receive {:handle, pid, [1, 2, 3, 4, 5]}, 5_000
        pass!(log)
        fill(log, 101, 103)
        send(pid, {:return, fn _ -> :ok end})
        handled = until_gap([1, 2, 3, 4, 5])
        assert [101, 102, 103] = Enum.take(handled, -3)
        # All of the page and the gap together.
        eventually(fn -> match?({:ok, [%{lag: 0, parked: 0}]}, Log.consumers(log)) end)
        :ok = stop_supervised({Log, log})
      end
    end

    # Answers, and checks that what is not handled is in the gap.
    defp until_gap(handled) do
      receive do
        {:handle, pid, payloads} ->
          send(pid, {:return, fn _ -> :ok end})
          assert hd(payloads) == List.last(handled) + 1
          until_gap(handled ++ payloads)

        {:gap, %{from: from, to: 100}} ->
          assert from == List.last(handled) + 1
          handle!([101, 102, 103])
          handled ++ [101, 102, 103]
      after
        5_000 -> flunk("no gap after #{inspect(handled, limit: :infinity)}")
      end
    end

    test "keeps what has failed", context do
      log = start_log!(context, partitions: 1, keep_bytes: 1, recent_bytes: 1)
      fill(log, 1, 5)
      one = sleeper!(log)
      handle!([1, 2, 3, 4, 5], fn messages -> {:failed, [{Enum.at(messages, 1), "no"}]} end)
      eventually(fn -> match?({:ok, [%{lag: 0, parked: 1}]}, Log.consumers(log)) end)
      :ok = GenServer.stop(one)
      pass!(log)
      {:ok, %{partitions: [%{first: 6}]}} = Log.info(log)
      sleeper!(log)
      handle!([2])
      done!(log)
      refute_received {:gap, _}
    end
  end

  test "a transaction that has read the tables holds it up, and publishers for a moment",
       context do
    log = start_log!(context, partitions: 1, keep_bytes: 1, recent_bytes: 1)
    fill(log, 1, 10)
    {:ok, conn} = Postgres.start_link(context.options)
    test = self()

    reader =
      Task.async(fn ->
        Postgres.transaction(conn, fn tx ->
          %{rows: [[10]]} = Postgres.query!(tx, "SELECT count(*) FROM causeway.messages")
          send(test, :reading)
          receive do: (:end -> :ok)
        end)
      end)

    receive do: (:reading -> :ok), after: (5_000 -> flunk("nothing was read"))
    retain = Task.async(fn -> Log.retain(log) end)

    slowest =
      for i <- 11..40 do
        {us, _} = :timer.tc(fn -> fill(log, i, i) end)
        us
      end
      |> Enum.max()

    assert {:error, %{postgres: %{code: :lock_not_available}}} = Task.await(retain, 20_000)
    assert slowest < 5_000_000
    send(reader.pid, :end)
    Task.await(reader)
    fill(log, 41, 41)
    assert {:ok, [1 | _]} = Log.retain(log)
    fill(log, 42, 42)
    {:ok, ref, _} = Log.subscribe(log, ">", from: :beginning)
    assert List.last(receive_messages(ref, 1)).payload == 42
  end

  test "pg_wal does not grow for those that are not there", context do
    log = start_log!(context)

    assert sql!(
             context,
             "select temporary from pg_replication_slots where database = '#{context.database}'"
           ) == "t"

    :ok = stop_supervised({Log, log})

    eventually(fn ->
      sql!(
        context,
        "select count(*) from pg_replication_slots where database = '#{context.database}'"
      ) == "0"
    end)
  end
end
