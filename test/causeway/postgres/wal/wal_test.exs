defmodule Causeway.Postgres.WALTest do
  # What is delivered of each kind of change.
  use Causeway.WalCase, async: true

  setup :database

  test "whole transactions: xid, positions, time, changes in their order", context do
    sql!(context, "create table t (id int primary key, name text)")
    start_wal!(context)
    before = DateTime.utc_now()

    sql!(context, """
    begin;
    insert into t values (1, 'Ada'), (2, null);
    update t set name = 'Bob' where id = 2;
    delete from t where id = 1;
    commit
    """)

    transaction = next()

    assert changes(transaction) == [
             {:insert, "t", %{"id" => 1, "name" => "Ada"}},
             {:insert, "t", %{"id" => 2, "name" => nil}},
             {:update, "t", nil, %{"id" => 2, "name" => "Bob"}},
             {:delete, "t", %{"id" => 1}}
           ]

    assert %Transaction{part: nil, last: true, origin: nil} = transaction
    assert transaction.xid > 0
    assert transaction.commit_lsn < transaction.end_lsn
    assert DateTime.diff(transaction.commit_time, before, :second) in -1..60

    assert [relation] = transaction.changes |> Enum.map(& &1.relation) |> Enum.uniq()

    assert %Relation{schema: "public", table: "t", keys: ["id"], replica_identity: :default} =
             relation

    assert [%{name: "id", type: 23, key: true}, %{name: "name", type: 25, key: false}] =
             relation.columns

    # Nothing of what is rolled back, or of nothing.
    sql!(context, "begin; insert into t values (3, 'no'); rollback")

    sql!(
      context,
      "begin; savepoint s; insert into t values (4, 'no'); rollback to s; insert into t values (5, 'yes'); commit"
    )

    assert changes(next()) == [{:insert, "t", %{"id" => 5, "name" => "yes"}}]
  end

  test "keys that change, whole rows, other indexes", context do
    sql!(context, """
    create table t (id int primary key, code text not null unique, v text);
    create table whole (a int, b text);
    alter table whole replica identity full;
    create table other (id int primary key, code text not null unique, v text);
    alter table other replica identity using index other_code_key
    """)

    start_wal!(context)
    sql!(context, "insert into t values (1, 'one', 'x'); update t set id = 2")

    assert [
             {:insert, _, _},
             {:update, "t", %{"id" => 1}, %{"id" => 2, "code" => "one", "v" => "x"}}
           ] = changes(next())

    sql!(
      context,
      "insert into whole values (1, 'x'), (1, null); update whole set a = 2; delete from whole"
    )

    assert [_, _, one, two, {:delete, "whole", gone}, _] = changes(next())
    assert one == {:update, "whole", %{"a" => 1, "b" => "x"}, %{"a" => 2, "b" => "x"}}
    assert two == {:update, "whole", %{"a" => 1, "b" => nil}, %{"a" => 2, "b" => nil}}
    assert gone == %{"a" => 2, "b" => "x"}

    sql!(context, "insert into other values (1, 'one', 'x'); delete from other")
    assert %{changes: [_, delete]} = next()
    assert %Change{op: :delete, key: %{"code" => "one"}, old: nil, new: nil} = delete
    assert %Relation{keys: ["code"], replica_identity: :index} = delete.relation
    assert Change.identity(delete) == %{"code" => "one"}
  end

  test "a table without a key publishes inserts", context do
    sql!(context, "create table t (v text)")
    start_wal!(context)
    sql!(context, "insert into t values ('a'), ('a')")
    assert changes(next()) == [{:insert, "t", %{"v" => "a"}}, {:insert, "t", %{"v" => "a"}}]

    # The server refuses the rest itself.
    assert_raise RuntimeError, ~r/does not have a replica identity/, fn ->
      sql!(context, "update t set v = 'b'")
    end
  end

  test "an unchanged large value is not nil", context do
    sql!(context, "create table t (id int primary key, large text, n int)")
    sql!(context, "alter table t alter column large set storage external")
    start_wal!(context)
    sql!(context, "insert into t values (1, repeat('x', 10000), 1)")
    assert [{:insert, "t", %{"large" => large}}] = changes(next())
    assert large == String.duplicate("x", 10_000)

    sql!(context, "update t set n = 2")
    assert [{:update, "t", nil, new}] = changes(next())
    assert new == %{"id" => 1, "large" => :unchanged_toast, "n" => 2}
    sql!(context, "update t set large = null")
    assert [{:update, "t", nil, %{"large" => nil}}] = changes(next())

    # With the whole row, the old one has it.
    sql!(context, "update t set large = repeat('y', 10000); alter table t replica identity full")
    assert [_] = changes(next())
    sql!(context, "update t set n = 3")
    assert [{:update, "t", %{"large" => large, "n" => 2}, %{"n" => 3}}] = changes(next())
    assert large == String.duplicate("y", 10_000)
  end

  test "truncate", context do
    sql!(context, "create table a (id int primary key); create table b (a int references a)")
    start_wal!(context)
    sql!(context, "truncate a, b restart identity")

    assert [%Truncate{relations: [_, _] = relations, cascade: false, restart_identity: true}] =
             next().changes

    assert relations |> Enum.map(& &1.table) |> Enum.sort() == ["a", "b"]
    sql!(context, "truncate a cascade")

    assert [%Truncate{relations: [_ | _], cascade: true, restart_identity: false}] =
             next().changes
  end

  test "logical messages, of a transaction and not", context do
    sql!(context, "create table t (id int)")
    start_wal!(context, messages: true)

    sql!(context, """
    begin;
    insert into t values (1);
    select pg_logical_emit_message(true, 'app', 'in it');
    select pg_logical_emit_message(false, 'app', '\\xa1ff'::bytea);
    commit
    """)

    assert_receive {:message, %Message{transactional: false, prefix: "app"} = alone}, 5_000
    assert alone.content == <<0xA1, 0xFF>>
    assert [{:insert, "t", _}, {:message, "app", "in it"}] = changes(next())

    # Whatever becomes of the transaction.
    sql!(context, "begin; select pg_logical_emit_message(false, 'app', 'kept'); rollback")
    sql!(context, "insert into t values (2)")
    assert_receive {:message, %Message{content: "kept", lsn: lsn}}, 5_000
    assert lsn > alone.lsn
    assert [{:insert, "t", %{"id" => 2}}] = changes(next())
  end

  test "messages that nobody has asked for do not come, and hold nothing back", context do
    start_wal!(context)
    sql!(context, "select pg_logical_emit_message(true, 'app', 'x')")
    sql!(context, "select pg_logical_emit_message(false, 'app', 'x')")
    position = LSN.parse!(sql!(context, "select pg_current_wal_lsn()"))
    eventually(fn -> slot(context).confirmed >= position end)
    nothing(50)
    refute_received {:message, _}
  end

  test "origins, without a trailing zero", context do
    sql!(
      context,
      "create table t (id int); select pg_replication_origin_create('from_#{context.database}')"
    )

    start_wal!(context)

    sql!(context, """
    select pg_replication_origin_session_setup('from_#{context.database}');
    begin;
    select pg_replication_origin_xact_setup('0/ABC', now());
    insert into t values (1);
    commit
    """)

    assert next().origin == {"from_#{context.database}", 0xABC}
    sql!(context, "insert into t values (2)")
    assert next().origin == nil
    sql!(context, "select pg_replication_origin_drop('from_#{context.database}')")
  end

  test "values as terms and as the server's text", context do
    sql!(context, """
    create type mood as enum ('happy', 'sad');
    create domain positive as int check (value > 0);
    create type pair as (a int, b text);
    create table t (id int8 primary key, n numeric, f float8, at timestamptz, d date, u uuid, b bytea, j jsonb, a int[],
                    r int4range, m mood, p positive, c pair, i interval, ok bool, js json[])
    """)

    start_wal!(context)
    start_wal!(context, values: :text, slot: slot_name(context) <> "_text", publication: "p2")

    sql!(context, """
    insert into t values (1, 1.50, 0.1, '2024-01-02 03:04:05.678+00', '2024-01-02', '00000000-0000-0000-0000-00000000000a',
      '\\x00ff', '{"k": [1]}', '{1,null}', '[1,5)', 'sad', 7, '(1,x)', '1 day', true, array['{"z": 2}']::json[])
    """)

    rows = for _ <- 1..2, do: hd(next().changes).new
    {[text], [terms]} = Enum.split_with(rows, &(&1["id"] == "1"))

    assert %{
             "id" => 1,
             "f" => 0.1,
             "at" => ~U[2024-01-02 03:04:05.678000Z],
             "d" => ~D[2024-01-02]
           } = terms

    assert %{"a" => [1, nil], "m" => "sad", "p" => 7, "c" => {1, "x"}, "ok" => true} = terms
    assert %{"b" => <<0, 255>>, "u" => <<0::120, 10>>} = terms
    json? = Causeway.Postgres.Json.library() != nil
    assert terms["j"] == if(json?, do: %{"k" => [1]}, else: ~s({"k": [1]}))
    assert terms["js"] == if(json?, do: [%{"z" => 2}], else: [~s({"z": 2})])

    assert text == %{
             "id" => "1",
             "n" => "1.50",
             "f" => "0.1",
             "at" => "2024-01-02 03:04:05.678+00",
             "d" => "2024-01-02",
             "u" => "00000000-0000-0000-0000-00000000000a",
             "b" => "\\x00ff",
             "j" => ~s({"k": [1]}),
             "a" => "{1,NULL}",
             "r" => "[1,5)",
             "m" => "sad",
             "p" => "7",
             "c" => "(1,x)",
             "i" => "1 day",
             "ok" => "t",
             "js" => ~s({"{\\"z\\": 2}"})
           }
  end

  test "infinities, odd numbers, empty strings, names that need quotes", context do
    table = ~s("Odd ""schema"."Ünïcode table")

    sql!(
      context,
      ~s|create schema "Odd ""schema"; create table #{table} ("a b" float8, "c""d" text)|
    )

    start_wal!(context)
    sql!(context, "insert into #{table} values ('NaN', ''), ('-Infinity', 'é')")
    assert %{changes: [one, two]} = next()
    assert one.new == %{"a b" => :NaN, "c\"d" => ""}
    assert two.new == %{"a b" => :"-inf", "c\"d" => "é"}
    assert %Relation{schema: "Odd \"schema", table: "Ünïcode table"} = one.relation
  end

  test "more columns than fit on the stack, and rows of none", context do
    columns = for i <- 1..200, do: "c#{i} int default #{i}"

    sql!(
      context,
      "create table wide (id int primary key, #{Enum.join(columns, ", ")}); create table none ()"
    )

    start_wal!(context)

    sql!(
      context,
      "insert into wide values (1); delete from wide; insert into none default values"
    )

    assert [{:insert, "wide", row}, {:delete, "wide", key}, {:insert, "none", none}] =
             changes(next())

    assert map_size(row) == 201
    assert row["c200"] == 200
    assert key == %{"id" => 1}
    assert none == %{}
  end

  test "a value of many megabytes", context do
    sql!(context, "create table t (id int primary key, large text)")
    start_wal!(context, values: :text)

    sql!(
      context,
      "insert into t select 1, string_agg(md5(i::text), '') from generate_series(1, 200000) i"
    )

    assert [{:insert, "t", %{"large" => large}}] = changes(next(30_000))
    assert byte_size(large) == 32 * 200_000
    assert binary_part(large, 0, 32) == Base.encode16(:crypto.hash(:md5, "1"), case: :lower)
  end

  test "a million small transactions would be the same as these few thousand", context do
    sql!(context, "create table t (id int primary key)")
    wal = start_wal!(context)

    sql!(
      context,
      "do $$ begin for i in 1..3000 loop insert into t values (i); commit; end loop; end $$"
    )

    ids = for _ <- 1..3000, do: hd(next().changes).new["id"]
    assert ids == Enum.to_list(1..3000)
    assert %{transactions: 3000, changes: 3000, status: :streaming, error: nil} = WAL.info(wal)
  end
end
