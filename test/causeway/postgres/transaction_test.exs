defmodule Causeway.Postgres.TransactionTest do
  use Causeway.PostgresCase, async: true

  setup %{database: database} do
    table = "t#{System.unique_integer([:positive])}"
    conn = connect!(database)
    Postgres.query!(conn, "create table #{table} (a int unique deferrable initially deferred)")
    {:ok, conn: conn, table: table, other: connect!(database)}
  end

  defp insert!(conn, table, n), do: Postgres.query!(conn, "insert into #{table} values ($1)", [n])

  defp rows(conn, table),
    do:
      conn
      |> Postgres.query!("select a from #{table} order by a")
      |> Map.get(:rows)
      |> List.flatten()

  test "commits what the function did", %{conn: conn, other: other, table: table} do
    assert {:ok, :done} =
             Postgres.transaction(conn, fn tx ->
               insert!(tx, table, 1)
               assert rows(other, table) == []
               assert %{transaction: :open} = Postgres.info(tx)
               :done
             end)

    assert rows(other, table) == [1]
    assert %{transaction: :idle} = Postgres.info(conn)
  end

  test "rolls back", %{conn: conn, table: table} do
    assert {:error, :why} =
             Postgres.transaction(conn, fn tx ->
               insert!(tx, table, 1)
               Postgres.rollback(tx, :why)
             end)

    assert_raise RuntimeError, "oops", fn ->
      Postgres.transaction(conn, fn tx ->
        insert!(tx, table, 1)
        raise "oops"
      end)
    end

    assert catch_throw(Postgres.transaction(conn, fn _ -> throw(:ball) end)) == :ball
    assert catch_exit(Postgres.transaction(conn, fn _ -> exit(:bye) end)) == :bye
    assert rows(conn, table) == []
  end

  test "after a statement has failed, nothing is committed", %{conn: conn, table: table} do
    assert {:error, %Error{reason: :rolled_back}} =
             Postgres.transaction(conn, fn tx ->
               insert!(tx, table, 1)
               assert {:error, %Error{}} = Postgres.query(tx, "select 1 / 0")
               assert %{transaction: :failed} = Postgres.info(tx)

               assert {:error, %Error{postgres: %{code: :in_failed_sql_transaction}}} =
                        Postgres.query(tx, "select 1")
             end)

    assert rows(conn, table) == []
  end

  test "what fails at the commit", %{conn: conn, table: table} do
    assert {:error, %Error{postgres: %{code: :unique_violation}}} =
             Postgres.transaction(conn, fn tx ->
               insert!(tx, table, 1)
               insert!(tx, table, 1)
             end)

    assert rows(conn, table) == []
    assert {:ok, 1} = Postgres.transaction(conn, fn _ -> 1 end)
  end

  test "inside another one is a savepoint", %{conn: conn, table: table} do
    assert {:ok, :outer} =
             Postgres.transaction(conn, fn tx ->
               insert!(tx, table, 1)

               assert {:ok, :inner} =
                        Postgres.transaction(tx, fn tx -> insert!(tx, table, 2) && :inner end)

               assert {:error, :no} =
                        Postgres.transaction(tx, fn inner ->
                          insert!(inner, table, 3)

                          assert {:ok, _} =
                                   Postgres.transaction(inner, fn deep ->
                                     insert!(deep, table, 4)
                                   end)

                          Postgres.rollback(inner, :no)
                        end)

               assert {:error, %Error{reason: :rolled_back}} =
                        Postgres.transaction(tx, fn inner ->
                          Postgres.query(inner, "select 1 / 0")
                        end)

               assert_raise Error, fn ->
                 Postgres.transaction(tx, fn inner -> Postgres.query!(inner, "select 1 / 0") end)
               end

               insert!(tx, table, 5)
               :outer
             end)

    assert rows(conn, table) == [1, 2, 5]
  end

  test "the outer one can be rolled back from the inner one", %{conn: conn, table: table} do
    assert {:error, :all} =
             Postgres.transaction(conn, fn outer ->
               Postgres.transaction(outer, fn inner ->
                 insert!(inner, table, 1)
                 Postgres.rollback(outer, :all)
               end)
             end)

    assert rows(conn, table) == []
  end

  test "modes", %{conn: conn, table: table} do
    assert {:ok, "serializable"} =
             Postgres.transaction(conn, &one!(&1, "show transaction_isolation"),
               isolation: :serializable,
               read_only: true,
               deferrable: true
             )

    assert {:ok, "repeatable read"} =
             Postgres.transaction(conn, &one!(&1, "show transaction_isolation"),
               isolation: :repeatable_read
             )

    assert {:error, %Error{reason: :rolled_back}} =
             Postgres.transaction(
               conn,
               fn tx ->
                 assert {:error, %Error{postgres: %{code: :read_only_sql_transaction}}} =
                          Postgres.query(tx, "insert into #{table} values (1)")
               end,
               read_only: true
             )

    assert_raise ArgumentError, ~r/isolation/, fn ->
      Postgres.transaction(conn, & &1, isolation: :none)
    end

    assert_raise ArgumentError, fn ->
      Postgres.transaction(conn, fn tx -> Postgres.transaction(tx, & &1, read_only: true) end)
    end

    assert one!(conn, "select 1") == 1
  end

  test "others wait until it ends", %{conn: conn, table: table} do
    me = self()

    task =
      Task.async(fn ->
        Postgres.transaction(conn, fn tx ->
          insert!(tx, table, 1)
          send(me, :inside)
          receive(do: (:go -> insert!(tx, table, 2)))
        end)
      end)

    assert_receive :inside
    waiting = for _ <- 1..3, do: Task.async(fn -> rows(conn, table) end)

    assert {:error, %Error{reason: :queue_timeout} = error} =
             Postgres.query(conn, "select 1", [], timeout: 50)

    assert Exception.message(error) =~ ":timeout"
    eventually(fn -> Postgres.info(conn).waiting == 3 end)
    send(task.pid, :go)
    assert {:ok, _} = Task.await(task)
    assert Task.await_many(waiting) == [[1, 2], [1, 2], [1, 2]]
  end

  test "using the connection itself inside says what to use instead", %{conn: conn} do
    assert {:ok, _} =
             Postgres.transaction(conn, fn _tx ->
               assert {:error, %Error{reason: :busy} = error} = Postgres.query(conn, "select 1")
               assert Exception.message(error) =~ "transaction/3"
             end)
  end

  test "other processes can take part in it", %{conn: conn, table: table} do
    assert {:ok, _} =
             Postgres.transaction(conn, fn tx ->
               1..10
               |> Enum.map(&Task.async(fn -> insert!(tx, table, &1) end))
               |> Task.await_many()
             end)

    assert rows(conn, table) == Enum.to_list(1..10)
  end

  test "after its end, it is of no use", %{conn: conn} do
    {:ok, tx} = Postgres.transaction(conn, & &1)
    assert {:error, %Error{reason: :transaction_lost}} = Postgres.query(tx, "select 1")
    assert {:error, %Error{reason: :transaction_lost}} = Postgres.transaction(tx, & &1)
  end

  test "the owner dies: rolled back, and others go on", %{conn: conn, table: table} do
    me = self()

    for sql <- ["select 1", "select pg_sleep(60)"] do
      {pid, monitor} =
        spawn_monitor(fn ->
          Postgres.transaction(conn, fn tx ->
            insert!(tx, table, 1)
            send(me, :inside)
            Postgres.query!(tx, sql, [], timeout: :infinity)
            Process.sleep(:infinity)
          end)
        end)

      assert_receive :inside
      Process.sleep(20)
      backend = Postgres.info(conn).connection_id
      Process.exit(pid, :kill)
      assert_receive {:DOWN, ^monitor, _, _, _}
      assert rows(conn, table) == []
      assert Postgres.info(conn).connection_id == backend
      assert Postgres.info(conn).transaction == :idle
    end
  end

  test "the owner dies while it begins or waits", %{conn: conn, table: table} do
    for _ <- 1..50 do
      pid =
        spawn(fn ->
          Postgres.transaction(conn, fn tx ->
            insert!(tx, table, 1) && Process.sleep(:infinity)
          end)
        end)

      other =
        spawn(fn ->
          Postgres.transaction(conn, fn tx ->
            insert!(tx, table, 1) && Process.sleep(:infinity)
          end)
        end)

      if :rand.uniform(2) == 1, do: Process.sleep(:rand.uniform(3))
      Process.exit(pid, :kill)
      Process.exit(other, :kill)
    end

    assert rows(conn, table) == []
    assert Postgres.info(conn).transaction == :idle
  end

  test "who dies while its statement runs has it cancelled", %{conn: conn} do
    pid = spawn(fn -> Postgres.query(conn, "select pg_sleep(60)", [], timeout: :infinity) end)
    eventually(fn -> Postgres.info(conn).busy end)
    Process.exit(pid, :kill)
    assert one!(conn, "select 1") == 1
  end

  test "a lost connection loses it", %{conn: conn, other: other, table: table} do
    assert {:error, %Error{reason: :transaction_lost}} =
             Postgres.transaction(conn, fn tx ->
               insert!(tx, table, 1)

               Postgres.query!(other, "select pg_terminate_backend($1)", [
                 Postgres.info(tx).connection_id
               ])

               eventually(fn -> match?({:error, _}, Postgres.query(tx, "select 1")) end)
               assert {:error, %Error{reason: :transaction_lost}} = Postgres.query(tx, "select 1")
             end)

    assert rows(conn, table) == []
  end
end
