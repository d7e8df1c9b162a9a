if Code.ensure_loaded?(Ecto.Adapters.SQL) and Code.ensure_loaded?(Postgrex) do
  defmodule Causeway.Ecto do
    @moduledoc """
    What `Causeway.Ecto.Adapter` has beyond `Ecto.Adapters.Postgres`.

    ## Reading one's own writes on a standby

    A commit has a place in the server's log. A standby that has replayed as much shows what was committed:

        {:ok, order} = Shop.Repo.insert(order, last_commit: true)
        commit = Causeway.Ecto.last_commit(Shop.Repo)

        # In the user's next request, where `commit.lsn` came in the session; the replica's repository is another one.
        Shop.Replica.get(Order, order.id, after: commit.lsn)

    Options of any query, and of `Repo.transaction/2`, which may also stand in the repository's configuration (but for
    `:after`):

      * `:last_commit` - `true`: remember where this commits, for `last_commit/1`. It costs no round trip. In a transaction
        it is an option of that.
      * `:after` - a place: wait until a standby has come so far. A primary does not wait. In a transaction it is an option
        of that.
      * `:after_timeout` - how long, in milliseconds; then it is a `Causeway.Ecto.LagError`. Default: 5000.
      * `:cancel_after` - milliseconds, after which the server is told to cancel the statement. The error is a
        `Postgrex.Error`, code `:query_canceled`, and the connection goes on; with `:timeout`, DBConnection's, the
        connection is lost.
    """

    alias Causeway.Ecto.{Commit, Commits}

    @doc """
    Where the calling process's last transaction on this repository committed that was to be remembered (option
    `:last_commit`), or nil.

    Tests in a sandbox do not commit: nil.
    """
    @spec last_commit(Ecto.Repo.t()) :: Commit.t() | nil
    def last_commit(repo) when is_atom(repo) do
      %{opts: opts} = Ecto.Adapter.lookup_meta(repo.get_dynamic_repo())
      Commits.last(opts[:causeway])
    end
  end

  defmodule Causeway.Ecto.Commit do
    @moduledoc """
    Where a transaction has committed.

      * `:lsn` - a place in the server's log behind the commit, as a number
      * `:xid` - the transaction's number, 64 bits
    """
    @enforce_keys [:lsn, :xid]
    defstruct [:lsn, :xid]
    @type t :: %__MODULE__{lsn: non_neg_integer, xid: non_neg_integer}

    @doc """
    A place, given as a number, as PostgreSQL's text, or as a commit.

        iex> Causeway.Ecto.Commit.lsn!("16/B374D848")
        97500059720
    """
    @spec lsn!(non_neg_integer | String.t() | t) :: non_neg_integer
    def lsn!(%__MODULE__{lsn: lsn}), do: lsn
    def lsn!(lsn) when is_integer(lsn) and lsn >= 0, do: lsn

    def lsn!(text) when is_binary(text) do
      with [high, low] <- String.split(text, "/"),
           {high, ""} <- Integer.parse(high, 16),
           {low, ""} <- Integer.parse(low, 16) do
        high * 0x1_0000_0000 + low
      else
        _ -> lsn!({:bad, text})
      end
    end

    def lsn!(other) do
      other = with {:bad, text} <- other, do: text

      raise ArgumentError,
            "option :after: expected a place in the log (a number, \"16/B374D848\", or a Causeway.Ecto.Commit), " <>
              "got #{inspect(other)}"
    end

    @doc """
    The place as PostgreSQL writes it.

        iex> Causeway.Ecto.Commit.to_text(97500059720)
        "16/B374D848"
    """
    @spec to_text(non_neg_integer) :: String.t()
    def to_text(lsn), do: hex(div(lsn, 0x1_0000_0000)) <> "/" <> hex(rem(lsn, 0x1_0000_0000))

    defp hex(number), do: Integer.to_string(number, 16)
  end

  defmodule Causeway.Ecto.LagError do
    @moduledoc "A standby had not come as far in the log as a read was to wait for, by the option `:after`."
    defexception [:lsn, :replayed, :waited]

    alias Causeway.Ecto.Commit

    @impl true
    def message(error) do
      "the standby has not replayed #{Commit.to_text(error.lsn)} within #{error.waited} ms: it is at " <>
        "#{Commit.to_text(error.replayed)}, #{error.lsn - error.replayed} bytes behind; wait longer with :after_timeout, " <>
        "or read from the primary"
    end
  end
end
