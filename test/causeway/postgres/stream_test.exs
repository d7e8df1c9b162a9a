defmodule Causeway.Postgres.StreamTest do
  use Causeway.PostgresCase, async: true

  setup %{database: database}, do: {:ok, conn: connect!(database)}

  defp rows(stream), do: Enum.flat_map(stream, & &1.rows)

  test "all rows, in pieces", %{conn: conn} do
    sql = "select i, 'x' from generate_series(1, $1) i"
    stream = Postgres.stream(conn, sql, [10_000], max_rows: 300)

    assert rows(stream) == for(i <- 1..10_000, do: [i, "x"])

    assert [%Result{columns: ["i", "?column?"], num_rows: 300, command: :select} | _] =
             Enum.to_list(stream)

    assert Enum.count(stream) == 34
    assert Enum.to_list(Postgres.stream(conn, "select 1 where false")) == []
    assert Enum.to_list(Postgres.stream(conn, "create temp table t (a int)")) == []
    query = Postgres.prepare!(conn, "select $1::int8")
    assert rows(Postgres.stream(conn, query, [5])) == [[5]]
    assert one!(conn, "select 1") == 1
  end

  # A sanitizer keeps what is freed.
  @tag skip: System.get_env("CAUSEWAY_PORT") && "of another program"
  test "nothing is read that was not asked for", %{conn: conn} do
    sql = "select generate_series(1, $1), repeat('x', 1000)"
    program = os_pid(conn)
    conn |> Postgres.stream(sql, [1000]) |> Stream.run()
    before = memory(program)
    peak = :counters.new(1, [])

    count =
      conn
      |> Postgres.stream(sql, [300_000])
      |> Stream.with_index()
      |> Enum.reduce(0, fn {result, i}, n ->
        if i == 5, do: Process.sleep(500)

        if rem(i, 500) == 0,
          do: :counters.put(peak, 1, max(:counters.get(peak, 1), memory(program)))

        n + result.num_rows
      end)

    assert count == 300_000
    assert :counters.get(peak, 1) - before < 4_000
  end

  test "a server that ends while nothing is asked for is noticed", %{
    conn: conn,
    database: database
  } do
    other = connect!(database)
    backend = one!(conn, "select pg_backend_pid()")
    program = os_pid(conn)
    sql = "select repeat('x', 1000) from generate_series(1, 60)"

    assert_raise Error, fn ->
      for _ <- Postgres.stream(conn, sql, [], max_rows: 10), alive?(program) do
        assert one!(other, "select pg_terminate_backend($1)", [backend])
        eventually(fn -> not alive?(program) end)
      end
    end
  end

  # In kB.
  defp memory(pid) do
    [_, kb] = Regex.run(~r/VmRSS:\s+(\d+)/, File.read!("/proc/#{pid}/status"))
    String.to_integer(kb)
  end

  test "stopped before its end", %{conn: conn} do
    stream = Postgres.stream(conn, "select generate_series(1, 10000000)", [], max_rows: 10)

    backend = Postgres.info(conn).connection_id

    for n <- [1, 2, 3, 10] do
      assert stream |> Stream.flat_map(& &1.rows) |> Enum.take(n * 7) ==
               for(i <- 1..(n * 7), do: [i])
    end

    assert_raise RuntimeError, fn -> Enum.each(stream, fn _ -> raise "oops" end) end
    assert catch_throw(Enum.each(stream, fn _ -> throw(:ball) end)) == :ball
    assert one!(conn, "select pg_backend_pid()") == backend
  end

  test "in a transaction, which goes on", %{conn: conn} do
    Postgres.query!(conn, "create temp table t (a int)")

    assert {:ok, :done} =
             Postgres.transaction(conn, fn tx ->
               Postgres.query!(tx, "insert into t values (1)")

               assert tx
                      |> Postgres.stream("select i from generate_series(1, 1000) i")
                      |> rows()
                      |> length() == 1000

               assert [%{num_rows: 5}] =
                        tx
                        |> Postgres.stream("select generate_series(1, 1000000)", [], max_rows: 5)
                        |> Enum.take(1)

               assert one!(tx, "select count(*) from t") == 1

               sql = "insert into t select i from generate_series(1, 200000) i returning a"
               assert [_] = tx |> Postgres.stream(sql) |> Enum.take(1)
               # Whether it was done before the cancel came, nobody knows.
               Postgres.query!(tx, "delete from t")
               Postgres.query!(tx, "insert into t values (1)")

               assert tx |> Postgres.stream("insert into t values (2), (3) returning a") |> rows() ==
                        [[2], [3]]

               # It has come to its end, even if nobody looked.
               assert [_] =
                        tx
                        |> Postgres.stream("insert into t values (4) returning a")
                        |> Enum.take(1)

               assert_raise Error, ~r/division by zero/, fn ->
                 tx
                 |> Postgres.stream("select 1 / (500 - i) from generate_series(1, 1000) i")
                 |> Stream.run()
               end

               assert one!(tx, "select count(*) from t") == 4
               :done
             end)

    assert one!(conn, "select count(*) from t") == 4
  end

  test "errors are raised", %{conn: conn} do
    stream =
      Postgres.stream(conn, "select 1 / (5000 - i) from generate_series(1, 10000) i", [],
        max_rows: 100
      )

    me = self()

    assert_raise Error, ~r/division by zero/, fn ->
      Enum.each(stream, &send(me, {:piece, &1.num_rows}))
    end

    assert_received {:piece, 100}

    assert_raise Error, ~r/nowhere/, fn ->
      conn |> Postgres.stream("select * from nowhere") |> Stream.run()
    end

    assert_raise EncodeError, fn ->
      conn |> Postgres.stream("select $1::int4", ["x"]) |> Stream.run()
    end

    assert one!(conn, "select 1") == 1
  end

  test "a deadline for all of it", %{conn: conn} do
    sql = "select i, pg_sleep(0.01) from generate_series(1, 1000) i"

    assert_raise Error, ~r/deadline/, fn ->
      conn |> Postgres.stream(sql, [], max_rows: 1, timeout: 200) |> Stream.run()
    end

    # It passes while nobody reads, too.
    stream =
      Postgres.stream(conn, "select generate_series(1, 1000000)", [],
        max_rows: 10,
        timeout: 200
      )

    assert_raise Error, ~r/deadline/, fn -> Enum.each(stream, fn _ -> Process.sleep(20) end) end
    assert one!(conn, "select 1") == 1
  end

  test "nothing else runs meanwhile", %{conn: conn} do
    conn
    |> Postgres.stream("select i from generate_series(1, 100000) i")
    |> Stream.take(1)
    |> Enum.each(fn _ ->
      assert {:error, %Error{reason: :busy}} = Postgres.query(conn, "select 1")

      assert {:error, %Error{reason: :queue_timeout}} =
               Task.await(Task.async(fn -> Postgres.query(conn, "select 1", [], timeout: 50) end))
    end)

    assert one!(conn, "select 1") == 1
  end

  test "its process dies", %{conn: conn} do
    me = self()
    stream = Postgres.stream(conn, "select generate_series(1, 10000000)")

    pid = spawn(fn -> Enum.each(stream, fn _ -> stay(me, :piece) end) end)

    assert_receive :piece
    Process.exit(pid, :kill)
    assert one!(conn, "select 1") == 1
  end

  test "two at once on two connections", %{conn: conn, database: database} do
    other = connect!(database)
    a = Postgres.stream(conn, "select i from generate_series(1, 20000) i")
    b = Postgres.stream(other, "select i from generate_series(1, 20000) i")
    assert [a, b] |> Stream.zip() |> Enum.all?(fn {x, y} -> x.rows == y.rows end)
  end
end
