defmodule Ledger.Case do
  @moduledoc false
  # Each test has its own connection, in a transaction that is rolled back: they run at the same time and do not
  # see each other.
  use ExUnit.CaseTemplate

  using do
    quote do
      alias Ledger.{Account, Accounts, Audit, Entry, Repo, Tags, Transfer, Transfers}
      import Ledger.Case
      import Ecto.Query
    end
  end

  setup tags do
    owner = Ecto.Adapters.SQL.Sandbox.start_owner!(Ledger.Repo, shared: not tags[:async])
    on_exit(fn -> Ecto.Adapters.SQL.Sandbox.stop_owner(owner) end)
  end

  @doc "Opens accounts with balances, `%{\"ADA\" => 100}`; what they have comes from WORLD."
  def accounts(balances, currency \\ :EUR) do
    world = %{number: "WORLD", name: "World", currency: currency, may_be_negative: true}
    {:ok, _} = Ledger.Accounts.open(world, "test")

    for {number, balance} <- balances do
      {:ok, _} = Ledger.Accounts.open(%{number: number, name: number, currency: currency}, "test")
      if balance > 0, do: {:ok, _} = move("WORLD", number, balance)
    end

    :ok
  end

  def move(from, to, amount, more \\ []),
    do:
      Ledger.Transfers.make(
        Map.merge(%{from: from, to: to, amount: amount}, Map.new(more)),
        "test"
      )

  @doc "An account's balance, as text without zeros at its end."
  def balance(number) do
    Ledger.Accounts.get!(number).balance |> Decimal.normalize() |> Decimal.to_string(:normal)
  end

  def errors(changeset), do: Ecto.Changeset.traverse_errors(changeset, &elem(&1, 0))
end
