defmodule Causeway.Postgres.CallOptions do
  @moduledoc false
  # The options of single calls, checked: a name that is none would be no option at all, and nobody would know.

  @common [:timeout, :telemetry_options]

  @doc "Raises unless all are the common ones, or those named, with values that they can have."
  @spec check!(keyword, [atom]) :: :ok
  def check!(opts, more \\ [])
  def check!([], _more), do: :ok

  def check!([{name, value} | opts], more) do
    name in @common or name in more or unknown!(name, @common ++ more)
    valid?(name, value) or invalid!(name, value)
    check!(opts, more)
  end

  def check!(opts, _more),
    do: raise(ArgumentError, "options are a keyword list, which #{inspect(opts)} is not")

  defp unknown!(name, names) do
    raise ArgumentError,
          "there is no option #{inspect(name)} here; there are #{Enum.map_join(names, ", ", &inspect/1)}"
  end

  defp invalid!(name, value) do
    raise ArgumentError,
          "option #{inspect(name)}: #{inspect(value)} cannot be; it is #{wanted(name)}"
  end

  defp valid?(:timeout, :infinity), do: true
  defp valid?(:timeout, n), do: is_integer(n) and n >= 0 and n <= 0xFFFFFFFF
  defp valid?(:max_rows, n), do: is_integer(n) and n > 0 and n <= 0xFFFFFFFF
  defp valid?(name, value) when name in [:transaction, :gaps], do: is_boolean(value)
  defp valid?(_name, _value), do: true

  defp wanted(:timeout), do: "a number of milliseconds, or :infinity"
  defp wanted(:max_rows), do: "a number of rows, from 1"
  defp wanted(_), do: "true or false"
end
