defmodule Ledger.Repo.Migrations.Audit do
  use Ecto.Migration

  def change do
    create table(:events) do
      add(:actor, :text, null: false)
      add(:action, :text, null: false)
      add(:subject, :text, null: false)
      add(:data, :map, null: false)
      timestamps(type: :utc_datetime_usec, updated_at: false)
    end

    create(index(:events, [:subject]))
    create(index(:events, [:actor, :inserted_at]))
  end
end
