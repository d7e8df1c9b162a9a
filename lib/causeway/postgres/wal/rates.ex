defmodule Causeway.Postgres.WAL.Rates do
  @moduledoc false
  # Transactions and bytes a second, over the last second or two.

  alias Causeway.Postgres.WAL.Counters

  @window_ms 1_000

  defstruct at: 0, transactions: 0, bytes: 0, per_second: {0.0, 0.0}

  def new, do: %__MODULE__{at: now()}

  @doc "To be called every now and then; looks at the counters when it is time."
  def sample(rates, counters) do
    now = now()
    ms = now - rates.at
    if ms < @window_ms, do: rates, else: sample(rates, counters, now, ms)
  end

  defp sample(rates, counters, now, ms) do
    transactions = Counters.get(counters, :transactions)
    bytes = Counters.get(counters, :bytes)

    per_second =
      {(transactions - rates.transactions) * 1000 / ms, (bytes - rates.bytes) * 1000 / ms}

    %__MODULE__{at: now, transactions: transactions, bytes: bytes, per_second: per_second}
  end

  def get(rates), do: rates.per_second

  defp now, do: System.monotonic_time(:millisecond)
end
