# Three replicas of one large document edit it at the same time, while the links between them are cut and
# healed at random; in the end they are equal. `make demo` runs it, DEMO_SEED=n repeats a run's choices.
#
# demo/replica.ex is what an application would look like: a process with a document and two messages.
# The rest is the data (demo/records.ex), what is done to it (demo/edits.ex), the network (demo/link.ex)
# and the screen (demo/screen.ex).

for file <- ~w(screen records edits link replica) do
  Code.require_file("demo/#{file}.ex", __DIR__)
end

defmodule Demo do
  import Demo.Screen

  alias Causeway.Doc
  alias Demo.{Edits, Link, Records, Replica}

  @names ~w(paris tokyo lima)
  @pairs [{"paris", "tokyo"}, {"tokyo", "lima"}, {"lima", "paris"}]

  @turns 12
  @edits 750
  @batch 25
  @load_batch 100
  @deadline 60_000

  def run do
    seed = seed()
    title("Causeway: three replicas, one data set, links that fail")
    line("seed #{seed}; DEMO_SEED=#{seed} makes the same edits and cuts the same links again")

    replicas = for name <- @names, do: {name, start(Replica, name)}
    links = for {a, b} <- @pairs, do: {{a, b}, connect(replicas, a, b)}
    world = %{replicas: replicas, links: links, records: nil, operations: 0}

    world |> load() |> edit_apart() |> collide() |> conclude()
  end

  defp seed do
    seed = String.to_integer(System.get_env("DEMO_SEED") || "#{:rand.uniform(999_999)}")
    :rand.seed(:exsss, seed)
    seed
  end

  defp start(module, argument) do
    {:ok, pid} = module.start_link(argument)
    pid
  end

  defp connect(replicas, a, b) do
    [{_, a_pid}, {_, b_pid}] = ends = for name <- [a, b], do: List.keyfind(replicas, name, 0)
    {:ok, link} = apply(Link, :start_link, ends)
    Replica.connect(a_pid, b, b_pid, link)
    Replica.connect(b_pid, a, a_pid, link)
    link
  end

  # ---- 1. each loads a third ----

  defp load(world) do
    title("1. Each replica loads a third of the records")
    progress("reading the data set ...")
    {micros, {records, what}} = :timer.tc(&Records.load/0)
    clear_progress()
    line("#{number(length(records))} #{what}; read in #{time(micros)}")

    Enum.each(world.links, fn {_, link} -> Link.cut(link) end)
    records = Enum.shuffle(records)
    third = ceil(length(records) / length(@names))

    loaded =
      Enum.zip_with(world.replicas, Enum.chunk_every(records, third), fn {name, pid}, own ->
        ops = Enum.map(own, &Edits.load/1)
        Replica.edit(pid, for(batch <- Enum.chunk_every(ops, @load_batch), do: [batch]))
        {name, pid, length(own), count(ops)}
      end)

    {micros, :ok} = :timer.tc(fn -> await_edits(@names) end)

    for {name, pid, n, operations} <- loaded,
        do: show_loaded(name, Replica.doc(pid), n, operations)

    operations = loaded |> Enum.map(&elem(&1, 3)) |> Enum.sum()
    line("#{number(operations)} operations in #{time(micros)}, all three at the same time")

    title("   They meet: each asks for what it lacks")
    heal_and_settle(world)
    show_merges(world)
    show_state(world)
    %{world | records: List.to_tuple(records), operations: operations}
  end

  # Operations in an edit, counting those inside an :in.
  defp count(ops) when is_list(ops), do: ops |> Enum.map(&count/1) |> Enum.sum()
  defp count({:in, _path, _kind, ops}), do: count(ops)
  defp count(_op), do: 1

  defp show_loaded(replica, doc, records, operations) do
    line([
      name(replica, 7),
      right(number(records), 7),
      " records, ",
      right(number(operations), 8),
      " operations, ",
      right(number(Doc.info(doc).cells), 8),
      " cells  ",
      dim(hash(Doc.hash(doc)))
    ])
  end

  # ---- 2. all edit, links come and go ----

  defp edit_apart(world) do
    title("2. All edit at the same time, and links are cut and healed at random")

    line(
      dim("turn  " <> Enum.map_join(@pairs, &label/1) <> "     edits   sent as deltas    lost")
    )

    before = network(world)
    {micros, _} = :timer.tc(fn -> Enum.each(1..@turns, &turn(world, &1)) end)

    edits = @turns * @edits * length(@names)
    show_traffic(world, before, network(world), edits, micros)
    %{world | operations: world.operations + edits}
  end

  defp label({a, b}), do: String.pad_trailing("#{a}-#{b}", 13)

  defp turn(world, n) do
    progress("turn #{n} of #{@turns} ...")
    flip(world.links)
    before = network(world)
    for {name, pid} <- world.replicas, do: Replica.edit(pid, random_batches(world.records, name))
    await_edits(@names)
    diff = since(before, network(world))
    clear_progress()

    line([
      right("#{n}", 4),
      "  ",
      for({_, link} <- world.links, do: link_state(link)),
      right(number(@edits * length(@names)), 10),
      right(bytes(diff.bytes), 17),
      right(number(diff.lost), 8)
    ])
  end

  defp random_batches(records, name) do
    records |> Edits.random(name, @edits) |> Enum.chunk_every(@batch)
  end

  # Each link is up in about half of the turns.
  defp flip(links) do
    for {_, link} <- links,
        do: if(:rand.uniform(2) == 1, do: Link.cut(link), else: Link.heal(link))
  end

  defp link_state(link) do
    if Link.stats(link).up?, do: good("up           "), else: bad("cut          ")
  end

  defp show_traffic(world, before, later, edits, micros) do
    diff = since(before, later)

    full =
      world |> docs() |> Enum.map(fn {_, doc} -> byte_size(Doc.encode(doc)) end) |> Enum.max()

    merges = merges(world)
    times = merges |> Enum.map(& &1.micros) |> Enum.sort()

    line("#{number(edits)} edits, with all that follows from them, in #{time(micros)}")

    line(
      "#{number(diff.messages)} messages carried, #{bytes(diff.bytes)}; one full state is #{bytes(full)}"
    )

    if times != [] do
      line(
        "#{number(length(times))} merges of deltas: half of them under #{time(middle(times))}, " <>
          "the longest #{time(List.last(times))}"
      )
    end
  end

  defp middle(sorted), do: Enum.at(sorted, div(length(sorted), 2))

  # ---- 3. edits that meet head-on ----

  # What each replica does while all links are cut, and what must come of it.
  defp collide(world) do
    title("3. Cut off from each other, they edit the same four records")
    [counted, put, tagged, nested] = Enum.map(1..4, &"demo-#{&1}")
    [paris, tokyo, lima] = Enum.map(world.replicas, &elem(&1, 1))

    heal_and_settle(world)

    edit(paris, [
      {:increment, [counted, "votes"], 40},
      {:put, [counted, "version"], "1.0"},
      {:put, [put, "maintainer"], "nobody"},
      {:add, [tagged, "tags"], "role::program"},
      {:put, [nested, "about", "homepage"], "http://example.org"},
      {:put, [nested, "about", "summary"], "an example"}
    ])

    heal_and_settle(world)
    merges(world)
    Enum.each(world.links, fn {_, link} -> Link.cut(link) end)

    edit(paris, [{:delete, [counted]}, {:put, [put, "maintainer"], "paris"}])
    edit(paris, [{:remove, [tagged, "tags"], "role::program"}, {:delete, [nested, "about"]}])
    edit(tokyo, [{:increment, [counted, "votes"], 3}, {:add, [tagged, "tags"], "role::program"}])
    edit(lima, [{:put, [put, "maintainer"], "lima"}])
    edit(lima, [{:put, [nested, "about", "homepage"], "http://example.com"}])

    expected = merged_by_hand(world)
    title("4. All links heal, and everyone asks for what it lacks")
    heal_and_settle(world)
    show_merges(world)
    must(world, expected)

    title("   What became of the four records")
    doc = Replica.doc(lima)

    [
      {"paris deleted a package that had 40 votes; tokyo added 3", [counted], %{"votes" => 3}},
      {"paris and lima each put a maintainer; the later one stays", [put],
       %{"maintainer" => "lima"}},
      {"paris removed a tag, and tokyo added it anew", [tagged],
       %{"tags" => MapSet.new(["role::program"])}},
      {"paris deleted a nested map, and lima put one field of it", [nested],
       %{"about" => %{"homepage" => "http://example.com"}}}
    ]
    |> Enum.each(&show_collision(doc, &1))

    world
  end

  defp edit(replica, ops) do
    Replica.edit(replica, [[ops]])
    receive do: ({:edited, _} -> :ok)
    # So that "the later one" is later by the clock on the wall.
    Process.sleep(2)
  end

  defp show_collision(doc, {what, path, expected}) do
    found = Doc.get(doc, path)
    ok? = found == expected
    line([if(ok?, do: good("ok  "), else: bad("BAD ")), what, "\n      now ", inspect(found)])
    unless ok?, do: fail("#{inspect(path)} should be #{inspect(expected)}")
  end

  # The three documents merged where nothing can be lost, to compare with.
  defp merged_by_hand(world) do
    [a, b, c] = Enum.map(docs(world), &elem(&1, 1))
    {micros, merged} = :timer.tc(fn -> a |> Doc.merge(b) |> Doc.merge(c) end)
    line(["merge/2 of the three, here and now, takes ", time(micros)])
    merged
  end

  defp must(world, expected) do
    for {name, doc} <- docs(world), Doc.hash(doc) != Doc.hash(expected) do
      differ("#{name}, by deltas", doc, "the three merged by merge/2", expected)
    end
  end

  # ---- 5. the result ----

  defp conclude(world) do
    title("5. The three root hashes")
    [{first, doc} | others] = docs = docs(world)
    states = for {name, doc} <- docs, do: {name, Doc.encode(doc)}
    for {name, doc} <- docs, do: line([name(name, 7), hash(Doc.hash(doc))])

    for {name, other} <- others,
        Doc.hash(other) != Doc.hash(doc),
        do: differ(first, doc, name, other)

    case states |> Enum.map(&elem(&1, 1)) |> Enum.uniq() do
      [state] -> agreed(world, doc, state)
      _ -> fail("the hashes are equal, but the encoded states are not")
    end
  end

  defp agreed(world, doc, state) do
    total = network(world)

    line()
    line("operations           #{number(world.operations)}")

    line(
      "full state           #{bytes(byte_size(state))} for #{number(Doc.info(doc).cells)} cells"
    )

    line("carried over links   #{bytes(total.bytes)} in #{number(total.messages)} messages")
    line("lost on cut links    #{number(total.lost)} messages")
    line()
    line(good("All three replicas are equal, byte for byte."))
  end

  # ---- failing ----

  defp differ(a_name, a, b_name, b) do
    changes = Doc.diff(a, b, atoms: :create)
    line(bad("\n#{a_name} and #{b_name} differ in #{number(length(changes))} places:"))

    for {path, kind, in_a, in_b} <- Enum.take(changes, 20) do
      line("  #{inspect(path)} (#{kind}): #{inspect(in_a)} here, #{inspect(in_b)} there")
    end

    fail("the replicas are not equal")
  end

  defp fail(why) do
    line(bad("\nFAILED: #{why}"))
    exit({:shutdown, 1})
  end

  # ---- the world ----

  defp docs(world), do: for({name, pid} <- world.replicas, do: {name, Replica.doc(pid)})

  defp merges(world) do
    for {name, pid} <- world.replicas,
        merge <- Replica.take_merges(pid),
        do: Map.put(merge, :to, name)
  end

  defp await_edits([]), do: :ok

  defp await_edits(waiting) do
    receive do
      {:edited, name} -> await_edits(List.delete(waiting, name))
    after
      @deadline -> fail("#{Enum.join(waiting, " and ")} did not finish editing")
    end
  end

  defp heal_and_settle(world) do
    Enum.each(world.links, fn {_, link} -> Link.heal(link) end)
    settle(world, System.monotonic_time(:millisecond) + @deadline)
  end

  # Until all have seen the same.
  defp settle(world, deadline) do
    clocks = for {_, doc} <- docs(world), uniq: true, do: Doc.clock(doc)

    cond do
      length(clocks) == 1 ->
        :ok

      System.monotonic_time(:millisecond) > deadline ->
        fail("the replicas did not hear from each other in time")

      true ->
        for {_, pid} <- world.replicas, do: Replica.sync(pid)
        Process.sleep(10)
        settle(world, deadline)
    end
  end

  defp network(world) do
    world.links
    |> Enum.map(fn {_, link} -> link |> Link.stats() |> Map.delete(:up?) end)
    |> Enum.reduce(fn a, b -> Map.merge(a, b, fn _, x, y -> x + y end) end)
  end

  defp since(before, later), do: Map.merge(later, before, fn _, x, y -> x - y end)

  defp show_merges(world) do
    for merge <- merges(world) do
      line([
        name(merge.to, 7),
        "from ",
        name(merge.from, 7),
        right(bytes(merge.bytes), 10),
        "  merged in ",
        right(time(merge.micros), 8)
      ])
    end
  end

  defp show_state(world) do
    [{_, doc} | _] = docs(world)
    state = byte_size(Doc.encode(doc))
    cells = number(Doc.info(doc).cells)
    line("all three: #{cells} cells, full state #{bytes(state)}, #{hash(Doc.hash(doc))}")
  end
end

Demo.run()
