defmodule Causeway.Postgres.WAL.AckTest do
  # What is confirmed, what is not, and what comes again.
  use Causeway.WalCase, async: true

  setup :database

  setup context do
    sql!(context, "create table t (id int primary key)")
    :ok
  end

  defp insert!(context, id), do: sql!(context, "insert into t values (#{id})")
  defp id(%{changes: [%{new: %{"id" => id}}]}), do: id
  defp now(context), do: LSN.parse!(sql!(context, "select pg_current_wal_lsn()"))

  # A transaction that stays open until it is told to commit.
  defp open!(context, sql) do
    me = self()

    task =
      Task.async(fn ->
        {:ok, conn} = Causeway.Postgres.start_link(context.options)

        Causeway.Postgres.transaction(conn, fn tx ->
          Causeway.Postgres.query!(tx, sql)
          send(me, :open)
          receive do: (:commit -> :ok)
        end)
      end)

    assert_receive :open, 10_000
    task
  end

  defp commit!(task) do
    send(task.pid, :commit)
    {:ok, :ok} = Task.await(task)
  end

  test "a confirmed transaction does not come again, one that is not does", context do
    wal = start_wal!(context, answer: &answer_odd/2)
    for id <- 1..4, do: insert!(context, id)
    [_, second, third, fourth] = for _ <- 1..4, do: next()
    eventually(fn -> slot(context).confirmed >= third.end_lsn end)
    stop_wal(wal)

    start_wal!(context, answer: :noack)
    assert next() == fourth
    nothing()
    assert second.end_lsn < fourth.end_lsn
  end

  # Confirms 1 and 3; with 3 also 2.
  defp answer_odd(transaction, state),
    do: if(rem(id(transaction), 2) == 1, do: {:ack, state}, else: {:noack, state})

  test "ack/2, from any process, of a transaction or a position", context do
    wal = start_wal!(context, answer: :noack)
    for id <- 1..3, do: insert!(context, id)
    [one, two, three] = for _ <- 1..3, do: next()
    assert slot(context).confirmed <= one.commit_lsn

    :ok = WAL.ack(wal, two)
    eventually(fn -> slot(context).confirmed >= two.end_lsn end)

    # What was not handed out cannot be confirmed, and nothing goes backwards.
    :ok = WAL.ack(wal, one.end_lsn)
    :ok = WAL.ack(wal, 0)
    assert %{acked_lsn: acked, handed_lsn: handed} = WAL.info(wal)
    assert {acked, handed} == {two.end_lsn, three.end_lsn}
    :ok = WAL.ack(wal, 0xFFFFFFFFFFFFFFFF)
    assert WAL.info(wal).acked_lsn == three.end_lsn
    eventually(fn -> slot(context).confirmed >= three.end_lsn end)
    assert_raise FunctionClauseError, fn -> apply(WAL, :ack, [wal, "0/1"]) end
    assert_raise FunctionClauseError, fn -> WAL.ack(wal, -1) end
  end

  test "confirmed before the handler returns", context do
    test = self()

    answer = fn transaction, state ->
      send(test, {:handling, self()})
      receive do: (:go_on -> :ok)
      WAL.ack(state.wal, transaction)
      {:noack, state}
    end

    name = :"wal_#{context.database}"
    handler = {Causeway.WalCase.Teller, %{to: self(), answer: answer, wal: name}}
    start_wal!(context, name: name, handler: handler)
    insert!(context, 1)
    transaction = next()
    assert_receive {:handling, pid}
    send(pid, :go_on)
    eventually(fn -> slot(context).confirmed >= transaction.end_lsn end)
  end

  test "an earlier position, confirmed with a later transaction", context do
    answer = fn transaction, state ->
      last = state[:last]
      state = Map.put(state, :last, transaction.end_lsn)
      if last, do: {:ack, last, state}, else: {:noack, state}
    end

    start_wal!(context, answer: answer)
    for id <- 1..3, do: insert!(context, id)
    [_, two, three] = for _ <- 1..3, do: next()
    eventually(fn -> slot(context).confirmed >= two.end_lsn end)
    Process.sleep(300)
    assert slot(context).confirmed < three.end_lsn
  end

  # The fault that other libraries have: T1 is open, T2 commits, a keepalive's position plus one is confirmed; then T1's
  # commit is the next record of the log, and is not sent after the next start.
  test "a commit right after the confirmed position is not lost", context do
    # The slot is made when no transaction is open.
    stop_wal(start_wal!(context))

    for round <- 1..3 do
      task = open!(context, "insert into t values (#{round * 10})")
      wal = start_wal!(context)
      insert!(context, round * 10 + 1)
      assert id(next()) == round * 10 + 1
      # Everything there is, to the last byte.
      position = now(context)
      eventually(fn -> slot(context).confirmed >= position end)
      stop_wal(wal)
      commit!(task)
      wal = start_wal!(context)
      assert id(next()) == round * 10
      stop_wal(wal)
    end
  end

  test "a keepalive confirms nothing that was not handed out or confirmed", context do
    start_wal!(context, answer: :noack)
    insert!(context, 1)
    transaction = next()

    # The neighbour is busy, so the server has positions to tell.
    for _ <- 1..20 do
      sql!(%{context | database: "postgres"}, "select pg_logical_emit_message(true, 'x', 'y')")
      assert slot(context).confirmed <= transaction.commit_lsn
    end
  end

  test "the slot of an idle database advances, beside a busy neighbour", context do
    wal = start_wal!(context)
    insert!(context, 1)
    next()

    for _ <- 1..3 do
      sql!(
        %{context | database: "postgres"},
        "select pg_logical_emit_message(true, 'x', repeat('y', 100000))"
      )

      position = now(context)
      eventually(fn -> slot(context).confirmed >= position end)
    end

    eventually(fn -> WAL.info(wal).lag_bytes == 0 end)
    assert %{lag_ms: 0, in_flight_bytes: 0} = WAL.info(wal)
    # And nothing is lost by it.
    insert!(context, 2)
    assert id(next()) == 2
  end

  test "transactions of tables that are not published are not delivered, and need no confirmation",
       context do
    sql!(context, "create table other (id int primary key); create publication q for table t")
    start_wal!(context, publication: "q", create_publication: nil)
    for i <- 1..100, do: sql!(context, "insert into other values (#{i})")
    position = now(context)
    eventually(fn -> slot(context).confirmed >= position end)
    nothing(50)
    insert!(context, 1)
    assert id(next()) == 1
  end

  test "the handler's own position", context do
    wal = start_wal!(context, answer: :noack)
    for id <- 1..3, do: insert!(context, id)
    [_, two, three] = for _ <- 1..3, do: next()
    stop_wal(wal)

    # It has done the second one, whatever the server knows.
    wal = start_wal!(context, lsn: two.end_lsn, answer: :noack)
    assert next() == three
    nothing()
    stop_wal(wal)

    # The slot has gone further than that: idle databases are like that.
    eventually(fn -> not slot(context).active end)

    sql!(
      context,
      "select pg_replication_slot_advance('#{slot_name(context)}', '#{LSN.to_string(three.end_lsn)}')"
    )

    start_wal!(context, lsn: two.end_lsn)
    insert!(context, 4)
    assert id(next()) == 4
  end

  test "a position that the server's log has not got to is refused, and confirms nothing",
       context do
    start_wal!(context) |> stop_wal()
    before = slot(context).confirmed
    ahead = 0x7FFF_0000_0000

    for opts <- [[lsn: ahead], [start_lsn: ahead]] do
      wal = start_wal(context, opts)
      assert %{error: error} = receive_event(:disconnected)
      assert %WAL.Error{reason: {:ahead, ^ahead, flushed}} = error
      assert flushed >= before
      assert Exception.message(error) =~ "7FFF/0"
      stop_wal(wal)
      assert slot(context).confirmed == before
    end

    # Nor is a slot made for it.
    start_wal(context, lsn: ahead, slot: "other_" <> slot_name(context))
    receive_event(:disconnected)
    assert sql!(context, "select 1 from pg_replication_slots where slot_name like 'other%'") == ""
    sql!(context, "insert into t values (1)")
    start_wal!(context)
    assert [{:insert, "t", %{"id" => 1}}] = changes(next())
  end

  test "a living handler is given nothing twice", context do
    wal = start_wal!(context, answer: :noack)
    for id <- 1..3, do: insert!(context, id)
    [_, two, _] = for _ <- 1..3, do: next()
    WAL.ack(wal, two)

    for round <- 1..3 do
      PostgresServer.signal(walsender(context), "TERM")
      receive_event(:disconnected)
      receive_event(:connected)
      insert!(context, 3 + round)
      assert id(next()) == 3 + round
    end

    nothing(50)
    assert slot(context).confirmed < next_commit(context)
  end

  defp next_commit(context), do: now(context)

  test "a handler that stops or crashes has not confirmed", context do
    crash = fn transaction, state ->
      case id(transaction) do
        2 -> {:stop, {:shutdown, :enough}, state}
        # As a crash, but quietly.
        3 -> exit({:shutdown, :no})
        _ -> {:ack, state}
      end
    end

    Process.flag(:trap_exit, true)
    {:ok, wal} = WAL.start_link(wal_options(context, answer: crash))
    # Before the slot is there nothing is kept for it.
    assert_receive {:event, {:connected, _}}, 10_000
    for id <- 1..2, do: insert!(context, id)
    assert_receive {:EXIT, ^wal, {:shutdown, :enough}}, 10_000
    assert [1, 2] = for(_ <- 1..2, do: id(next()))

    eventually(fn -> not slot(context).active end)
    sql!(context, "delete from t where id = 2")

    wal = start_wal!(context, answer: :ack)
    assert id(next()) == 2
    assert [{:delete, "t", %{"id" => 2}}] = changes(next())
    stop_wal(wal)

    insert!(context, 3)

    {:ok, wal} = WAL.start_link(wal_options(context, answer: crash))
    assert_receive {:EXIT, ^wal, {:shutdown, :no}}, 10_000

    assert id(next()) == 3
    start_wal!(context)
    assert id(next()) == 3
  end

  test "stop waits for what the handler is doing, and the server knows it", context do
    slow = fn _transaction, state ->
      Process.sleep(2_000)
      {:ack, state}
    end

    wal = start_wal!(context, answer: slow)
    for id <- 1..5, do: insert!(context, id)
    one = next()
    stop_wal(wal)
    # Only what it was doing, not all that was on its way.
    refute_received {:transaction, _}
    eventually(fn -> not slot(context).active end)
    assert slot(context).confirmed == one.end_lsn
    start_wal!(context)
    assert id(next()) == 2
  end
end
