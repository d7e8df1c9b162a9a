defmodule Causeway.Log.Reader do
  @moduledoc false
  # Reads for one subscriber, some batches of each partition at a time, and no more than its mailbox has room for.

  use GenServer, restart: :temporary
  alias Causeway.Log.{Events, Feed, Runtime}

  # Until there is another look at a mailbox that was full, or a table that did not have it yet or could not be read.
  @full_ms 1
  @again_ms 50

  defstruct [
    :rt,
    :ref,
    :pid,
    :matcher,
    :opts,
    :flag,
    :timer,
    :feeds,
    # How many messages the subscriber takes now; what is to be sent to it, the last first, and how much that is
    room: 0,
    pieces: [],
    waiting: 0
  ]

  def start_link({rt, args}), do: GenServer.start_link(__MODULE__, {rt, args})

  @impl true
  def init({rt, args}) do
    Process.monitor(args.pid)
    Process.flag(:message_queue_data, :off_heap)

    state = %__MODULE__{
      rt: rt,
      ref: args.ref,
      pid: args.pid,
      matcher: args.matcher,
      opts: args.opts,
      feeds: Map.new(args.cursor, fn {p, at} -> {p, Feed.new(rt, p, at)} end),
      flag: :atomics.new(1, [])
    }

    :ets.insert(rt.state, {{:subscription, args.ref}, self()})
    Runtime.watch(rt, Map.keys(args.cursor), state.flag)
    {:ok, state, {:continue, :run}}
  end

  @impl true
  def terminate(_reason, state), do: forget(state)

  defp forget(%{rt: rt} = state) do
    Runtime.unwatch(rt, self())
    :ets.delete(rt.state, {:subscription, state.ref})
  end

  @impl true
  def handle_continue(:run, state), do: run(state)

  @impl true
  def handle_call(:stop, _from, state) do
    forget(state)
    {:stop, :normal, :ok, state}
  end

  @impl true
  def handle_info(:log_more, state), do: run(state)

  def handle_info({:timeout, timer, :run}, %{timer: timer} = state),
    do: run(%{state | timer: nil})

  # What was read of the partition, and not sent yet, may be another server's.
  def handle_info({:log_rewound, p, to}, %{rt: rt} = state) do
    at = state.feeds[p].at

    if at > to,
      do: send(state.pid, {:causeway, state.ref, {:rewound, %{partition: p, from: at, to: to}}})

    run(put(state, Feed.new(rt, p, min(at, to))))
  end

  def handle_info({:DOWN, _, :process, pid, _}, %{pid: pid} = state) do
    forget(state)
    {:stop, :normal, state}
  end

  def handle_info(_, state), do: {:noreply, state}

  # The flag is cleared before the heads are read: what comes afterwards wakes this again.
  defp run(state) do
    Runtime.looking(state.flag)
    {:noreply, state.feeds |> Map.keys() |> round(%{state | room: room(state)})}
  end

  # What each partition has, until none has more. What is little goes together, in one message.
  defp round(partitions, state) do
    case Enum.reduce_while(partitions, {[], state}, &step/2) do
      {:wait, ms, state} -> state |> flush() |> later(ms)
      {[], state} -> flush(state)
      {more, state} -> round(more, state)
    end
  end

  defp step(p, {more, state}) do
    feed = state.feeds[p]
    # To read the table may take long: nothing else waits for that.
    state = if Feed.at_hand?(feed), do: state, else: flush(state)
    if state.room == 0, do: {:halt, {:wait, @full_ms, state}}, else: step(feed, more, state)
  end

  defp step(%{partition: p} = feed, more, state) do
    case gather(feed, state, [], 0) do
      {:ok, messages, feed} -> {:cont, {[p | more], state |> put(feed) |> add(messages)}}
      {:gap, gap, feed} -> {:cont, {[p | more], state |> put(feed) |> flush() |> tell_gap(gap)}}
      :none -> {:cont, {more, state}}
      :later -> {:halt, {:wait, @again_ms, state}}
    end
  end

  # Small batches go together.
  defp gather(feed, %{opts: %{max_messages: most}} = state, messages, n) do
    case Feed.next(feed, state.matcher) do
      {:ok, more, feed} when n + length(more) < most ->
        gather(feed, state, [more | messages], n + length(more))

      {:ok, more, feed} ->
        {:ok, joined([more | messages]), feed}

      # What is after these comes with the next look.
      _ when messages != [] ->
        {:ok, joined(messages), feed}

      other ->
        other
    end
  end

  defp joined([one]), do: one
  defp joined(lists), do: lists |> Enum.reverse() |> Enum.concat()

  defp put(state, feed), do: %{state | feeds: %{state.feeds | feed.partition => feed}}

  # ---- sending ----

  # How many more messages its mailbox takes. It is looked at before a run, and when so many have been sent: to look means
  # to wait until the subscriber, which has just been sent something, has its turn.
  defp room(state) do
    case Process.info(state.pid, :message_queue_len) do
      {_, n} -> max(state.opts.max_queue - n, 0)
      nil -> 0
    end
  end

  defp add(state, messages) do
    n = state.waiting + length(messages)
    state = %{state | waiting: n, pieces: [messages | state.pieces]}
    if n >= state.opts.max_messages, do: flush(state), else: state
  end

  defp flush(%{waiting: 0} = state), do: %{state | pieces: []}

  defp flush(%{opts: %{max_messages: most}, waiting: n} = state) do
    messages = joined(state.pieces)
    pieces = if n <= most, do: [messages], else: Enum.chunk_every(messages, most)
    for piece <- pieces, do: send(state.pid, {:causeway, state.ref, piece})
    sent(%{state | pieces: [], waiting: 0}, length(pieces))
  end

  defp sent(%{room: room} = state, n) when room > n, do: %{state | room: room - n}
  defp sent(state, _n), do: %{state | room: room(state)}

  defp later(%{timer: nil} = state, ms),
    do: %{state | timer: :erlang.start_timer(ms, self(), :run)}

  defp later(state, _ms), do: state

  defp tell_gap(state, gap) do
    metadata = %{partition: gap.partition, subscriber: state.pid}
    Events.emit(state.rt.name, :behind, %{missing: gap.to - gap.from + 1}, metadata)
    send(state.pid, {:causeway, state.ref, {:gap, gap}})
    sent(state, 1)
  end
end
