defmodule Ledger.Repo.Migrations.Transfers do
  use Ecto.Migration

  def change do
    create table(:transfers, primary_key: false) do
      add(:id, :uuid, primary_key: true)
      add(:reference, :text)
      add(:memo, :text)
      add(:made_at, :utc_datetime_usec, null: false)
      add(:reverses_id, references(:transfers, type: :uuid))
    end

    create(unique_index(:transfers, [:reference]))
    create(unique_index(:transfers, [:reverses_id]))

    create table(:entries) do
      add(:transfer_id, references(:transfers, type: :uuid), null: false)
      add(:account_id, references(:accounts), null: false)
      add(:amount, :decimal, precision: 20, scale: 4, null: false)
    end

    create(unique_index(:entries, [:transfer_id, :account_id]))
    create(index(:entries, [:account_id, :id]))
    create(constraint(:entries, :amount_is_not_zero, check: "amount <> 0"))
    balanced()
  end

  # Looked at when the transaction commits: by then all sides must be there.
  defp balanced do
    execute(
      """
      CREATE FUNCTION transfer_is_balanced() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        IF (SELECT sum(amount) FROM entries WHERE transfer_id = new.transfer_id) <> 0 THEN
          RAISE check_violation USING
            MESSAGE = format('the entries of transfer %s do not sum up to zero', new.transfer_id),
            TABLE = 'entries', CONSTRAINT = 'transfer_is_balanced';
        END IF;
        RETURN NULL;
      END $$
      """,
      "DROP FUNCTION transfer_is_balanced()"
    )

    execute(
      """
      CREATE CONSTRAINT TRIGGER transfer_is_balanced AFTER INSERT OR UPDATE ON entries
      DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION transfer_is_balanced()
      """,
      "DROP TRIGGER transfer_is_balanced ON entries"
    )
  end
end
