defmodule Causeway.Log.Ends do
  @moduledoc false
  # Looks into the tables how far the partitions go: often while there is no stream from the server's log, and now and then
  # while there is one, so that nothing depends on that alone. Numbers what was left in the outbox.

  use GenServer
  alias Causeway.Log.{Events, Runtime, Table}

  def start_link(rt), do: GenServer.start_link(__MODULE__, rt, name: Runtime.process(rt, :Ends))

  @doc "Whether there is a stream, and why not."
  def streaming(rt, on?, error),
    do: GenServer.cast(Runtime.process(rt, :Ends), {:streaming, on?, error})

  @doc "The server is another one, which may lack some of these batches, and what partitions have up to these numbers."
  def rewound(rt, marks, heads),
    do: GenServer.cast(Runtime.process(rt, :Ends), {:rewound, {marks, heads}})

  @doc "There is something in the outbox."
  def drain(rt), do: GenServer.cast(Runtime.process(rt, :Ends), :drain)

  @impl true
  def init(rt) do
    {:ok,
     look(%{rt: rt, streaming: Runtime.get(rt, :stream) == :streaming, timer: nil, before: nil})}
  end

  @impl true
  def handle_cast({:rewound, before}, state), do: {:noreply, look(%{state | before: before})}

  def handle_cast({:streaming, true, _}, state) do
    Runtime.put(state.rt, :stream, :streaming)
    Runtime.put(state.rt, :error, nil)
    Events.emit(state.rt.name, :streaming, %{})
    # What was committed while there was no stream.
    {:noreply, look(%{state | streaming: true})}
  end

  def handle_cast({:streaming, false, error}, state) do
    Runtime.put(state.rt, :stream, :polling)
    Runtime.put(state.rt, :error, error)
    Events.emit(state.rt.name, :polling, %{}, %{error: error})
    {:noreply, look(%{state | streaming: false})}
  end

  def handle_cast(:drain, state), do: {:noreply, look(state)}

  @impl true
  def handle_info({:timeout, timer, :look}, %{timer: timer} = state), do: {:noreply, look(state)}
  def handle_info(_, state), do: {:noreply, state}

  defp look(%{rt: rt} = state) do
    with :ok <- rewind(state), :ok <- Table.drain(rt), {:ok, ends} <- Table.ends(rt) do
      for {p, _first, last} <- ends, Runtime.advance(rt, p, last), do: Runtime.wake(rt, p)
      again(%{state | before: nil})
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

  # The first number that it lacks is given anew, and all after it. What was not in memory any more is known by the ends.
  defp rewind(%{before: nil}), do: :ok

  defp rewind(%{rt: rt, before: {marks, heads}}) do
    with {:ok, missing} <- Table.missing(rt, marks), {:ok, ends} <- Table.ends(rt) do
      lost = Enum.group_by(missing, &elem(&1, 0), &elem(&1, 1))

      for {p, _, last} <- ends,
          to = Enum.min([last | Enum.map(Map.get(lost, p, []), &(&1 - 1))]),
          to < heads[p] do
        Events.emit(rt.name, :rewound, %{missing: heads[p] - to}, %{partition: p})
        Runtime.rewind(rt, p, to)
      end

      :ok
    end
  end

  defp interval(%{streaming: true, rt: rt}), do: rt.opts.check_interval
  defp interval(%{rt: rt}), do: rt.opts.poll_interval
end
