defmodule Causeway.Postgres.ReachTest do
  # The ways to a server: passwords, TLS, service and password files, several hosts. The environment is one for all.
  use ExUnit.Case, async: false

  import Causeway.Eventually
  import Causeway.PostgresCase
  alias Causeway.{Postgres, PostgresServer, PostgresTLS, StallProxy}
  alias Causeway.Postgres.Error

  @moduletag :postgres

  setup_all do
    tls = PostgresTLS.make!("client")
    on_exit(fn -> PostgresTLS.remove!(tls) end)

    hba = [
      "local all all trust",
      "host all scram 127.0.0.1/32 scram-sha-256",
      "host all md5 127.0.0.1/32 md5",
      "hostssl all client 127.0.0.1/32 cert",
      "hostssl all postgres 127.0.0.1/32 trust",
      "hostnossl all nobody 127.0.0.1/32 reject"
    ]

    server = PostgresServer.start!(tls: tls, hba: hba)
    # Ends with its owner, which is not the process of any test.
    PostgresServer.psql!(server, [
      "create role scram login password 'open sesame'",
      "set password_encryption to md5; create role md5 login password 'it''s \\ open'",
      "create role client login",
      "create role nobody login"
    ])

    {:ok, server: server, tls: tls}
  end

  defp start(options) do
    Process.flag(:trap_exit, true)
    Postgres.start_link([sync_connect: true, backoff_type: :stop] ++ options)
  end

  defp works(options) do
    assert {:ok, conn} = start(options)
    assert one!(conn, "select 1") == 1
    conn
  end

  defp fails(options) do
    assert {:error, %Error{reason: :not_connected} = error} = start(options)
    error
  end

  defp tcp(server, more), do: PostgresServer.options(server, more)

  test "passwords: SCRAM and MD5", %{server: server} do
    for {user, password} <- [scram: "open sesame", md5: "it's \\ open"] do
      conn = works(tcp(server, username: "#{user}", password: password))
      assert one!(conn, "select current_user::text") == "#{user}"

      assert %Error{postgres: %{code: :invalid_password, pg_code: "28P01", severity: "FATAL"}} =
               error = fails(tcp(server, username: "#{user}", password: "wrong"))

      assert Exception.message(error) =~ "password authentication failed for user \"#{user}\""
      refute Exception.message(error) =~ "28P01: "
      assert Exception.message(fails(tcp(server, username: "#{user}"))) =~ "no password supplied"
    end
  end

  test "refusals have their codes", %{server: server} do
    assert %{postgres: %{code: :invalid_catalog_name}} = fails(tcp(server, database: "nowhere"))

    assert %{postgres: %{code: :invalid_authorization_specification}} =
             fails(tcp(server, username: "stranger"))

    assert %{postgres: %{code: :invalid_parameter_value}} =
             fails(tcp(server, parameters: [work_mem: "much"]))
  end

  test "TLS with verification", %{server: server, tls: tls} do
    conn = works(tcp(server, ssl: [cacertfile: tls.ca]))
    assert "TLSv1" <> _ = Postgres.info(conn).tls
    assert one!(conn, "select ssl from pg_stat_ssl where pid = pg_backend_pid()")
    text = String.duplicate("x", 3_000_000)
    for _ <- 1..5, do: assert(one!(conn, "select $1::text", [text]) == text)

    assert length(
             Postgres.query!(conn, "select i, repeat('x', 100) from generate_series(1, 50000) i").rows
           ) == 50_000

    assert {:error, %Error{reason: :timeout}} =
             Postgres.query(conn, "select pg_sleep(10)", [], timeout: 50)

    assert one!(conn, "select 1") == 1

    assert Exception.message(fails(tcp(server, ssl: [cacertfile: tls.other_ca]))) =~
             "certificate verify failed"

    assert Exception.message(
             fails(
               tcp(server,
                 hostname: "db.example",
                 hostaddr: "127.0.0.1",
                 ssl: [cacertfile: tls.ca]
               )
             )
           ) =~
             "does not match host name"

    assert Exception.message(fails(tcp(server, ssl: true))) =~ "certificate verify failed"
    assert Exception.message(fails(tcp(server, ssl: [cacertfile: "/nowhere"]))) =~ "/nowhere"
    works(tcp(server, ssl: [verify: :verify_none]))
    conn = works(tcp(server, username: "nobody", ssl: [verify: :verify_none]))
    assert Postgres.info(conn).tls

    assert Exception.message(fails(tcp(server, username: "nobody", ssl: false))) =~
             "rejects connection"
  end

  # A record of TLS holds 16 kB, and what libpq has room for may be less: the rest of it is decrypted already, and no socket
  # tells of it.
  test "TLS: answers of any size come to their end", %{server: server} do
    conn = works(tcp(server, ssl: [verify: :verify_none]))
    assert Postgres.info(conn).tls

    sizes =
      Enum.to_list(8_000..70_000//997) ++
        Enum.flat_map([16_384, 32_768, 65_536], &Enum.to_list((&1 - 40)..&1//5))

    for n <- sizes do
      sql = "select repeat('x', $1::int)"
      assert {:ok, %{rows: [[text]]}} = Postgres.query(conn, sql, [n], timeout: 10_000)
      assert byte_size(text) == n
    end

    for rows <- [1, 3, 100] do
      sql = "select repeat('x', i * 100 % 40000) from generate_series(1, $1::int) i"
      results = for _ <- 1..30, do: {sql, [rows]}
      assert {:ok, results} = Postgres.pipeline(conn, results, timeout: 20_000)
      assert Enum.all?(results, &(&1.num_rows == rows))
    end

    copied =
      Postgres.copy_out(
        conn,
        "copy (select repeat('x', 5000) from generate_series(1, 5000)) to stdout"
      )

    assert copied |> Enum.map(&byte_size/1) |> Enum.sum() == 5_000 * 5_001
  end

  test "TLS with a client's certificate", %{server: server, tls: tls} do
    ssl = [cacertfile: tls.ca, certfile: tls.client_cert, keyfile: tls.client_key]
    works(tcp(server, username: "client", ssl: ssl))

    assert %{postgres: %{code: :invalid_authorization_specification}} =
             fails(tcp(server, username: "client", ssl: [cacertfile: tls.ca]))
  end

  test "unix sockets, strings, URIs", %{server: server} do
    works(socket_dir: server.dir, port: server.port, username: "postgres")
    works(socket: "#{server.dir}/.s.PGSQL.#{server.port}", username: "postgres")
    works(url: "host=#{server.dir} port=#{server.port} user=postgres dbname=postgres")

    conn =
      works(
        url:
          "postgresql://scram:open%20sesame@127.0.0.1:#{server.port}/postgres?application_name=by%20uri"
      )

    assert one!(conn, "show application_name") == "by uri"

    conn =
      works(
        url: "postgresql://127.0.0.1:#{server.port}/postgres",
        username: "scram",
        password: "open sesame"
      )

    assert one!(conn, "select current_user::text") == "scram"
  end

  test "service and password files, and the environment", %{server: server} do
    dir = server.dir <> "-files"
    File.mkdir_p!(dir)
    on_exit(fn -> File.rm_rf!(dir) end)

    File.write!(
      "#{dir}/service",
      "[shop]\nhost=127.0.0.1\nport=#{server.port}\nuser=scram\ndbname=postgres\n"
    )

    File.write!("#{dir}/pass", "127.0.0.1:#{server.port}:*:scram:open sesame\n")
    File.chmod!("#{dir}/pass", 0o600)
    put_env("PGSERVICEFILE", "#{dir}/service")
    works(service: "shop", passfile: "#{dir}/pass")
    put_env("PGPASSFILE", "#{dir}/pass")
    works(service: "shop")
    works(tcp(server, username: "scram"))
    put_env("PGUSER", "scram")
    put_env("PGPASSWORD", "open sesame")
    works(hostname: "127.0.0.1", port: server.port, database: "postgres")
    assert Exception.message(fails(service: "no such")) =~ "no such"
  end

  defp put_env(name, value) do
    System.put_env(name, value)
    on_exit(fn -> System.delete_env(name) end)
  end

  describe "several hosts" do
    test "the first that answers", %{server: server} do
      refuses = PostgresServer.free_port()
      endpoints = [{"127.0.0.1", refuses}, {"127.0.0.1", server.port}]
      conn = works(endpoints: endpoints, username: "postgres")
      assert Postgres.info(conn).port == "#{server.port}"

      error =
        fails(endpoints: [{"127.0.0.1", refuses}, {"127.0.0.1", refuses}], username: "postgres")

      assert length(Regex.scan(~r/refused/, Exception.message(error))) == 2
    end

    test "one that does not answer takes no more than its part of the time", %{server: server} do
      {:ok, proxy} = StallProxy.start_link(server.port)
      StallProxy.stall(proxy)
      silent = {"127.0.0.1", StallProxy.port(proxy)}
      good = {"127.0.0.1", server.port}

      for endpoints <- [[silent, good], [silent, silent, good], [silent, good, silent]] do
        {time, conn} =
          :timer.tc(fn ->
            works(endpoints: endpoints, username: "postgres", connect_timeout: 1200, ssl: false)
          end)

        assert Postgres.info(conn).port == "#{server.port}"
        assert time < 1_300_000
      end

      {time, error} =
        :timer.tc(fn ->
          fails(
            endpoints: [silent, silent],
            username: "postgres",
            connect_timeout: 600,
            ssl: false
          )
        end)

      assert time in 550_000..1_500_000
      assert Exception.message(error) =~ "no answer in time"
      assert Exception.message(error) =~ "port #{StallProxy.port(proxy)}"
    end

    @tag timeout: 120_000
    test "a primary, a standby, and who takes over" do
      primary = PostgresServer.start!()
      standby = PostgresServer.standby!(primary)
      both = [{"127.0.0.1", standby.port}, {"127.0.0.1", primary.port}]
      options = [endpoints: both, username: "postgres"]
      conn = works(options ++ [target_session_attrs: "read-write"])
      assert Postgres.info(conn).port == "#{primary.port}"
      conn = works(options ++ [target_server_type: :secondary])
      assert Postgres.info(conn).port == "#{standby.port}"
      assert Postgres.info(conn).parameters["in_hot_standby"] == "on"

      # With a silent host among them, prefer-standby finds the standby all the same.
      {:ok, proxy} = StallProxy.start_link(primary.port)
      StallProxy.stall(proxy)

      three = [
        {"127.0.0.1", primary.port},
        {"127.0.0.1", StallProxy.port(proxy)},
        {"127.0.0.1", standby.port}
      ]

      conn =
        works(
          endpoints: three,
          username: "postgres",
          ssl: false,
          connect_timeout: 1500,
          target_session_attrs: "prefer-standby"
        )

      assert Postgres.info(conn).port == "#{standby.port}"

      {:ok, conn} =
        Postgres.start_link(
          [sync_connect: true, backoff_max: 100] ++ options ++ [target_server_type: :primary]
        )

      PostgresServer.kill!(primary)
      PostgresServer.promote!(standby)

      eventually(fn ->
        match?({:ok, _}, Postgres.query(conn, "create table if not exists taken (a int)"))
      end)

      assert Postgres.info(conn).port == "#{standby.port}"
    end
  end

  test "a network that loses a connection", %{server: server} do
    {:ok, proxy} = StallProxy.start_link(server.port)
    options = tcp(server, port: StallProxy.port(proxy), ssl: false)

    {:ok, conn} =
      Postgres.start_link([sync_connect: true, backoff_max: 50, connect_timeout: 1000] ++ options)

    StallProxy.cut(proxy)
    eventually(fn -> match?({:ok, _}, Postgres.query(conn, "select 1")) end)
    StallProxy.stall(proxy)
    {time, result} = :timer.tc(fn -> Postgres.query(conn, "select 1", [], timeout: 100) end)
    assert {:error, %Error{reason: :disconnected}} = result
    assert time < 9_000_000
    StallProxy.resume(proxy)
    eventually(fn -> match?({:ok, _}, Postgres.query(conn, "select 1")) end)
  end
end
