defmodule Causeway.PostgresServer do
  @moduledoc false
  # Private PostgreSQL clusters for tests, benchmarks and the demo: in a temporary folder, as an unprivileged user
  # where we are root, with a Unix socket and a port on the loopback interface. PG_BIN chooses the programs, by
  # default the newest that are here.
  #
  #     @moduletag :postgres
  #     setup_all do: {:ok, options: PostgresServer.database!()}     # a database of its own on the shared cluster
  #
  # The shared cluster starts when it is first asked for and is not to be stopped; a test that stops, kills or
  # reconfigures a cluster starts one of its own with `start!/1`. That ends with the process that started it, and all
  # of them with the VM, whatever it dies of: a shell that holds a pipe to the VM ends the server and removes the folder.
  use GenServer

  # Examples use this before what they are about is compiled.
  @compile {:no_warn_undefined, Causeway.Postgres.Program}

  @enforce_keys [:dir, :port, :keeper]
  defstruct [:dir, :port, :keeper, env: []]

  @type t :: %__MODULE__{dir: Path.t(), port: :inet.port_number(), keeper: pid, env: list}

  @superuser "postgres"
  @host "127.0.0.1"
  @keeper Path.join(__DIR__, "postgres_keeper.sh")
  @wait_s 60

  # What is preloaded into the VM is not meant for the server, which hangs under ASan's runtime, as does all that is
  # linked with libsystemd.
  @env [{"LD_PRELOAD", nil}]

  # Nothing here has to survive a loss of power. With mmap, no file stays in /dev/shm after a SIGKILL.
  @settings [
    wal_level: "logical",
    max_wal_senders: 40,
    max_replication_slots: 40,
    max_prepared_transactions: 20,
    fsync: "off",
    full_page_writes: "off",
    shared_buffers: "32MB",
    dynamic_shared_memory_type: "mmap",
    listen_addresses: @host,
    timezone: "UTC",
    lc_messages: "C",
    log_line_prefix: "%m [%p] %d %a ",
    max_wal_size: "4GB",
    logging_collector: "off"
  ]

  # ---- what is here ----

  @doc "Why there can be no cluster here, or none that the port program could connect to; nil if there can."
  @spec missing :: String.t() | nil
  def missing do
    with {:ok, _} <- Causeway.Postgres.Program.path(), :ok <- startable() do
      nil
    else
      {:error, why} -> why
    end
  end

  @doc "Whether a cluster could be started, or why not."
  @spec startable :: :ok | {:error, String.t()}
  def startable do
    with {:ok, _} <- bin(), {:ok, _} <- unprivileged(), do: :ok
  end

  @doc "The folder of the server's programs, or why there is none."
  @spec bin :: {:ok, Path.t()} | {:error, String.t()}
  def bin do
    newest =
      "/usr/lib/postgresql/*/bin"
      |> Path.wildcard()
      |> Enum.sort_by(&release/1, :desc)

    candidates = if chosen = System.get_env("PG_BIN"), do: [chosen], else: newest ++ pg_config()

    case Enum.find(candidates, &File.exists?(Path.join(&1, "initdb"))) do
      nil -> {:error, "no PostgreSQL server here (PG_BIN can name the folder of its programs)"}
      dir -> {:ok, dir}
    end
  end

  defp release(bin) do
    case bin |> Path.dirname() |> Path.basename() |> Integer.parse() do
      {release, _} -> release
      :error -> 0
    end
  end

  defp pg_config do
    if path = System.find_executable("pg_config"),
      do: [path |> System.cmd(["--bindir"]) |> elem(0) |> String.trim()],
      else: []
  end

  @doc "The server's major release."
  def release do
    {text, 0} = System.cmd(program("postgres"), ["--version"], env: @env)
    [_, release] = Regex.run(~r/ (\d+)/, text)
    String.to_integer(release)
  end

  # The server refuses to run as root.
  defp unprivileged do
    cond do
      id() != "0" -> {:ok, []}
      System.find_executable("setpriv") == nil -> {:error, "running as root, and no setpriv"}
      true -> {:ok, ~w(setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=/tmp)}
    end
  end

  defp id, do: "id" |> System.cmd(["-u"]) |> elem(0) |> String.trim()

  defp program(name) do
    case bin() do
      {:ok, dir} -> Path.join(dir, name)
      {:error, why} -> raise why
    end
  end

  # ---- clusters ----

  @doc "The run's shared cluster, which nobody stops."
  @spec shared :: t
  def shared do
    :global.trans({__MODULE__, self()}, fn ->
      with nil <- :persistent_term.get(__MODULE__, nil) do
        server = start(nil, [])
        :persistent_term.put(__MODULE__, server)
        server
      end
    end)
  end

  @doc """
  Starts a cluster that ends with the caller.

    * `:settings` - of postgresql.conf, a keyword list
    * `:hba` - lines that come first in pg_hba.conf; everybody on the loopback interface is trusted otherwise
    * `:tls` - what `Causeway.PostgresTLS.make!/1` gave: the server's certificate
    * `:port` - where another cluster was before
    * `:env` - of the server's processes, as `Causeway.Preload.env/3` has it for a clock or a disk that goes wrong
  """
  @spec start!(keyword) :: t
  def start!(opts \\ []), do: start(self(), opts)

  @doc "Starts a standby of the cluster, in the same way; with `:slot`, it is made on the primary and used."
  @spec standby!(t, keyword) :: t
  def standby!(primary, opts \\ []), do: start(self(), [from: primary] ++ opts)

  defp start(owner, opts) do
    dir = new_dir()
    {:ok, keeper} = GenServer.start(__MODULE__, {dir, owner})
    port = opts[:port] || free_port()
    server = %__MODULE__{dir: dir, port: port, keeper: keeper, env: opts[:env] || []}
    create(server, opts[:from], opts)
    configure(server, opts)
    start_again(server)
  end

  defp create(server, nil, _opts) do
    args = ~w(--no-sync -U #{@superuser} -A trust --locale=C --encoding=UTF8 -D) ++ [data(server)]
    run!("initdb", args)
    File.write!(conf(server), Enum.map(@settings, &setting/1), [:append])
  end

  defp create(server, primary, opts) do
    slot = if slot = opts[:slot], do: ["-C", "-S", slot], else: []
    args = ["-R", "-X", "stream", "-c", "fast", "-D", data(server)] ++ slot ++ connection(primary)
    run!("pg_basebackup", args)
  end

  # A later line of a setting overrides an earlier one.
  defp configure(server, opts) do
    own = [port: server.port, unix_socket_directories: server.dir]
    lines = Enum.map(own ++ tls(opts[:tls]) ++ Keyword.get(opts, :settings, []), &setting/1)
    File.write!(conf(server), lines, [:append])
    if lines = opts[:hba], do: hba!(server, lines)
  end

  defp setting({name, value}), do: "#{name} = '#{value}'\n"

  defp tls(nil), do: []

  defp tls(tls),
    do: [
      ssl: "on",
      ssl_ca_file: tls.ca,
      ssl_cert_file: tls.server_cert,
      ssl_key_file: tls.server_key
    ]

  @doc "Lines that come before all others in pg_hba.conf; a running server reads them when told by `reload!/1`."
  def hba!(server, lines) do
    file = Path.join(data(server), "pg_hba.conf")
    File.write!(file, [Enum.map(lines, &[&1, "\n"]), File.read!(file)])
  end

  @doc "Changes settings of a cluster, which reads them when it is reloaded or started again."
  def configure!(server, settings),
    do: File.write!(conf(server), Enum.map(settings, &setting/1), [:append])

  def reload!(server), do: pg_ctl!(server, ["reload"])

  @doc "Starts a cluster that was stopped or killed."
  def start_again(server) do
    args = ["start", "-D", data(server)] ++ ~w(-w -t #{@wait_s} -l) ++ [log_file(server)]
    run!("pg_ctl", args, if(server.env == [], do: @env, else: server.env))
    server
  end

  @doc "Stops the server: `smart`, `fast` or `immediate`."
  def stop!(server, mode \\ "fast"), do: pg_ctl!(server, ~w(stop -w -t #{@wait_s} -m #{mode}))

  def restart!(server, mode \\ "fast") do
    stop!(server, mode)
    start_again(server)
  end

  @doc "Makes a standby a primary, with the next timeline."
  def promote!(server), do: pg_ctl!(server, ~w(promote -w -t #{@wait_s}))

  @doc "kill -9 of the server with all its backends; returns when they are gone."
  def kill!(server) do
    signal(processes(server), "KILL")
    wait_until("the cluster's processes are gone", fn -> processes(server) == [] end)
    forget(server)
  end

  # Until init has fetched its exit status, a killed process seems to be there to the server that comes next, by
  # these files; and its segment of shared memory stays, which the seventh line of the first names.
  defp forget(server) do
    lock = Path.join(data(server), "postmaster.pid")

    with {:ok, text} <- File.read(lock),
         [_key, segment] <- text |> String.split("\n") |> Enum.at(6, "") |> String.split(),
         do: System.cmd("ipcrm", ["-m", segment], stderr_to_stdout: true)

    Enum.each([lock, socket(server) <> ".lock"], &File.rm/1)
  end

  @doc "Stops all processes of the server where they are: a machine that does not answer."
  def pause!(server), do: signal(processes(server), "STOP")
  def resume!(server), do: signal(processes(server), "CONT")

  @doc "Ends the cluster now and removes its folder, which would else happen when its owner ends."
  def remove!(server), do: GenServer.call(server.keeper, :remove, 30_000)

  # ---- processes of the operating system ----

  @doc "All processes of the server, on Linux."
  @spec processes(t) :: [pos_integer]
  def processes(server) do
    data = data(server)

    for "/proc/" <> rest = path <- Path.wildcard("/proc/[0-9]*/cwd"),
        {:ok, ^data} <- [File.read_link(path)],
        do: rest |> Path.dirname() |> String.to_integer()
  end

  @doc """
  Process identifiers of backends: of all clients, or of those that a condition on pg_stat_activity chooses, such as
  `"backend_type = 'walsender'"`. The one that asks is not among them.
  """
  def backends(server, condition \\ "backend_type in ('client backend', 'walsender')") do
    sql = "select pid from pg_stat_activity where pid <> pg_backend_pid() and (#{condition})"
    server |> psql!(sql) |> String.split() |> Enum.map(&String.to_integer/1)
  end

  @doc "Sends a signal, as `kill` names it, to processes; those that are gone do not matter."
  def signal([], _name), do: :ok
  def signal(pid, name) when is_integer(pid), do: signal([pid], name)

  def signal(pids, name) do
    pids = Enum.map(pids, &Integer.to_string/1)
    System.cmd("kill", ["-#{name}" | pids], stderr_to_stdout: true)
    :ok
  end

  # ---- clients ----

  @doc "A new database, on the shared cluster: options that connect to it, in Postgrex's names."
  def database!(server \\ shared(), opts \\ []) do
    name = "t#{System.unique_integer([:positive])}"
    psql!(server, ~s(create database "#{name}" template template0))
    options(server, [database: name] ++ opts)
  end

  @doc "Options that connect to a cluster, in Postgrex's names."
  def options(server, opts \\ []) do
    Keyword.merge(
      [hostname: @host, port: server.port, username: @superuser, database: "postgres"],
      opts
    )
  end

  @doc "Runs SQL in psql, a transaction for each of a list, and returns what it prints: unaligned, tuples only."
  def psql!(server, sql, database \\ "postgres") do
    commands = sql |> List.wrap() |> Enum.flat_map(&["-c", &1])
    args = ["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database] ++ commands
    client!("psql", args ++ connection(server))
  end

  @doc "Runs pgbench to its end in a database; returns what it says."
  def pgbench!(server, args, database \\ "postgres"),
    do: client!("pgbench", connection(server) ++ args ++ [database])

  @doc "Runs one of the server's client programs."
  def client!(program, args) do
    case System.cmd(program(program), args, stderr_to_stdout: true, env: @env) do
      {output, 0} -> output
      {output, status} -> raise "#{program} ended with #{status}: #{output}"
    end
  end

  defp connection(server),
    do: ["-h", server.dir, "-p", Integer.to_string(server.port), "-U", @superuser]

  @doc "What the server has logged."
  def log(server), do: server |> log_file() |> File.read!()

  # ---- files ----

  def data(server), do: Path.join(server.dir, "data")
  defp socket(server), do: Path.join(server.dir, ".s.PGSQL.#{server.port}")
  defp conf(server), do: Path.join(data(server), "postgresql.conf")
  defp log_file(server), do: Path.join(server.dir, "log")

  # A socket's path may have 107 bytes at most.
  defp new_dir do
    base = if byte_size(System.tmp_dir!()) < 60, do: System.tmp_dir!(), else: "/tmp"
    dir = Path.join(base, "causeway-pg-#{System.pid()}-#{System.unique_integer([:positive])}")
    File.mkdir!(dir)
    File.chmod!(dir, 0o700)
    if id() == "0", do: File.chown!(dir, 65_534)
    dir
  end

  @doc "A port that is free now."
  def free_port do
    {:ok, socket} = :gen_tcp.listen(0, ip: {127, 0, 0, 1})
    {:ok, port} = :inet.port(socket)
    :gen_tcp.close(socket)
    port
  end

  defp pg_ctl!(server, [command | args]),
    do: run!("pg_ctl", [command, "-D", data(server)] ++ args)

  # As the server's user: files are made that only it may read.
  defp run!(name, args, env \\ @env) do
    {:ok, prefix} = unprivileged()
    [executable | args] = prefix ++ [program(name) | args]

    case System.cmd(executable, args, stderr_to_stdout: true, cd: "/", env: env) do
      {output, 0} -> output
      {output, status} -> raise "#{name} ended with #{status}: #{output}#{log_of(args)}"
    end
  end

  defp log_of(args) do
    with index when index != nil <- Enum.find_index(args, &(&1 == "-l")),
         {:ok, text} <- File.read(Enum.at(args, index + 1)) do
      text |> String.split("\n") |> Enum.take(-20) |> Enum.join("\n")
    else
      _ -> ""
    end
  end

  defp wait_until(what, fun, tries \\ 1_000) do
    cond do
      fun.() ->
        :ok

      tries == 0 ->
        raise "#{what}: this did not come to be"

      true ->
        Process.sleep(10)
        wait_until(what, fun, tries - 1)
    end
  end

  # ---- the keeper's holder ----

  @impl true
  def init({dir, owner}) do
    Process.flag(:trap_exit, true)
    if owner, do: Process.monitor(owner)

    port =
      Port.open({:spawn_executable, "/bin/sh"}, [:exit_status, :binary, args: [@keeper, dir]])

    {:ok, %{port: port, caller: nil}}
  end

  @impl true
  def handle_call(:remove, from, state) do
    Port.command(state.port, "end\n")
    {:noreply, %{state | caller: from}}
  end

  @impl true
  def handle_info({:DOWN, _, :process, _, _}, state) do
    Port.command(state.port, "end\n")
    {:noreply, state}
  end

  def handle_info({port, {:exit_status, _}}, %{port: port} = state) do
    if state.caller, do: GenServer.reply(state.caller, :ok)
    {:stop, :normal, state}
  end

  def handle_info(_, state), do: {:noreply, state}
end
