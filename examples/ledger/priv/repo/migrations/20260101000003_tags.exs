defmodule Ledger.Repo.Migrations.Tags do
  use Ecto.Migration

  def change do
    create table(:tags) do
      add(:name, :text, null: false)
    end

    create(unique_index(:tags, ["lower(name)"], name: :tags_name_index))

    create table(:transfer_tags, primary_key: false) do
      add(:transfer_id, references(:transfers, type: :uuid), primary_key: true)
      add(:tag_id, references(:tags, on_delete: :delete_all), primary_key: true)
    end

    create(index(:transfer_tags, [:tag_id]))
  end
end
