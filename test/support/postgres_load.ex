defmodule Causeway.PostgresLoad do
  @moduledoc false
  # A load that goes on whatever happens to the server: pgbench, started again each time it fails, with transactions that
  # insert, update and delete, some of them rolled back, some in part. What they did is what the tables hold.
  #
  #     events    rows inserted, some deleted again; xid is the transaction's
  #     totals    for each client, how many rows it has inserted and how many transactions committed

  alias Causeway.PostgresServer

  @enforce_keys [:port, :server, :database]
  defstruct [:port, :server, :database]

  @clients 4

  @schema """
  create table events (id bigserial primary key, client int not null, k int not null,
                       xid text not null default pg_current_xact_id()::text, note text);
  create table totals (client int primary key, rows bigint not null default 0, transactions bigint not null default 0);
  insert into totals (client) select generate_series(0, #{@clients - 1});
  """

  @script """
  \\set k random(1, 6)
  \\set fate random(1, 10)
  begin;
  insert into events (client, k, note)
    select :client_id, i, repeat(md5(i::text), :fate) from generate_series(1, :k) i;
  \\if :fate = 1
  rollback;
  \\elif :fate = 2
  savepoint s;
  insert into events (client, k, note) values (:client_id, 0, 'never');
  rollback to s;
  update totals set rows = rows + :k, transactions = transactions + 1 where client = :client_id;
  commit;
  \\elif :fate = 3
  delete from events where id = (select max(id) - 100 from events where client = :client_id);
  update totals set rows = rows + :k, transactions = transactions + 1 where client = :client_id;
  commit;
  \\else
  update totals set rows = rows + :k, transactions = transactions + 1 where client = :client_id;
  commit;
  \\endif
  """

  # pgbench until it ends or this does, with its standard input.
  @loop """
  ( trap 'kill $pgbench 2>/dev/null; exit' TERM
    while :; do
      "$@" >/dev/null 2>&1 & pgbench=$!
      wait $pgbench
      sleep 0.05
    done ) &
  loop=$!
  read -r _
  kill $loop
  wait $loop
  """

  @doc "Makes the tables."
  def create!(server, database), do: PostgresServer.psql!(server, @schema, database)

  defp script(server), do: Path.join(server.dir, "load.sql")

  @doc "Starts the load; `:rate` is how many transactions a second, all clients together."
  def start!(server, database, opts \\ []) do
    {:ok, bin} = PostgresServer.bin()
    File.write!(script(server), @script)
    rate = if rate = opts[:rate], do: ["-R", "#{rate}"], else: []
    connection = ~w(-h 127.0.0.1 -p #{opts[:port] || server.port} -U postgres)

    command = [
      Path.join(bin, "pgbench"),
      "-n",
      "-c",
      "#{@clients}",
      "-T",
      "100000",
      "-f",
      script(server)
    ]

    args = ["-c", @loop, "load"] ++ command ++ rate ++ connection ++ [database]
    port = Port.open({:spawn_executable, "/bin/sh"}, [:binary, :exit_status, args: args])
    %__MODULE__{port: port, server: server, database: database}
  end

  @doc "Ends it; the server has then done what it will have done, once its backends are gone."
  def stop!(%__MODULE__{port: port} = load) do
    Port.command(port, "end\n")
    receive do: ({^port, {:exit_status, _}} -> :ok)
    quiesce(load, 500)
  end

  defp quiesce(load, tries) do
    condition = "datname = '#{load.database}' and application_name = 'pgbench'"

    cond do
      PostgresServer.backends(load.server, condition) == [] ->
        :ok

      tries == 0 ->
        raise "backends of the load are still there"

      true ->
        Process.sleep(10)
        quiesce(load, tries - 1)
    end
  end

  @doc "What the tables hold: `%{events: %{id => {client, k, xid}}, totals: %{client => {rows, transactions}}}`."
  def tables(server, database) do
    events = rows(server, database, "select id, client, k, xid from events")
    totals = rows(server, database, "select client, rows, transactions from totals")

    %{
      events: for([id, client, k, xid] <- events, into: %{}, do: {id, {client, k, xid}}),
      totals: for([client, rows, n] <- totals, into: %{}, do: {client, {rows, n}})
    }
  end

  defp rows(server, database, sql) do
    for line <- server |> PostgresServer.psql!(sql, database) |> String.split("\n", trim: true),
        do: line |> String.split("|") |> Enum.map(&String.to_integer/1)
  end
end
