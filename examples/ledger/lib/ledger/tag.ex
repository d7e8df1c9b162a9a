defmodule Ledger.Tag do
  use Ecto.Schema

  schema "tags" do
    field(:name, :string)
    many_to_many(:transfers, Ledger.Transfer, join_through: "transfer_tags")
  end
end
