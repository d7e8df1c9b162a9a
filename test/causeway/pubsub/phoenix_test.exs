defmodule Causeway.PubSubPhoenixTest do
  # Phoenix itself, unchanged, in two VMs that are no Erlang nodes and have nothing in common but a database. The second is
  # behind a proxy.
  use Causeway.LogCase, async: false
  alias Causeway.{Cluster, PhoenixNode, SocketClient, StallProxy}
  alias Causeway.PhoenixNode.Endpoint

  needs = [Absinthe.Phoenix.Endpoint, Bandit, Jason, Phoenix.LiveView]
  absent = Enum.reject(needs, &Code.ensure_loaded?/1)

  @moduletag integration: :phoenix_live_view
  if absent != [], do: @moduletag(skip: "not here: #{inspect(absent)}")

  setup_all do
    options = PostgresServer.database!()
    {:ok, proxy} = StallProxy.start_link(PostgresServer.shared().port)
    near = node!(options)
    far = node!(Keyword.merge(options, hostname: "127.0.0.1", port: StallProxy.port(proxy)))
    {:ok, options: options, proxy: proxy, a: near, b: far}
  end

  defp node!(options) do
    node = Cluster.start_alone()
    port = Cluster.on(node, PhoenixNode, :start, [options, []], 30_000)
    streaming!(%{node: node, port: port})
  end

  # What is not durable comes by the stream, and is missed until that is there.
  defp streaming!(node) do
    eventually(fn ->
      {:ok, info} = on(node, Causeway.Log, :info, [Shop.Log])
      info.stream == :streaming and info.subscriptions >= 1
    end)

    node
  end

  defp on(%{node: node}, module \\ PhoenixNode, fun, args),
    do: Cluster.on(node, module, fun, args)

  defp connect!(%{port: port}, path \\ "/socket"), do: SocketClient.connect!(port, path)

  defp join!(node, topic, payload \\ %{}) do
    client = connect!(node)
    SocketClient.join!(client, topic, payload)
    client
  end

  test "channels: what one node broadcasts, the other's clients receive", %{a: a, b: b} do
    [near, far] = for node <- [a, b], do: join!(node, "room:1")
    :ok = on(b, Endpoint, :broadcast, ["room:1", "news", %{n: 1}])

    for client <- [near, far],
        do: assert_receive({:socket, ^client, [_, _, "room:1", "news", %{"n" => 1}]})

    SocketClient.call!(near, "room:1", "shout", %{n: 2})
    assert_receive {:socket, ^far, [_, _, "room:1", "shout", %{"n" => 2}]}
    refute_received {:socket, ^near, [_, _, "room:1", "shout", _]}
  end

  test "presence: joins, leaves, and a node that is killed", %{a: a, b: b} = context do
    c = node!(context.options)
    ada = join!(a, "room:lobby", %{name: "ada"})
    bob = join!(b, "room:lobby", %{name: "bob"})
    join!(c, "room:lobby", %{name: "eve"})
    all = %{"ada" => 1, "bob" => 1, "eve" => 1}
    for node <- [a, b, c], do: eventually(fn -> on(node, :present, ["room:lobby"]) == all end)

    assert_receive {:socket, ^ada, [_, _, _, "presence_diff", %{"joins" => %{"bob" => _}}]}
    SocketClient.close(bob)
    assert_receive {:socket, ^ada, [_, _, _, "presence_diff", %{"leaves" => %{"bob" => _}}]}

    Cluster.kill(c.node)
    assert_receive {:socket, ^ada, [_, _, _, "presence_diff", %{"leaves" => %{"eve" => _}}]}

    for node <- [a, b],
        do: eventually(fn -> on(node, :present, ["room:lobby"]) == %{"ada" => 1} end)
  end

  test "presence: processes that have the same number on both nodes", %{a: a, b: b} do
    number = same_number(a, b, 1000)
    for node <- [a, b], do: {:ok, _} = on(node, :track, ["room:same", number, "ada"])

    for node <- [a, b],
        do: eventually(fn -> on(node, :present, ["room:same"]) == %{"ada" => 2} end)

    on(a, :kill, [number])

    for node <- [a, b],
        do: eventually(fn -> on(node, :present, ["room:same"]) == %{"ada" => 1} end)

    on(b, :kill, [number])
    for node <- [a, b], do: eventually(fn -> on(node, :present, ["room:same"]) == %{} end)
  end

  # Numbers go up: who is behind gets there.
  defp same_number(a, b, count) do
    [x, y] = for node <- [a, b], do: MapSet.new(on(node, :sleepers, [count]))
    Enum.at(MapSet.intersection(x, y), 0) || same_number(a, b, count * 2)
  end

  test "live views: what one node broadcasts, the other's pages show", %{a: a, b: b} do
    page = SocketClient.get!(a.port, "/price")
    assert page =~ "costs 0"

    [id, session, static] =
      for name <- ["id", "data-phx-session", "data-phx-static"], do: attribute(page, name)

    client = connect!(a, "/live")

    payload = %{
      url: "http://localhost:#{a.port}/price",
      session: session,
      static: static,
      params: %{}
    }

    rendered = SocketClient.join!(client, "lv:" <> id, payload)
    assert %{"rendered" => %{"0" => "0"}} = rendered

    :ok = on(b, Causeway.PubSubNode, :broadcast, ["prices", {:price, 17}])
    assert_receive {:socket, ^client, [_, _, _, "diff", %{"0" => "17"}]}
  end

  defp attribute(page, name) do
    [_, value] = Regex.run(~r/<div[^>]* #{name}="([^"]*)"/, page)
    value
  end

  test "Absinthe: a mutation on one node, a subscription on the other", %{a: a, b: b} do
    [near, far] = for node <- [a, b], do: join!(node, "__absinthe__:control")

    for client <- [near, far] do
      %{"subscriptionId" => id} = document!(client, "subscription { sold }")
      assert %{"data" => %{"sell" => "pen"}} = document!(far, "mutation { sell(item: \"pen\") }")
      sold = %{"result" => %{"data" => %{"sold" => "pen"}}, "subscriptionId" => id}
      assert_receive {:socket, ^client, [_, _, _, "subscription:data", ^sold]}
      # Once.
      refute_receive {:socket, ^client, [_, _, _, "subscription:data", ^sold]}, 200
    end
  end

  defp document!(client, query),
    do: SocketClient.call!(client, "__absinthe__:control", "doc", %{query: query})

  test "a node that was cut off gets all of a durable topic, in order, once; its presences go, and come back",
       %{a: a, b: b} = context do
    far = join!(b, "orders:1")
    broadcast = fn n -> :ok = on(a, Endpoint, :broadcast, ["orders:1", "placed", %{n: n}]) end
    Enum.each(1..20, broadcast)
    assert placed(far, 20) == Enum.to_list(1..20)

    join!(b, "room:cut", %{name: "bob"})
    eventually(fn -> on(a, :present, ["room:cut"]) == %{"bob" => 1} end)

    StallProxy.refuse(context.proxy)
    StallProxy.cut(context.proxy)
    Enum.each(21..60, broadcast)
    assert {:error, %Error{}} = on(b, Endpoint, :broadcast, ["orders:1", "placed", %{n: 0}])
    eventually(fn -> on(a, :present, ["room:cut"]) == %{} end)
    refute_received {:socket, ^far, [_, _, _, "placed", _]}

    StallProxy.accept(context.proxy)
    assert placed(far, 40) == Enum.to_list(21..60)
    broadcast.(61)
    assert placed(far, 1) == [61]
    streaming!(b)
    eventually(fn -> on(a, :present, ["room:cut"]) == %{"bob" => 1} end)
  end

  defp placed(client, count) do
    for _ <- 1..count do
      assert_receive {:socket, ^client, [_, _, "orders:1", "placed", %{"n" => n}]}, 30_000
      n
    end
  end
end
