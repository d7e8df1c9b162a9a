defmodule Causeway.Ecto.FaultTest do
  # What can go wrong with servers, connections, programs and clients: the errors that an Ecto user expects, a pool that
  # recovers by itself. That nothing is left behind of many is ecto_soak_fault_test.exs.
  use Causeway.EctoCase, async: false

  @moduletag timeout: :infinity
  @moduletag :no_pool

  with_ecto do
    import Causeway.Eventually
    import ExUnit.CaptureLog

    setup do
      server = PostgresServer.start!()

      {:ok,
       server: server, options: [name: nil, backoff_min: 10, backoff_max: 50] ++ database(server)}
    end

    defp works?, do: match?({:ok, %{rows: [[1]]}}, Repo.query("select 1"))

    # ---- connecting ----

    test "a wrong password", %{server: server, options: options} do
      PostgresServer.psql!(server, "create role shop login password 'right'")
      PostgresServer.hba!(server, ["host all shop all scram-sha-256"])
      PostgresServer.reload!(server)
      options = [username: "shop", queue_target: 300, queue_interval: 300] ++ options

      log =
        capture_log(fn ->
          use_pool(Repo, [password: "wr0ng", pool_size: 1] ++ options)

          assert_raise DBConnection.ConnectionError, ~r/not available|dropped from queue/, fn ->
            Repo.query!("select 1")
          end
        end)

      assert log =~ "failed to connect: ** (Postgrex.Error) FATAL 28P01 (invalid_password)"
      refute log =~ "wr0ng"

      use_pool(Repo, [password: "right"] ++ options)
      assert works?()
    end

    test "a server that is not there, and comes", %{server: server, options: options} do
      PostgresServer.stop!(server)

      log =
        capture_log(fn ->
          use_pool(Repo, [queue_target: 300, queue_interval: 300] ++ options)
          assert {:error, %DBConnection.ConnectionError{}} = Repo.query("select 1")
        end)

      assert log =~ ~r/failed to connect: \*\* \(DBConnection.ConnectionError\) .*refused/
      PostgresServer.start_again(server)
      eventually(&works?/0)
    end

    test "a database that is not there", %{options: options} do
      log =
        capture_log(fn ->
          use_pool(Repo, [database: "nowhere", queue_target: 300, queue_interval: 300] ++ options)
          assert {:error, %DBConnection.ConnectionError{}} = Repo.query("select 1")
        end)

      assert log =~ ~s|FATAL 3D000 (invalid_catalog_name) database "nowhere" does not exist|
    end

    # ---- the pool ----

    test "no connection is free", %{options: options} do
      use_pool(Repo, [pool_size: 1, queue_target: 10, queue_interval: 20] ++ options)

      holder =
        task(fn -> Repo.checkout(fn -> Process.sleep(:infinity) end, timeout: :infinity) end)

      eventually(fn -> match?({:error, _}, Repo.query("select 1", [], queue: false)) end)

      assert {:error, %DBConnection.ConnectionError{message: message, reason: :queue_timeout}} =
               Repo.query("select 1")

      assert message =~ "connection not available and request was dropped from queue after"
      Task.shutdown(holder, :brutal_kill)
      eventually(&works?/0)
    end

    test "a query takes longer than it may", %{options: options} do
      use_pool(Repo, [pool_size: 1] ++ options)
      [[backend]] = Repo.query!("select pg_backend_pid()").rows

      log =
        capture_log(fn ->
          assert {:error, %DBConnection.ConnectionError{message: message}} =
                   Repo.query("select pg_sleep(60)", [], timeout: 100)

          assert message =~ "the connection was closed by the pool, possibly due to a timeout"
        end)

      assert log =~
               "timed out because it queued and checked out the connection for longer than 100ms"

      assert works?()

      # The server does not go on with it.
      eventually(fn ->
        Repo.query!("select from pg_stat_activity where pid = $1", [backend]).num_rows == 0
      end)

      assert Process.info(self(), :messages) == {:messages, []}
    end

    test "a client ends while its query runs", %{options: options} do
      use_pool(Repo, [pool_size: 1] ++ options)
      [[backend]] = Repo.query!("select pg_backend_pid()").rows
      {:ok, client} = Task.start(pooled(fn -> Repo.query!("select pg_sleep(60)") end))
      eventually(fn -> match?({:error, _}, Repo.query("select 1", [], queue: false)) end)
      Process.sleep(20)
      Process.exit(client, :kill)
      assert works?()

      eventually(fn ->
        Repo.query!("select from pg_stat_activity where pid = $1", [backend]).num_rows == 0
      end)
    end

    # ---- connections ----

    test "a connection is ended by the server in a transaction", %{
      server: server,
      options: options
    } do
      use_pool(Repo, [pool_size: 1] ++ options)

      error =
        assert_raise Postgrex.Error, fn ->
          Repo.transaction(fn ->
            [[pid]] = Repo.query!("select pg_backend_pid()").rows
            Repo.insert!(%Item{name: "lost"})
            PostgresServer.psql!(server, "select pg_terminate_backend(#{pid})")
            Process.sleep(50)
            Repo.query!("select 1")
          end)
        end

      assert error.postgres.code == :admin_shutdown
      assert works?() and Repo.aggregate(Item, :count) == 0
      assert Process.info(self(), :messages) == {:messages, []}
    end

    test "a connection ends itself, a statement ends the connection", %{options: options} do
      use_pool(Repo, [pool_size: 1] ++ options)

      assert {:error, %Postgrex.Error{postgres: %{code: :admin_shutdown}}} =
               Repo.query("select pg_terminate_backend(pg_backend_pid())")

      assert works?()
    end

    # Who notices first, the program or the COPY, is a matter of chance.
    test "a connection ends just before COPY", %{options: options} do
      use_pool(Repo, [pool_size: 1] ++ options)

      for pause <- 0..9, sql <- ["copy items (id) from stdin", "copy items to stdout"] do
        eventually(&works?/0)

        error =
          assert_raise Postgrex.Error, fn ->
            Repo.transaction(fn ->
              [[backend]] = Repo.query!("select pg_backend_pid()").rows
              PostgresServer.signal(backend, "TERM")
              Process.sleep(pause)
              copy = Ecto.Adapters.SQL.stream(Repo.get_dynamic_repo(), sql)
              if sql =~ "stdin", do: Enum.into(["1\n"], copy), else: Enum.to_list(copy)
              Repo.query!("select 1")
            end)
          end

        assert error.postgres.code == :admin_shutdown
      end
    end

    test "the pool closes it between two steps of a call", %{options: options} do
      alias Causeway.Ecto.{Protocol, Query}
      {:ok, s} = Protocol.connect(options)
      :ok = Protocol.disconnect(nil, s)
      named = %Query{statement: "select 1", name: "one", ref: make_ref()}
      lost = fn result -> assert {:disconnect, %DBConnection.ConnectionError{}, _} = result end
      lost.(Protocol.handle_prepare(%{named | ref: nil}, [], s))
      lost.(Protocol.handle_execute(named, "", [], s))
      lost.(Protocol.handle_close(named, [], s))
      lost.(Protocol.handle_commit([], %{s | status: :transaction}))
    end

    # That it ends just then is left to chance in ecto_soak_fault_test.exs; here the signal is made.
    test "the program ends while a client that traps exits becomes its owner", %{options: options} do
      alias Causeway.Ecto.Protocol
      {:ok, s} = Protocol.connect(options)
      {:ok, s} = Protocol.ping(s)
      send(self(), {:EXIT, s.port, :normal})
      Port.close(s.port)
      assert {:disconnect, %DBConnection.ConnectionError{}, s} = Protocol.ping(s)
      assert Process.info(self(), :messages) == {:messages, []}
      :ok = Protocol.disconnect(nil, s)
    end

    test "codes after which to connect anew", %{options: options} do
      use_pool(Repo, [pool_size: 1, disconnect_on_error_codes: [:division_by_zero]] ++ options)
      pid = fn -> Repo.query!("select pg_backend_pid()").rows end
      one = pid.()
      assert {:error, %{postgres: %{code: :division_by_zero}}} = Repo.query("select 1/0")
      assert pid.() != one
    end

    test "the port program is killed: idle, in a query, in a transaction", %{options: options} do
      before = programs()
      use_pool(Repo, [pool_size: 1] ++ options)
      assert works?()
      kill = fn -> PostgresServer.signal(programs() -- before, "KILL") end

      kill.()
      eventually(&works?/0)

      {:ok, _} = Task.start(fn -> Process.sleep(100) && kill.() end)

      assert {:error, %DBConnection.ConnectionError{message: message}} =
               Repo.query("select pg_sleep(60)")

      assert message =~ "port program was ended by signal 9"
      assert works?()

      assert_raise DBConnection.ConnectionError, fn ->
        Repo.transaction(fn ->
          Repo.insert!(%Item{})
          kill.()
          Process.sleep(50)
          Repo.insert!(%Item{})
        end)
      end

      assert works?() and Repo.aggregate(Item, :count) == 0
      assert Process.info(self(), :messages) == {:messages, []}
    end

    test "idle connections that are gone are found, and made anew", %{
      server: server,
      options: options
    } do
      use_pool(Repo, [pool_size: 4, idle_interval: 50] ++ options)
      assert works?()
      PostgresServer.restart!(server, "immediate")
      eventually(fn -> length(PostgresServer.backends(server)) == 4 end)
      assert works?()
    end

    # ---- the server is restarted under load ----

    test "what was acknowledged is there", %{server: server, options: options} do
      use_pool(Repo, [pool_size: 4] ++ options)
      stop = :atomics.new(1, [])
      writers = for n <- 1..8, do: task(fn -> write(n, 1, stop, []) end)

      for mode <- ~w(fast immediate) do
        Process.sleep(300)
        PostgresServer.restart!(server, mode)
      end

      Process.sleep(300)
      :atomics.put(stop, 1, 1)
      names = writers |> Task.await_many(60_000) |> Enum.concat()
      eventually(&works?/0)
      there = MapSet.new(Repo.all(from(i in Item, select: i.name)))
      assert length(names) > 100
      assert Enum.all?(names, &(&1 in there))
    end

    defp write(writer, n, stop, done) do
      name = "#{writer} #{n}"

      cond do
        :atomics.get(stop, 1) == 1 -> done
        written?(name, rem(n, 2)) -> write(writer, n + 1, stop, [name | done])
        true -> write(writer, n + 1, stop, done)
      end
    end

    defp written?(name, how) do
      insert = fn -> Repo.insert!(%Item{name: name}) end
      if how == 0, do: insert.(), else: {:ok, _} = Repo.transaction(insert)
      true
    rescue
      _ in [DBConnection.ConnectionError, Postgrex.Error] -> false
    end
  end
end
