defmodule Causeway.Store.Gate do
  @moduledoc false
  # Where peers knock: checks who they are, gives each a feeder, and links back. Who knows one member of a mesh
  # learns of the others from it.

  use GenServer
  alias Causeway.{Clock, Doc}
  alias Causeway.Store.{Committer, Disconnected, Feeder, Link, Runtime}

  @protocol 1
  @timeout 5_000

  def start_link(rt),
    do: GenServer.start_link(__MODULE__, rt, name: Runtime.process(rt.name, Gate))

  @doc "What a store says of itself."
  def hello(rt, clock) do
    %{
      protocol: @protocol,
      store: {rt.name, node()},
      replica: rt.opts.replica,
      actor: Runtime.actor(rt),
      clock: Clock.encode(clock),
      members: members(rt)
    }
  end

  @doc "Asks a peer to feed the caller: `{:ok, feeder, hello}` or `{:error, reason}`."
  def ask_for_feed({name, node}, hello) do
    GenServer.call({Runtime.process(name, Gate), node}, {:feed, hello, self()}, @timeout)
  catch
    :exit, {reason, _} -> {:error, reason}
  end

  @doc "What a peer said of itself, when it answered."
  def welcome(rt, hello), do: GenServer.cast(Runtime.process(rt.name, Gate), {:welcome, hello})

  @doc "Replicates with a peer from now on."
  def connect(rt, peer), do: GenServer.call(Runtime.process(rt.name, Gate), {:connect, peer})

  @doc "Takes nothing from a peer any more, and gives it nothing."
  def disconnect(rt, peer),
    do: GenServer.call(Runtime.process(rt.name, Gate), {:disconnect, peer})

  @doc "Who has seen more writes of this actor than it knows of, has seen them before a backup was restored."
  def check_own(rt, hello) do
    {:ok, clock} = Clock.decode(hello.clock)
    Committer.seen_elsewhere(rt, Clock.get(clock, Runtime.actor(rt)))
  end

  # ---- the server ----

  @impl true
  def init(rt) do
    with :ok <- Disconnected.load(rt) do
      known = for peer <- rt.opts.peers, do: normal(rt, peer)
      {:ok, Enum.reduce(known ++ members(rt), %{rt: rt, feeders: %{}}, &link(&2, &1))}
    else
      {:error, error} ->
        :logger.error(~c"causeway: store ~tp: ~ts", [rt.name, Exception.message(error)])
        {:stop, error}
    end
  end

  defp normal(_rt, {name, node}), do: {name, node}
  defp normal(rt, node), do: {rt.name, node}

  @impl true
  def handle_call({:feed, hello, link}, _from, state) do
    with :ok <- check(state.rt, hello), :ok <- check_own(state.rt, hello) do
      clock = Doc.clock(Runtime.doc(state.rt))
      {:ok, peer_clock} = Clock.decode(hello.clock)
      feeders = Runtime.process(state.rt.name, Feeders)
      state = stop_feeding(state, hello.store)

      feeder = {Feeder, {state.rt, hello.store, link, peer_clock}}
      {:ok, feeder} = DynamicSupervisor.start_child(feeders, feeder)
      state = put_in(state.feeders[hello.store], feeder)
      {:reply, {:ok, feeder, hello(state.rt, clock)}, meet(state, hello)}
    else
      {:error, reason} -> {:reply, {:error, reason}, state}
    end
  end

  def handle_call({:connect, peer}, _from, state) do
    peer = normal(state.rt, peer)

    with :ok <- Disconnected.delete(state.rt, peer),
         do: {:reply, :ok, state |> link(peer) |> nudge(peer)},
         else: (error -> {:reply, error, state})
  end

  def handle_call({:disconnect, peer}, _from, state) do
    peer = normal(state.rt, peer)

    with :ok <- Disconnected.add(state.rt, peer),
         do: {:reply, :ok, cut(state, peer)},
         else: (error -> {:reply, error, state})
  end

  defp cut(state, peer) do
    with pid when pid != nil <- Process.whereis(Link.name(state.rt, peer)),
         do: DynamicSupervisor.terminate_child(Runtime.process(state.rt.name, Links), pid)

    Link.forget(state.rt, peer)
    :ets.insert(state.rt.table, {:members, List.delete(members(state.rt), peer)})
    state = stop_feeding(state, peer)
    Feeder.forget(state.rt, peer)
    state
  end

  @impl true
  def handle_cast({:welcome, hello}, state) do
    {:noreply, meet(state, hello)}
  end

  # Also one whose answer came too late: the link asks again, and the feeder would wait for it in vain.
  defp stop_feeding(state, peer) do
    {feeder, feeders} = Map.pop(state.feeders, peer)
    if feeder, do: Process.exit(feeder, :shutdown)
    %{state | feeders: feeders}
  end

  defp check(rt, hello) do
    cond do
      hello.protocol != @protocol -> {:error, {:protocol, hello.protocol, @protocol}}
      hello.replica == rt.opts.replica -> {:error, {:same_replica, rt.opts.replica}}
      Disconnected.member?(rt, hello.store) -> {:error, :disconnected}
      true -> :ok
    end
  end

  # Who has just been heard of can be reached, which the link to it may not know.
  defp meet(state, hello) do
    [hello.store | hello.members]
    |> Enum.reduce(state, &link(&2, &1))
    |> nudge(hello.store)
  end

  defp nudge(state, peer) do
    with pid when pid != nil <- Process.whereis(Link.name(state.rt, peer)), do: Link.nudge(pid)
    state
  end

  defp link(state, peer) do
    if peer != {state.rt.name, node()} and not Disconnected.member?(state.rt, peer) and
         Process.whereis(Link.name(state.rt, peer)) == nil do
      DynamicSupervisor.start_child(
        Runtime.process(state.rt.name, Links),
        {Link, {state.rt, peer}}
      )

      remember(state.rt, peer)
    end

    state
  end

  # ---- who there is ----

  @doc "The other stores of the mesh, as far as they are known."
  def members(rt) do
    case :ets.lookup(rt.table, :members) do
      [{:members, members}] -> members
      [] -> []
    end
  end

  defp remember(rt, peer), do: :ets.insert(rt.table, {:members, Enum.uniq([peer | members(rt)])})
end
