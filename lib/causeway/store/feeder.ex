defmodule Causeway.Store.Feeder do
  @moduledoc false
  # Gives one peer what it lacks: whatever this replica has and the peer's clock has not, as one delta, again and
  # again. Deltas are cut into chunks, of which only so many are on their way unacknowledged; while the peer is
  # slow, more is gathered into the next delta, and nothing is queued.
  #
  # Own writes go at once. Those of third replicas wait a moment, in which the peer mostly gets them from
  # their own replica and says so.

  use GenServer, restart: :temporary
  alias Causeway.{Clock, Doc}
  alias Causeway.Store.{LogWriter, Reconcile, Runtime}

  @chunk 128 * 1024
  @window 16
  @relay_after 100
  # A delta of fewer bytes is sent even if it is the whole state.
  @small 64 * 1024

  # sent: what the peer has, or will have when all that is on its way has arrived
  defstruct [
    :rt,
    :peer,
    :link,
    :sent,
    :relay,
    :reconcile,
    version: -1,
    queue: [],
    inflight: 0,
    armed: false
  ]

  @doc "Feeds `peer`, whose link it is, and who has seen `clock`."
  def start_link({_rt, _peer, _link, _clock} = arg), do: GenServer.start_link(__MODULE__, arg)

  @impl true
  def init({rt, peer, link, clock}) do
    Process.monitor(link)

    {:ok, has(%__MODULE__{rt: rt, peer: peer, link: link, sent: clock}, clock),
     {:continue, :pump}}
  end

  @doc "How many writes of those here the peer is not known to have; nil when it was never heard of."
  def lag(rt, peer) do
    with [{_, clock}] <- :ets.lookup(rt.table, {:has, peer}) do
      theirs = Clock.to_map(clock)
      ours = rt |> Runtime.doc() |> Doc.clock() |> Clock.to_map()
      Enum.sum(for {who, n} <- ours, do: max(n - Map.get(theirs, who, 0), 0))
    else
      [] -> nil
    end
  end

  @doc "Forgets a peer that is not fed any more."
  def forget(rt, peer), do: :ets.delete(rt.table, {:has, peer})

  @impl true
  def handle_continue(:pump, state), do: {:noreply, pump(state)}

  @impl true
  def handle_info({:ack, clock}, state) do
    state = %{state | inflight: state.inflight - 1}
    {:noreply, state |> has(clock) |> pump()}
  end

  def handle_info({:reconcile, answer}, %{reconcile: reconcile} = state) do
    case Reconcile.answered(reconcile, answer) do
      {:ask, reconcile, question} ->
        send(state.link, {:reconcile, self(), question})
        {:noreply, %{state | reconcile: reconcile}}

      {:done, delta} ->
        sent = Clock.merge(state.sent, reconcile.clock)
        {:noreply, pump(%{state | reconcile: nil, queue: chunks(delta), sent: sent})}
    end
  end

  def handle_info({:have, clock}, state), do: {:noreply, state |> has(clock) |> pump()}
  def handle_info({:changed, _version}, state), do: {:noreply, pump(%{state | armed: false})}
  def handle_info(:relay, state), do: {:noreply, pump(%{state | relay: :due})}
  def handle_info({:DOWN, _, :process, _, _}, state), do: {:stop, :normal, state}

  defp has(state, nil), do: state

  defp has(state, clock) do
    :ets.insert(state.rt.table, {{:has, state.peer}, clock})
    %{state | sent: Clock.merge(state.sent, clock)}
  end

  defp pump(%{inflight: @window} = state), do: state
  defp pump(%{reconcile: reconcile} = state) when reconcile != nil, do: state

  defp pump(%{queue: [chunk | queue]} = state) do
    send(state.link, {:feed, self(), if(queue == [], do: :last, else: :more), chunk})
    pump(%{state | queue: queue, inflight: state.inflight + 1})
  end

  defp pump(state) do
    {doc, version} = Runtime.current(state.rt)
    clock = Doc.clock(doc)

    cond do
      Clock.contains?(state.sent, clock) ->
        arm(%{state | version: version, relay: nil})

      state.relay == :due or own_news?(state, clock) ->
        state |> cut(doc, clock, version) |> pump()

      true ->
        state |> relay_later() |> Map.put(:version, version) |> arm()
    end
  end

  defp own_news?(state, clock) do
    actor = Runtime.actor(state.rt)
    Clock.get(clock, actor) > Clock.get(state.sent, actor)
  end

  defp relay_later(%{relay: nil} = state) do
    Process.send_after(self(), :relay, @relay_after)
    %{state | relay: :waiting}
  end

  defp relay_later(state), do: state

  defp arm(%{armed: true} = state), do: state

  defp arm(state) do
    LogWriter.arm(state.rt, state.version)
    %{state | armed: true}
  end

  defp cut(state, doc, clock, version) do
    delta = Doc.delta(doc, since: state.sent)
    relay = if state.relay == :due, do: nil, else: state.relay
    state = %{state | version: version, relay: relay}

    if byte_size(delta) > @small and not worth_it?(state, doc),
      do: reconcile(state, doc, clock),
      else: %{state | queue: chunks(delta), sent: Clock.merge(state.sent, clock)}
  end

  # Who has nothing lacks everything.
  defp worth_it?(state, doc),
    do:
      state.sent == Clock.new() or :causeway_nif.doc_remembers(doc.ref, state.sent.bytes) == true

  defp reconcile(state, doc, clock) do
    {reconcile, question} = Reconcile.ask(doc, clock, state.sent)
    send(state.link, {:reconcile, self(), question})
    %{state | reconcile: reconcile}
  end

  defp chunks(<<chunk::binary-size(@chunk), rest::binary>>) when rest != <<>>,
    do: [chunk | chunks(rest)]

  defp chunks(rest), do: [rest]
end
