defmodule Causeway.History do
  @moduledoc false
  # Checks a history of transactions for transactional causal consistency. An object is a map; a transaction that
  # writes it adds its own id to "all", puts it in "last" and increments "count". Nothing is ever removed, so
  # that reading all objects tells exactly which transactions are visible:
  #
  #     visible(T) = the ids in "all" of what T has read
  #
  # What is checked:
  #
  #     fractured   W is visible in one of the objects that it wrote and not in another
  #     aborted     an id is read that was never committed
  #     cyclic      session order and reads-from go round in a circle
  #     causal      W is visible, and not what W had seen
  #     stale       a session does not see what it saw or wrote before
  #     overwritten "last" is what a visible transaction, or the session that it is of, had seen and overwritten
  #     overruled   "last" is what a store knew of before it committed a visible transaction that puts there, too
  #     uncounted   "count" is not the number of ids
  #     lost        after all have met, somebody lacks what was committed
  #     conflict    two transactions were certified and have written the same object unseen by each other

  defmodule Tx do
    @moduledoc false
    # session: {client, number within it}; reads: `nil` when nothing was read; outcome: :ok | :unknown (the store
    # stopped before it answered); pause: between reading and writing; when something was committed: actor, who did, and
    # clock, a map, the store's with it
    defstruct [:id, :session, :store, :reads, :actor, :clock] ++
                [writes: [], outcome: :ok, certify: false, pause: 0]
  end

  @nothing %{"all" => MapSet.new(), "last" => nil, "count" => 0}

  @doc "What is read where there is nothing yet."
  def nothing, do: @nothing

  @doc "All that is wrong with the transactions and with the last reads; `[]` when nothing is."
  def check(txs, last_reads) do
    known = Map.new(txs, &{&1.id, &1})
    due = due(txs)
    # What a transaction that has not read had seen is no less than what its session had.
    seen =
      for tx <- txs, into: %{}, do: {tx.id, if(tx.reads, do: visible(tx.reads), else: due[tx.id])}

    finals = for {who, reads} <- last_reads, do: %Tx{id: {:last, who}, reads: reads}

    Enum.concat([
      Enum.flat_map(txs ++ finals, &fractured(&1, known)),
      Enum.flat_map(txs ++ finals, &aborted(&1, known)),
      cyclic(txs, seen),
      Enum.flat_map(txs, &causal(&1, seen)),
      Enum.flat_map(txs, &stale(&1, due, seen)),
      Enum.flat_map(txs ++ finals, &overwritten(&1, seen)),
      overruled(txs, finals),
      Enum.flat_map(txs ++ finals, &uncounted/1),
      Enum.flat_map(finals, &lost(&1, txs)),
      conflicts(txs, seen)
    ])
  end

  @doc "The transactions that are visible in what was read, `%{object => map}`."
  def visible(reads) do
    for {_, %{"all" => ids}} <- reads, reduce: MapSet.new(), do: (all -> MapSet.union(all, ids))
  end

  defp fractured(%Tx{reads: nil}, _known), do: []

  defp fractured(tx, known) do
    for id <- visible(tx.reads),
        w = known[id],
        w != nil,
        {in?, out} = Enum.split_with(w.writes, &(id in tx.reads[&1]["all"])),
        out != [],
        do: {:fractured, tx.id, id, in: in?, not_in: out}
  end

  defp aborted(%Tx{reads: nil}, _known), do: []

  defp aborted(tx, known),
    do: for(id <- visible(tx.reads), not is_map_key(known, id), do: {:aborted, tx.id, id})

  # What each must come after: what it has seen, and the one before it in its session.
  defp cyclic(txs, seen) do
    graph = :digraph.new()
    for tx <- txs, do: :digraph.add_vertex(graph, tx.id)
    for tx <- txs, w <- Map.get(seen, tx.id, []), w != tx.id, do: edge(graph, w, tx.id)
    for {a, b} <- pairs(txs), do: edge(graph, a.id, b.id)
    cycles = for [_, _ | _] = cycle <- :digraph_utils.cyclic_strong_components(graph), do: cycle
    :digraph.delete(graph)
    for cycle <- cycles, do: {:cyclic, cycle}
  end

  defp edge(graph, a, b),
    do: if(:digraph.vertex(graph, a), do: :digraph.add_edge(graph, a, b))

  defp causal(%Tx{reads: nil}, _seen), do: []

  defp causal(tx, seen) do
    for w <- seen[tx.id],
        missing = MapSet.difference(Map.get(seen, w, MapSet.new()), seen[tx.id]),
        MapSet.size(missing) > 0,
        do: {:causal, tx.id, w, MapSet.to_list(missing)}
  end

  defp stale(tx, due, seen) do
    missing = MapSet.difference(due[tx.id], seen[tx.id])
    if MapSet.size(missing) > 0, do: [{:stale, tx.id, MapSet.to_list(missing)}], else: []
  end

  # By transaction, what its session has seen or written before it.
  defp due(txs) do
    for {_, session} <- Enum.group_by(txs, &elem(&1.session, 0)),
        {tx, due} <- session |> Enum.sort_by(&elem(&1.session, 1)) |> due_in_order(),
        into: %{},
        do: {tx.id, due}
  end

  defp due_in_order(session) do
    {dues, _} =
      Enum.map_reduce(session, MapSet.new(), fn tx, due ->
        now = if tx.reads, do: MapSet.union(due, visible(tx.reads)), else: due
        wrote? = tx.writes != [] and tx.outcome == :ok
        {{tx, due}, if(wrote?, do: MapSet.put(now, tx.id), else: now)}
      end)

    dues
  end

  defp pairs(txs) do
    for {_, session} <- Enum.group_by(txs, &elem(&1.session, 0)),
        [a, b] <-
          session |> Enum.sort_by(&elem(&1.session, 1)) |> Enum.chunk_every(2, 1, :discard),
        do: {a, b}
  end

  defp overwritten(%Tx{reads: nil}, _seen), do: []

  defp overwritten(tx, seen) do
    for {object, %{"all" => ids, "last" => last}} <- tx.reads,
        by <- overwriting(last, ids, seen) do
      {:overwritten, tx.id, object, last, by}
    end
  end

  defp overwriting(nil, ids, _seen), do: Enum.take(ids, 1)

  defp overwriting(last, ids, seen) do
    if last in ids,
      do: for(w <- ids, w != last, last in Map.get(seen, w, []), do: w),
      else: [:never_written]
  end

  # Of two that have not seen each other, the clocks decide; but a store's clock has seen what the store has.
  defp overruled(txs, finals) do
    known = for tx <- txs, tx.clock != nil, into: %{}, do: {tx.id, tx}

    before =
      known
      |> Map.values()
      |> Enum.group_by(& &1.actor)
      |> Enum.flat_map(&known_before/1)
      |> Map.new()

    for %Tx{reads: %{} = reads} = tx <- txs ++ finals,
        {object, %{"all" => ids, "last" => last}} <- reads,
        is_map_key(known, last),
        w <- ids,
        is_map_key(known, w) and contains?(before[w], known[last].clock),
        do: {:overruled, tx.id, object, last, w}
  end

  # By transaction, the clock of the one that the same store has committed last before it. Those with the same clock were
  # committed together.
  defp known_before({actor, txs}) do
    {befores, _} =
      txs
      |> Enum.group_by(& &1.clock[actor])
      |> Enum.sort()
      |> Enum.flat_map_reduce(%{}, fn {_, [%{clock: clock} | _] = group}, before ->
        {for(tx <- group, do: {tx.id, before}), clock}
      end)

    befores
  end

  defp contains?(clock, other),
    do: Enum.all?(other, fn {who, n} -> Map.get(clock, who, 0) >= n end)

  defp uncounted(%Tx{reads: nil}), do: []

  defp uncounted(tx) do
    for {object, %{"all" => ids, "count" => n}} <- tx.reads,
        MapSet.size(ids) != n,
        do: {:uncounted, tx.id, object, n, MapSet.size(ids)}
  end

  defp lost(last, txs) do
    there = visible(last.reads)

    for tx <- txs, tx.outcome == :ok, tx.writes != [], tx.id not in there do
      {:lost, last.id, tx.id}
    end
  end

  # Of two that were certified at one store and wrote the same, one has seen the other.
  defp conflicts(txs, seen) do
    certified = Enum.filter(txs, &(&1.certify and &1.outcome == :ok and &1.writes != []))

    for a <- certified,
        b <- certified,
        a.id < b.id and a.store == b.store,
        not MapSet.disjoint?(MapSet.new(a.writes), MapSet.new(b.writes)),
        a.id not in seen[b.id] and b.id not in seen[a.id],
        do: {:conflict, a.id, b.id}
  end
end
