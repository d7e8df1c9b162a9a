defmodule Ledger.Audit do
  @moduledoc "Who did what. An event is written in the transaction of what it tells of, or neither is."
  import Ecto.Query
  alias Ledger.{AuditEvent, Repo}

  @doc "Adds the event to a transaction; `subject` and `data` are made from the changes so far."
  def record(multi, actor, action, fun) do
    Ecto.Multi.insert(multi, :event, fn changes ->
      {subject, data} = fun.(changes)
      %AuditEvent{actor: actor, action: action, subject: subject, data: data}
    end)
  end

  @doc "Events of an account's number or a transfer's id, the oldest first."
  def events(subject) do
    Repo.all(from(e in AuditEvent, where: e.subject == ^subject, order_by: e.id))
  end

  @doc "How many of each action an actor did since."
  def activity(actor, since) do
    from(e in AuditEvent,
      where: e.actor == ^actor and e.inserted_at >= ^since,
      group_by: e.action,
      select: {e.action, count()}
    )
    |> Repo.all()
    |> Map.new()
  end
end
