defmodule Causeway.Postgres.PipelineTest do
  use Causeway.PostgresCase, async: true

  setup %{database: database} do
    conn = connect!(database)
    Postgres.query!(conn, "create temp table t (a int primary key, b text)")
    {:ok, conn: conn}
  end

  test "results in order", %{conn: conn} do
    query = Postgres.prepare!(conn, "select $1::text as b")

    for _ <- 1..3 do
      assert {:ok, [a, b, c, d, e]} =
               Postgres.pipeline(conn, [
                 "select 1 as a",
                 {"select $1::int8 + 1", [1]},
                 {query, ["x"]},
                 {"select $1::int8 + 1", [2]},
                 "set application_name = 'pipelined'"
               ])

      assert %Result{columns: ["a"], rows: [[1]], command: :select} = a
      assert {b.rows, c.rows, d.rows} == {[[2]], [["x"]], [[3]]}
      assert %Result{command: :set, rows: nil} = e
    end

    assert {:ok, []} = Postgres.pipeline(conn, [])
  end

  test "many, large ones", %{conn: conn} do
    text = String.duplicate("x", 1000)
    statements = for i <- 1..5000, do: {"insert into t values ($1, $2) returning b", [i, text]}
    # A busy machine may take longer than a call's 15 s.
    assert {:ok, results} = Postgres.pipeline(conn, statements, timeout: 60_000)
    assert length(results) == 5000 and Enum.all?(results, &(&1.rows == [[text]]))
    assert one!(conn, "select count(*) from t") == 5000
    # More than the sockets and pipes hold, both ways.
    big = String.duplicate("y", 300_000)

    assert {:ok, results} =
             Postgres.pipeline(conn, for(_ <- 1..100, do: {"select $1::text", [big]}),
               timeout: 60_000
             )

    assert Enum.all?(results, &(&1.rows == [[big]]))
  end

  test "one transaction", %{conn: conn} do
    for _ <- 1..3 do
      assert {:error,
              %Error{
                step: 1,
                query: "insert into t values ($1)",
                postgres: %{code: :unique_violation}
              }} =
               Postgres.pipeline(conn, [
                 {"insert into t values ($1)", [1]},
                 {"insert into t values ($1)", [1]},
                 "select 1"
               ])

      assert one!(conn, "select count(*) from t") == 0
    end

    assert {:error, %Error{postgres: %{code: :undefined_table}, query: "select * from nowhere"}} =
             Postgres.pipeline(conn, ["select 1", "select * from nowhere"])

    assert {:error, %EncodeError{}} =
             Postgres.pipeline(conn, [{"insert into t values ($1)", ["x"]}])

    assert_raise ArgumentError, fn -> Postgres.pipeline(conn, [1]) end
    assert one!(conn, "select count(*) from t") == 0
  end

  test "each by itself", %{conn: conn} do
    for n <- [1, 10] do
      assert {:ok,
              [
                {:ok, %{num_rows: 1}},
                {:error, %Error{step: 1, postgres: %{code: :unique_violation}}},
                {:ok, %{rows: [[1]]}}
              ]} =
               Postgres.pipeline(
                 conn,
                 [
                   {"insert into t values ($1)", [n]},
                   {"insert into t values ($1)", [n]},
                   "select 1"
                 ],
                 transaction: false
               )
    end

    assert one!(conn, "select count(*) from t") == 2
  end

  test "in a transaction", %{conn: conn} do
    assert {:error, :no} =
             Postgres.transaction(conn, fn tx ->
               assert {:ok, [_, _]} =
                        Postgres.pipeline(tx, [
                          {"insert into t values ($1)", [1]},
                          {"insert into t values ($1)", [2]}
                        ])

               assert one!(tx, "select count(*) from t") == 2
               Postgres.rollback(tx, :no)
             end)

    assert one!(conn, "select count(*) from t") == 0
  end

  test "a deadline", %{conn: conn} do
    # Cancels come every 250 ms: a statement that is shorter may end between two of them.
    sleep = ["select pg_sleep(0.1)" | List.duplicate("select pg_sleep(1)", 5)]
    assert {:error, %Error{reason: :timeout}} = Postgres.pipeline(conn, sleep, timeout: 300)
    assert {:ok, results} = Postgres.pipeline(conn, sleep, timeout: 300, transaction: false)
    # What had not begun was cancelled too.
    assert [{:ok, _} | _] = results
    assert {:error, %Error{reason: :timeout}} = List.last(results)
    assert one!(conn, "select 1") == 1
  end

  test "COPY is not for pipelines", %{conn: conn} do
    assert {:error, %Error{reason: :disconnected} = error} =
             Postgres.pipeline(conn, ["select 1", "copy t from stdin"])

    assert Exception.message(error) =~ "COPY"
    # Another connection.
    assert one!(conn, "select 1") == 1
  end

  test "one that cannot be committed", %{database: database} do
    conn = connect!(database)

    {:ok, _} =
      Postgres.script(conn, """
      create table parents (id int primary key);
      create table children (id int references parents deferrable initially deferred)
      """)

    insert = {"insert into children values ($1)", [1]}
    assert {:error, %{step: nil} = error} = Postgres.pipeline(conn, [insert, "select 1"])
    assert error.postgres.code == :foreign_key_violation
    results = Postgres.pipeline(conn, ["select 1", insert, "select 2"], transaction: false)
    assert {:ok, [{:ok, _}, {:error, %{step: 1} = error}, {:ok, _}]} = results
    assert error.postgres.code == :foreign_key_violation
    assert one!(conn, "select count(*) from children") == 0
  end
end
