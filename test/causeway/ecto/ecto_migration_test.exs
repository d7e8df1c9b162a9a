defmodule Causeway.Ecto.MigrationTest do
  # Migrations by several at once, with either lock: upstream's suites have one migrator.
  use Causeway.EctoCase, async: true

  @moduletag :no_pool

  with_ecto do
    for {name, lock} <- [ByTable: :table_lock, ByAdvice: :pg_advisory_lock] do
      defmodule Module.concat(__MODULE__, name) do
        use Ecto.Repo, otp_app: :causeway, adapter: Causeway.Ecto.Adapter
        # It is the repository's own configuration that is asked for the lock.
        @impl true
        def init(_, config), do: {:ok, [migration_lock: unquote(lock)] ++ config}
      end
    end

    defmodule Slow do
      use Ecto.Migration

      # A second one would fail at the table, and the first be seen to take its time.
      def change do
        create table(:slow) do
          add(:name, :text)
        end

        execute("select pg_sleep(0.2)", "")
      end
    end

    for {name, lock} <- [ByTable: :table_lock, ByAdvice: :pg_advisory_lock] do
      @tag lock: lock
      test "#{lock}: of four, one runs it", %{lock: lock, options: options} do
        repo = unquote(Module.concat(__MODULE__, name))
        options = Keyword.put(options, :database, "migrated_#{lock}")
        :ok = Causeway.Ecto.Adapter.storage_up(options)
        start_supervised!({repo, [pool_size: 12] ++ options})
        migrations = [{1, Slow}]

        run = fn direction ->
          Ecto.Migrator.run(repo, migrations, direction, all: true, log: false)
        end

        # To make the table of migrations Ecto has no lock.
        assert Ecto.Migrator.run(repo, [], :up, all: true, log: false) == []

        for {direction, order} <- [up: [1], down: [1], up: [1]] do
          done =
            for(_ <- 1..4, do: Task.async(fn -> run.(direction) end)) |> Task.await_many(60_000)

          assert Enum.sort(done) == [[], [], [], order]
        end

        assert repo.query!("select version from schema_migrations order by 1").rows == [[1]]
      end
    end
  end
end
