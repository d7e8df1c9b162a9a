# A chat between two nodes that know each other by a database only: no Erlang distribution. One of them is cut off from the
# server, misses what is said, and comes back. `make demo` runs it.

for file <-
      ~w(../test/support/postgres_server ../test/support/stall_proxy ../test/support/eventually ../test/support/cluster demo/screen demo/chat) do
  Code.require_file("#{file}.ex", __DIR__)
end

defmodule ChatDemo do
  import Demo.Screen

  alias Causeway.{Cluster, PostgresServer, StallProxy}
  alias Demo.Chat

  @script [
    {"paris", "Bonjour! Is anybody there?"},
    {"tokyo", "Konnichiwa. The trains are running."},
    :cut,
    {"paris", "The deploy is done."},
    {"paris", "Tokyo, do you see the new orders?"},
    {"paris", "Tokyo?"},
    :heal,
    {"tokyo", "I was in a tunnel. All orders are here."},
    {"paris", "Good."}
  ]

  def run do
    line([:bright, "Causeway.Log: a chat that loses no line"])

    case PostgresServer.missing() do
      nil -> start() |> talk() |> account()
      why -> line(["left out: ", why])
    end
  end

  defp start do
    title("1. A PostgreSQL server, and two VMs without Erlang distribution")
    server = PostgresServer.start!()
    {:ok, proxy} = StallProxy.start_link(server.port)

    nodes =
      for {name, port} <- [{"paris", server.port}, {"tokyo", StallProxy.port(proxy)}],
          into: %{} do
        node = Cluster.start_alone()
        Cluster.on(node, Code, :require_file, [Path.expand("demo/chat.ex", __DIR__)])
        :ok = Cluster.on(node, Chat, :join, [name, PostgresServer.options(server, port: port)])
        {name, node}
      end

    for {name, node} <- nodes,
        do:
          line(
            "#{name}: #{Cluster.on(node, :erlang, :node, [])}, alive: #{Cluster.on(node, :erlang, :is_alive, [])}"
          )

    %{nodes: nodes, proxy: proxy}
  end

  defp talk(world) do
    title("2. They talk; then Tokyo's connections are cut, and for a while nothing gets through")
    for step <- @script, do: step(step, world)
    world
  end

  defp step(:cut, world) do
    line([:yellow, "    (Tokyo is cut off)"])
    StallProxy.refuse(world.proxy)
    StallProxy.cut(world.proxy)
  end

  defp step(:heal, world) do
    StallProxy.accept(world.proxy)

    Causeway.Eventually.eventually(
      fn -> length(lines(world, "tokyo")) == length(lines(world, "paris")) end,
      30_000
    )

    line([:green, "    (Tokyo is back)"])
  end

  defp step({name, text}, world) do
    :ok = Cluster.on(world.nodes[name], Chat, :say, [name, text], 30_000)
    line("#{name}: #{text}")
    Process.sleep(200)
  end

  defp lines(world, name), do: Cluster.on(world.nodes[name], Chat, :lines, [])

  defp account(world) do
    title("3. What each of them has read")
    said = for {name, text} <- @script, do: {name, text}

    Causeway.Eventually.eventually(fn ->
      Enum.all?(["paris", "tokyo"], &(length(lines(world, &1)) == length(said)))
    end)

    for name <- ["paris", "tokyo"] do
      read = lines(world, name)
      read == said || raise "#{name} has read #{inspect(read)}"
      line([:green, "#{name}: all #{length(read)} lines, in the same order, each once"])
    end
  end
end

ChatDemo.run()
