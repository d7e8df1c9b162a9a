defmodule Causeway.Log.Events do
  @moduledoc """
  What a log tells the application `:telemetry`, where that is there. All names begin with `[:causeway, :log]`; all
  metadata have `:log`, its name. Times are in native units, as `System.convert_time_unit/3` takes them.

  | event | measurements | metadata |
  |---|---|---|
  | `[..., :publish]` | `:duration`, `:messages` and `:bytes` of what was committed in one go | |
  | `[..., :publish_failed]` | `:messages` | `:error` |
  | `[..., :received]` | `:messages`, `:batches` of a transaction, from the server's log | |
  | `[..., :streaming]`, `[..., :polling]` | | `:error` |
  | `[..., :behind]` | `:missing` messages that retention has taken from a subscriber | `:partition`, `:subscriber` |
  | `[..., :undelivered]` | `:messages` that `Causeway.PubSub` could not give to this node's subscribers | `:topic`, `:dispatcher`, `:error` |
  | `[..., :handled]` | `:duration`, `:messages` of a call of a consumer | `:group`, `:partition`, `:result`: `:ok` or `:failed` |
  | `[..., :parked]`, `[..., :dead]` | `:messages` that failed, and those that wait for them; that were given up | `:group`, `:partition` |
  | `[..., :claimed]`, `[..., :released]` | | `:group`, `:partition`, `:reason` |
  | `[..., :claim_failed]` | | `:group`, `:error` |
  | `[..., :rewound]` | `:missing` messages that the server lacks since a failover | `:partition` |
  | `[..., :dropped]` | | `:segment`, by retention |
  | `[..., :check_failed]` | | `:error` |
  """

  alias Causeway.Telemetry

  @doc false
  def emit(log, name, measurements, metadata \\ %{}) do
    Telemetry.emit([:log, name], measurements, Map.put(metadata, :log, log))
  end
end
