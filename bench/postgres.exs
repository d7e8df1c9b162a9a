# Causeway.Postgres beside Postgrex, and beside a plain loop in C, which makes no terms and is the physical limit: the same
# statements over the same Unix socket, in turns, each a connection of its own. Times are wall-clock, medians.

Code.require_file("support/bench.ex", __DIR__)
Code.require_file("support/pg_bench.ex", __DIR__)

defmodule PostgresBench do
  import Bench
  alias Causeway.{Postgres, PostgresServer}

  @tables """
  create table nine as
    select i::int4 as a, 'customer ' || i as b, i * 1.5::float8 as c, '2026-01-01'::timestamptz + i * '1 s'::interval as d,
           i % 2 = 0 as e, md5(i::text)::uuid as f, i::int8 * 1000003 as g, repeat('x', 40) as h, null::text as i
    from generate_series(1, 10000) i;
  create table numerics as
    select i * 1.01::numeric as a, i::numeric as b, i / 7.0::numeric as c from generate_series(1, 10000) i;
  create table goods (id int8, name text, price float8);
  vacuum analyze nine;
  vacuum analyze numerics;
  """
  @nine "select * from nine limit $1::int8"
  @numerics "select * from numerics limit $1::int8"

  def run do
    if server = PgBench.start() do
      PostgresServer.psql!(server, String.split(@tables, ";", trim: true))
      {:ok, ours} = Postgres.start_link(PgBench.options(server))
      theirs = peer(Postgrex, fn -> postgrex(server) end)
      conns = {ours, theirs}
      selects(server, conns)
      inserts(conns)
      million(ours)
    end
  end

  # Mix has consolidated the protocols without Postgrex, of which the project knows nothing.
  defp postgrex(server) do
    for path <- :code.get_path(), Path.basename(path) == "consolidated", do: :code.del_path(path)

    for protocol <- [Collectable, Enumerable] do
      :code.purge(protocol)
      :code.load_file(protocol)
    end

    {:ok, _} = Application.ensure_all_started(:postgrex)
    {:ok, pid} = Postgrex.start_link(PgBench.options(server))
    pid
  end

  # ---- select ----

  defp selects(server, conns) do
    select(server, conns, "select $1::int8, prepared", "select $1::int8", 42, 2_000)
    select(server, conns, "100 rows x 9 columns", @nine, 100, 500)
    select(server, conns, "10000 rows x 9 columns", @nine, 10_000, 10)
    select(server, conns, "10000 rows x 3 numeric columns", @numerics, 10_000, 20)
  end

  defp select(server, {ours, theirs}, name, sql, param, times) do
    {:ok, own} = Postgres.prepare(ours, sql)
    other = theirs && Postgrex.prepare!(theirs, "bench #{name}", sql)

    if theirs do
      {:ok, _, %{rows: a}} = Postgres.execute(ours, own, [param])
      %{rows: ^a} = Postgrex.execute!(theirs, other, [param])
    end

    compare(name, times, fn -> {:ok, _, _} = Postgres.execute(ours, own, [param]) end, [
      {"Postgrex", theirs && fn -> Postgrex.execute!(theirs, other, [param]) end},
      {"C loop", {:us, fn -> loop(server, times, sql, param) end}}
    ])
  end

  defp loop(server, times, sql, param) do
    args = [PgBench.conninfo(server), "#{times}", sql, "#{param}"]
    [[us]] = PgBench.run("pg_query_loop", args)
    String.to_float(us)
  end

  # ---- insert ----

  @rows 1_000

  defp inserts(conns) do
    one_statement(conns)
    copy(conns)
    pipeline(conns)
  end

  defp rows, do: for(i <- 1..@rows, do: [i, "name #{i}", i * 1.5])

  defp one_statement({ours, theirs}) do
    places = for i <- 0..(@rows - 1), do: "($#{3 * i + 1}, $#{3 * i + 2}, $#{3 * i + 3})"
    sql = "insert into goods values #{Enum.join(places, ", ")}"
    params = Enum.concat(rows())
    {:ok, own} = Postgres.prepare(ours, sql)
    other = theirs && Postgrex.prepare!(theirs, "insert", sql)

    compare(
      "insert of #{@rows} rows, one statement",
      20,
      fn -> {:ok, _, _} = Postgres.execute(ours, own, params) end,
      [
        {"Postgrex", theirs && fn -> Postgrex.execute!(theirs, other, params) end}
      ]
    )
  end

  defp copy({ours, theirs}) do
    sql = "copy goods from stdin"
    lines = for [id, name, price] <- rows(), do: "#{id}\t#{name}\t#{price}\n"

    compare(
      "insert of #{@rows} rows, COPY",
      20,
      fn -> {:ok, _} = Postgres.copy_in(ours, sql, lines) end,
      [
        {"Postgrex",
         theirs &&
           fn ->
             Postgrex.transaction(theirs, fn conn ->
               Enum.into(lines, Postgrex.stream(conn, sql, []))
             end)
           end}
      ]
    )
  end

  # Postgrex has no pipeline: a statement at a time, in one transaction, as a pipeline is.
  defp pipeline({ours, theirs}) do
    sql = "insert into goods values ($1, $2, $3)"
    {:ok, own} = Postgres.prepare(ours, sql)
    other = theirs && Postgrex.prepare!(theirs, "insert one", sql)
    statements = for row <- rows(), do: {own, row}

    compare(
      "insert of #{@rows} rows, pipeline",
      10,
      fn -> {:ok, _} = Postgres.pipeline(ours, statements) end,
      [
        {"Postgrex",
         theirs &&
           fn ->
             Postgrex.transaction(theirs, fn conn ->
               Enum.each(rows(), &Postgrex.execute!(conn, other, &1))
             end)
           end}
      ]
    )
  end

  # ---- stream ----

  @million 1_000_000

  defp million(ours) do
    before = :erlang.memory(:total)
    watcher = Task.async(fn -> watch(0) end)

    seconds =
      seconds(fn ->
        stream =
          Postgres.stream(ours, "select n.* from nine n, generate_series(1, $1::int4)", [
            div(@million, 10_000)
          ])

        @million = Enum.reduce(stream, 0, &(length(&1.rows) + &2))
      end)

    send(watcher.pid, :stop)
    peak = Task.await(watcher)
    line("postgres", "#{@million} rows x 9 columns streamed", @million / seconds, "/s")

    line(
      "postgres",
      "#{@million} rows streamed, memory of the VM",
      (peak - before) / 1.0e6,
      "MB more"
    )

    line("postgres", "#{@million} rows streamed, memory of the port", port_memory(), "MB, peak")
  end

  defp watch(peak) do
    receive do
      :stop -> peak
    after
      5 -> watch(max(peak, :erlang.memory(:total)))
    end
  end

  # The highest resident set of any port program of this VM.
  defp port_memory do
    for("/proc/" <> _ = dir <- Path.wildcard("/proc/[0-9]*"), memory = hwm(dir), do: memory)
    |> Enum.max(fn -> 0 end)
  end

  defp hwm(dir) do
    with {:ok, status} <- File.read(Path.join(dir, "status")),
         "Name:\tcauseway_port" <> _ <- status,
         [_, kb] <- Regex.run(~r/VmHWM:\s+(\d+)/, status),
         do: String.to_integer(kb) / 1000,
         else: (_ -> nil)
  end

  # ---- measuring ----

  # Microseconds a call, of rounds in which each has its turn.
  defp compare(name, times, ours, peers) do
    peers = for {peer, fun} <- peers, fun, do: {peer, fun}
    funs = [ours | Enum.map(peers, &elem(&1, 1))]
    rounds = if quick?(), do: 3, else: 15
    for fun <- funs, do: each(fun, times)
    turns = for _ <- 1..rounds, do: Enum.map(funs, &each(&1, times))
    [own | others] = turns |> Enum.zip() |> Enum.map(&(&1 |> Tuple.to_list() |> median()))
    peers = for {{peer, _}, us} <- Enum.zip(peers, others), do: {peer, us}
    line("postgres", name, own, "us", peers)
  end

  # A program that measures itself, or a function.
  defp each({:us, fun}, _times), do: fun.()

  defp each(fun, times) do
    {us, _} = :timer.tc(fn -> repeat(fun, times) end)
    us / times
  end

  # Nothing is kept of a call, as when each is a request of its own.
  defp repeat(_fun, 0), do: :ok

  defp repeat(fun, n) do
    fun.()
    repeat(fun, n - 1)
  end
end

PostgresBench.run()
