defmodule Causeway.Postgres.WAL.Client do
  @moduledoc false
  # One statement after another over a port program of its own, in text, in the process that calls. Connections for
  # replication take no other kind of statement.

  alias Causeway.Postgres.{Error, Protocol, WAL}

  @enforce_keys [:port, :facts]
  defstruct [:port, :facts, id: 1, timeout: 60_000]

  @type t :: %__MODULE__{port: port, facts: keyword, id: pos_integer, timeout: timeout}

  @doc """
  Connects; pairs come after those of the options. A server that has not answered a statement after `timeout`
  milliseconds, nor its cancellation, counts as lost; so does a network that has not taken for so long what is said to it,
  unless the options say something else.
  """
  @spec open(Causeway.Postgres.Options.t(), [{String.t(), String.t()}], timeout) ::
          {:ok, t} | {:error, Exception.t()}
  def open(options, pairs \\ [], timeout \\ 60_000) do
    with {:ok, port} <- program() do
      body = Protocol.connect(network(timeout) ++ options.conninfo ++ pairs)
      Port.command(port, Protocol.request(0, timeout(options.connect_timeout), body))

      case await(port, nil) do
        {:connected, facts} -> {:ok, %__MODULE__{port: port, facts: facts, timeout: timeout}}
        {:error, error} -> {:error, error}
      end
    end
  end

  # What the system notices, whether anything is waited for or read, or not. Not of Unix sockets.
  defp network(:infinity), do: []

  defp network(ms) do
    seconds = "#{max(div(ms, 3_000), 1)}"

    [
      {"keepalives_idle", seconds},
      {"keepalives_interval", seconds},
      {"keepalives_count", "3"},
      {"tcp_user_timeout", "#{min(ms, 0x7FFFFFFF)}"}
    ]
  end

  defp program do
    with {:error, why} <- Protocol.open(),
         do: {:error, %WAL.Error{reason: {:ended, why}}}
  end

  defp timeout(:infinity), do: 0
  defp timeout(ms), do: ms

  @doc """
  The rows of a statement; of several, those of the last. `timeout` is this statement's own. With `slow`, the function is
  called when it takes longer than so many milliseconds.
  """
  @spec query(t, String.t(), timeout | nil, {non_neg_integer, (... -> any)} | nil) ::
          {:ok, [[String.t() | nil]]} | {:error, Exception.t()}
  def query(client, sql, timeout \\ nil, slow \\ nil) do
    Port.command(
      client.port,
      Protocol.request(
        client.id,
        timeout(timeout || client.timeout),
        Protocol.run([{:simple, sql}])
      )
    )

    case await(client.port, slow) do
      {:answer, records} -> rows(records)
      {:error, error} -> {:error, error}
    end
  end

  @doc "As `query/4`, for statements without rows."
  def run(client, sql) do
    with {:ok, _} <- query(client, sql), do: :ok
  end

  @doc "Gives the program to another process."
  def give(client, pid) do
    true = Port.connect(client.port, pid)
    Process.unlink(client.port)
    client.port
  end

  def close(client) do
    if Port.info(client.port), do: Port.close(client.port)
    flush(client.port)
  end

  defp flush(port) do
    receive do
      {^port, _} -> flush(port)
    after
      0 -> :ok
    end
  end

  # ---- answers ----

  defp await(port, slow, records \\ []) do
    {ms, fun} = slow || {:infinity, nil}

    receive do
      {^port, {:data, frame}} -> frame(port, slow, records, Protocol.frame(frame))
      {^port, {:exit_status, n}} -> {:error, ended(Protocol.exit_reason(n))}
      # Of a write to a program that is dead already, in a process that traps exits.
      {:EXIT, ^port, _} -> {:error, ended(Protocol.exit_reason(0))}
    after
      ms ->
        fun.()
        await(port, nil, records)
    end
  end

  defp frame(port, slow, records, frame) do
    case frame do
      {:more, more} -> await(port, slow, [Protocol.records(more) | records])
      {:last, _, more} -> {:answer, Enum.concat(Enum.reverse([Protocol.records(more) | records]))}
      {:event, {:connected, _, facts}} -> {:connected, facts}
      {:event, {:failed, _, why, message}} -> failed(port, Error.connect(why, message))
      {:event, {:closed, why, message}} -> failed(port, Error.connect(why, message))
      {:event, _} -> await(port, slow, records)
    end
  end

  # The program ends by itself.
  defp failed(port, error) do
    receive do
      {^port, {:exit_status, _}} -> {:error, error}
    after
      5_000 -> {:error, error}
    end
  end

  defp ended(message), do: %WAL.Error{reason: {:ended, message}}

  defp rows(records), do: rows(records, 0, [])

  defp rows([{:columns, columns} | rest], _, _), do: rows(rest, length(columns), [])

  defp rows([{:rows, n, values} | rest], width, rows),
    do: rows(rest, width, rows ++ Protocol.text_rows(values, n, width))

  defp rows([{:end, n, values, _} | rest], width, rows),
    do: rows(rest, width, rows ++ Protocol.text_rows(values, n, width))

  defp rows([{:error, why, fields} | _], _, _), do: {:error, Error.server(why, fields)}
  defp rows([_ | rest], width, rows), do: rows(rest, width, rows)
  defp rows([], _, rows), do: {:ok, rows}
end
