defmodule Causeway.Postgres.AlteredTest do
  use Causeway.PostgresCase, async: true
  # What is known of a statement, when another session alters what it is about.

  setup %{database: database} do
    {:ok, conn: connect!(database), other: connect!(database), database: database}
  end

  defp name(prefix), do: "#{prefix}_#{System.unique_integer([:positive])}"

  defp table!(other, columns, values) do
    table = name("t")
    Postgres.query!(other, "create table #{table} (#{columns})")
    Postgres.query!(other, "insert into #{table} values (#{values})")
    table
  end

  describe "columns" do
    for {mode, runs} <- [named: 0, named: 1, named: 2, named: 3, unnamed: 1, unnamed: 2] do
      test "of another type, #{mode}, after #{runs} runs", %{database: database, other: other} do
        conn = connect!(database, prepare: unquote(mode))
        table = table!(other, "a int4", "7")
        sql = "select * from #{table}"
        for _ <- 1..unquote(runs)//1, do: assert(one!(conn, sql) == 7)
        Postgres.query!(other, "alter table #{table} alter a type float4")
        for _ <- 1..4, do: assert(one!(conn, sql) === 7.0)
        Postgres.query!(other, "alter table #{table} alter a type text using 'x'")
        for _ <- 1..4, do: assert(one!(conn, sql) === "x")
      end

      test "added and renamed, #{mode}, after #{runs} runs", %{database: database, other: other} do
        conn = connect!(database, prepare: unquote(mode))
        table = table!(other, "a int4, b int4", "1, 2")
        sql = "select * from #{table}"
        for _ <- 1..unquote(runs)//1, do: Postgres.query!(conn, sql)

        for change <- ["rename a to x", "rename b to a", "rename x to b"],
            do: Postgres.query!(other, "alter table #{table} #{change}")

        for _ <- 1..4,
            do: assert(%{columns: ["b", "a"], rows: [[1, 2]]} = Postgres.query!(conn, sql))

        Postgres.query!(other, "alter table #{table} add c text default 'z'")

        for _ <- 1..4,
            do: assert(%{columns: ~w(b a c), rows: [[1, 2, "z"]]} = Postgres.query!(conn, sql))
      end
    end

    test "to one without a binary form, and back", %{conn: conn, other: other} do
      table = table!(other, "a int4", "7")
      sql = "select * from #{table}"
      assert one!(conn, sql) == 7
      Postgres.query!(other, "alter table #{table} alter a type aclitem using null")
      for _ <- 1..4, do: assert(one!(conn, sql) == nil)
      Postgres.query!(other, "alter table #{table} alter a type int4 using 8")
      for _ <- 1..4, do: assert(one!(conn, sql) == 8)
    end

    test "of a statement that was prepared", %{database: database, other: other} do
      for mode <- [:named, :unnamed] do
        conn = connect!(database, prepare: mode)
        table = table!(other, "a int4", "7")
        query = Postgres.prepare!(conn, "select * from #{table}")
        Postgres.query!(other, "alter table #{table} alter a type float4")
        assert {:ok, query, %{rows: [[7.0]]}} = Postgres.execute(conn, query, [])
        assert {:ok, _, %{rows: [[7.0]]}} = Postgres.execute(conn, query, [])
      end
    end

    test "in streams and pipelines", %{conn: conn, other: other} do
      for runs <- [1, 3] do
        table = table!(other, "a int4", "7")
        sql = "select * from #{table}"
        for _ <- 1..runs, do: assert(one!(conn, sql) == 7)
        Postgres.query!(other, "alter table #{table} alter a type float4")
        for _ <- 1..2, do: assert([%{rows: [[7.0]]}] = Enum.to_list(Postgres.stream(conn, sql)))
        for _ <- 1..runs, do: assert(one!(conn, sql) == 7.0)
        Postgres.query!(other, "alter table #{table} add b text default 'z'")
        for _ <- 1..2, do: assert({:ok, [%{rows: [[7.0, "z"]]}]} = Postgres.pipeline(conn, [sql]))
      end
    end
  end

  describe "parameters" do
    test "of another type", %{conn: conn, other: other} do
      for runs <- 1..3 do
        table = table!(other, "a int4", "7")
        sql = "insert into #{table} values ($1)"
        for _ <- 1..runs, do: Postgres.query!(conn, sql, [1])
        Postgres.query!(other, "alter table #{table} alter a type jsonb using '1'")
        for _ <- 1..3, do: assert(%{num_rows: 1} = Postgres.query!(conn, sql, ["7"]))
      end
    end

    test "of a type that was dropped and made anew", %{conn: conn, other: other} do
      for runs <- 1..3 do
        type = name("e")
        Postgres.query!(other, "create type #{type} as enum ('a')")
        for _ <- 1..runs, do: assert(one!(conn, "select $1::#{type}", ["a"]) == "a")
        Postgres.query!(other, "drop type #{type}")
        Postgres.query!(other, "create type #{type} as enum ('a', 'b')")
        for _ <- 1..3, do: assert(one!(conn, "select $1::#{type}", ["b"]) == "b")
      end
    end

    test "of a type that got another field", %{conn: conn, other: other} do
      for runs <- 1..3 do
        type = name("c")
        sql = "select ($1::#{type})::text"
        Postgres.query!(other, "create type #{type} as (x int)")
        for _ <- 1..runs, do: assert(one!(conn, sql, [{1}]) == "(1)")
        Postgres.query!(other, "alter type #{type} add attribute z text")
        for _ <- 1..3, do: assert(one!(conn, sql, [{1, "q"}]) == "(1,q)")
        Postgres.query!(other, "alter type #{type} add attribute y text")
        assert {:ok, [_]} = Postgres.pipeline(conn, [{sql, [{1, "q", "r"}]}])
        Postgres.query!(other, "alter type #{type} drop attribute y")
        assert [_] = Enum.to_list(Postgres.stream(conn, sql, [{1, "q"}]))
      end
    end

    test "that are wrong stay so, and the statement prepared", %{conn: conn} do
      for _ <- 1..3, do: one!(conn, "select $1::int4", [1])

      for _ <- 1..2 do
        assert {:error, %EncodeError{}} = Postgres.query(conn, "select $1::int4", ["a"])
        assert {:error, %EncodeError{}} = Postgres.query(conn, "select $1::int4", [])
      end

      assert one!(conn, "select count(*) from pg_prepared_statements where name like 'c%'") == 1
      assert one!(conn, "select $1::int4", [1]) == 1
    end
  end

  describe "statements that the server has dropped" do
    test "run again in pipelines and streams", %{conn: conn} do
      run = fn -> for _ <- 1..3, do: one!(conn, "select 17") end
      run.()
      Postgres.query!(conn, "discard all")

      for _ <- 1..2,
          do: assert({:ok, [_, _]} = Postgres.pipeline(conn, ["select 17", "select 18"]))

      run.()
      Postgres.query!(conn, "discard all")

      for _ <- 1..2,
          do: assert([%{rows: [[17]]}] = Enum.to_list(Postgres.stream(conn, "select 17")))

      query = Postgres.prepare!(conn, "select 27")
      Postgres.query!(conn, "discard all")
      assert {:ok, [%{rows: [[27]]}]} = Postgres.pipeline(conn, [{query, []}])
      assert [%{rows: [[27]]}] = Enum.to_list(Postgres.stream(conn, query))
    end

    test "are known after one failure, where nothing can be run again", %{conn: conn} do
      run = fn -> for _ <- 1..3, do: one!(conn, "select 17") end
      alone = fn -> Postgres.pipeline(conn, ["select 17"], transaction: false) end
      run.()
      Postgres.query!(conn, "discard all")
      assert {:ok, [{:error, %{postgres: %{pg_code: "26000"}}}]} = alone.()
      assert {:ok, [{:ok, %{rows: [[17]]}}]} = alone.()
      run.()
      Postgres.query!(conn, "discard all")

      inside = fn ->
        Postgres.transaction(conn, &Enum.to_list(Postgres.stream(&1, "select 17")))
      end

      assert_raise Error, inside
      assert {:ok, [%{rows: [[17]]}]} = inside.()
    end
  end

  test "a pipeline may use what it makes", %{conn: conn} do
    table = name("p")

    assert {:ok, [_, _, %{rows: [[1]]}]} =
             Postgres.pipeline(conn, [
               "create table #{table} (a int)",
               "insert into #{table} values (1)",
               "select * from #{table}"
             ])

    assert {:error, %{step: 1, postgres: %{code: :undefined_table}}} =
             Postgres.pipeline(conn, ["select 1", {"insert into none_such values ($1)", [1]}])
  end

  test "nothing is known of a connection that was stopped", %{database: database} do
    {:ok, conn} = Postgres.start_link(database)
    one!(conn, "select 1")
    session = Causeway.Postgres.Session.fetch(conn)
    GenServer.stop(conn)
    assert {:error, %Error{reason: :not_connected}} = Postgres.query(session, "select 1")
    assert {:error, %Error{reason: :not_connected}} = Postgres.pipeline(session, ["select 1"])
    stream = Postgres.stream(session, "select 1")
    assert %Error{reason: :not_connected} = catch_error(Enum.to_list(stream))
  end
end
