defmodule PgBench do
  @moduledoc """
  What the benches with a PostgreSQL server have in common: a private cluster that syncs, as a real one does, and the C
  programs beside this file.
  """

  Code.require_file("../../test/support/postgres_server.ex", __DIR__)
  alias Causeway.PostgresServer

  @doc "A cluster that ends with the caller; nil, with a line that says why, where there can be none."
  def start do
    case PostgresServer.missing() do
      nil ->
        PostgresServer.start!(
          settings: [
            fsync: "on",
            full_page_writes: "on",
            shared_buffers: "256MB",
            autovacuum: "off"
          ]
        )

      why ->
        IO.puts(:stderr, "no figures of PostgreSQL: #{why}")
    end
  end

  @doc "Options that connect over the Unix socket."
  def options(server, opts \\ []) do
    [socket_dir: server.dir, port: server.port, username: "postgres", database: "postgres"]
    |> Keyword.merge(opts)
  end

  @doc "The same for libpq."
  def conninfo(server), do: "host=#{server.dir} port=#{server.port} user=postgres dbname=postgres"

  @doc "Runs one of the C programs: its lines, each a list of words."
  def run(program, args) do
    {output, 0} = System.cmd(path(program), args)
    for line <- String.split(output, "\n", trim: true), do: String.split(line)
  end

  def path(program),
    do: Path.expand(Path.join(System.get_env("BENCH_BIN", "_build/c/bin"), program))

  @doc "CPU seconds that this VM has used, and with it the processes of the operating system that are named."
  def cpu(pids \\ []), do: [System.pid() | pids] |> Enum.map(&process_cpu/1) |> Enum.sum()

  # The 14th and 15th field, in ticks of a hundredth; the second may have spaces in it.
  defp process_cpu(pid) do
    case File.read("/proc/#{pid}/stat") do
      {:ok, stat} ->
        [user, system] =
          stat |> String.split(") ") |> List.last() |> String.split() |> Enum.slice(11, 2)

        (String.to_integer(user) + String.to_integer(system)) / 100

      _ ->
        0
    end
  end

  @doc "The value at a share of a list, such as 0.99."
  def percentile(list, share) do
    sorted = Enum.sort(list)
    Enum.at(sorted, min(floor(length(sorted) * share), length(sorted) - 1))
  end
end
