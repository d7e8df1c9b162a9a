defmodule Causeway.Log.Feed do
  @moduledoc false
  # The batches of one partition in order, from a number on. It takes the batch with the next number: from memory, or else
  # from the table. So nothing is missed and nothing repeated, wherever it comes from, and whoever is slow takes no more
  # memory than a page.

  alias Causeway.Log.{Events, Message, Recent, Runtime, Table, Topic}

  @enforce_keys [:rt, :partition, :at]
  # With `bytes`, messages come as `{message, payload, metadata}`, the latter as they were published.
  defstruct [:rt, :partition, :at, page: [], rows: Table.first_rows(), bytes: false]

  @type t :: %__MODULE__{}

  @doc "What comes after a number."
  def new(rt, partition, at, opts \\ []),
    do: struct!(%__MODULE__{rt: rt, partition: partition, at: at}, opts)

  @doc "Whether there is more."
  def more?(%{page: [_ | _]}), do: true
  def more?(feed), do: Runtime.head(feed.rt, feed.partition) > feed.at

  @doc "Whether it is known what comes next, without a look into the table."
  def at_hand?(%{page: [_ | _]}), do: true
  def at_hand?(feed), do: not more?(feed) or Recent.begins?(feed.rt, feed.partition, feed.at + 1)

  @doc """
  The next messages that are wanted, of those up to a number that `at` of the feed is then: `{:ok, messages, feed}`. Otherwise
  `{:gap, gap, feed}`, when retention has taken what came next; `:none`; or `:later`, when it cannot be read now.
  """
  def next(feed, matcher) do
    with {:ok, batch, feed} <- batch(feed), do: take(batch, feed, matcher)
  end

  defp take({_, first, last, _, _, _, _, _, _} = batch, %{at: at} = feed, matcher) do
    cond do
      first > at + 1 -> gap(%{feed | page: [batch | feed.page]}, first - 1)
      last <= at -> next(feed, matcher)
      true -> {:ok, messages(batch, at, matcher, feed), %{feed | at: last}}
    end
  end

  defp batch(%{page: [batch | page]} = feed), do: {:ok, batch, %{feed | page: page}}

  defp batch(feed) do
    if more?(feed) do
      case Recent.fetch(feed.rt, feed.partition, feed.at + 1) do
        nil -> read(feed)
        batch -> {:ok, batch, feed}
      end
    else
      :none
    end
  end

  defp read(feed) do
    case Table.page(feed.rt, feed.partition, feed.at, feed.rows) do
      {:ok, [], _} ->
        dropped(feed)

      {:ok, [batch | page], rows} ->
        {:ok, batch, %{feed | page: page, rows: rows}}

      {:error, error} ->
        Events.emit(feed.rt.name, :check_failed, %{}, %{error: error})
        :later
    end
  end

  # Retention has taken all there was; or what the server's log has told of cannot be seen in the table yet.
  defp dropped(feed) do
    with {:ok, ends} <- Table.ends(feed.rt),
         {_, first, _} when first - 1 > feed.at <- List.keyfind(ends, feed.partition, 0) do
      gap(feed, first - 1)
    else
      _ -> :later
    end
  end

  defp gap(%{partition: p, at: at} = feed, to),
    do: {:gap, %{partition: p, from: at + 1, to: to}, %{feed | at: to}}

  # ---- messages ----

  defp messages(
         {p, first, _, time, publisher, topics, payloads, keys, metadata},
         seen,
         matcher,
         feed
       ) do
    fields = %Message{partition: p, time: time, publisher: publisher}
    walk(topics, payloads, keys, metadata, first, seen, matcher, fields, feed)
  end

  # Keys and metadata are nil where no message of the batch has one.
  defp walk([], [], _, _, _, _, _, _, _), do: []

  defp walk(
         [topic | topics],
         [payload | payloads],
         keys,
         metadata,
         n,
         seen,
         matcher,
         fields,
         feed
       ) do
    {key, keys} = first(keys)
    {meta, metadata} = first(metadata)
    more = walk(topics, payloads, keys, metadata, n + 1, seen, matcher, fields, feed)

    if n > seen and Topic.match?(matcher, topic),
      do: [message(%{fields | topic: topic, sequence: n, key: key}, payload, meta, feed) | more],
      else: more
  end

  defp first(nil), do: {nil, nil}
  defp first([one | rest]), do: {one, rest}

  defp message(message, payload, metadata, %{bytes: bytes, rt: rt}) do
    message = Message.read(message, payload, metadata, rt)
    if bytes, do: {message, payload, metadata}, else: message
  end
end
