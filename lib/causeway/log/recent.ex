defmodule Causeway.Log.Recent do
  @moduledoc false
  # The latest batches of messages, as they came from the server's log: what nearly all readers want. One process puts
  # them here, and drops the oldest when there are too many bytes.
  #
  #     {{partition, first}, batch}        batch: {partition, first, last, time, publisher, topics, payloads, keys, metadata}

  # How many batches are remembered of all partitions, of one at most, and of one at least.
  @marks 16_000
  @most 1_000
  @least 64

  alias Causeway.Log.Runtime

  defstruct [:table, :limit, bytes: 0, order: :queue.new()]

  @doc "Empty; what was there is still known by its marks."
  def new(rt) do
    # In this order, so that whoever looks here first, and then there, sees all.
    Runtime.put(rt, {:marks, :erlang.unique_integer()}, marks(rt))
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

  @doc "Batches that are here, `{partition, first, last, time}`, of each partition the latest first: see `thin/2`."
  def marks(rt) do
    rt.recent
    |> :ets.select([
      {{{:"$1", :"$2"}, {:_, :_, :"$3", :"$4", :_, :_, :_, :_, :_}}, [],
       [{{:"$1", :"$2", :"$3", :"$4"}}]}
    ])
    |> Enum.chunk_by(&elem(&1, 0))
    |> Enum.flat_map(&(&1 |> Enum.reverse() |> thin(rt)))
  end

  @doc "The same of what was here: `{key, marks}` each, until `forget/2`."
  def kept(rt),
    do: :ets.select(rt.state, [{{{:marks, :_}, :_}, [], [:"$_"]}])

  def forget(rt, kept), do: for({key, _} <- kept, do: :ets.delete(rt.state, key))

  @doc """
  Fewer of a partition's marks, the latest first, when there are too many: the latest ones, and some of those before, back to
  the first.
  """
  def thin(marks, rt) do
    most = @marks |> div(rt.partitions) |> min(@most) |> max(@least)
    n = length(marks)

    # So that not each one more is a reason.
    if n <= 2 * most do
      marks
    else
      {latest, before} = Enum.split(marks, div(most, 2))
      step = div(2 * n, most) + 1
      latest ++ (before |> Enum.reverse() |> Enum.take_every(step) |> Enum.reverse())
    end
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
