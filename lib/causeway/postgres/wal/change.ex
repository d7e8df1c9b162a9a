defmodule Causeway.Postgres.WAL.Change do
  @moduledoc """
  One row inserted, updated or deleted.

    * `:op` - `:insert`, `:update` or `:delete`
    * `:relation` - the table, a `Causeway.Postgres.WAL.Relation`
    * `:new` - the row as it is now, a map from column names to values; nil for a delete
    * `:old` - the row as it was, likewise; only with `REPLICA IDENTITY FULL`, and never for an insert
    * `:key` - the columns of the replica identity as they were: of a delete, and of an update that changed them.
      nil otherwise, and where there is `:old`

  Values are terms as queries give them, or the server's text, by option. NULL is `nil`. A large value that an update
  left alone is not sent by the server, and is `:unchanged_toast` in `:new`: what it is, only the table knows, or
  `:old`.

  The log may be older than the catalogue. A composite that was altered after it was written is a tuple of what it held
  then. Of types that were dropped, or whose binary form is not known here, arrays and composites are decoded by the types
  that they say they hold, and other values, as terms, are `{:undecoded, bytes}`.
  """

  alias Causeway.Postgres.WAL.Relation

  defstruct [:op, :relation, :new, :old, :key]

  @type row :: %{String.t() => term}

  @type t :: %__MODULE__{
          op: :insert | :update | :delete,
          relation: Relation.t(),
          new: row | nil,
          old: row | nil,
          key: row | nil
        }

  @doc """
  The values that identify the row that was changed, as it was before: a map with the relation's keys. For an insert
  they are the new row's. nil when the replica identity is nothing.

      iex> relation = %Causeway.Postgres.WAL.Relation{keys: ["id"]}
      iex> change = %Causeway.Postgres.WAL.Change{op: :update, relation: relation, new: %{"id" => 1, "name" => "Ada"}}
      iex> Causeway.Postgres.WAL.Change.identity(change)
      %{"id" => 1}
  """
  @spec identity(t) :: row | nil
  def identity(%__MODULE__{relation: %{keys: []}}), do: nil
  def identity(%__MODULE__{key: %{} = key}), do: key

  def identity(%__MODULE__{} = change),
    do: Map.take(change.old || change.new, change.relation.keys)
end

defmodule Causeway.Postgres.WAL.Truncate do
  @moduledoc """
  Tables emptied by one `TRUNCATE`: `:relations`, whether it took those that refer to them along (`:cascade`; they are
  among the relations when they are published), and whether it restarted their sequences (`:restart_identity`).
  """

  defstruct relations: [], cascade: false, restart_identity: false

  @type t :: %__MODULE__{
          relations: [Causeway.Postgres.WAL.Relation.t()],
          cascade: boolean,
          restart_identity: boolean
        }
end

defmodule Causeway.Postgres.WAL.Message do
  @moduledoc """
  A logical message, made by `pg_logical_emit_message`: `:prefix` and `:content`, both binaries, and `:lsn`. One that
  is `:transactional` is among its transaction's changes. Others come as soon as they are written, whatever becomes of
  the transaction that wrote them, by `c:Causeway.Postgres.WAL.Handler.handle_message/2`.
  """

  defstruct [:transactional, :lsn, :prefix, :content]

  @type t :: %__MODULE__{
          transactional: boolean,
          lsn: Causeway.Postgres.LSN.t(),
          prefix: String.t(),
          content: binary
        }
end
