defmodule Causeway.ReadOptions do
  @moduledoc false
  # The options of what reads documents and clocks: `:kind` and `:atoms`.

  @kinds [:map, :map_grow, :set, :set_grow, :set_remove_wins, :counter, :counter_bounded] ++
           [:register, :register_multi, :flag, :flag_disable_wins]

  @doc "`{kind or nil, whether atoms may be made}`; `call` is for the error, which lists what it takes."
  def read!([], _call, _takes), do: {nil, false}
  # What stores read with, every time.
  def read!([atoms: :create], _call, [:kind, :atoms]), do: {nil, true}

  def read!(opts, call, takes) do
    unless Keyword.keyword?(opts), do: refuse(call, "options are a keyword list", opts, takes)

    for {name, value} <- opts do
      unless name in takes, do: refuse(call, "there is no option", name, takes)
      unless fits?(name, value), do: refuse(call, "#{name}: cannot be", value, takes)
    end

    {opts[:kind], opts[:atoms] == :create}
  end

  defp fits?(:kind, kind), do: kind in [nil | @kinds]
  defp fits?(:atoms, atoms), do: atoms in [nil, :create]

  defp refuse(call, what, term, takes) do
    raise ArgumentError,
          "#{call}: #{what} #{Causeway.Error.short(term)}; it takes #{Enum.map_join(takes, ", ", &describe/1)}"
  end

  defp describe(:kind), do: "kind: one of #{Enum.map_join(@kinds, ", ", &inspect/1)}"
  defp describe(:atoms), do: "atoms: :create"
end
