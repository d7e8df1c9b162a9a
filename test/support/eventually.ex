defmodule Causeway.Eventually do
  @moduledoc false

  @doc "Waits until something is so; returns it, or fails."
  def eventually(fun, ms \\ 10_000), do: wait(fun, System.monotonic_time(:millisecond) + ms)

  defp wait(fun, until) do
    cond do
      result = fun.() ->
        result

      System.monotonic_time(:millisecond) > until ->
        raise ExUnit.AssertionError, message: "this did not come to be in time: #{inspect(fun)}"

      true ->
        Process.sleep(5)
        wait(fun, until)
    end
  end
end
