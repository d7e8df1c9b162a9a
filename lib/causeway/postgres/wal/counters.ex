defmodule Causeway.Postgres.WAL.Counters do
  @moduledoc false
  # What the handler's process has done, to be looked at without asking it.

  @names ~w(handed acked transactions changes bytes commit_time stopping)a
  @indices @names |> Enum.with_index(1) |> Map.new()

  def new, do: :atomics.new(length(@names), signed: false)

  for {name, index} <- @indices do
    defp index(unquote(name)), do: unquote(index)
  end

  def put(counters, name, value), do: :atomics.put(counters, index(name), value)
  def add(counters, name, n), do: :atomics.add(counters, index(name), n)
  def get(counters, name), do: :atomics.get(counters, index(name))

  def all(counters), do: Map.new(@names, &{&1, get(counters, &1)})
end
