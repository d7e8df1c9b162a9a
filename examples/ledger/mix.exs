defmodule Ledger.MixProject do
  use Mix.Project

  def project do
    [
      app: :ledger,
      version: "0.1.0",
      elixir: "~> 1.14",
      # Where there is no Hex, ecto_sql and postgrex may be on the code path (ERL_LIBS).
      prune_code_paths: false,
      elixirc_paths: if(Mix.env() == :test, do: ["lib", "test/support"], else: ["lib"]),
      deps: [{:causeway, path: "../.."}] ++ hex(),
      aliases: [
        setup: ["ecto.create", "ecto.migrate", "run priv/repo/seeds.exs"],
        test: ["ecto.create --quiet", "ecto.migrate --quiet", "test"]
      ]
    ]
  end

  def application do
    [mod: {LedgerApp, []}, extra_applications: [:logger, :ecto_sql, :postgrex]]
  end

  defp hex do
    cond do
      Code.ensure_loaded?(Ecto.Adapters.SQL) and Code.ensure_loaded?(Postgrex) -> []
      Code.ensure_loaded?(Hex) -> [{:ecto_sql, "~> 3.10"}, {:postgrex, "~> 0.17 or ~> 1.0"}]
      true -> Mix.raise(missing())
    end
  end

  defp missing do
    """
    The ledger is an Ecto application: it needs ecto_sql and postgrex, and neither is here. Either

      * install Hex (mix local.hex), then mix deps.get; or
      * compile them, with what they depend on, and name the folder in ERL_LIBS.
    """
  end
end
