defmodule Ledger.Accounts do
  @moduledoc "Accounts: to open, rename and close; their totals and statements."
  import Ecto.Query
  alias Ecto.Multi
  alias Ledger.{Account, Audit, Entry, Repo}

  @doc "Opens an account: `%{number:, name:, currency:}`, and `:may_be_negative`, `:details` if wanted."
  def open(attrs, actor) do
    Multi.new()
    |> Multi.insert(:account, Account.opening(attrs))
    |> record(actor, :opened, &Map.take(&1, [:name, :currency, :details]))
  end

  @doc """
  Opens many in one transaction: `{opened, refused}`, the second with their changesets. Each is inserted in a savepoint,
  so that one whose number is taken does not spoil the others.
  """
  def open_many(list) do
    {:ok, results} =
      Repo.transaction(fn ->
        Enum.map(list, &Repo.insert(Account.opening(&1), mode: :savepoint))
      end)

    {for({:ok, account} <- results, do: account), for({:error, error} <- results, do: error)}
  end

  @doc "Renames an account as it was read; `{:error, :stale}` if it was changed since."
  def rename(%Account{} = account, name, actor) do
    Multi.new()
    |> Multi.update(:account, Account.renaming(account, name))
    |> record(actor, :renamed, &%{from: account.name, to: &1.name})
  rescue
    Ecto.StaleEntryError -> {:error, :stale}
  end

  @doc "Closes an account that has nothing left."
  def close(%Account{} = account, actor) do
    Multi.new()
    |> Multi.update(:account, Account.closing(account))
    |> record(actor, :closed, fn _ -> %{} end)
  end

  defp record(multi, actor, action, data) do
    multi
    |> Audit.record(actor, action, fn %{account: a} -> {a.number, data.(a)} end)
    |> Repo.transaction()
    |> case do
      {:ok, %{account: account}} -> {:ok, account}
      {:error, _, changeset, _} -> {:error, changeset}
    end
  end

  def get!(number), do: Repo.get_by!(Account, number: number)

  @doc "Accounts whose `details` contain these, as PostgreSQL's `@>` has it; `%{}` is all."
  def list(details \\ %{}) do
    Repo.all(
      from(a in Account,
        where: fragment("? @> ?", a.details, type(^details, :map)),
        order_by: a.number
      )
    )
  end

  @doc "What there is of each currency, of those who have and of those who owe."
  def totals do
    from(a in Account,
      group_by: a.currency,
      select:
        {a.currency,
         %{
           has: coalesce(filter(sum(a.balance), a.balance > 0), 0),
           owes: coalesce(filter(sum(a.balance), a.balance < 0), 0)
         }}
    )
    |> Repo.all()
    |> Map.new()
  end

  @doc """
  Reduces an account's entries in their order, each with the balance after it. They come from the server as they are
  consumed: a statement may be longer than memory is large.
  """
  def statement(%Account{id: id}, acc, fun) do
    query =
      from(e in Entry,
        join: t in assoc(e, :transfer),
        where: e.account_id == ^id,
        windows: [so_far: [order_by: e.id]],
        order_by: e.id,
        select: %{
          at: t.made_at,
          memo: t.memo,
          amount: e.amount,
          balance: over(sum(e.amount), :so_far)
        }
      )

    {:ok, acc} =
      Repo.transaction(fn -> query |> Repo.stream(max_rows: 500) |> Enum.reduce(acc, fun) end)

    acc
  end
end
