defmodule Causeway.Ecto.SandboxTest do
  # Ecto's sandbox over the adapter: whose connection it is, and that nothing a test does ends the sandbox's transaction.
  use Causeway.EctoCase, async: true

  @moduletag :no_pool

  with_ecto do
    alias Ecto.Adapters.SQL.Sandbox

    defmodule Boxed do
      use Ecto.Repo, otp_app: :causeway, adapter: Causeway.Ecto.Adapter
    end

    # A pool for each test; the sandbox knows it by its process.
    setup %{options: options} do
      use_pool(Boxed, [name: nil, pool: Sandbox, pool_size: 4] ++ options)
      pool = Boxed.get_dynamic_repo()
      Sandbox.mode(pool, :manual)
      {:ok, pool: pool}
    end

    defp insert(name), do: Boxed.insert!(%Item{name: name})
    defp names, do: Boxed.all(from(i in Item, select: i.name, order_by: i.id))

    defp elsewhere(pool, fun) do
      Task.async(fn ->
        Boxed.put_dynamic_repo(pool)
        fun.()
      end)
    end

    defp sees(pool, fun), do: pool |> elsewhere(fun) |> Task.await()

    test "nobody owns a connection unless it is given one", %{pool: pool} do
      assert_raise DBConnection.OwnershipError, fn -> names() end
      assert :ok = Sandbox.checkout(pool)
      assert {:already, :owner} = Sandbox.checkout(pool)
      assert names() == []
      assert :ok = Sandbox.checkin(pool)
      assert_raise DBConnection.OwnershipError, fn -> names() end
    end

    test "each has its own, and nothing of it stays", %{pool: pool} do
      Sandbox.checkout(pool)
      insert("mine")

      assert ["theirs"] ==
               sees(pool, fn ->
                 Sandbox.checkout(pool)
                 insert("theirs")
                 names()
               end)

      assert names() == ["mine"]
      Sandbox.checkin(pool)
      Sandbox.checkout(pool)
      assert names() == []
      assert Sandbox.unboxed_run(pool, fn -> names() end) == []
    end

    test "allowances and shared mode", %{pool: pool} do
      Sandbox.checkout(pool)
      insert("mine")
      me = self()

      assert ["mine"] ==
               sees(pool, fn ->
                 assert :ok = Sandbox.allow(pool, me, self())
                 names()
               end)

      other = fn -> catch_error(names()).__struct__ end
      assert sees(pool, fn -> spawned(pool, other) end) == DBConnection.OwnershipError
      Sandbox.mode(pool, {:shared, self()})
      assert sees(pool, fn -> spawned(pool, &names/0) end) == ["mine"]
    end

    # By a process that is no task of the owner's.
    defp spawned(pool, fun) do
      me = self()

      spawn(fn ->
        Boxed.put_dynamic_repo(pool)
        send(me, {:spawned, fun.()})
      end)

      assert_receive {:spawned, result}
      result
    end

    for {what, fail} <- [
          {"a query", quote(do: Boxed.query("select 1/0"))},
          {"one with parameters", quote(do: Boxed.query("select 1/$1::int", [0]))},
          {"one that is no SQL", quote(do: Boxed.query("selct"))},
          {"a constraint", quote(do: Boxed.insert(unique("one")))},
          {"several", quote(do: Boxed.query_many("select 1; select 1/0"))},
          {"a copy out", quote(do: Boxed.query("copy nothing to stdout"))},
          {"a deadline", quote(do: Boxed.query("select pg_sleep(9)", [], cancel_after: 20))},
          {"a transaction", quote(do: Boxed.transaction(fn -> Boxed.query("select 1/0") end))},
          {"many rows", quote(do: many(["one" | Enum.map(1..150, &"#{&1}")]))},
          {"a stream", quote(do: in_transaction(fn -> Enum.to_list(stream("select 1/0")) end))},
          {"a copy in",
           quote(
             do:
               in_transaction(fn ->
                 Enum.into(["x\n"], stream("copy items (price) from stdin"))
               end)
           )}
        ] do
      test "it goes on after what fails: #{what}", %{pool: pool} do
        Sandbox.checkout(pool)
        insert("one")

        # Twice: what is prepared the first time is not so the second.
        for _ <- 1..2 do
          assert {:error, _} = unquote(fail)
          assert names() == ["one"]
        end

        Sandbox.checkin(pool)
        assert Sandbox.unboxed_run(pool, fn -> names() end) == []
      end
    end

    test "what does not fail: all kinds", %{pool: pool} do
      Sandbox.checkout(pool)

      assert [%{rows: [[1]]}, %{command: :insert}] =
               Boxed.query_many!("select 1; insert into items default values")

      assert %{rows: [[_]]} =
               Boxed.query!("copy items (id) to stdout") |> Map.update!(:rows, &[&1])

      {:ok, _} =
        in_transaction(fn -> Enum.into(["5\n"], stream("copy items (price) from stdin")) end)

      assert {:ok, [_, _]} = in_transaction(fn -> Enum.to_list(Boxed.stream(Item)) end)

      assert {:ok, [%{rows: [_, _]}]} =
               in_transaction(fn -> Enum.to_list(stream("copy items to stdout")) end)

      assert {:ok, :inner} = in_transaction(fn -> elem(in_transaction(fn -> :inner end), 1) end)
      assert {:error, :no} = in_transaction(fn -> insert("no") && Boxed.rollback(:no) end)
      assert {150, nil} = Boxed.insert_all(Item, for(_ <- 1..150, do: %{price: 1}))
      assert length(names()) == 152
      insert("last")
      assert Causeway.Ecto.last_commit(Boxed) == nil
    end

    test "where it commits is not known, as it does not", %{pool: pool} do
      Sandbox.checkout(pool)
      Boxed.insert!(%Item{}, last_commit: true)
      Boxed.transaction(fn -> insert("x") end, last_commit: true)
      assert Causeway.Ecto.last_commit(Boxed) == nil
      assert [_, _] = Boxed.all(Item, after: "0/1")
    end

    test "of another isolation, and without savepoints", %{pool: pool} do
      Sandbox.checkout(pool, isolation: "serializable")
      assert Boxed.query!("show transaction_isolation").rows == [["serializable"]]
      Sandbox.checkin(pool)
      Sandbox.checkout(pool)
      assert {:error, _} = Boxed.query("select 1/0", [], sandbox_subtransaction: false)

      assert {:error, %{postgres: %{code: :in_failed_sql_transaction}}} =
               Boxed.query("select 1", [], sandbox_subtransaction: false)

      Sandbox.checkin(pool)
      Sandbox.checkout(pool)
      assert names() == []
    end

    test "an owner ends, in the middle of a query", %{pool: pool} do
      {:ok, owner} =
        Task.start(fn ->
          Boxed.put_dynamic_repo(pool)
          Sandbox.checkout(pool)
          insert("gone")
          Boxed.query!("select pg_sleep(60)")
        end)

      Process.sleep(100)
      Process.exit(owner, :kill)
      for _ <- 1..5, do: assert([] == sees(pool, fn -> Sandbox.checkout(pool) && names() end))
    end

    defp unique(name),
      do: %Item{} |> Ecto.Changeset.change(name: name) |> Ecto.Changeset.unique_constraint(:name)

    defp stream(sql), do: Ecto.Adapters.SQL.stream(Boxed.get_dynamic_repo(), sql)

    defp many(names) do
      {:ok, Boxed.insert_all(Item, for(name <- names, do: %{name: name}))}
    rescue
      error in Postgrex.Error -> {:error, error}
    end

    defp in_transaction(fun) do
      Boxed.transaction(fun)
    rescue
      error in Postgrex.Error -> {:error, error}
    end
  end
end
