defmodule Causeway.Log.Ends do
  @moduledoc false
  # Looks into the tables how far the partitions go: often while there is no stream from the server's log, and now and then
  # while there is one, so that nothing depends on that alone. Numbers what was left in the outbox.

  use GenServer
  alias Causeway.Log.{Events, Recent, Runtime, Table}

  # How many batches are remembered of streams that were lost: far more than a standby is behind.
  @marks 10_000
  # The stream waits so long for what it goes on with.
  @settle_ms 10_000

  # `timeline`: of the server's log, when it was looked at last
  defstruct [:rt, :streaming, :timer, :timeline, marks: []]

  def start_link(rt), do: GenServer.start_link(__MODULE__, rt, name: Runtime.process(rt, :Ends))

  @doc "Whether there is a stream; if not, why, and what there was of it in memory: see `Recent.marks/1`."
  def streaming(rt, on?, error \\ nil, marks \\ []),
    do: GenServer.cast(Runtime.process(rt, :Ends), {:streaming, on?, error, marks})

  @doc "The stream goes on at another server: returns when what that lacks has been seen to, or cannot be now."
  def settle(rt) do
    GenServer.call(Runtime.process(rt, :Ends), :settle, @settle_ms)
  catch
    :exit, _ -> :ok
  end

  @doc "There is something in the outbox."
  def drain(rt), do: GenServer.cast(Runtime.process(rt, :Ends), :drain)

  @impl true
  def init(rt) do
    streaming = Runtime.get(rt, :stream) == :streaming
    {:ok, look(%__MODULE__{rt: rt, streaming: streaming})}
  end

  @impl true
  def handle_call(:settle, _from, state), do: {:reply, :ok, look(state)}

  @impl true
  def handle_cast({:streaming, true, _, _}, state) do
    Runtime.put(state.rt, :stream, :streaming)
    Runtime.put(state.rt, :error, nil)
    Events.emit(state.rt.name, :streaming, %{})
    # What was committed while there was no stream.
    {:noreply, look(%{state | streaming: true})}
  end

  def handle_cast({:streaming, false, error, marks}, state) do
    Runtime.put(state.rt, :stream, :polling)
    Runtime.put(state.rt, :error, error)
    Events.emit(state.rt.name, :polling, %{}, %{error: error})
    {:noreply, look(%{state | streaming: false, marks: Enum.take(marks ++ state.marks, @marks)})}
  end

  def handle_cast(:drain, state), do: {:noreply, look(state)}

  @impl true
  def handle_info({:timeout, timer, :look}, %{timer: timer} = state), do: {:noreply, look(state)}
  def handle_info(_, state), do: {:noreply, state}

  defp look(%{rt: rt} = state) do
    heads = for p <- 0..(rt.partitions - 1), into: %{}, do: {p, Runtime.head(rt, p)}

    with :ok <- Table.drain(rt),
         {:ok, timeline, ends} <- Table.timeline(rt),
         {:ok, state} <- compare(timeline, ends, heads, state) do
      for {p, _first, last} <- ends, Runtime.advance(rt, p, last), do: Runtime.wake(rt, p)
      again(state)
    else
      {:error, error} ->
        Events.emit(rt.name, :check_failed, %{}, %{error: error})
        again(state)
    end
  end

  defp again(state) do
    if state.timer, do: :erlang.cancel_timer(state.timer)
    %{state | timer: :erlang.start_timer(interval(state), self(), :look)}
  end

  # ---- failovers ----

  defp compare(timeline, _, _, %{timeline: timeline} = state), do: {:ok, state}
  defp compare(timeline, _, _, %{timeline: nil} = state), do: {:ok, %{state | timeline: timeline}}

  # The server is one that was a standby, and may lack what was read here, or have given its numbers to other messages. What
  # is still in memory is compared.
  defp compare(timeline, ends, heads, %{rt: rt} = state) do
    marks = Recent.marks(rt) ++ state.marks

    with {:ok, missing} <- Table.missing(rt, marks) do
      for {p, first, last} <- ends,
          lost = for({^p, from, to, _} <- missing, to >= first, do: from - 1),
          goes_to = Enum.min([last | lost]),
          goes_to < heads[p] do
        Events.emit(rt.name, :rewound, %{missing: heads[p] - goes_to}, %{partition: p})
        Recent.drop(rt, p)
        Runtime.rewind(rt, p, goes_to)
      end

      {:ok, %{state | timeline: timeline, marks: []}}
    end
  end

  defp interval(%{streaming: true, rt: rt}), do: rt.opts.check_interval
  defp interval(%{rt: rt}), do: rt.opts.poll_interval
end
