defmodule Ledger.TransferRequest do
  @moduledoc "What a transfer is asked for with; not a table."
  use Ecto.Schema
  import Ecto.Changeset

  @primary_key false
  embedded_schema do
    field(:from, :string)
    field(:to, :string)
    field(:amount, :decimal)
    field(:memo, :string)
    field(:reference, :string)
    field(:tags, {:array, :string}, default: [])
  end

  def changeset(attrs) do
    %__MODULE__{}
    |> cast(attrs, __schema__(:fields))
    |> validate_required([:from, :to, :amount])
    |> validate_number(:amount, greater_than: 0)
    |> validate_elsewhere()
  end

  # Attributes of a form have names that are strings: the changeset knows them by one.
  defp validate_elsewhere(changeset) do
    to = get_field(changeset, :to)

    if to && to == get_field(changeset, :from),
      do: add_error(changeset, :to, "is where it comes from"),
      else: changeset
  end
end
