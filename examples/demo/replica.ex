defmodule Demo.Replica do
  @moduledoc """
  A process with a document of its own. It edits without asking anyone, and keeps up with its peers by two
  messages:

      {:have, from, clock}     "this is what I have seen: send what I lack"
      {:delta, from, delta}    the answer

  Both may be lost. What a peer missed is in the next answer, because every question says anew what is there.
  """
  use GenServer

  alias Causeway.{Clock, Doc}
  alias Demo.Link

  # A delta above this is worth a second thought.
  @large 64 * 1024

  def start_link(name), do: GenServer.start_link(__MODULE__, name)

  def connect(replica, peer, pid, link), do: GenServer.call(replica, {:connect, peer, pid, link})

  @doc """
  Does batches of edits, each one as an update of its own, and asks the peers for news after each batch.
  Sends `{:edited, name}` to the caller at the end.
  """
  def edit(replica, batches), do: send(replica, {:edit, batches, self()})

  @doc "Asks all peers for news."
  def sync(replica), do: send(replica, :sync)

  def doc(replica), do: GenServer.call(replica, :doc, :infinity)

  @doc "What came in since this was last called, oldest first: `%{from: peer, bytes: n, micros: t}`."
  def take_merges(replica), do: GenServer.call(replica, :take_merges, :infinity)

  @impl true
  def init(name), do: {:ok, %{name: name, doc: Doc.new(name), peers: %{}, merges: []}}

  # ---- editing ----

  @impl true
  def handle_info({:edit, [], caller}, state) do
    send(caller, {:edited, state.name})
    {:noreply, state}
  end

  def handle_info({:edit, [batch | batches], caller}, state) do
    doc = Enum.reduce(batch, state.doc, &Doc.update(&2, &1))
    # To itself, so that messages from peers get their turn between batches.
    send(self(), {:edit, batches, caller})
    {:noreply, ask_all(%{state | doc: doc})}
  end

  # ---- keeping up ----

  def handle_info(:sync, state), do: {:noreply, ask_all(state)}

  def handle_info({:link_up, peer}, state) do
    {:noreply, state |> put_in([:peers, peer, :asked?], false) |> ask(peer)}
  end

  def handle_info({:have, peer, bytes}, state) do
    {:ok, clock} = Clock.decode(bytes)
    {:noreply, state |> note_confirmed(peer, clock) |> answer(peer, clock)}
  end

  def handle_info({:delta, peer, delta}, state) do
    {micros, result} = :timer.tc(fn -> Doc.apply_delta(state.doc, delta) end)
    state = put_in(state, [:peers, peer, :asked?], false)

    case result do
      {:ok, doc} ->
        {:noreply, note_merge(%{state | doc: doc}, state.doc, peer, byte_size(delta), micros)}

      # It builds on something that was lost on the way; the next answer will have it all.
      {:error, %Causeway.Error{reason: {:gap, _, _, _}}} ->
        {:noreply, state}
    end
  end

  # One question at a time for each peer: what is on its way need not be sent twice.
  defp ask_all(state), do: Enum.reduce(Map.keys(state.peers), state, &ask(&2, &1))

  defp ask(state, peer) do
    %{pid: pid, link: link, asked?: asked?} = state.peers[peer]

    if asked? do
      state
    else
      clock = state.doc |> Doc.clock() |> Clock.encode()
      Link.carry(link, pid, {:have, state.name, clock}, byte_size(clock))
      put_in(state, [:peers, peer, :asked?], true)
    end
  end

  defp answer(state, peer, clock) do
    %{pid: pid, link: link, confirmed: confirmed} = state.peers[peer]
    delta = delta(state.doc, clock, confirmed)
    Link.carry(link, pid, {:delta, state.name, delta}, byte_size(delta))
    put_in(state, [:peers, peer, :offered], state.doc)
  end

  # The document remembers its recent edits, which is enough for a peer that is a little behind, and then
  # nothing smaller can be sent. Since a clock further back it can only give the whole state. But the
  # document that the peer is known to have is still there: keeping it costs only what has changed since.
  defp delta(doc, clock, confirmed) do
    delta = Doc.delta(doc, since: clock)

    if byte_size(delta) > @large do
      Enum.min_by([delta, Doc.delta(doc, since: confirmed)], &byte_size/1)
    else
      delta
    end
  end

  defp note_confirmed(state, peer, clock) do
    offered = state.peers[peer].offered

    if Clock.contains?(clock, Doc.clock(offered)) do
      put_in(state, [:peers, peer, :confirmed], offered)
    else
      state
    end
  end

  defp note_merge(state, before, peer, bytes, micros) do
    if Doc.clock(before) == Doc.clock(state.doc) do
      state
    else
      %{state | merges: [%{from: peer, bytes: bytes, micros: micros} | state.merges]}
    end
  end

  # ---- for the one who watches ----

  @impl true
  def handle_call({:connect, peer, pid, link}, _from, state) do
    nothing = Doc.new(state.name)
    entry = %{pid: pid, link: link, asked?: false, offered: nothing, confirmed: nothing}
    {:reply, :ok, put_in(state, [:peers, peer], entry)}
  end

  def handle_call(:doc, _from, state), do: {:reply, state.doc, state}

  def handle_call(:take_merges, _from, state) do
    {:reply, Enum.reverse(state.merges), %{state | merges: []}}
  end
end
