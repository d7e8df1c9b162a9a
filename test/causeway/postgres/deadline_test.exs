defmodule Causeway.Postgres.DeadlineTest do
  # Deadlines, cancels, and what takes long.
  use Causeway.PostgresCase, async: true

  setup %{database: database}, do: {:ok, conn: connect!(database)}

  test "a deadline cancels on the server, and the connection is used on", %{conn: conn} do
    backend = one!(conn, "select pg_backend_pid()")

    for _ <- 1..5 do
      {time, result} =
        :timer.tc(fn -> Postgres.query(conn, "select pg_sleep(10)", [], timeout: 50) end)

      assert {:error, %Error{reason: :timeout, postgres: %{code: :query_canceled}} = error} =
               result

      assert Exception.message(error) =~ ":timeout"
      assert time < 1_000_000
      assert one!(conn, "select pg_backend_pid()") == backend
    end
  end

  test "however short it is", %{conn: conn} do
    for _ <- 1..200 do
      case Postgres.query(conn, "select count(*) from generate_series(1, 100000)", [], timeout: 1) do
        {:ok, %{rows: [[100_000]]}} -> :ok
        {:error, %Error{reason: reason}} -> assert reason in [:timeout, :queue_timeout]
      end

      assert one!(conn, "select 1") == 1
    end
  end

  test "no cancel hits the statement after it", %{conn: conn} do
    for i <- 1..300 do
      Postgres.query(conn, "select pg_sleep(0.002)", [], timeout: 1 + rem(i, 4))
      assert one!(conn, "select $1::int4", [i]) == i
    end
  end

  test "none", %{conn: conn} do
    assert {:ok, _} = Postgres.query(conn, "select pg_sleep(0.1)", [], timeout: :infinity)
  end

  test "of the connection", %{database: database} do
    conn = connect!(database, timeout: 100)
    assert {:error, %Error{reason: :timeout}} = Postgres.query(conn, "select pg_sleep(10)")
  end

  test "a statement that catches cancels is ended with its connection", %{conn: conn} do
    Postgres.query!(conn, """
    create function pg_temp.deaf() returns void language plpgsql as $$
    begin
      loop
        begin
          perform pg_sleep(1);
        exception when query_canceled then null;
        end;
      end loop;
    end $$
    """)

    {time, result} =
      :timer.tc(fn -> Postgres.query(conn, "select pg_temp.deaf()", [], timeout: 100) end)

    assert {:error, %Error{reason: :disconnected, detail: detail}} = result
    assert detail =~ "cancel"
    assert time < 8_000_000
    assert one!(conn, "select 1") == 1
  end

  # A call is several requests when its statement is not known yet; the one to be cancelled is the last one.
  test "cancel", %{conn: conn, database: database} do
    other = connect!(database)
    backend = one!(conn, "select pg_backend_pid()")

    sleeping? = fn ->
      sql = "select wait_event = 'PgSleep' from pg_stat_activity where pid = $1"
      one!(other, sql, [backend])
    end

    for _ <- 1..5 do
      task = Task.async(fn -> Postgres.query(conn, "select pg_sleep(10)") end)
      eventually(sleeping?)
      assert :ok = Postgres.cancel(conn)
      assert {:error, %Error{reason: :cancelled}} = Task.await(task)
      assert one!(conn, "select 1") == 1
    end

    assert :ok = Postgres.cancel(conn)
    assert one!(conn, "select 1") == 1
  end

  test "the server's own limits are its own", %{conn: conn} do
    Postgres.query!(conn, "set statement_timeout = 50")

    assert {:error, %Error{reason: :server, postgres: %{code: :query_canceled}}} =
             Postgres.query(conn, "select pg_sleep(10)")
  end

  test "while waiting for the connection", %{conn: conn} do
    task = Task.async(fn -> Postgres.query(conn, "select pg_sleep(0.3)") end)
    eventually(fn -> Postgres.info(conn).busy end)

    tasks =
      for _ <- 1..20, do: Task.async(fn -> Postgres.query(conn, "select 1", [], timeout: 100) end)

    for result <- Task.await_many(tasks),
        do: assert({:error, %Error{reason: :queue_timeout}} = result)

    assert {:ok, _} = Task.await(task)
    assert Postgres.info(conn).waiting == 0
  end

  test "those who are gone while waiting are left out", %{conn: conn} do
    task = Task.async(fn -> Postgres.query(conn, "select pg_sleep(0.3)") end)
    eventually(fn -> Postgres.info(conn).busy end)
    pids = for _ <- 1..20, do: spawn(fn -> Postgres.query(conn, "select 1") end)
    eventually(fn -> Postgres.info(conn).waiting == 20 end)
    for pid <- pids, do: Process.exit(pid, :kill)
    eventually(fn -> Postgres.info(conn).waiting == 0 end)
    assert {:ok, _} = Task.await(task)
  end

  test "many callers, each gets its own answer", %{conn: conn} do
    1..50
    |> Enum.map(fn i ->
      Task.async(fn ->
        for j <- 1..50,
            do: assert(one!(conn, "select $1::int8 * 100 + $2::int8", [i, j]) == i * 100 + j)
      end)
    end)
    |> Task.await_many(30_000)
  end
end
