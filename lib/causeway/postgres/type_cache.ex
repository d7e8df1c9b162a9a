defmodule Causeway.Postgres.TypeCache do
  @moduledoc false
  # The types of each database that any connection has met, in one ETS table. They are kept as long as a connection
  # lives that has asked for them. The process starts when it is first needed.
  #
  # Entries: {{:key, id}, key} for connections, {{:type, key, oid}, {name, spec}}.
  use GenServer

  @table __MODULE__

  @doc "What the connection's database is known by, once it has looked something up."
  @spec key(reference) :: term | nil
  def key(id) do
    :ets.lookup_element(@table, {:key, id}, 2)
  rescue
    ArgumentError -> nil
  end

  @spec type(term, non_neg_integer) :: {String.t(), term} | nil
  def type(nil, _oid), do: nil

  def type(key, oid) do
    :ets.lookup_element(@table, {:type, key, oid}, 2)
  rescue
    ArgumentError -> nil
  end

  @doc "All types of the database: `[{oid, {name, spec}}]`."
  def types(nil), do: []

  def types(key) do
    for [oid, type] <- :ets.match(@table, {{:type, key, :"$1"}, :"$2"}), do: {oid, type}
  rescue
    ArgumentError -> []
  end

  @doc "Stores types, until `owner` and all others that have looked up types of the same database are gone."
  @spec put(reference, pid, term, [{non_neg_integer, {String.t(), term}}]) :: :ok
  def put(id, owner, key, types) do
    start()
    GenServer.call(__MODULE__, {:put, id, owner, key, types})
  end

  @doc "Forgets all types of the database, and which one it is."
  @spec forget(reference) :: :ok
  def forget(id) do
    if key = key(id), do: GenServer.call(__MODULE__, {:forget, id, key}), else: :ok
  end

  defp start do
    if Process.whereis(__MODULE__) == nil do
      case GenServer.start(__MODULE__, [], name: __MODULE__) do
        {:ok, _} -> :ok
        {:error, {:already_started, _}} -> :ok
      end
    end
  end

  # The state: of each process that owns a connection its monitor, and what the connection is known by. After it has
  # connected again it is known by something else.
  @impl true
  def init(_) do
    :ets.new(@table, [:named_table, :protected, :set, read_concurrency: true])
    {:ok, %{}}
  end

  @impl true
  def handle_call({:put, id, owner, key, types}, _from, state) do
    state = watch(state, owner, id, key)
    types = for {oid, type} <- types, do: {{:type, key, oid}, type}
    :ets.insert(@table, [{{:key, id}, key} | types])
    {:reply, :ok, state}
  end

  def handle_call({:forget, id, key}, _from, state) do
    :ets.delete(@table, {:key, id})
    :ets.match_delete(@table, {{:type, key, :_}, :_})
    {:reply, :ok, state}
  end

  @impl true
  def handle_info({:DOWN, _monitor, :process, owner, _}, state),
    do: {:noreply, drop(state, owner)}

  defp watch(state, owner, id, key) do
    case state do
      %{^owner => {_, ^id, ^key}} ->
        state

      %{^owner => {monitor, _, _}} ->
        state |> drop(owner, key) |> Map.put(owner, {monitor, id, key})

      %{} ->
        Map.put(state, owner, {Process.monitor(owner), id, key})
    end
  end

  # All types of a database that nobody is connected to, unless it is the one to keep.
  defp drop(state, owner, keep \\ nil) do
    {{_monitor, id, key}, state} = Map.pop(state, owner)
    :ets.delete(@table, {:key, id})

    unless key == keep or Enum.any?(state, &match?({_, {_, _, ^key}}, &1)),
      do: :ets.match_delete(@table, {{:type, key, :_}, :_})

    state
  end
end
