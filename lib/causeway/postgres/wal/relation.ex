defmodule Causeway.Postgres.WAL.Relation do
  @moduledoc """
  A table as the server described it before it sent the changes that belong to it. All changes of one transaction
  share it; after the table was altered they have another one.

    * `:oid` - of the table; another one when it was dropped and made again
    * `:schema`, `:table` - its names. Partitions that are published through their root are the root
    * `:columns` - `t:Causeway.Postgres.WAL.Column.t/0`, in the table's order, those that are published
    * `:keys` - names of the columns that identify a row: those of the replica identity
    * `:replica_identity` - what updates and deletes tell of the row that was: `:default` (the primary key), `:index`
      (of another unique index), `:full` (the whole row), or `:nothing`, with which a table that publishes updates
      cannot be updated
  """

  alias Causeway.Postgres.WAL.Column

  defstruct [:oid, :schema, :table, columns: [], keys: [], replica_identity: :default]

  @type t :: %__MODULE__{
          oid: pos_integer,
          schema: String.t(),
          table: String.t(),
          columns: [Column.t()],
          keys: [String.t()],
          replica_identity: :default | :index | :full | :nothing
        }

  @doc false
  # From what the decoder in C makes of the server's message.
  def new({:relation, _arrival, oid, schema, name, identity, columns}) do
    columns = for column <- columns, do: Column.new(column)

    %__MODULE__{
      oid: oid,
      # The server leaves out the name of its own schema.
      schema: if(schema == "", do: "pg_catalog", else: schema),
      table: name,
      columns: columns,
      keys: for(%{key: true, name: name} <- columns, do: name),
      replica_identity: identity(identity)
    }
  end

  defp identity(?d), do: :default
  defp identity(?i), do: :index
  defp identity(?f), do: :full
  defp identity(?n), do: :nothing
end

defmodule Causeway.Postgres.WAL.Column do
  @moduledoc """
  A column of a `Causeway.Postgres.WAL.Relation`: its `:name`, the OID of its `:type`, the type's `:modifier` (-1 for
  none), and whether it is part of the replica identity, `:key`.
  """

  defstruct [:name, :type, modifier: -1, key: false]

  @type t :: %__MODULE__{
          name: String.t(),
          type: non_neg_integer,
          modifier: integer,
          key: boolean
        }

  @doc false
  def new({key, name, type, modifier}),
    do: %__MODULE__{name: name, type: type, modifier: modifier, key: key}
end
