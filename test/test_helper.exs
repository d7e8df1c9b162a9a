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

ExUnit.start(
  formatters: [ExUnit.CLIFormatter, Causeway.CountFormatter],
  exclude: for({app, _} <- absent, do: {:integration, app})
)
