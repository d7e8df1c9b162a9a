defmodule Causeway.Postgres.Waiting do
  @moduledoc false
  # Requests that wait for their turn, in the order in which they came. Whoever's deadline passes or who dies is taken out
  # at once; the place in the order stays behind, and is skipped when its turn comes.

  defstruct order: :queue.new(), places: 0, entries: %{}, monitors: %{}

  @type entry :: %{
          required(:ref) => reference,
          required(:monitor) => reference,
          optional(atom) => any
        }
  @type t :: %__MODULE__{
          order: :queue.queue(reference),
          places: non_neg_integer,
          entries: %{reference => entry},
          monitors: %{reference => reference}
        }

  # Places that nobody holds are swept out when they are most, and more than this.
  @many 1000

  @spec new :: t
  def new, do: %__MODULE__{}

  @spec size(t) :: non_neg_integer
  def size(waiting), do: map_size(waiting.entries)

  @spec put(t, entry) :: t
  def put(waiting, %{ref: ref, monitor: monitor} = entry) do
    sweep(%{
      waiting
      | order: :queue.in(ref, waiting.order),
        places: waiting.places + 1,
        entries: Map.put(waiting.entries, ref, entry),
        monitors: Map.put(waiting.monitors, monitor, ref)
    })
  end

  defp sweep(%{places: places, entries: entries} = waiting)
       when places > 2 * map_size(entries) + @many do
    order = :queue.filter(&is_map_key(entries, &1), waiting.order)
    %{waiting | order: order, places: map_size(entries)}
  end

  defp sweep(waiting), do: waiting

  @doc "Takes out the one that has waited for longest."
  @spec next(t) :: {entry | nil, t}
  def next(waiting) do
    case :queue.out(waiting.order) do
      {{:value, ref}, order} ->
        case take(%{waiting | order: order, places: waiting.places - 1}, ref) do
          {nil, waiting} -> next(waiting)
          found -> found
        end

      {:empty, _} ->
        {nil, waiting}
    end
  end

  @doc "Takes one out by its reference."
  @spec take(t, reference) :: {entry | nil, t}
  def take(waiting, ref) do
    case Map.pop(waiting.entries, ref) do
      {nil, _} ->
        {nil, waiting}

      {entry, entries} ->
        {entry,
         %{waiting | entries: entries, monitors: Map.delete(waiting.monitors, entry.monitor)}}
    end
  end

  @doc "Takes out the one whose process is watched by a monitor."
  @spec take_monitored(t, reference) :: {entry | nil, t}
  def take_monitored(waiting, monitor) do
    case waiting.monitors do
      %{^monitor => ref} -> take(waiting, ref)
      %{} -> {nil, waiting}
    end
  end

  @doc "All, in any order."
  @spec entries(t) :: [entry]
  def entries(waiting), do: Map.values(waiting.entries)
end
