defmodule Causeway.Postgres.Result do
  @moduledoc """
  What a statement gave.

    * `:command` - what was done, such as `:select`, `:insert`, `:create_table`
    * `:columns` - their names, or nil when there are none
    * `:rows` - a list of lists, or nil when there are no columns
    * `:num_rows` - how many rows were read, written or copied
    * `:connection_id` - the server's process
    * `:messages` - notices of the server, as maps of the fields that `Causeway.Postgres.Error` has in `:postgres`
  """
  defstruct [:command, :columns, :rows, :num_rows, :connection_id, messages: []]

  @type t :: %__MODULE__{
          command: atom,
          columns: [String.t()] | nil,
          rows: [[term]] | nil,
          num_rows: non_neg_integer,
          connection_id: pos_integer | nil,
          messages: [map]
        }
end
