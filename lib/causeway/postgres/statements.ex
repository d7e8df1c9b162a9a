defmodule Causeway.Postgres.Statements do
  @moduledoc false
  # Statements, from SQL and parameters to a result, in the calling process.
  #
  # What is known of a statement is kept in the connection's table, by its SQL. The first time, it is described and then
  # run without a name: two round trips. The second time it is given a name on the server, and run: one round trip, as all
  # that follow. So what is run once only leaves nothing behind. Commands that have neither parameters nor rows need
  # no description, and take one round trip always.
  #
  # A row of the table is {sql, used, name, query}; `used` is an atomic with the time of the last use.

  alias Causeway.Error.Short
  alias Causeway.Postgres.{Codec, Error, Listeners, Protocol, Query, Request, Result, Session}
  alias Causeway.Postgres.StatementCache, as: Cache
  alias Causeway.Postgres.Types

  # No rows come of these, whatever follows.
  @commands ~w(ABORT ALTER ANALYZE BEGIN CHECKPOINT CLUSTER COMMENT COMMIT COPY CREATE DEALLOCATE DISCARD DO DROP END GRANT
    LISTEN LOCK NOTIFY PREPARE REASSIGN REFRESH REINDEX RELEASE RESET REVOKE ROLLBACK SAVEPOINT SECURITY SET START
    TRUNCATE UNLISTEN VACUUM)
  @command_bytes 12

  # ---- a statement by its SQL ----

  @doc "Runs SQL with parameters."
  @spec query(Session.t(), String.t(), [term], timeout) ::
          {:ok, Result.t()} | {:error, Exception.t()}
  def query(session, sql, params, timeout) do
    case Cache.find(session, sql) do
      {:hot, hot} -> hot(session, sql, hot, params, timeout)
      :known -> again(session, sql, params, timeout)
      nil -> first(session, sql, params, timeout)
    end
  rescue
    # The table went with the connection's process.
    error in ArgumentError ->
      if :ets.info(session.table) == :undefined,
        do: {:error, stopped()},
        else: reraise(error, __STACKTRACE__)
  end

  defp stopped, do: %Error{reason: :not_connected, detail: "the connection was stopped"}

  defp first(session, sql, [], timeout) do
    sql!(sql)

    if command?(sql),
      do: command(session, sql, timeout),
      else: described(session, sql, [], timeout)
  end

  defp first(session, sql, params, timeout), do: described(session, sql, params, timeout)

  defp described(session, sql, params, timeout) do
    deadline = deadline(timeout)

    # What fails is not kept: named, it would be run in a pipeline, which COPY cannot be.
    with {:ok, query} <- describe(session, sql, nil, deadline),
         {:ok, result} <-
           run(session, query, params, deadline, fn error, _ -> {:error, error} end) do
      Cache.keep(session, query)
      {:ok, result}
    end
  end

  # The second time, or one that is not hot.
  defp again(session, sql, params, timeout) do
    case Cache.query(session, sql) do
      nil -> described(session, sql, params, timeout)
      query -> again_with(session, query, params, deadline(timeout))
    end
  end

  defp again_with(session, query, params, deadline) do
    query = named(session, query)
    run(session, query, params, deadline, &retry(session, query, params, deadline, &1, &2))
  end

  defp retry(session, query, params, deadline, error, state) do
    if stale?(error), do: Cache.forget(session, query)

    if stale?(error) and state == ?I,
      do: described(session, query.statement, params, left(deadline)),
      else: {:error, error}
  end

  # When all goes well; whatever does not is looked into with all that is known of the statement.
  defp hot(
         session,
         sql,
         {name, params_codec, formats, result_codec, columns, id},
         params,
         timeout
       ) do
    case :causeway_nif.pg_encode(params_codec, params) do
      values when is_binary(values) ->
        deadline = deadline(timeout)
        body = Protocol.run([{:execute, name, values, formats, 1}])

        case Request.call(session, body, timeout) do
          {:ok, %{ended: [{:ok, tag, frames, _}]} = answer} ->
            case hot_rows(result_codec, frames, []) do
              {:error, _} -> cool(session, sql, params, deadline, answer)
              rows -> {:ok, result(answer, tag, columns, rows, id)}
            end

          {:ok, answer} ->
            cool(session, sql, params, deadline, answer)

          {:error, error} ->
            {:error, %{error | query: sql, connection_id: id}}
        end

      {:error, _} ->
        again(session, sql, params, timeout)
    end
  end

  defp hot_rows(nil, _frames, _rows), do: nil
  defp hot_rows(_codec, [], rows), do: rows

  defp hot_rows(codec, [{bytes, n} | frames], rows) do
    case :causeway_nif.pg_decode_rows(codec, bytes, n, rows) do
      {:error, reason} -> {:error, reason}
      rows -> hot_rows(codec, frames, rows)
    end
  end

  # It was run, and something is to be said about it. Somebody else may have forgotten it meanwhile.
  defp cool(session, sql, params, deadline, answer) do
    query = Cache.query(session, sql) || %Query{statement: sql}
    failed = &retry(session, query, params, deadline, &1, &2)

    case answer.ended do
      [{:error, error}] -> failed.(told(error, query), answer.state)
      [{:ok, _, _, _}] when query.result == nil -> {:error, %Error{reason: :decode, query: sql}}
      _ -> finish(session, query, answer, deadline, failed)
    end
  end

  @doc "To be given a name on the server, if it has none. When two do that at once, one name is closed again."
  @spec named(Session.t(), Query.t()) :: Query.t()
  def named(%{prepare: :named} = session, %Query{name: nil} = query),
    do: %{query | name: {:new, name(session)}}

  def named(_session, query), do: query

  defp name(session), do: "causeway_#{:erlang.unique_integer([:positive])}_#{session.depth}"

  defp command?(sql) do
    word =
      sql |> binary_part(0, min(byte_size(sql), @command_bytes)) |> String.split() |> List.first()

    word != nil and String.upcase(String.trim_trailing(word, ";")) in @commands
  end

  defp command(session, sql, timeout) do
    deadline = deadline(timeout)
    body = Protocol.run([{:query, sql, "", "", "", 1}])

    with {:ok, answer} <- Request.call(session, body, timeout) do
      case answer.ended do
        [{:ok, tag, [], _}] ->
          {:ok, result(answer, tag, nil, nil, id(session))}

        [{:error, error}] ->
          {:error, %{error | query: sql, connection_id: id(session)}}

        # It is none of those, after all, and it was run: its rows are what they are.
        [{:ok, tag, frames, columns}] ->
          rows_of_command(session, answer, tag, frames, columns, deadline)
      end
    end
  end

  defp rows_of_command(session, answer, tag, frames, columns, deadline) do
    with {:ok, types, id} <- Session.connection(session),
         fetch = fetch(session, deadline),
         {:ok, codec} <- Types.columns(types, types_of(columns), fetch),
         {:ok, rows, _} <- Types.decode(types, codec, frames, fetch) do
      {:ok, result(answer, tag, names(columns), rows, id)}
    end
  end

  defp id(session) do
    case Session.connection(session) do
      {:ok, _, id} -> id
      _ -> nil
    end
  end

  # The program has it as a string of C.
  @doc false
  def sql!(sql) do
    if :binary.match(sql, <<0>>) != :nomatch,
      do: raise(ArgumentError, "SQL cannot have a zero byte in it: #{Short.inspect(sql)}")
  end

  # ---- prepared statements ----

  @doc "Prepares a statement under a name of its own."
  @spec prepare(Session.t(), String.t(), timeout) :: {:ok, Query.t()} | {:error, Exception.t()}
  def prepare(session, sql, timeout) do
    name = if session.prepare == :named, do: name(session)
    describe(session, sql, name, deadline(timeout))
  end

  @doc "Runs a prepared statement; gives it back as it is to be used from then on."
  @spec execute(Session.t(), Query.t(), [term], timeout) ::
          {:ok, Query.t(), Result.t()} | {:error, Exception.t()}
  def execute(session, query, params, timeout) do
    deadline = deadline(timeout)

    result =
      run(session, query, params, deadline, fn error, state ->
        if stale?(error) and state == ?I, do: :stale, else: {:error, error}
      end)

    case result do
      :stale -> execute_anew(session, query, params, deadline)
      {:ok, result} -> {:ok, query, result}
      error -> error
    end
  end

  defp execute_anew(session, query, params, deadline) do
    Cache.close(session, [query.name])

    with {:ok, query} <- prepare(session, query.statement, left(deadline)),
         {:ok, result} <-
           run(session, query, params, deadline, fn error, _ -> {:error, error} end),
         do: {:ok, query, result}
  end

  @doc "Closes a prepared statement."
  @spec close(Session.t(), Query.t(), timeout) :: :ok | {:error, Exception.t()}
  def close(_session, %Query{name: nil}, _timeout), do: :ok

  def close(session, query, timeout) do
    with {:ok, answer} <- Request.call(session, Protocol.run([{:close, query.name}]), timeout) do
      case answer.ended do
        [{:ok, _, _, _}] -> :ok
        # It is gone already, with an earlier connection mostly.
        [{:error, %{postgres: %{pg_code: "26000"}}}] when answer.state == ?I -> :ok
        [{:error, error}] -> {:error, error}
      end
    end
  end

  @doc "What is known of a statement, found out if it has to be; with nothing changed on the server."
  @spec known(Session.t(), String.t() | Query.t(), timeout) ::
          {:ok, Query.t()} | {:error, Exception.t()}
  def known(_session, %Query{} = query, _timeout), do: {:ok, query}

  def known(session, sql, timeout) do
    case Cache.query(session, sql) do
      nil ->
        with {:ok, query} <- describe(session, sql, nil, deadline(timeout)) do
          Cache.keep(session, query)
          {:ok, query}
        end

      query ->
        {:ok, query}
    end
  end

  # ---- describing ----

  @doc "What a statement is: without a name, or prepared under one."
  @spec describe(Session.t(), String.t(), String.t() | nil, integer | :infinity) ::
          {:ok, Query.t()} | {:error, Exception.t()}
  def describe(session, sql, name, deadline) do
    sql!(sql)
    steps = [{:prepare, name || "", sql, ""}, {:describe, name || ""}]

    with {:ok, answer} <- Request.call(session, Protocol.run(steps), left(deadline)) do
      case answer.ended do
        [_, {:described, oids, columns}] -> make(session, sql, name, oids, columns, deadline)
        ended -> {:error, described_error(session, ended, [sql], 0)}
      end
    end
  end

  @doc "Describes several in one round trip."
  @spec describe_all(Session.t(), [String.t()], integer | :infinity) ::
          {:ok, [Query.t()]} | {:error, Exception.t()}
  def describe_all(session, sqls, deadline) do
    Enum.each(sqls, &sql!/1)
    steps = Enum.flat_map(sqls, &[{:prepare, "", &1, ""}, {:describe, ""}])

    with {:ok, answer} <- Request.call(session, Protocol.run(steps), left(deadline)) do
      case Enum.find_index(answer.ended, &match?({:error, _}, &1)) do
        nil -> make_all(session, Enum.zip(sqls, Enum.chunk_every(answer.ended, 2)), [], deadline)
        index -> {:error, described_error(session, answer.ended, sqls, index)}
      end
    end
  end

  defp described_error(session, ended, sqls, index) do
    {:error, error} = Enum.at(ended, index)
    %{error | query: Enum.at(sqls, div(index, 2)), connection_id: id(session)}
  end

  defp make_all(_session, [], made, _deadline), do: {:ok, Enum.reverse(made)}

  defp make_all(session, [{sql, [_, {:described, oids, columns}]} | rest], made, deadline) do
    with {:ok, query} <- make(session, sql, nil, oids, columns, deadline),
         do: make_all(session, rest, [query | made], deadline)
  end

  defp make(session, sql, name, oids, columns, deadline) do
    fetch = fetch(session, deadline)

    with {:ok, types, id} <- Session.connection(session),
         {:ok, params} <- Types.params(types, oids, fetch),
         {:ok, result} <- column_codec(types, columns, fetch) do
      {:ok,
       %Query{
         statement: sql,
         name: name,
         param_oids: oids,
         params: params,
         result: result,
         columns: names(columns),
         types: types,
         connection_id: id
       }}
    end
  end

  defp column_codec(_types, [], _fetch), do: {:ok, nil}
  defp column_codec(types, columns, fetch), do: Types.columns(types, types_of(columns), fetch)

  defp types_of(columns), do: for({_, oid, mod, _, _} <- columns, do: {oid, mod})

  defp names([]), do: nil
  defp names(nil), do: nil
  defp names(columns), do: for({name, _, _, _, _} <- columns, do: name)

  # How Types looks into the catalogue: rows of text.
  defp fetch(session, deadline) do
    fn sql ->
      body = Protocol.run([{:query, sql, "", "", "", 0}])

      with {:ok, answer} <- Request.call(session, body, left(deadline)) do
        case answer.ended do
          [{:ok, _, frames, columns}] -> {:ok, texts(frames, length(columns))}
          [{:error, error}] -> {:error, error}
        end
      end
    end
  end

  @doc "Rows of texts."
  def texts(frames, width) do
    for {values, _} <- Enum.reverse(frames),
        row <- values |> text_values() |> Enum.chunk_every(width),
        do: row
  end

  defp text_values(<<-1::signed-32, rest::binary>>), do: [nil | text_values(rest)]

  defp text_values(<<size::32, text::binary-size(size), rest::binary>>),
    do: [:binary.copy(text) | text_values(rest)]

  defp text_values(<<>>), do: []

  # ---- running ----

  # `failed` is asked what to do about an error of the server's, and is told the transaction's state.
  defp run(session, query, params, deadline, failed) do
    with {:ok, values} <- Codec.encode(query.params, params),
         body = Protocol.run(steps(query, values)),
         {:ok, answer} <- Request.call(session, body, left(deadline)) do
      finish(session, query, answer, deadline, failed)
    else
      {:error, %Error{} = error} -> {:error, %{error | query: query.statement}}
      {:error, error} -> {:error, error}
    end
  end

  @doc "The steps that run a statement; of several, the last one is it."
  @spec steps(Query.t(), Protocol.values()) :: [Protocol.step()]
  def steps(%Query{name: nil} = query, values) do
    [
      {:query, query.statement, Protocol.oids(query.param_oids), values,
       query.params.param_formats, format(query)}
    ]
  end

  def steps(%Query{name: {:new, name}} = query, values) do
    [
      {:prepare, name, query.statement, Protocol.oids(query.param_oids)}
      | steps(%{query | name: name}, values)
    ]
  end

  def steps(%Query{name: name} = query, values),
    do: [{:execute, name, values, query.params.param_formats, format(query)}]

  defp format(%{result: nil}), do: 1
  defp format(%{result: codec}), do: codec.result_format

  @doc "What has come of a statement that was run."
  def finish(session, query, answer, deadline, failed) do
    # Prepared, it is, whatever has come of running it.
    query = prepared(session, query, answer.ended)

    case List.last(answer.ended) do
      {:ok, tag, frames, _} -> decode(session, query, answer, tag, frames, deadline)
      {:error, error} -> failed.(told(first_error(answer.ended, error), query), answer.state)
    end
  end

  defp first_error(ended, last) do
    Enum.find_value(ended, last, fn
      {:error, %{reason: :aborted}} -> nil
      {:error, error} -> error
      _ -> nil
    end)
  end

  defp told(error, query),
    do: %{error | query: query.statement, connection_id: query.connection_id}

  defp prepared(session, %{name: {:new, name}} = query, [{:ok, _, _, _} | _]) do
    query = %{query | name: name}
    Cache.keep(session, query)
    query
  end

  defp prepared(_session, %{name: {:new, _}} = query, _ended), do: %{query | name: nil}
  defp prepared(_session, query, _ended), do: query

  defp decode(_session, %Query{result: nil} = query, answer, tag, _frames, _deadline),
    do: {:ok, result(answer, tag, nil, nil, query.connection_id)}

  defp decode(session, query, answer, tag, frames, deadline) do
    case Types.decode(query.types, query.result, frames, fetch(session, deadline)) do
      {:ok, rows, codec} ->
        if codec.ref != query.result.ref, do: Cache.update(session, %{query | result: codec})
        {:ok, result(answer, tag, query.columns, rows, query.connection_id)}

      {:error, %Error{} = error} ->
        {:error, error}

      {:error, reason} ->
        {:error, %Error{reason: :decode, detail: inspect(reason), query: query.statement}}
    end
  end

  defp result(answer, tag, columns, rows, id) do
    {command, n} = Protocol.tag(tag)

    %Result{
      command: command,
      columns: columns,
      rows: rows,
      num_rows: n,
      connection_id: id,
      messages: answer.notices
    }
  end

  # The server has dropped the statement (DISCARD ALL, a pooler), or its columns have changed.
  defp stale?(%{reason: :server, postgres: %{pg_code: "26000"}}), do: true

  defp stale?(%{reason: :server, postgres: %{pg_code: "0A000", routine: "RevalidateCachedQuery"}}),
    do: true

  defp stale?(_), do: false

  # ---- several statements ----

  @doc "Runs SQL of any number of statements without parameters; values are texts."
  @spec script(Session.t(), String.t(), timeout) :: {:ok, [Result.t()]} | {:error, Exception.t()}
  def script(session, sql, timeout) do
    sql!(sql)

    with {:ok, answer} <- Request.call(session, Protocol.run([{:simple, sql}]), timeout) do
      id = id(session)

      case List.last(answer.ended) do
        {:error, error} ->
          {:error, %{error | query: sql, connection_id: id}}

        _ ->
          {:ok,
           for(
             {:ok, tag, frames, columns} <- answer.ended,
             do: text_result(tag, frames, columns, id)
           )}
      end
    end
  end

  defp text_result(tag, frames, columns, id) do
    rows = if columns, do: texts(frames, max(length(columns), 1))
    result(%{notices: []}, tag, names(columns), rows, id)
  end

  @doc "Runs a command without parameters and rows, and with what it does to the lock."
  @spec control(Session.t(), String.t(), timeout, Request.role()) ::
          {:ok, byte, atom} | {:error, Error.t()}
  def control(session, sql, timeout, role \\ :plain) do
    with {:ok, answer} <- Request.call(session, Protocol.run([{:simple, sql}]), timeout, role) do
      case List.last(answer.ended) do
        {:ok, tag, _, _} -> {:ok, answer.state, tag |> Protocol.tag() |> elem(0)}
        {:error, error} -> {:error, %{error | query: sql}}
      end
    end
  end

  @doc "A name as SQL has it."
  defdelegate quoted(name), to: Listeners

  # ---- time ----

  def deadline(:infinity), do: :infinity
  def deadline(timeout), do: System.monotonic_time(:millisecond) + timeout

  def left(:infinity), do: :infinity
  def left(deadline), do: max(deadline - System.monotonic_time(:millisecond), 1)
end
