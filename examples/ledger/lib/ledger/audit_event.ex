defmodule Ledger.AuditEvent do
  @moduledoc "A line of the audit trail."
  use Ecto.Schema

  schema "events" do
    field(:actor, :string)
    field(:action, Ecto.Enum, values: [:opened, :renamed, :closed, :transferred, :reversed])
    field(:subject, :string)
    field(:data, :map)
    timestamps(type: :utc_datetime_usec, updated_at: false)
  end
end
