defmodule Causeway.Ecto.StreamsTest do
  # Streams of rows, and COPY.
  use Causeway.EctoCase, async: true

  with_ecto do
    # It takes a repository by the name that it runs under.
    defp stream(sql, params \\ [], opts \\ []),
      do: Ecto.Adapters.SQL.stream(Repo.get_dynamic_repo(), sql, params, opts)

    defp fill(n),
      do:
        Repo.query!(
          "insert into items (name) select 'item ' || i from generate_series(1, $1) i",
          [n]
        )

    defp in_transaction(fun, opts \\ []) do
      {:ok, result} = Repo.transaction(fun, opts)
      result
    end

    test "parts of any size, and other statements between two of them" do
      fill(1_000)

      for size <- [1_000, 999, 1_001, 500, 333, 7, 0] do
        ids =
          in_transaction(fn ->
            Item
            |> Repo.stream(max_rows: size)
            |> Stream.each(fn item -> if rem(item.id, 100) == 0, do: Repo.get!(Item, item.id) end)
            |> Enum.map(& &1.id)
          end)

        assert Enum.sort(ids) == Enum.to_list(1..1_000)
      end
    end

    test "two at once, one left early, none left open" do
      fill(100)

      in_transaction(fn ->
        a = Repo.stream(from(i in Item, order_by: i.id), max_rows: 10)
        b = Repo.stream(from(i in Item, order_by: [desc: i.id]), max_rows: 7)
        pairs = a |> Stream.zip(b) |> Enum.take(50)

        assert Enum.all?(pairs, fn {x, y} ->
                 x.id + y.id == elem(hd(pairs), 0).id + elem(hd(pairs), 1).id
               end)

        assert Repo.query!("select count(*) from pg_cursors where name <> ''").rows == [[0]]
      end)
    end

    test "what has no cursor" do
      rows = fn sql, params ->
        in_transaction(fn -> stream(sql, params) |> Enum.flat_map(& &1.rows) end)
      end

      assert length(rows.("insert into items (name) values ($1), ($2) returning id", ["a", "b"])) ==
               2

      assert rows.(
               "with x as (update items set name = $1 || id returning name) select count(*) from x",
               ["x"]
             ) == [[2]]

      assert rows.("with x as (select $1::int as n) select n from x", [5]) == [[5]]
      assert rows.("values ($1::int), (2)", [1]) == [[1], [2]]
      assert rows.("(select 1) union all (select 2)", []) == [[1], [2]]
      assert rows.(" /* x */ -- y\n table items", []) |> length() == 2
      assert [["UTC"]] = rows.("show timezone", [])
    end

    test "values that are refused, statements that fail" do
      assert {:error, :rollback} =
               Repo.transaction(fn ->
                 assert_raise DBConnection.EncodeError, fn ->
                   stream("select $1::int", ["x"]) |> Enum.to_list()
                 end

                 assert_raise Postgrex.Error, ~r/division_by_zero/, fn ->
                   stream("select 1 / (3 - i) from generate_series(1, 5) i", [], max_rows: 1)
                   |> Enum.to_list()
                 end
               end)

      assert Repo.query!("select 1").rows == [[1]]
    end

    test "not outside of a transaction" do
      assert_raise RuntimeError, ~r/outside of transaction/, fn ->
        Item |> Repo.stream() |> Enum.to_list()
      end
    end

    # ---- COPY ----

    @tag timeout: 120_000
    test "out and in again, more than fits anywhere" do
      Repo.query!("create table numbers (n int, t text)")
      lines = for n <- 1..200_000, do: "#{n}\tnumber #{n} is as long as this\n"

      into = fn data, sql ->
        in_transaction(fn -> Enum.into(data, stream(sql)) end, timeout: 60_000)
      end

      into.(lines, "COPY numbers FROM STDIN")

      assert Repo.query!("select count(*), sum(n) from numbers").rows == [
               [200_000, 20_000_100_000]
             ]

      for chunk <- [[IO.iodata_to_binary(lines)], Enum.chunk_every(lines, 1_000)] do
        Repo.query!("truncate numbers")
        into.(chunk, "COPY numbers FROM STDIN")
        assert Repo.query!("select count(*) from numbers").rows == [[200_000]]
      end

      out =
        in_transaction(fn ->
          stream("COPY numbers TO STDOUT") |> Enum.flat_map(& &1.rows)
        end)

      assert out == lines

      # Some of it: the rest is not waited for.
      assert [first | _] =
               in_transaction(fn ->
                 stream("COPY numbers TO STDOUT") |> Enum.take(1) |> hd()
               end).rows

      assert first == hd(lines)
      assert Repo.query!("select count(*) from numbers").rows == [[200_000]]
    end

    test "as a query" do
      fill(3)

      assert %{rows: ["item 1\n", "item 2\n", "item 3\n"], num_rows: 3, command: :copy} =
               Repo.query!("copy (select name from items order by id) to stdout")

      Repo.update_all(Item, set: [name: nil])

      assert Repo.query!("copy (select name || 'x' from items) to stdout (null '')").rows == [
               "\n",
               "\n",
               "\n"
             ]

      # Of CSV, a line may have more than one line.
      assert Repo.query!("copy (select E'a\\nb' as x) to stdout (format csv)").rows
             |> IO.iodata_to_binary() ==
               "\"a\nb\"\n"

      assert <<"PGCOPY\n", 255, "\r\n", 0, _::binary>> =
               Repo.query!("copy items to stdout (format binary)").rows |> IO.iodata_to_binary()

      assert {:error, %Postgrex.Error{postgres: %{code: :undefined_table}}} =
               Repo.query("copy nothing to stdout")

      assert {:error, %Postgrex.Error{postgres: %{code: :query_canceled}}} =
               Repo.query("copy (select pg_sleep(30)) to stdout", [], cancel_after: 50)

      assert {:error, %Postgrex.Error{postgres: %{code: :division_by_zero}}} =
               Repo.query(
                 "copy (select 1 / (3000 - i) from generate_series(1, 5000) i) to stdout"
               )

      assert Repo.query!("select 1").rows == [[1]]
    end

    test "what goes wrong on the way in" do
      assert {:error, :rollback} =
               Repo.transaction(fn ->
                 assert_raise Postgrex.Error, ~r/22P02/, fn ->
                   Enum.into(["x\n"], stream("COPY items (id) FROM STDIN"))
                 end

                 assert_raise Postgrex.Error, ~r/in_failed_sql_transaction/, fn ->
                   Repo.query!("select 1")
                 end
               end)

      assert Repo.query!("select 1").rows == [[1]]
    end

    test "whoever fills it fails: nothing is copied" do
      assert_raise RuntimeError, "full", fn ->
        in_transaction(fn ->
          1..10
          |> Stream.map(fn n -> if n == 9, do: raise("full"), else: "#{n}\n" end)
          |> Enum.into(stream("COPY items (id) FROM STDIN"))
        end)
      end

      assert Repo.aggregate(Item, :count) == 0
    end

    test "while one is under way the connection is for nothing else" do
      in_transaction(fn ->
        1..3
        |> Stream.map(fn n ->
          assert_raise ArgumentError, ~r/locked copying/, fn -> Repo.query!("select 1") end
          "#{n}\n"
        end)
        |> Enum.into(stream("COPY items (id) FROM STDIN"))
      end)

      assert Repo.aggregate(Item, :count) == 3
    end

    test "no COPY of that direction" do
      assert {:error, :rollback} =
               Repo.transaction(fn ->
                 catch_error(Enum.into(["1\n"], stream("select broken")))
               end)

      assert Repo.query!("select 1").rows == [[1]]
    end
  end
end
