# Causeway.Postgres.WAL beside a plain loop in C, which is the physical limit, and Postgrex with the Elixir decoders:
# rows from commit to handler. Medians of WAL_RUNS runs (5), each with a slot of its own over the same log.

Code.require_file("support/bench.ex", __DIR__)
Code.require_file("support/pg_bench.ex", __DIR__)

if Code.ensure_loaded?(Postgrex.ReplicationConnection) do
  defmodule WalBench.Postgrex do
    @moduledoc "Reads with Postgrex up to a position; hands whole transactions to a function, if decoded."
    use Postgrex.ReplicationConnection

    def start(opts, slot, until, decode, handler) do
      state = {slot, until, decode, handler, [], 0}
      Postgrex.ReplicationConnection.start_link(__MODULE__, state, opts)
    end

    @impl true
    def init(state), do: {:ok, state}

    @impl true
    def handle_connect({slot, _, _, _, _, _} = state) do
      options = "proto_version '1', publication_names 'bench'"
      {:stream, "START_REPLICATION SLOT #{slot} LOGICAL 0/0 (#{options})", [], state}
    end

    @impl true
    def handle_data(<<?w, _::binary-24, message::binary>>, state), do: handle(message, state)

    def handle_data(<<?k, _::binary-16, 1>>, state) do
      confirmed = elem(state, 5)
      {:noreply, [<<?r, confirmed::64, confirmed::64, confirmed::64, 0::64, 0>>], state}
    end

    def handle_data(_, state), do: {:noreply, state}

    defp handle(<<"C", _::binary-9, lsn::64, _::binary>> = message, state) do
      {slot, until, decode, handler, changes, _} = state
      if decode, do: decode.(message)
      handler.(Enum.reverse(changes), lsn)
      {:noreply, {slot, until, decode, handler, [], lsn}}
    end

    defp handle(<<"I", _::binary>> = message, {slot, until, decode, handler, changes, lsn}) do
      change = if decode, do: decode.(message), else: []
      {:noreply, {slot, until, decode, handler, [change | changes], lsn}}
    end

    defp handle(message, {_, _, decode, _, _, _} = state) do
      if decode, do: decode.(message)
      {:noreply, state}
    end
  end
end

defmodule WalBench.Causeway do
  @moduledoc "Hands whole transactions to a function, up to a position."
  use Causeway.Postgres.WAL.Handler

  def start(opts, slot, handler, values) do
    Causeway.Postgres.WAL.start_link(
      connection: opts,
      slot: slot,
      publication: "bench",
      handler: {__MODULE__, handler},
      values: values
    )
  end

  @impl true
  def handle_transaction(transaction, handler) do
    handler.(transaction)
    {:ack, handler}
  end
end

defmodule WalBench do
  import Bench
  alias Causeway.PostgresServer

  @rows if Bench.quick?(), do: 50_000, else: 500_000
  @table "orders (id bigint primary key, customer text, note text, amount float8, at timestamptz)"
  @decoders [
    {"Electric's decoder", Electric.Postgres.LogicalReplication.Decoder},
    {"WalEx's decoder", WalEx.Decoder}
  ]

  def run do
    if server = PgBench.start() do
      sql(server, "create table #{@table}")
      sql(server, "create table ticks (n bigint primary key)")
      sql(server, "create publication bench for all tables")
      small(server)
      large(server)
      latency(server)
    end
  end

  defp sql(server, sql), do: PostgresServer.psql!(server, sql)
  defp runs, do: String.to_integer(System.get_env("WAL_RUNS", if(quick?(), do: "1", else: "5")))

  # ---- throughput ----

  defp small(server) do
    base = load(server, "small", @rows, 10)
    name = "#{@rows} rows in #{div(@rows, 10)} transactions"
    loop = median_of(fn -> loop(server, base, ["count"]) end)
    napping = median_of(fn -> loop(server, base, ["count", "100"]) end)
    decoders = for {peer, module} <- @decoders, do: {peer, postgrex(server, base, module)}
    counting = postgrex(server, base, nil)
    ours = causeway(server, base)

    report(
      name,
      [{"Causeway", ours}, {"C loop", loop}, {"C loop, 100 us naps", napping}] ++
        [{"Postgrex", counting}] ++ decoders
    )

    drop(server, "small")
  end

  defp large(server) do
    base = load(server, "large", @rows, @rows)
    loop = median_of(fn -> loop(server, base, ["count", "0", "streaming"]) end)
    ours = causeway(server, base)
    report("#{@rows} rows in one transaction, streamed", [{"Causeway", ours}, {"C loop", loop}])
    drop(server, "large")
  end

  # `{seconds, CPU seconds}` of each peer.
  defp report(name, peers) do
    for {peer, {seconds, cpu}} <- peers do
      IO.puts("wal\t#{name}\t-\ts\t#{peer}\t#{Float.round(seconds, 2)}\t-")
      IO.puts("wal\t#{name}, CPU\t-\ts\t#{peer}\t#{Float.round(cpu, 2)}\t-")
    end
  end

  # Writes the rows, by so many a transaction, into the log after a slot, which each run copies.
  defp load(server, slot, rows, each) do
    sql(server, "truncate orders")
    sql(server, "checkpoint")
    sql(server, "select pg_create_logical_replication_slot('#{slot}', 'pgoutput')")

    insert = """
    do $$ begin
      for t in 0 .. #{div(rows, each) - 1} loop
        insert into orders
          select t::bigint * #{each} + i, 'customer ' || i, left(repeat(md5(i::text), 2), 52), i * 1.5, now()
          from generate_series(1, #{each}) i;
        commit;
      end loop;
    end $$
    """

    sql(server, ["set synchronous_commit = off", insert])

    # The last transaction ends after this position, and the one after it ends the run.
    until = sql(server, "select pg_current_wal_insert_lsn()") |> String.trim()
    sql(server, "insert into ticks select coalesce(max(n), 0) + 1 from ticks")
    sql(server, "checkpoint")
    %{slot: slot, until: until, rows: rows}
  end

  defp drop(server, slot), do: sql(server, "select pg_drop_replication_slot('#{slot}')")

  # Runs with a copy of the slot; after a first run, which warms the caches.
  defp median_of(fun) do
    unless quick?(), do: fun.()
    results = for _ <- 1..runs(), do: fun.()
    {results |> Enum.map(&elem(&1, 0)) |> median(), results |> Enum.map(&elem(&1, 1)) |> median()}
  end

  defp with_slot(server, base, fun) do
    slot = "run#{System.unique_integer([:positive])}"
    sql(server, "select pg_copy_logical_replication_slot('#{base.slot}', '#{slot}')")

    try do
      fun.(slot)
    after
      drop_when_free(server, slot)
    end
  end

  # A walsender learns that its client is gone when it next looks.
  defp drop_when_free(server, slot) do
    free = "select not active from pg_replication_slots where slot_name = '#{slot}'"

    if sql(server, free) == "t\n" do
      drop(server, slot)
    else
      Process.sleep(20)
      drop_when_free(server, slot)
    end
  end

  defp loop(server, base, args) do
    with_slot(server, base, fn slot ->
      args = [PgBench.conninfo(server), slot, "bench", base.until | args]
      [[seconds, cpu, rows, _]] = PgBench.run("pg_wal_loop", args)
      true = String.to_integer(rows) == base.rows + 1
      {String.to_float(seconds), String.to_float(cpu)}
    end)
  end

  # Terms of every value; what is done with them is to count.
  defp causeway(server, base),
    do: median_of(fn -> with_slot(server, base, &causeway_run(server, base, &1)) end)

  defp causeway_run(server, base, slot) do
    until = position(base.until)
    me = self()

    handler = fn transaction ->
      rows = Process.get(:rows, 0) + length(transaction.changes)
      Process.put(:rows, rows)
      if transaction.commit_lsn >= until, do: send(me, {:done, rows})
    end

    port_cpu = fn pid -> PgBench.cpu([Causeway.Postgres.WAL.info(pid).os_pid]) end
    before = PgBench.cpu()

    {us, {pid, rows}} =
      :timer.tc(fn ->
        {:ok, pid} = WalBench.Causeway.start(PgBench.options(server), slot, handler, :terms)
        rows = receive do: ({:done, rows} -> rows)
        {pid, rows}
      end)

    true = rows == base.rows + 1
    result = {us / 1.0e6, port_cpu.(pid) - before}
    Causeway.Postgres.WAL.stop(pid)
    result
  end

  defp postgrex(server, base, decoder) do
    peer(Postgrex, fn ->
      if decoder == nil or Code.ensure_loaded?(decoder),
        do: median_of(fn -> with_slot(server, base, &postgrex_run(server, base, decoder, &1)) end)
    end)
  end

  defp postgrex_run(server, base, decoder, slot) do
    decode = if decoder, do: decode(decoder)
    until = position(base.until)
    me = self()

    handler = fn changes, lsn ->
      Process.put(:rows, Process.get(:rows, 0) + length(changes))
      if lsn > until, do: send(me, {:done, Process.get(:rows)})
    end

    timed(fn ->
      {:ok, pid} = WalBench.Postgrex.start(PgBench.options(server), slot, until, decode, handler)
      rows = receive do: ({:done, rows} -> rows)
      true = rows == base.rows + 1
      pid
    end)
  end

  defp decode(WalEx.Decoder), do: &apply(WalEx.Decoder, :decode_message, [&1])
  defp decode(decoder), do: &apply(decoder, :decode, [&1])

  defp timed(fun) do
    cpu = PgBench.cpu()
    {us, pid} = :timer.tc(fun)
    result = {us / 1.0e6, PgBench.cpu() - cpu}
    Process.unlink(pid)
    Process.exit(pid, :kill)
    result
  end

  defp position(text) do
    [high, low] = for part <- String.split(text, "/"), do: String.to_integer(part, 16)
    high * 0x1_0000_0000 + low
  end

  # ---- latency ----

  defp latency(server) do
    count = if quick?(), do: 400, else: 4_000
    loop = latency_of(server, count, &latency_loop/3)
    ours = latency_of(server, count, &latency_causeway/3)

    for {peer, times} <- [{"Causeway", ours}, {"C loop", loop}],
        {share, name} <- [{0.5, "p50"}, {0.99, "p99"}] do
      ms = PgBench.percentile(times, share)
      IO.puts("wal\tcommit to handler, 200/s, #{name}\t-\tms\t#{peer}\t#{Float.round(ms, 3)}\t-")
    end
  end

  defp latency_causeway(server, slot, count) do
    me = self()
    handler = fn transaction -> send(me, {:at, System.os_time(), transaction.changes}) end
    {:ok, pid} = WalBench.Causeway.start(PgBench.options(server), slot, handler, :terms)
    times = for _ <- 1..count, do: receive(do: ({:at, at, [%{new: %{"n" => n}}]} -> {n, at}))
    Causeway.Postgres.WAL.stop(pid)
    Map.new(times)
  end

  # Milliseconds of each, from the reader's and the writer's times.
  defp latency_of(server, count, reader) do
    sql(server, "truncate ticks")
    sql(server, "select pg_create_logical_replication_slot('ticks', 'pgoutput')")
    task = Task.async(fn -> reader.(server, "ticks", count) end)
    Process.sleep(500)
    writer = PgBench.run("pg_wal_writer", [PgBench.conninfo(server), "ticks", "200", "#{count}"])
    received = Task.await(task, :infinity)
    drop_when_free(server, "ticks")

    for [n, sent] <- writer do
      (Map.fetch!(received, String.to_integer(n)) - String.to_integer(sent)) / 1.0e6
    end
  end

  defp latency_loop(server, slot, count) do
    args = [PgBench.conninfo(server), slot, "bench", "#{count}", "latency"]

    for [n, at] <- PgBench.run("pg_wal_loop", args),
        into: %{},
        do: {String.to_integer(n), String.to_integer(at)}
  end
end

WalBench.run()
