defmodule Causeway.Postgres.LSN do
  @moduledoc """
  Positions in PostgreSQL's write-ahead log. They are integers here, so that they compare as they should; the server
  writes and reads them as `"16/B374D848"`.

      iex> Causeway.Postgres.LSN.parse("16/B374D848")
      {:ok, 97500059720}

      iex> Causeway.Postgres.LSN.to_string(97500059720)
      "16/B374D848"
  """

  @type t :: non_neg_integer

  @most 0xFFFFFFFFFFFFFFFF

  @doc "Whether a term is a position."
  defguard is_lsn(lsn) when is_integer(lsn) and lsn >= 0 and lsn <= @most

  @doc """
  What the server writes, as a position.

      iex> Causeway.Postgres.LSN.parse("0/10/0")
      :error
  """
  @spec parse(String.t()) :: {:ok, t} | :error
  def parse(text) when is_binary(text) do
    with [high, low] <- String.split(text, "/"),
         {:ok, high} <- half(high),
         {:ok, low} <- half(low),
         do: {:ok, high * 0x100000000 + low},
         else: (_ -> :error)
  end

  defp half(text) when byte_size(text) in 1..8 do
    case Integer.parse(text, 16) do
      {n, ""} when n >= 0 and binary_part(text, 0, 1) not in ["+", "-"] -> {:ok, n}
      _ -> :error
    end
  end

  defp half(_), do: :error

  @doc "As `parse/1`; what is no position raises."
  @spec parse!(String.t()) :: t
  def parse!(text) do
    case parse(text) do
      {:ok, lsn} -> lsn
      :error -> raise ArgumentError, "#{inspect(text)} is no position in a write-ahead log"
    end
  end

  @doc "A position, as the server writes it."
  @spec to_string(t) :: String.t()
  def to_string(lsn) when is_lsn(lsn),
    do: hex(div(lsn, 0x100000000)) <> "/" <> hex(rem(lsn, 0x100000000))

  defp hex(n), do: Integer.to_string(n, 16)
end
