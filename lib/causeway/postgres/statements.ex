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

  alias Causeway.Postgres.{
    Codec,
    EncodeError,
    Error,
    Protocol,
    Query,
    Request,
    Result,
    Session
  }

  alias Causeway.Postgres.StatementCache, as: Cache
  alias Causeway.Postgres.Types

  # No rows come of these, whatever follows.
  @commands ~w(ABORT ALTER ANALYZE BEGIN CHECKPOINT CLUSTER COMMENT COMMIT COPY CREATE DEALLOCATE DISCARD DO DROP END GRANT
    LISTEN LOCK NOTIFY PREPARE REASSIGN REFRESH REINDEX RELEASE RESET REVOKE ROLLBACK SAVEPOINT SECURITY SET START
    TRUNCATE UNLISTEN VACUUM)
  @command_bytes 12

  @other_format "the columns have changed since the statement was described, and now there is one that has to be asked " <>
                  "for as text; it was run, and can be read the next time"

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
  end

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
         {:ok, values} <- encode(query, params),
         do: kept(session, query, values, deadline)
  end

  # Its columns may have changed since it was described: then it is kept as it was found to be.
  defp kept(session, query, values, deadline) do
    failed = fn error, _ -> {:error, error} end

    with {:ok, query, result} <- run(session, query, values, deadline, failed) do
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
    case encode(query, params) do
      {:ok, values} ->
        failed = &retry(session, query, params, deadline, &1, &2)
        query = named(session, query)
        session |> run(query, values, deadline, failed) |> without_query()

      {:error, refusal} ->
        encode_anew(session, query, params, refusal, deadline)
    end
  end

  # Some refuse the number of parameters, which the SQL has; others a value, and types may have changed.
  defp encode_anew(session, query, params, refusal, deadline) do
    with true <- about_types?(refusal),
         :ok <- Types.forget(query.types),
         {:ok, query} <- describe(session, query.statement, nil, deadline),
         {:ok, values} <- encode(query, params) do
      Cache.forget(session, query.statement)
      kept(session, query, values, deadline)
    else
      _ -> {:error, refusal}
    end
  end

  @doc "Whether parameters were refused for what their types are, which may be other ones by now."
  def about_types?(%EncodeError{reason: reason}),
    do: reason not in [:count, :list, :too_large, :out_of_memory]

  def about_types?(_), do: false

  defp without_query({:ok, _query, result}), do: {:ok, result}
  defp without_query(other), do: other

  defp retry(session, query, params, deadline, error, state) do
    if stale?(error), do: Cache.forget(session, query.statement)

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
      _ -> session |> finish(query, answer, deadline, failed) |> without_query()
    end
  end

  @doc "To be given a name on the server, if it has none. When two do that at once, one name is closed again."
  @spec named(Session.t(), Query.t()) :: Query.t()
  def named(%{prepare: :named} = session, %Query{name: nil} = query),
    do: %{query | name: {:new, name(session)}}

  def named(_session, query), do: query

  defp name(session), do: "causeway_#{:erlang.unique_integer([:positive])}_#{session.depth}"

  @doc "Whether a statement begins with a word after which no rows come."
  def command?(sql) do
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
        [{:ok, _, _, _}] ->
          with {:ok, query} <- undescribed(session, sql) do
            failed = fn error, _ -> {:error, error} end
            session |> finish(query, answer, deadline, failed) |> without_query()
          end
      end
    end
  end

  @doc "A statement without parameters, to be run without being described: its columns come with its rows."
  @spec undescribed(Session.t(), String.t()) :: {:ok, Query.t()} | {:error, Error.t()}
  def undescribed(session, sql) do
    sql!(sql)

    with {:ok, types, id} <- Session.connection(session),
         {:ok, params} <- Types.params(types, [], fn _ -> {:error, :busy} end) do
      {:ok,
       %Query{
         statement: sql,
         row: :unknown,
         param_oids: [],
         params: params,
         types: types,
         connection_id: id
       }}
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

    failed = fn error, state ->
      if stale?(error) and state == ?I, do: :stale, else: {:error, error}
    end

    with {:ok, values} <- encode(query, params),
         :stale <- run(session, query, values, deadline, failed),
         do: execute_anew(session, query, params, deadline)
  end

  defp execute_anew(session, query, params, deadline) do
    Cache.close(session, [query.name])

    with {:ok, query} <- prepare(session, query.statement, left(deadline)),
         {:ok, values} <- encode(query, params),
         do: run(session, query, values, deadline, fn error, _ -> {:error, error} end)
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
         row: row(columns),
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

  defp row(columns), do: for({name, oid, mod, _, _} <- columns, do: {name, oid, mod})

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

  defp texts(frames, width) do
    for {values, n} <- Enum.reverse(frames), row <- Protocol.text_rows(values, n, width), do: row
  end

  # ---- running ----

  defp encode(query, params), do: Codec.encode(query.params, params)

  # `failed` is asked what to do about an error of the server's, and is told the transaction's state.
  defp run(session, query, values, deadline, failed) do
    body = Protocol.run(steps(query, values))

    case Request.call(session, body, left(deadline), :plain, settled(query)) do
      {:ok, answer} -> finish(session, query, answer, deadline, failed)
      {:error, error} -> {:error, %{error | query: query.statement}}
    end
  end

  # The codec, where the columns cannot have changed: see decode/5.
  defp settled(%{name: name, result: codec}) when is_binary(name), do: codec
  defp settled(_query), do: nil

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
      {:prepare, name, query.statement, Protocol.oids(query.param_oids)},
      {:describe, name}
      | steps(%{query | name: name}, values)
    ]
  end

  def steps(%Query{name: name} = query, values),
    do: [{:execute, name, values, query.params.param_formats, format(query)}]

  defp format(%{result: nil}), do: 1
  defp format(%{result: codec}), do: codec.result_format

  @doc """
  What has come of a statement that was run: its result, and the statement as it is to be used from then on, or what
  `failed` has to say.
  """
  def finish(session, query, answer, deadline, failed) do
    case List.last(answer.ended) do
      {:ok, tag, frames, columns} ->
        columns = described_columns(answer.ended) || columns
        decode(session, query, columns, {answer, tag, frames}, deadline)

      {:error, error} ->
        keep_prepared(session, query, answer.ended)
        failed.(told(first_error(answer.ended, error), query), answer.state)
    end
  end

  # Prepared, it is, whatever has come of running it.
  defp keep_prepared(session, %{name: {:new, name}} = query, [{:ok, _, _, _} | _] = ended) do
    columns = described_columns(ended)

    if columns != nil and row(columns) == query.row,
      do: Cache.keep(session, prepared(query)),
      else: Cache.close(session, [name])
  end

  defp keep_prepared(_session, _query, _ended), do: :ok

  defp described_columns(ended) do
    Enum.find_value(ended, fn
      {:described, _, columns} -> columns
      _ -> nil
    end)
  end

  defp first_error(ended, last) do
    Enum.find_value(ended, last, fn
      {:error, %{reason: :aborted}} -> nil
      {:error, error} -> error
      _ -> nil
    end)
  end

  defp told(error, query),
    do: %{error | query: query.statement, connection_id: query.connection_id, step: nil}

  # The columns are those that the values are of, nil when they cannot have changed: the server runs no statement under a
  # name whose columns have.
  defp decode(session, old, columns, {answer, tag, frames}, deadline) do
    fetch = fetch(session, deadline)

    with {:ok, query} <- with_columns(prepared(old), columns, fetch),
         {:ok, query, rows} <- decode_rows(query, frames, fetch) do
      remember(session, old, query)
      {:ok, query, result(answer, tag, query.columns, rows, query.connection_id)}
    else
      {:error, error} -> undecodable(session, old, error)
    end
  end

  defp undecodable(session, query, error) do
    Cache.forget(session, query.statement)

    if is_exception(error),
      do: {:error, error},
      else: {:error, %Error{reason: :decode, detail: inspect(error), query: query.statement}}
  end

  defp remember(_session, query, query), do: :ok
  defp remember(_session, %{row: :unknown}, _query), do: :ok
  defp remember(session, %{name: {:new, _}}, query), do: Cache.keep(session, query)
  defp remember(session, _old, query), do: Cache.update(session, query)

  defp prepared(%{name: {:new, name}} = query), do: %{query | name: name}
  defp prepared(query), do: query

  defp decode_rows(%{result: nil} = query, _frames, _fetch), do: {:ok, query, nil}

  defp decode_rows(query, frames, fetch) do
    with {:ok, rows, codec} <- Types.decode(query.types, query.result, frames, fetch),
         do: {:ok, %{query | result: codec}, rows}
  end

  @doc """
  A statement with the columns that its values are of. Between its being described and run, another session may have
  altered its tables.
  """
  def with_columns(query, nil, _fetch), do: {:ok, query}

  def with_columns(query, columns, fetch) do
    if row(columns) == query.row,
      do: {:ok, query},
      else: with_other_columns(query, columns, fetch)
  end

  # They are in the format that was asked for with the columns of before in mind.
  defp with_other_columns(query, columns, fetch) do
    with {:ok, codec} <- column_codec(query.types, columns, fetch) do
      case {format(query), codec} do
        {0, %{}} ->
          {:ok, renewed(query, columns, Types.text_columns(codec))}

        {1, %{result_format: 0}} ->
          {:error, %Error{reason: :decode, detail: @other_format, query: query.statement}}

        _ ->
          {:ok, renewed(query, columns, codec)}
      end
    end
  end

  defp renewed(query, columns, codec),
    do: %{query | row: row(columns), columns: names(columns), result: codec}

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
  @doc "Whether what is known of a statement no longer holds, and it can be run when it is found out anew."
  def stale?(%{reason: :server, postgres: %{pg_code: "26000"}}), do: true

  def stale?(%{reason: :server, postgres: %{pg_code: "0A000", routine: "RevalidateCachedQuery"}}),
    do: true

  # Its parameters were sent as what is no type any more, or is not the one that is wanted.
  def stale?(%{reason: :server, postgres: %{pg_code: code}}) when code in ["42704", "42804"],
    do: true

  def stale?(%{
        reason: :server,
        postgres: %{pg_code: "XX000", message: "cache lookup failed for type" <> _}
      }),
      do: true

  # A column is of a type now that can only be asked for as text.
  def stale?(%{
        reason: :server,
        postgres: %{pg_code: "42883", routine: "getTypeBinaryOutputInfo"}
      }),
      do: true

  def stale?(_), do: false

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
    rows = if columns, do: texts(frames, length(columns))
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

  # ---- time ----

  def deadline(:infinity), do: :infinity
  def deadline(timeout), do: System.monotonic_time(:millisecond) + timeout

  def left(:infinity), do: :infinity
  def left(deadline), do: max(deadline - System.monotonic_time(:millisecond), 1)
end
