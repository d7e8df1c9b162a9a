defmodule Causeway.Postgres.Streaming do
  @moduledoc false
  # Results and COPY data in pieces, read from the server as they are consumed: the port program reads no further than it
  # has credit for, which is a few frames.
  #
  # In a transaction, a stream that is not read to its end must not make it fail, as the cancelled statement would: it
  # runs in a savepoint of its own, set and released in the same round trip.

  alias Causeway.Postgres.{
    Codec,
    Error,
    Protocol,
    Query,
    Request,
    Result,
    Session,
    Statements,
    Types
  }

  alias Causeway.Postgres.StatementCache, as: Cache

  @credit 4
  @savepoint "causeway_stream"
  @rollback "ROLLBACK TO SAVEPOINT #{@savepoint}; RELEASE SAVEPOINT #{@savepoint}"

  @enforce_keys [:session, :ref, :wait, :sql, :last]
  defstruct [
    :session,
    :ref,
    :wait,
    :sql,
    # How many statements there are, of which one is the stream's when there is a savepoint around it, and have ended.
    :last,
    ended: 0,
    # What there is to raise once all that came before it has been consumed.
    error: nil,
    # The transaction's, at the end of the answer.
    state: :open,
    # The statement, of rows. How to begin again, while nothing was delivered.
    query: nil,
    again: nil
  ]

  # ---- rows ----

  @doc "See `Causeway.Postgres.stream/4`."
  def rows(session, sql, params, opts) do
    timeout = Keyword.get(opts, :timeout, :infinity)
    max_rows = Keyword.get(opts, :max_rows, 500)

    # What is found out at the beginning goes with every piece: in a closure, it would be found out too early.
    begin = fn sql ->
      {query, values} = ready(session, sql, params, timeout)

      body =
        Protocol.run(in_savepoint(session, Statements.steps(query, values)), @credit, max_rows)

      %{start(session, body, timeout, query.statement) | query: query}
    end

    fn -> %{begin.(sql) | again: begin} end
    |> Stream.resource(&next/1, &stop/1)
    |> Stream.map(&result/1)
  end

  # Types may have changed since a statement was met that refuses its parameters.
  defp ready(session, sql, params, timeout) do
    query = ok!(Statements.known(session, sql, timeout))

    with {:error, refusal} <- Codec.encode(query.params, params),
         true <- Statements.about_types?(refusal) || {:error, refusal},
         Types.forget(query.types),
         Cache.forget(session, query.statement),
         {:ok, query} <- Statements.known(session, query.statement, timeout),
         {:ok, values} <- Codec.encode(query.params, params) do
      {query, values}
    else
      {:ok, values} -> {query, values}
      {:error, error} -> raise error
    end
  end

  defp in_savepoint(%Session{lock: nil}, steps), do: steps

  defp in_savepoint(_session, steps) do
    [command("SAVEPOINT #{@savepoint}")] ++ steps ++ [command("RELEASE SAVEPOINT #{@savepoint}")]
  end

  defp command(sql), do: {:query, sql, "", "", "", 1}

  defp result({{n, values}, query}) do
    %Result{
      command: :select,
      columns: query.columns,
      rows: decode(query, n, values),
      num_rows: n,
      connection_id: query.connection_id
    }
  end

  # The connection is under way with the stream, so types that nobody has met yet cannot be looked up.
  defp busy(_sql), do: {:error, :busy}

  defp decode(%{result: %Codec{}} = query, n, values) do
    case Types.decode(query.types, query.result, [{values, n}], &busy/1) do
      {:ok, rows, _codec} ->
        rows

      {:error, reason} ->
        raise Error, reason: :decode, detail: inspect(reason), query: query.statement
    end
  end

  # Its columns have changed, to types that would have to be looked up.
  defp decode(%{result: nil}, _n, _values), do: nil

  defp decode(%{result: reason, statement: sql}, _n, _values) do
    if is_exception(reason),
      do: raise(reason),
      else: raise(Error, reason: :decode, detail: inspect(reason), query: sql)
  end

  # ---- COPY ----

  @doc "See `Causeway.Postgres.copy_out/3`."
  def copy(session, sql, opts) do
    Statements.sql!(sql)
    timeout = Keyword.get(opts, :timeout, :infinity)

    whole =
      if session.lock,
        # A comment at the end of it would take in what follows on its line.
        do: "SAVEPOINT #{@savepoint}; #{sql}\n; RELEASE SAVEPOINT #{@savepoint}",
        else: sql

    begin = fn -> start(session, Protocol.copy_out(whole, @credit), timeout, sql) end

    begin
    |> Stream.resource(&next/1, &stop/1)
    |> Stream.map(fn {data, nil} -> data end)
  end

  # ---- both ----

  defp start(session, body, timeout, sql) do
    %__MODULE__{
      session: session,
      ref: Request.start(session, body, timeout),
      wait: Request.wait(timeout),
      sql: sql,
      last: if(session.lock, do: 3, else: 1)
    }
  end

  defp next(%{error: error, state: state} = stream) when error != nil and state != :open do
    if Statements.stale?(error), do: Cache.forget(stream.session, stream.sql)

    if Statements.stale?(error) and state == ?I and stream.again != nil,
      do: next(stream.again.(stream.sql)),
      else: raise(%{error | query: stream.sql})
  end

  defp next(%{state: :open} = stream) do
    case Request.next(stream.session, stream.ref, stream.wait) do
      {:more, records} ->
        Request.tell(stream.session, stream.ref, Protocol.credit(1))
        pieces(stream, records)

      {:last, state, records} ->
        Request.finish(stream.ref)
        pieces(%{stream | state: state}, records)

      {:notice, _} ->
        next(stream)

      {:error, error} ->
        {[], %{stream | state: :lost, error: error}}
    end
  end

  defp next(stream), do: {:halt, stream}

  defp pieces(stream, records) do
    {pieces, stream} = records |> Protocol.records() |> Enum.flat_map_reduce(stream, &record/2)
    stream = if pieces == [], do: stream, else: %{stream | again: nil}
    {for(piece <- pieces, do: {piece, stream.query}), stream}
  end

  defp record({:rows, n, values}, stream), do: {[{n, values}], stream}
  defp record({:end, 0, _, _tag}, stream), do: {[], ended(stream)}
  defp record({:end, n, values, _tag}, stream), do: {[{n, values}], ended(stream)}
  defp record({:copy, data}, stream), do: {[data], stream}

  # They come before any rows, and may be other ones than those it was described with.
  defp record({:columns, columns}, %{query: %Query{} = query} = stream) do
    case Statements.with_columns(query, columns, &busy/1) do
      {:ok, ^query} ->
        {[], stream}

      {:ok, query} ->
        Cache.update(stream.session, query)
        {[], %{stream | query: query}}

      {:error, error} ->
        Cache.forget(stream.session, query.statement)
        {[], %{stream | query: %{query | result: error}}}
    end
  end

  defp record({:error, why, fields}, stream),
    do: {[], %{stream | error: stream.error || Error.server(why, fields)}}

  defp record(_, stream), do: {[], stream}

  defp ended(stream), do: %{stream | ended: stream.ended + 1}

  # ---- the end ----

  # Nobody wants the rest.
  defp stop(%{state: :open} = stream) do
    Request.tell(stream.session, stream.ref, Protocol.cancel())
    drain(stream)
  end

  # What the statement has done is undone with it, unless all of it was done before the cancel came.
  defp stop(%{session: %{lock: lock} = session, state: ?E} = stream) when lock != nil do
    if stream.ended < stream.last, do: Statements.control(session, @rollback, session.timeout)
    :ok
  end

  defp stop(_stream), do: :ok

  defp drain(stream) do
    case Request.next(stream.session, stream.ref, stream.wait) do
      {:last, state, records} ->
        Request.finish(stream.ref)
        stop(%{counted(stream, records) | state: state})

      {:more, records} ->
        drain(counted(stream, records))

      {:notice, _} ->
        drain(stream)

      {:error, _} ->
        :ok
    end
  end

  defp counted(stream, records) do
    {_, stream} = records |> Protocol.records() |> Enum.flat_map_reduce(stream, &record/2)
    stream
  end

  defp ok!({:ok, value}), do: value
  defp ok!({:error, error}), do: raise(error)
end
