# Causeway.Log: what is published here is read here and on a second node, a VM of its own, over a server that syncs. Beside it
# LISTEN/NOTIFY with a row on the same server, and Phoenix.PubSub's default adapter. Wall-clock time; LOG_SECONDS (4) a case.

for file <-
      ~w(../test/support/eventually ../test/support/cluster support/bench support/pg_bench support/log_node) do
  Code.require_file("#{file}.ex", __DIR__)
end

defmodule LogBench.Counter do
  @moduledoc "A consumer that counts."
  use Causeway.Log.Consumer

  @impl true
  def handle_messages(messages, %{argument: counter}),
    do: :counters.add(counter, 1, length(messages))
end

defmodule LogBench do
  import Bench
  alias Causeway.{Cluster, Log, Postgres}
  alias LogBench.{Counter, Node}

  @payload String.duplicate("x", 100)
  @publishers 64

  def run do
    if server = PgBench.start() do
      options = PgBench.options(server)
      other = Cluster.start_alone()

      Cluster.on(other, Code, :require_file, [Path.expand("support/log_node.ex", __DIR__)])
      :ok = Node.start(options)
      :ok = Cluster.on(other, Node, :start, [options], 30_000)

      notify = notify(options)
      publish(other, 1, [{"LISTEN/NOTIFY and row, two listeners", notify}])
      publish(other, 100, [])
      latency(other, options)
      replay()
      consume()
    end

    fast_path()
  end

  defp seconds,
    do: String.to_integer(System.get_env("LOG_SECONDS", if(quick?(), do: "1", else: "4")))

  # ---- publish ----

  # Until all is acknowledged, and read on both nodes.
  defp publish(other, batch, peers) do
    before = {Node.count(), Cluster.on(other, Node, :count, [])}
    began = System.monotonic_time(:microsecond)
    total = @publishers |> processes(&publish_one(&1, batch)) |> Enum.sum()
    await_counts(other, before, total)
    rate = total * 1_000_000 / (System.monotonic_time(:microsecond) - began)
    name = if batch == 1, do: "one by one", else: "#{batch} at a time"

    line(
      "log",
      "durable publish, #{@publishers} publishers, #{name}, read on two nodes",
      rate,
      "/s",
      peers
    )
  end

  defp publish_one(n, 1), do: with({:ok, _} <- Log.publish(Bench, "t.#{n}", @payload), do: 1)

  defp publish_one(n, batch) do
    {:ok, _} = Log.publish_many(Bench, for(_ <- 1..batch, do: {"t.#{n}", @payload}))
    batch
  end

  # Each calls a function until the time is over; what it returned, added up.
  defp processes(count, fun) do
    until = System.monotonic_time(:millisecond) + seconds() * 1000

    1..count
    |> Enum.map(fn n -> Task.async(fn -> repeat(until, fn -> fun.(n) end, 0) end) end)
    |> Task.await_many(60_000)
  end

  defp repeat(until, fun, sum) do
    if System.monotonic_time(:millisecond) < until,
      do: repeat(until, fun, sum + fun.()),
      else: sum
  end

  defp await_counts(other, {here, there} = before, total) do
    unless Node.count() - here >= total and Cluster.on(other, Node, :count, []) - there >= total do
      Process.sleep(2)
      await_counts(other, before, total)
    end
  end

  # ---- NOTIFY ----

  defp notify(options) do
    {:ok, conn} = Postgres.start_link(options)
    Postgres.query!(conn, "CREATE TABLE notified (id bigserial PRIMARY KEY, payload text)")
    counter = :counters.new(1, [])
    listeners = for _ <- 1..2, do: listener(options, counter)
    conns = for _ <- 1..8, do: elem(Postgres.start_link(options), 1)

    sql =
      "WITH row AS (INSERT INTO notified (payload) VALUES ($1) RETURNING id) SELECT pg_notify('bench', id::text) FROM row"

    began = System.monotonic_time(:microsecond)

    total =
      @publishers
      |> processes(fn n ->
        Postgres.query!(Enum.at(conns, rem(n, 8)), sql, [@payload]).num_rows
      end)
      |> Enum.sum()

    await_notified(counter, 2 * total)
    rate = total * 1_000_000 / (System.monotonic_time(:microsecond) - began)
    for pid <- listeners, do: send(pid, :stop)
    for conn <- [conn | conns], do: GenServer.stop(conn)
    rate
  end

  defp listener(options, counter) do
    test = self()

    pid =
      spawn(fn ->
        {:ok, conn} = Postgres.start_link(options)
        {:ok, _} = Postgres.listen(conn, "bench")
        send(test, :listening)
        listen(counter)
      end)

    receive do: (:listening -> pid)
  end

  defp listen(counter) do
    receive do
      {:notification, _, _, _, _} -> :counters.add(counter, 1, 1) && listen(counter)
      :stop -> :ok
    end
  end

  defp await_notified(counter, total) do
    unless :counters.get(counter, 1) >= total,
      do: Process.sleep(2) && await_notified(counter, total)
  end

  # ---- latency ----

  defp latency(other, options) do
    Cluster.on(other, Node, :latencies, [])
    n = if quick?(), do: 100, else: 2_000

    for _ <- 1..n do
      {:ok, _} = Log.publish(Bench, "latency", {:sent, System.os_time(:microsecond)})
      Process.sleep(1)
    end

    Process.sleep(200)
    ours = Cluster.on(other, Node, :latencies, [])
    peer = notify_latency(options, n)

    for {name, share} <- [{"p50", 0.5}, {"p99", 0.99}] do
      value = &(PgBench.percentile(&1, share) / 1000)

      line("log", "publish to a reader on another node, #{name}", value.(ours), "ms", [
        {"LISTEN/NOTIFY and row", value.(peer)}
      ])
    end
  end

  defp notify_latency(options, n) do
    {:ok, conn} = Postgres.start_link(options)
    {:ok, listening} = Postgres.start_link(options)
    {:ok, ref} = Postgres.listen(listening, "latency")

    sql =
      "WITH row AS (INSERT INTO notified (payload) VALUES ($1) RETURNING id) SELECT pg_notify('latency', id::text) FROM row"

    latencies =
      for _ <- 1..n do
        sent = System.monotonic_time(:microsecond)
        Postgres.query!(conn, sql, [@payload])
        receive do: ({:notification, _, ^ref, _, _} -> :ok)
        took = System.monotonic_time(:microsecond) - sent
        Process.sleep(1)
        took
      end

    for pid <- [conn, listening], do: GenServer.stop(pid)
    latencies
  end

  # ---- reading ----

  defp replay do
    {:ok, %{partitions: partitions}} = Log.info(Bench)
    total = partitions |> Enum.map(& &1.last) |> Enum.sum()
    rate = PgBench.percentile(for(_ <- 1..3, do: replay(total)), 0.5)
    line("log", "replay of #{div(total, 1000)},000 to one reader", rate, "/s")
  end

  defp replay(total) do
    began = System.monotonic_time(:microsecond)
    {:ok, ref, _} = Log.subscribe(Bench, ">", from: :beginning)
    take(ref, total)
    took = System.monotonic_time(:microsecond) - began
    Log.unsubscribe(Bench, ref)
    total * 1_000_000 / took
  end

  defp take(_ref, left) when left <= 0, do: :ok

  defp take(ref, left),
    do: receive(do: ({:causeway, ^ref, messages} -> take(ref, left - length(messages))))

  defp consume do
    {:ok, %{partitions: partitions}} = Log.info(Bench)
    total = partitions |> Enum.map(& &1.last) |> Enum.sum()
    counter = :counters.new(1, [])

    {:ok, pid} =
      Log.Consumer.start_link(
        log: Bench,
        group: "bench",
        handler: {Counter, counter},
        batch: 100,
        from: :beginning
      )

    await_handled(counter, 1)
    before = :counters.get(counter, 1)
    began = System.monotonic_time(:microsecond)
    until = System.monotonic_time(:millisecond) + seconds() * 1000
    handled = await_handled(counter, total, until) - before
    rate = handled * 1_000_000 / (System.monotonic_time(:microsecond) - began)
    line("log", "one group, #{length(partitions)} partitions, acknowledged by 100", rate, "/s")
    GenServer.stop(pid)
  end

  defp await_handled(counter, total, until \\ :infinity) do
    n = :counters.get(counter, 1)

    if n >= total or System.monotonic_time(:millisecond) >= until do
      n
    else
      Process.sleep(2)
      await_handled(counter, total, until)
    end
  end

  # ---- PubSub ----

  if Code.ensure_loaded?(Phoenix.PubSub) do
    alias Phoenix.PubSub

    defp fast_path do
      if Process.whereis(Bench) do
        {:ok, _} = Application.ensure_all_started(:phoenix_pubsub)

        {:ok, _} =
          Supervisor.start_link(
            [
              Supervisor.child_spec(
                {PubSub,
                 name: OurPubSub, adapter: Causeway.PubSub, log: Bench, fast: :distribution},
                id: 1
              ),
              Supervisor.child_spec({PubSub, name: ItsPubSub}, id: 2)
            ],
            strategy: :one_for_one
          )

        for subscribers <- [1_000, 10_000] do
          for pubsub <- [OurPubSub, ItsPubSub], do: subscribe(pubsub, subscribers)

          # In turns, and each first as often as the other, so that what disturbs one disturbs both.
          pairs = for turn <- 1..if(quick?(), do: 4, else: 20), do: turn(turn, subscribers)
          {ours, its} = Enum.unzip(pairs)
          median = &PgBench.percentile(&1, 0.5)

          line("log", "fast broadcast to #{subscribers} local subscribers", median.(ours), "us", [
            {"Phoenix.PubSub.PG2", median.(its)}
          ])
        end
      end
    end

    defp turn(n, subscribers) do
      order = if rem(n, 2) == 0, do: [OurPubSub, ItsPubSub], else: [ItsPubSub, OurPubSub]
      took = Map.new(order, &{&1, broadcast(&1, subscribers)})
      {took[OurPubSub], took[ItsPubSub]}
    end

    defp subscribe(pubsub, count) do
      test = self()
      topic = "t#{count}"

      for _ <- 1..count do
        spawn_link(fn ->
          PubSub.subscribe(pubsub, topic)
          send(test, :subscribed)
          echo()
        end)
      end

      for _ <- 1..count, do: receive(do: (:subscribed -> :ok))
    end

    defp echo do
      receive do:
                ({:tell, counter, pid, total} ->
                   if(:atomics.add_get(counter, 1, 1) == total, do: send(pid, :all)))

      echo()
    end

    # Microseconds until all have it.
    defp broadcast(pubsub, count) do
      times = div(20_000, count)
      began = System.monotonic_time(:microsecond)

      for _ <- 1..times do
        :ok = PubSub.broadcast(pubsub, "t#{count}", {:tell, :atomics.new(1, []), self(), count})
        receive do: (:all -> :ok)
      end

      (System.monotonic_time(:microsecond) - began) / times
    end
  else
    defp fast_path, do: :ok
  end
end

LogBench.run()
