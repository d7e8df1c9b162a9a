defmodule Ledger.Transfer do
  @moduledoc "A transfer: entries that sum up to zero."
  use Ecto.Schema
  import Ecto.Changeset

  @primary_key {:id, :binary_id, autogenerate: true}
  schema "transfers" do
    field(:reference, :string)
    field(:memo, :string)
    field(:made_at, :utc_datetime_usec)
    belongs_to(:reverses, __MODULE__, type: :binary_id)
    has_many(:entries, Ledger.Entry)
    many_to_many(:tags, Ledger.Tag, join_through: "transfer_tags")
  end

  @doc "A transfer of which `entries` are the sides. A reference may be used once; so can a reversal be made."
  def making(fields, entries, tags) do
    %__MODULE__{made_at: DateTime.utc_now()}
    |> cast(fields, [:reference, :memo, :reverses_id])
    |> put_assoc(:entries, entries)
    |> put_assoc(:tags, tags)
    |> unique_constraint(:reference)
    |> unique_constraint(:reverses_id, message: "is reversed already")
  end
end
