defmodule Causeway.Postgres.Request do
  @moduledoc false
  # The caller's side of a request: sends it to the connection, and takes what comes back, undecoded. The connection
  # passes frames on as they are; what they are made of is read here.

  alias Causeway.Postgres.{Codec, Error, Program, Protocol, Session}

  @typedoc """
  What a request does to the connection's lock: nothing; takes it, when it leaves a transaction open; gives it back, when
  it leaves none.
  """
  @type role :: :plain | {:begin, reference} | :end

  @typedoc """
  How each statement or step ended, in order; rows are in pieces, the last piece first. Then notices, and the
  transaction's state.
  """
  @type answer :: %{
          ended: [ended],
          notices: [map],
          state: byte
        }

  @type ended ::
          {:ok, tag :: binary, [Codec.frame()], [Protocol.column()] | nil}
          | {:described, [non_neg_integer], [Protocol.column()]}
          | {:parameters, [{binary, binary}]}
          | {:error, Error.t()}

  # What a port program that does not answer gets beyond its deadline; it gives a server 5 seconds to hear a cancel.
  @grace 10_000

  # ---- whole answers ----

  @doc "Runs a request, and gives all of its answer. With a codec, rows are decoded by it while others are on their way."
  @spec call(Session.t(), Protocol.body(), timeout, role, Codec.t() | nil) ::
          {:ok, answer} | {:error, Error.t()}
  def call(session, body, timeout, role \\ :plain, codec \\ nil) do
    ref = start(session, body, timeout, role)
    acc = %{ended: [], frames: [], columns: nil, notices: [], codec: codec}
    collect(session, ref, wait(timeout), acc)
  end

  defp collect(session, ref, wait, acc) do
    case next(session, ref, wait) do
      {:last, state, records} ->
        finish(ref)
        acc = add(records, acc)
        {:ok, %{ended: Enum.reverse(acc.ended), notices: Enum.reverse(acc.notices), state: state}}

      {:more, records} ->
        collect(session, ref, wait, add(records, acc))

      {:notice, fields} ->
        collect(session, ref, wait, %{acc | notices: [Error.fields(fields) | acc.notices]})

      {:error, error} ->
        {:error, error}
    end
  end

  defp add(records, acc), do: records |> Protocol.records() |> Enum.reduce(acc, &record/2)

  defp record({:end, 0, _, tag}, acc), do: ended({:ok, tag, acc.frames, acc.columns}, acc)

  defp record({:end, n, values, tag}, acc),
    do: ended({:ok, tag, [{values, n} | acc.frames], acc.columns}, acc)

  defp record({:rows, n, values}, acc),
    do: %{acc | frames: [Codec.decode_early(acc.codec, values, n) | acc.frames]}

  defp record({:columns, columns}, acc), do: %{acc | columns: columns}
  defp record({:described, _, _} = described, acc), do: ended(described, acc)
  defp record({:parameters, _} = parameters, acc), do: ended(parameters, acc)
  defp record({:error, why, fields}, acc), do: ended({:error, Error.server(why, fields)}, acc)

  # The last step of the transaction stands for its end, too.
  defp record({:uncommitted, why, fields}, %{ended: [_ | ended]} = acc),
    do: %{acc | ended: [{:error, %{Error.server(why, fields) | step: :commit}} | ended]}

  defp record({:aborted}, acc), do: ended({:error, %Error{reason: :aborted}}, acc)
  defp record(_, acc), do: acc

  defp ended(ended, acc), do: %{acc | ended: [ended | acc.ended], frames: [], columns: nil}

  # ---- part by part ----

  @doc "Sends a request. What comes back is for `next/3`, and `finish/1` when nothing more comes."
  @spec start(Session.t(), Protocol.body(), timeout, role) :: reference
  def start(session, body, timeout, role \\ :plain) do
    ref = :erlang.monitor(:process, session.pid, alias: :demonitor)
    request = {:causeway_request, ref, self(), session.lock, deadline(timeout), role, body}
    send(session.pid, request)
    ref
  end

  defp deadline(:infinity), do: :infinity
  defp deadline(timeout), do: System.monotonic_time(:millisecond) + timeout

  @doc "How long `next/3` may wait for a request with a timeout."
  def wait(:infinity), do: :infinity
  def wait(timeout), do: timeout + @grace

  @doc "The next part of the answer. After an error nothing more comes."
  @spec next(Session.t(), reference, timeout) ::
          {:more, binary}
          | {:last, byte, binary}
          | {:notice, [{atom, binary}]}
          | {:error, Error.t()}
  def next(session, ref, wait) do
    receive do
      {^ref, {:error, error}} ->
        finish(ref)
        {:error, error}

      {^ref, part} ->
        part

      {:DOWN, ^ref, :process, _, reason} ->
        {:error, down(reason)}
    after
      wait -> stuck(session, ref)
    end
  end

  defp down(:noproc), do: %Error{reason: :not_connected, detail: "the connection was stopped"}

  defp down(reason) do
    detail = "the connection's process has ended: #{Exception.format_exit(reason)}"
    %Error{reason: :disconnected, detail: detail}
  end

  # The port program sees to deadlines; if it does not, it is not running, and nothing but this ends it. The connection
  # tells that it is gone.
  # If the request only waits for its turn, it is the connection that is slow.
  defp stuck(session, ref) do
    if overdue(session, ref) == :under_way do
      with [{_, os_pid}] <- :ets.lookup(session.table, :os_pid), do: Program.kill(os_pid)
    end

    result =
      receive do
        {^ref, {:error, error}} -> {:error, error}
        {:DOWN, ^ref, :process, _, reason} -> {:error, down(reason)}
      after
        @grace ->
          {:error, %Error{reason: :disconnected, detail: "the port program did not answer"}}
      end

    finish(ref)
    result
  end

  defp overdue(session, ref) do
    GenServer.call(session.pid, {:overdue, ref}, @grace)
  catch
    :exit, _ -> :unknown
  end

  @doc "Says more to a request that is under way: credit, data, a cancel."
  @spec tell(Session.t(), reference, Protocol.body()) :: :ok
  def tell(session, ref, body) do
    send(session.pid, {:causeway_tell, ref, body})
    :ok
  end

  @doc "Nothing more is expected of a request; what comes all the same is dropped."
  @spec finish(reference) :: :ok
  def finish(ref) do
    :erlang.demonitor(ref, [:flush])
    :ok
  end
end
