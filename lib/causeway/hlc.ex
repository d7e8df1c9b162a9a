defmodule Causeway.HLC do
  @moduledoc """
  Hybrid logical clocks: time stamps that only grow and never run behind what has been seen.

  A stamp is an integer of 62 bits, 46 of milliseconds since 1970 and 16 of counter, so stamps order as
  integers do. `tick/2` gives the next one: the wall clock, or one more than the greatest stamp seen when the
  wall clock is behind it. After the greatest stamp there is, at the end of the year 4199, comes that stamp again.

      iex> Causeway.HLC.tick(0, 1_000)
      65_536_000
      iex> Causeway.HLC.tick(65_536_000, 1_000)
      65_536_001
      iex> Causeway.HLC.tick(65_536_000, 900)
      65_536_001
  """

  import Bitwise

  @type t :: 0..0x3FFFFFFFFFFFFFFF

  @doc "The stamp after `last`, the greatest seen, at wall clock `now` (milliseconds)."
  @spec tick(t(), non_neg_integer()) :: t()
  def tick(last, now \\ System.system_time(:millisecond)) do
    case :causeway_nif.hlc_tick(last, now) do
      stamp when is_integer(stamp) -> stamp
      {:error, _} -> raise Causeway.Error, reason: {:out_of_range, {:tick, last, now}}
    end
  end

  @doc "What to hold as the greatest stamp seen, after receiving one."
  @spec receive(t(), t()) :: t()
  def receive(last, stamp) when is_integer(last) and is_integer(stamp), do: max(last, stamp)

  @doc "The wall-clock part."
  @spec to_datetime(t()) :: DateTime.t()
  def to_datetime(stamp) when is_integer(stamp),
    do: DateTime.from_unix!(stamp >>> 16, :millisecond)
end
