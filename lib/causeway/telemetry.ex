defmodule Causeway.Telemetry do
  @moduledoc false
  # The application `:telemetry`, where that is there; the modules called Events have a list of what it is told.

  @doc "To be called when what tells it starts: looking for a module that is not there takes a millisecond."
  def load, do: Code.ensure_loaded?(:telemetry) and Application.ensure_all_started(:telemetry)

  @doc "Whether it is there."
  def loaded?, do: function_exported?(:telemetry, :execute, 3)

  @doc "Tells it that `[:causeway | event]` has happened."
  @spec emit([atom], map, map) :: :ok
  def emit(event, measurements, metadata) do
    if loaded?(), do: apply(:telemetry, :execute, [[:causeway | event], measurements, metadata])
    :ok
  end
end
