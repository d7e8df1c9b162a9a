defmodule Ledger.Transfers do
  @moduledoc """
  Transfers of money between accounts.

  A transfer is one transaction: it locks the accounts, always in the same order so that no two wait for each other,
  writes the entries and the new balances, its tags and a line of the audit trail. Whether the money is there, the
  database says.
  """
  import Ecto.Query
  alias Ecto.Multi
  alias Ledger.{Account, Audit, Entry, Repo, Tags, Transfer, TransferRequest}

  @doc """
  Moves `%{from:, to:, amount:}` between accounts, given by their numbers. A `:memo`, `:tags` and a `:reference`, by
  which the transfer is made once only, are optional.
  """
  def make(attrs, actor) do
    with {:ok, request} <- Ecto.Changeset.apply_action(TransferRequest.changeset(attrs), :insert) do
      sides = %{request.from => Decimal.negate(request.amount), request.to => request.amount}
      move(sides, Map.take(request, [:memo, :reference]), request.tags, {actor, :transferred})
    end
  end

  @doc "Makes a transfer undone by one that is its opposite. That can be done once."
  def reverse(%Transfer{} = transfer, actor) do
    transfer = Repo.preload(transfer, [:tags, entries: :account])
    sides = Map.new(transfer.entries, &{&1.account.number, Decimal.negate(&1.amount)})
    fields = %{memo: "Reversal: #{transfer.memo}", reverses_id: transfer.id}
    move(sides, fields, Enum.map(transfer.tags, & &1.name), {actor, :reversed})
  end

  defp move(sides, fields, tags, {actor, action}) do
    Multi.new()
    |> Multi.run(:accounts, fn _, _ -> lock(Map.keys(sides)) end)
    |> Multi.run(:tags, fn _, _ -> {:ok, Tags.ensure(tags)} end)
    |> Multi.insert(
      :transfer,
      &Transfer.making(fields, entries(&1.accounts, sides), &1.tags)
    )
    |> Multi.merge(fn %{accounts: accounts} -> move_balances(accounts, sides) end)
    |> Audit.record(actor, action, &{&1.transfer.id, sides})
    |> Repo.transaction()
    |> case do
      {:ok, %{transfer: transfer}} -> {:ok, transfer}
      {:error, _, error, _} -> {:error, error}
    end
  end

  defp lock(numbers) do
    accounts =
      Repo.all(
        from(a in Account, where: a.number in ^numbers, order_by: a.id, lock: "FOR UPDATE")
      )

    case numbers -- Enum.map(accounts, & &1.number) do
      [] -> one_currency(accounts)
      [unknown | _] -> {:error, {:no_account, unknown}}
    end
  end

  defp one_currency(accounts) do
    case accounts |> Enum.map(& &1.currency) |> Enum.uniq() do
      [_] -> {:ok, accounts}
      many -> {:error, {:currencies, Enum.sort(many)}}
    end
  end

  defp entries(accounts, sides) do
    for account <- accounts, do: %Entry{account_id: account.id, amount: sides[account.number]}
  end

  defp move_balances(accounts, sides) do
    for account <- accounts, reduce: Multi.new() do
      multi ->
        Multi.update(
          multi,
          {:balance, account.number},
          Account.moving(account, sides[account.number])
        )
    end
  end

  @doc """
  Makes many transfers in one transaction: all, or none and the first error with its index. Those whose reference was
  used before are counted and left alone. Takes Ecto's options of a transaction (`:timeout`).
  """
  def import(list, actor, opts \\ []) do
    Repo.transaction(
      fn ->
        for {attrs, index} <- Enum.with_index(list), reduce: %{made: 0, known: 0} do
          counts -> import_one(attrs, index, actor, counts)
        end
      end,
      opts
    )
  end

  defp import_one(attrs, index, actor, counts) do
    if attrs[:reference] && Repo.exists?(by_reference(attrs.reference)) do
      Map.update!(counts, :known, &(&1 + 1))
    else
      case make(attrs, actor) do
        {:ok, _} -> Map.update!(counts, :made, &(&1 + 1))
        {:error, error} -> Repo.rollback({index, error})
      end
    end
  end

  defp by_reference(reference), do: from(t in Transfer, where: t.reference == ^reference)

  @doc "A transfer with its entries, their accounts, and its tags."
  def get!(id), do: Transfer |> Repo.get!(id) |> Repo.preload([:tags, entries: :account])

  @doc "What came in, went out and was left over, day by day."
  def days(%Account{id: id}) do
    Repo.all(
      from(e in Entry,
        join: t in assoc(e, :transfer),
        where: e.account_id == ^id,
        group_by: fragment("?::date", t.made_at),
        order_by: fragment("?::date", t.made_at),
        select: %{
          day: type(fragment("?::date", t.made_at), :date),
          transfers: count(),
          amount: sum(e.amount)
        }
      )
    )
  end
end
