defmodule Ledger.Tags do
  @moduledoc "Marks on transfers. Upper and lower case are the same mark."
  import Ecto.Query
  alias Ledger.{Repo, Tag, Transfer}

  @doc "The tags of these names; those that were not there are now."
  def ensure([]), do: []

  def ensure(names) do
    names = names |> Enum.map(&String.downcase/1) |> Enum.uniq()
    Repo.insert_all(Tag, Enum.map(names, &%{name: &1}), on_conflict: :nothing)
    Repo.all(from(t in Tag, where: t.name in ^names, order_by: t.name))
  end

  @doc "Transfers that have all of the tags, the newest first, with their tags."
  def transfers(names) do
    names = Enum.map(names, &String.downcase/1)

    tagged =
      from(t in Transfer,
        join: g in assoc(t, :tags),
        where: g.name in ^names,
        group_by: t.id,
        having: count(g.id) == ^length(names),
        select: t.id
      )

    Repo.all(
      from(t in Transfer,
        where: t.id in subquery(tagged),
        order_by: [desc: t.made_at],
        preload: :tags
      )
    )
  end

  @doc "Each tag with the number of its transfers, the most used first."
  def usage do
    Repo.all(
      from(g in Tag,
        left_join: t in assoc(g, :transfers),
        group_by: g.name,
        order_by: [desc: count(t.id), asc: g.name],
        select: {g.name, count(t.id)}
      )
    )
  end

  @doc "Renames a tag; into one that exists, and both are one."
  def rename(old, new) do
    [old, new] = Enum.map([old, new], &String.downcase/1)

    Repo.transaction(fn ->
      %Tag{id: from} = Repo.get_by!(Tag, name: old)
      [%Tag{id: to}] = ensure([new])

      moved =
        from(j in "transfer_tags",
          where: j.tag_id == ^from,
          select: %{transfer_id: j.transfer_id, tag_id: type(^to, :integer)}
        )

      Repo.insert_all("transfer_tags", moved, on_conflict: :nothing)
      Repo.delete_all(from(g in Tag, where: g.id == ^from))
      to
    end)
  end
end
