# Causeway.Doc and Causeway.Clock beside the CRDT libraries of the BEAM that are on the code path. One line
# a case, see Bench; sizes are numbers of 16-byte elements.

Code.require_file("support/bench.ex", __DIR__)

defmodule DocBench do
  import Bench
  alias Causeway.{Clock, Doc}
  alias DeltaCrdt.AWLWWMap

  @steps 1_000

  def run do
    Enum.each([10_000, 100_000], &add/1)
    Enum.each([10_000, 100_000], &remove/1)
    Enum.each([10_000, 100_000], &put/1)
    Enum.each([10_000, 100_000], &put_batch/1)
    merge()
    bytes()
    memory()
    Enum.each([3, 16, 256], &clock_merge/1)
  end

  # ---- what a document of n looks like, here and elsewhere ----

  defp set(n, replica \\ "a"), do: set_of(elements(1..n), replica)

  defp set_of(elements, replica) do
    Doc.update(Doc.new(replica), Enum.map(elements, &{:add, ["s"], &1}))
  end

  defp map(n) do
    Doc.update(Doc.new("a"), for(e <- elements(1..n), do: {:put, ["m", e], 1}))
  end

  defp antidote_set(elements) do
    peer(:antidote_crdt_set_aw, fn ->
      crdt = :antidote_crdt_set_aw
      {:ok, effect} = crdt.downstream({:add_all, elements}, crdt.new())
      {:ok, state} = crdt.update(effect, crdt.new())
      state
    end)
  end

  defp orswot(elements, actor \\ :a) do
    peer(:riak_dt_orswot, fn ->
      {:ok, state} = :riak_dt_orswot.update({:add_all, elements}, actor, :riak_dt_orswot.new())
      state
    end)
  end

  defp awlww(elements, node \\ :a) do
    peer(AWLWWMap, fn ->
      empty = AWLWWMap.compress_dots(AWLWWMap.new())
      Enum.reduce(elements, empty, &awlww_add(&2, &1, 1, node))
    end)
  end

  defp awlww_add(state, key, value, node) do
    AWLWWMap.join(state, AWLWWMap.add(key, value, node, state), [key])
  end

  # Each step starts from the state before, over all elements given; so do the peers'.
  defp chain(nil, _elements, _step), do: nil

  defp chain(state, elements, step),
    do: cpu(fn -> walk(elements, state, step) end, length(elements))

  defp walk([], state, _step), do: state
  defp walk([e | rest], state, step), do: walk(rest, step.(state, e), step)

  # The peers that need more than some milliseconds a step take fewer of them.
  defp few(elements), do: Enum.take(elements, 10)

  # ---- cases ----

  defp add(n) do
    new = elements((n + 1)..(n + @steps))
    ours = chain(set(n), new, &Doc.update(&1, {:add, ["s"], &2}))

    line("set", "add to #{n}", ours, "us", [
      {"riak_dt_orswot",
       chain(orswot(elements(1..n)), new, fn s, e ->
         {:ok, s} = :riak_dt_orswot.update({:add, e}, :a, s)
         s
       end)},
      {"delta_crdt", chain(awlww(elements(1..n)), new, &awlww_add(&1, &2, 1, :a))},
      {"antidote_crdt", chain(antidote_set(elements(1..n)), few(new), &antidote(&1, {:add, &2}))}
    ])
  end

  defp antidote(state, op) do
    {:ok, effect} = :antidote_crdt_set_aw.downstream(op, state)
    {:ok, state} = :antidote_crdt_set_aw.update(effect, state)
    state
  end

  defp remove(n) do
    old = elements(1..@steps)
    ours = chain(set(n), old, &Doc.update(&1, {:remove, ["s"], &2}))

    line("set", "remove from #{n}", ours, "us", [
      {"riak_dt_orswot",
       chain(orswot(elements(1..n)), old, fn s, e ->
         {:ok, s} = :riak_dt_orswot.update({:remove, e}, :a, s)
         s
       end)},
      {"delta_crdt",
       chain(awlww(elements(1..n)), old, &AWLWWMap.join(&1, AWLWWMap.remove(&2, :a, &1), [&2]))},
      {"antidote_crdt",
       chain(antidote_set(elements(1..n)), few(old), &antidote(&1, {:remove, &2}))}
    ])
  end

  defp put(n) do
    keys = elements(1..@steps)
    ours = chain(map(n), keys, &Doc.update(&1, {:put, ["m", &2], 2}))

    line("map", "put in #{n}", ours, "us", [
      {"riak_dt_map", chain(riak_map(n), keys, &riak_put/2)},
      {"delta_crdt", chain(awlww(elements(1..n)), keys, &awlww_add(&1, &2, 2, :a))}
    ])
  end

  defp riak_map(n) do
    peer(:riak_dt_map, fn ->
      ops = for e <- elements(1..n), do: {:update, {e, :riak_dt_lwwreg}, {:assign, 1, 1}}
      {:ok, state} = :riak_dt_map.update({:update, ops}, :a, :riak_dt_map.new())
      state
    end)
  end

  defp riak_put(state, key) do
    op = {:update, {key, :riak_dt_lwwreg}, {:assign, 2, 2}}
    {:ok, state} = :riak_dt_map.update({:update, [op]}, :a, state)
    state
  end

  defp put_batch(n) do
    batches = elements(1..@steps) |> Enum.map(&{:put, ["m", &1], 2}) |> Enum.chunk_every(100)
    ours = chain(map(n), batches, &Doc.update(&1, &2)) / 100
    line("map", "put in #{n}, by 100", ours, "us")
  end

  defp merge do
    n = 10_000
    left = elements(1..n)
    right = elements((n + 1)..(2 * n))
    fork = Doc.fork(set(n), "b")
    base = set(n)

    merge_case(
      "disjoint",
      {set_of(left, "a"), set_of(right, "b")},
      {orswot(left), orswot(right, :b)},
      {awlww(left), awlww(right, :b)}
    )

    merge_case(
      "identical",
      {base, fork},
      {orswot(left), orswot(left)},
      {awlww(left), awlww(left)}
    )

    [x, y] = [elements(20_001..20_050), elements(20_051..20_100)]
    ours = {Doc.update(base, adds(x)), Doc.update(fork, adds(y))}
    merge_case("1 % different", ours, both(orswot(left), x, y), awlww_both(awlww(left), x, y))
  end

  defp adds(elements), do: Enum.map(elements, &{:add, ["s"], &1})

  defp both(nil, _, _), do: {nil, nil}

  defp both(state, x, y) do
    {:ok, a} = :riak_dt_orswot.update({:add_all, x}, :a, state)
    {:ok, b} = :riak_dt_orswot.update({:add_all, y}, :b, state)
    {a, b}
  end

  defp awlww_both(nil, _, _), do: {nil, nil}

  defp awlww_both(state, x, y) do
    {walk(x, state, &awlww_add(&1, &2, 1, :a)), walk(y, state, &awlww_add(&1, &2, 1, :b))}
  end

  defp merge_case(name, {a, b}, {ra, rb}, {da, db}) do
    line("merge", "10000, #{name}", cpu(fn -> Doc.merge(a, b) end), "us", [
      {"riak_dt_orswot", ra && cpu(fn -> :riak_dt_orswot.merge(ra, rb) end)},
      {"delta_crdt", da && cpu(fn -> AWLWWMap.join(da, db, awlww_keys(da, db)) end)}
    ])
  end

  defp awlww_keys(a, b), do: Enum.uniq(Map.keys(a.value) ++ Map.keys(b.value))

  defp bytes do
    doc = set(10_000)
    one = Doc.update(doc, {:add, ["s"], element(0)})
    antidote = antidote_set(elements(1..10_000))
    awlww = awlww(elements(1..10_000))

    line("bytes", "delta of one add", byte_size(Doc.delta(one, since: Doc.clock(doc))), "bytes", [
      {"delta_crdt", awlww && external(AWLWWMap.add(element(0), 1, :a, awlww))},
      {"antidote_crdt", antidote && external(downstream(antidote))}
    ])

    line("bytes", "state of 10000", byte_size(Doc.encode(doc)), "bytes", [
      {"delta_crdt", awlww && external(awlww)},
      {"antidote_crdt", antidote && external(antidote)},
      {"riak_dt_orswot", peer(:riak_dt_orswot, fn -> external(orswot(elements(1..10_000))) end)}
    ])
  end

  defp downstream(state) do
    {:ok, effect} = :antidote_crdt_set_aw.downstream({:add, element(0)}, state)
    effect
  end

  defp external(term), do: byte_size(:erlang.term_to_binary(term))

  # All that the VM has more of for some copies, divided by their elements.
  defp memory do
    n = 100_000
    bytes = Doc.encode(set(n))
    before = allocated()
    docs = for i <- 1..5, do: Doc.decode!(bytes, "copy-#{i}")
    held = allocated() - before
    true = Enum.all?(docs, &(Doc.info(&1).cells == n))
    line("memory", "an element of #{n}", held / (5 * n), "bytes")
  end

  # What was dropped before is given back by a thread of its own.
  defp allocated do
    :erlang.garbage_collect()
    Process.sleep(1_000)
    :erlang.memory(:total)
  end

  defp clock_merge(n) do
    names = for i <- 1..n, do: "replica-#{i}"
    a = Clock.new(Map.new(names, &{&1, :erlang.phash2(&1, 100_000) + 1}))
    b = Clock.new(Map.new(names, &{&1, :erlang.phash2({&1}, 100_000) + 1}))
    ra = for name <- names, do: {name, :erlang.phash2(name, 100_000) + 1}
    rb = for name <- names, do: {name, :erlang.phash2({name}, 100_000) + 1}

    line(
      "clock",
      "merge of #{n}",
      cpu(fn -> thousand(fn -> Clock.merge(a, b) end) end, 1000),
      "us",
      [
        {"riak_dt_vclock",
         peer(:riak_dt_vclock, fn ->
           cpu(fn -> thousand(fn -> :riak_dt_vclock.merge([ra, rb]) end) end, 1000)
         end)}
      ]
    )
  end

  defp thousand(fun), do: Enum.each(1..1000, fn _ -> fun.() end)
end

DocBench.run()
