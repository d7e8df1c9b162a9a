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
