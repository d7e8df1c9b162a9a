defmodule Causeway.Postgres.Events do
  @moduledoc """
  What connections tell the application `:telemetry`, where that is there. All names begin with `[:causeway,
  :postgres]`; all metadata have `:connection`, the connection's pid. Times are in native units, as
  `System.convert_time_unit/3` takes them.

  | event | measurements | metadata |
  |---|---|---|
  | `[..., :query]`, of `query`, `execute` and `script` | `:duration`, all of it, with waiting for the connection and decoding; `:rows` | `:query` (SQL), `:result` (`:ok` or `:error`), `:error`, `:telemetry_options` as given |
  | `[..., :connect]` | `:duration` | `:server_version`, `:host` |
  | `[..., :connect_failed]` | `:duration` | `:error` |
  | `[..., :disconnect]` | | `:reason`, a sentence |
  """

  alias Causeway.Telemetry

  @doc false
  def emit(connection, name, measurements, metadata \\ %{}) do
    Telemetry.emit([:postgres, name], measurements, Map.put(metadata, :connection, connection))
  end

  @doc false
  # Of a statement; what it takes to measure one is only spent when somebody listens.
  def query(connection, sql, opts, fun) do
    if Telemetry.loaded?() do
      began = System.monotonic_time()
      result = fun.()
      told = told(result)
      measurements = %{duration: System.monotonic_time() - began, rows: told.rows}
      metadata = %{query: sql, result: told.result, error: told.error}
      options = Keyword.get(opts, :telemetry_options, [])
      emit(connection, :query, measurements, Map.put(metadata, :telemetry_options, options))
      result
    else
      fun.()
    end
  end

  defp told({:ok, %{num_rows: rows}}), do: %{result: :ok, rows: rows, error: nil}
  defp told({:ok, _query, result}), do: told({:ok, result})
  defp told({:ok, _}), do: %{result: :ok, rows: 0, error: nil}
  defp told({:error, error}), do: %{result: :error, rows: 0, error: error}
end
