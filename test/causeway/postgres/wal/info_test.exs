defmodule Causeway.Postgres.WAL.InfoTest do
  # What is told of a consumer: info/1, telemetry.
  use Causeway.WalCase, async: true

  setup :database

  setup context do
    sql!(context, "create table t (id int primary key, v text)")
    :ok
  end

  test "positions, lag and backlog, while a handler is behind and when it has caught up",
       context do
    test = self()

    wait = fn _, state ->
      send(test, {:waiting, self()})
      receive do: (:go_on -> {:ack, Map.delete(state, :answer)})
    end

    wal = start_wal!(context, answer: wait)

    assert %{status: :streaming, error: nil, transactions: 0, lag_ms: 0, connects: 1, timeline: 1} =
             WAL.info(wal)

    for i <- 1..20, do: sql!(context, "insert into t values (#{i}, repeat('x', 1000))")
    assert_receive {:waiting, handler}, 5_000
    eventually(fn -> WAL.info(wal).in_flight_bytes > 20_000 end)
    Process.sleep(1_100)
    info = WAL.info(wal)
    assert info.lag_bytes > 20_000
    assert info.server_lsn > info.confirmed_lsn
    assert info.handed_lsn >= info.acked_lsn

    send(handler, :go_on)

    eventually(fn ->
      match?(%{transactions: 20, changes: 20, in_flight_bytes: 0}, WAL.info(wal))
    end)

    eventually(fn -> WAL.info(wal).lag_bytes == 0 end)
    info = WAL.info(wal)
    assert info.lag_ms == 0
    assert info.bytes > 20_000
    assert info.acked_lsn == info.handed_lsn
    assert info.transactions_per_second >= 0
    assert is_integer(info.os_pid)
  end

  test "info/1 is answered while there is no server", context do
    options = Keyword.put(context.options, :port, PostgresServer.free_port())
    wal = start_wal(context, connection: options)
    assert %{error: error} = receive_event(:disconnected)
    assert Exception.message(error) =~ "refused"
    assert %{status: status, os_pid: os_pid, connects: 0, error: %{}} = WAL.info(wal)
    assert status in [:waiting, :connecting]
    assert os_pid == nil or is_integer(os_pid)
  end

  test "how old the transaction is that the handler has", context do
    test = self()

    wait = fn transaction, state ->
      send(test, {:waiting, self(), transaction.xid})
      receive do: (:go_on -> {:ack, state})
    end

    wal = start_wal!(context, answer: wait)
    for i <- 1..3, do: sql!(context, "insert into t values (#{i})")
    assert_receive {:waiting, handler, _}, 5_000
    send(handler, :go_on)
    assert_receive {:waiting, ^handler, _}, 5_000
    Process.sleep(300)
    assert WAL.info(wal).lag_ms in 300..60_000
    for _ <- 1..2, do: send(handler, :go_on)
    eventually(fn -> WAL.info(wal).lag_ms == 0 end)
  end

  @tag integration: :telemetry
  test "telemetry", context do
    slot = slot_name(context)

    events =
      for name <- ~w(connected disconnected slot_created handled status)a,
          do: [:causeway, :wal, name]

    test = self()

    handler = fn [_, _, name], measurements, metadata, _ ->
      if metadata.slot == slot, do: send(test, {:telemetry, name, measurements, metadata})
    end

    # By apply: the module is not always there when this is compiled.
    :ok = apply(:telemetry, :attach_many, [slot, events, handler, nil])
    on_exit(fn -> apply(:telemetry, :detach, [slot]) end)
    wal = start_wal!(context, name: :"wal_#{slot}")
    assert_receive {:telemetry, :slot_created, %{}, %{temporary: false, lsn: lsn}}
    assert is_integer(lsn)
    assert_receive {:telemetry, :connected, %{duration: _}, %{timeline: 1, name: name}}
    assert name == :"wal_#{slot}"
    sql!(context, "insert into t values (1), (2)")
    next()
    assert_receive {:telemetry, :handled, counts, _}
    assert %{transactions: 1, changes: 2, bytes: bytes, duration: duration} = counts
    assert bytes > 0 and duration > 0
    assert_receive {:telemetry, :status, %{lag_bytes: _, transactions: _} = numbers, _}, 5_000
    assert Enum.all?(numbers, fn {_, n} -> is_number(n) end)
    PostgresServer.signal(WAL.info(wal).os_pid, "KILL")
    assert_receive {:telemetry, :disconnected, %{retry_ms: _}, %{error: %{}}}, 5_000
  end
end
