defmodule Causeway.Postgres.WAL.Events do
  @moduledoc """
  What a consumer of the write-ahead log tells the application `:telemetry`, where that is there. All names begin with
  `[:causeway, :wal]`; all metadata have `:slot` and `:name`, the options. Times are in native units, as
  `System.convert_time_unit/3` takes them.

  | event | measurements | metadata |
  |---|---|---|
  | `[..., :connected]` | `:duration` since it began to connect | `:server_version`, `:timeline`, `:lsn` |
  | `[..., :disconnected]` | `:retry_ms` until the next attempt | `:error` |
  | `[..., :slot_created]` | | `:lsn`, `:temporary` |
  | `[..., :slot_lost]` | | `:why`, `:action` |
  | `[..., :gap]` | `:from`, `:to` | `:why` |
  | `[..., :rewound]` | `:from`, `:to` | `:timeline` |
  | `[..., :handled]` | `:transactions`, `:changes`, `:bytes` of one frame, `:duration` in decoder and handler | |
  | `[..., :status]` | those of `Causeway.Postgres.WAL.info/1` that are numbers, once a second while there is something new | |
  """

  @doc false
  # Asked when a consumer starts: looking for a module that is not there takes a millisecond.
  def load, do: Code.ensure_loaded?(:telemetry) and Application.ensure_all_started(:telemetry)

  @doc false
  def emit(options, name, measurements, metadata \\ %{}) do
    if function_exported?(:telemetry, :execute, 3) do
      metadata = Map.merge(metadata, %{slot: options.slot, name: options.name})
      apply(:telemetry, :execute, [[:causeway, :wal, name], measurements, metadata])
    end

    :ok
  end
end
