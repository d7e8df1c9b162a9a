defmodule Causeway.Postgres.WAL.Patience do
  @moduledoc false
  # How long a server may be silent. One that decodes a large transaction of which nothing is published may be so for
  # long (PostgreSQL 14 says nothing meanwhile), and would begin anew with each connection: so each is given twice the
  # time of the one before, as long as no connection gets further.

  @longest 24 * 60 * 60 * 1000

  @enforce_keys [:least, :ms]
  defstruct [:least, :ms, position: 0]

  @type t :: %__MODULE__{least: timeout, ms: timeout, position: non_neg_integer}

  @spec new(timeout) :: t
  def new(ms), do: %__MODULE__{least: ms, ms: ms}

  @doc "After a connection on which the server fell silent, having got to a position."
  @spec lost(t, non_neg_integer) :: t
  def lost(%{position: last} = patience, position) when position > last,
    do: %{patience | ms: patience.least, position: position}

  def lost(patience, _position),
    do: %{patience | ms: max(patience.least, min(2 * patience.ms, @longest))}

  @doc "As the port program is told it."
  @spec ms(t) :: non_neg_integer
  def ms(%{ms: :infinity}), do: 0
  def ms(%{ms: ms}), do: ms
end
