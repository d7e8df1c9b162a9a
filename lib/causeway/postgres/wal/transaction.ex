defmodule Causeway.Postgres.WAL.Transaction do
  @moduledoc """
  A committed transaction, or a part of one that is larger than `:max_transaction_bytes`.

    * `:xid` - the server's number for it, which comes again after four billion others
    * `:commit_lsn`, `:end_lsn` - where its commit record begins and ends. `:end_lsn` is what to confirm. It is nil in
      all parts but the last, as a part cannot be confirmed
    * `:commit_time` - a `DateTime`
    * `:origin` - nil, or `{name, lsn}` for a transaction that was replicated to the server from elsewhere
    * `:changes` - a list of `Causeway.Postgres.WAL.Change`, `Causeway.Postgres.WAL.Truncate` and
      `Causeway.Postgres.WAL.Message`, in the order in which they were made
    * `:part` - nil for a whole transaction; the parts of one are numbered from 1
    * `:last` - whether this is all of it, or the last part

  Parts of one transaction come one after another, with nothing between them but a loss of the connection. After that
  the transaction comes again from part 1, and what was done with its parts must be done away with.
  """

  alias Causeway.Postgres.{LSN, WAL}

  defstruct [:xid, :commit_lsn, :end_lsn, :commit_time, :origin, :part, changes: [], last: true]

  @type change :: WAL.Change.t() | WAL.Truncate.t() | WAL.Message.t()

  @type t :: %__MODULE__{
          xid: non_neg_integer,
          commit_lsn: LSN.t(),
          end_lsn: LSN.t() | nil,
          commit_time: DateTime.t(),
          origin: {String.t(), LSN.t()} | nil,
          changes: [change],
          part: pos_integer | nil,
          last: boolean
        }
end
