if Code.ensure_loaded?(Phoenix.PubSub) do
  defmodule Causeway.PubSubNode do
    @moduledoc false
    # What a node of a test does with Phoenix.PubSub.

    alias Phoenix.PubSub

    @doc "Starts a log and a PubSub that go on when the caller has ended."
    def start(options, opts) do
      pubsub =
        [name: Shop.PubSub, adapter: Causeway.PubSub, log: Shop.Log, durable: ["orders:*"]] ++
          opts

      log = {Causeway.Log, name: Shop.Log, connection: options}

      with {:ok, _} = started <- start_unlinked([log, {PubSub, pubsub}]) do
        {:ok, _, _} = Causeway.Log.subscribe(Shop.Log, "nothing")
        started
      end
    end

    @doc "Starts a supervisor that goes on when the caller has ended."
    def start_unlinked(children) do
      {_, ref} =
        spawn_monitor(fn ->
          Process.flag(:trap_exit, true)
          started = Supervisor.start_link(children, strategy: :one_for_one)
          with {:ok, pid} <- started, do: Process.unlink(pid)
          exit({:started, started})
        end)

      receive do: ({:DOWN, ^ref, _, _, {:started, result}} -> result)
    end

    @doc "Starts a process that keeps what it is sent."
    def listen(topics) do
      test = self()

      spawn(fn ->
        for topic <- topics, do: :ok = PubSub.subscribe(Shop.PubSub, topic)
        Process.register(self(), :listener)
        send(test, :listening)
        keep([])
      end)

      receive do: (:listening -> :ok)
    end

    defp keep(list) do
      receive do
        {:all, pid} -> send(pid, {:kept, Enum.reverse(list)}) && keep(list)
        message -> keep([message | list])
      end
    end

    @doc "What that was."
    def heard do
      send(:listener, {:all, self()})
      receive do: ({:kept, list} -> list)
    end

    def broadcast(topic, message), do: PubSub.broadcast(Shop.PubSub, topic, message)

    @doc "Broadcasts by a dispatcher, on other nodes only."
    def dispatch_by(dispatcher, topic) do
      {:ok, {adapter, name}} = Registry.meta(Shop.PubSub, :pubsub)
      adapter.broadcast(name, topic, :nothing, dispatcher)
    end

    @doc "Ends the process that keeps what it is sent."
    def forget do
      ref = Process.monitor(:listener)
      Process.exit(Process.whereis(:listener), :kill)
      receive do: ({:DOWN, ^ref, _, _, _} -> :ok)
    end

    @doc "Broadcasts what only this VM can have made."
    def broadcast_own(topic) do
      own = {self(), make_ref(), hd(Port.list()), MapSet.new([self()]), [1 | self()]}
      :persistent_term.put(__MODULE__, own)
      broadcast(topic, own)
    end

    @doc "Whether that is what has been heard."
    def own?, do: heard() == [:persistent_term.get(__MODULE__)]

    @doc "Whether what has been heard is not taken for this VM's, but for that of one other."
    def of_one_other? do
      [{pid, ref, port, set, [1 | tail]}] = heard()
      [other] = Enum.uniq([node(pid), node(ref), node(port), node(tail) | Enum.map(set, &node/1)])
      other != node() and pid == tail
    end

    @doc "Broadcasts again what has been heard."
    def broadcast_heard(topic), do: Enum.each(heard(), &broadcast(topic, &1))

    @doc "Kills the process that relays, or what it reads by."
    def kill(:relay) do
      children = Supervisor.which_children(Shop.PubSub.Adapter_causeway)
      {_, pid, _, _} = List.keyfind(children, Causeway.PubSub.Relay, 0)
      Process.exit(pid, :kill)
    end

    def kill(:readers) do
      readers = Causeway.Log.Runtime.process(Shop.Log, :Readers)

      for {_, pid, _, _} <- DynamicSupervisor.which_children(readers),
          do: Process.exit(pid, :kill)
    end
  end
end
