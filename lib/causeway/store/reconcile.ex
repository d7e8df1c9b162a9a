defmodule Causeway.Store.Reconcile do
  @moduledoc false
  # Finds out what a peer lacks when this replica does not remember its edits back to the peer's clock (see
  # docs/store.md, "Catching up"). The feeder asks, the link on the other side answers:
  #
  #     feeder                                        link
  #       {:begin, clock, its new keys}   ->
  #                                       <-   {:keys, its own new keys}
  #       {:sums, ranges}                 ->
  #                                       <-   {:sums, [{hash, count}]}       until no range is left to be split
  #       {:list, ranges}                 ->
  #                                       <-   {:lists, [[{key, hash}]]}
  #
  # Then the feeder knows, and sends one delta: what is new, what differs, what is gone.

  alias Causeway.Clock

  # Ranges with this many cells or fewer are listed, others split.
  @leaf 32
  @parts 16

  defstruct [:doc, :clock, :since, :keys, :theirs, :ranges, leaves: []]

  # ---- who asks ----

  @doc "Begins: the state, and the first question."
  def ask(doc, clock, since) do
    keys = call(:doc_news, [doc.ref, since.bytes, [], false])
    state = %__MODULE__{doc: doc, clock: clock, since: since, keys: keys}
    {state, {:begin, clock.bytes, keys}}
  end

  @doc "Takes an answer: `{:ask, state, question}`, or `{:done, delta}`."
  def answered(state, {:keys, theirs}), do: sums(%{state | theirs: theirs}, [{"", nil}])

  def answered(state, {:sums, theirs}) do
    ours = call(:doc_sums, [state.doc.ref, state.ranges, state.keys, state.theirs])

    {leaves, wide} =
      [state.ranges, ours, theirs]
      |> Enum.zip()
      |> Enum.filter(fn {_, ours, theirs} -> ours != theirs end)
      |> Enum.split_with(fn {_, {_, n}, {_, m}} -> n <= 1 or max(n, m) <= @leaf end)

    leaves = for {range, _, _} <- leaves, do: range

    sums(
      %{state | leaves: leaves ++ state.leaves},
      Enum.flat_map(wide, &split(state.doc, elem(&1, 0)))
    )
  end

  def answered(state, {:lists, lists}) do
    keys =
      state.leaves |> Enum.zip(lists) |> Enum.flat_map(&differing(state.doc, &1)) |> Enum.sort()

    {:done, delta(state, keys)}
  end

  defp sums(%{leaves: []} = state, []), do: {:done, delta(state, [])}
  defp sums(state, []), do: {:ask, state, {:list, state.leaves}}
  defp sums(state, ranges), do: {:ask, %{state | ranges: ranges}, {:sums, ranges}}

  defp split(doc, {lo, hi}) do
    inner = call(:doc_split, [doc.ref, lo, hi, @parts])
    Enum.zip([lo | inner], inner ++ [hi])
  end

  # What the other has and this one has not, or has otherwise. What only the other knows of stays there anyway.
  defp differing(doc, {{lo, hi}, theirs}) do
    ours = Map.new(call(:doc_keys, [doc.ref, lo, hi]))
    for {key, hash} <- theirs, Map.get(ours, key) != hash, do: key
  end

  defp delta(state, keys), do: call(:doc_news, [state.doc.ref, state.since.bytes, keys, true])

  # ---- who answers ----

  @doc "Answers a question: `{state, answer}`; `doc` is the current version, of which the first one is kept."
  def answer(_state, doc, {:begin, clock, theirs}) do
    keys = call(:doc_news, [doc.ref, clock, [], false])

    {%__MODULE__{doc: doc, clock: %Clock{bytes: clock}, keys: keys, theirs: theirs},
     {:keys, keys}}
  end

  def answer(state, _doc, {:sums, ranges}) do
    {state, {:sums, call(:doc_sums, [state.doc.ref, ranges, state.theirs, state.keys])}}
  end

  def answer(state, _doc, {:list, ranges}) do
    {state, {:lists, for({lo, hi} <- ranges, do: call(:doc_keys, [state.doc.ref, lo, hi]))}}
  end

  defp call(fun, args) do
    case apply(:causeway_nif, fun, args) do
      {:error, _} = error -> raise Causeway.Error.from_nif(error, [], "what a peer sent")
      result -> result
    end
  end
end
