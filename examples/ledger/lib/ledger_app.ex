defmodule LedgerApp do
  @moduledoc """
  A small set of books, with double entries: every transfer takes from one account what it gives to another.

    * `Ledger.Accounts` - opens, renames and closes accounts; lists, totals and statements
    * `Ledger.Transfers` - moves money, reverses, imports
    * `Ledger.Tags` - finds transfers by what they were marked with
    * `Ledger.Audit` - who did what

  The modules that end in a noun's singular (`Ledger.Account`, ...) are the schemas. What must always hold is kept by
  the database (`priv/repo/migrations`), and comes back as errors of changesets.
  """
  use Application

  @impl true
  def start(_type, _args) do
    Supervisor.start_link([Ledger.Repo], strategy: :one_for_one, name: Ledger.Supervisor)
  end
end
