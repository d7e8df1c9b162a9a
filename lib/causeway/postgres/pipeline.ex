defmodule Causeway.Postgres.Pipeline do
  @moduledoc false
  # Many statements in one round trip, and one before it when some of them are not known yet.

  alias Causeway.Postgres.{Codec, Error, Protocol, Query, Request, Statements}
  alias Causeway.Postgres.StatementCache, as: Cache

  @type item :: {String.t() | Query.t(), [term]} | String.t()

  @doc "See `Causeway.Postgres.pipeline/3`."
  def run(session, items, opts) do
    deadline = Statements.deadline(Keyword.get(opts, :timeout, session.timeout))
    alone? = not Keyword.get(opts, :transaction, true)
    items = Enum.map(items, &item!/1)

    with {:ok, queries} <- known(session, items, deadline),
         {:ok, planned} <- plan(session, items, queries) do
      send_all(session, planned, alone?, deadline)
    end
  end

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

    case Enum.reject(sqls, &is_map_key(found, &1)) do
      [] -> {:ok, found}
      missing -> describe(session, missing, found, deadline)
    end
  end

  defp describe(session, sqls, found, deadline) do
    with {:ok, queries} <- Statements.describe_all(session, sqls, deadline) do
      for query <- queries, do: Cache.keep(session, query)
      {:ok, for(query <- queries, into: found, do: {query.statement, query})}
    end
  end

  # ---- what is sent ----

  # For each item its query, and the steps that run it, of which the last one is the statement itself.
  defp plan(session, items, queries) do
    counts = Enum.frequencies_by(items, &elem(&1, 0))

    items
    |> Enum.reduce_while({:ok, [], queries}, fn {sql, params}, {:ok, planned, queries} ->
      query = if is_binary(sql), do: queries[sql], else: sql
      query = if counts[sql] > 1, do: Statements.named(session, query), else: query

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
         {:ok, results} <- results(session, planned, answer, deadline) do
      if alone?, do: {:ok, results}, else: all_or_nothing(results)
    end
  end

  # ---- what comes back ----

  defp results(session, planned, answer, deadline) do
    {results, []} =
      planned
      |> Enum.with_index()
      |> Enum.map_reduce(answer.ended, fn {{query, steps}, index}, ended ->
        {own, rest} = Enum.split(ended, length(steps))
        answer = %{answer | ended: own, notices: []}
        {result(session, query, answer, index, deadline), rest}
      end)

    {:ok, results}
  end

  defp result(session, query, answer, index, deadline) do
    failed = fn error, _state -> {:error, %{error | step: index}} end
    Statements.finish(session, query, answer, deadline, failed)
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
