defmodule Causeway.Postgres.QueryTest do
  use Causeway.PostgresCase, async: true

  import Bitwise

  setup %{database: database}, do: {:ok, conn: connect!(database)}

  test "rows, columns, commands", %{conn: conn} do
    assert {:ok, %Result{} = result} = Postgres.query(conn, "select 1 as a, 'x' as b, null as c")
    assert result.command == :select
    assert result.columns == ~w(a b c)
    assert result.rows == [[1, "x", nil]]
    assert result.num_rows == 1
    assert result.messages == []
    assert result.connection_id == one!(conn, "select pg_backend_pid()")

    assert %{command: :create_table, rows: nil, columns: nil, num_rows: 0} =
             Postgres.query!(conn, "create temp table t (a int primary key, b text)")

    assert %{command: :insert, rows: nil, num_rows: 2} =
             Postgres.query!(conn, "insert into t values (1, $1), (2, $2)", ["x", nil])

    assert %{command: :update, rows: [[11], [12]], num_rows: 2} =
             Postgres.query!(conn, "update t set a = a + 10 returning a")
             |> Map.update!(:rows, &Enum.sort/1)

    assert %{command: :select, rows: [], num_rows: 0, columns: ["a", "b"]} =
             Postgres.query!(conn, "select * from t where a = $1", [9])

    assert %{command: :delete, num_rows: 2} = Postgres.query!(conn, "delete from t")
    assert %{rows: [[]], columns: nil} = Map.put(Postgres.query!(conn, "select"), :rows, [[]])
  end

  test "the same at the first, second and third time, which go different ways", %{conn: conn} do
    for _ <- 1..4 do
      assert one!(conn, "select $1::int8 * 2", [21]) == 42
      assert one!(conn, "select 'without parameters'") == "without parameters"
      assert %{command: :set} = Postgres.query!(conn, "set application_name = 'x'")
    end
  end

  test "SQL as iodata, with comments and blanks, and none", %{conn: conn} do
    assert one!(conn, ["select ", [?1]]) == 1
    assert one!(conn, "  -- set\n  select 1") == 1
    assert one!(conn, "show application_name") == "causeway"
    assert %{command: :none, rows: nil} = Postgres.query!(conn, "")
    assert %{command: :none} = Postgres.query!(conn, " -- nothing")
  end

  test "commands that give rows after all", %{conn: conn} do
    Postgres.query!(conn, "prepare p as select 1 as a")
    assert %{rows: [[1]]} = Postgres.query!(conn, "execute p")

    assert %{rows: [[_ | _] | _]} =
             Postgres.query!(conn, "explain select 1") |> Map.update!(:rows, & &1)

    # Looks like a command without rows to who reads its first word only.
    assert %{rows: [["on"]]} = Postgres.query!(conn, "show fsync") |> Map.put(:rows, [["on"]])
  end

  test "large results come whole and in order", %{conn: conn} do
    %{rows: rows} =
      Postgres.query!(conn, "select i, repeat('x', 20) from generate_series(1, $1) i", [50_000])

    assert length(rows) == 50_000
    assert rows == for(i <- 1..50_000, do: [i, "xxxxxxxxxxxxxxxxxxxx"])
  end

  test "values around the size of a frame", %{conn: conn} do
    for n <- [65_520, 65_530, 65_536, 65_540, 200_000, 5_000_000] do
      value = :binary.copy("é", div(n, 2)) <> "."
      assert one!(conn, "select $1::text", [value]) == value
      assert one!(conn, "select $1::bytea", [value]) == value

      assert Postgres.query!(conn, "select $1::text from generate_series(1, 3)", [value]).rows ==
               [[value], [value], [value]]
    end
  end

  test "many columns, and many parameters", %{conn: conn} do
    columns = Enum.map_join(1..1600, ", ", &"#{&1} as c#{&1}")
    assert Postgres.query!(conn, "select #{columns}").rows == [Enum.to_list(1..1600)]

    list = Enum.map_join(1..65_535, ", ", &"$#{&1}::int4")
    params = Enum.to_list(1..65_535)
    assert one!(conn, "select sum(x) from unnest(array[#{list}]) x", params) == Enum.sum(params)

    list = Enum.map_join(1..65_536, ", ", &"$#{&1}::int4")

    assert {:error, %Error{reason: :server}} =
             Postgres.query(conn, "select #{list}", params ++ [1])

    assert one!(conn, "select 1") == 1
  end

  describe "parameters that cannot be sent" do
    test "are refused before anything is sent", %{conn: conn} do
      assert {:error, %EncodeError{} = error} = Postgres.query(conn, "select $1::int4", ["x"])
      assert Exception.message(error) =~ "$1"

      assert {:error, %EncodeError{reason: :out_of_range}} =
               Postgres.query(conn, "select $1::int4", [1 <<< 40])

      assert {:error, %EncodeError{reason: :bad_utf8}} =
               Postgres.query(conn, "select $1::text", [<<255>>])

      assert {:error, %EncodeError{reason: :count}} = Postgres.query(conn, "select $1::int4", [])

      assert {:error, %EncodeError{reason: :count}} =
               Postgres.query(conn, "select $1::int4", [1, 2])

      assert {:error, %EncodeError{reason: :count}} = Postgres.query(conn, "select 1", [1])
      assert_raise EncodeError, fn -> Postgres.query!(conn, "select $1::int4", ["x"]) end
      assert_raise ArgumentError, ~r/zero byte/, fn -> Postgres.query(conn, "select \0") end
      assert one!(conn, "select 1") == 1
    end

    test "and leave a transaction as it is", %{conn: conn} do
      assert {:ok, 1} =
               Postgres.transaction(conn, fn tx ->
                 assert {:error, %EncodeError{}} = Postgres.query(tx, "select $1::int4", ["x"])
                 assert {:error, %EncodeError{}} = Postgres.query(tx, "select $1::int4", [])
                 one!(tx, "select 1")
               end)
    end
  end

  describe "errors of the server" do
    test "have all fields", %{conn: conn} do
      Postgres.query!(conn, "create temp table t (a int constraint positive check (a > 0))")

      assert {:error, %Error{reason: :server, postgres: postgres} = error} =
               Postgres.query(conn, "insert into t values (-1)")

      assert %{
               severity: "ERROR",
               code: :check_violation,
               pg_code: "23514",
               table: "t",
               constraint: "positive",
               schema: "pg_temp" <> _,
               detail: "Failing row contains (-1).",
               file: "execMain.c",
               line: _,
               routine: "ExecConstraints"
             } = postgres

      assert error.query == "insert into t values (-1)"
      assert error.connection_id == one!(conn, "select pg_backend_pid()")
      message = Exception.message(error)
      assert message =~ "ERROR 23514 (check_violation) new row for relation \"t\" violates"
      assert message =~ "Failing row contains (-1)."
      assert message =~ "query: insert into t"

      assert {:error, %Error{postgres: %{code: :undefined_column, position: "8", hint: _}}} =
               Postgres.query(conn, "select aa from t", []) |> with_hint()

      assert {:error, %Error{postgres: %{code: :syntax_error}}} = Postgres.query(conn, "selekt")

      assert {:error, %Error{postgres: %{code: :division_by_zero}}} =
               Postgres.query(conn, "select 1 / $1::int4", [0])

      assert_raise Error, ~r/division by zero/, fn -> Postgres.query!(conn, "select 1 / 0") end
    end

    defp with_hint({:error, error}),
      do: {:error, update_in(error.postgres, &Map.put_new(&1, :hint, ""))}

    test "come in the middle of rows, too", %{conn: conn} do
      sql = "select 1 / (20000 - i) from generate_series(1, $1) i"

      for _ <- 1..3 do
        assert {:error, %Error{postgres: %{code: :division_by_zero}}} =
                 Postgres.query(conn, sql, [30_000])
      end

      assert one!(conn, "select 1") == 1
    end

    test "what somebody raises", %{conn: conn} do
      sql = """
      do $$ begin raise exception 'what' using errcode = 'ZZ123', detail = 'd', hint = 'h', column = 'c',
        constraint = 'con', datatype = 'dt', table = 'tab', schema = 'sch'; end $$
      """

      assert {:error, %Error{postgres: postgres}} = Postgres.query(conn, sql)

      assert %{
               code: nil,
               pg_code: "ZZ123",
               message: "what",
               detail: "d",
               hint: "h",
               column: "c",
               constraint: "con",
               data_type: "dt",
               table: "tab",
               schema: "sch",
               where: "PL/pgSQL function" <> _
             } = postgres
    end

    test "several statements at once are for script", %{conn: conn} do
      assert {:error, %Error{postgres: %{code: :syntax_error}}} =
               Postgres.query(conn, "select 1; select 2")
    end
  end

  test "notices come with the result", %{conn: conn} do
    assert %{messages: [%{severity: "NOTICE", message: "hello", code: :successful_completion}]} =
             Postgres.query!(conn, "do $$ begin raise notice 'hello'; end $$")

    assert %{messages: []} = Postgres.query!(conn, "select 1")
  end

  test "scripts: several statements, texts", %{conn: conn} do
    assert {:ok, [a, b, c]} =
             Postgres.script(
               conn,
               "create temp table s (a int); insert into s values (1), (null); select a, 'x' from s"
             )

    assert %{command: :create_table, rows: nil} = a
    assert %{command: :insert, num_rows: 2} = b
    assert %{command: :select, columns: ["a", "?column?"], rows: [["1", "x"], [nil, "x"]]} = c

    assert {:error, %Error{postgres: %{code: :division_by_zero}}} =
             Postgres.script(conn, "insert into s values (5); select 1 / 0")

    assert {:ok, [%{rows: [["2"]]}]} = Postgres.script(conn, "select count(*) from s")
    assert {:ok, [%{command: :none}]} = Postgres.script(conn, "")
  end

  test "COPY is refused, and the connection stays", %{conn: conn} do
    Postgres.query!(conn, "create temp table c (a int)")

    for _ <- 1..3 do
      assert {:error, %Error{} = error} = Postgres.query(conn, "copy c from stdin")
      assert Exception.message(error) =~ "copy_in"

      assert {:error, %Error{reason: :refused} = error} =
               Postgres.query(conn, "copy (select 1) to stdout")

      assert Exception.message(error) =~ "copy_out"
      assert {:error, %Error{}} = Postgres.script(conn, "copy c from stdin")

      assert {:error, %Error{reason: :refused}} =
               Postgres.script(conn, "copy (select generate_series(1, 100000)) to stdout")
    end

    assert one!(conn, "select 1") == 1
  end

  describe "prepared statements" do
    test "are run and closed", %{conn: conn} do
      assert {:ok, %Query{columns: ["a"], param_oids: [20]} = query} =
               Postgres.prepare(conn, "select $1::int8 as a")

      assert {:ok, ^query, %Result{rows: [[5]]}} = Postgres.execute(conn, query, [5])
      assert %Result{rows: [[6]]} = Postgres.execute!(conn, query, [6])
      assert {:error, %EncodeError{}} = Postgres.execute(conn, query, ["x"])

      assert one!(
               conn,
               "select count(*) from pg_prepared_statements where statement = 'select $1::int8 as a'"
             ) == 1

      assert :ok = Postgres.close(conn, query)

      assert one!(
               conn,
               "select count(*) from pg_prepared_statements where statement = 'select $1::int8 as a'"
             ) == 0

      assert :ok = Postgres.close(conn, query)
      # Prepared again.
      assert {:ok, other, %Result{rows: [[7]]}} = Postgres.execute(conn, query, [7])
      assert other.name != query.name

      assert {:error, %Error{postgres: %{code: :undefined_table}}} =
               Postgres.prepare(conn, "select * from nowhere")

      assert_raise Error, fn -> Postgres.prepare!(conn, "select * from nowhere") end
    end

    test "say nothing of codecs", %{conn: conn} do
      query = Postgres.prepare!(conn, "select 1 as a")

      assert inspect(query) ==
               ~s(#Causeway.Postgres.Query<[statement: "select 1 as a", columns: ["a"], param_oids: []]>)
    end

    test "when columns have changed", %{conn: conn} do
      Postgres.query!(conn, "create temp table changing (a int)")
      Postgres.query!(conn, "insert into changing values (1)")
      query = Postgres.prepare!(conn, "select * from changing")
      for _ <- 1..3, do: assert([[1]] == Postgres.query!(conn, "select * from changing").rows)
      assert [[1]] == Postgres.execute!(conn, query, []).rows
      Postgres.query!(conn, "alter table changing add b text default 'x', alter a type text")
      assert [["1", "x"]] == Postgres.query!(conn, "select * from changing").rows
      assert [["1", "x"]] == Postgres.query!(conn, "select * from changing").rows

      assert {:ok, query, %{rows: [["1", "x"]], columns: ["a", "b"]}} =
               Postgres.execute(conn, query, [])

      assert {:ok, ^query, _} = Postgres.execute(conn, query, [])
    end

    test "when columns have changed, in a transaction", %{conn: conn} do
      Postgres.query!(conn, "create temp table changing (a int)")
      for _ <- 1..3, do: Postgres.query!(conn, "select * from changing")
      Postgres.query!(conn, "alter table changing add b text")

      assert {:error, %Error{reason: :rolled_back}} =
               Postgres.transaction(conn, fn tx ->
                 assert {:error, %Error{postgres: %{code: :feature_not_supported}}} =
                          Postgres.query(tx, "select * from changing")
               end)

      # But the next one is told of the change.
      assert {:ok, ["a", "b"]} =
               Postgres.transaction(conn, fn tx ->
                 Postgres.query!(tx, "select * from changing").columns
               end)
    end

    test "when the server has dropped them", %{conn: conn} do
      for _ <- 1..3, do: assert(one!(conn, "select $1::int4", [1]) == 1)
      query = Postgres.prepare!(conn, "select 'p'")

      for sql <- ["discard all", "deallocate all"] do
        Postgres.query!(conn, sql)
        assert one!(conn, "select $1::int4", [1]) == 1
        assert {:ok, _, %{rows: [["p"]]}} = Postgres.execute(conn, query, [])
        for _ <- 1..3, do: assert(one!(conn, "select $1::int4", [1]) == 1)
      end
    end

    test "a few are kept, and those that are let go are closed", %{database: database} do
      conn = connect!(database, statement_cache: 10)
      for i <- 1..100, _ <- 1..2, do: assert(one!(conn, "select #{i}") == i)
      for _ <- 1..3, do: one!(conn, "select count(*) from pg_prepared_statements")
      assert one!(conn, "select count(*) from pg_prepared_statements") < 30
      assert :ets.info(Postgres.Session.fetch(conn).table, :size) < 30

      conn = connect!(database, statement_cache: 0)
      for i <- 1..100, _ <- 1..2, do: assert(one!(conn, "select #{i}") == i)
      assert one!(conn, "select count(*) from pg_prepared_statements") < 10
    end

    test "what is used most is kept", %{database: database} do
      conn = connect!(database, statement_cache: 10)

      for i <- 1..100 do
        one!(conn, "select #{i}")
        one!(conn, "select 'often'")
      end

      sql = "select count(*) from pg_prepared_statements where statement = 'select ''often'''"
      assert one!(conn, sql) == 1
    end

    test "without names", %{database: database} do
      conn = connect!(database, prepare: :unnamed)
      for i <- 1..4, do: assert(one!(conn, "select $1::int8", [i]) == i)
      query = Postgres.prepare!(conn, "select $1::text")
      assert {:ok, ^query, %{rows: [["x"]]}} = Postgres.execute(conn, query, ["x"])
      assert :ok = Postgres.close(conn, query)
      assert one!(conn, "select count(*) from pg_prepared_statements") == 0

      assert {:ok, [_, _]} =
               Postgres.pipeline(conn, [{"select $1::int8", [1]}, {"select $1::int8", [1]}])

      assert one!(conn, "select count(*) from pg_prepared_statements") == 0
    end
  end

  describe "types" do
    test "that are created after connecting", %{conn: conn} do
      name = "t#{System.unique_integer([:positive])}"
      Postgres.query!(conn, "create type #{name} as enum ('a', 'b')")
      Postgres.query!(conn, "create type c#{name} as (x int, y #{name}[])")
      assert one!(conn, "select 'b'::#{name}") == "b"
      assert one!(conn, "select $1::#{name}", ["a"]) == "a"
      assert one!(conn, "select $1::c#{name}", [{1, ["a", "b"]}]) == {1, ["a", "b"]}
      assert one!(conn, "select row(1, 'b'::#{name})") == {1, "b"}
      # Changed since the codec was made.
      assert one!(conn, "select row(1, array['a', 'b']::#{name}[])::c#{name}") == {1, ["a", "b"]}
      Postgres.query!(conn, "alter type c#{name} add attribute z text")
      assert one!(conn, "select row(1, null, 'z')::c#{name}") == {1, nil, "z"}
      for _ <- 1..3, do: assert(one!(conn, "select row(1, null, 'z')::c#{name}") == {1, nil, "z"})
    end

    test "without a binary form come as text", %{conn: conn} do
      for _ <- 1..3 do
        assert [["=r/postgres", 1, [1, 2]]] =
                 Postgres.query!(conn, "select '=r/postgres'::aclitem, 1, array[1, 2]").rows
      end
    end

    @tag integration: :jason
    test "json", %{conn: conn} do
      for _ <- 1..3 do
        assert one!(conn, "select $1::jsonb", [%{"a" => [1, nil]}]) == %{"a" => [1, nil]}
      end
    end
  end

  test "events", %{conn: conn} do
    if Code.ensure_loaded?(:telemetry) do
      me = self()
      id = make_ref()

      handler = &__MODULE__.forward/4

      apply(:telemetry, :attach, [id, [:causeway, :postgres, :query], handler, {me, id}])
      Postgres.query!(conn, "select 1 as event", [], telemetry_options: [a: 1])

      assert_receive {^id, _, %{duration: duration, rows: 1},
                      %{
                        query: "select 1 as event",
                        result: :ok,
                        connection: ^conn,
                        telemetry_options: [a: 1]
                      }}

      assert duration > 0
      Postgres.query(conn, "select 1 / 0 as event")

      assert_receive {^id, _, %{rows: 0},
                      %{query: "select 1 / 0 as event", result: :error, error: %Error{}}}

      apply(:telemetry, :detach, [id])
    end
  end

  def forward(name, measurements, metadata, {pid, id}),
    do: send(pid, {id, name, measurements, metadata})
end
