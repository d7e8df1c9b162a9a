defmodule Causeway.Postgres.NotificationTest do
  use Causeway.PostgresCase, async: true

  setup %{database: database} do
    {:ok, conn: connect!(database), other: connect!(database)}
  end

  test "are received", %{conn: conn, other: other} do
    {:ok, ref} = Postgres.listen(conn, "a \"channel\"")
    {:ok, second} = Postgres.listen(conn, "second")
    :ok = Postgres.notify(other, "a \"channel\"", "hello")
    assert_receive {:notification, ^conn, ^ref, "a \"channel\"", "hello"}
    :ok = Postgres.notify(conn, "second")
    assert_receive {:notification, ^conn, ^second, "second", ""}
    payload = String.duplicate("x", 7999)
    :ok = Postgres.notify(other, "second", payload)
    assert_receive {:notification, ^conn, ^second, "second", ^payload}
    :ok = Postgres.unlisten(conn, ref)
    :ok = Postgres.notify(other, "a \"channel\"", "again")
    :ok = Postgres.notify(other, "second", "last")
    assert_receive {:notification, ^conn, ^second, "second", "last"}
    refute_received {:notification, ^conn, ^ref, _, _}
    assert Postgres.info(conn).channels == ["second"]
  end

  test "in order, in the middle of large results, too", %{conn: conn, other: other} do
    {:ok, ref} = Postgres.listen(conn, "c")
    task = Task.async(fn -> for i <- 1..500, do: :ok = Postgres.notify(other, "c", "#{i}") end)

    for _ <- 1..5,
        do:
          assert(
            length(Postgres.query!(conn, "select i from generate_series(1, 20000) i").rows) ==
              20_000
          )

    Task.await(task)
    for i <- 1..500, n = "#{i}", do: assert_receive({:notification, ^conn, ^ref, "c", ^n}, 5000)
  end

  test "to several processes, until they end", %{conn: conn, other: other} do
    me = self()

    pids =
      for _ <- 1..3 do
        spawn(fn ->
          {:ok, _} = Postgres.listen(conn, "c")
          send(me, :listening)

          for _ <- 1..2,
              do: receive(do: ({:notification, _, _, _, what} -> send(me, {self(), what})))
        end)
      end

    for _ <- pids, do: assert_receive(:listening)
    Postgres.notify(other, "c", "1")
    for pid <- pids, do: assert_receive({^pid, "1"})
    assert Postgres.info(conn).channels == ["c"]
    Postgres.notify(other, "c", "2")
    for pid <- pids, do: assert_receive({^pid, "2"})
    eventually(fn -> Postgres.info(conn).channels == [] end)
    eventually(fn -> one!(conn, "select count(*) from pg_listening_channels()") == 0 end)
  end

  test "across reconnects, with a word about the gap", %{conn: conn, other: other} do
    {:ok, ref} = Postgres.listen(conn, "c", gaps: true)
    {:ok, quiet} = Postgres.listen(conn, "d")
    Postgres.query!(other, "select pg_terminate_backend($1)", [Postgres.info(conn).connection_id])
    assert_receive {:notification_gap, ^conn, ^ref, "c"}, 2000
    refute_received {:notification_gap, ^conn, ^quiet, _}
    eventually(fn -> one!(conn, "select count(*) from pg_listening_channels()") == 2 end)
    Postgres.notify(other, "d", "x")
    assert_receive {:notification, ^conn, ^quiet, "d", "x"}
  end

  test "a channel that cannot be", %{conn: conn} do
    assert {:error, %Error{}} = Postgres.listen(conn, "")
    assert Postgres.info(conn).channels == []
  end

  test "that come with the end of a stream", %{conn: conn} do
    {:ok, ref} = Postgres.listen(conn, "c")
    sql = "select i, pg_notify('c', i::text) from generate_series(1, 3) i"

    for i <- 1..20 do
      conn |> Postgres.stream(sql, [], max_rows: 1 + rem(i, 4)) |> Stream.run()
      for i <- 1..3, n = "#{i}", do: assert_receive({:notification, ^conn, ^ref, "c", ^n}, 1000)
    end
  end
end
