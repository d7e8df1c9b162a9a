# What an example's tests need, before Mix is asked to run them (scripts/example). One with migrations is an Ecto
# application: it gets a PostgreSQL server of its own, unless DATABASE_URL names one. Where it cannot run, its tests are
# counted as skipped, and why is said.
alias Causeway.PostgresServer

port_program = System.get_env("CAUSEWAY_PORT") || Path.expand("../../priv/causeway_port", __DIR__)
on_path? = Enum.all?([Ecto.Adapters.SQL, Postgrex], &Code.ensure_loaded?/1)
fetched? = Enum.all?(["deps/ecto_sql", "deps/postgrex"], &File.dir?/1)

missing = fn ->
  cond do
    not on_path? and not fetched? ->
      "ecto_sql or postgrex is not here"

    not File.exists?(port_program) ->
      "no port program"

    System.get_env("DATABASE_URL") ->
      nil

    true ->
      with {:error, why} <- PostgresServer.startable(), do: why, else: (_ -> nil)
  end
end

skip = fn why ->
  tests = "test/**/*_test.exs" |> Path.wildcard() |> Enum.map_join(&File.read!/1)
  n = length(Regex.scan(~r/^ +test "/m, tests))

  if counts = System.get_env("CAUSEWAY_COUNTS"),
    do: File.write!(counts, "skipped test #{n}\nwhy #{why}\n")

  IO.puts("#{n} tests skipped: #{why}")
  System.halt(0)
end

if File.dir?("priv/repo/migrations") do
  if why = missing.(), do: skip.(why)

  unless System.get_env("DATABASE_URL") do
    server = PostgresServer.shared()
    System.put_env("DATABASE_URL", "ecto://postgres@127.0.0.1:#{server.port}/example_test")
  end
end
