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
  # Of each replica in each turn.
  @edits 1500
  @batch 25
  @records_an_edit 100
  @deadline 120_000

  def run do
    seed = seed()
    line([:bright, "Causeway: three replicas, one data set, links that fail"])
    line("seed #{seed}; DEMO_SEED=#{seed} makes the same edits and cuts the same links again")
    world() |> load() |> edit_apart() |> collide() |> conclude()
  end

  # All that is random is drawn in this process.
  defp seed do
    given = System.get_env("DEMO_SEED") || "#{:rand.uniform(999_999)}"

    case Integer.parse(given) do
      {seed, ""} -> :rand.seed(:exsss, seed)
      _ -> fail("DEMO_SEED must be an integer, not #{inspect(given)}")
    end

    given
  end

  # ---- the world: replicas, and a link between any two ----

  defp world do
    replicas = for name <- @names, do: {name, start(Replica, [name])}

    links =
      for {a, b} <- @pairs,
          do: connect(List.keyfind(replicas, a, 0), List.keyfind(replicas, b, 0))

    %{replicas: replicas, links: links, records: nil, operations: 0}
  end

  defp start(module, arguments) do
    {:ok, pid} = apply(module, :start_link, arguments)
    pid
  end

  defp connect({a, a_pid}, {b, b_pid}) do
    link = start(Link, [{a, a_pid}, {b, b_pid}])
    Replica.connect(a_pid, b, b_pid, link)
    Replica.connect(b_pid, a, a_pid, link)
    link
  end

  defp cut(world), do: Enum.each(world.links, &Link.cut/1)
  defp heal(world), do: Enum.each(world.links, &Link.heal/1)

  defp docs(world), do: for({name, pid} <- world.replicas, do: {name, Replica.doc(pid)})

  # What the replicas have merged since this was last asked.
  defp take_merges(world) do
    for {name, pid} <- world.replicas,
        merge <- Replica.take_merges(pid),
        do: Map.put(merge, :to, name)
  end

  defp await_edits(names \\ @names)
  defp await_edits([]), do: :ok

  defp await_edits(names) do
    receive do
      {:edited, name} -> await_edits(List.delete(names, name))
    after
      @deadline -> fail("#{Enum.join(names, " and ")} did not finish editing")
    end
  end

  # Until all have seen the same.
  defp settle(world, deadline \\ now() + @deadline) do
    [{first, doc} | others] = docs(world)
    behind = Enum.find(others, fn {_, other} -> Doc.clock(other) != Doc.clock(doc) end)

    if behind && now() > deadline do
      {name, other} = behind
      line("after #{div(@deadline, 1000)} s, the replicas have still not seen the same")
      differ(first, doc, name, other)
    end

    if behind do
      for {_, pid} <- world.replicas, do: Replica.sync(pid)
      Process.sleep(10)
      settle(world, deadline)
    else
      :ok
    end
  end

  defp now, do: System.monotonic_time(:millisecond)

  # Messages and bytes carried, and messages lost, by all links together.
  defp traffic(world) do
    world.links
    |> Enum.map(&Map.delete(Link.stats(&1), :up?))
    |> Enum.reduce(&Map.merge(&1, &2, fn _, a, b -> a + b end))
  end

  defp since(later, before), do: Map.merge(later, before, fn _, a, b -> a - b end)

  # ---- 1. each loads a third ----

  defp load(world) do
    title("1. Each replica loads a third of the records")
    progress("reading the data set ...")
    {micros, {records, what}} = :timer.tc(&Records.load/0)
    clear_progress()
    line("#{number(length(records))} #{what}; read in #{time(micros)}")

    cut(world)
    records = Enum.shuffle(records)
    edits = Enum.map(records, &Edits.load/1)
    operations = edits |> Enum.map(fn {:in, _name, :map, ops} -> length(ops) end) |> Enum.sum()

    {micros, :ok} = :timer.tc(fn -> load_thirds(world, edits) end)
    for {name, doc} <- docs(world), do: show_doc(name, doc)
    line("#{number(operations)} operations in #{time(micros)}, the three at the same time")

    title("   They meet: each asks the others for what it lacks")
    heal(world)
    settle(world)
    show_merges(world)
    for {name, doc} <- docs(world), do: show_doc(name, doc)
    %{world | records: List.to_tuple(records), operations: operations}
  end

  defp load_thirds(world, edits) do
    thirds = Enum.chunk_every(edits, ceil(length(edits) / length(@names)))

    for {{_name, pid}, third} <- Enum.zip(world.replicas, thirds) do
      Replica.load(pid, Enum.chunk_every(third, @records_an_edit))
    end

    await_edits()
  end

  # ---- 2. all edit, links come and go ----

  defp edit_apart(world) do
    title("2. All edit at the same time, and links are cut and healed at random")

    line(
      dim("turn  " <> Enum.map_join(@pairs, &label/1) <> "     edits    deltas carried    lost")
    )

    before = traffic(world)
    {micros, _} = :timer.tc(fn -> for n <- 1..@turns, do: turn(world, n) end)
    edits = @turns * @edits * length(@names)
    line("#{number(edits)} edits in #{time(micros)}, syncing included")

    title("   All links heal")
    expected = merge_here(world)
    heal(world)
    {micros, :ok} = :timer.tc(fn -> settle(world) end)
    line("caught up by deltas in #{time(micros)}")
    must_equal(world, expected)

    show_summary(take_merges(world))
    carried = since(traffic(world), before)
    state = byte_size(Doc.encode(expected))
    line("carried for all of this: #{bytes(carried.bytes)}; one full state is #{bytes(state)}")
    %{world | operations: world.operations + edits}
  end

  defp label({a, b}), do: String.pad_trailing("#{a}-#{b}", 13)

  defp turn(world, n) do
    progress("turn #{n} of #{@turns} ...")
    Enum.each(world.links, &cut_or_heal/1)
    before = traffic(world)
    for {name, pid} <- world.replicas, do: Replica.edit(pid, random_batches(world.records, name))
    await_edits()
    carried = since(traffic(world), before)
    clear_progress()
    show_turn(n, world, carried)
  end

  defp cut_or_heal(link), do: if(:rand.uniform(2) == 1, do: Link.cut(link), else: Link.heal(link))

  defp random_batches(records, name) do
    records |> Edits.random(name, @edits) |> Enum.chunk_every(@batch)
  end

  # The three documents merged right here, to compare with what the replicas come to by deltas.
  defp merge_here(world) do
    [a, b, c] = for {_, doc} <- docs(world), do: doc
    {micros, merged} = :timer.tc(fn -> a |> Doc.merge(b) |> Doc.merge(c) end)
    line("to compare with: merge/2 of the three documents as they are now, in #{time(micros)}")
    merged
  end

  defp must_equal(world, expected) do
    for {name, doc} <- docs(world), Doc.hash(doc) != Doc.hash(expected) do
      differ("what #{name} has by deltas", doc, "what merge/2 makes", expected)
    end
  end

  # ---- 3. edits that meet head-on ----

  @collisions [
    %{
      record: "demo-1",
      what: "paris deletes a record that has 40 votes; tokyo adds 3",
      before: [{"lima", {:increment, ["votes"], 40}}, {"paris", {:put, ["version"], "1.0"}}],
      edits: [{"paris", {:delete, []}}, {"tokyo", {:increment, ["votes"], 3}}],
      result: %{"votes" => 3}
    },
    %{
      record: "demo-2",
      what: "paris puts a maintainer, and a little later lima does",
      before: [{"tokyo", {:put, ["maintainer"], "nobody"}}],
      edits: [
        {"paris", {:put, ["maintainer"], "paris"}},
        {"lima", {:put, ["maintainer"], "lima"}}
      ],
      result: %{"maintainer" => "lima"}
    },
    %{
      record: "demo-3",
      what: "paris removes a tag; tokyo adds it anew",
      before: [{"paris", {:add, ["tags"], "role::program"}}],
      edits: [
        {"paris", {:remove, ["tags"], "role::program"}},
        {"tokyo", {:add, ["tags"], "role::program"}}
      ],
      result: %{"tags" => MapSet.new(["role::program"])}
    },
    %{
      record: "demo-4",
      what: "paris deletes a nested map; lima puts one of its fields",
      before: [{"paris", {:put, ["about", "text"], "hi"}}, {"lima", {:put, ["about", "size"], 1}}],
      edits: [{"paris", {:delete, ["about"]}}, {"lima", {:put, ["about", "size"], 2}}],
      result: %{"about" => %{"size" => 2}}
    }
  ]

  defp collide(world) do
    title("3. Cut off from each other, they edit the same records")
    edit_each(world, :before)
    settle(world)
    take_merges(world)

    cut(world)

    for %{record: record, what: what} <- @collisions,
        do: line([String.pad_trailing(record, 8), what])

    edit_each(world, :edits)

    title("   All links heal, and everyone asks for what it lacks")
    heal(world)
    settle(world)
    show_merges(world)

    title("   What became of the records")
    for {_, doc} <- docs(world), collision <- @collisions, do: must_hold(doc, collision)
    for %{record: record, result: result} <- @collisions, do: show_result(record, result)
    world
  end

  # What the collisions say under `key`: replica by replica, each with one edit.
  defp edit_each(world, key) do
    for {name, pid} <- world.replicas do
      ops =
        for c <- @collisions, {^name, op} <- c[key], do: put_elem(op, 1, [c.record | elem(op, 1)])

      Replica.edit(pid, [[ops]])
      await_edits([name])
      # So that "a little later" is later by the clock on the wall.
      Process.sleep(2)
    end
  end

  defp must_hold(doc, %{record: record, result: expected}) do
    found = Doc.get(doc, [record])
    if found != expected, do: fail("#{record} is #{inspect(found)}, not #{inspect(expected)}")
  end

  # ---- 4. the result ----

  defp conclude(world) do
    title("4. The three root hashes")
    [{first, doc} | others] = docs(world)
    for {name, doc} <- docs(world), do: line([name(name, 7), hash(Doc.hash(doc))])

    for {name, other} <- others,
        Doc.hash(other) != Doc.hash(doc),
        do: differ(first, doc, name, other)

    case for({_, doc} <- docs(world), uniq: true, do: Doc.encode(doc)) do
      [state] -> agree(world, doc, byte_size(state))
      _ -> fail("the hashes are equal, but the encoded states are not")
    end
  end

  defp agree(world, doc, state) do
    total = traffic(world)
    info = Doc.info(doc)
    line()
    line("operations           #{number(world.operations)}")

    line(
      "full state           #{bytes(state)}, #{number(info.cells)} cells, #{bytes(info.bytes)} of memory"
    )

    line("carried over links   #{bytes(total.bytes)}, the first meeting included")
    line("lost on cut links    #{number(total.lost)} messages")
    line()
    line(good("All three replicas are equal, byte for byte."))
  end

  # ---- failing ----

  defp differ(a_name, a, b_name, b) do
    changes = Doc.diff(a, b, atoms: :create)

    line(
      bad("\n#{a_name} (left) and #{b_name} (right) differ at #{number(length(changes))} paths:")
    )

    for {path, kind, left, right} <- Enum.take(changes, 20) do
      line("  #{inspect(path)}, #{kind}: #{inspect(left)} | #{inspect(right)}")
    end

    fail("the replicas are not equal")
  end

  defp fail(why) do
    line(bad("\nFAILED: #{why}"))
    exit({:shutdown, 1})
  end

  # ---- showing ----

  defp show_doc(name, doc) do
    line([name(name, 7), right(number(Doc.info(doc).cells), 8), " cells  ", hash(Doc.hash(doc))])
  end

  defp show_turn(n, world, carried) do
    line([
      right("#{n}", 4),
      "  ",
      for(
        link <- world.links,
        do: if(Link.stats(link).up?, do: good("up           "), else: bad("cut          "))
      ),
      right(number(@edits * length(@names)), 10),
      right(bytes(carried.bytes), 18),
      right(number(carried.lost), 8)
    ])
  end

  defp show_merges(world) do
    for merge <- take_merges(world) do
      line([
        name(merge.to, 7),
        "from ",
        name(merge.from, 7),
        right(bytes(merge.bytes), 10),
        "  merged in ",
        right(time(merge.micros), 9)
      ])
    end
  end

  defp show_summary(merges) do
    for {name, merges} <- Enum.group_by(merges, & &1.to) do
      micros = merges |> Enum.map(& &1.micros) |> Enum.sort()
      sent = merges |> Enum.map(& &1.bytes) |> Enum.sum()

      line([
        name(name, 7),
        "merged #{right(number(length(merges)), 5)} deltas, #{right(bytes(sent), 8)}, in ",
        "#{time(Enum.sum(micros))}; median #{time(Enum.at(micros, div(length(micros), 2)))}, ",
        "longest #{time(List.last(micros))}"
      ])
    end
  end

  defp show_result(record, result), do: line([good("ok  "), record, "  ", inspect(result)])
end

Demo.run()
