defmodule Ledger.Repo.Migrations.Accounts do
  use Ecto.Migration

  def change do
    create table(:accounts) do
      add(:number, :text, null: false)
      add(:name, :text, null: false)
      add(:currency, :string, size: 3, null: false)
      add(:balance, :decimal, precision: 20, scale: 4, null: false, default: 0)
      add(:may_be_negative, :boolean, null: false, default: false)
      add(:details, :map, null: false, default: %{})
      add(:closed_at, :utc_datetime_usec)
      add(:lock_version, :integer, null: false, default: 1)
      timestamps(type: :utc_datetime_usec)
    end

    create(unique_index(:accounts, [:number]))
    create(index(:accounts, [:details], using: :gin))

    create(constraint(:accounts, :balance_is_covered, check: "may_be_negative or balance >= 0"))

    create(constraint(:accounts, :closed_is_empty, check: "closed_at is null or balance = 0"))
  end
end
