defmodule Causeway.Store.Link do
  @moduledoc false
  # Takes what one peer has to give. It says what this replica has seen; a feeder over there sends the rest. After
  # whatever goes wrong it says so again: deltas may be lost and come twice, and nothing is kept for anybody.

  use GenServer, restart: :transient
  alias Causeway.{Clock, Doc}
  alias Causeway.Store.{Committer, Events, Gate, LogWriter, Reconcile, Runtime}

  @retry 100
  @retry_most 5_000
  @have_after 50

  defstruct [
    :rt,
    :peer,
    :feeder,
    :monitor,
    :reconcile,
    :timer,
    :reason,
    :clock,
    armed: false,
    parts: [],
    retry: @retry,
    bytes: 0,
    deltas: 0
  ]

  def start_link({rt, peer}),
    do: GenServer.start_link(__MODULE__, {rt, peer}, name: name(rt, peer))

  def name(rt, {name, node}), do: Runtime.process(rt.name, :"Link.#{name}.#{node}")

  @doc "What is known of the peers. It is read from a table: a link may be waiting for one that does not answer."
  def infos(rt), do: for([info] <- :ets.match(rt.table, {{:peer, :_}, :"$1"}), do: info)

  @doc "Forgets a peer whose link has ended."
  def forget(rt, peer), do: :ets.delete(rt.table, {:peer, peer})

  @doc "Tries now what would be tried some time later."
  def nudge(pid), do: send(pid, :connect)

  @impl true
  def init({rt, {_, node} = peer}) do
    if node != node(), do: :net_kernel.monitor_nodes(true)
    {:ok, note(%__MODULE__{rt: rt, peer: peer, reason: :connecting}), {:continue, :connect}}
  end

  @impl true
  def handle_continue(:connect, state), do: {:noreply, connect(state)}

  @impl true
  def handle_info(:connect, %{feeder: nil} = state), do: {:noreply, connect(state)}

  def handle_info({:nodeup, node}, %{feeder: nil, peer: {_, node}} = state),
    do: {:noreply, connect(state)}

  def handle_info({:feed, feeder, :more, chunk}, %{feeder: feeder} = state) do
    send(feeder, {:ack, nil})
    {:noreply, %{state | parts: [state.parts | chunk], bytes: state.bytes + byte_size(chunk)}}
  end

  def handle_info({:feed, feeder, :last, chunk}, %{feeder: feeder} = state) do
    delta = IO.iodata_to_binary([state.parts | chunk])

    case Committer.apply_delta(state.rt, delta) do
      {:ok, clock} ->
        send(feeder, {:ack, clock})
        bytes = state.bytes + byte_size(chunk)
        Events.emit(state.rt.name, :apply, %{bytes: byte_size(delta)}, %{peer: state.peer})
        state = %{state | parts: [], reconcile: nil, bytes: bytes, deltas: state.deltas + 1}
        {:noreply, note(state)}

      {:error, error} ->
        {:noreply, disconnected(state, error)}
    end
  end

  def handle_info({:reconcile, feeder, question}, %{feeder: feeder} = state) do
    {reconcile, answer} = Reconcile.answer(state.reconcile, Runtime.doc(state.rt), question)
    send(feeder, {:reconcile, answer})

    {:noreply,
     %{state | reconcile: reconcile, bytes: state.bytes + :erlang.external_size(question)}}
  rescue
    # Starting again at once, it would soon take the store with it.
    error -> {:noreply, disconnected(state, error)}
  end

  def handle_info({:changed, _version}, state) do
    Process.send_after(self(), :have, @have_after)
    {:noreply, state}
  end

  def handle_info(:have, %{feeder: nil} = state), do: {:noreply, %{state | armed: false}}

  def handle_info(:have, state) do
    {doc, version} = Runtime.current(state.rt)
    send(state.feeder, {:have, Doc.clock(doc)})
    {:noreply, arm(%{state | armed: false}, version)}
  end

  def handle_info({:DOWN, monitor, :process, _, reason}, %{monitor: monitor} = state),
    do: {:noreply, disconnected(state, reason)}

  # From a feeder of before, mostly.
  def handle_info(_, state), do: {:noreply, state}

  # ---- connecting ----

  defp connect(%{peer: peer} = state) do
    if state.timer, do: Process.cancel_timer(state.timer)
    {doc, version} = Runtime.current(state.rt)

    with {:ok, feeder, hello} <- Gate.ask_for_feed(peer, Gate.hello(state.rt, Doc.clock(doc))),
         {:own, :ok, _} <- {:own, Gate.check_own(state.rt, hello), feeder} do
      Events.emit(state.rt.name, :peer_up, %{}, %{peer: peer, reason: nil})
      Gate.welcome(state.rt, hello)
      state |> connected(feeder, hello) |> arm(version) |> note()
    else
      {:own, {:error, error}, feeder} ->
        Process.exit(feeder, :shutdown)
        retry(%{state | reason: error})

      {:error, reason} ->
        retry(%{state | reason: reason})
    end
  end

  defp connected(state, feeder, hello) do
    %{
      state
      | feeder: feeder,
        monitor: Process.monitor(feeder),
        timer: nil,
        reason: nil,
        clock: %Clock{bytes: hello.clock},
        retry: @retry,
        reconcile: nil,
        parts: []
    }
  end

  defp disconnected(state, reason) do
    Process.demonitor(state.monitor, [:flush])
    Process.exit(state.feeder, :shutdown)
    Events.emit(state.rt.name, :peer_down, %{}, %{peer: state.peer, reason: reason})
    retry(%{state | feeder: nil, monitor: nil, reason: reason, parts: []})
  end

  defp retry(state) do
    timer = Process.send_after(self(), :connect, state.retry)
    note(%{state | timer: timer, retry: min(state.retry * 2, @retry_most)})
  end

  # Once, however often the peer comes and goes before something changes.
  defp arm(%{armed: true} = state, _version), do: state

  defp arm(state, version) do
    LogWriter.arm(state.rt, version)
    %{state | armed: true}
  end

  defp note(state) do
    info = state |> Map.take([:peer, :reason, :clock, :bytes, :deltas])
    info = Map.put(info, :connected, state.feeder != nil)
    :ets.insert(state.rt.table, {{:peer, state.peer}, info})
    state
  end
end
