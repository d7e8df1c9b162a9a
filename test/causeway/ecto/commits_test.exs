defmodule Causeway.Ecto.CommitsTest do
  # Where commits are in the log, and reads on a real standby that wait for them.
  use Causeway.EctoCase, async: true

  @moduletag timeout: 120_000

  with_ecto do
    alias Causeway.Ecto.{Commit, LagError}
    doctest Causeway.Ecto.Commit

    defp last, do: Causeway.Ecto.last_commit(Repo)
    defp insert(opts), do: Repo.insert!(%Item{name: "#{System.unique_integer()}"}, opts)

    test "a commit is remembered when it is asked for" do
      insert([])
      assert last() == nil
      insert(last_commit: true)
      assert %Commit{lsn: lsn, xid: xid} = last()

      assert [[true, true]] =
               Repo.query!(
                 "select $1::int8 <= pg_current_wal_insert_lsn() - '0/0'::pg_lsn, " <>
                   "pg_xact_status(($2::int8)::text::xid8) = 'committed'",
                 [lsn, xid]
               ).rows

      # What writes nothing commits nowhere.
      Repo.all(Item, last_commit: true)
      assert last() == %Commit{lsn: lsn, xid: xid}
    end

    test "of a transaction" do
      assert {:ok, xid} =
               Repo.transaction(
                 fn ->
                   insert([])
                   insert(last_commit: true)
                   assert last() == nil
                   Repo.query!("select pg_current_xact_id()::text::int8").rows |> hd() |> hd()
                 end,
                 last_commit: true
               )

      assert %Commit{xid: ^xid, lsn: first} = last()

      Repo.transaction(fn -> insert([]) && Repo.rollback(:no) end, last_commit: true)
      assert %Commit{xid: ^xid} = last()
      Repo.transaction(fn -> insert([]) end, last_commit: true)
      assert last().lsn > first
    end

    @tag pool: [last_commit: true]
    test "always, when the configuration says so; each process has its own" do
      insert([])
      assert %Commit{} = mine = last()
      assert Task.await(task(fn -> last() end)) == nil
      other = Task.await(task(fn -> insert([]) && last() end))
      assert other.lsn > mine.lsn and last() == mine
      Repo.update_all(Item, set: [name: nil])
      Repo.delete_all(Item)
      assert last().lsn > other.lsn
    end

    test "a statement that fails commits nowhere" do
      assert {:error, _} =
               Repo.query("insert into items (price) values (-1)", [], last_commit: true)

      assert_raise DBConnection.EncodeError, fn ->
        Repo.query("insert into items values ($1)", ["x"], last_commit: true)
      end

      assert last() == nil
    end

    test "no place in the log" do
      for bad <- ["x", "1/", "/1", -1, :now, "0/1/2"] do
        assert_raise ArgumentError, ~r/option :after: expected a place in the log/, fn ->
          Repo.all(Item, after: bad)
        end
      end
    end

    describe "a standby" do
      setup do
        primary = PostgresServer.start!()
        standby = PostgresServer.standby!(primary, slot: "standby")
        options = [name: nil, pool_size: 3] ++ database(primary)
        use_pool(Repo, options)
        use_pool(Replica, [port: standby.port] ++ Keyword.delete(options, :port))
        {:ok, primary: primary, standby: standby}
      end

      defp replay(standby, what),
        do: PostgresServer.psql!(standby, "select pg_wal_replay_#{what}()")

      test "shows what was written, when it is waited for", %{standby: standby} do
        wait_for_table()

        for n <- 1..100 do
          %{id: id} = insert(last_commit: true)
          assert %Item{id: ^id} = Replica.get(Item, id, after: last())

          if n == 1,
            do: assert(%Item{} = Replica.get(Item, id, after: Commit.to_text(last().lsn)))

          assert {:ok, %Item{}} =
                   Replica.transaction(fn -> Replica.get(Item, id) end, after: last().lsn)
        end

        replay(standby, "pause")
        %{id: id} = insert(last_commit: true)
        assert Replica.get(Item, id) == nil

        error = catch_error(Replica.get(Item, id, after: last(), after_timeout: 100))
        assert %LagError{waited: 100} = error

        assert Exception.message(error) =~
                 ~r"has not replayed [0-9A-F]+/[0-9A-F]+ within 100 ms: it is at [0-9A-F]+/[0-9A-F]+, \d+ bytes behind"

        assert %LagError{} =
                 catch_error(
                   Replica.transaction(fn -> flunk("begun") end, after: last(), after_timeout: 50)
                 )

        commit = last()
        waiting = Task.async(with_replica(fn -> Replica.get(Item, id, after: commit) end))
        Process.sleep(100)
        replay(standby, "resume")
        assert %Item{id: ^id} = Task.await(waiting)

        assert {:ok, 101} =
                 Replica.transaction(fn -> Item |> Replica.stream() |> Enum.count() end,
                   after: last()
                 )
      end

      defp with_replica(fun) do
        replica = Replica.get_dynamic_repo()

        fn ->
          Replica.put_dynamic_repo(replica)
          fun.()
        end
      end

      defp wait_for_table do
        Causeway.Eventually.eventually(fn ->
          match?({:ok, _}, Replica.query("select from items"))
        end)
      end

      test "a standby that has been promoted does not wait", %{standby: standby} do
        PostgresServer.promote!(standby)
        assert Replica.all(Item, after: "FFFFFF/0") == []
        assert Repo.all(Item, after: "FFFFFF/0") == []
      end

      test "is found among hosts, and so is the primary", %{primary: primary, standby: standby} do
        hosts = "127.0.0.1:#{standby.port},127.0.0.1:#{primary.port}"
        [[database]] = Repo.query!("select current_database()::text").rows

        for {attrs, standby?} <- [{"read-write", false}, {"standby", true}] do
          use_pool(Repo,
            name: nil,
            log: false,
            conninfo: "postgresql://postgres@#{hosts}/#{database}?target_session_attrs=#{attrs}"
          )

          assert Repo.query!("select pg_is_in_recovery()").rows == [[standby?]]
        end
      end
    end
  end
end
