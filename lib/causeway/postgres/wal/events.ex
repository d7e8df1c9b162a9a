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

  alias Causeway.Telemetry

  @doc false
  def emit(options, name, measurements, metadata \\ %{}) do
    Telemetry.emit(
      [:wal, name],
      measurements,
      Map.merge(metadata, %{slot: options.slot, name: options.name})
    )
  end
end
