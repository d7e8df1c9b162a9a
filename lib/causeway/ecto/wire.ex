if Code.ensure_loaded?(Ecto.Adapters.SQL) and Code.ensure_loaded?(Postgrex) do
  defmodule Causeway.Ecto.Wire do
    @moduledoc false
    # Requests to a port program, made by whoever has the connection from the pool.
    #
    # A port sends to its owner. For the time of a request that is the client itself, so that the answer comes to it from
    # the program at once, with no process between; then it is the keeper again. To change owners costs less than a
    # message to another process and back. The link that comes with it is cut: a client that ends is the pool's to notice.

    alias Causeway.Ecto.Keeper
    alias Causeway.Postgres.Protocol

    @typedoc "How each step ended. `frames` are the rows, the last part first."
    @type ended ::
            {:ok, tag :: binary, frames :: [{binary, non_neg_integer}], [Protocol.column()] | nil}
            | {:described, [non_neg_integer], [Protocol.column()]}
            | {:error, why :: atom, [{atom, binary}]}
            | {:aborted}

    @type answer :: %{ended: [ended], notices: [[{atom, binary}]]}

    @typedoc "What is needed of a connection: its port program, that one's keeper, the transaction's state."
    @type connection :: %{
            :port => port,
            :keeper => pid,
            :status => :idle | :transaction | :error,
            optional(atom) => any
          }

    # A port that is closed by another process, as the pool does it when time is up, says nothing to its owner, nor does
    # one that fails while it is written to. A message of ours could come too late, and stay with the client. So whoever
    # waits looks, this often (ms).
    @look_again 100

    @gone "the port program is gone"

    @doc "Runs steps in one round trip. A timeout of 0 is none; when it passes, the server cancels what runs."
    @spec run(connection, [Protocol.step()], non_neg_integer) ::
            {:ok, answer, connection} | {:lost, String.t(), answer}
    def run(connection, steps, timeout \\ 0), do: call(connection, Protocol.run(steps), timeout)

    @doc "Makes a request, and gives all of its answer."
    @spec call(connection, Protocol.body(), non_neg_integer) ::
            {:ok, answer, connection} | {:lost, String.t(), answer}
    def call(connection, body, timeout) do
      with :ok <- take(connection, body, timeout),
           {:ok, answer, state} when state != ?X <- collect(connection.port, nothing()) do
        give_back(connection)
        finished(connection, answer, state)
      else
        {:ok, answer, ?X} ->
          give_back(connection)
          lost(connection, "the server has closed the connection", in_order(answer))

        {:lost, why, answer} ->
          give_back(connection)
          lost(connection, why, answer)
      end
    end

    # The server's last words may have come as a notice, here or while nobody had the connection.
    defp lost(connection, why, %{ended: ended} = answer) do
      {fatal, kept} = last_words(connection)
      fatal = Enum.find(answer.notices, &Keeper.fatal?/1) || fatal
      ended = if fatal, do: ended ++ [{:error, :server, fatal}], else: ended
      {:lost, why || kept, %{answer | ended: ended}}
    end

    # What the server says of a transaction that it has not been told of does not count.
    defp finished(%{begin?: true} = connection, answer, _state),
      do: {:ok, in_order(answer), connection}

    defp finished(%{status: status} = connection, answer, state) do
      case status(state) do
        ^status -> {:ok, in_order(answer), connection}
        new -> {:ok, in_order(answer), %{connection | status: new}}
      end
    end

    @doc "The transaction's state, in DBConnection's words."
    def status(?I), do: :idle
    def status(?T), do: :transaction
    def status(_), do: :error

    defp in_order(%{ended: [_], notices: []} = answer), do: answer

    defp in_order(answer),
      do: %{
        answer
        | ended: Enum.reverse(answer.ended),
          notices: Enum.reverse(answer.notices)
      }

    defp nothing, do: %{ended: [], frames: [], columns: nil, notices: []}

    # ---- part by part ----

    @doc """
    Becomes the owner, and sends a request. What comes is for `next/1`, until it has given `:last`, or `:lost`; then
    `give_back/1`.
    """
    @spec take(connection, Protocol.body(), non_neg_integer) ::
            :ok | {:lost, String.t() | nil, answer}
    def take(%{port: port}, body, timeout) do
      Port.connect(port, self())
      Process.unlink(port)
      Port.command(port, Protocol.request(1, timeout, body))
      :ok
    rescue
      ArgumentError -> {:lost, nil, nothing()}
    end

    @doc "Says more to a request that is under way."
    @spec tell(connection, Protocol.body()) :: :ok
    def tell(%{port: port}, body) do
      Port.command(port, Protocol.request(1, 0, body))
      :ok
    rescue
      # next/1 says so.
      ArgumentError -> :ok
    end

    @doc "The next part of an answer."
    @spec next(port) ::
            {:more, binary} | {:last, byte, binary} | {:event, tuple} | {:lost, String.t() | nil}
    def next(port) do
      receive do
        {^port, {:data, frame}} ->
          Protocol.frame(frame)

        {^port, {:exit_status, status}} ->
          {:lost, Protocol.exit_reason(status)}
      after
        @look_again -> if Port.info(port), do: next(port), else: {:lost, nil}
      end
    end

    @doc "The keeper owns the port program again."
    @spec give_back(connection) :: :ok
    def give_back(%{port: port, keeper: keeper}) do
      try do
        Port.connect(port, keeper)
      rescue
        ArgumentError -> :ok
      end

      forward(port, keeper)
    end

    # What has come since the answer's last part. A program that has ended after take/3 became its owner, and before that
    # cut the link, has told so a client that traps exits.
    defp forward(port, keeper) do
      receive do
        {^port, _} = message ->
          send(keeper, message)
          forward(port, keeper)

        {:EXIT, ^port, _} ->
          forward(port, keeper)
      after
        0 -> :ok
      end
    end

    @doc "What a program has said that was closed by its owner is of no interest any more."
    @spec forget(port) :: :ok
    def forget(port) do
      receive do
        {^port, _} -> forget(port)
        {:EXIT, ^port, _} -> forget(port)
      after
        0 -> :ok
      end
    end

    @doc "Why the port program is gone."
    @spec fate(connection) :: String.t()
    def fate(connection), do: connection |> last_words() |> elem(1)

    @doc "The same, with the fields of the error that the server has ended the connection with, or nil."
    @spec last_words(connection) :: {[{atom, binary}] | nil, String.t()}
    def last_words(%{keeper: keeper}) do
      {fatal, why} = Keeper.fate(keeper)
      {fatal, why || @gone}
    end

    # ---- answers ----

    defp collect(port, acc) do
      case next(port) do
        {:last, state, records} ->
          {:ok, add(records, acc), state}

        {:more, records} ->
          collect(port, add(records, acc))

        {:event, {:notice, fields}} ->
          collect(port, %{acc | notices: [fields | acc.notices]})

        {:event, {:closed, _, message}} ->
          {:lost, String.trim(message), in_order(acc)}

        {:event, _} ->
          collect(port, acc)

        {:lost, why} ->
          {:lost, why, in_order(acc)}
      end
    end

    @doc false
    def add(records, acc), do: records |> Protocol.records() |> add_all(acc)

    defp add_all([record | records], acc), do: add_all(records, record(record, acc))
    defp add_all([], acc), do: acc

    defp record({:end, 0, _, tag}, acc), do: ended({:ok, tag, acc.frames, acc.columns}, acc)

    defp record({:end, n, values, tag}, acc),
      do: ended({:ok, tag, [{values, n} | acc.frames], acc.columns}, acc)

    defp record({:rows, n, values}, acc), do: %{acc | frames: [{values, n} | acc.frames]}
    defp record({:columns, columns}, acc), do: %{acc | columns: columns}
    defp record({:copy, data}, acc), do: %{acc | frames: [data | acc.frames]}
    defp record({:described, _, _} = described, acc), do: ended(described, acc)
    defp record({:error, _, _} = error, acc), do: ended(error, acc)
    defp record({:aborted} = aborted, acc), do: ended(aborted, acc)
    defp record(_, acc), do: acc

    defp ended(ended, acc), do: %{acc | ended: [ended | acc.ended], frames: [], columns: nil}
  end
end
