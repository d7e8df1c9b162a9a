defmodule Causeway.Postgres.ConnectionTest do
  # Losing connections, and making them again.
  use Causeway.PostgresCase, async: true

  defp terminate!(conn, by) do
    Postgres.query!(by, "select pg_terminate_backend($1)", [Postgres.info(conn).connection_id])
  end

  test "what there is to know", %{database: database} do
    conn = connect!(database, application_name: "known")

    assert %{
             status: :connected,
             host: "127.0.0.1",
             user: "postgres",
             transaction: :idle,
             waiting: 0,
             busy: false,
             parameters: %{"client_encoding" => "UTF8", "application_name" => "known"}
           } = info = Postgres.info(conn)

    assert info.connection_id == one!(conn, "select pg_backend_pid()")
    assert div(info.server_version, 10_000) == PostgresServer.release()
    Postgres.query!(conn, "set timezone to 'Europe/Paris'")
    assert {:ok, %{"TimeZone" => "Europe/Paris"}} = Postgres.parameters(conn)
  end

  test "by name", %{database: database} do
    start_supervised!({Postgres, database ++ [name: __MODULE__.Named]})
    assert one!(__MODULE__.Named, "select 1") == 1
    assert_raise ArgumentError, ~r/NoSuch/, fn -> Postgres.query(NoSuch, "select 1") end
  end

  test "a terminated backend: an error while it runs, a new connection after it", %{
    database: database
  } do
    conn = connect!(database)
    other = connect!(database)
    task = Task.async(fn -> Postgres.query(conn, "select pg_sleep(10)") end)
    eventually(fn -> Postgres.info(conn).busy end)
    terminate!(conn, other)

    assert {:error, %Error{reason: reason} = error} = Task.await(task)
    assert reason in [:server, :disconnected]
    assert Exception.message(error) =~ "administrator command"
    assert one!(conn, "select 1") == 1

    # While it is idle, nobody is the worse for it.
    for _ <- 1..5 do
      terminate!(conn, other)
      eventually(fn -> match?({:ok, _}, Postgres.query(conn, "select $1::int4", [1])) end)
    end
  end

  test "a killed port program", %{database: database} do
    conn = connect!(database)

    for _ <- 1..3 do
      assert one!(conn, "select $1::int4", [1]) == 1
      program = os_pid(conn)
      task = Task.async(fn -> Postgres.query(conn, "select pg_sleep(10)") end)
      eventually(fn -> Postgres.info(conn).busy end)
      queued = Task.async(fn -> Postgres.query(conn, "select 1") end)
      PostgresServer.signal(program, "KILL")
      assert {:error, %Error{reason: :disconnected, detail: detail}} = Task.await(task)
      assert detail =~ "signal 9"
      # Who was waiting does not notice.
      assert {:ok, _} = Task.await(queued)
      refute alive?(program)
    end

    # The server has ended what it ran.
    other = connect!(database)

    eventually(fn ->
      one!(
        other,
        "select count(*) from pg_stat_activity where query = 'select pg_sleep(10)' and state = 'active' and datname = current_database()"
      ) == 0
    end)
  end

  test "a stopped port program", %{database: database} do
    conn = connect!(database)
    program = os_pid(conn)
    PostgresServer.signal(program, "STOP")
    {time, result} = :timer.tc(fn -> Postgres.query(conn, "select 1", [], timeout: 100) end)
    assert {:error, %Error{reason: :disconnected}} = result
    assert time < 15_000_000
    assert one!(conn, "select 1") == 1
    refute alive?(program)
  end

  test "a terminated port program takes its leave", %{database: database} do
    conn = connect!(database)
    program = os_pid(conn)
    PostgresServer.signal(program, "TERM")
    eventually(fn -> not alive?(program) end)
    assert one!(conn, "select 1") == 1
  end

  test "a stopped connection leaves nothing behind", %{database: database} do
    {:ok, conn} = Postgres.start_link(database ++ [sync_connect: true])
    program = os_pid(conn)
    backend = Postgres.info(conn).connection_id
    session = Postgres.Session.fetch(conn)
    GenServer.stop(conn)
    other = connect!(database)
    eventually(fn -> not alive?(program) end)

    eventually(fn ->
      one!(other, "select count(*) from pg_stat_activity where pid = $1", [backend]) == 0
    end)

    assert {:error, %Error{reason: :not_connected}} = Postgres.query(session, "select 1")
    assert {:error, %Error{reason: :not_connected}} = Postgres.query(session, "begin")
    assert {:error, %Error{reason: :not_connected}} = Postgres.transaction(session, & &1)
    assert {:error, %Error{reason: :not_connected}} = Postgres.query(conn, "select 1")
  end

  test "a killed connection process, while something runs", %{database: database} do
    Process.flag(:trap_exit, true)
    {:ok, conn} = Postgres.start_link(database ++ [sync_connect: true])
    program = os_pid(conn)
    backend = Postgres.info(conn).connection_id
    task = Task.async(fn -> Postgres.query(conn, "select pg_sleep(100)") end)
    eventually(fn -> Postgres.info(conn).busy end)
    Process.exit(conn, :kill)
    assert {:error, %Error{reason: :disconnected}} = Task.await(task)
    eventually(fn -> not alive?(program) end)
    other = connect!(database)

    eventually(fn ->
      one!(other, "select count(*) from pg_stat_activity where pid = $1", [backend]) == 0
    end)
  end

  describe "without a server" do
    test "calls fail at once, until it is there" do
      server = PostgresServer.start!()
      conn = connect!(PostgresServer.options(server), backoff_max: 100)
      assert one!(conn, "select 1") == 1
      PostgresServer.kill!(server)
      eventually(fn -> Postgres.info(conn).status == :down end)
      assert {:error, %Error{reason: :not_connected} = error} = Postgres.query(conn, "select 1")
      assert Exception.message(error) =~ "refused"
      PostgresServer.start_again(server)
      eventually(fn -> match?({:ok, _}, Postgres.query(conn, "select 1")) end)
      PostgresServer.restart!(server)
      eventually(fn -> match?({:ok, _}, Postgres.query(conn, "select 1")) end)
    end

    test "start_link does not wait, or says why" do
      Process.flag(:trap_exit, true)
      options = [hostname: "127.0.0.1", port: PostgresServer.free_port(), username: "x"]
      {:ok, conn} = Postgres.start_link(options)
      assert {:error, %Error{reason: :not_connected}} = Postgres.query(conn, "select 1")

      assert {:error, %Error{reason: :not_connected, detail: detail}} =
               Postgres.start_link(options ++ [sync_connect: true])

      assert detail =~ "refused"
      {:ok, conn} = Postgres.start_link(options ++ [backoff_type: :stop])
      assert_receive {:EXIT, ^conn, {:shutdown, %Error{reason: :not_connected}}}
    end

    test "a host that does not answer is given up at the deadline" do
      Process.flag(:trap_exit, true)
      {:ok, listener} = :gen_tcp.listen(0, ip: {127, 0, 0, 1})
      {:ok, port} = :inet.port(listener)
      options = [hostname: "127.0.0.1", port: port, username: "x", ssl: false]

      {time, result} =
        :timer.tc(fn ->
          Postgres.start_link(options ++ [sync_connect: true, connect_timeout: 300])
        end)

      assert {:error, %Error{reason: :not_connected, detail: detail}} = result
      assert detail =~ "no answer in time"
      assert time in 250_000..2_000_000
    end
  end

  describe "a server that is paused" do
    test "is waited for until the deadline, and left" do
      server = PostgresServer.start!()
      conn = connect!(PostgresServer.options(server), connect_timeout: 500)
      PostgresServer.pause!(server)
      {time, result} = :timer.tc(fn -> Postgres.query(conn, "select 1", [], timeout: 100) end)
      assert {:error, %Error{reason: :disconnected}} = result
      assert time in 5_000_000..10_000_000
      assert {:error, %Error{reason: :not_connected}} = Postgres.query(conn, "select 1")
      PostgresServer.resume!(server)
      eventually(fn -> match?({:ok, _}, Postgres.query(conn, "select 1")) end)
    end
  end

  test "reconnects when a certain error comes", %{database: database} do
    conn = connect!(database, disconnect_on_error_codes: [:read_only_sql_transaction])
    backend = Postgres.info(conn).connection_id
    Postgres.query!(conn, "set default_transaction_read_only = on")
    assert {:error, _} = Postgres.query(conn, "create table no (a int)")
    assert one!(conn, "select pg_backend_pid()") != backend
  end

  @tag timeout: 120_000
  test "descriptors and processes stay as many as they are", %{database: database} do
    connect = fn ->
      {:ok, conn} = Postgres.start_link(database ++ [sync_connect: true])
      assert one!(conn, "select 1") == 1
      GenServer.stop(conn)
    end

    count = fn -> {length(File.ls!("/proc/self/fd")), length(Port.list())} end
    for _ <- 1..3, do: connect.()
    before = count.()
    for _ <- 1..150, do: connect.()
    {files, ports} = before

    eventually(fn ->
      {f, p} = count.()
      f <= files + 3 and p <= ports + 3
    end)
  end

  test "no program is left when the VM is killed", %{database: database} do
    code = """
    {:ok, conn} = Causeway.Postgres.start_link(#{inspect(database)} ++ [sync_connect: true])
    {:ok, idle} = Causeway.Postgres.start_link(#{inspect(database)} ++ [sync_connect: true])
    spawn(fn -> Causeway.Postgres.query(conn, "select pg_sleep(1000)", [], timeout: :infinity) end)
    spawn(fn -> Causeway.Postgres.stream(idle, "select generate_series(1, 100000000)") |> Enum.each(fn _ -> Process.sleep(10) end) end)
    Process.sleep(300)
    pids = for c <- [conn, idle], do: elem(hd(:ets.lookup(Causeway.Postgres.Session.fetch(c).table, :os_pid)), 1)
    IO.puts("pids \#{System.pid()} \#{Enum.join(pids, " ")}")
    Process.sleep(:infinity)
    """

    paths = for path <- :code.get_path(), do: ["-pa", to_string(path)]
    args = List.flatten(paths) ++ ["-e", code]

    port =
      Port.open({:spawn_executable, System.find_executable("elixir")}, [
        :binary,
        args: args,
        line: 1000
      ])

    assert_receive {^port, {:data, {:eol, "pids " <> pids}}}, 20_000
    [vm | programs] = pids |> String.split() |> Enum.map(&String.to_integer/1)
    assert Enum.all?(programs, &alive?/1)
    PostgresServer.signal(vm, "KILL")
    for program <- programs, do: eventually(fn -> not alive?(program) end)
    other = connect!(database)

    sql =
      "select count(*) from pg_stat_activity where datname = current_database() and state = 'active' and pid <> pg_backend_pid() and query ~ 'pg_sleep.1000|100000000'"

    eventually(fn -> one!(other, sql) == 0 end)
  end

  describe "secrets" do
    @secret "s3cr3t-pa55"

    setup do
      {:ok, _} = Application.ensure_all_started(:logger)
      :ok
    end

    test "are in nothing that is shown", %{database: database} do
      options = Keyword.merge(database, password: @secret, backoff_max: 50)
      conn = connect!(options)
      hide(inspect(:sys.get_status(conn), limit: :infinity, printable_limit: :infinity))
      hide(inspect(:sys.get_state(conn), limit: :infinity, printable_limit: :infinity))
      hide(:io_lib.format("~p ~p", [:sys.get_status(conn), :sys.get_state(conn)]))
      hide(inspect(Process.info(conn, [:dictionary, :messages, :initial_call]), limit: :infinity))
      hide(inspect(Postgres.info(conn)))
      hide(inspect(Postgres.child_spec(options), limit: :infinity))
      hide(:io_lib.format("~p", [Postgres.child_spec(options)]))
      program = os_pid(conn)
      hide(File.read!("/proc/#{program}/cmdline"))
      hide(File.read!("/proc/#{program}/environ"))
      {listing, 0} = System.cmd("ps", ["axeww"])
      hide(listing)
    end

    test "nor in logs of crashes", %{database: database} do
      options = Keyword.merge(database, password: @secret)

      log =
        ExUnit.CaptureLog.capture_log(fn ->
          Process.flag(:trap_exit, true)

          {:ok, supervisor} =
            Supervisor.start_link([{Postgres, options ++ [name: __MODULE__.Crashing]}],
              strategy: :one_for_one
            )

          pid = Process.whereis(__MODULE__.Crashing)
          # No message that it knows, in a shape that no clause can take.
          send(pid, {:causeway_request, :no_reference, :no_pid, nil, :nonsense, nil, nil})
          eventually(fn -> Process.whereis(__MODULE__.Crashing) not in [nil, pid] end)
          Process.exit(Process.whereis(__MODULE__.Crashing), :kill)
          Process.sleep(100)
          Supervisor.stop(supervisor)
          Logger.flush()
        end)

      assert log =~ "Crashing" or log =~ "terminating"
      hide(log)
    end

    test "nor in errors" do
      Process.flag(:trap_exit, true)

      for options <- [
            [url: "postgresql://u:#{@secret}@127.0.0.1:1/x?nonsense=1"],
            [url: "postgresql://u:%zz#{@secret}@127.0.0.1:1/x"],
            [url: "postgresql://u:#{@secret}@[::1/x"],
            [url: "host=127.0.0.1 port=1 pass word=#{@secret}"],
            [url: "postgresql://u:#{@secret}@127.0.0.1:99999999/x"],
            [hostname: "127.0.0.1", port: 1, username: "u", password: @secret],
            [
              hostname: "127.0.0.1",
              port: 1,
              username: "u",
              password: @secret,
              sslmode: "nonsense"
            ]
          ] do
        log =
          ExUnit.CaptureLog.capture_log(fn ->
            assert {:error, %Error{reason: :not_connected} = error} =
                     Postgres.start_link(options ++ [sync_connect: true])

            hide(Exception.message(error))
            hide(inspect(error))
          end)

        hide(log)

        # What consumers of the write-ahead log connect with.
        assert {:error, error} =
                 Causeway.Postgres.WAL.Client.open(Causeway.Postgres.Options.new!(options))

        hide(Exception.message(error))
        hide(inspect(error))
      end
    end

    # A password that is not written as it has to be in a URI: libpq takes its rest for a host, a port or a database.
    test "nor in errors, in pieces" do
      Process.flag(:trap_exit, true)

      for url <- [
            "postgresql://u:first@second@127.0.0.1:1/x",
            "postgresql://u:first@second/third@127.0.0.1:1/x",
            "postgresql://u:first@second:third@127.0.0.1:1/x",
            "postgresql://u:first/second@127.0.0.1:1/x",
            "postgresql://127.0.0.1:first/second@127.0.0.1:1/x",
            "postgresql://127.0.0.1:1first@second/third@127.0.0.1:1/x",
            "postgresql://127.0.0.1:1,127.0.0.1:first",
            "postgresql://127.0.0.1:1/first@second",
            "postgresql://u:1@[::1]:first/x",
            "postgresql://u:first?second@third?@127.0.0.1:1/x"
          ] do
        options = [url: url, sync_connect: true, connect_timeout: 5_000]

        log =
          ExUnit.CaptureLog.capture_log(fn ->
            assert {:error, %Error{reason: :not_connected} = error} = Postgres.start_link(options)
            unseen(Exception.message(error) <> inspect(error), url)
            assert Exception.message(error) =~ ~r/%40|cannot make sense/
          end)

        unseen(log, url)
      end

      # What is as it should be is told.
      for url <- [
            "postgresql://u:fir%40st@127.0.0.1:1/x",
            "postgresql://u:fir:st?#[@127.0.0.1:1,[::1]:1,127.0.0.1/x?port=1,1,1&connect_timeout=2"
          ] do
        assert {:error, error} = Postgres.start_link(url: url, sync_connect: true)
        assert Exception.message(error) =~ "refused"
        unseen(Exception.message(error), url)
      end

      # It would be the name of a database, which the server tells.
      error =
        assert_raise ArgumentError, fn -> Postgres.start_link("ecto://u:first@127.0.0.1/x") end

      assert Exception.message(error) =~ "postgresql://"
      unseen(Exception.message(error), "ecto")
    end

    defp unseen(text, url),
      do: for(piece <- ~w(first second third), do: refute(text =~ piece, "#{url}: #{text}"))

    defp hide(shown) do
      shown = IO.iodata_to_binary(shown)
      refute shown =~ @secret
      refute shown =~ Base.encode64(@secret)
      refute shown =~ inspect(String.to_charlist(@secret), charlists: :as_lists)
    end
  end

  test "options that cannot be", %{database: database} do
    assert_raise ArgumentError, ~r/nonsense/, fn ->
      Postgres.start_link(database ++ [nonsense: 1])
    end

    assert_raise ArgumentError, ~r/backoff_min/, fn ->
      Postgres.start_link(database ++ [backoff_min: "x"])
    end

    assert_raise ArgumentError, ~r/statement_cache/, fn ->
      Postgres.start_link(database ++ [statement_cache: -1])
    end
  end

  test "events", %{database: database} do
    if Code.ensure_loaded?(:telemetry) do
      id = make_ref()

      names =
        for name <- [:connect, :disconnect, :connect_failed], do: [:causeway, :postgres, name]

      apply(:telemetry, :attach_many, [id, names, &__MODULE__.forward/4, self()])
      conn = connect!(database)

      assert_receive {[:causeway, :postgres, :connect], %{duration: _},
                      %{connection: ^conn, host: "127.0.0.1"}}

      PostgresServer.signal(os_pid(conn), "KILL")

      assert_receive {[:causeway, :postgres, :disconnect], _,
                      %{connection: ^conn, reason: "the port program" <> _}}

      assert_receive {[:causeway, :postgres, :connect], _, %{connection: ^conn}}
      {:ok, lost} = Postgres.start_link(hostname: "127.0.0.1", port: PostgresServer.free_port())

      assert_receive {[:causeway, :postgres, :connect_failed], _,
                      %{connection: ^lost, error: %Error{}}},
                     1000

      apply(:telemetry, :detach, [id])
    end
  end

  def forward(name, measurements, metadata, pid), do: send(pid, {name, measurements, metadata})
end
