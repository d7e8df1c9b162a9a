defmodule Causeway.Postgres.WAL.Publication do
  @moduledoc false
  # The publications that are to be read: whether they are there, and, on request, as they should be.

  alias Causeway.Postgres.{Protocol, WAL}
  alias Causeway.Postgres.WAL.{Client, Slot}

  @doc "Makes sure of the publications. Comes before the slot, as a slot cannot see younger ones."
  @spec prepare(Client.t(), WAL.Options.t()) :: :ok | {:error, Exception.t()}
  def prepare(client, %{create_publication: nil} = options),
    do: check(client, options.publication)

  def prepare(client, %{publication: [name], create_publication: wanted}) do
    with {:ok, found} <- find(client, name) do
      case found do
        nil -> Client.run(client, create(name, wanted))
        found -> alter(client, name, found, wanted)
      end
    end
  end

  defp check(client, names) do
    list = Enum.map_join(names, ", ", &Slot.literal/1)
    sql = "SELECT pubname FROM pg_catalog.pg_publication WHERE pubname IN (#{list})"

    with {:ok, rows} <- Client.query(client, sql) do
      case names -- Enum.concat(rows) do
        [] -> :ok
        missing -> {:error, %WAL.Error{reason: {:publication_missing, missing}}}
      end
    end
  end

  # ---- as it is ----

  defp find(client, name) do
    sql = """
    SELECT puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot
    FROM pg_catalog.pg_publication WHERE pubname = #{Slot.literal(name)}\
    """

    with {:ok, [row]} <- Client.query(client, sql),
         {:ok, tables} <- tables(client, name) do
      [all, insert, update, delete, truncate, via_root] = Enum.map(row, &(&1 == "t"))
      published = [insert: insert, update: update, delete: delete, truncate: truncate]

      {:ok,
       %{
         tables: if(all, do: :all, else: tables),
         publish: for({operation, true} <- published, do: operation),
         via_root: via_root
       }}
    else
      {:ok, []} -> {:ok, nil}
      error -> error
    end
  end

  defp tables(client, name) do
    sql = """
    SELECT n.nspname, c.relname FROM pg_catalog.pg_publication p
    JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid
    JOIN pg_catalog.pg_class c ON c.oid = r.prrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE p.pubname = #{Slot.literal(name)}\
    """

    with {:ok, rows} <- Client.query(client, sql), do: {:ok, Enum.map(rows, &List.to_tuple/1)}
  end

  # ---- as it should be ----

  defp create(name, wanted) do
    tables = if wanted.tables == :all, do: "FOR ALL TABLES", else: "FOR #{list(wanted.tables)}"
    "CREATE PUBLICATION #{Protocol.quoted(name)} #{tables} WITH #{settings(wanted)}"
  end

  # Whether it is for all tables cannot be altered.
  defp alter(_client, name, %{tables: one}, %{tables: other})
       when one == :all != (other == :all) do
    what = if one == :all, do: "is for all tables", else: "is not for all tables"

    {:error,
     %WAL.Error{
       reason:
         {:unsupported,
          "publication #{inspect(name)} #{what}, which cannot be altered; drop it, or choose another name"}
     }}
  end

  defp alter(client, name, found, wanted) do
    name = Protocol.quoted(name)

    set_tables =
      if wanted.tables != :all and Enum.sort(wanted.tables) != Enum.sort(found.tables),
        do: ["ALTER PUBLICATION #{name} SET #{list(wanted.tables)}"],
        else: []

    set_settings =
      if Enum.sort(wanted.publish) != Enum.sort(found.publish) or
           wanted.via_root != found.via_root,
         do: ["ALTER PUBLICATION #{name} SET #{settings(wanted)}"],
         else: []

    case set_tables ++ set_settings do
      [] -> :ok
      statements -> Client.run(client, Enum.join(statements, "; "))
    end
  end

  defp list(tables) do
    "TABLE " <>
      Enum.map_join(tables, ", ", fn {schema, table} ->
        Protocol.quoted(schema) <> "." <> Protocol.quoted(table)
      end)
  end

  defp settings(wanted) do
    "(publish = '#{Enum.join(wanted.publish, ", ")}', publish_via_partition_root = #{wanted.via_root})"
  end
end
