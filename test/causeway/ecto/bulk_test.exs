defmodule Causeway.Ecto.BulkTest do
  # insert_all of many rows goes as arrays, and does what it does otherwise: everything twice, `bulk: false` and not.
  use Causeway.EctoCase, async: true

  with_ecto do
    @columns """
    id bigserial primary key, i2 int2, i4 int4, i8 int8, f4 float4, f8 float8, n numeric(10, 2), b bool, t text,
    v varchar(20), c char(3), y bytea, u uuid unique, d date, h time, ts timestamp, tz timestamptz, iv interval,
    j json, jb jsonb, r int4range, a inet, m mood, p percent, k text default 'none', x int generated always as (i4 * 2) stored
    """

    defp table do
      name = "many_#{System.unique_integer([:positive])}"
      Repo.query!("drop type if exists mood cascade")
      Repo.query!("drop domain if exists percent cascade")
      Repo.query!("create type mood as enum ('good', 'bad')")
      Repo.query!("create domain percent as int check (value between 0 and 100)")
      Repo.query!("create table #{name} (#{@columns})")
      name
    end

    defp row(n) do
      %{
        i2: n,
        i4: -n,
        i8: n * 1_000_000_007,
        f4: n * 0.5,
        f8: n / 3,
        n: Decimal.new("#{n}.25"),
        b: rem(n, 2) == 0,
        t: if(rem(n, 7) > 0, do: "text \"#{n}\", {ü}\\"),
        v: "",
        c: "ab ",
        y: <<0, n::32, 255>>,
        u: <<n::128>>,
        d: Date.add(~D[2026-01-01], n),
        h: ~T[01:02:03.000004],
        ts: ~N[2026-01-01 00:00:00.000001],
        tz: DateTime.add(~U[2026-01-01 00:00:00.000000Z], n),
        iv: %Postgrex.Interval{months: n, secs: 1},
        j: %{"n" => n},
        jb: [1, %{"n" => nil}] |> Map.new(&{"#{inspect(&1)}", n}),
        r: %Postgrex.Range{lower: n, upper: n + 5},
        a: %Postgrex.INET{address: {10, 0, 0, rem(n, 250)}},
        m: "bad",
        p: rem(n, 100),
        k: nil
      }
    end

    # What was run, as telemetry tells it.
    defp statements(fun) do
      me = self()
      id = make_ref()
      tell = fn _, _, %{query: query}, _ -> if self() == me, do: send(me, {id, query}) end
      :telemetry.attach(id, [:causeway, :ecto_case, :repo, :query], tell, nil)
      result = fun.()
      :telemetry.detach(id)
      {result, collect(id)}
    end

    defp collect(id) do
      receive do
        {^id, query} -> [query | collect(id)]
      after
        0 -> []
      end
    end

    defp twice(fun),
      do: for(opts <- [[], [bulk: false]], do: statements(fn -> fun.(table(), opts) end))

    defp all(table), do: Repo.query!("select * from #{table} order by id").rows

    test "every kind of value" do
      rows = for n <- 1..150, do: row(n)

      [{one, sent}, {other, _}] =
        twice(fn table, opts ->
          assert {150, nil} = Repo.insert_all(table, rows, opts)
          all(table)
        end)

      assert one == other

      assert Enum.any?(
               sent,
               &(&1 =~ ~r/^INSERT INTO "many_\d+" \(.*\) SELECT \* FROM unnest\(\$1,\$2,.*\$24\)$/)
             )
    end

    test "more rows than there are parameters" do
      rows = for n <- 1..30_000, do: %{i4: n, t: "x", b: true}
      table = table()
      assert {30_000, nil} = Repo.insert_all(table, rows)
      assert Repo.query!("select count(*), sum(x) from #{table}").rows == [[30_000, 900_030_000]]

      assert_raise Postgrex.QueryError, ~r/can not handle 90000 parameters/, fn ->
        Repo.insert_all(table, rows, bulk: false)
      end
    end

    test "returning, in order" do
      rows = for n <- 1..200, do: %{i4: n}

      for {{{200, returned}, _}, _} <-
            twice(fn table, opts ->
              {Repo.insert_all(table, rows, [returning: [:i4, :x]] ++ opts), nil}
            end) do
        assert returned == for(n <- 1..200, do: %{i4: n, x: n * 2})
      end
    end

    test "conflicts" do
      rows = for n <- 1..120, do: %{u: <<n::128>>, t: "new"}
      old = for n <- 1..20, do: %{u: <<n::128>>, t: "old"}

      for {on_conflict, count, new} <- [
            {:nothing, 100, 100},
            {{:replace, [:t]}, 120, 120},
            {[set: [t: "set"]], 120, 100}
          ] do
        opts = [on_conflict: on_conflict, conflict_target: :u]
        opts = if match?([set: _], on_conflict), do: opts, else: opts

        for {result, _} <-
              twice(fn table, more ->
                Repo.insert_all(table, old)
                {n, nil} = Repo.insert_all(table, rows, opts ++ more)
                {n, Repo.query!("select count(*) from #{table} where t = 'new'").rows}
              end) do
          assert result == {count, [[new]]}
        end
      end

      table = table()

      assert_raise Postgrex.Error, ~r/unique_violation/, fn ->
        Repo.insert_all(table, rows ++ rows)
      end

      assert all(table) == []
    end

    test "fields that are not in all rows have their defaults" do
      rows = for n <- 1..150, do: if(n == 75, do: %{i4: n, k: "one"}, else: %{i4: n})
      table = table()
      assert {150, nil} = Repo.insert_all(table, rows)

      assert Repo.query!("select k, count(*) from #{table} group by k order by k").rows == [
               ["none", 149],
               ["one", 1]
             ]
    end

    test "placeholders, queries, arrays: as ever" do
      rows = for n <- 1..150, do: %{i4: n, t: {:placeholder, :text}}
      table = table()
      assert {150, nil} = Repo.insert_all(table, rows, placeholders: %{text: "same"})
      assert {150, nil} = Repo.insert_all(table, from(r in table, select: %{i4: r.i4}))

      assert {150, nil} =
               Repo.insert_all(
                 Item,
                 for(n <- 1..150, do: %{name: "tagged #{n}", tags: ["a", "b"]})
               )

      # That the column is an array only the server knows.
      for n <- 1..2 do
        assert {150, nil} =
                 Repo.insert_all(
                   Item,
                   for(m <- 1..150, do: %{name: "untagged #{n}.#{m}", tags: nil})
                 )
      end
    end

    test "values that cannot be" do
      table = table()
      rows = for n <- 1..150, do: %{i4: if(n == 100, do: "x", else: n)}

      assert_raise DBConnection.EncodeError, ~r/expected an integer/, fn ->
        Repo.insert_all(table, rows)
      end

      rows = for n <- 1..150, do: %{p: n}
      assert_raise Postgrex.Error, ~r/percent/, fn -> Repo.insert_all(table, rows) end
      assert_raise Postgrex.Error, ~r/undefined_table/, fn -> Repo.insert_all("nowhere", rows) end

      assert_raise Postgrex.Error, ~r/undefined_column/, fn ->
        Repo.insert_all(table, for(n <- 1..150, do: %{no: n}))
      end

      assert all(table) == []
    end

    test "in a transaction, after the table was changed, without prepared statements" do
      table = table()
      rows = for n <- 1..150, do: %{i4: n}
      insert = fn rows -> {150, nil} = Repo.insert_all(table, rows) end
      assert {:ok, _} = Repo.transaction(fn -> insert.(rows) && insert.(rows) end)
      Repo.query!("alter table #{table} drop x, alter i4 type text")
      texts = for n <- 1..150, do: %{i4: "#{n}"}
      # A connection that has the old one finds out, once.
      refused = Enum.count(1..10, fn _ -> match?(%_{}, refusal(fn -> insert.(texts) end)) end)
      assert refused <= 3
      for _ <- 1..10, do: insert.(texts)
    end

    defp refusal(fun) do
      fun.()
      nil
    rescue
      error in [DBConnection.EncodeError, Postgrex.Error] -> error
    end

    @tag pool: [prepare: :unnamed]
    test "without prepared statements" do
      table = table()
      rows = for n <- 1..150, do: %{i4: n}
      for _ <- 1..3, do: assert({150, nil} = Repo.insert_all(table, rows))
      assert Repo.query!("select count(*) from pg_prepared_statements").rows == [[0]]
    end

    @tag pool: [bulk: 3]
    test "from how many on, the configuration may say" do
      table = table()

      sent = fn rows, opts ->
        statements(fn -> Repo.insert_all(table, rows, opts) end) |> elem(1) |> hd()
      end

      assert sent.([%{i4: 1}, %{i4: 2}], []) =~ "VALUES"
      assert sent.([%{i4: 1}, %{i4: 2}, %{i4: 3}], []) =~ "unnest"
      assert sent.([%{i4: 1}, %{i4: 2}, %{i4: 3}], bulk: false) =~ "VALUES"
    end
  end
end
