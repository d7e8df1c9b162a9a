import Config

# The line that chooses the adapter; with Ecto.Adapters.Postgres the application is the same.
config :ledger, adapter: Causeway.Ecto.Adapter

config :ledger, ecto_repos: [Ledger.Repo]

config :ledger, Ledger.Repo,
  url:
    System.get_env("DATABASE_URL", "ecto://postgres:postgres@localhost/ledger_#{config_env()}"),
  pool_size: 10

config :logger, level: :info

if config_env() == :test do
  # Tests that open accounts of the same number wait for each other, as anybody would.
  config :ledger, Ledger.Repo, pool: Ecto.Adapters.SQL.Sandbox, timeout: 60_000
  config :logger, level: :warning
end

# To compare the two without an edit: LEDGER_ADAPTER=Ecto.Adapters.Postgres mix test --force
if adapter = System.get_env("LEDGER_ADAPTER") do
  config :ledger, adapter: Module.concat([adapter])
end
