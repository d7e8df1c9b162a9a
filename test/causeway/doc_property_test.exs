defmodule Causeway.DocPropertyTest do
  # Several replicas that edit, merge and exchange bytes, some of which are lost, late, or come twice. All
  # that anybody holds is compared with a model (test/support/doc_model.ex), and with what everybody else held
  # who had seen the same.
  use ExUnit.Case, async: true
  import Causeway.Property
  alias Causeway.{Clock, Doc, DocModel, Error}
  alias Causeway.DocModel.Act

  @moduletag :asan

  @kinds [:register, :register_multi, :counter, :counter_bounded] ++
           [:set, :set_grow, :set_remove_wins, :flag, :flag_disable_wins]

  # Where things are: the last field is {kind, number}.
  @places for(kind <- @kinds, do: [{kind, 0}]) ++
            for(kind <- @kinds, do: [{:map, 0}, {kind, 0}]) ++
            for(kind <- @kinds, do: [{:map, 0}, {:map, 1}, {kind, 1}]) ++
            for(kind <- @kinds, do: [{:map_grow, 0}, {kind, 2}])

  @names ["paris", "tokyo", "lima", "oslo", "cairo"]

  property "what replicas hold is what the model says, and the same for the same writes",
    runs: 300 do
    world = open()
    world = Enum.reduce(1..between(10, 60), world, fn _, w -> w |> step() |> check() end)
    world |> meet() |> check_kept()
  end

  property "merge is commutative, associative and idempotent", runs: 100 do
    world = Enum.reduce(1..between(10, 40), open(), fn _, w -> step(w) end)
    docs = for {doc, _} <- world.kept ++ Map.values(world.replicas), do: doc

    for _ <- 1..10 do
      [a, b, c] = list_of(3, fn -> one_of(docs) end)
      ab = Doc.merge(a, b)
      assert same?(ab, Doc.merge(b, a))
      assert same?(Doc.merge(ab, c), Doc.merge(a, Doc.merge(b, c)))
      assert same?(Doc.merge(a, a), a)
      assert same?(Doc.merge(ab, b), ab)
      assert Doc.info(ab).replica == Doc.info(a).replica
    end
  end

  property "a delta does what a merge does, whichever way it is made", runs: 100 do
    world = Enum.reduce(1..between(10, 40), open(), fn _, w -> step(w) end)

    for _ <- 1..10 do
      {a, _} = one_of(Map.values(world.replicas))
      {b, _} = one_of(world.kept ++ Map.values(world.replicas))
      merged = Doc.merge(a, b)
      assert same?(merged, Doc.apply_delta!(a, Doc.delta(b, since: Doc.clock(a))))
      assert same?(merged, Doc.apply_delta!(a, Doc.delta(merged, since: a)))
      assert same?(merged, Doc.apply_delta!(a, Doc.encode(b)))
      assert same?(merged, Doc.merge(a, Doc.decode!(Doc.encode(b), "elsewhere")))
      assert Doc.encode(Doc.decode!(Doc.encode(b), "elsewhere")) == Doc.encode(b)
    end
  end

  property "a diff names what has changed", runs: 100 do
    world = Enum.reduce(1..between(10, 40), open(), fn _, w -> step(w) end)

    for _ <- 1..5 do
      {a, _} = one_of(world.kept)
      {b, _} = one_of(Map.values(world.replicas))
      changes = Map.new(Doc.diff(a, b), fn {path, kind, old, new} -> {path, {kind, old, new}} end)

      for path <- @places,
          do: check_change(path, Map.get(changes, path), Doc.get(a, path), Doc.get(b, path))

      assert Map.keys(changes) -- @places == []
    end
  end

  defp check_change(path, change, old, new) do
    kind = DocModel.kind(path)

    cond do
      kind in [:set, :set_grow, :set_remove_wins] ->
        {old, new} = {old || MapSet.new(), new || MapSet.new()}
        gone = MapSet.difference(old, new)
        came = MapSet.difference(new, old)
        assert change == if(gone != came, do: {kind, gone, came})

      old == new ->
        assert change == nil

      true ->
        assert change == {kind, old, new}
    end
  end

  # ---- the world ----

  # acts: newest first; kept: old versions; letters: {bytes, from, to} on their way; truths: what whoever has
  # seen just these writes holds.
  defp open do
    names = Enum.take_random(@names, between(2, 5))

    %{
      replicas: Map.new(names, &{&1, {Doc.new(&1), %{}}}),
      acts: [],
      kept: [{Doc.new("nobody"), %{}}],
      letters: [],
      truths: %{},
      places: random_places(),
      serial: 0
    }
  end

  # Few kinds and few places make many conflicts.
  defp random_places do
    kinds = one_of([@kinds, Enum.take_random(@kinds, 2), [:counter_bounded]])
    places = for path <- @places, DocModel.kind(path) in kinds, do: path
    Enum.take_random(places, one_of([1, 2, 12]))
  end

  defp step(world) do
    case below(20) do
      n when n < 9 -> edit(world, any(world))
      n when n < 11 -> merge(world, any(world), any(world))
      n when n < 14 -> post(world, any(world))
      n when n < 17 -> deliver(world, any(world))
      17 -> reload(world, any(world))
      18 -> join_letters(world)
      19 -> keep(world, any(world))
    end
  end

  defp any(world), do: world.replicas |> Map.keys() |> one_of()

  defp become(world, name, doc, vv), do: put_in(world.replicas[name], {doc, vv})

  defp keep(world, name) do
    %{world | kept: Enum.take([world.replicas[name] | world.kept], 8)}
  end

  # ---- editing ----

  defp edit(world, name) do
    {doc, vv} = world.replicas[name]
    {seen, known} = as_of(world, name)
    event = %{replica: name, counter: Map.get(vv, name, 0) + 1, known: known}
    now = Map.put(vv, name, event.counter)
    batch = %{ops: [], acts: world.acts, refused: nil, serial: world.serial}
    batch = Enum.reduce(1..between(1, 4), batch, fn _, b -> random_op(b, world, now, event) end)
    world = %{world | serial: batch.serial}

    ops = if match?([_], batch.ops), do: hd(batch.ops), else: batch.ops

    case Doc.try_update(doc, ops, if(seen == doc, do: [], else: [as_of: seen])) do
      {:ok, new} ->
        assert batch.refused == nil

        if Clock.compare(Doc.clock(new), Doc.clock(doc)) == :equal,
          do: become(world, name, new, vv),
          else: become(%{world | acts: batch.acts}, name, new, now)

      {:error, %Error{reason: {:insufficient_rights, op, here, elsewhere}}} ->
        assert batch.refused == {elem(op, 0), elem(op, 2), here, elsewhere}
        world
    end
  end

  # What the editor has read: mostly the latest, at times an earlier state.
  defp as_of(world, name) do
    own = for {doc, vv} <- world.kept, Doc.info(doc).replica == name, do: {doc, vv}
    if own != [] and chance(40), do: one_of(own), else: world.replicas[name]
  end

  # An operation, and its acts for the model, newest first. After one that is refused there are no more.
  defp random_op(%{refused: nil} = batch, world, now, event) do
    path = one_of(world.places)

    {op, acts} =
      if chance(15) and hd(path) != {:map_grow, 0},
        do: random_delete(path, event),
        else: random_edit(DocModel.kind(path), path, batch, now, event)

    batch = %{batch | ops: batch.ops ++ [inside(op)], serial: batch.serial + 1}

    case acts do
      {:refused, here, elsewhere} ->
        %{batch | refused: {elem(op, 0), elem(op, 2), here, elsewhere}}

      acts ->
        %{batch | acts: acts ++ batch.acts}
    end
  end

  defp random_op(batch, _world, _now, _event), do: batch

  # What is below a map that only grows is done inside it, and so are some others.
  defp inside(op) when elem(op, 1) |> hd() |> elem(0) == :map_grow,
    do: {:in, [hd(elem(op, 1))], :map_grow, [put_elem(op, 1, tl(elem(op, 1)))]}

  defp inside(op) do
    case elem(op, 1) do
      [field | [_ | _] = path] ->
        if chance(20), do: {:in, [field], :map, [put_elem(op, 1, path)]}, else: op

      _ ->
        op
    end
  end

  defp act(verb, path, event, fields \\ []) do
    %Act{verb: verb, path: path} |> struct(event) |> struct(fields)
  end

  defp random_delete(path, event) do
    path = Enum.take(path, between(1, length(path)))
    {kind, _} = List.last(path)
    op = if chance(50), do: {:delete, path}, else: {:delete, path, kind}
    {op, [act(:delete, path, event)]}
  end

  defp random_edit(kind, path, batch, _now, event) when kind in [:register, :register_multi],
    do: {{:put, path, batch.serial, kind}, [act(:put, path, event, arg: batch.serial)]}

  defp random_edit(kind, path, _batch, _now, event) when kind in [:flag, :flag_disable_wins] do
    verb = one_of([:enable, :disable])
    {{verb, path, kind}, [act(verb, path, event)]}
  end

  defp random_edit(:counter, path, _batch, _now, event) do
    {verb, n} = {one_of([:increment, :decrement]), between(-3, 5)}

    if chance(15),
      do: {{:reset, path}, [act(:reset, path, event)]},
      else: {{verb, path, n, :counter}, [count(verb, path, event, n)]}
  end

  defp random_edit(:counter_bounded, path, batch, now, event) do
    {here, elsewhere, debt} = DocModel.rights(batch.acts, now, path, event.replica)
    forgiven = if debt > 0, do: [count(:increment, path, event, debt)], else: []
    {verb, to} = {one_of([:increment, :decrement, :transfer]), one_of(@names)}
    n = one_of([between(0, 5), here])
    op = if verb == :transfer, do: {verb, path, n, to}, else: {verb, path, n, :counter_bounded}

    cond do
      verb != :increment and n > here -> {op, {:refused, here, elsewhere}}
      verb != :transfer -> {op, [count(verb, path, event, n) | forgiven]}
      to == event.replica -> {op, forgiven}
      true -> {op, [act(:give, path, event, arg: to, n: -n) | forgiven]}
    end
  end

  defp random_edit(:set_grow, path, _batch, _now, event) do
    element = element()
    {{:add, path, element, :set_grow}, [act(:add, path, event, arg: element)]}
  end

  defp random_edit(kind, path, _batch, _now, event) do
    {verb, element} = {one_of([:add, :add, :remove]), element()}
    {{verb, path, element, kind}, [act(verb, path, event, arg: element)]}
  end

  defp count(:increment, path, event, n), do: act(:count, path, event, n: n)
  defp count(:decrement, path, event, n), do: act(:count, path, event, n: -n)

  defp element, do: one_of([1, 2.5, :three, "four", {5}, [6], %{7 => 8}, nil])

  # ---- exchanging ----

  defp merge(world, a, b) do
    {x, vx} = world.replicas[a]
    {y, vy} = one_of([world.replicas[b] | world.kept])
    become(world, a, Doc.merge(x, y), DocModel.join(vx, vy))
  end

  # A letter is lost when nobody happens to get it, and comes twice when somebody gets it twice.
  defp post(world, name) do
    {doc, vv} = world.replicas[name]
    {old, seen} = one_of(world.kept ++ Map.values(world.replicas))

    letter =
      case below(3) do
        0 -> {Doc.delta(doc, since: Doc.clock(old)), common(seen, vv), vv}
        1 -> {Doc.encode(doc), %{}, vv}
        2 -> if DocModel.within?(seen, vv), do: {Doc.delta(doc, since: old), seen, vv}
      end

    %{world | letters: Enum.take(List.wrap(letter) ++ world.letters, 12)}
  end

  defp common(a, b), do: for({name, n} <- a, m = b[name], into: %{}, do: {name, min(n, m)})

  defp deliver(%{letters: []} = world, _name), do: world

  defp deliver(world, name) do
    {doc, vv} = world.replicas[name]
    {bytes, from, to} = one_of(world.letters)

    case Doc.apply_delta(doc, bytes) do
      {:ok, doc} ->
        become(world, name, doc, DocModel.join(vv, to))

      {:error, %Error{reason: {:gap, replica, seen, needed}}} ->
        refute DocModel.within?(from, vv)
        assert seen == Map.get(vv, replica, 0)
        assert needed > seen
        world
    end
  end

  defp join_letters(%{letters: []} = world), do: world

  defp join_letters(world) do
    {a, fa, ta} = one_of(world.letters)
    {b, fb, tb} = one_of(world.letters)

    case Doc.join_deltas(a, b) do
      {:ok, joined} ->
        assert {:ok, joined} == Doc.join_deltas(b, a)

        %{
          world
          | letters:
              Enum.take([{joined, common(fa, fb), DocModel.join(ta, tb)} | world.letters], 12)
        }

      {:error, %Error{reason: {:not_adjoining, nil}}} ->
        world
    end
  end

  defp reload(world, name) do
    {doc, vv} = world.replicas[name]
    become(world, name, Doc.decode!(Doc.encode(doc), name), vv)
  end

  defp meet(world) do
    {docs, vvs} = world.replicas |> Map.values() |> Enum.unzip()
    vv = Enum.reduce(vvs, &DocModel.join/2)
    all = for doc <- docs, do: Enum.reduce(Enum.shuffle(docs), doc, &Doc.merge(&2, &1))
    for doc <- all, do: assert(same?(doc, hd(all)))
    check_doc(world, hd(all), vv)
  end

  # ---- checking ----

  defp same?(a, b) do
    Doc.hash(a) == Doc.hash(b) and Doc.encode(a) == Doc.encode(b) and Doc.value(a) == Doc.value(b)
  end

  defp check(world) do
    Enum.reduce(world.replicas, world, fn {_, {doc, vv}}, w -> check_doc(w, doc, vv) end)
  end

  # Old handles are as they were.
  defp check_kept(world),
    do: Enum.reduce(world.kept, world, fn {doc, vv}, w -> check_doc(w, doc, vv) end)

  defp check_doc(world, doc, vv) do
    assert Clock.to_map(Doc.clock(doc)) == vv
    state = {Doc.hash(doc), Doc.encode(doc), Doc.value(doc)}

    case world.truths do
      %{^vv => known} ->
        assert state == known
        world

      _ ->
        check_value(Doc.value(doc), DocModel.value(world.acts, vv))
        for path <- world.places, do: check_rights(world, doc, vv, path)
        put_in(world.truths[vv], state)
    end
  end

  defp check_value(real, model) when is_map(model) and not is_struct(model) do
    assert Map.keys(real) |> Enum.sort() == Map.keys(model) |> Enum.sort()
    for {field, value} <- model, do: check_value(real[field], value)
  end

  defp check_value(real, {:one_of, values}), do: assert(real in values)
  defp check_value(real, {:all_of, values}), do: assert(Enum.sort(real) == values)
  defp check_value(real, model), do: assert(real == model)

  defp check_rights(world, doc, vv, path) do
    if DocModel.kind(path) == :counter_bounded do
      {here, elsewhere, _} = DocModel.rights(world.acts, vv, path, Doc.info(doc).replica)
      assert Doc.rights(doc, path) == {here, elsewhere}
    end
  end
end
