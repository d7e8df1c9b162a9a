# Upstream's own suite, which is beside its sources, for the adapter with all of its ways: it takes the adapter from the
# application's environment.
defmodule Causeway.PubSubSuite do
  @moduledoc false

  def path do
    with true <- Code.ensure_loaded?(Phoenix.PubSub),
         source = Phoenix.PubSub.module_info(:compile)[:source],
         path = source |> Path.join("../../../test/shared/pubsub_test.exs") |> Path.expand(),
         true <- File.exists?(path),
         do: path,
         else: (_ -> nil)
  end
end

if Code.ensure_loaded?(Phoenix.PubSub) do
  defmodule Causeway.PubSubAdapterTest do
    use Causeway.LogCase, async: false
    alias Phoenix.PubSub
    @moduletag integration: :phoenix_pubsub

    setup_all do
      {:ok, _} = Application.ensure_all_started(:phoenix_pubsub)
      :ok
    end

    setup :database

    # Two of one name in one VM cannot be: each node is a VM of its own.
    defp node!(context, opts) do
      {peer, node} =
        Causeway.Cluster.start_node("pubsub",
          env: [{"ERL_LIBS", System.get_env("ERL_LIBS") || ""}]
        )

      here = {peer, node}
      {:ok, _} = Causeway.Cluster.on(here, :application, :ensure_all_started, [:phoenix_pubsub])
      {:ok, _} = Causeway.Cluster.on(here, Causeway.PubSubNode, :start, [context.options, opts])
      here
    end

    defp on(node, fun, args), do: Causeway.Cluster.on(node, Causeway.PubSubNode, fun, args)

    setup do
      Causeway.Cluster.distribute!()
      :ok
    end

    for fast <- [:distribution, :database] do
      test "two nodes, #{fast}", context do
        [a, b] = for _ <- 1..2, do: node!(context, fast: unquote(fast))

        if unquote(fast) == :distribution,
          do: true = Causeway.Cluster.on(a, :net_kernel, :connect_node, [elem(b, 1)])

        for node <- [a, b], do: on(node, :listen, [["orders:1", "other"]])
        for node <- [a, b], do: ready!(node)

        for i <- 1..50, {node, who} <- [{a, :a}, {b, :b}], topic <- ["orders:1", "other"] do
          :ok = on(node, :broadcast, [topic, {topic, who, i}])
        end

        for node <- [a, b] do
          eventually(fn -> length(on(node, :heard, [])) >= 200 end)
          heard = on(node, :heard, [])
          assert length(heard) == 200

          for topic <- ["orders:1", "other"],
              who <- [:a, :b],
              do: assert(for({^topic, ^who, i} <- heard, do: i) == Enum.to_list(1..50))
        end
      end
    end

    # Until its relay is there.
    defp ready!(node) do
      eventually(fn ->
        Causeway.Cluster.on(node, Causeway.Log, :info, [Shop.Log])
        |> elem(1)
        |> Map.fetch!(:subscriptions) >= 1
      end)

      Process.sleep(300)
    end

    test "a node that is cut off gets what it has missed of durable topics, in order, once",
         context do
      server = PostgresServer.shared()
      {:ok, proxy} = Causeway.StallProxy.start_link(server.port)

      far = %{
        options:
          Keyword.merge(context.options,
            hostname: "127.0.0.1",
            port: Causeway.StallProxy.port(proxy)
          )
      }

      a = node!(context, fast: :database)
      b = node!(far, fast: :database)
      for node <- [a, b], do: on(node, :listen, [["orders:1"]])
      for node <- [a, b], do: ready!(node)
      for i <- 1..20, do: :ok = on(a, :broadcast, ["orders:1", i])
      eventually(fn -> on(b, :heard, []) == Enum.to_list(1..20) end)
      Causeway.StallProxy.refuse(proxy)
      Causeway.StallProxy.cut(proxy)
      for i <- 21..60, do: :ok = on(a, :broadcast, ["orders:1", i])
      assert on(b, :heard, []) == Enum.to_list(1..20)
      Causeway.StallProxy.accept(proxy)
      eventually(fn -> on(b, :heard, []) == Enum.to_list(1..60) end, 30_000)
      assert on(a, :heard, []) == Enum.to_list(1..60)
    end

    # Two VMs that are no nodes, which both count their processes from the same number on.
    defp alone!(context, opts \\ []) do
      node = Causeway.Cluster.start_alone()
      {:ok, _} = Causeway.Cluster.on(node, :application, :ensure_all_started, [:phoenix_pubsub])
      {:ok, _} = on(node, :start, [context.options, opts])
      node
    end

    test "without distribution, pids are those of another node, and come home", context do
      [a, b] = for _ <- 1..2, do: alone!(context, atoms: :existing)

      for topic <- ["orders:1", "other"] do
        :ok = on(a, :listen, [[topic <> ":back"]])
        :ok = on(b, :listen, [[topic]])
        for node <- [a, b], do: ready!(node)
        :ok = on(a, :broadcast_own, [topic])
        eventually(fn -> on(b, :heard, []) != [] end)
        assert on(b, :of_one_other?, [])
        :ok = on(b, :broadcast_heard, [topic <> ":back"])
        eventually(fn -> on(a, :heard, []) != [] end)
        assert on(a, :own?, [])
        for node <- [a, b], do: on(node, :forget, [])
      end
    end

    test "what relays is killed, and what it reads by", context do
      [a, b] = for _ <- 1..2, do: alone!(context)
      :ok = on(b, :listen, [["orders:1"]])
      ready!(b)

      for i <- 1..200 do
        if i in [50, 150], do: on(b, :kill, [:relay])
        if i in [100, 180], do: on(b, :kill, [:readers])
        :ok = on(a, :broadcast, ["orders:1", i])
      end

      eventually(fn -> List.last(on(b, :heard, [])) == 200 end)
      heard = on(b, :heard, [])
      # One that was under way when it was killed may come twice.
      assert Enum.dedup(heard) == Enum.to_list(1..200)
      assert length(heard) <= 202
    end

    test "a dispatcher that is not here holds up nothing", context do
      [a, b] = for _ <- 1..2, do: alone!(context)
      :ok = on(b, :listen, [["orders:1", "other"]])
      ready!(b)

      for topic <- ["orders:1", "other"], i <- 1..10 do
        :ok = on(a, :dispatch_by, [Module.concat(Not, "There#{i}"), topic])
        :ok = on(a, :broadcast, [topic, {topic, i}])
      end

      eventually(fn -> length(on(b, :heard, [])) == 20 end)
    end

    test "what cannot be is said", context do
      log = start_log!(context, max_bytes: 1000)

      start_supervised!(
        {PubSub, name: Shop.Small, adapter: Causeway.PubSub, log: log, durable: :all}
      )

      :ok = PubSub.subscribe(Shop.Small, "a")

      assert {:error, %Error{reason: {:too_large, _, 1000}}} =
               PubSub.broadcast(Shop.Small, "a", String.duplicate("x", 2000))

      refute_receive _, 50

      assert_raise Error, ~r/:log/, fn ->
        Causeway.PubSub.start_link(name: X, adapter_name: X.Adapter)
      end
    end
  end

  if path = Causeway.PubSubSuite.path() do
    source = File.read!(path)

    for {suffix, opts} <- [
          {"Durable", [durable: :all]},
          {"Database", [fast: :database]},
          {"Distribution", [fast: :distribution]}
        ] do
      # Its own name, and a log that is there before it.
      log = Module.concat([Causeway.PubSubSuite, suffix])

      source
      |> String.replace(
        "defmodule Phoenix.PubSubTest do",
        "defmodule Phoenix.PubSub#{suffix}Test do"
      )
      |> String.replace("async: true", "async: false")
      |> String.replace(
        "Application.get_env(:phoenix_pubsub, :test_adapter)",
        inspect({Causeway.PubSub, [log: log] ++ opts})
      )
      |> String.replace(
        "  setup config do",
        """
          @moduletag :postgres
          @moduletag integration: :phoenix_pubsub

          setup_all do
            {:ok, _} = Application.ensure_all_started(:phoenix_pubsub)
            start_supervised!({Causeway.Log, name: #{inspect(log)}, connection: Causeway.PostgresServer.database!()})
            {:ok, _, _} = Causeway.Log.subscribe(#{inspect(log)}, "nothing")
            :ok
          end

          setup config do
        """,
        global: false
      )
      |> Code.compile_string(path)
    end
  end
end
