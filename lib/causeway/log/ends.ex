defmodule Causeway.Log.Ends do
  @moduledoc false
  # Looks into the tables how far the partitions go: often while there is no stream from the server's log, and now and then
  # while there is one, so that nothing depends on that alone. Numbers what was left in the outbox.

  use GenServer
  alias Causeway.Log.{Error, Events, Recent, Runtime, Table}

  # The stream waits so long for what it goes on with.
  @settle_ms 10_000

  # `marks`: of each partition, the latest first, batches that the server had, and that are not in memory
  defstruct [:rt, :streaming, :timer, marks: %{}]

  def start_link(rt), do: GenServer.start_link(__MODULE__, rt, name: Runtime.process(rt, :Ends))

  @doc "Whether there is a stream; if not, why."
  def streaming(rt, on?, error \\ nil),
    do: GenServer.cast(Runtime.process(rt, :Ends), {:streaming, on?, error})

  @doc "The stream goes on at another server: returns when what that lacks has been seen to, or cannot be now."
  def settle(rt) do
    GenServer.call(Runtime.process(rt, :Ends), :settle, @settle_ms)
  catch
    :exit, _ -> :ok
  end

  @doc """
  Whether what is in memory has been compared with what a server of a timeline has, given as the end of an epoch. If not, it is
  tried, for so long.
  """
  def settled(rt, timeline, ms) do
    deadline = now() + ms

    if compared?(rt, timeline),
      do: :ok,
      else: GenServer.call(Runtime.process(rt, :Ends), {:settled, timeline, deadline}, ms)
  catch
    :exit, _ -> not_settled(rt)
  end

  defp compared?(rt, timeline) do
    compared = Runtime.get(rt, :timeline)
    is_integer(compared) and rem(compared, 65_536) == timeline
  end

  defp not_settled(rt), do: {:error, %Error{reason: {:settling, rt.name}}}

  @doc "There is something in the outbox."
  def drain(rt), do: GenServer.cast(Runtime.process(rt, :Ends), :drain)

  @impl true
  def init(rt) do
    streaming = Runtime.get(rt, :stream) == :streaming
    {:ok, look(%__MODULE__{rt: rt, streaming: streaming})}
  end

  @impl true
  # Also when it has been compared: what came since may be of the server before.
  def handle_call(:settle, _from, state) do
    Runtime.put(state.rt, :timeline, :other)
    {:reply, :ok, look(state)}
  end

  def handle_call({:settled, timeline, deadline}, _from, %{rt: rt} = state) do
    cond do
      # Nobody waits any more: a look may take long when the connection is dead.
      now() > deadline ->
        {:noreply, state}

      compared?(rt, timeline) ->
        {:reply, :ok, state}

      true ->
        state = look(state)
        {:reply, if(compared?(rt, timeline), do: :ok, else: not_settled(rt)), state}
    end
  end

  @impl true
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
    heads = for p <- 0..(rt.partitions - 1), into: %{}, do: {p, Runtime.head(rt, p)}

    with :ok <- Table.drain(rt),
         {:ok, timeline, ends, batches} <- Table.timeline(rt),
         {:ok, state} <- compare(timeline, Runtime.get(rt, :timeline), ends, heads, state) do
      Runtime.put(rt, :timeline, timeline)
      state = batches |> moved(state) |> remember(state)
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

  defp compare(timeline, compared, _, _, %{rt: rt} = state) when compared in [timeline, nil] do
    kept = Recent.kept(rt)
    Recent.forget(rt, kept)
    {:ok, kept |> marks() |> remember(state)}
  end

  # The server is one that was a standby, and may lack what was read here, or have given its numbers to other messages. What
  # is known of that is compared.
  defp compare(_timeline, _, ends, heads, %{rt: rt} = state) do
    # Nothing comes into memory meanwhile.
    Runtime.put(rt, :timeline, :other)
    recent = Recent.marks(rt)
    kept = Recent.kept(rt)
    marks = recent ++ marks(kept) ++ Enum.concat(Map.values(state.marks))

    with {:ok, missing} <- Table.missing(rt, marks) do
      there = Enum.group_by(marks -- missing, &elem(&1, 0))
      missing = Enum.group_by(missing, &elem(&1, 0))

      for {p, first, _} <- ends,
          # What retention has taken is not missing.
          lost = for({_, _, last, _} = mark <- Map.get(missing, p, []), last >= first, do: mark),
          goes_to = same_to(first, Map.get(there, p, []), lost),
          had = Enum.max([heads[p] | Enum.map(lost, &elem(&1, 2))]),
          goes_to < had do
        Events.emit(rt.name, :rewound, %{missing: had - goes_to}, %{partition: p})
        Recent.drop(rt, p)
        Runtime.rewind(rt, p, goes_to)
      end

      Recent.forget(rt, kept)
      {:ok, %{state | marks: there}}
    end
  end

  # The last batch that is there, before any that is not: what is between the two may be gone, too. When there is none, all that
  # is kept may be new.
  defp same_to(first, there, lost) do
    # Any number is less than an atom.
    lost = lost |> Enum.map(&elem(&1, 1)) |> Enum.min(fn -> :none end)
    Enum.max([first - 1 | for({_, _, last, _} <- there, last < lost, do: last)])
  end

  defp marks(kept), do: Enum.flat_map(kept, fn {_, marks} -> marks end)

  defp remember(marks, state) do
    new = Enum.group_by(marks, &elem(&1, 0))
    merge = fn _, own, new -> Recent.thin(new ++ own, state.rt) end
    %{state | marks: Map.merge(state.marks, new, merge)}
  end

  # An end that has not moved is known.
  defp moved(batches, %{marks: marks}),
    do: Enum.reject(batches, &(List.first(Map.get(marks, elem(&1, 0), [])) == &1))

  defp now, do: System.monotonic_time(:millisecond)

  defp interval(%{streaming: true, rt: rt}), do: rt.opts.check_interval
  defp interval(%{rt: rt}), do: rt.opts.poll_interval
end
