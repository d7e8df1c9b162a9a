# Causeway.Ecto.Adapter beside Ecto.Adapters.Postgres: the same calls on two repositories over the same Unix socket, in
# turns. Times are wall-clock, medians. Commits do not wait for the disk (synchronous_commit), which would be most of an
# insert's time and is the same for both; one line says what it is when they do.

Code.require_file("support/bench.ex", __DIR__)
Code.require_file("support/pg_bench.ex", __DIR__)

if Code.ensure_loaded?(Causeway.Ecto.Adapter) do
  defmodule EctoBench.Item do
    use Ecto.Schema

    schema "items" do
      field(:name, :string)
      field(:price, :decimal)
      field(:weight, :float)
      field(:stock, :integer)
      field(:listed, :boolean)
      field(:code, Ecto.UUID)
      field(:note, :string)
      field(:sold_at, :utc_datetime_usec)
    end
  end

  for {name, adapter} <- [Ours: Causeway.Ecto.Adapter, Theirs: Ecto.Adapters.Postgres] do
    defmodule Module.concat(EctoBench, name) do
      use Ecto.Repo, otp_app: :causeway, adapter: adapter
    end
  end

  defmodule EctoBench do
    import Bench
    import Ecto.Query, only: [from: 2]
    alias Causeway.PostgresServer
    alias EctoBench.{Item, Ours, Theirs}

    @repos [Ours, Theirs]
    @columns """
    id bigserial primary key, name text, price numeric, weight float8, stock int8, listed bool, code uuid,
    note text, sold_at timestamptz
    """

    def run do
      for app <- [:ecto_sql, :postgrex, :causeway],
          do: {:ok, _} = Application.ensure_all_started(app)

      if server = PgBench.start() do
        PostgresServer.psql!(server, "create table items (#{@columns})")
        for repo <- @repos, do: {:ok, _} = repo.start_link(options(server, "off"))
        Ours.insert_all(Item, for(i <- 1..1_000, do: row(i)))
        reads()
        writes()
        throughput()
        for repo <- @repos, do: repo.stop()
        synced(server)
        memory(server)
      end
    end

    defp options(server, commits, opts \\ []) do
      [log: false, pool_size: 8, parameters: [synchronous_commit: commits]] ++
        opts ++ PgBench.options(server)
    end

    defp row(i) do
      %{
        name: "item #{i}",
        price: Decimal.new(1, 100 + i, -2),
        weight: i * 1.5,
        stock: i * 1_000_003,
        listed: rem(i, 2) == 0,
        code: Ecto.UUID.cast!(<<i::128>>),
        note: String.duplicate("x", 40),
        sold_at: DateTime.add(~U[2026-01-01 00:00:00.000000Z], i)
      }
    end

    # ---- reads ----

    defp reads do
      compare("Repo.get", 1_000, &(%Item{} = &1.get(Item, 500)))
      compare("Repo.all of 100 rows x 9 columns", 200, &all(&1, 100))
      compare("Repo.all of 1000 rows x 9 columns", 40, &all(&1, 1_000))

      compare("Repo.stream of 1000 rows x 9 columns", 40, fn repo ->
        {:ok, 1_000} = repo.transaction(fn -> Item |> repo.stream() |> Enum.count() end)
      end)
    end

    defp all(repo, n), do: ^n = length(repo.all(from(i in Item, limit: ^n)))

    # ---- writes ----

    defp writes do
      compare("Repo.insert", 500, &insert/1)
      compare("Repo.update", 500, &update(&1, 7))
      rows = for i <- 1..1_000, do: row(i)

      compare("Repo.insert_all of 1000 rows x 8 columns", 20, fn repo ->
        {1_000, nil} = repo.insert_all(Item, rows)
      end)

      compare("transaction of 5 statements", 200, &transaction/1)
    end

    defp insert(repo), do: {:ok, _} = repo.insert(struct(Item, row(1)))

    defp update(repo, id) do
      item = %Item{id: id}
      {:ok, _} = repo.update(Ecto.Changeset.change(item, stock: System.unique_integer()))
    end

    defp transaction(repo) do
      {:ok, _} =
        repo.transaction(fn ->
          %Item{} = repo.get(Item, 1)
          %Item{} = repo.get(Item, 2)
          insert(repo)
          update(repo, 1)
          update(repo, 2)
        end)
    end

    # ---- many at once ----

    defp throughput do
      for {name, fun} <- [
            {"Repo.get, 16 processes on a pool of 8", &(%Item{} = &1.get(Item, 500))},
            {"Repo.all of 100 rows, 16 processes on a pool of 8", &all(&1, 100)}
          ] do
        n = if quick?(), do: 50, else: 200
        run = fn repo -> parallel(16, fn _ -> repeat(repo, fun, n) end) end
        Enum.each(@repos, run)

        turns =
          for _ <- 1..rounds(), do: Enum.map(@repos, &(16 * n / seconds(fn -> run.(&1) end)))

        [ours, theirs] = medians(turns)
        line("ecto", name, ours, "/s", [{"Postgres", theirs}])
      end
    end

    defp synced(server) do
      for repo <- @repos, do: {:ok, _} = repo.start_link(options(server, "on"))
      compare("Repo.insert, on the disk", 100, &insert/1)
      for repo <- @repos, do: repo.stop()
    end

    # ---- memory ----

    # Of the VM, and of its port programs: what a pool adds, and what is left after a large result.
    defp memory(server) do
      PostgresServer.psql!(
        server,
        "truncate items; insert into items (name, note, stock) " <>
          "select 'item ' || i, repeat('x', 40), i from generate_series(1, 100000) i"
      )

      [ours, theirs] = for repo <- @repos, do: footprint(server, repo)

      for {what, index} <- Enum.with_index(["idle", "after 100000 rows"]) do
        {vm, ports} = elem(ours, index)
        {peer_vm, _} = elem(theirs, index)
        line("ecto", "pool of 10, #{what}: the VM", vm, "MB", [{"Postgres", peer_vm}])
        line("ecto", "pool of 10, #{what}: port programs", ports, "MB")
      end
    end

    defp footprint(server, repo) do
      before = vm()
      {:ok, _} = repo.start_link(options(server, "off", pool_size: 10))
      everywhere(repo, fn -> repo.query!("select 1") end)
      idle = {vm() - before, ports()}
      everywhere(repo, fn -> 100_000 = length(repo.query!("select * from items").rows) end)
      result = {idle, {vm() - before, ports()}}
      repo.stop()
      result
    end

    # On each of the ten connections.
    defp everywhere(repo, fun) do
      parallel(10, fn _ ->
        repo.checkout(fn ->
          Process.sleep(200)
          fun.()
        end)
      end)
    end

    defp vm do
      for pid <- Process.list(), do: :erlang.garbage_collect(pid)
      Process.sleep(100)
      :erlang.memory(:total) / 1.0e6
    end

    # What is the port programs' own: what they share, libraries mostly, is there once.
    defp ports do
      for "/proc/" <> _ = dir <- Path.wildcard("/proc/[0-9]*"),
          {:ok, "causeway_port\n"} <- [File.read(Path.join(dir, "comm"))],
          {:ok, text} <- [File.read(Path.join(dir, "smaps_rollup"))],
          [_, kb] <- Regex.scan(~r/^Private_(?:Clean|Dirty):\s+(\d+)/m, text),
          reduce: 0.0,
          do: (sum -> sum + String.to_integer(kb) / 1000)
    end

    # ---- measuring ----

    # Microseconds a call, of rounds in which each has its turn.
    defp compare(name, times, fun) do
      for repo <- @repos, do: each(repo, fun, times)
      turns = for _ <- 1..rounds(), do: Enum.map(@repos, &each(&1, fun, times))
      [ours, theirs] = medians(turns)
      line("ecto", name, ours, "us", [{"Postgres", theirs}])
    end

    defp rounds, do: if(quick?(), do: 3, else: 7)

    defp medians(turns), do: turns |> Enum.zip() |> Enum.map(&(&1 |> Tuple.to_list() |> median()))

    defp each(repo, fun, times) do
      {us, :ok} = :timer.tc(fn -> repeat(repo, fun, times) end)
      us / times
    end

    # Nothing of a call is kept for the next one's garbage collections.
    defp repeat(_repo, _fun, 0), do: :ok

    defp repeat(repo, fun, n) do
      fun.(repo)
      repeat(repo, fun, n - 1)
    end
  end

  EctoBench.run()
else
  IO.puts(:stderr, "no figures of the Ecto adapter: ecto_sql or postgrex is not on the code path")
end
