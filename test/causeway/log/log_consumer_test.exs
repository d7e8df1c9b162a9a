defmodule Causeway.LogConsumerTest do
  use Causeway.LogCase, async: true
  alias Causeway.Log.Consumer
  @moduletag :capture_log

  setup :database

  defmodule Teller do
    use Consumer

    # The argument is `{pid, answer}`; the answer a function of messages and context, or what it is.
    @impl true
    def handle_messages(messages, %{argument: {pid, answer}} = context) do
      send(pid, {:handled, context.partition, messages})
      if is_function(answer), do: answer.(messages, context), else: answer
    end

    @impl true
    def handle_gap(gap, %{argument: {pid, _}}), do: send(pid, {:gap, gap})
  end

  defp consume!(log, answer, opts \\ []) do
    opts =
      Keyword.merge(
        [
          log: log,
          group: "g",
          handler: {Teller, {self(), answer}},
          lease: 600,
          backoff: {20, 100},
          from: :beginning
        ],
        opts
      )

    start_supervised!(
      Supervisor.child_spec({Consumer, opts}, id: make_ref(), restart: :temporary)
    )
  end

  defp handled(count, ms \\ 10_000), do: collect(count, ms, [])
  defp collect(left, _ms, lists) when left <= 0, do: lists |> Enum.reverse() |> Enum.concat()

  defp collect(left, ms, lists) do
    receive do
      {:handled, _, messages} -> collect(left - length(messages), ms, [messages | lists])
    after
      ms ->
        raise ExUnit.AssertionError, message: "#{left} are missing: #{inspect(lists, limit: 20)}"
    end
  end

  defp none(ms \\ 200), do: refute_receive({:handled, _, _}, ms)

  defp group(log) do
    {:ok, groups} = Log.consumers(log)
    List.first(groups)
  end

  defp acked(log), do: eventually(fn -> match?(%{lag: 0, parked: 0}, group(log)) end)

  test "each message once, in order by partition, in batches, acknowledged", context do
    log = start_log!(context)
    consume!(log, :ok, batch: 10)
    {:ok, _} = Log.publish_many(log, for(i <- 1..500, do: {"t.#{rem(i, 20)}", i}))
    got = handled(500)
    assert_gapless!(got, Map.new(0..7, &{&1, 0}))
    assert Enum.all?(got, &(&1.deliveries == 1))
    acked(log)
    none()
    assert %{dead: 0, members: [_], paused: false} = group(log)
  end

  test "a pattern, and what nobody wants is acknowledged, too", context do
    log = start_log!(context)
    consume!(log, :ok, topic: "a.*")
    {:ok, _} = Log.publish_many(log, for(i <- 1..100, t <- ["a.#{i}", "b.#{i}"], do: {t, i}))
    assert handled(100) |> Enum.map(& &1.payload) |> Enum.sort() == Enum.to_list(1..100)
    acked(log)

    assert_raise Error, ~r/last token/, fn ->
      Consumer.start_link(log: log, group: "x", topic: ">.a", handler: {Teller, nil})
    end

    assert_raise Error, ~r/with handle_messages/, fn ->
      Consumer.start_link(log: log, group: "x", handler: Enum)
    end
  end

  test "a message that fails comes again later; those of its key wait, others go on", context do
    log = start_log!(context, partitions: 1)

    answer = fn messages, _ ->
      case for(%{payload: 3, deliveries: n} = m when n < 3 <- messages, do: {m, "no"}) do
        [] -> :ok
        failed -> {:failed, failed}
      end
    end

    {:ok, _} = Log.publish_many(log, for(i <- 1..12, do: {"t", i, [key: "k#{rem(i, 3)}"]}))
    consume!(log, answer, batch: 4, backoff: {100, 400})
    # Of key 0: 3 is delivered three times, then 6, 9, 12.
    got = handled(14)
    of_key = for %{key: "k0"} = m <- got, do: {m.payload, m.deliveries}
    assert of_key == [{3, 1}, {3, 2}, {3, 3}, {6, 1}, {9, 1}, {12, 1}]
    for key <- ["k1", "k2"], do: assert(for(%{key: ^key} = m <- got, do: m.payload) |> ordered?())
    # Others did not wait for it.
    assert Enum.find_index(got, &(&1.payload == 11)) <
             Enum.find_index(got, &(&1.payload == 3 and &1.deliveries == 2))

    acked(log)
  end

  defp ordered?(list), do: list == Enum.sort(list)

  test "one that never works is a dead letter, which can come back or be discarded", context do
    log = start_log!(context, partitions: 1)
    mended = :atomics.new(1, [])

    answer = fn [%{payload: i} | _], _ ->
      if rem(i, 2) == 0 and :atomics.get(mended, 1) == 0, do: raise("boom #{i}"), else: :ok
    end

    consume!(log, answer, batch: 1, max_deliveries: 3)
    {:ok, places} = Log.publish_many(log, for(i <- 1..6, do: {"t.#{i}", i}))
    eventually(fn -> match?(%{dead: 3, parked: 0, lag: 0}, group(log)) end)
    {:ok, dead} = Log.dead_letters(log, "g")

    assert [
             {%{payload: 2, deliveries: 3, topic: "t.2"}, error},
             {%{payload: 4}, _},
             {%{payload: 6}, _}
           ] = dead

    assert error =~ "boom 2"
    handled(3 + 9)
    :atomics.put(mended, 1, 1)
    assert {:ok, 1} = Log.redrive(log, "g", [Enum.at(places, 1)])
    assert [%{payload: 2, deliveries: 1}] = handled(1)
    assert {:ok, 1} = Log.discard(log, "g", [Enum.at(places, 3)])
    assert {:ok, 1} = Log.redrive(log, "g", :all)
    assert [%{payload: 6}] = handled(1)
    acked(log)
    assert %{dead: 0} = group(log)
    none()
  end

  test "exits, throws, wrong answers and calls that take too long are failures", context do
    log = start_log!(context, partitions: 1)

    answer = fn [%{payload: what, deliveries: n}], _ ->
      case {what, n} do
        {_, 2} -> :ok
        {:exit, _} -> exit(:shutdown)
        {:throw, _} -> throw(:x)
        {:answer, _} -> :what
        {:kill, _} -> Process.exit(self(), :kill)
        {:error, _} -> {:error, <<255, 0>>}
        {:slow, _} -> Process.sleep(:infinity)
      end
    end

    consume!(log, answer, batch: 1, visibility_timeout: 200)
    whats = [:exit, :throw, :answer, :kill, :error, :slow]
    {:ok, _} = Log.publish_many(log, for(what <- whats, do: {"t.#{what}", what}))
    got = handled(12)
    for what <- whats, do: assert([1, 2] == for(%{payload: ^what} = m <- got, do: m.deliveries))
    acked(log)
  end

  test "calls at a time keep the order of keys", context do
    log = start_log!(context, partitions: 1)
    test = self()

    answer = fn messages, _ ->
      Process.sleep(:rand.uniform(3))
      send(test, {:done, messages})
      :ok
    end

    {:ok, _} = Log.publish_many(log, for(i <- 1..400, do: {"t", i, [key: "k#{rem(i, 11)}"]}))
    consume!(log, answer, batch: 50, concurrency: 4)
    handled(400)

    done =
      Stream.repeatedly(fn ->
        receive do: ({:done, messages} -> messages), after: (1000 -> nil)
      end)
      |> Enum.take_while(& &1)
      |> Enum.concat()

    assert length(done) == 400

    for {_, own} <- Enum.group_by(done, & &1.key),
        do: assert(own |> Enum.map(& &1.payload) |> ordered?())
  end

  test "members share the partitions; those of one that dies are taken by others", context do
    log = start_log!(context)
    one = consume!(log, :ok)
    eventually(fn -> match?(%{members: [_]}, group(log)) end)
    two = consume!(log, :ok)

    eventually(fn ->
      owners = group(log).partitions |> Enum.map(& &1.owner) |> Enum.frequencies() |> Map.values()
      owners == [4, 4]
    end)

    {:ok, _} = Log.publish_many(log, for(i <- 1..200, do: {"t.#{i}", i}))
    assert_gapless!(handled(200), Map.new(0..7, &{&1, 0}))
    acked(log)
    # It says goodbye, and so the other one has its partitions with the next tick.
    [dead, _] = [one, two]
    Process.unlink(dead)
    GenServer.stop(dead)

    eventually(fn ->
      match?(%{members: [_]}, group(log)) and Enum.all?(group(log).partitions, & &1.owner)
    end)

    {:ok, _} = Log.publish_many(log, for(i <- 1..200, do: {"t.#{i}", i}))
    handled(200)
    acked(log)
  end

  test "one that is killed in the middle of a call loses nothing; its partitions are another's when the lease is over",
       context do
    log = start_log!(context, partitions: 2)
    test = self()

    stuck = fn messages, _ ->
      send(test, {:stuck, self(), messages})
      Process.sleep(:infinity)
    end

    {:ok, pid} =
      Task.start(fn ->
        {:ok, _} =
          Consumer.start_link(
            log: log,
            group: "g",
            handler: {Teller, {test, stuck}},
            lease: 600,
            from: :beginning
          )

        Process.sleep(:infinity)
      end)

    {:ok, _} = Log.publish_many(log, for(i <- 1..10, do: {"t", i}))
    handler = receive do: ({:stuck, handler, _} -> handler)
    handled(1)
    ref = Process.monitor(handler)
    Process.exit(pid, :kill)
    assert_receive {:DOWN, ^ref, _, _, _}, 2_000
    consume!(log, :ok)
    assert Enum.map(handled(10), & &1.payload) == Enum.to_list(1..10)
    acked(log)
  end

  test "pause, resume, seek", context do
    log = start_log!(context, partitions: 1)
    consume!(log, :ok)
    {:ok, _} = Log.publish_many(log, for(i <- 1..5, do: {"t", i}))
    handled(5)
    :ok = Log.pause(log, "g")
    Process.sleep(500)
    {:ok, _} = Log.publish(log, "t", 6)
    none(300)
    assert %{paused: true, lag: 1} = group(log)
    :ok = Log.resume(log, "g")
    assert [%{payload: 6}] = handled(1)
    :ok = Log.seek(log, "g", %{0 => 2})
    assert Enum.map(handled(4), & &1.payload) == [3, 4, 5, 6]
    :ok = Log.seek(log, "g", :beginning)
    assert Enum.map(handled(6), & &1.payload) == Enum.to_list(1..6)
    acked(log)
    assert {:error, %Error{reason: {:no_group, "nobody"}}} = Log.pause(log, "nobody")
    assert {:error, %Error{reason: {:no_group, "nobody"}}} = Log.seek(log, "nobody", :now)
  end

  test "a group with members is deleted by force only", context do
    log = start_log!(context, partitions: 1)
    one = consume!(log, :ok)
    {:ok, _} = Log.publish(log, "t", 1)
    handled(1)
    acked(log)
    %{members: [member]} = group(log)

    assert {:error, %Error{reason: {:has_members, "g", [^member]}} = error} =
             Log.delete_consumers(log, "g")

    assert Exception.message(error) =~ "force: true"
    assert Exception.message(error) =~ member
    assert %{lag: 0} = group(log)

    assert_raise Error, ~r/expected true or false/, fn ->
      Log.delete_consumers(log, "g", force: 1)
    end

    # By force: the member handles nothing more.
    :ok = Log.delete_consumers(log, "g", force: true)
    assert group(log) == nil
    Process.sleep(300)
    {:ok, _} = Log.publish(log, "t", 2)
    none()
    GenServer.stop(one)

    # A new one makes a new group, which begins where it says.
    two = consume!(log, :ok)
    assert Enum.map(handled(2), & &1.payload) == [1, 2]
    acked(log)

    # One that was killed counts until its lease is over; one that has said goodbye does not.
    Process.unlink(two)
    Process.exit(two, :kill)
    assert {:error, %Error{reason: {:has_members, "g", [_]}}} = Log.delete_consumers(log, "g")
    eventually(fn -> Log.delete_consumers(log, "g") == :ok end)
    three = consume!(log, :ok)
    handled(2)
    acked(log)
    GenServer.stop(three)
    assert :ok = Log.delete_consumers(log, "g")
    assert {:error, %Error{reason: {:no_group, "g"}}} = Log.delete_consumers(log, "g")

    assert {:error, %Error{reason: {:no_group, "g"}}} =
             Log.delete_consumers(log, "g", force: true)
  end

  test "a group that is made anew does not go on with what its name's former owners know",
       context do
    log = start_log!(context, partitions: 1)
    consume!(log, :ok)
    {:ok, _} = Log.publish(log, "t", 1)
    handled(1)
    acked(log)
    rt = Log.Runtime.fetch!(log)
    :ok = Log.delete_consumers(log, "g", force: true)
    :ok = Log.Groups.ensure(Log.Table.control(rt), rt, "g", :beginning)
    assert [%{payload: 1}] = handled(1)
    acked(log)
  end

  describe "transactional" do
    setup context do
      {:ok, conn} = Postgres.start_link(context.options)
      Postgres.query!(conn, "CREATE TABLE effects (i int, n int)")
      {:ok, conn: conn}
    end

    defp effects(conn),
      do: Postgres.query!(conn, "SELECT i FROM effects ORDER BY n").rows |> Enum.concat()

    defp write(messages, %{tx: tx}) do
      for %{payload: i} <- messages,
          do: Postgres.query!(tx, "INSERT INTO effects SELECT $1, count(*) FROM effects", [i])

      :ok
    end

    test "what the handler writes and the acknowledgement are one", context do
      log = start_log!(context, partitions: 1)

      answer = fn messages, context ->
        write(messages, context)

        if Enum.any?(messages, &(&1.payload == 7 and &1.deliveries < 3)),
          do: {:error, :no},
          else: :ok
      end

      {:ok, _} = Log.publish_many(log, for(i <- 1..20, do: {"t", i, [key: "k#{rem(i, 4)}"]}))
      consume!(log, answer, transactional: true, batch: 10)
      acked(log)
      done = effects(context.conn)
      assert Enum.sort(done) == Enum.to_list(1..20)
      for k <- 0..3, do: assert(Enum.filter(done, &(rem(&1, 4) == k)) |> ordered?())
    end

    test "exactly once, whoever is killed", context do
      seed = String.to_integer(System.get_env("CAUSEWAY_SEED") || "#{:rand.uniform(1_000_000)}")
      :rand.seed(:exsss, {seed, 1, 2})
      log = start_log!(context, partitions: 3)

      answer = fn messages, context ->
        write(messages, context)
        if :rand.uniform(20) == 1, do: raise("now and then"), else: :ok
      end

      task =
        Task.async(fn -> for i <- 1..600, do: {:ok, _} = Log.publish(log, "t.#{rem(i, 7)}", i) end)

      for _ <- 1..12 do
        members =
          for _ <- 1..2 do
            opts = [
              log: log,
              group: "g",
              handler: {Teller, {self(), answer}},
              lease: 300,
              backoff: {5, 20},
              max_deliveries: 1000,
              from: :beginning,
              transactional: true,
              batch: 7
            ]

            {:ok, pid} = Consumer.start_link(opts)
            Process.unlink(pid)
            pid
          end

        Process.sleep(:rand.uniform(250))
        for pid <- members, do: Process.exit(pid, :kill)
      end

      consume!(log, answer, transactional: true, max_deliveries: 1000, batch: 7)
      Task.await(task, 60_000)
      eventually(fn -> match?(%{lag: 0, parked: 0}, group(log)) end, 30_000)
      done = effects(context.conn)

      assert Enum.sort(done) == Enum.to_list(1..600),
             "seed #{seed}: #{inspect(done -- Enum.to_list(1..600))} twice"

      for k <- 0..6,
          do: assert(Enum.filter(done, &(rem(&1, 7) == k)) |> ordered?(), "seed #{seed}")
    end
  end
end
