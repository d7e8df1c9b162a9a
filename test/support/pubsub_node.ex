if Code.ensure_loaded?(Phoenix.PubSub) do
  defmodule Causeway.PubSubNode do
    @moduledoc false
    # What a node of a test does with Phoenix.PubSub.

    alias Phoenix.PubSub

    @doc "Starts a log and a PubSub that go on when the caller has ended."
    def start(options, opts) do
      {_, ref} =
        spawn_monitor(fn ->
          Process.flag(:trap_exit, true)
          {:ok, log} = Causeway.Log.start_link(name: Shop.Log, connection: options)

          pubsub =
            [name: Shop.PubSub, adapter: Causeway.PubSub, log: Shop.Log, durable: ["orders:*"]] ++
              opts

          {:ok, sup} = Supervisor.start_link([{PubSub, pubsub}], strategy: :one_for_one)
          for pid <- [log, sup], do: Process.unlink(pid)
          {:ok, _, _} = Causeway.Log.subscribe(Shop.Log, "nothing")
          exit({:started, {:ok, sup}})
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
  end
end
