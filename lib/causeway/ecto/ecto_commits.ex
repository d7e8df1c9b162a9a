if Code.ensure_loaded?(Ecto.Adapters.SQL) and Code.ensure_loaded?(Postgrex) do
  defmodule Causeway.Ecto.Commits do
    @moduledoc false
    # Where in the server's log a commit is, and reads that wait until a standby has come so far.
    #
    # To ask for the place costs no round trip: the transaction's number is asked for before it commits, the place
    # after, all in one.

    alias Causeway.Ecto.{Commit, Errors, Statements, Wire}

    @xid {:query, "SELECT pg_catalog.pg_current_xact_id_if_assigned()", "", "", "", 1}
    @lsn {:query, "SELECT pg_catalog.pg_current_wal_insert_lsn()", "", "", "", 1}
    @replayed {:query,
               "SELECT pg_catalog.pg_last_wal_replay_lsn(), pg_catalog.pg_is_in_recovery()", "",
               "", "", 1}

    # ---- commits ----

    def wanted?(opts), do: Keyword.get(opts, :last_commit, false)

    @doc "Commits, and remembers where."
    def commit(statement, opts, s) do
      steps = [@xid, {:query, statement, "", "", "", 1}, {:sync}, @lsn]

      with {:ok, [xid, ended, lsn], notices, s} <- Statements.perform(s, steps, statement, opts) do
        remember(opts, xid, lsn)
        {:ok, Statements.result(ended, notices, s), s}
      end
    end

    @doc "Runs a statement that is a transaction of its own, and remembers where it has committed."
    def perform(s, steps, statement, opts) do
      all = steps ++ [@xid, {:sync}, @lsn]

      with {:ok, ended, notices, s} <- Statements.perform(s, all, statement, opts) do
        {ended, [xid, lsn]} = Enum.split(ended, -2)
        remember(opts, xid, lsn)
        {:ok, ended, notices, s}
      end
    end

    defp remember(opts, {:ok, _, xid, _}, {:ok, _, lsn, _}) do
      # A transaction that has written nothing has no number, and commits nowhere.
      if xid = number(xid),
        do: Process.put(key(opts[:causeway]), %Commit{xid: xid, lsn: number(lsn)})
    end

    defp number([{<<8::32, number::64>>, 1}]), do: number
    defp number(_), do: nil

    defp key(pool), do: {Causeway.Ecto, pool}

    @doc "The caller's last commit that was asked for, by the pool's name."
    def last(pool), do: Process.get(key(pool))

    # ---- reads ----

    @doc "Waits until the server has replayed what `:after` says, if it is a standby."
    def wait(opts, s) do
      case Keyword.get(opts, :after) do
        nil -> {:ok, s}
        lsn -> wait_for(lsn, opts, s)
      end
    end

    defp wait_for(lsn, opts, s) do
      limit = limit!(Keyword.get(opts, :after_timeout, 5_000))
      poll(s, Commit.lsn!(lsn), System.monotonic_time(:millisecond) + limit, limit, 1)
    rescue
      error in ArgumentError -> {:error, error, s}
    end

    defp limit!(ms) when is_integer(ms) and ms >= 0, do: ms

    defp limit!(other) do
      raise ArgumentError,
            "option :after_timeout: expected a number of milliseconds, got #{inspect(other)}"
    end

    defp poll(s, lsn, deadline, limit, pause) do
      with {:ok, replayed, s} <- replayed(s) do
        cond do
          replayed == :primary or replayed >= lsn ->
            {:ok, s}

          System.monotonic_time(:millisecond) + pause > deadline ->
            {:error,
             Causeway.Ecto.LagError.exception(lsn: lsn, replayed: replayed, waited: limit), s}

          true ->
            Process.sleep(pause)
            poll(s, lsn, deadline, limit, min(pause * 2, 50))
        end
      end
    end

    defp replayed(s) do
      case Wire.run(s, [@replayed]) do
        {:ok, %{ended: [{:ok, _, [{values, 1}], _}]}, s} ->
          {:ok, place(values), s}

        {:ok, %{ended: [{:error, why, fields}]}, s} ->
          {:error, Errors.server(why, fields, s.id, nil), s}

        {:lost, why, _} ->
          {:disconnect, Errors.lost(why), s}
      end
    end

    defp place(<<_::binary-size(4), lsn::64, 1::32, 1>>), do: lsn
    defp place(<<-1::signed-32, 1::32, 1>>), do: 0
    defp place(_), do: :primary
  end
end
