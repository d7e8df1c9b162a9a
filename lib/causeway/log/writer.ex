defmodule Causeway.Log.Writer do
  @moduledoc false
  # Publishes for all processes of this node, for some of the partitions: what comes while a batch is being committed is the
  # next batch. Each batch is one statement, so that the partitions are never locked while the server waits for us.

  use GenServer
  alias Causeway.Log.{Database, Error, Events, Runtime}
  alias Causeway.Postgres

  # How long it lets others run, in microseconds, before it commits without those who were answered just now.
  @patience 100

  @doc "The writer of a partition."
  def of(%{writers: writers}, partition), do: elem(writers, rem(partition, tuple_size(writers)))

  def child_spec({rt, n}) do
    %{id: {__MODULE__, n}, start: {__MODULE__, :start_link, [rt, n]}}
  end

  def start_link(rt, n),
    do: GenServer.start_link(__MODULE__, {rt, n}, name: elem(rt.writers, n))

  @doc """
  Publishes messages `{topic, payload, key, metadata}` of one partition, in order. The answer comes as
  `{ref, {:ok, first}}`, with the number of the first, or `{ref, {:error, error}}`; the reference is an alias of the caller.
  """
  def publish(rt, ref, partition, messages, count, bytes, deadline) do
    request = {:publish, ref, partition, messages, count, bytes, deadline}
    with pid when is_pid(pid) <- Process.whereis(of(rt, partition)), do: send(pid, request)
    :ok
  end

  @doc "The connection of a writer."
  def connection(rt, n), do: Runtime.process(rt, :Write, n)

  @impl true
  def init({rt, n}) do
    {:ok, %{rt: rt, conn: connection(rt, n), sql: sql(rt), expected: 1}}
  end

  defp sql(rt), do: "SELECT #{rt.schema}.log_append($1, $2, $3, $4, $5, $6, $7)"

  @impl true
  def handle_info({:publish, _, _, _, count, bytes, _} = request, state) do
    until = System.monotonic_time(:microsecond) + @patience
    {n, requests} = gather([request], 1, count, bytes, state.rt.opts, state.expected, until)
    waiting = requests |> Enum.reverse() |> Enum.reject(&late?/1) |> commit(state)
    {:noreply, %{state | expected: n + waiting}}
  end

  def handle_info(_, state), do: {:noreply, state}

  # Those who were answered just now are about to publish again: they are let run, so that they go together with those who
  # have come meanwhile. Who publishes alone waits for nobody.
  defp gather(requests, n, count, bytes, %{batch_messages: most, batch_bytes: most_bytes}, _, _)
       when count >= most or bytes >= most_bytes,
       do: {n, requests}

  defp gather(requests, n, count, bytes, opts, expected, until) do
    receive do
      {:publish, _, _, _, more, size, _} = request ->
        gather([request | requests], n + 1, count + more, bytes + size, opts, expected, until)
    after
      0 ->
        if n < expected and System.monotonic_time(:microsecond) < until do
          :erlang.yield()
          gather(requests, n, count, bytes, opts, expected, until)
        else
          {n, requests}
        end
    end
  end

  # Whoever has asked does not wait any more, and has been told that it may not be done.
  defp late?({_, _, _, _, _, _, :infinity}), do: false
  defp late?({_, _, _, _, _, _, deadline}), do: System.monotonic_time(:millisecond) >= deadline

  # Returns how many others have come meanwhile.
  defp commit([], _state), do: 0

  defp commit(requests, %{rt: rt} = state) do
    began = System.monotonic_time()
    groups = requests |> Enum.group_by(&elem(&1, 2)) |> Enum.sort()
    result = Postgres.query(state.conn, state.sql, params(groups, rt.publisher))
    {:message_queue_len, waiting} = Process.info(self(), :message_queue_len)

    case result do
      {:ok, %{rows: [[firsts]]}} ->
        for {{_, group}, first} <- Enum.zip(groups, firsts), do: answer(group, first)
        committed(requests, began, rt)

      {:error, error} ->
        failed(requests, error(error), rt)
    end

    waiting
  end

  defp committed(requests, began, rt) do
    count = requests |> Enum.map(&elem(&1, 4)) |> Enum.sum()
    bytes = requests |> Enum.map(&elem(&1, 5)) |> Enum.sum()
    duration = System.monotonic_time() - began
    Events.emit(rt.name, :publish, %{duration: duration, messages: count, bytes: bytes})
  end

  defp params(groups, publisher) do
    messages =
      for {_, group} <- groups,
          {_, _, _, messages, _, _, _} <- group,
          message <- messages,
          do: message

    [
      for({p, _} <- groups, do: p),
      for({_, group} <- groups, do: group |> Enum.map(&elem(&1, 4)) |> Enum.sum()),
      for({topic, _, _, _} <- messages, do: topic),
      for({_, payload, _, _} <- messages, do: payload),
      for({_, _, key, _} <- messages, do: key) |> unless_all_nil(),
      for({_, _, _, metadata} <- messages, do: metadata) |> unless_all_nil(),
      publisher
    ]
  end

  # Most messages have none of these, and then there is no array that the server and all readers would walk through.
  defp unless_all_nil(list), do: if(Enum.any?(list), do: list)

  defp answer([{_, ref, _, _, count, _, _} | group], first) do
    send(ref, {ref, {:ok, first}})
    answer(group, first + count)
  end

  defp answer([], _), do: :ok

  defp failed(requests, error, rt) do
    for {_, ref, _, _, _, _, _} <- requests, do: send(ref, {ref, {:error, error}})
    count = requests |> Enum.map(&elem(&1, 4)) |> Enum.sum()
    Events.emit(rt.name, :publish_failed, %{messages: count}, %{error: error})
  end

  @doc "What an error of the connection means to who has published."
  def error(%Postgres.Error{reason: reason} = error) when reason in [:disconnected, :timeout],
    do: %Error{reason: {:unknown, error}}

  def error(error), do: %Error{reason: {:server, error}}

  # ---- one after another, without a process ----

  @doc "The same in a transaction of the caller's: numbered when that commits."
  def publish_in(database, rt, message) do
    Database.in_transaction!(database)
    {sql, params} = statement(rt, message)

    case Database.query(database, sql, params) do
      {:ok, _} -> :ok
      {:error, error} -> {:error, error(error)}
    end
  end

  @doc "How that is said in SQL."
  def statement(rt, {topic, payload, key, metadata}),
    do:
      {"SELECT #{rt.schema}.log_publish($1, $2, $3, $4, $5)",
       [topic, payload, key, metadata, rt.publisher]}
end
