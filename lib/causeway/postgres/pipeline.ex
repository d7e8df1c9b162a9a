defmodule Causeway.Postgres.Pipeline do
  @moduledoc false
  # Many statements in one round trip, and one before it when some of them are not known yet.

  alias Causeway.Postgres.{Codec, Error, Protocol, Query, Request, Statements, Types}
  alias Causeway.Postgres.StatementCache, as: Cache

  @type item :: {String.t() | Query.t(), [term]} | String.t()

  @doc "See `Causeway.Postgres.pipeline/3`."
  def run(session, items, opts) do
    deadline = Statements.deadline(Keyword.get(opts, :timeout, session.timeout))
    alone? = not Keyword.get(opts, :transaction, true)
    items = Enum.map(items, &item!/1)

    case attempt(session, items, alone?, deadline) do
      {:again, _error} -> session |> anew(items) |> last_attempt(session, alone?, deadline)
      result -> result
    end
  end

  defp last_attempt(items, session, alone?, deadline) do
    case attempt(session, items, alone?, deadline) do
      {:again, error} -> {:error, error}
      result -> result
    end
  end

  # `{:again, error}` when nothing has been done, and what was known of the statements may have been to blame.
  defp attempt(session, items, alone?, deadline) do
    with {:ok, queries} <- known(session, items, deadline),
         {:ok, planned} <- plan(session, items, queries) do
      send_all(session, planned, alone?, deadline)
    else
      {:error, error} ->
        if Statements.about_types?(error), do: {:again, error}, else: {:error, error}
    end
  end

  # As if none of them had been met before; those that were prepared, too.
  defp anew(session, items) do
    for {item, params} <- items do
      with %Query{} = query <- item, do: Types.forget(query.types)
      sql = sql(item)
      with %Query{} = query <- Cache.query(session, sql), do: Types.forget(query.types)
      Cache.forget(session, sql)
      {sql, params}
    end
  end

  defp sql(%Query{statement: sql}), do: sql
  defp sql(sql), do: sql

  defp item!({%Query{} = query, params}) when is_list(params), do: {query, params}
  defp item!({sql, params}) when is_binary(sql) and is_list(params), do: {sql, params}
  defp item!(sql) when is_binary(sql), do: {sql, []}

  defp item!(other) do
    raise ArgumentError, "expected SQL, or {SQL or a query, parameters}, got #{inspect(other)}"
  end

  # ---- what is not known yet ----

  defp known(session, items, deadline) do
    sqls = for {sql, _} when is_binary(sql) <- items, uniq: true, do: sql
    found = for sql <- sqls, query = Cache.query(session, sql), into: %{}, do: {sql, query}

    {plain, missing} =
      items
      |> Enum.reject(fn {sql, _} -> not is_binary(sql) or is_map_key(found, sql) end)
      |> undescribed()

    with {:ok, found} <- add_undescribed(session, plain, found),
         do: describe(session, missing, items, found, deadline)
  end

  # Commands need no description, and what follows one may need what it does, and cannot be described before it. That
  # goes for statements without parameters; others have to be.
  defp undescribed(items) do
    {_, plain} =
      Enum.reduce(items, {false, []}, fn {sql, params}, {changed?, plain} ->
        command? = Statements.command?(sql)
        plain = if params == [] and (command? or changed?), do: [sql | plain], else: plain
        {changed? or command?, plain}
      end)

    {Enum.uniq(plain), Enum.uniq(for({sql, _} <- items, sql not in plain, do: sql))}
  end

  defp add_undescribed(session, sqls, found) do
    Enum.reduce_while(sqls, {:ok, found}, fn sql, {:ok, found} ->
      case Statements.undescribed(session, sql) do
        {:ok, query} -> {:cont, {:ok, Map.put(found, sql, query)}}
        error -> {:halt, error}
      end
    end)
  end

  defp describe(_session, [], _items, found, _deadline), do: {:ok, found}

  defp describe(session, sqls, items, found, deadline) do
    case Statements.describe_all(session, sqls, deadline) do
      {:ok, queries} ->
        for query <- queries, do: Cache.keep(session, query)
        {:ok, for(query <- queries, into: found, do: {query.statement, query})}

      {:error, %Error{query: sql} = error} ->
        {:error, %{error | step: Enum.find_index(items, &(elem(&1, 0) == sql))}}

      error ->
        error
    end
  end

  # ---- what is sent ----

  # For each item its query, and the steps that run it, of which the last one is the statement itself.
  defp plan(session, items, queries) do
    counts = Enum.frequencies_by(items, &elem(&1, 0))

    items
    |> Enum.reduce_while({:ok, [], queries}, fn {sql, params}, {:ok, planned, queries} ->
      query = if is_binary(sql), do: queries[sql], else: sql
      described? = query.row != :unknown
      query = if counts[sql] > 1 and described?, do: Statements.named(session, query), else: query

      case Codec.encode(query.params, params) do
        {:ok, values} ->
          planned = [{query, Statements.steps(query, values)} | planned]
          {:cont, {:ok, planned, Map.put(queries, sql, after_naming(query))}}

        {:error, error} ->
          {:halt, {:error, error}}
      end
    end)
    |> case do
      {:ok, planned, _} -> {:ok, Enum.reverse(planned)}
      error -> error
    end
  end

  # The first of its kind names it; those that follow use the name.
  defp after_naming(%{name: {:new, name}} = query), do: %{query | name: name}
  defp after_naming(query), do: query

  defp send_all(_session, [], _alone?, _deadline), do: {:ok, []}

  defp send_all(session, planned, alone?, deadline) do
    steps =
      Enum.flat_map(planned, fn {_, steps} -> if alone?, do: steps ++ [{:sync}], else: steps end)

    body = Protocol.run(steps)

    with {:ok, answer} <- Request.call(session, body, Statements.left(deadline)),
         {:ok, results} <- results(session, planned, answer, alone?, deadline) do
      forget_stale(session, planned, results)
      if alone?, do: {:ok, results}, else: results |> all_or_nothing() |> again?(answer.state)
    end
  end

  defp forget_stale(session, planned, results) do
    for {{query, _}, {:error, error}} <- Enum.zip(planned, results),
        Statements.stale?(error),
        do: Cache.forget(session, query.statement)
  end

  # All was one transaction, of which nothing is left.
  defp again?({:error, error}, ?I),
    do: if(Statements.stale?(error), do: {:again, error}, else: {:error, error})

  defp again?(result, _state), do: result

  # ---- what comes back ----

  defp results(session, planned, answer, alone?, deadline) do
    {results, []} =
      planned
      |> Enum.with_index()
      |> Enum.map_reduce(answer.ended, fn {{query, steps}, index}, ended ->
        {own, rest} = Enum.split(ended, length(steps))
        answer = %{answer | ended: own, notices: []}
        {result(session, query, answer, step(own, index, alone?), deadline), rest}
      end)

    {:ok, results}
  end

  # Of one transaction, it is not the last statement that could not be committed.
  defp step(ended, index, alone?) do
    if not alone? and match?({:error, %{step: :commit}}, List.last(ended)), do: nil, else: index
  end

  defp result(session, query, answer, index, deadline) do
    failed = fn error, _state -> {:error, %{error | step: index}} end

    with {:ok, _query, result} <- Statements.finish(session, query, answer, deadline, failed),
         do: {:ok, result}
  end

  defp all_or_nothing(results) do
    first = fn
      {:error, %Error{reason: :aborted}} -> nil
      {:error, error} -> error
      _ -> nil
    end

    case Enum.find_value(results, first) do
      nil -> {:ok, for({:ok, result} <- results, do: result)}
      error -> {:error, error}
    end
  end
end
