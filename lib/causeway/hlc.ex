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

  @most (1 <<< 62) - 1

  @doc "The stamp after `last`, the greatest seen, at wall clock `now` (milliseconds)."
  @spec tick(t(), non_neg_integer()) :: t()
  def tick(last, now \\ System.system_time(:millisecond)) do
    number!(last, "tick/2")
    number!(now, "tick/2")

    case :causeway_nif.hlc_tick(last, now) do
      stamp when is_integer(stamp) -> stamp
      {:error, _} -> raise Causeway.Error, reason: {:out_of_range, {:tick, last, now}}
    end
  end

  @doc "What to hold as the greatest stamp seen, after receiving one."
  @spec receive(t(), t()) :: t()
  def receive(last, stamp) do
    number!(last, "receive/2")
    number!(stamp, "receive/2")
    greatest = max(last, stamp)

    if greatest > @most,
      do: raise(Causeway.Error, reason: {:out_of_range, {:receive, last, stamp}})

    greatest
  end

  @doc "The wall-clock part."
  @spec to_datetime(t()) :: DateTime.t()
  def to_datetime(stamp) do
    number!(stamp, "to_datetime/1")
    if stamp > @most, do: raise(Causeway.Error, reason: {:out_of_range, {:to_datetime, stamp}})
    DateTime.from_unix!(stamp >>> 16, :millisecond)
  end

  # What no clock could give is a mistake; what is beyond the end of time is an error.
  defp number!(n, _call) when is_integer(n) and n >= 0 and n < 1 <<< 64, do: :ok

  defp number!(n, call) do
    raise ArgumentError,
          "Causeway.HLC.#{call} takes whole numbers from 0 to 2^64 - 1, not #{Causeway.Error.short(n)}"
  end
end
