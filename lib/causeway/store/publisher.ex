defmodule Causeway.Store.Publisher do
  @moduledoc false
  # Tells subscribers what changed from each version to the next. The committer sends it versions, but not more
  # than it can keep up with; a subscriber is sent events, but not more than it takes out of its mailbox. Who is
  # left behind gets a jump. So does everybody when this process, or the committer, has crashed: who has subscribed
  # stands in the store's table, which survives that.

  use GenServer
  alias Causeway.{Clock, Doc}
  alias Causeway.Store.{Event, Runtime}

  # Versions to resume from; they share all that did not change.
  @history 1_000
  @mailbox 1_000
  @look_again 100
  # So long after the last subscriber has left, versions are still kept for one that comes back.
  @linger 60_000

  defstruct [:rt, :last, :clock, :idle, history: :queue.new(), kept: 0, subscribers: %{}]

  def start_link(rt),
    do: GenServer.start_link(__MODULE__, rt, name: Runtime.process(rt, Publisher))

  def subscribe(rt, prefix, since),
    do: GenServer.call(Runtime.process(rt, Publisher), {:subscribe, self(), prefix, since})

  def unsubscribe(rt, ref),
    do: GenServer.call(Runtime.process(rt, Publisher), {:unsubscribe, ref})

  @impl true
  def init(rt) do
    Runtime.publishing(rt, false)
    Runtime.forget_queue(rt)
    known = :ets.match(rt.table, {{:subscriber, :"$1"}, :"$2", :"$3"})
    {:ok, resubscribe(%__MODULE__{rt: rt}, known)}
  end

  defp resubscribe(state, []), do: state

  # What they have been told, nobody knows.
  defp resubscribe(state, known) do
    state =
      Enum.reduce(known, wake(state), fn [ref, pid, prefix], s -> add(s, ref, pid, prefix) end)

    Enum.reduce(known, state, fn [ref | _], state -> jump(state, ref) end)
  end

  @impl true
  def handle_call({:subscribe, pid, prefix, since}, _from, state) do
    ref = make_ref()
    state = state |> wake() |> catch_up() |> add(ref, pid, prefix)
    answer = {:ok, ref, state.last}
    state = if since, do: resume(state, ref, since), else: state
    :ets.insert(state.rt.table, {{:subscriber, ref}, pid, prefix})
    {:reply, answer, state}
  end

  def handle_call({:unsubscribe, ref}, _from, state), do: {:reply, :ok, remove(state, ref)}

  @impl true
  def handle_info({:versions, docs}, state) do
    Runtime.dequeued(state.rt, length(docs))

    if Runtime.skipped?(state.rt) do
      drop_queued(state.rt)
      {:noreply, jump_all(state)}
    else
      {:noreply, Enum.reduce(docs, state, &advance(&2, &1))}
    end
  end

  def handle_info({{:DOWN, ref}, _, :process, _, _}, state), do: {:noreply, remove(state, ref)}

  def handle_info({:look_again, ref}, state) when is_map_key(state.subscribers, ref),
    do: {:noreply, jump(state, ref)}

  def handle_info(:idle, %{subscribers: none} = state) when none == %{} do
    Runtime.publishing(state.rt, false)
    {:noreply, %{state | last: nil, clock: nil, history: :queue.new(), kept: 0, idle: nil}}
  end

  def handle_info(_, state), do: {:noreply, state}

  # ---- versions ----

  # The first subscriber, or the first after a while: versions have not been sent, or not kept.
  defp wake(%{last: nil} = state) do
    Runtime.publishing(state.rt, true)
    set_last(state, Runtime.doc(state.rt))
  end

  defp wake(state), do: cancel_idle(state)

  defp cancel_idle(%{idle: nil} = state), do: state

  defp cancel_idle(state) do
    Process.cancel_timer(state.idle)
    %{state | idle: nil}
  end

  # Versions that are in the mailbox already.
  defp catch_up(state) do
    receive do
      {:versions, docs} ->
        Runtime.dequeued(state.rt, length(docs))
        docs |> Enum.reduce(state, &advance(&2, &1)) |> catch_up()
    after
      0 -> if(Runtime.skipped?(state.rt), do: jump_all(state), else: state)
    end
  end

  # Where some were left out, those before them are of no use: one jump leads to the newest.
  defp drop_queued(rt) do
    receive do
      {:versions, docs} ->
        Runtime.dequeued(rt, length(docs))
        drop_queued(rt)
    after
      0 -> :ok
    end
  end

  defp set_last(state, doc) do
    clock = Doc.clock(doc)
    keep(%{state | last: doc, clock: clock}, {clock, doc})
  end

  defp keep(%{kept: @history} = state, entry),
    do: %{state | history: :queue.in(entry, :queue.drop(state.history))}

  defp keep(state, entry),
    do: %{state | history: :queue.in(entry, state.history), kept: state.kept + 1}

  # One that was read as the current version may come again.
  defp advance(%{last: nil} = state, _doc), do: state

  defp advance(state, doc) do
    if Clock.contains?(state.clock, Doc.clock(doc)) do
      state
    else
      old = state.last
      state = set_last(state, doc)
      if state.subscribers == %{}, do: state, else: tell_all(state, diff(old, doc))
    end
  end

  # Peers are trusted: they are nodes of this cluster.
  defp diff(old, new), do: Doc.diff(old, new, atoms: :create)

  # ---- subscribers ----

  defp tell_all(state, changes) do
    Enum.reduce(state.subscribers, state, fn {ref, subscriber}, state ->
      tell(state, ref, subscriber, changes, state.last, state.clock)
    end)
  end

  # Who lags has one :look_again on its way, and is told nothing before that.
  defp tell(state, _ref, %{lagging: true}, _changes, _doc, _clock), do: state

  defp tell(state, ref, subscriber, changes, doc, clock) do
    case Enum.filter(changes, &below?(elem(&1, 0), subscriber.prefix)) do
      [] ->
        state

      changes ->
        if full?(subscriber.pid) do
          jump_later(state, ref)
        else
          send(
            subscriber.pid,
            {:causeway, ref, %Event{clock: clock, changes: changes, snapshot: doc}}
          )

          state
        end
    end
  end

  # A change above the prefix is one of it: a map that came or went as a whole is told by its fields.
  defp below?(path, prefix), do: List.starts_with?(path, prefix)

  defp full?(pid) do
    case Process.info(pid, :message_queue_len) do
      {:message_queue_len, n} -> n >= @mailbox
      nil -> true
    end
  end

  defp jump_later(state, ref) do
    Process.send_after(self(), {:look_again, ref}, @look_again)
    put_in(state.subscribers[ref].lagging, true)
  end

  defp jump(state, ref) do
    %{pid: pid} = state.subscribers[ref]

    if full?(pid) do
      jump_later(state, ref)
    else
      event = %Event{clock: state.clock, snapshot: state.last, jump: true}
      send(pid, {:causeway, ref, event})
      put_in(state.subscribers[ref].lagging, false)
    end
  end

  defp jump_all(%{last: nil} = state), do: state

  defp jump_all(state) do
    state = set_last(state, Runtime.doc(state.rt))
    behind = for {ref, %{lagging: false}} <- state.subscribers, do: ref
    Enum.reduce(behind, state, &jump(&2, &1))
  end

  # From the newest version that has nothing which the subscriber has not seen.
  defp resume(state, ref, since) do
    case Enum.split_while(Enum.reverse(:queue.to_list(state.history)), fn {clock, _} ->
           not Clock.contains?(since, clock)
         end) do
      {_, []} -> jump(state, ref)
      {newer, [{_, doc} | _]} -> replay(state, ref, doc, Enum.reverse(newer))
    end
  end

  defp replay(state, ref, doc, newer) do
    {_, state} =
      Enum.reduce(newer, {doc, state}, fn {clock, doc}, {old, state} ->
        {doc, tell(state, ref, state.subscribers[ref], diff(old, doc), doc, clock)}
      end)

    state
  end

  defp add(state, ref, pid, prefix) do
    monitor = :erlang.monitor(:process, pid, tag: {:DOWN, ref})
    subscriber = %{pid: pid, prefix: prefix, monitor: monitor, lagging: false}
    put_in(state.subscribers[ref], subscriber)
  end

  defp remove(state, ref) when not is_map_key(state.subscribers, ref), do: state

  defp remove(state, ref) do
    {%{monitor: monitor}, subscribers} = Map.pop(state.subscribers, ref)
    Process.demonitor(monitor, [:flush])
    :ets.delete(state.rt.table, {:subscriber, ref})
    state = %{state | subscribers: subscribers}

    if state.subscribers == %{},
      do: %{cancel_idle(state) | idle: Process.send_after(self(), :idle, @linger)},
      else: state
  end
end
