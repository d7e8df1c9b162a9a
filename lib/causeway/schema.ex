defmodule Causeway.Schema do
  @moduledoc false
  # Options that are described as `[name: {type, default, doc}]`, from which they are checked and documented.

  @doc "Markdown of the options."
  @spec docs(keyword({term, term, String.t()})) :: String.t()
  def docs(schema) do
    Enum.map_join(schema, "\n", fn {name, {_type, default, doc}} ->
      "  * `:#{name}` - #{doc}#{default(default)}"
    end)
  end

  # `:default` stands for what the doc says.
  defp default(value) when value in [nil, [], :default], do: ""
  defp default(value), do: " Default: `#{inspect(value)}`."
end
