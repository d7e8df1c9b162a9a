defmodule Causeway.Ecto.LedgerTest do
  # examples/ledger, with either adapter: its own tests, in a VM of their own. What Mix would do is done by hand, as it
  # would compile this package once more.
  use ExUnit.Case, async: true
  alias Causeway.PostgresServer

  @moduletag :postgres
  @moduletag integration: :ecto_sql
  @moduletag timeout: 300_000

  @run """
  [root] = System.argv()
  File.cd!(root)
  {:ok, _} = Application.ensure_all_started(:mix)
  Mix.env(:test)
  Logger.configure(level: :warning)
  for {app, keys} <- Config.Reader.read!("config/config.exs", env: :test), {key, value} <- keys,
    do: Application.put_env(app, key, value, persistent: true)
  {:ok, _, _} = ["lib/**/*.ex", "test/support/*.ex"] |> Enum.flat_map(&Path.wildcard/1) |> Kernel.ParallelCompiler.compile()
  for app <- [:ecto_sql, :postgrex, :causeway], do: {:ok, _} = Application.ensure_all_started(app)
  adapter = Ledger.Repo.__adapter__()
  :ok = adapter.storage_up(Ledger.Repo.config())
  {:ok, _} = LedgerApp.start(nil, nil)
  options = [all: true, log: false]
  migrate = fn direction, options -> Ecto.Migrator.run(Ledger.Repo, "priv/repo/migrations", direction, options) end
  Ecto.Adapters.SQL.Sandbox.unboxed_run(Ledger.Repo, fn ->
    [_, _, _, _] = migrate.(:up, options)
    [_, _, _, _] = migrate.(:down, options)
    [_, _, _, _] = migrate.(:up, options)
  end)
  ExUnit.start(autorun: false)
  Code.require_file("test/test_helper.exs")
  Enum.each(Path.wildcard("test/*_test.exs"), &Code.require_file/1)
  %{failures: 0, total: total} = ExUnit.run()
  IO.puts("\#{inspect(adapter)}: \#{total} tests")
  """

  for adapter <- ["Ecto.Adapters.Postgres", "Causeway.Ecto.Adapter"] do
    @tag adapter: adapter
    test "with #{adapter}", %{adapter: adapter} do
      options = PostgresServer.options(PostgresServer.shared())
      database = "ledger_#{System.unique_integer([:positive])}"
      url = "ecto://postgres@#{options[:hostname]}:#{options[:port]}/#{database}"
      root = Path.expand("../../../examples/ledger", __DIR__)
      code = Path.join(System.tmp_dir!(), "#{database}-#{System.pid()}.exs")
      File.write!(code, @run)
      on_exit(fn -> File.rm(code) end)
      paths = Enum.flat_map(:code.get_path(), &["-pa", to_string(&1)])

      {output, status} =
        System.cmd("elixir", paths ++ [code, root],
          env: [{"LEDGER_ADAPTER", adapter}, {"DATABASE_URL", url}],
          stderr_to_stdout: true
        )

      assert status == 0, output
      assert output =~ ~r/#{adapter}: 2\d tests/
    end
  end
end
