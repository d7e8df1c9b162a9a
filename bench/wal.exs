# Causeway.Postgres.WAL beside a plain loop in C, which counts and is the physical limit, and Postgrex with the Elixir
# decoders: rows from commit to handler. Medians of WAL_RUNS rounds (5), in which each has its turn, with a slot of its own
# over the same log.

Code.require_file("support/bench.ex", __DIR__)
Code.require_file("support/pg_bench.ex", __DIR__)
Code.require_file("../test/support/wal_frames.ex", __DIR__)

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
  alias Causeway.Postgres.Types
  alias Causeway.Postgres.WAL.Decoder
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
      decoding(server)
      latency(server)
    end
  end

  defp sql(server, sql), do: PostgresServer.psql!(server, sql)
  defp runs, do: String.to_integer(System.get_env("WAL_RUNS", if(quick?(), do: "1", else: "5")))

  # ---- throughput ----

  defp small(server) do
    base = load(server, "small", @rows, 10)

    report("#{@rows} rows in #{div(@rows, 10)} transactions", server, base, [
      {"Causeway", &causeway(server, base, &1)},
      {"C loop", &loop(server, base, &1, ["count"])},
      {"C loop, 100 us naps", &loop(server, base, &1, ["count", "100"])},
      {"Postgrex, counting", postgrex(server, base, nil)}
      | for(
          {name, module} <- @decoders,
          do: {"Postgrex, #{name}", postgrex(server, base, module)}
        )
    ])

    drop(server, "small")
  end

  defp large(server) do
    base = load(server, "large", @rows, @rows)

    report("#{@rows} rows in one transaction, streamed", server, base, [
      {"Causeway", &causeway(server, base, &1)},
      {"C loop", &loop(server, base, &1, ["count", "0", "streaming"])}
    ])

    drop(server, "large")
  end

  # Each is a function of a slot, or nil, that returns seconds and CPU seconds.
  defp report(name, server, base, contenders) do
    contenders = Enum.filter(contenders, &elem(&1, 1))
    round = fn -> for {_, fun} <- contenders, do: with_slot(server, base, fun) end
    # The first one warms caches.
    unless quick?(), do: round.()
    rounds = for _ <- 1..runs(), do: round.()
    results = rounds |> Enum.zip() |> Enum.map(&Tuple.to_list/1)

    for {what, index} <- [{name, 0}, {"#{name}, CPU", 1}] do
      [ours | peers] = for runs <- results, do: runs |> Enum.map(&elem(&1, index)) |> median()
      names = contenders |> tl() |> Enum.map(&elem(&1, 0))
      line("wal", what, ours, "s", Enum.zip(names, peers))
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

  defp loop(server, base, slot, args) do
    args = [PgBench.conninfo(server), slot, "bench", base.until | args]
    [[seconds, cpu, rows, _]] = PgBench.run("pg_wal_loop", args)
    true = String.to_integer(rows) == base.rows + 1
    {String.to_float(seconds), String.to_float(cpu)}
  end

  # Terms of every value; what is done with them is to count.
  defp causeway(server, base, slot) do
    until = position(base.until)
    me = self()

    handler = fn transaction ->
      rows = Process.get(:rows, 0) + length(transaction.changes)
      Process.put(:rows, rows)
      if transaction.last and transaction.end_lsn > until, do: send(me, {:done, rows})
    end

    before = PgBench.cpu()

    {us, {pid, rows}} =
      :timer.tc(fn ->
        {:ok, pid} = WalBench.Causeway.start(PgBench.options(server), slot, handler, :terms)
        rows = receive do: ({:done, rows} -> rows)
        {pid, rows}
      end)

    true = rows == base.rows + 1
    # The port program was not there before: all that it has used is this run's.
    result = {us / 1.0e6, PgBench.cpu([Causeway.Postgres.WAL.info(pid).os_pid]) - before}
    Causeway.Postgres.WAL.stop(pid)
    result
  end

  defp postgrex(server, base, decoder) do
    peer(Postgrex, fn ->
      if decoder == nil or Code.ensure_loaded?(decoder),
        do: &postgrex_run(server, base, decoder, &1)
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

  # ---- decoding alone ----

  # The messages of some thousand transactions, to terms: ours in binary format, in frames as they come from the port
  # program, whose codec is made already; others in text format, one by one, to the server's texts.
  defp decoding(server) do
    base = load(server, "decode", 50_000, 10)
    frames = frames(messages(server, ", 'binary', 'true'"))
    texts = messages(server, "")
    decoder = decoder()
    {:ok, _, decoder} = Decoder.decode(decoder, hd(frames))

    ours = fn ->
      Enum.each(frames, fn frame -> {:ok, _, _} = Decoder.decode(decoder, frame) end)
    end

    peers =
      for {name, module} <- @decoders, Code.ensure_loaded?(module) do
        decode = decode(module)
        {name, rows_a_second(base, fn -> Enum.each(texts, decode) end)}
      end

    line("wal", "decoding alone", rows_a_second(base, ours), "rows/s", peers)
    drop(server, "decode")
  end

  # In a process that has room, as a consumer's has.
  defp rows_a_second(base, fun) do
    me = self()
    samples = if quick?(), do: 3, else: 15

    measure = fn ->
      fun.()
      send(me, {:seconds, for(_ <- 1..samples, do: seconds(fun))})
    end

    :erlang.spawn_opt(measure, [:link, min_heap_size: 121_000])
    receive do: ({:seconds, list} -> base.rows / median(list))
  end

  defp messages(server, option) do
    sql =
      "select data from pg_logical_slot_peek_binary_changes('decode', null, null, " <>
        "'proto_version', '1', 'publication_names', 'bench'#{option})"

    {:ok, conn} = Causeway.Postgres.start_link(PgBench.options(server))
    %{rows: rows} = Causeway.Postgres.query!(conn, sql, [], timeout: :infinity)
    GenServer.stop(conn)
    Enum.concat(rows)
  end

  # Of about 64 kB.
  defp frames(messages) do
    chunk = fn
      <<"B", _::binary>>, {blocks, _} ->
        {:cont, {blocks, []}}

      <<"C", _::binary>> = commit, {blocks, changes} ->
        close(block(commit, changes), blocks)

      <<"R", _::binary>> = relation, {blocks, changes} ->
        {:cont, {blocks, [["r", <<1::64>>, relation] | changes]}}

      message, {blocks, changes} ->
        {:cont, {blocks, [message | changes]}}
    end

    rest = fn {blocks, _} -> {:cont, Causeway.WalFrames.frame(Enum.reverse(blocks)), nil} end
    Enum.chunk_while(messages, {[], []}, chunk, rest)
  end

  defp block(<<"C", _, lsn::64, end_lsn::64, time::64>>, changes) do
    Causeway.WalFrames.block(Enum.reverse(changes), commit_lsn: lsn, end_lsn: end_lsn, time: time)
  end

  defp close(block, blocks) do
    blocks = [block | blocks]

    if IO.iodata_length(blocks) > 65_536,
      do: {:cont, Causeway.WalFrames.frame(Enum.reverse(blocks)), {[], []}},
      else: {:cont, {blocks, []}}
  end

  # Only built-in types are met, of which nobody is asked.
  defp decoder do
    types = Types.new([])

    Decoder.new(
      fn columns, _, lenient ->
        Types.relation(types, columns, fn _ -> {:error, :none} end, lenient)
      end,
      :copy
    )
  end

  # ---- latency ----

  defp latency(server) do
    count = if quick?(), do: 400, else: 4_000
    loop = latency_of(server, count, &latency_loop/3)
    ours = latency_of(server, count, &latency_causeway/3)

    for {share, name} <- [{0.5, "p50"}, {0.99, "p99"}] do
      [own, other] = for times <- [ours, loop], do: PgBench.percentile(times, share)
      line("wal", "commit to handler, 200/s, #{name}", own, "ms", [{"C loop", other}])
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
