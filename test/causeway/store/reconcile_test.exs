defmodule Causeway.Store.ReconcileTest do
  # Two replicas that remember nothing of their edits find out what one lacks, in bytes proportional to it.
  use ExUnit.Case, async: true
  import Causeway.Property

  @moduletag :asan
  alias Causeway.{Clock, Doc}
  alias Causeway.Store.Reconcile

  property "what is found is what a merge would bring", runs: 60 do
    size = one_of([0, 3, 40, 500, 3_000])
    base = Doc.update(Doc.new("a"), for(i <- 1..size//1, do: {:add, ["s"], i}))
    a = edit(base, "a", size)
    b = base |> Doc.fork("b") |> edit("b", size)
    # what B knows of A, and the other way round, may be more than the base
    a = if chance(30), do: edit(Doc.merge(a, b), "a", size), else: a
    {delta, _bytes} = reconcile(forget(a, "a"), forget(b, "b"))
    merged = Doc.merge(b, a)
    got = Doc.apply_delta!(forget(b, "b"), delta)
    assert {Doc.hash(got), Doc.clock(got)} == {Doc.hash(merged), Doc.clock(merged)}
  end

  test "a few changes among many cells cost little" do
    base = Doc.update(Doc.new("a"), for(i <- 1..20_000, do: {:put, ["k", i], i}))
    b = Doc.fork(base, "b")
    a = Doc.update(base, for(i <- 1..20, do: {:put, ["k", i * 900], 0}))
    a = Doc.update(a, for(i <- 1..20, do: {:delete, ["k", i * 950 + 1]}))
    {delta, bytes} = reconcile(forget(a, "a"), forget(b, "b"))
    assert Doc.hash(Doc.apply_delta!(b, delta)) == Doc.hash(a)
    assert bytes + byte_size(delta) < div(byte_size(Doc.encode(a)), 50)
  end

  defp edit(doc, name, size) do
    Enum.reduce(1..between(1, 30), doc, fn n, doc -> Doc.update(doc, op(name, n, size)) end)
  end

  defp op(name, n, size) do
    case below(9) do
      0 -> {:add, ["s"], {name, n}}
      k when k in [1, 2] -> {:remove, ["s"], between(1, size + 1)}
      3 -> {:put, ["m", below(10)], {name, n}}
      4 -> {:increment, ["c", below(3)], n}
      5 -> {:put, ["v"], {name, n}, :register_multi}
      6 -> {:delete, ["m", below(10)]}
      7 -> {:reset, ["c", below(3)]}
      8 -> if chance(10), do: {:delete, ["s"]}, else: {:add, ["s"], between(1, size + 1)}
    end
  end

  defp forget(doc, name), do: Doc.decode!(Doc.encode(doc), name)

  # The feeder is A's, the link B's.
  defp reconcile(a, b) do
    {asking, question} = Reconcile.ask(a, Doc.clock(a), Doc.clock(b))
    talk(asking, nil, b, question, 0)
  end

  defp talk(asking, answering, b, question, bytes) do
    {answering, answer} = Reconcile.answer(answering, b, question)
    bytes = bytes + :erlang.external_size(question) + :erlang.external_size(answer)

    case Reconcile.answered(asking, answer) do
      {:ask, asking, question} -> talk(asking, answering, b, question, bytes)
      {:done, delta} -> {delta, bytes}
    end
  end

  test "who is behind by nothing gets nothing" do
    a = Doc.update(Doc.new("a"), {:put, ["x"], 1})
    {delta, _} = reconcile(a, Doc.fork(a, "b"))
    assert Doc.clock(Doc.apply_delta!(a, delta)) == Doc.clock(a)
    assert Clock.compare(Doc.clock(a), Doc.clock(a)) == :equal
  end
end
