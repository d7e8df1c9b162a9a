defmodule Causeway.Postgres.TypeWalk do
  @moduledoc false
  # Walks along a type's spec, for what the C codec leaves to Elixir: json, and numbers that have to be rounded.

  @type spec :: :causeway_nif.pg_spec()

  @doc "Whether the spec or a part of it is such a one."
  @spec any?(spec, (spec -> boolean)) :: boolean
  def any?(spec, fun), do: fun.(spec) or Enum.any?(parts(spec), &any?(&1, fun))

  defp parts({kind, _oid, spec}) when kind in [:array, :vector], do: [spec]
  defp parts({kind, spec}) when kind in [:range, :multirange], do: [spec]
  defp parts({:composite, fields}), do: for({_oid, spec} <- fields, do: spec)
  defp parts(_scalar), do: []

  @doc """
  Replaces what stands for scalars in a parameter, by their kind. What does not have the shape that it should is left
  as it is: the codec says what is wrong with it.
  """
  @spec map(spec, term, (atom, term -> term)) :: term
  def map(_spec, nil, _fun), do: nil
  def map({:array, _oid, spec}, list, fun) when is_list(list), do: map_list(spec, list, fun)

  def map({:range, spec}, %{lower: lower, upper: upper} = range, fun),
    do: %{range | lower: map_bound(spec, lower, fun), upper: map_bound(spec, upper, fun)}

  def map({:multirange, spec}, %{ranges: ranges} = multirange, fun) when is_list(ranges),
    do: %{multirange | ranges: map_each({:range, spec}, ranges, fun)}

  def map({:composite, fields}, tuple, fun) when tuple_size(tuple) == length(fields) do
    fields
    |> Enum.zip(Tuple.to_list(tuple))
    |> Enum.map(fn {{_oid, spec}, value} -> map(spec, value, fun) end)
    |> List.to_tuple()
  end

  def map(spec, value, fun) when is_atom(spec), do: fun.(spec, value)
  def map(_spec, value, _fun), do: value

  # A list in an array's list is a dimension of it, unless elements are lists themselves.
  defp map_list(spec, [head | tail], fun) do
    head =
      if is_list(head) and is_atom(spec),
        do: map_list(spec, head, fun),
        else: map(spec, head, fun)

    [head | map_list(spec, tail, fun)]
  end

  defp map_list(_spec, end_of_list, _fun), do: end_of_list

  defp map_each(spec, [head | tail], fun), do: [map(spec, head, fun) | map_each(spec, tail, fun)]
  defp map_each(_spec, end_of_list, _fun), do: end_of_list

  defp map_bound(_spec, bound, _fun) when bound in [nil, :unbound, :empty], do: bound
  defp map_bound(spec, bound, fun), do: map(spec, bound, fun)
end
