defmodule Causeway.Postgres.TurnsTest do
  use Causeway.PostgresCase, async: true
  # Whose turn it is: callers who die, whose deadline passes, who leave transactions behind.

  alias Causeway.Postgres.Waiting

  setup %{database: database}, do: {:ok, conn: connect!(database)}

  test "who dies is noticed, whatever else is said to the connection", %{conn: conn} do
    me = self()

    holder =
      spawn(fn ->
        conn
        |> Postgres.stream("select generate_series(1, 100000000)")
        |> Enum.each(fn _ -> stay(me, :reading) end)
      end)

    noise = spawn_link(fn -> Stream.repeatedly(fn -> Postgres.info(conn) end) |> Stream.run() end)
    assert_receive :reading, 5000
    Process.exit(holder, :kill)
    assert {:ok, _} = Postgres.query(conn, "select 1", [], timeout: 5000)
    Process.unlink(noise)
    Process.exit(noise, :kill)
  end

  test "a transaction whose end cannot be queued is rolled back all the same", %{conn: conn} do
    Postgres.query!(conn, "create temp table t (a int)")

    assert_raise RuntimeError, "out", fn ->
      Postgres.transaction(
        conn,
        fn tx ->
          Postgres.query!(tx, "insert into t values (1)")
          spawn(fn -> Postgres.query(tx, "select pg_sleep(60)") end)
          Process.sleep(100)
          raise "out"
        end,
        timeout: 300
      )
    end

    assert one!(conn, "select count(*) from t") == 0
    assert %{transaction: :idle} = Postgres.info(conn)
  end

  test "two processes may be within one transaction, each in its own", %{conn: conn} do
    Postgres.query!(conn, "create temp table t (a int)")

    Postgres.transaction(conn, fn tx ->
      me = self()

      Postgres.transaction(tx, fn inner ->
        spawn_link(fn ->
          send(me, {:inner, Postgres.transaction(tx, fn _ -> sleep(send(me, :in)) end)})
        end)

        assert_receive :in, 5000
        Postgres.query!(inner, "insert into t values (1)")
        Postgres.rollback(inner, :no)
      end)

      assert one!(tx, "select count(*) from t") == 0
    end)
  end

  defp sleep(_sent), do: Process.sleep(300)

  test "a statement that begins a transaction is refused, and rolled back", %{conn: conn} do
    for _ <- 1..3 do
      assert {:error, %Error{reason: :refused} = error} = Postgres.query(conn, "begin")
      assert Exception.message(error) =~ "transaction/3"
      assert %{rows: [[1]]} = Postgres.query!(conn, "select 1")
      assert %{transaction: :idle} = Postgres.info(conn)
    end

    assert {:error, %Error{reason: :refused}} =
             Postgres.script(conn, "begin; create table never (a int)")

    assert one!(conn, "select to_regclass('never')") == nil
    assert {:ok, [_, _, _]} = Postgres.script(conn, "begin; select 1; commit")
  end

  test "a statement that ends a transaction is its end", %{conn: conn} do
    Postgres.query!(conn, "create temp table t (a int)")

    assert {:error, %Error{reason: :transaction_lost}} =
             Postgres.transaction(conn, fn tx ->
               assert {:error, %Error{reason: :refused}} = Postgres.query(tx, "commit")

               assert {:error, %Error{reason: :transaction_lost}} =
                        Postgres.query(tx, "insert into t values (1)")
             end)

    assert one!(conn, "select count(*) from t") == 0
  end

  # As with Postgrex: the statement has its result, and transaction/3 says that there is nothing to commit.
  test "a transaction that is prepared for two-phase commit" do
    server = PostgresServer.start!(settings: [max_prepared_transactions: 2])
    conn = connect!(PostgresServer.options(server))
    Postgres.query!(conn, "create table t (a int)")

    for {end_it, i} <- [{"commit prepared", 1}, {"rollback prepared", 2}] do
      assert {:error, %Error{reason: :transaction_lost} = error} =
               Postgres.transaction(conn, fn tx ->
                 Postgres.query!(tx, "insert into t values ($1)", [i])

                 assert {:ok, %Result{command: :prepare_transaction}} =
                          Postgres.query(tx, "prepare transaction 'x'")

                 assert {:error, %Error{reason: :transaction_lost}} =
                          Postgres.query(tx, "select 1")
               end)

      assert Exception.message(error) =~ "prepared"
      assert %{transaction: :idle} = Postgres.info(conn)
      assert {:ok, %Result{}} = Postgres.query(conn, end_it <> " 'x'")
      assert Postgres.query!(conn, "select a from t").rows == [[1]]
    end

    assert {:ok, [_, _, %Result{command: :prepare_transaction}]} =
             Postgres.script(conn, "begin; insert into t values (3); prepare transaction 'x'")

    Postgres.query!(conn, "commit prepared 'x'")
    # One that has failed cannot be, which the server says as ROLLBACK.
    assert {:error, %Error{reason: :transaction_lost}} =
             Postgres.transaction(conn, fn tx ->
               assert {:error, _} = Postgres.query(tx, "select 1 / 0")

               assert {:error, %Error{reason: :refused}} =
                        Postgres.query(tx, "prepare transaction 'x'")
             end)

    assert Postgres.query!(conn, "select a from t").rows == [[1], [3]]
  end

  test "many whose deadline passes, and many who die", %{conn: conn} do
    me = self()
    spawn_link(fn -> send(me, {:slept, one!(conn, "select 1 from pg_sleep(2)")}) end)
    eventually(fn -> Postgres.info(conn).busy end)

    tasks =
      for _ <- 1..5000,
          do:
            Task.async(fn ->
              elem(Postgres.query(conn, "select 1", [], timeout: 300), 1).reason
            end)

    dying = for _ <- 1..5000, do: spawn(fn -> Postgres.query(conn, "select 1") end)
    eventually(fn -> Postgres.info(conn).waiting >= 5000 end)
    for pid <- dying, do: Process.exit(pid, :kill)
    assert Enum.all?(Task.await_many(tasks, 20_000), &(&1 == :queue_timeout))
    assert_receive {:slept, 1}, 20_000
    assert %{waiting: 0} = Postgres.info(conn)
  end

  test "a deadline that passes while there is no connection says why there is none" do
    {:ok, listen} = :gen_tcp.listen(0, [:binary, ip: {127, 0, 0, 1}, active: false])
    {:ok, port} = :inet.port(listen)

    {:ok, conn} =
      Postgres.start_link(hostname: "127.0.0.1", port: port, username: "x", database: "x")

    assert {:error, %Error{reason: :not_connected} = error} =
             Postgres.query(conn, "select 1", [], timeout: 100)

    assert Exception.message(error) =~ "while connecting"
    GenServer.stop(conn)
    assert {:error, %Error{reason: :not_connected}} = Postgres.query(conn, "select 1")
  end

  test "never asked, and gone" do
    pid = spawn(fn -> :ok end)
    ref = Process.monitor(pid)
    assert_receive {:DOWN, ^ref, _, _, _}
    assert {:error, %Error{reason: :not_connected}} = Postgres.query(pid, "select 1")
  end

  test "SQL that is not UTF-8 is shown all the same", %{conn: conn} do
    assert {:error, error} = Postgres.query(conn, "select 'ö" <> <<255>> <> "'")
    assert Exception.message(error) =~ "select 'ö?'"
    assert {:error, error} = Postgres.query(conn, String.duplicate("é", 1000) <> "x")
    assert String.valid?(Exception.message(error))
  end

  test "options that are none", %{conn: conn} do
    for opts <- [[timeout: "x"], [timeout: -1], [timeout: nil], [timout: 3], [max_rows: 1], [1]] do
      assert_raise ArgumentError, fn -> Postgres.query(conn, "select 1", [], opts) end
      assert_raise ArgumentError, fn -> Postgres.pipeline(conn, ["select 1"], opts) end
      assert_raise ArgumentError, fn -> Postgres.copy_in(conn, "copy t from stdin", [], opts) end
    end

    for opts <- [[max_rows: 0], [gaps: true]],
        do: assert_raise(ArgumentError, fn -> Postgres.stream(conn, "select 1", [], opts) end)

    assert_raise ArgumentError, fn -> Postgres.transaction(conn, & &1, timeout: -1) end
    assert_raise ArgumentError, fn -> Postgres.listen(conn, "c", gaps: 1) end

    assert {:ok, _} =
             Postgres.query(conn, "select 1", [], timeout: 1000, telemetry_options: [a: 1])
  end

  test "channels that cannot be listened to", %{conn: conn} do
    assert_raise ArgumentError, fn -> Postgres.listen(conn, String.duplicate("x", 64)) end
    assert_raise ArgumentError, fn -> Postgres.listen(conn, "a\0b") end

    Postgres.transaction(conn, fn tx ->
      assert {:error, %Error{reason: :refused}} = Postgres.listen(tx, "c")
    end)

    assert %{channels: []} = Postgres.info(conn)
  end

  test "the order of those that wait" do
    entry = fn ref -> %{ref: ref, monitor: {:monitor, ref}} end
    waiting = Enum.reduce(1..10_000, Waiting.new(), &Waiting.put(&2, entry.(&1)))
    assert {%{ref: 3}, waiting} = Waiting.take(waiting, 3)
    assert {nil, waiting} = Waiting.take(waiting, 3)
    assert {%{ref: 1}, waiting} = Waiting.take_monitored(waiting, {:monitor, 1})
    assert {nil, waiting} = Waiting.take_monitored(waiting, {:monitor, 1})
    assert {%{ref: 2}, waiting} = Waiting.next(waiting)
    assert {%{ref: 4}, waiting} = Waiting.next(waiting)
    waiting = Enum.reduce(5..9_999, waiting, fn ref, w -> elem(Waiting.take(w, ref), 1) end)
    assert Waiting.size(waiting) == 1
    waiting = Waiting.put(waiting, entry.(10_001))
    assert waiting.places == 2
    assert {%{ref: 10_000}, waiting} = Waiting.next(waiting)
    assert {%{ref: 10_001}, waiting} = Waiting.next(waiting)
    assert {nil, _} = Waiting.next(waiting)
  end
end
