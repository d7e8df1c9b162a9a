defmodule Causeway.Eventually do
  @moduledoc false

  @doc """
  Waits until something is so; returns it, or fails. What it waits for, a text or a function that returns one, is in what the
  failure says.
  """
  def eventually(fun, ms \\ 10_000, what \\ nil),
    do: wait(fun, System.monotonic_time(:millisecond) + ms, what || inspect(fun))

  defp wait(fun, until, what) do
    cond do
      result = fun.() ->
        result

      System.monotonic_time(:millisecond) > until ->
        what = if is_function(what), do: what.(), else: what
        raise ExUnit.AssertionError, message: "this did not come to be in time: #{what}"

      true ->
        Process.sleep(5)
        wait(fun, until, what)
    end
  end
end
