defmodule Causeway.Postgres.WAL.LargeTest do
  # Transactions that are large: in parts, streamed before they commit, spilled to files.
  use Causeway.WalCase, async: true

  setup_all do
    # The least that there is: nearly every transaction is streamed.
    {:ok, server: PostgresServer.start!(settings: [logical_decoding_work_mem: "64kB"])}
  end

  setup %{server: server} do
    options = PostgresServer.database!(server)
    context = %{server: server, options: options, database: options[:database]}
    sql!(context, "create table t (id int primary key, v text)")
    on_exit(fn -> drop_slots(server, options[:database]) end)
    {:ok, options: options, database: options[:database]}
  end

  defp ids(changes), do: for(%{new: %{"id" => id}} <- changes, do: id)

  defp parts(ms \\ 30_000) do
    case next(ms) do
      %{last: true} = part -> [part]
      part -> [part | parts(ms)]
    end
  end

  for streaming <- [true, false] do
    test "in parts, streaming: #{streaming}", context do
      start_wal!(context, streaming: unquote(streaming), max_transaction_bytes: 100_000)
      sql!(context, "insert into t select i, repeat('x', 100) from generate_series(1, 5000) i")
      parts = parts()
      assert length(parts) > 4
      assert Enum.map(parts, & &1.part) == Enum.to_list(1..length(parts))
      assert Enum.flat_map(parts, &ids(&1.changes)) == Enum.to_list(1..5000)
      assert [xid] = parts |> Enum.map(& &1.xid) |> Enum.uniq()
      assert xid > 0
      assert [_] = parts |> Enum.map(& &1.commit_lsn) |> Enum.uniq()
      {last, others} = List.pop_at(parts, -1)
      assert last.last and last.end_lsn > last.commit_lsn
      assert Enum.all?(others, &(not &1.last and &1.end_lsn == nil))

      # One that fits is whole, after it as before.
      sql!(context, "insert into t values (0, 'y')")
      assert %{part: nil, last: true, changes: [_]} = next()
    end
  end

  test "parts are confirmed with the last one only", context do
    test = self()

    stop_at_third = fn part, state ->
      if part.part == 3 do
        send(test, {:third, self()})
        receive do: (:go_on -> :ok)
      end

      {:ack, state}
    end

    wal = start_wal!(context, max_transaction_bytes: 50_000, answer: stop_at_third)
    before = slot(context).confirmed
    sql!(context, "insert into t select i, repeat('x', 100) from generate_series(1, 3000) i")
    assert_receive {:third, handler}, 10_000
    [one, two, three] = for _ <- 1..3, do: next()
    WAL.ack(wal, one)
    WAL.ack(wal, two.commit_lsn + 1)
    Process.sleep(300)
    assert slot(context).confirmed <= three.commit_lsn
    assert slot(context).confirmed >= before
    send(handler, :go_on)
    last = List.last(parts())
    eventually(fn -> slot(context).confirmed >= last.end_lsn end)
  end

  test "after a lost connection, the parts come again from the first one", context do
    test = self()

    stop_at_second = fn part, state ->
      if part.part == 2 and state[:again] == nil do
        send(test, {:second, self()})
        receive do: (:go_on -> :ok)
        {:ack, Map.put(state, :again, true)}
      else
        {:ack, state}
      end
    end

    # What is left of it is not in the buffer.
    opts = [max_transaction_bytes: 50_000, buffer_bytes: 0x10000, answer: stop_at_second]
    wal = start_wal!(context, opts)
    sql!(context, "insert into t select i, repeat('x', 100) from generate_series(1, 9000) i")
    assert_receive {:second, handler}, 10_000
    PostgresServer.signal(WAL.info(wal).os_pid, "KILL")
    eventually(fn -> WAL.info(wal).os_pid == nil end)
    send(handler, :go_on)
    receive_event(:disconnected)
    receive_event(:connected)
    flushed = [%{part: 1} | rest] = flush_transactions([])
    again = Enum.drop_while(rest, &(&1.part != 1))
    again = again ++ if(List.last(flushed).last, do: [], else: parts())
    assert Enum.flat_map(again, &ids(&1.changes)) == Enum.to_list(1..9000)
    nothing(50)
  end

  defp flush_transactions(done) do
    receive do
      {:transaction, t} -> flush_transactions([t | done])
    after
      500 -> Enum.reverse(done)
    end
  end

  test "subtransactions that are rolled back are not in it", context do
    start_wal!(context)

    sql!(context, """
    begin;
    insert into t select i, repeat('x', 100) from generate_series(1, 1000) i;
    savepoint a;
    insert into t select i, repeat('x', 100) from generate_series(1001, 2000) i;
    savepoint b;
    insert into t select i, repeat('x', 100) from generate_series(2001, 3000) i;
    rollback to b;
    insert into t select i, repeat('x', 100) from generate_series(3001, 4000) i;
    release a;
    savepoint c;
    insert into t select i, repeat('x', 100) from generate_series(4001, 5000) i;
    savepoint d;
    insert into t select i, repeat('x', 100) from generate_series(5001, 6000) i;
    release d;
    rollback to c;
    alter table t add column w int default 3;
    insert into t select i, 'y' from generate_series(6001, 7000) i;
    commit
    """)

    transaction = next(30_000)
    assert ids(transaction.changes) == Enum.concat([1..2000, 3001..4000, 6001..7000])
    assert %{new: %{"w" => 3}} = List.last(transaction.changes)
    refute is_map_key(hd(transaction.changes).new, "w")
    assert %{streamed_transactions: 0} = WAL.info(transaction_wal())

    # The exceptions of a function are subtransactions, too.
    sql!(context, """
    do $$ begin
      for i in 1..2000 loop
        begin
          insert into t values (10000 + i, repeat('z', 100));
          if i % 3 = 0 then raise 'no'; end if;
        exception when raise_exception then null;
        end;
      end loop;
    end $$
    """)

    assert ids(next(30_000).changes) == for(i <- 1..2000, rem(i, 3) != 0, do: 10_000 + i)
  end

  test "the first subtransaction, which told the relation, is rolled back", context do
    start_wal!(context)

    sql!(context, """
    begin;
    savepoint a;
    insert into t select i, repeat('x', 100) from generate_series(1, 3000) i;
    rollback to a;
    insert into t select i, repeat('x', 100) from generate_series(3001, 6000) i;
    commit
    """)

    sql!(context, "insert into t values (7000, 'after')")
    assert ids(next(30_000).changes) == Enum.to_list(3001..6000)
    assert ids(next(30_000).changes) == [7000]
  end

  # There is one consumer in each test.
  defp transaction_wal do
    [{_, wal, _, _}] = Supervisor.which_children(ExUnit.fetch_test_supervisor() |> elem(1))
    wal
  end

  test "several at once, interleaved with small ones and with one that is rolled back", context do
    start_wal!(context)

    tasks =
      for n <- 1..4 do
        Task.async(fn ->
          {:ok, conn} = Causeway.Postgres.start_link(context.options)

          Causeway.Postgres.transaction(conn, fn tx ->
            for k <- 0..9 do
              from = n * 100_000 + k * 300

              Causeway.Postgres.query!(
                tx,
                "insert into t select i, repeat('x', 100) from generate_series(#{from}, #{from + 299}) i"
              )

              Process.sleep(5)
            end

            if n == 4, do: Causeway.Postgres.rollback(tx, :no)
          end)
        end)
      end

    for i <- 1..20, do: sql!(context, "insert into t values (#{i}, 'small')")
    Task.await_many(tasks, 60_000)
    transactions = for _ <- 1..23, do: next(30_000)
    {large, small} = Enum.split_with(transactions, &(length(&1.changes) > 1))
    assert Enum.flat_map(small, &ids(&1.changes)) == Enum.to_list(1..20)

    assert large |> Enum.map(&ids(&1.changes)) |> Enum.sort() ==
             for(n <- 1..3, do: Enum.to_list((n * 100_000)..(n * 100_000 + 2999)))

    # In the order of their commits.
    lsns = Enum.map(transactions, & &1.commit_lsn)
    assert lsns == Enum.sort(lsns)
    nothing(50)
  end

  test "spilled to a file, which leaves nothing behind", context do
    dir = Path.join(System.tmp_dir!(), "spool_#{context.database}")
    File.mkdir!(dir)
    on_exit(fn -> File.rm_rf!(dir) end)
    wal = start_wal!(context, spool_bytes: 0, spool_dir: dir, values: :text)
    {:ok, conn} = Causeway.Postgres.start_link(context.options)

    {:ok, seen} =
      Causeway.Postgres.transaction(conn, fn tx ->
        Causeway.Postgres.query!(
          tx,
          "insert into t select i, repeat('x', 1000) from generate_series(1, 20000) i"
        )

        eventually(fn -> WAL.info(wal).spilled_bytes > 5_000_000 end, 20_000)
        WAL.info(wal)
      end)

    assert %{streamed_transactions: 1, spool_bytes: memory, spilled_bytes: spilled} = seen
    assert memory < 1_000_000
    assert spilled > 5_000_000
    assert File.ls!(dir) == []
    assert length(parts() |> Enum.flat_map(& &1.changes)) == 20_000
    eventually(fn -> match?(%{streamed_transactions: 0, spilled_bytes: 0}, WAL.info(wal)) end)
  end

  test "no room for the file: said so, and read again without streaming", context do
    dir = full_disk(context)

    if dir do
      wal = start_wal!(context, spool_bytes: 0, spool_dir: dir)
      sql!(context, "insert into t select i, repeat('x', 1000) from generate_series(1, 5000) i")
      assert %{error: %{reason: {:spill, message}}} = receive_event(:disconnected, 20_000)
      assert message =~ "could not be kept in #{dir}"
      receive_event(:connected)
      assert length(parts() |> Enum.flat_map(& &1.changes)) == 5000
      assert %{connects: 2} = WAL.info(wal)
    end
  end

  # A file system of 1 MB, where one can be mounted; for all but root, a folder that cannot be written to does as well.
  # nil for root in a container.
  defp full_disk(context) do
    dir = Path.join(System.tmp_dir!(), "full_#{context.database}")
    File.mkdir!(dir)

    case System.cmd("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", dir],
           stderr_to_stdout: true
         ) do
      {_, 0} ->
        on_exit(fn ->
          System.cmd("umount", ["-l", dir])
          File.rm_rf!(dir)
        end)

        dir

      _ ->
        File.chmod!(dir, 0o500)
        on_exit(fn -> File.rm_rf!(dir) end)
        if System.cmd("id", ["-u"]) != {"0\n", 0}, do: dir
    end
  end
end
