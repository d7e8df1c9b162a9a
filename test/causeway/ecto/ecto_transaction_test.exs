defmodule Causeway.Ecto.TransactionTest do
  # BEGIN goes along with a transaction's first statement, whatever that is; otherwise transactions are Postgrex's.
  use Causeway.EctoCase, async: true

  with_ecto do
    alias Ecto.Adapters.SQL

    defmodule Peer do
      use Ecto.Repo, otp_app: :causeway, adapter: Ecto.Adapters.Postgres
    end

    defp rows(sql, params \\ []), do: Repo.query!(sql, params).rows
    defp count, do: Repo.aggregate(Item, :count)
    defp stream(repo \\ Repo, sql), do: SQL.stream(repo.get_dynamic_repo(), sql)

    # What the server says of our connection, asked by another one.
    defp seen(pid) do
      sql = "select state, xact_start is not null, query from pg_stat_activity where pid = $1"
      [seen] = Task.await(task(fn -> rows(sql, [pid]) end))
      seen
    end

    test "the server hears of it with the first statement, and not at all if there is none" do
      Repo.checkout(fn ->
        [[pid]] = rows("select pg_backend_pid()")

        Repo.transaction(fn ->
          assert Repo.in_transaction?()
          assert ["idle", false, "select pg_backend_pid()"] = seen(pid)
          rows("select 1")
          assert ["idle in transaction", true, "select 1"] = seen(pid)
        end)

        assert ["idle", false, "COMMIT"] = seen(pid)
        rows("select 2")
        assert {:ok, :ok} = Repo.transaction(fn -> :ok end)
        assert {:error, :no} = Repo.transaction(fn -> Repo.rollback(:no) end)

        assert {:error, :rollback} =
                 Repo.transaction(fn -> Repo.transaction(fn -> Repo.rollback(:no) end) end)

        assert_raise Postgrex.Error, ~r/:commit_comment/, fn ->
          Repo.transaction(fn -> :ok end, commit_comment: "*/")
        end
      end)

      Repo.checkout(fn ->
        [[pid]] = rows("select pg_backend_pid()")
        Repo.transaction(fn -> :ok end)
        refute Repo.in_transaction?()
        assert ["idle", false, "select pg_backend_pid()"] = seen(pid)
      end)
    end

    for {what, first} <- [
          {"a query", quote(do: Repo.all(Item))},
          {"a statement that writes", quote(do: Repo.insert!(%Item{price: 1}))},
          {"one without a name", quote(do: rows("insert into items default values"))},
          {"a command", quote(do: rows("create temp table made (n int) on commit drop"))},
          {"one between savepoints", quote(do: Repo.insert!(%Item{}, mode: :savepoint))},
          {"one that is undone", quote(do: {:error, _} = Repo.query("x", [], mode: :savepoint))},
          {"several", quote(do: Repo.query_many!("select 1; insert into items default values"))},
          {"many rows", quote(do: Repo.insert_all(Item, for(_ <- 1..150, do: %{price: 1})))},
          {"a stream", quote(do: Item |> Repo.stream() |> Enum.to_list())},
          {"a copy in", quote(do: Enum.into(["1\n"], stream("copy items (price) from stdin")))},
          {"a copy out", quote(do: Enum.to_list(stream("copy items to stdout")))},
          {"a copy out as a query", quote(do: rows("copy items to stdout"))}
        ] do
      test "first comes #{what}" do
        # Twice: what is prepared the first time is not so the second.
        for ending <- [:commit, :rollback, :raise, :commit, :rollback, :raise] do
          before = count()

          result =
            tried(fn ->
              Repo.transaction(fn ->
                unquote(first)
                assert rows("select now() < statement_timestamp()") == [[true]]
                Repo.insert!(%Item{})
                if ending == :rollback, do: Repo.rollback(:no)
                if ending == :raise, do: raise("no")
                count()
              end)
            end)

          case ending do
            :commit -> assert result == {:ok, count()} and count() > before
            :rollback -> assert result == {:error, :no} and count() == before
            :raise -> assert result == %RuntimeError{message: "no"} and count() == before
          end
        end
      end
    end

    defp tried(fun) do
      fun.()
    rescue
      error -> error
    end

    test "modes" do
      Repo.transaction(fn ->
        rows("set transaction isolation level serializable, read only")
        assert rows("show transaction_isolation") == [["serializable"]]

        assert {:error, %{postgres: %{code: :read_only_sql_transaction}}} =
                 Repo.query("delete from items")
      end)

      assert rows("show transaction_isolation") == [["read committed"]]
    end

    test "the first fails: so does the transaction" do
      for fail <- [
            fn -> Repo.query("select 1/0") end,
            fn -> Repo.query("select 1/$1::int", [0]) end,
            fn -> Repo.query("selct") end,
            fn -> Repo.query_many("select 1; select 1/0") end,
            fn -> Repo.query("copy nothing to stdout") end,
            fn -> Repo.query("select pg_sleep(10)", [], cancel_after: 20) end
          ] do
        assert {:error, :rollback} =
                 Repo.transaction(fn ->
                   assert {:error, %Postgrex.Error{}} = fail.()

                   assert {:error, %{postgres: %{code: :in_failed_sql_transaction}}} =
                            Repo.query("select 1")
                 end)

        assert rows("select 1") == [[1]]
      end
    end

    test "a value that is refused is no statement" do
      assert {:ok, 1} =
               Repo.transaction(fn ->
                 assert_raise DBConnection.EncodeError, fn -> rows("select $1::int", ["x"]) end
                 Repo.insert!(%Item{})
                 count()
               end)

      assert count() == 1
    end

    @tag pool: [pool_size: 1]
    test "the connection is lost before the first" do
      [[pid]] = rows("select pg_backend_pid()")
      server = PostgresServer.shared()

      assert_raise Postgrex.Error, ~r/admin_shutdown/, fn ->
        Repo.transaction(fn ->
          PostgresServer.psql!(server, "select pg_terminate_backend(#{pid})")
          Causeway.Eventually.eventually(fn -> pid not in PostgresServer.backends(server) end)
          Repo.insert!(%Item{})
        end)
      end

      assert count() == 0
      assert Process.info(self(), :messages) == {:messages, []}
    end

    test "where it commits, and that it does not" do
      last = fn -> Causeway.Ecto.last_commit(Repo) end
      assert {:ok, _} = Repo.transaction(fn -> :ok end, last_commit: true)
      assert last.() == nil
      assert {:ok, _} = Repo.transaction(fn -> Repo.insert!(%Item{}) end, last_commit: true)
      assert %{xid: xid} = last.()

      assert {:error, :rollback} = Repo.transaction(fn -> Repo.query("x") end, last_commit: true)

      assert %{xid: ^xid} = last.()
    end

    test "telemetry tells of all three, and the first statement's time has BEGIN's in it" do
      me = self()
      id = make_ref()
      tell = fn _, times, %{query: query}, _ -> if self() == me, do: send(me, {query, times}) end
      :telemetry.attach(id, [:causeway, :ecto_case, :repo, :query], tell, nil)
      Repo.transaction(fn -> rows("select 1") end)
      :telemetry.detach(id)
      assert_received {"begin", %{query_time: _, queue_time: _}}
      assert_received {"select 1", %{query_time: _}}
      assert_received {"commit", %{query_time: _}}
    end

    # ---- beside Postgrex ----

    # The same steps by either adapter: what each step gives, and what is there at the end.
    test "any steps give what they do with Ecto.Adapters.Postgres", %{options: options} do
      use_pool(Peer, [name: nil, pool_size: 1] ++ options)
      :rand.seed(:exsss, ExUnit.configuration()[:seed])

      for _ <- 1..200 do
        steps = steps(3)
        ours = outcome(Repo, steps)
        assert {steps, ours} == {steps, outcome(Peer, steps)}
      end
    end

    defp outcome(repo, steps) do
      repo.query!("truncate items restart identity")
      result = step(repo, {:caught, steps})
      {result, repo.query!("select id, name from items order by id").rows}
    end

    @steps [:insert, :twice, :twice_saved, :count, :count_saved, :fail, :fail_saved, :refused] ++
             [:savepoint, :back, :stream, :copy_in, :copy_bad, :copy_out, :rollback, :raise]

    defp steps(depth) do
      for _ <- 1..(:rand.uniform(4) - 1)//1 do
        if depth > 0 and :rand.uniform(4) == 1,
          do: {Enum.random([:inner, :caught]), steps(depth - 1)},
          else: Enum.random(@steps)
      end
    end

    defp step(repo, {:inner, steps}),
      do: repo.transaction(fn -> Enum.map(steps, &step(repo, &1)) end) |> plain()

    defp step(repo, {:caught, steps}), do: plain(fn -> step(repo, {:inner, steps}) end)
    defp step(repo, :insert), do: plain(repo.query("insert into items default values"))
    defp step(repo, :twice), do: plain(repo.query(twice()))
    defp step(repo, :twice_saved), do: plain(repo.query(twice(), [], mode: :savepoint))
    defp step(repo, :count), do: plain(fn -> repo.aggregate(Item, :count) end)
    defp step(repo, :count_saved), do: plain(repo.query(count_sql(), [0], mode: :savepoint))
    defp step(repo, :fail), do: plain(repo.query("select 1/$1::int", [0]))
    defp step(repo, :fail_saved), do: plain(repo.query("select 1/0", [], mode: :savepoint))
    defp step(repo, :refused), do: plain(fn -> repo.query("select $1::int", ["x"]) end)
    defp step(repo, :savepoint), do: plain(repo.query("savepoint mine"))
    defp step(repo, :back), do: plain(repo.query("rollback to savepoint mine"))
    defp step(repo, :copy_in), do: plain(fn -> copy_in(repo, "7\n") end)
    defp step(repo, :copy_bad), do: plain(fn -> copy_in(repo, "x\n") end)

    defp step(repo, :copy_out),
      do: plain(fn -> Enum.to_list(stream(repo, "copy items to stdout")) end)

    defp step(repo, :stream), do: plain(fn -> Item |> repo.stream() |> Enum.map(& &1.id) end)
    defp step(repo, :rollback), do: repo.rollback(:no)
    defp step(_repo, :raise), do: raise("no")

    defp twice, do: "insert into items (name) values ('one')"
    defp count_sql, do: "select count(*) from items where id > $1"

    defp copy_in(repo, line),
      do: Enum.into([line], stream(repo, "copy items (price) from stdin")) && :in

    defp plain(fun) when is_function(fun) do
      plain(fun.())
    rescue
      error -> plain({:error, error})
    end

    defp plain({:ok, %Postgrex.Result{} = result}),
      do: {result.command, result.num_rows, result.rows}

    defp plain({:error, %Postgrex.Error{postgres: %{code: code}}}), do: code
    defp plain({:error, %error{}}), do: error
    defp plain([%Postgrex.Result{} | _] = parts), do: Enum.flat_map(parts, & &1.rows)
    defp plain(other), do: other
  end
end
