# A test that needs an optional integration says so, `@moduletag integration: :ecto`, and is left out
# where that is not on the code path.
{present, absent} =
  Enum.split_with(Mix.Project.config()[:integrations], fn {_app, module} ->
    Code.ensure_loaded?(module)
  end)

names = fn
  [] -> "none"
  list -> Enum.map_join(list, ", ", fn {app, _} -> app end)
end

IO.puts("Optional integrations: #{names.(present)}; not here: #{names.(absent)}")

# So is one that needs a PostgreSQL server, `@moduletag :postgres`.
no_postgres = Causeway.PostgresServer.missing()
if no_postgres, do: IO.puts("Tests with a PostgreSQL server are left out: #{no_postgres}")

# Where no dependency has it started, nothing has.
{:ok, _} = Application.ensure_all_started(:logger)

ExUnit.start(
  formatters: [ExUnit.CLIFormatter, Causeway.CountFormatter],
  # On a busy machine, and under sanitizers, what comes may take longer than 100 ms, and a test than a minute.
  assert_receive_timeout: 10_000,
  timeout: 180_000,
  exclude:
    for({app, _} <- absent, do: {:integration, app}) ++ if(no_postgres, do: [:postgres], else: [])
)
