defmodule Ledger.Account do
  @moduledoc "An account. Its balance is the sum of its entries, and never below zero unless it may."
  use Ecto.Schema
  import Ecto.Changeset

  schema "accounts" do
    field(:number, :string)
    field(:name, :string)
    field(:currency, Ecto.Enum, values: [:EUR, :JPY, :USD])
    field(:balance, :decimal, default: Decimal.new(0))
    field(:may_be_negative, :boolean, default: false)
    field(:details, :map, default: %{})
    field(:closed_at, :utc_datetime_usec)
    field(:lock_version, :integer, default: 1)
    has_many(:entries, Ledger.Entry)
    timestamps(type: :utc_datetime_usec)
  end

  def opening(attrs) do
    %__MODULE__{}
    |> cast(attrs, [:number, :name, :currency, :may_be_negative, :details])
    |> validate_required([:number, :name, :currency])
    |> validate_format(:number, ~r/^[A-Z0-9-]+$/)
    |> unique_constraint(:number)
  end

  @doc "Two who rename the same account at once: the second is told that it is stale."
  def renaming(account, name) do
    account
    |> cast(%{name: name}, [:name])
    |> validate_required(:name)
    |> optimistic_lock(:lock_version)
  end

  def closing(account) do
    account
    |> change(closed_at: DateTime.utc_now())
    |> check_constraint(:balance, name: :closed_is_empty, message: "must be zero")
  end

  def moving(account, amount) do
    account
    |> change(balance: Decimal.add(account.balance, amount))
    |> check_constraint(:balance, name: :balance_is_covered, message: "is not enough")
    |> check_constraint(:closed_at, name: :closed_is_empty, message: "is set: account closed")
  end
end
