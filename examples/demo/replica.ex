defmodule Demo.Replica do
  @moduledoc """
  A process with a document of its own. It edits without asking anyone, and keeps up with its peers by two
  messages:

      {:have, from, clock}     "this is what I have seen: what comes next?"
      {:delta, from, delta}    the answer; nil when there is nothing more

  Any of them may be lost: the next question says anew what is there.
  """
  use GenServer

  alias Causeway.{Clock, Doc}
  alias Demo.Link

  # A larger delta is a whole state, or nearly.
  @large 64 * 1024

  def start_link(name), do: GenServer.start_link(__MODULE__, name)

  def connect(replica, peer, pid, link), do: GenServer.call(replica, {:connect, peer, pid, link})

  @doc "Does each list of operations as one edit. Sends `{:edited, name}` to the caller at the end."
  def load(replica, edits), do: send(replica, {:load, edits, self()})

  @doc """
  Does each operation as one edit, and asks the peers for news after each batch of them. Sends
  `{:edited, name}` to the caller at the end.
  """
  def edit(replica, batches), do: send(replica, {:edit, batches, self()})

  @doc "Asks all peers for news."
  def sync(replica), do: send(replica, :sync)

  def doc(replica), do: GenServer.call(replica, :doc, :infinity)

  @doc "What came in since this was last called, oldest first: `%{from: peer, bytes: n, micros: t}`."
  def take_merges(replica), do: GenServer.call(replica, :take_merges, :infinity)

  @impl true
  def init(name), do: {:ok, %{name: name, doc: Doc.new(name), log: [], peers: %{}, merges: []}}

  # ---- editing ----

  @impl true
  def handle_info({:load, edits, caller}, state) do
    doc = Enum.reduce(edits, state.doc, &Doc.update(&2, &1))
    send(caller, {:edited, state.name})
    {:noreply, leap(state, doc)}
  end

  def handle_info({:edit, [], caller}, state) do
    send(caller, {:edited, state.name})
    {:noreply, state}
  end

  def handle_info({:edit, [batch | batches], caller}, state) do
    doc = Enum.reduce(batch, state.doc, &Doc.update(&2, &1))
    # To itself, so that messages from peers get their turn between batches.
    send(self(), {:edit, batches, caller})
    {:noreply, state |> step(doc) |> ask_all()}
  end

  # ---- keeping up ----

  def handle_info(:sync, state), do: {:noreply, ask_all(state)}

  def handle_info({:link_up, peer}, state) do
    {:noreply, state |> answered(peer) |> ask(peer)}
  end

  def handle_info({:have, peer, bytes}, state) do
    {:ok, clock} = Clock.decode(bytes)
    delta = next(state, clock)
    carry(state, peer, {:delta, state.name, delta}, byte_size(delta || ""))
    {:noreply, state}
  end

  def handle_info({:delta, peer, nil}, state), do: {:noreply, answered(state, peer)}

  def handle_info({:delta, peer, delta}, state) do
    {micros, {:ok, doc}} = :timer.tc(fn -> Doc.apply_delta(state.doc, delta) end)
    state = state |> answered(peer) |> note_merge(peer, byte_size(delta), micros)

    if byte_size(delta) > @large do
      {:noreply, leap(state, doc)}
    else
      {:noreply, state |> step(doc) |> ask(peer)}
    end
  end

  defp answered(state, peer), do: put_in(state, [:peers, peer, :asked?], false)

  defp note_merge(state, peer, bytes, micros) do
    %{state | merges: [%{from: peer, bytes: bytes, micros: micros} | state.merges]}
  end

  # One question at a time for each peer: what is on its way need not be sent twice.
  defp ask_all(state), do: Enum.reduce(Map.keys(state.peers), state, &ask(&2, &1))

  defp ask(state, peer) do
    if state.peers[peer].asked? do
      state
    else
      clock = state.doc |> Doc.clock() |> Clock.encode()
      carry(state, peer, {:have, state.name, clock}, byte_size(clock))
      put_in(state, [:peers, peer, :asked?], true)
    end
  end

  defp carry(state, peer, message, bytes) do
    %{pid: pid, link: link} = state.peers[peer]
    Link.carry(link, pid, message, bytes)
  end

  # ---- what a peer lacks ----

  # The log has the document's steps, newest first: what it had seen before, and the delta of the step.
  # It would end where all peers have seen what comes after; here it is kept for as long as this runs.
  defp step(state, doc) do
    before = Doc.clock(state.doc)
    %{state | doc: doc, log: [{before, Doc.delta(doc, since: before)} | state.log]}
  end

  # A change as large as a state is not worth keeping: who lacks it can have the state.
  defp leap(state, doc), do: %{state | doc: doc, log: []}

  # The newest step that builds only on what the peer has seen. Having done it, the peer asks again.
  defp next(state, clock) do
    unless Clock.contains?(clock, Doc.clock(state.doc)) do
      case Enum.find(state.log, fn {before, _} -> Clock.contains?(clock, before) end) do
        {_before, delta} -> delta
        nil -> Doc.delta(state.doc, since: clock)
      end
    end
  end

  # ---- for the one who watches ----

  @impl true
  def handle_call({:connect, peer, pid, link}, _from, state) do
    {:reply, :ok, put_in(state, [:peers, peer], %{pid: pid, link: link, asked?: false})}
  end

  def handle_call(:doc, _from, state), do: {:reply, state.doc, state}

  def handle_call(:take_merges, _from, state) do
    {:reply, Enum.reverse(state.merges), %{state | merges: []}}
  end
end
