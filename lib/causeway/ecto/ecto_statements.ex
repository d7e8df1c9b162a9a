if Code.ensure_loaded?(Ecto.Adapters.SQL) and Code.ensure_loaded?(Postgrex) do
  defmodule Causeway.Ecto.Statements do
    @moduledoc false
    # Statements, prepared and run: each function is one round trip, unless it says otherwise. They return what
    # DBConnection's callbacks do.
    #
    # To the server, each has a name of its own: what Ecto gives a name to anew is another one there. So nothing is lost
    # when nobody knows any more whether a name is taken, as after an error.
    #
    # A transaction's BEGIN goes along with whatever is first in it.
    #
    # With `mode: :savepoint` a statement is put between a savepoint and its release, in the same round trip; if it
    # fails, one more goes back to the savepoint.

    alias Causeway.Ecto.{Bulk, Commits, Errors, Query, Wire}
    alias Causeway.Postgres.Protocol

    @begin {:query, "BEGIN", "", "", "", 1}
    @savepoint {:query, "SAVEPOINT causeway_query", "", "", "", 1}
    @release {:query, "RELEASE SAVEPOINT causeway_query", "", "", "", 1}
    @undo [{:query, "ROLLBACK TO SAVEPOINT causeway_query", "", "", "", 1}, @release]

    # ---- preparing ----

    @doc "Describes a statement, and prepares it if it has a name."
    def prepare(s, %Query{kind: kind} = query, _opts) when kind in [:direct, :copy],
      do: {:ok, query, s}

    def prepare(s, %Query{} = query, opts) do
      query = named(s, query)

      case query.ref == nil && kept(s, query) do
        %Query{} = kept -> {:ok, kept, s}
        _ when is_tuple(query.kind) -> Bulk.describe(s, query, opts)
        _ -> describe(s, query, opts)
      end
    end

    defp named(_s, %{name: ""} = query), do: query

    defp named(s, query),
      do: if(option(s, :prepare) == :unnamed, do: %{query | name: ""}, else: query)

    defp kept(_s, %{name: ""}), do: nil

    defp kept(s, %{name: name, statement: statement}) do
      case :ets.lookup(s.table, {:query, name}) do
        [{_, %{statement: ^statement} = query}] -> query
        _ -> nil
      end
    end

    defp describe(s, query, opts) do
      name = new_name(query)
      close = close_old(s, query)
      steps = [{:prepare, name, query.statement, ""}, {:describe, name}]

      case perform(s, close ++ steps, query.statement, opts) do
        {:ok, ended, _notices, s} ->
          {:described, oids, columns} = List.last(ended)
          described(s, query, name, oids, columns)

        # It was the old one that is not there.
        {:error, error, s} ->
          if close != [] and dropped?(error) and s.status != :error,
            do: describe(s, query, opts),
            else: {:error, error, s}

        disconnect ->
          disconnect
      end
    end

    defp new_name(%{name: ""}), do: ""
    defp new_name(_), do: "causeway_#{System.unique_integer([:positive])}"

    defp close_old(s, query) do
      case :ets.take(s.table, query.name) do
        [{_, _, name}] -> [{:close, name}]
        _ -> []
      end
    end

    @doc "The query with what it takes and gives; remembered as prepared under the server's name, if it is."
    def described(s, query, name, oids, columns) do
      types = :ets.lookup_element(s.table, :types, 2)

      case Query.described(query, types, oids, columns, &catalogue(s, &1)) do
        {:ok, query} -> {:ok, remember(s, query, name), s}
        {:error, error} -> {:error, error, s}
      end
    end

    defp remember(_s, %{name: ""} = query, _name), do: query
    defp remember(_s, query, ""), do: query

    # Not yet prepared, but known.
    defp remember(s, query, nil) do
      :ets.insert(s.table, {{:query, query.name}, query})
      query
    end

    defp remember(s, query, name) do
      :ets.insert(s.table, {query.name, query.ref, name})
      if query.keep, do: remember(s, query, nil), else: query
    end

    # How types are looked up that are not known yet. The connection's state does not change by it: an error would
    # spoil a transaction, but these are the server's own tables.
    @doc false
    def catalogue(s, sql) do
      case Wire.run(s, [{:query, sql, "", "", "", 0}]) do
        {:ok, %{ended: [{:ok, _, frames, columns}]}, _} ->
          {:ok, texts(frames, length(columns))}

        {:ok, %{ended: [{:error, why, fields}]}, _} ->
          {:error, Errors.server(why, fields, s.id, sql)}

        {:lost, why, _} ->
          {:error, Errors.lost(why)}
      end
    end

    @doc "Rows of texts."
    def texts(frames, width) do
      for {values, _} <- Enum.reverse(frames),
          row <- values |> texts() |> Enum.chunk_every(width),
          do: row
    end

    defp texts(<<-1::signed-32, rest::binary>>), do: [nil | texts(rest)]

    defp texts(<<size::32, text::binary-size(size), rest::binary>>),
      do: [:binary.copy(text) | texts(rest)]

    defp texts(<<>>), do: []

    # ---- running ----

    @doc "Runs a statement; one that this connection has not prepared is prepared in the same round trip."
    def execute(s, %Query{kind: :direct} = query, "", opts) do
      step = {:query, query.statement, "", "", "", 1}

      with {:ok, [{:ok, _, _, columns} = ended], notices, s} <- tracked(s, [step], query, opts),
           {:ok, query, s} <- described(s, query, "", [], columns || []) do
        finish(s, query, ended, notices)
      end
    end

    def execute(s, %Query{name: ""} = query, values, opts) do
      step = {:query, query.statement, query.oids, values, query.formats, query.format}

      with {:ok, [ended], notices, s} <- tracked(s, [step], query, opts),
           do: finish(s, query, ended, notices)
    end

    def execute(s, %Query{ref: ref} = query, values, opts) do
      case :ets.lookup(s.table, query.name) do
        [{_, ^ref, name}] -> run(s, query, name, values, opts)
        _ -> prepare_and_run(s, query, values, opts)
      end
    end

    defp step(query, name, values),
      do: {:execute, name, values, query.formats, query.format}

    defp run(s, query, name, values, opts) do
      case tracked(s, [step(query, name, values)], query, opts) do
        {:ok, [ended], notices, s} -> finish(s, query, ended, notices)
        {:error, error, s} -> stale(s, query, values, opts, error)
        disconnect -> disconnect
      end
    end

    # It was not run if it is not there any more, or gives other columns now. Outside of a transaction, and after a
    # savepoint, it can be.
    defp stale(s, query, values, opts, error) do
      cond do
        dropped?(error) ->
          :ets.delete(s.table, query.name)
          again(s, query, values, opts, error)

        changed?(error) ->
          forget(s, query)
          again(s, query, values, opts, error)

        true ->
          if unfit?(error), do: forget(s, query)
          {:error, error, s}
      end
    end

    # It is prepared on the server, but is not to be used any more.
    defp forget(s, query) do
      :ets.update_element(s.table, query.name, {2, nil})
      :ets.delete(s.table, {:query, query.name})
    end

    defp again(%{status: :error} = s, _query, _values, _opts, error), do: {:error, error, s}
    defp again(s, query, values, opts, _error), do: prepare_and_run(s, query, values, opts)

    # By DISCARD ALL, or because there is a pooler between.
    defp dropped?(%{postgres: %{pg_code: "26000"}}), do: true
    defp dropped?(_), do: false

    defp changed?(%{postgres: %{pg_code: "0A000", routine: "RevalidateCachedQuery"}}), do: true
    defp changed?(_), do: false

    # The table has been changed so that the parameters' types are not those that it takes.
    defp unfit?(%{postgres: %{code: code}}),
      do: code in ~w(datatype_mismatch undefined_function indeterminate_datatype cannot_coerce)a

    defp unfit?(_), do: false

    # The parameters' types are given, not found: values of others are not taken for them.
    defp prepare_and_run(s, query, values, opts) do
      name = new_name(query)
      close = close_old(s, query)

      steps = [
        {:prepare, name, query.statement, query.oids},
        {:describe, name},
        step(query, name, values)
      ]

      case tracked(s, close ++ steps, query, opts) do
        {:ok, ended, notices, s} ->
          prepared_and_run(s, query, name, Enum.take(ended, -2), notices)

        # It was the old one that is not there.
        {:error, error, s} ->
          if close != [] and dropped?(error),
            do: again(s, query, values, opts, error),
            else: {:error, error, s}

        disconnect ->
          disconnect
      end
    end

    defp prepared_and_run(s, query, name, [{:described, oids, columns}, ended], notices) do
      if Query.fingerprint(oids, columns) == query.described do
        finish(s, remember(s, query, name), ended, notices)
      else
        with {:ok, query, s} <- described(s, query, name, oids, columns),
             do: finish(s, query, ended, notices)
      end
    end

    defp tracked(%{status: :idle} = s, steps, query, opts) do
      if Commits.wanted?(opts),
        do: Commits.perform(s, steps, query.statement, opts),
        else: perform(s, steps, query.statement, opts)
    end

    defp tracked(s, steps, query, opts), do: perform(s, steps, query.statement, opts)

    @doc "Closes a prepared statement."
    def close(s, query, opts) do
      case close_old(s, query) do
        [] ->
          {:ok, %Postgrex.Result{command: :close, num_rows: 0, connection_id: s.id}, s}

        steps ->
          with {:ok, [ended], notices, s} <- perform(s, steps, query.statement, opts),
               do: {:ok, result(ended, notices, s), s}
      end
    end

    @doc "Runs commands that have neither parameters nor rows: how each ended."
    def commands(s, commands, opts) do
      steps = for command <- commands, do: {:query, command, "", "", "", 1}
      perform(s, steps, hd(commands), opts)
    end

    @doc "Runs SQL of any number of statements, without parameters: how each ended."
    def script(s, sql, opts), do: alone(s, opts, &plain(&1, [{:simple, sql}], sql, opts))

    # ---- results ----

    defp finish(s, query, ended, notices) do
      case {result(ended, notices, s), ended} do
        {result, {:ok, _, frames, _}} when query.result != nil ->
          {:ok, query, {:frames, frames, %{result | columns: query.columns}}, s}

        # Columns may be none and rows be there: SELECT FROM.
        {%{command: :select, num_rows: n} = result, _} ->
          {:ok, query, %{result | columns: [], rows: List.duplicate([], n)}, s}

        {result, _} ->
          {:ok, query, result, s}
      end
    end

    @doc "What is to be said of a statement that has ended well, but for its rows."
    def result({:ok, tag, frames, _columns}, notices, s) do
      {command, n} = Protocol.tag(tag)

      %Postgrex.Result{
        command: command,
        # Not all tags have a number.
        num_rows: if(n == 0, do: count(frames), else: n),
        connection_id: s.id,
        messages: Enum.map(notices, &Errors.notice/1)
      }
    end

    defp count([]), do: 0
    defp count(frames), do: frames |> Enum.map(&elem(&1, 1)) |> Enum.sum()

    # ---- steps ----

    @doc """
    Runs steps, and gives how each ended when all did well. Otherwise the transaction is in a failed state, or back at
    the savepoint.
    """
    def perform(s, steps, statement, opts) do
      case Keyword.get(opts, :mode, :transaction) do
        :transaction -> plain(s, steps, statement, opts)
        :savepoint when s.status == :transaction -> saved(s, steps, statement, opts)
        :savepoint -> {:error, DBConnection.TransactionError.exception(s.status), s}
      end
    end

    # What is simple goes alone.
    defp plain(%{begin?: true, copy: nil} = s, [{:simple, _}] = steps, statement, opts) do
      with {:ok, s} <- begin(s), do: plain(s, steps, statement, opts)
    end

    defp plain(%{begin?: true, copy: nil} = s, steps, statement, opts) do
      case plain(%{s | begin?: false}, [@begin | steps], statement, opts) do
        {:ok, [_ | ended], notices, s} -> {:ok, ended, notices, s}
        other -> begun(other)
      end
    end

    defp plain(%{copy: nil} = s, steps, statement, opts) do
      case Wire.run(s, steps, deadline(opts)) do
        {:ok, answer, s} ->
          case failure(answer.ended) do
            nil -> {:ok, answer.ended, answer.notices, s}
            error -> failed(s, error, statement)
          end

        {:lost, why, answer} ->
          {:disconnect, Errors.lost(why, failure(answer.ended), s.id, statement), s}
      end
    end

    defp plain(s, _steps, statement, _opts) do
      message =
        "connection is locked copying to or from the database and can not execute #{inspect(statement)}"

      {:error, ArgumentError.exception(message), s}
    end

    @doc "Says BEGIN if it is still to be said, for what cannot go along with it."
    def begin(%{begin?: false} = s), do: {:ok, s}

    def begin(s) do
      case plain(%{s | begin?: false}, [@begin], "BEGIN", []) do
        {:ok, _, _, s} -> {:ok, s}
        other -> begun(other)
      end
    end

    # Without its transaction, what comes next would be one of its own.
    defp begun({:error, error, %{status: :idle} = s}), do: {:disconnect, error, s}
    defp begun(other), do: other

    defp saved(s, steps, statement, opts) do
      case plain(s, [@savepoint | steps] ++ [@release], statement, opts) do
        {:ok, [_ | ended], notices, s} -> {:ok, Enum.drop(ended, -1), notices, s}
        {:error, error, %{status: :error} = s} -> undo(s, error)
        other -> other
      end
    end

    @doc """
    Calls a function for what no other step can go along with; a savepoint and its release are round trips then. It
    gives four elements when all is well.
    """
    def alone(s, opts, fun) do
      case Keyword.get(opts, :mode, :transaction) do
        :transaction -> fun.(s)
        :savepoint when s.status == :transaction -> saved_alone(s, fun)
        :savepoint -> {:error, DBConnection.TransactionError.exception(s.status), s}
      end
    end

    defp saved_alone(s, fun) do
      with {:ok, _, _, s} <- plain(s, [@savepoint], "SAVEPOINT", []) do
        case fun.(s) do
          {:ok, one, other, s} -> with {:ok, s} <- release(s), do: {:ok, one, other, s}
          {:error, error, %{status: :error} = s} -> undo(s, error)
          {:error, error, s} -> with {:ok, s} <- release(s), do: {:error, error, s}
          disconnect -> disconnect
        end
      end
    end

    defp release(s),
      do: with({:ok, _, _, s} <- plain(s, [@release], "RELEASE SAVEPOINT", []), do: {:ok, s})

    defp undo(s, error) do
      case Wire.run(s, @undo) do
        {:ok, _, s} -> {:error, error, s}
        {:lost, why, _} -> {:disconnect, Errors.lost(why), s}
      end
    end

    # What came after a step that failed was not run.
    defp failure([{:error, _, _} = error | _]), do: error
    defp failure([_ | rest]), do: failure(rest)
    defp failure([]), do: nil

    defp failed(s, {:error, why, fields}, statement) do
      error = Errors.server(why, fields, s.id, statement)

      if error.postgres[:code] in option(s, :disconnect_on),
        do: {:disconnect, error, s},
        else: {:error, error, s}
    end

    @doc "Milliseconds until the server is told to cancel, as a request has them."
    def deadline(opts) do
      case Keyword.get(opts, :cancel_after) do
        ms when is_integer(ms) -> ms
        _ -> 0
      end
    end

    @doc "One of the connection's options."
    def option(%{table: table}, name),
      do: table |> :ets.lookup_element(:options, 2) |> Map.fetch!(name)
  end
end
