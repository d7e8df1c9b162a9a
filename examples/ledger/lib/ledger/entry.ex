defmodule Ledger.Entry do
  @moduledoc "One side of a transfer: what an account got, or gave (below zero)."
  use Ecto.Schema

  schema "entries" do
    field(:amount, :decimal)
    belongs_to(:account, Ledger.Account)
    belongs_to(:transfer, Ledger.Transfer, type: :binary_id)
  end
end
