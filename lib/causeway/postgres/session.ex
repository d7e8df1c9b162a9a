defmodule Causeway.Postgres.Session do
  @moduledoc false
  # What a caller has to know of a connection, so that it can do without asking it: where its statements are kept, and
  # how it is to be used. In a transaction, it says that too, and is what the function gets.

  alias Causeway.Postgres.Error

  @enforce_keys [:pid, :table, :timeout, :prepare, :cache, :disconnect_on]
  defstruct [:pid, :table, :timeout, :prepare, :cache, :disconnect_on, lock: nil, depth: 0]

  @type t :: %__MODULE__{
          pid: pid,
          table: :ets.table(),
          timeout: timeout,
          prepare: :named | :unnamed,
          cache: non_neg_integer,
          disconnect_on: [atom],
          lock: reference | nil,
          depth: non_neg_integer
        }

  @doc "Of a connection, by pid or name, or of a transaction."
  @spec fetch(GenServer.server() | t) :: t
  def fetch(%__MODULE__{} = session), do: session
  def fetch(pid) when is_pid(pid), do: Process.get({__MODULE__, pid}) || ask(pid)

  def fetch(name) do
    case GenServer.whereis(name) do
      pid when is_pid(pid) ->
        fetch(pid)

      nil ->
        raise ArgumentError,
              "no connection #{inspect(name)} runs here; start it with {Causeway.Postgres, name: ...}"

      other ->
        raise ArgumentError, "#{inspect(other)} is on another node; a connection is for its own"
    end
  end

  # The dictionary is the one place that costs next to nothing to look into. What is of connections that have ended
  # is swept out when another one comes.
  defp ask(pid) do
    for {{__MODULE__, old} = key, _} <- Process.get(),
        not Process.alive?(old),
        do: Process.delete(key)

    session = GenServer.call(pid, :session)
    Process.put({__MODULE__, pid}, session)
    session
  catch
    # Whatever is asked of it next says that it is not there.
    :exit, {reason, {GenServer, :call, _}} when reason in [:noproc, :normal, :shutdown] ->
      nothing(pid)

    :exit, {{:shutdown, _}, {GenServer, :call, _}} ->
      nothing(pid)
  end

  defp nothing(pid) do
    %__MODULE__{
      pid: pid,
      table: make_ref(),
      timeout: 5_000,
      prepare: :unnamed,
      cache: 0,
      disconnect_on: []
    }
  end

  @doc "What the connection's present state is: its types, and the server's process."
  def connection(%__MODULE__{table: table}) do
    case :ets.lookup(table, :connection) do
      [{_, types, id}] -> {:ok, types, id}
      [] -> {:error, %Error{reason: :not_connected}}
    end
  rescue
    ArgumentError ->
      {:error, %Error{reason: :not_connected, detail: "the connection was stopped"}}
  end

  defimpl Inspect do
    def inspect(%{pid: pid, lock: nil}, _),
      do: "#Causeway.Postgres.Session<#{Kernel.inspect(pid)}>"

    def inspect(%{pid: pid, depth: depth}, _) do
      "#Causeway.Postgres.Session<#{Kernel.inspect(pid)}, transaction #{depth}>"
    end
  end
end
