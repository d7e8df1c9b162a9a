defmodule Causeway.Error.Short do
  @moduledoc false
  # Terms for error messages, in bounded time and space, whatever they are. `Kernel.inspect/2` alone is not
  # enough: a term whose parts are shared can be short in memory and print for ever, and so can one integer.

  defmodule Cut do
    @moduledoc false
    # Stands where something was left out.
    defstruct []

    defimpl Inspect do
      def inspect(_, _), do: "..."
    end
  end

  @parts 60
  @elements 10
  @chars 500
  @digits 2 ** 256

  def inspect(term) do
    {cut, _} = cut(term, @parts)
    text = Kernel.inspect(cut, limit: 50, printable_limit: 100)
    if String.length(text) > @chars, do: String.slice(text, 0, @chars) <> "...", else: text
  end

  # `left` parts may still be shown.
  defp cut(_term, left) when left <= 0, do: {%Cut{}, 0}
  defp cut([], left), do: {[], left - 1}
  defp cut(list, left) when is_list(list), do: cut_list(list, left - 1, @elements)

  defp cut(tuple, left) when is_tuple(tuple) do
    {list, left} = cut_list(head(tuple), left - 1, @elements)
    {List.to_tuple(list), left}
  end

  defp cut(%module{} = struct, left) do
    if map_size(struct) <= @elements and Enum.all?(Map.from_struct(struct), &plain?/1),
      do: {struct, left - map_size(struct)},
      else: {{module, %Cut{}}, left - 2}
  end

  defp cut(map, left) when is_map(map), do: cut_map(:maps.next(:maps.iterator(map)), left - 1, [])
  defp cut(integer, left) when is_integer(integer), do: {digits(integer), left - 1}
  defp cut(other, left), do: {other, left - 1}

  defp cut_list(_list, left, n) when left <= 0 or n == 0, do: {[%Cut{}], left}

  defp cut_list([head | tail], left, n) do
    {head, left} = cut(head, left)

    case tail do
      [] ->
        {[head], left}

      tail when is_list(tail) ->
        {tail, left} = cut_list(tail, left, n - 1)
        {[head | tail], left}

      improper ->
        {improper, left} = cut(improper, left)
        {[head | improper], left}
    end
  end

  defp cut_list([], left, _n), do: {[], left}

  defp cut_map(:none, left, pairs), do: {Map.new(pairs), left}

  defp cut_map({key, value, next}, left, pairs) do
    if left <= 0 or length(pairs) == @elements do
      {Map.new([{%Cut{}, %Cut{}} | pairs]), left}
    else
      {key, left} = cut(key, left)
      {value, left} = cut(value, left)
      cut_map(:maps.next(next), left, [{key, value} | pairs])
    end
  end

  # One element more than are shown tells that there are more.
  defp head(tuple) when tuple_size(tuple) <= @elements + 1, do: Tuple.to_list(tuple)
  defp head(tuple), do: for(i <- 0..@elements, do: elem(tuple, i))

  # A struct prints itself, in whatever way; with short parts, shortly.
  defp plain?({_field, value}) when is_integer(value), do: digits(value) == value
  defp plain?({_field, value}) when is_binary(value), do: byte_size(value) <= 100
  defp plain?({_field, value}), do: is_atom(value) or is_float(value)

  defp digits(n) when n < @digits and n > -@digits, do: n
  defp digits(_n), do: %Cut{}
end
