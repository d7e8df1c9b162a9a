defmodule Causeway.PostgresCase do
  @moduledoc false
  # Tests of connections: a database on the shared cluster, and `connect!/1`, which ends with the test.
  use ExUnit.CaseTemplate

  alias Causeway.{Postgres, PostgresServer}

  using do
    quote do
      import Causeway.Eventually
      import Causeway.PostgresCase
      alias Causeway.{Postgres, PostgresServer}
      alias Causeway.Postgres.{EncodeError, Error, Query, Result}

      @moduletag :postgres
      setup_all do: {:ok, database: PostgresServer.database!()}
    end
  end

  @doc "A connection to the test's database, which is there."
  def connect!(options, more \\ []) do
    options = [sync_connect: true] |> Keyword.merge(options) |> Keyword.merge(more)
    child = Supervisor.child_spec({Postgres, options}, id: make_ref())
    ExUnit.Callbacks.start_supervised!(child)
  end

  @doc "The first column of the first row."
  def one!(conn, sql, params \\ []) do
    %{rows: [[value | _] | _]} = Postgres.query!(conn, sql, params)
    value
  end

  @doc "Says where it is to another process, and stays there."
  def stay(to, message) do
    send(to, message)
    Process.sleep(:infinity)
  end

  @doc "The process of a connection's port program."
  def os_pid(conn) do
    [{:os_pid, pid}] = :ets.lookup(Causeway.Postgres.Session.fetch(conn).table, :os_pid)
    pid
  end

  @doc "Whether a process of the operating system is there."
  def alive?(os_pid) do
    match?({_, 0}, System.cmd("kill", ["-0", "#{os_pid}"], stderr_to_stdout: true)) and
      not zombie?(os_pid)
  end

  defp zombie?(os_pid) do
    case File.read("/proc/#{os_pid}/stat") do
      {:ok, stat} -> stat =~ ~r/\) Z /
      _ -> false
    end
  end
end
