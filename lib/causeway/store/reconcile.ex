defmodule Causeway.Store.Reconcile do
  @moduledoc false
  # Finds out what a peer lacks when this replica does not remember its edits back to the peer's clock (see
  # docs/store.md, "Catching up"). The feeder asks, the link on the other side answers:
  #
  #     feeder                                        link
  #       {:begin, clock, its new keys}   ->
  #                                       <-   {:keys, its own new keys}
  #       {:symbols, from, n}             ->
  #                                       <-   {:symbols, of its other cells}      until they are enough
  #       {:find, hashes}                 ->
  #                                       <-   {:found, keys of cells that are not here}
  #
  # Then the feeder knows, and sends one delta: what is new, what differs, what is gone.

  alias Causeway.Clock

  # A few symbols say about how many are needed; as many at most as a call takes.
  @few 32
  @most 1_048_576

  # symbols: of both sides, so far
  defstruct [:doc, :clock, :since, :keys, :theirs, symbols: {"", ""}]

  # ---- who asks ----

  @doc "Begins: the state, and the first question."
  def ask(doc, clock, since) do
    keys = call(:doc_news, [doc.ref, since.bytes, [], false])
    state = %__MODULE__{doc: doc, clock: clock, since: since, keys: keys}
    {state, {:begin, clock.bytes, keys}}
  end

  @doc "Takes an answer: `{:ask, state, question}`, or `{:done, delta}`."
  def answered(state, {:keys, theirs}), do: ask_symbols(%{state | theirs: theirs}, @few)

  def answered(%{symbols: {theirs, ours}} = state, {:symbols, more}) do
    from = count(ours)
    theirs = theirs <> more
    ours = ours <> symbols(state.doc, state.keys, state.theirs, from, count(theirs) - from)

    case call(:symbols_peel, [theirs, ours]) do
      "" -> {:done, delta(state, [])}
      hashes when is_binary(hashes) -> {:ask, state, {:find, hashes}}
      differing -> ask_symbols(%{state | symbols: {theirs, ours}}, enough(differing, count(ours)))
    end
  end

  def answered(state, {:found, keys}), do: {:done, delta(state, keys)}

  defp ask_symbols(%{symbols: {theirs, _}} = state, in_all) do
    have = count(theirs)
    {:ask, state, {:symbols, have, min(in_all - have, @most)}}
  end

  # Some more than it takes for so many.
  defp enough(differing, have), do: max(differing + div(differing, 2) + @few, have + div(have, 4))

  defp count(symbols), do: div(byte_size(symbols), 16)
  defp symbols(doc, a, b, from, n), do: call(:doc_symbols, [doc.ref, a, b, from, n])
  defp delta(state, keys), do: call(:doc_news, [state.doc.ref, state.since.bytes, keys, true])

  # ---- who answers ----

  @doc "Answers a question: `{state, answer}`; `doc` is the current version, of which the first one is kept."
  def answer(_state, doc, {:begin, clock, theirs}) do
    keys = call(:doc_news, [doc.ref, clock, [], false])

    {%__MODULE__{doc: doc, clock: %Clock{bytes: clock}, keys: keys, theirs: theirs},
     {:keys, keys}}
  end

  def answer(state, _doc, {:symbols, from, n}),
    do: {state, {:symbols, symbols(state.doc, state.theirs, state.keys, from, n)}}

  def answer(state, _doc, {:find, hashes}),
    do: {state, {:found, call(:doc_find, [state.doc.ref, hashes])}}

  defp call(fun, args) do
    case apply(:causeway_nif, fun, args) do
      {:error, _} = error -> raise Causeway.Error.from_nif(error, [], "what a peer sent")
      result -> result
    end
  end
end
