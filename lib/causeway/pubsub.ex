if Code.ensure_loaded?(Phoenix.PubSub) do
  defmodule Causeway.PubSub do
    @moduledoc """
    An adapter of Phoenix.PubSub, on a `Causeway.Log`: durable topics, and nodes that have only a database in common.

        children = [
          {Causeway.Log, name: Shop.Log, connection: [...]},
          {Phoenix.PubSub, name: Shop.PubSub, adapter: Causeway.PubSub, log: Shop.Log, durable: ["orders:*"]}
        ]

    ## Durable topics

    A broadcast on a durable topic returns `:ok` after it has been committed. A node that was cut off from the server gets
    all that it has missed when it comes back: each once, in the order of the commits by topic. With
    `{:error, error}` nobody on this node has been sent it; when the error's reason is `{:unknown, _}` or `:timeout`, others may
    have been. Subscribers on the node that broadcasts are sent it by Phoenix.PubSub itself, after the commit.

    A node takes part from when its log has first reached the server. What the log's `:keep_ms` or `:keep_bytes` has taken
    before it came back is missed: the event `[:causeway, :log, :behind]` says how much.

    ## All other topics

    With Erlang distribution they are Phoenix.PubSub.PG2's, its default adapter. Without, they go through the server's log as
    messages that are kept nowhere: a node that is cut off misses them until its log streams again, for which the server needs
    `wal_level = logical`. Presence, whose topics are of these, makes good for it by itself.

    ## Phoenix without Erlang distribution

    Channels, presence, live views and the subscriptions of Absinthe work unchanged; `docs/log.md` lists what was tried. A pid,
    a port or a reference in a message is that of another node, to which there is no connection; sent back, it is again what it
    was. Those that a function has in it are left as they are, and mean nothing elsewhere.

    ## Options

    Besides those of Phoenix.PubSub and its default adapter:

    #{Causeway.PubSub.Options.docs()}
    """

    @behaviour Phoenix.PubSub.Adapter
    use Supervisor

    alias Causeway.Log
    alias Causeway.PubSub.{Emitter, Options, Relay, Wire}
    alias Phoenix.PubSub.PG2

    @doc false
    @impl Phoenix.PubSub.Adapter
    def child_spec(opts) do
      %{id: __MODULE__, start: {__MODULE__, :start_link, [opts]}, type: :supervisor}
    end

    @doc false
    def start_link(opts) do
      config = Options.new!(opts)
      :persistent_term.put({__MODULE__, config.adapter_name}, config)
      Supervisor.start_link(__MODULE__, {opts, config}, name: :"#{config.adapter_name}_causeway")
    end

    @impl true
    def init({opts, config}) do
      # How far each partition has been relayed outlives who relays.
      config = %{config | places: :ets.new(:places, [:public])}
      children = [{PG2, opts}, {Emitter, config}, {Relay, config}]
      Supervisor.init(children, strategy: :one_for_one)
    end

    @impl true
    def node_name(adapter_name), do: config(adapter_name).node

    @impl true
    def broadcast(adapter_name, topic, message, dispatcher) do
      config = config(adapter_name)

      cond do
        Options.durable?(config.durable, topic) -> publish(config, topic, message, dispatcher)
        config.fast == :distribution -> PG2.broadcast(adapter_name, topic, message, dispatcher)
        true -> Emitter.emit(config, :all, topic, message, dispatcher)
      end
    end

    defp publish(config, topic, message, dispatcher) do
      bytes = Wire.encode({config.id, dispatcher, message})

      with {:ok, _place} <-
             Log.publish(config.log, config.prefix <> topic, bytes,
               format: :binary,
               timeout: config.timeout
             ),
           do: :ok
    end

    @impl true
    def direct_broadcast(adapter_name, node_name, topic, message, dispatcher) do
      config = config(adapter_name)

      if config.fast == :distribution or node_name == config.node,
        do:
          PG2.direct_broadcast(adapter_name, here(node_name, config), topic, message, dispatcher),
        else: Emitter.emit(config, node_name, topic, message, dispatcher)
    end

    # Who has another name than its node's is told by this one.
    defp here(same, %{node: same}), do: node()
    defp here(other, _config), do: other

    defp config(adapter_name), do: :persistent_term.get({__MODULE__, adapter_name})
  end

  defmodule Causeway.PubSub.Relay do
    @moduledoc false
    # Gives what comes from elsewhere to the subscribers of this node. Durable topics: from where it was before, when this
    # process, the log or its reader is started again. Whoever kills it between a message and the note of it makes that one
    # come twice.

    use GenServer
    alias Causeway.Log
    alias Causeway.Log.{Events, Runtime}
    alias Causeway.PubSub.{Emitter, Wire}

    @again_ms 100

    def start_link(config), do: GenServer.start_link(__MODULE__, config)

    @impl true
    def init(config),
      do: {:ok, %{config: config, ref: nil, monitor: nil}, {:continue, :subscribe}}

    @impl true
    def handle_continue(:subscribe, state), do: subscribe(state)

    @impl true
    def handle_info(:subscribe, state), do: subscribe(state)

    def handle_info({:causeway, ref, messages}, %{ref: ref, config: config} = state) do
      if is_list(messages),
        do: Enum.each(messages, &relay(&1, config)),
        else: note(config, Log.cursor(%{}, messages))

      {:noreply, state}
    end

    def handle_info({:causeway_emitted, content}, state) do
      Emitter.deliver(content, state.config)
      {:noreply, state}
    end

    # The reader, alone or with the whole log.
    def handle_info({:DOWN, monitor, _, _, _}, %{monitor: monitor} = state),
      do: subscribe(%{state | ref: nil, monitor: nil})

    def handle_info(_, state), do: {:noreply, state}

    defp subscribe(%{config: config} = state) do
      with %Runtime{} = rt <- Runtime.fetch(config.log),
           Runtime.put(rt, {:emitted, Emitter.prefix(config)}, self()),
           {:ok, ref, cursor} <- Log.subscribe(config.log, config.pattern, from: place(config)),
           [{_, reader}] <- :ets.lookup(rt.state, {:subscription, ref}) do
        note(config, cursor)
        {:noreply, %{state | ref: ref, monitor: Process.monitor(reader)}}
      else
        _ ->
          Process.send_after(self(), :subscribe, @again_ms)
          {:noreply, state}
      end
    end

    defp place(config) do
      case :ets.tab2list(config.places) do
        [] -> :now
        places -> Map.new(places)
      end
    end

    defp note(config, cursor), do: :ets.insert(config.places, Map.to_list(cursor))

    defp relay(%{topic: topic, payload: bytes} = message, config) do
      own = config.id

      case is_binary(bytes) and Wire.decode(bytes, config) do
        # Phoenix.PubSub has done so.
        {^own, _, _} -> :ok
        {_, dispatcher, term} -> deliver(config, bare(topic, config), term, dispatcher)
        _ -> :ok
      end

      :ets.insert(config.places, {message.partition, message.sequence})
    end

    defp bare(topic, %{prefix: prefix}),
      do: binary_part(topic, byte_size(prefix), byte_size(topic) - byte_size(prefix))

    @doc "Gives a message to this node's subscribers."
    def deliver(config, topic, message, dispatcher) do
      Phoenix.PubSub.local_broadcast(config.name, topic, message, dispatcher)
    rescue
      # A dispatcher of another release may not be here: its messages are not for this node, and hold up no others.
      error ->
        metadata = %{topic: topic, dispatcher: dispatcher, error: error}
        Events.emit(config.log, :undelivered, %{messages: 1}, metadata)
    end
  end

  defmodule Causeway.PubSub.Emitter do
    @moduledoc false
    # Broadcasts without distribution: as messages in the server's log, of which nothing stays. What comes while some are on
    # their way is sent together.

    use GenServer
    alias Causeway.Log.{Runtime, Writer}
    alias Causeway.Postgres
    alias Causeway.PubSub.{Relay, Wire}

    @most 1_000

    def start_link(config), do: GenServer.start_link(__MODULE__, config, name: name(config))

    defp name(config), do: :"#{config.adapter_name}_emitter"

    @doc "Sends to all nodes but this, or to the one that has a name."
    def emit(config, to, topic, message, dispatcher) do
      GenServer.cast(name(config), {:emit, {to, topic, message, dispatcher}})
    end

    @doc "What such messages are called in the server's log."
    def prefix(config), do: "causeway.pubsub." <> config.prefix

    @doc "Those of another node, for this one."
    def deliver(content, config) do
      with {from, list} when from != config.id <- Wire.decode(content, config) do
        for {to, topic, message, dispatcher} <- list,
            to in [:all, config.node],
            do: Relay.deliver(config, topic, message, dispatcher)
      end

      :ok
    end

    @impl true
    def init(config), do: {:ok, config}

    @impl true
    def handle_cast({:emit, one}, config) do
      content = Wire.encode({config.id, gather([one], 1)})

      # Nobody waits for it: lost is lost, as with nodes that are not connected.
      with %Runtime{} = rt <- Runtime.fetch(config.log) do
        sql = "SELECT pg_catalog.pg_logical_emit_message(true, $1, $2::bytea)"
        Postgres.query(Writer.connection(rt, 0), sql, [prefix(config), content])
      end

      {:noreply, config}
    end

    defp gather(list, n) when n >= @most, do: Enum.reverse(list)

    defp gather(list, n) do
      receive do
        {:"$gen_cast", {:emit, one}} -> gather([one | list], n + 1)
      after
        0 -> Enum.reverse(list)
      end
    end
  end
end
