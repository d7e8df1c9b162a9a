defmodule Causeway.Postgres.Query do
  @moduledoc """
  A prepared statement, from `Causeway.Postgres.prepare/3`. It belongs to the connection that it was prepared on; when that
  has reconnected since, or the server has dropped the statement, it is prepared again.

    * `:statement` - its SQL
    * `:columns` - the names of its columns, or nil
    * `:param_oids` - the types of its parameters
  """
  @enforce_keys [:statement]
  defstruct [
    :statement,
    :name,
    :columns,
    :param_oids,
    # Its columns as the server has described them, `{name, oid, typmod}` each, to see whether they are still that; :unknown
    # of a statement that was not described.
    :row,
    # Codecs, nil where there is nothing to code; the types that they are of; the server's process.
    :params,
    :result,
    :types,
    :connection_id
  ]

  @type t :: %__MODULE__{
          statement: String.t(),
          columns: [String.t()] | nil,
          param_oids: [non_neg_integer]
        }

  # The codecs are large and tell nobody anything.
  defimpl Inspect do
    import Inspect.Algebra

    def inspect(query, opts) do
      fields = for key <- [:statement, :columns, :param_oids], do: {key, Map.fetch!(query, key)}
      concat(["#Causeway.Postgres.Query<", to_doc(fields, opts), ">"])
    end
  end
end
