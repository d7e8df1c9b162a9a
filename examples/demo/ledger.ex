defmodule Demo.Ledger do
  @moduledoc """
  What an application would look like: it follows the bank of `Demo.Pgbench`, and keeps the balance of everything. Each
  transaction that it gets is whole, and comes in the order of commits: so it is one line in the history, and the account, the
  teller and the branch in it have moved by just that amount since the transaction before. If not, it says so and ends.
  """
  use Causeway.Postgres.WAL.Handler

  @totals %{transactions: 0, changes: 0, moved: 0}

  def new, do: :ets.new(__MODULE__, [:public, read_concurrency: true])

  @doc "Transactions and changes so far, and the sum of all amounts."
  def totals(ledger) do
    case :ets.lookup(ledger, :totals) do
      [{:totals, totals}] -> totals
      [] -> @totals
    end
  end

  @doc "Everything whose balance is not 0, by table and number."
  def balances(ledger),
    do:
      for(
        {{_, _} = key, balance} <- :ets.tab2list(ledger),
        balance != 0,
        into: %{},
        do: {key, balance}
      )

  @doc "Makes the ledger slow: it sleeps so many milliseconds at its next transaction."
  def pause(ledger, ms), do: :ets.insert(ledger, {:pause, ms})

  @impl true
  def init(ledger), do: {:ok, ledger}

  @impl true
  def handle_transaction(transaction, ledger) do
    with [{:pause, ms}] <- :ets.take(ledger, :pause), do: Process.sleep(ms)
    amount = amount!(transaction)
    for change <- transaction.changes, do: move!(ledger, change, amount)
    totals = totals(ledger)

    :ets.insert(
      ledger,
      {:totals,
       %{
         totals
         | transactions: totals.transactions + 1,
           changes: totals.changes + length(transaction.changes),
           moved: totals.moved + amount
       }}
    )

    {:ack, ledger}
  end

  defp amount!(transaction) do
    case for %{op: :insert, new: %{"delta" => amount}} <- transaction.changes, do: amount do
      [amount] when length(transaction.changes) == 4 -> amount
      _ -> raise "transaction #{transaction.xid} is not whole: #{inspect(transaction.changes)}"
    end
  end

  defp move!(_ledger, %{op: :insert}, _amount), do: :ok

  defp move!(ledger, %{op: :update, relation: %{table: "pgbench_" <> table}, new: new}, amount) do
    {key, balance} = balance(table, new)

    before =
      case :ets.lookup(ledger, key) do
        [{_, before}] -> before
        [] -> 0
      end

    if before + amount != balance,
      do: raise("#{inspect(key)} had #{before}, moved by #{amount}, and has #{balance}")

    :ets.insert(ledger, {key, balance})
  end

  defp balance("accounts", %{"aid" => id, "abalance" => balance}), do: {{"accounts", id}, balance}
  defp balance("tellers", %{"tid" => id, "tbalance" => balance}), do: {{"tellers", id}, balance}
  defp balance("branches", %{"bid" => id, "bbalance" => balance}), do: {{"branches", id}, balance}
end
