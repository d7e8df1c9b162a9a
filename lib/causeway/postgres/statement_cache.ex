defmodule Causeway.Postgres.StatementCache do
  @moduledoc false
  # What is known of statements, by their SQL, in the connection's table, which its callers read and write by themselves.
  # Of each there are two rows, as copying a large one out of the table costs more than all else:
  #
  #     {sql, used, hot}           what it takes to run it when all goes well; `used` is an atomic, the time of the last use
  #     {{:query, sql}, query}     all of it
  #
  # `hot` is nil while the statement has no name on the server, or when its values need more than the C codec; otherwise
  # {name, codec of parameters, their formats, codec of columns or nil, columns, the server's process}.

  alias Causeway.Postgres.{Query, Session}

  @type hot :: {binary, reference, binary, reference | nil, [binary] | nil, pos_integer}

  @doc "Looks for a statement: how to run it at once, or that it is known, or nothing."
  @spec find(Session.t(), binary) :: {:hot, hot} | :known | nil
  def find(session, sql) do
    case :ets.lookup(session.table, sql) do
      [{_, used, hot}] ->
        :atomics.put(used, 1, System.monotonic_time())
        if hot, do: {:hot, hot}, else: :known

      [] ->
        nil
    end
  rescue
    # The table went with the connection's process, which whoever asks is told by the request that follows.
    ArgumentError -> nil
  end

  @doc "All that is known of a statement, or nil."
  @spec query(Session.t(), binary) :: Query.t() | nil
  def query(session, sql) do
    case :ets.lookup(session.table, {:query, sql}) do
      [{_, query}] -> query
      [] -> nil
    end
  rescue
    ArgumentError -> nil
  end

  @doc """
  Keeps a statement, and lets go of those not used for longest when there are too many. Of two that have given it a name
  at the same time, the first stays: others may be about to use that.
  """
  @spec keep(Session.t(), Query.t()) :: any
  def keep(%{cache: 0} = session, query), do: close(session, [query.name])

  def keep(session, query) do
    # One of another connection is worth nothing.
    with {:ok, _, id} when id == query.connection_id <- Session.connection(session) do
      case query(session, query.statement) do
        %{name: name} when is_binary(name) and name != query.name -> close(session, [query.name])
        _ -> put(session, query)
      end
    end
  rescue
    ArgumentError -> :ok
  end

  defp put(session, query) do
    used = :atomics.new(1, signed: true)
    :atomics.put(used, 1, System.monotonic_time())
    :ets.insert(session.table, {{:query, query.statement}, query})
    :ets.insert(session.table, {query.statement, used, hot(query)})
    if :ets.info(session.table, :size) > 2 * session.cache + 2, do: evict(session)
  end

  defp hot(%{name: name, params: params, result: result} = query) do
    if is_binary(name) and params.json == nil and plain?(result) do
      {name, params.ref, params.param_formats, result && result.ref, query.columns,
       query.connection_id}
    end
  end

  defp plain?(nil), do: true
  defp plain?(codec), do: codec.json == nil and codec.result_format == 1

  @doc "The same statement with other codecs or columns. One that was prepared under a name of its own is not touched."
  def update(session, %{name: name} = query) do
    with %{name: ^name} <- query(session, query.statement) do
      :ets.update_element(session.table, {:query, query.statement}, {2, query})
      :ets.update_element(session.table, query.statement, {3, hot(query)})
    end
  rescue
    ArgumentError -> false
  end

  @doc "Forgets what is known of a statement, by its SQL, and its name on the server."
  def forget(session, sql) do
    known = query(session, sql)
    :ets.delete(session.table, sql)
    :ets.delete(session.table, {:query, sql})
    if known, do: close(session, [known.name])
  rescue
    ArgumentError -> :ok
  end

  # An eighth at a time.
  defp evict(session) do
    all =
      :ets.select(session.table, [{{:"$1", :"$2", :_}, [{:is_binary, :"$1"}], [{{:"$2", :"$1"}}]}])

    oldest = Enum.sort_by(all, fn {used, _} -> :atomics.get(used, 1) end)

    for {_, sql} <- Enum.take(oldest, div(length(all), 8) + 1), do: forget(session, sql)
  end

  @doc "Has the server forget statements, when there is time for it."
  def close(session, names) do
    names = Enum.filter(names, &is_binary/1)
    if names != [], do: send(session.pid, {:causeway_close, names})
  end
end
