defmodule Causeway.Store.Events do
  @moduledoc """
  What a store tells the application `:telemetry`, where that is there. All names begin with
  `[:causeway, :store]`; all metadata have `:store`, its name. Times are in native units, as
  `System.convert_time_unit/3` takes them.

  | event | measurements | metadata |
  |---|---|---|
  | `[..., :commit]` | `:duration`, `:transactions` of a group | |
  | `[..., :apply]` | `:bytes` of a delta from a peer | `:peer` |
  | `[..., :open]` | `:duration`, `:cells`, `:records` replayed, `:cut` bytes of a torn tail | `:dir` |
  | `[..., :checkpoint]` | `:duration`, `:bytes` | `:dir` |
  | `[..., :checkpoint_failed]` | | `:dir`, `:error` |
  | `[..., :peer_up]`, `[..., :peer_down]` | | `:peer`, `:reason` |
  | `[..., :hook_failed]` | | `:hook`, `:error`, `:stacktrace` |
  | `[..., :new_actor]` | | `:actor`, `:reason` |
  """

  alias Causeway.Telemetry

  @doc false
  def emit(store, name, measurements, metadata \\ %{}) do
    Telemetry.emit([:store, name], measurements, Map.put(metadata, :store, store))
  end
end
