defmodule Causeway.LogFaultTest do
  # Nodes publish and read while nodes, connections, walsenders and the server are killed. CAUSEWAY_FAULTS says how often,
  # CAUSEWAY_SEED repeats a run's choices.
  use Causeway.LogCase, async: false
  alias Causeway.{Cluster, LogChecker}

  @moduletag :capture_log
  @moduletag timeout: 1_200_000
  @publishers 4

  test "whatever is killed" do
    faults = String.to_integer(System.get_env("CAUSEWAY_FAULTS") || "8")
    seed = String.to_integer(System.get_env("CAUSEWAY_SEED") || "#{:rand.uniform(1_000_000)}")
    :rand.seed(:exsss, {seed, 1, 2})
    Cluster.distribute!()
    server = PostgresServer.start!(settings: [wal_sender_timeout: "5s"])
    options = PostgresServer.options(server, timeout: 10_000)
    collector = spawn_link(fn -> collect([]) end)
    Process.register(collector, :collector)
    nodes = for name <- ["one", "two", "three"], into: %{}, do: {name, start_node(name, options)}
    Process.sleep(1_000)

    nodes =
      Enum.reduce(1..faults, nodes, fn _, nodes ->
        Process.sleep(200 + :rand.uniform(800))

        fault(
          Enum.random([
            :walsender,
            :backends,
            :some_backends,
            :port_program,
            :node,
            :server,
            :restart
          ]),
          server,
          nodes,
          options
        )
      end)

    Process.sleep(1_000)
    for {_, node} <- nodes, do: Cluster.on(node, LogChecker, :stop, [])
    living = for {_, {_, node}} <- nodes, do: node
    eventually(fn -> ended(collector, living) == length(living) * @publishers end, 60_000)
    log = start_log!(%{options: options})
    # What was published in a transaction with a snapshot of its own, or was under way.
    PostgresServer.signal(
      PostgresServer.backends(server, "state like 'idle in transaction%'"),
      "TERM"
    )

    eventually(
      fn ->
        PostgresServer.backends(
          server,
          "backend_type = 'client backend' and xact_start is not null"
        ) == []
      end,
      30_000
    )

    total = fn ->
      server
      |> PostgresServer.psql!("select sum(last) from causeway.log_ends()")
      |> String.trim()
      |> String.to_integer()
    end

    for {name, node} <- nodes do
      eventually(fn -> Cluster.on(node, LogChecker, :count, []) == total.() end, 60_000)

      assert is_list(Cluster.on(node, LogChecker, :all, [])),
             "seed #{seed}: the reader of #{name} has ended"
    end

    send(collector, {:give, self()})
    told = receive do: ({:given, told} -> told)
    check!(nodes, told, seed)
    :ok = stop_supervised({Log, log})
  end

  defp start_node(name, options) do
    node = Cluster.start_node("log_#{name}")
    true = Cluster.on(node, :net_kernel, :connect_node, [Node.self()])
    :ok = Cluster.on(node, LogChecker, :start, [options, Node.self(), @publishers])
    node
  end

  defp ended(collector, living) do
    send(collector, {:ended, self()})
    receive do: ({:ended, list} -> Enum.count(list, &(&1 in living)))
  end

  # What was told, and the nodes of publishers that have ended.
  defp collect(told, ended \\ []) do
    receive do
      {:give, pid} ->
        send(pid, {:given, told})
        collect(told, ended)

      {:ended, pid} when is_pid(pid) ->
        send(pid, {:ended, ended})
        collect(told, ended)

      {:ended, node, _} ->
        collect(told, [node | ended])

      what ->
        collect([what | told], ended)
    end
  end

  # ---- faults ----

  defp fault(:walsender, server, nodes, _) do
    server
    |> PostgresServer.backends("backend_type = 'walsender'")
    |> Enum.take_random(1)
    |> PostgresServer.signal("TERM")

    nodes
  end

  defp fault(:backends, server, nodes, _) do
    PostgresServer.signal(PostgresServer.backends(server), "TERM")
    nodes
  end

  defp fault(:some_backends, server, nodes, _) do
    server |> PostgresServer.backends() |> Enum.take_random(5) |> PostgresServer.signal("TERM")
    nodes
  end

  # The children of a node that are ours.
  defp fault(:port_program, _server, nodes, _) do
    {_, node} = Enum.random(nodes)
    {pids, _} = System.cmd("pgrep", ["-P", Cluster.os_pid(node), "causeway_port"])

    pids
    |> String.split()
    |> Enum.map(&String.to_integer/1)
    |> Enum.take_random(3)
    |> PostgresServer.signal("KILL")

    nodes
  end

  defp fault(:node, _server, nodes, options) do
    {name, node} = Enum.random(nodes)
    Cluster.kill(node)
    %{nodes | name => start_node(name, options)}
  end

  defp fault(:server, server, nodes, _) do
    PostgresServer.restart!(server, "immediate")
    nodes
  end

  defp fault(:restart, server, nodes, _) do
    PostgresServer.restart!(server, "fast")
    nodes
  end

  # ---- what must hold ----

  defp check!(nodes, told, seed) do
    seen =
      for {name, node} <- nodes, do: {name, node, Cluster.on(node, LogChecker, :all, [], 60_000)}

    [{_, _, first} | _] = seen
    placed = Map.new(first, fn {place, payload, _} -> {place, payload} end)
    payloads = MapSet.new(Map.values(placed))
    say = &"seed #{seed}: #{inspect(&1, limit: 20)}"

    # The readers have looked at the numbers; here, that all have the same there.
    for {name, _, all} <- seen do
      differs =
        for {place, payload, _} <- all,
            placed[place] != payload,
            do: {place, payload, placed[place]}

      assert differs == [] and length(all) == map_size(placed),
             say.({name, length(all), map_size(placed), differs})
    end

    twice = Map.values(placed) -- MapSet.to_list(payloads)
    assert twice == [], say.({:twice, twice})

    lost =
      for {:acked, payload, place} <- told,
          placed[place] != payload,
          do: {place, payload, placed[place]}

    assert lost == [], say.({:lost, lost})
    lost = for {:committed, payload, _} <- told, payload not in payloads, do: payload
    assert lost == [], say.({:lost, lost})
    undone = for {:rolled_back, payload} <- told, payload in payloads, do: payload
    assert undone == [], say.({:undone, undone})
    tried = for {:tried, payload} <- told, into: MapSet.new(), do: payload
    made_up = MapSet.difference(payloads, tried)
    assert MapSet.size(made_up) == 0, say.({:made_up, made_up})

    # Nothing was read before its commit began, as far as one clock tells.
    befores = for {:committed, payload, before} <- told, into: %{}, do: {payload, before}

    for {_, {_, node}, all} <- seen,
        me = Atom.to_string(node),
        {_, {^me, _, _} = payload, time} <- all,
        before = befores[payload] do
      assert time >= before, say.({:early, payload})
    end

    # What one has published after the other is acknowledged comes after it, in its topic.
    for {_, acked} <-
          told
          |> Enum.filter(&match?({:acked, _, _}, &1))
          |> Enum.group_by(fn {_, {node, n, i}, {p, _}} -> {node, n, p, rem(i, 5)} end) do
      sorted = Enum.sort_by(acked, fn {_, {_, _, i}, _} -> i end)
      numbers = for {_, _, {_, sequence}} <- sorted, do: sequence
      assert numbers == Enum.sort(numbers), say.({:order, sorted})
    end

    assert map_size(placed) > 100, say.(map_size(placed))

    IO.puts(
      "\n#{map_size(placed)} messages; #{Enum.count(told, &match?({:unknown, _}, &1))} of unknown fate"
    )
  end
end
