defmodule Causeway.Log.Recent do
  @moduledoc false
  # The latest batches of messages, as they came from the server's log: what nearly all readers want. One process puts
  # them here, and drops the oldest when there are too many bytes.
  #
  #     {{partition, first}, batch}        batch: {partition, first, last, time, publisher, topics, payloads, keys, metadata}

  # Of each partition.
  @marks 1_000

  defstruct [:table, :limit, bytes: 0, order: :queue.new()]

  def new(rt) do
    :ets.delete_all_objects(rt.recent)
    %__MODULE__{table: rt.recent, limit: rt.opts.recent_bytes}
  end

  @doc "Adds one, of so many bytes."
  def put(recent, batch, bytes) do
    key = {elem(batch, 0), elem(batch, 1)}
    :ets.insert(recent.table, {key, batch})
    shrink(%{recent | bytes: recent.bytes + bytes, order: :queue.in({key, bytes}, recent.order)})
  end

  defp shrink(%{bytes: bytes, limit: limit} = recent) when bytes <= limit, do: recent

  defp shrink(recent) do
    {{:value, {key, bytes}}, order} = :queue.out(recent.order)
    :ets.delete(recent.table, key)
    shrink(%{recent | bytes: recent.bytes - bytes, order: order})
  end

  @doc "The latest batches that are here, `{partition, first, last, time}`."
  def marks(rt) do
    rt.recent
    |> :ets.select([
      {{{:"$1", :"$2"}, {:_, :_, :"$3", :"$4", :_, :_, :_, :_, :_}}, [],
       [{{:"$1", :"$2", :"$3", :"$4"}}]}
    ])
    |> Enum.chunk_by(&elem(&1, 0))
    |> Enum.flat_map(&Enum.take(&1, -@marks))
  end

  @doc "Those of a partition are not there."
  def drop(rt, partition), do: :ets.match_delete(rt.recent, {{partition, :_}, :_})

  @doc "Whether there is a batch that begins with a number."
  def begins?(rt, partition, sequence), do: :ets.member(rt.recent, {partition, sequence})

  @doc "The batch in which a number is, or nil."
  def fetch(rt, partition, sequence) do
    case :ets.lookup(rt.recent, {partition, sequence}) do
      [{_, batch}] -> batch
      [] -> within(rt, :ets.prev(rt.recent, {partition, sequence}), sequence, partition)
    end
  end

  defp within(rt, {partition, _} = key, sequence, partition) do
    with [{_, batch}] when elem(batch, 2) >= sequence <- :ets.lookup(rt.recent, key),
         do: batch,
         else: (_ -> nil)
  end

  defp within(_, _, _, _), do: nil
end
