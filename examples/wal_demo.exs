# A bank in PostgreSQL, written by pgbench, and a ledger that follows its write-ahead log with Causeway.Postgres.WAL. On the
# way the port program is killed and the ledger falls asleep; in the end both have the same balances. `make demo` runs it.
#
# demo/ledger.ex is what an application would look like. demo/pgbench.ex is the writer, which nobody here wrote.

for file <- ~w(../test/support/postgres_server demo/screen demo/pgbench demo/ledger) do
  Code.require_file("#{file}.ex", __DIR__)
end

defmodule WalDemo do
  import Demo.Screen

  alias Causeway.Postgres.{LSN, WAL}
  alias Causeway.PostgresServer
  alias Demo.{Ledger, Pgbench}

  @scale 5
  @clients 4
  @seconds 12
  @killed_at 4
  @asleep_at 7
  @asleep_ms 2_000
  @deadline 60_000

  def run do
    line([:bright, "Causeway.Postgres.WAL: a bank, and a ledger that follows it"])

    case PostgresServer.missing() do
      nil -> bank() |> follow() |> watch() |> catch_up() |> account()
      why -> line(["left out: ", why])
    end
  end

  # ---- 1. the bank ----

  defp bank do
    title("1. A PostgreSQL server of its own, and pgbench's bank in it")
    server = PostgresServer.start!(settings: [fsync: "on", full_page_writes: "on"])
    PostgresServer.pgbench!(server, ~w(-i -q -s #{@scale}))

    line(
      "PostgreSQL #{PostgresServer.release()} in #{server.dir}: " <>
        "#{number(@scale * 100_000)} accounts, #{@scale * 10} tellers, #{@scale} branches, all with nothing"
    )

    %{server: server, ledger: Ledger.new()}
  end

  # ---- 2. the ledger ----

  defp follow(world) do
    title("2. The ledger follows the write-ahead log")
    Process.flag(:trap_exit, true)

    {:ok, wal} =
      WAL.start_link(
        connection: [
          socket_dir: world.server.dir,
          port: world.server.port,
          username: "postgres",
          database: "postgres"
        ],
        slot: "ledger",
        publication: "bank",
        create_publication: [tables: :all],
        handler: {Ledger, world.ledger}
      )

    wait_until("the stream has not begun", fn -> WAL.info(wal).status == :streaming end)

    line(
      "it gets whole transactions, once they are committed, with their values as terms, and confirms each"
    )

    Map.put(world, :wal, wal)
  end

  # ---- 3. both at work ----

  defp watch(world) do
    title("3. pgbench writes for #{@seconds} s with #{@clients} clients, and the ledger keeps up")
    {:ok, bin} = PostgresServer.bin()
    connection = ~w(-h #{world.server.dir} -p #{world.server.port} -U postgres)
    args = ~w(-n -P 1 -c #{@clients} -j 2 -T #{@seconds}) ++ connection ++ ["postgres"]
    {:ok, writer} = Pgbench.start_link(Path.join(bin, "pgbench"), args)

    line(
      dim(
        "        pgbench |  ledger                                                            sum of"
      )
    )

    line(
      dim(
        "     commits/s |  transactions/s   lag, ms      lag   transactions   changes          amounts"
      )
    )

    Enum.reduce(1..@seconds, Ledger.totals(world.ledger), &second(world, writer, &1, &2))

    case Pgbench.await(writer) do
      {0, said} -> Map.put(world, :said, said)
      {status, said} -> fail("pgbench ended with #{status}: #{Enum.join(said, "; ")}")
    end
  end

  defp second(world, writer, n, before) do
    Process.sleep(1_000)
    check(world)
    now = Ledger.totals(world.ledger)
    info = WAL.info(world.wal)

    line([
      right("#{n} s", 4),
      right(number(Pgbench.tps(writer)), 10),
      dim(" | "),
      right(number(now.transactions - before.transactions), 15),
      right(number(info.lag_ms), 10),
      right(bytes(info.lag_bytes), 9),
      right(number(now.transactions), 15),
      right(number(now.changes), 10),
      right(signed(now.moved), 17)
    ])

    disturb(world, n)
    now
  end

  defp disturb(_world, @killed_at) do
    pids = port_programs()

    line([
      :yellow,
      "     kill -9 #{Enum.join(pids, " ")}: the port program dies, and is started again"
    ])

    PostgresServer.signal(pids, "KILL")
  end

  defp disturb(world, @asleep_at) do
    line([
      :yellow,
      "     the ledger sleeps for #{@asleep_ms} ms: the server is kept content, and keeps what is not read"
    ])

    Ledger.pause(world.ledger, @asleep_ms)
  end

  defp disturb(_, _), do: :ok

  defp port_programs do
    for port <- Port.list(),
        {:name, name} <- [Port.info(port, :name)],
        Path.basename(to_string(name)) == "causeway_port",
        {:os_pid, pid} <- [Port.info(port, :os_pid)],
        do: pid
  end

  # ---- 4. the end ----

  defp catch_up(world) do
    title("4. pgbench has ended")
    for text <- world.said, text =~ ~r/processed|^tps/, do: line(dim("pgbench: #{text}"))
    last = LSN.parse!(sql(world, "select pg_current_wal_insert_lsn()"))

    {micros, _} =
      :timer.tc(fn ->
        wait_until("the ledger has not caught up", fn ->
          check(world)
          WAL.info(world.wal).confirmed_lsn >= last
        end)
      end)

    line("the ledger had everything, and had confirmed it, #{time(micros)} later")
    world
  end

  defp account(world) do
    title("5. The account")
    totals = Ledger.totals(world.ledger)

    [count, moved] =
      world |> sql("select count(*), coalesce(sum(delta), 0) from pgbench_history") |> numbers()

    equal("transactions", totals.transactions, count)
    equal("the sum of all amounts", totals.moved, moved)
    balances = Ledger.balances(world.ledger)

    for {table, id, balance} <- [
          {"branches", "bid", "bbalance"},
          {"tellers", "tid", "tbalance"},
          {"accounts", "aid", "abalance"}
        ],
        do:
          equal_tables(
            table,
            balances,
            rows(world, "select #{id}, #{balance} from pgbench_#{table} where #{balance} <> 0")
          )

    line()

    line(
      good("The ledger and the tables are equal: nothing was missed, and nothing was done twice.")
    )

    WAL.stop(world.wal)
  end

  defp rows(world, sql),
    do: for(row <- world |> sql(sql) |> String.split("\n", trim: true), do: numbers(row))

  defp numbers(row), do: row |> String.split("|") |> Enum.map(&String.to_integer/1)
  defp sql(world, sql), do: world.server |> PostgresServer.psql!(sql) |> String.trim()

  defp equal(what, same, same), do: line([good("ok  "), what, ": ", signed(same)])

  defp equal(what, ours, theirs),
    do: fail("#{what}: the ledger has #{ours}, the server #{theirs}")

  defp equal_tables(table, balances, rows) do
    ours = for {{^table, id}, balance} <- balances, into: %{}, do: {id, balance}
    theirs = for [id, balance] <- rows, into: %{}, do: {id, balance}

    case Enum.find(Map.merge(theirs, ours), fn {id, _} -> ours[id] != theirs[id] end) do
      nil ->
        line([good("ok  "), "#{table}: #{number(map_size(ours))} balances"])

      {id, _} ->
        fail(
          "#{table}, #{id}: the ledger has #{inspect(ours[id])}, the server #{inspect(theirs[id])}"
        )
    end
  end

  defp signed(n) when n < 0, do: "-" <> number(-n)
  defp signed(n), do: number(n)

  # A ledger that found something wrong has ended, and the consumer with it.
  defp check(%{wal: wal}) do
    receive do
      {:EXIT, ^wal, reason} -> fail("the ledger has ended: #{inspect(reason)}")
    after
      0 -> :ok
    end
  end

  defp wait_until(else_what, fun, tries \\ div(@deadline, 5)) do
    cond do
      fun.() ->
        :ok

      tries == 0 ->
        fail(else_what)

      true ->
        Process.sleep(5)
        wait_until(else_what, fun, tries - 1)
    end
  end

  defp fail(why) do
    line(bad("\nFAILED: #{why}"))
    exit({:shutdown, 1})
  end
end

WalDemo.run()
