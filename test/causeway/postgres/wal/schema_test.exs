defmodule Causeway.Postgres.WAL.SchemaTest do
  # Tables that change while they are read.
  use Causeway.WalCase, async: true

  setup :database

  defp names(%{changes: [%{relation: relation} | _]}), do: Enum.map(relation.columns, & &1.name)

  test "columns that are added, dropped, renamed, retyped; each change with the table as it was",
       context do
    sql!(context, "create table t (id int primary key, a text)")
    start_wal!(context)

    # Without a pause in between, so that they come in one frame.
    sql!(context, """
    insert into t values (1, 'one');
    alter table t add column b int default 7;
    insert into t values (2, 'two', 2);
    alter table t rename column a to c;
    insert into t values (3, 'three', 3);
    alter table t alter column b type text;
    insert into t values (4, 'four', 'four');
    alter table t drop column c;
    insert into t values (5, 'five');
    update t set b = 'one' where id = 1;
    alter table t rename to u;
    insert into u values (6, 'six')
    """)

    # psql sends them as one transaction.
    assert changes(next()) == [
             {:insert, "t", %{"id" => 1, "a" => "one"}},
             {:insert, "t", %{"id" => 2, "a" => "two", "b" => 2}},
             {:insert, "t", %{"id" => 3, "c" => "three", "b" => 3}},
             {:insert, "t", %{"id" => 4, "c" => "four", "b" => "four"}},
             {:insert, "t", %{"id" => 5, "b" => "five"}},
             {:update, "t", nil, %{"id" => 1, "b" => "one"}},
             {:insert, "u", %{"id" => 6, "b" => "six"}}
           ]
  end

  test "each in a transaction of its own", context do
    sql!(context, "create table t (id int primary key, a text)")
    start_wal!(context)

    for statement <- [
          "insert into t values (1, 'one')",
          "alter table t add column b int default 7",
          "insert into t values (2, 'two', 2)",
          "alter table t rename column a to c",
          "insert into t values (3, 'three', 3)",
          "alter table t alter column b type text",
          "insert into t values (4, 'four', 'four')",
          "alter table t drop column c",
          "insert into t values (5, 'five')"
        ],
        do: sql!(context, statement)

    # A table that is written anew does not tell its rows, which are the same.
    transactions = for _ <- 1..5, do: next()

    assert Enum.flat_map(transactions, &changes/1) == [
             {:insert, "t", %{"id" => 1, "a" => "one"}},
             {:insert, "t", %{"id" => 2, "a" => "two", "b" => 2}},
             {:insert, "t", %{"id" => 3, "c" => "three", "b" => 3}},
             {:insert, "t", %{"id" => 4, "c" => "four", "b" => "four"}},
             {:insert, "t", %{"id" => 5, "b" => "five"}}
           ]

    assert Enum.map(transactions, &names/1) ==
             [~w(id a), ~w(id a b), ~w(id c b), ~w(id c b), ~w(id b)]
  end

  test "a table that is dropped, and made again", context do
    sql!(context, "create table t (id int primary key); create table other (id int)")
    start_wal!(context)
    sql!(context, "insert into t values (1)")
    sql!(context, "drop table t")
    sql!(context, "insert into other values (1)")
    sql!(context, "create table t (id text primary key, more int)")
    sql!(context, "insert into t values ('a', 2)")

    assert [one, two, three] = for(_ <- 1..3, do: next())
    assert changes(one) == [{:insert, "t", %{"id" => 1}}]
    assert changes(two) == [{:insert, "other", %{"id" => 1}}]
    assert changes(three) == [{:insert, "t", %{"id" => "a", "more" => 2}}]
    [%{relation: before}] = one.changes
    [%{relation: now}] = three.changes
    assert before.oid != now.oid
  end

  test "dropped and made again while nobody reads", context do
    sql!(context, "create table t (id int primary key)")
    stop_wal(start_wal!(context))
    sql!(context, "insert into t values (1)")
    sql!(context, "alter table t add column a int")
    sql!(context, "insert into t values (2, 2)")
    sql!(context, "drop table t")
    sql!(context, "create table t (b text)")
    sql!(context, "insert into t values ('x')")
    start_wal!(context)

    assert Enum.flat_map(1..3, fn _ -> changes(next()) end) == [
             {:insert, "t", %{"id" => 1}},
             {:insert, "t", %{"id" => 2, "a" => 2}},
             {:insert, "t", %{"b" => "x"}}
           ]
  end

  test "partitions, by themselves and as their root", context do
    sql!(context, """
    create table p (id int primary key, v text) partition by range (id);
    create table p_low partition of p for values from (0) to (10);
    create table p_high (v text, id int not null);
    alter table p attach partition p_high for values from (10) to (20)
    """)

    start_wal!(context)

    start_wal!(context,
      slot: slot_name(context) <> "_root",
      publication: "root",
      create_publication: [via_root: true]
    )

    sql!(
      context,
      "insert into p values (1, 'low'), (11, 'high'); update p set id = 12 where id = 1"
    )

    [root, own] =
      for(_ <- 1..2, do: changes(next())) |> Enum.sort_by(fn [{_, table, _} | _] -> table end)

    assert root == [
             {:insert, "p", %{"id" => 1, "v" => "low"}},
             {:insert, "p", %{"id" => 11, "v" => "high"}},
             {:delete, "p", %{"id" => 1}},
             {:insert, "p", %{"id" => 12, "v" => "low"}}
           ]

    assert own == [
             {:insert, "p_low", %{"id" => 1, "v" => "low"}},
             {:insert, "p_high", %{"id" => 11, "v" => "high"}},
             {:delete, "p_low", %{"id" => 1}},
             {:insert, "p_high", %{"id" => 12, "v" => "low"}}
           ]
  end

  test "another replica identity", context do
    sql!(context, "create table t (id int primary key, v text)")
    start_wal!(context)
    sql!(context, "insert into t values (1, 'a'), (2, 'b'), (3, 'c')")
    sql!(context, "alter table t replica identity full")
    sql!(context, "delete from t where id = 1")
    sql!(context, "alter table t replica identity nothing")
    sql!(context, "insert into t values (4, 'd')")
    sql!(context, "alter table t replica identity default")
    sql!(context, "delete from t where id = 2")
    next()
    assert [%Change{old: %{"id" => 1, "v" => "a"}, key: nil, relation: full}] = next().changes
    assert full.replica_identity == :full
    assert [%Change{op: :insert, relation: nothing} = change] = next().changes
    assert nothing.replica_identity == :nothing
    assert nothing.keys == []
    assert Change.identity(change) == nil

    assert [%Change{old: nil, key: %{"id" => 2}, relation: %{replica_identity: :default}}] =
             next().changes
  end

  test "types that are made, altered and dropped on the way", context do
    sql!(context, "create table t (id int primary key)")
    start_wal!(context)
    sql!(context, "create type mood as enum ('happy')")
    sql!(context, "alter table t add column m mood")
    sql!(context, "insert into t values (1, 'happy')")
    assert changes(next()) == [{:insert, "t", %{"id" => 1, "m" => "happy"}}]
    sql!(context, "alter type mood add value 'sad'")
    sql!(context, "insert into t values (2, 'sad')")
    assert changes(next()) == [{:insert, "t", %{"id" => 2, "m" => "sad"}}]
    sql!(context, "create type pair as (a int, m mood); alter table t add column p pair")
    sql!(context, "insert into t values (3, 'sad', (1, 'happy'))")
    assert [{:insert, "t", %{"p" => {1, "happy"}}}] = changes(next())

    # A composite that has grown: its values have another number of fields than what is known of it.
    sql!(context, "alter type pair add attribute b text")
    sql!(context, "insert into t values (4, 'sad', (1, 'happy', 'x'))")
    assert [{:insert, "t", %{"p" => {1, "happy", "x"}}}] = changes(next())
  end

  test "composites that were altered before they are read are what they were", context do
    start_wal!(context) |> stop_wal()

    sql!(context, """
    create type pair as (a int, b text);
    create type other as (p pair, x jsonb);
    create table t (id int primary key, p pair, q pair[], o other);
    insert into t values (1, (1, 'x'), array[(2, 'y')::pair], ((3, 'z'), '[1]'))
    """)

    sql!(context, "alter type pair add attribute c int; alter type other drop attribute x")
    sql!(context, "insert into t values (2, (1, 'x', 9), null, null)")
    # As many as now, of other types.
    sql!(context, "alter type pair drop attribute b; alter type pair add attribute d bool")
    sql!(context, "insert into t values (3, (1, 9, true), null, null)")
    wal = start_wal!(context, json: nil)

    assert [{:insert, "t", row}] = changes(next())
    assert row == %{"id" => 1, "p" => {1, "x"}, "q" => [{2, "y"}], "o" => {{3, "z"}, "[1]"}}
    assert [{:insert, "t", %{"id" => 2, "p" => {1, "x", 9}}}] = changes(next())
    assert [{:insert, "t", %{"id" => 3, "p" => {1, 9, true}}}] = changes(next())
    assert WAL.info(wal).connects == 1
  end

  test "types that were dropped before they are read", context do
    start_wal!(context) |> stop_wal()

    sql!(context, """
    create type mood as enum ('happy', 'sad');
    create type pair as (a int, m mood);
    create table t (id int primary key, m mood, n mood[], p pair, q pair[]);
    create domain few as int[];
    create table u (id int primary key, f few);
    insert into t values (1, 'sad', '{happy,sad}', (7, 'sad'), array[(8, 'happy')::pair]);
    insert into u values (1, '{{1,2},{3,null}}')
    """)

    sql!(context, "drop table t, u; drop type pair, mood; drop domain few")
    sql!(context, "create table v (id int primary key); insert into v values (1)")
    wal = start_wal!(context)
    [{:insert, "t", row}, {:insert, "u", few}] = changes(next())
    assert row["m"] == {:undecoded, "sad"}
    assert row["n"] == [undecoded: "happy", undecoded: "sad"]
    assert row["p"] == {7, {:undecoded, "sad"}}
    assert row["q"] == [{8, {:undecoded, "happy"}}]
    assert few == %{"id" => 1, "f" => [[1, 2], [3, nil]]}
    assert changes(next()) == [{:insert, "v", %{"id" => 1}}]
    assert WAL.info(wal).connects == 1
  end

  test "columns and rows that are not published", context do
    if PostgresServer.release() >= 15 do
      sql!(context, """
      create table t (id int primary key, public text, secret text);
      create publication q for table t (id, public) where (id < 10)
      """)

      start_wal!(context, publication: "q", create_publication: nil)
      sql!(context, "insert into t values (1, 'a', 's'), (11, 'b', 's')")
      assert changes(next()) == [{:insert, "t", %{"id" => 1, "public" => "a"}}]
      sql!(context, "alter publication q set table t (id, secret)")
      sql!(context, "insert into t values (2, 'a', 's')")
      assert changes(next()) == [{:insert, "t", %{"id" => 2, "secret" => "s"}}]
    end
  end
end
