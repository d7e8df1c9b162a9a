defmodule Causeway.Postgres.ServerBedTest do
  # The test bed itself: what tests of Causeway.Postgres rely on.
  use ExUnit.Case, async: true

  import Causeway.Eventually
  alias Causeway.{PostgresServer, PostgresTLS}

  @moduletag :postgres

  test "databases of the shared cluster" do
    a = PostgresServer.database!()
    b = PostgresServer.database!()
    server = PostgresServer.shared()
    PostgresServer.psql!(server, "create table t (x int)", a[:database])
    assert PostgresServer.psql!(server, "select to_regclass('t') is null", b[:database]) == "t\n"
    assert PostgresServer.psql!(server, "show wal_level") == "logical\n"

    assert_raise RuntimeError, ~r/no_such/, fn ->
      PostgresServer.psql!(server, "select no_such")
    end
  end

  test "stopped, started, killed, paused" do
    server = PostgresServer.start!()
    PostgresServer.psql!(server, "create table t as select 1 as x")
    PostgresServer.restart!(server, "immediate")
    PostgresServer.kill!(server)
    assert PostgresServer.processes(server) == []
    PostgresServer.start_again(server)
    assert PostgresServer.psql!(server, "select x from t") == "1\n"
    PostgresServer.pause!(server)
    task = Task.async(fn -> PostgresServer.psql!(server, "select x from t") end)
    refute Task.yield(task, 200)
    PostgresServer.resume!(server)
    assert Task.await(task) == "1\n"
    assert PostgresServer.backends(server) == []
  end

  test "a standby takes over" do
    primary = PostgresServer.start!()
    PostgresServer.psql!(primary, "create table t as select 1 as x")
    standby = PostgresServer.standby!(primary, slot: "standby")
    eventually(fn -> PostgresServer.psql!(standby, "select x from t") == "1\n" end)
    assert [_walsender] = PostgresServer.backends(primary, "backend_type = 'walsender'")
    PostgresServer.kill!(primary)
    PostgresServer.promote!(standby)
    PostgresServer.psql!(standby, "insert into t values (2)")
  end

  test "TLS, passwords, and their lines in pg_hba.conf" do
    tls = PostgresTLS.make!()
    on_exit(fn -> PostgresTLS.remove!(tls) end)

    hba = [
      "host all guest 127.0.0.1/32 scram-sha-256",
      "hostssl all all all cert",
      "host all all all reject"
    ]

    server = PostgresServer.start!(tls: tls, hba: hba)
    PostgresServer.psql!(server, "create role guest login password 'open sesame'")

    assert connect(server, "user=guest password='open sesame' sslmode=require") == "guest\n"
    assert_raise RuntimeError, ~r/password/, fn -> connect(server, "user=guest password=x") end

    client =
      "sslcert=#{tls.client_cert} sslkey=#{tls.client_key} user=postgres sslmode=verify-full"

    assert connect(server, "#{client} sslrootcert=#{tls.ca}") == "postgres\n"

    assert_raise RuntimeError, ~r/verify/, fn ->
      connect(server, "#{client} sslrootcert=#{tls.other_ca}")
    end
  end

  defp connect(server, conninfo) do
    conninfo = "host=127.0.0.1 port=#{server.port} dbname=postgres #{conninfo}"
    PostgresServer.client!("psql", ["-XAtq", "-c", "select current_user", conninfo])
  end

  test "ends with its owner" do
    server = fn -> PostgresServer.start!() end |> Task.async() |> Task.await(60_000)
    eventually(fn -> not File.exists?(server.dir) end)
  end

  test "is removed at once" do
    server = PostgresServer.start!()
    PostgresServer.pause!(server)
    PostgresServer.remove!(server)
    assert PostgresServer.processes(server) == []
    refute File.exists?(server.dir)
  end

  test "ends with a VM that is killed" do
    code = """
    server = Causeway.PostgresServer.start!()
    IO.puts(server.dir)
    System.cmd("kill", ["-KILL", System.pid()])
    """

    paths = Enum.flat_map(:code.get_path(), &["-pa", to_string(&1)])
    {output, _} = System.cmd("elixir", paths ++ ["-e", code], stderr_to_stdout: true)
    [_, dir] = Regex.run(~r/^(.*causeway-pg-.*)$/m, output)
    eventually(fn -> not File.exists?(dir) end)
    assert PostgresServer.processes(%PostgresServer{dir: dir, port: 0, keeper: self()}) == []
  end

  test "pgbench" do
    server = PostgresServer.shared()
    opts = PostgresServer.database!()
    PostgresServer.pgbench!(server, ["-i", "-q"], opts[:database])
    assert PostgresServer.pgbench!(server, ["-t", "5"], opts[:database]) =~ "processed: 5/5"
  end
end
