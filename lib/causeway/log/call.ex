defmodule Causeway.Log.Call do
  @moduledoc false
  # Calls of a consumer's handler, each in a process of its own, which is killed when it takes too long. It ends with the
  # owner of the partition.

  alias Causeway.Log.{Database, Events, Groups}

  @typedoc "By the numbers of the messages that failed, why."
  @type result :: :ok | {:failed, %{pos_integer => String.t()}}

  @doc "Calls the handler for each list of entries, so many at a time."
  @spec all(map, [[map]], pos_integer) :: [{[map], result}]
  def all(owner, lists, concurrency) do
    {now, later} = Enum.split(lists, concurrency)
    caller = caller(owner)
    running = for entries <- now, into: %{}, do: start(owner, entries, &handle(caller, &1, nil))
    gather(owner, running, later, [])
  end

  defp gather(_owner, running, [], done) when running == %{}, do: done

  defp gather(owner, running, later, done) do
    {pid, entries, result} = await(owner, running)
    running = Map.delete(running, pid)

    case later do
      [next | later] ->
        caller = caller(owner)
        {pid, about} = start(owner, next, &handle(caller, &1, nil))
        gather(owner, Map.put(running, pid, about), later, [{entries, result} | done])

      [] ->
        gather(owner, running, [], [{entries, result} | done])
    end
  end

  @doc """
  Calls it in a transaction, which also acknowledges all up to a number and these entries: `:ok` when that is committed, or
  `:fenced` when the partition is another's, and nothing was done, or nobody knows.
  """
  @spec transaction(map, [map], non_neg_integer) :: result | :fenced
  def transaction(owner, entries, upto) do
    caller = caller(owner)
    {pid, about} = start(owner, entries, &in_transaction(caller, &1, upto))
    {_, _, result} = await(owner, %{pid => about})
    result
  end

  defp in_transaction(owner, entries, upto) do
    outcome =
      Database.transaction(database(owner), fn tx ->
        with :ok <- handle(owner, entries, tx),
             {:error, error} <- ack_once(tx, owner, entries, upto),
             do: all_failed(entries, Exception.message(error))
      end)

    case outcome do
      {:not_committed, error} -> all_failed(entries, Exception.message(error))
      # The next owner sees.
      {:unknown, _} -> :fenced
      result -> result
    end
  end

  defp database(%{opts: %{transactional: true}, conn: conn}), do: conn
  defp database(%{opts: %{transactional: repo}}), do: repo

  defp ack_once(tx, owner, entries, upto) do
    %{rt: rt, opts: %{group: group}, row: row, acked: acked, parked: parked} = owner
    again = for %{message: %{sequence: n}} <- entries, is_map_key(parked, n), do: n
    Groups.ack_once(tx, rt, group, row, acked, upto, again)
  end

  @doc "Tells the handler of a gap, if it wants to know."
  def gap(owner, gap) do
    {module, _} = handler(owner)

    if function_exported?(module, :handle_gap, 2) do
      caller = caller(owner)

      {pid, about} =
        start(owner, [], fn [] ->
          module.handle_gap(gap, context(caller, nil))
          :ok
        end)

      await(owner, %{pid => about})
    end

    :ok
  end

  # ---- processes ----

  # What a call needs of its owner, which may have a page of messages besides: all of this is copied.
  defp caller(owner) do
    parked = for {n, _} <- owner.parked, into: %{}, do: {n, true}

    %{
      rt: owner.rt,
      opts: owner.opts,
      row: owner.row,
      conn: owner.conn,
      acked: owner.acked,
      parked: parked
    }
  end

  defp start(owner, entries, fun) do
    parent = self()
    deadline = System.monotonic_time(:millisecond) + owner.opts.visibility_timeout
    pid = spawn_link(fn -> send(parent, {__MODULE__, self(), caught(entries, fun)}) end)
    {pid, {entries, deadline, System.monotonic_time()}}
  end

  defp caught(entries, fun) do
    fun.(entries)
  catch
    kind, reason -> all_failed(entries, Exception.format(kind, reason, __STACKTRACE__))
  end

  defp await(owner, running) do
    {first, {_, deadline, _}} = Enum.min_by(running, fn {_, {_, deadline, _}} -> deadline end)

    receive do
      {__MODULE__, pid, result} when is_map_key(running, pid) ->
        receive do: ({:EXIT, ^pid, _} -> :ok)
        finished(owner, running, pid, result)

      # Killed, by somebody else.
      {:EXIT, pid, reason} when is_map_key(running, pid) ->
        {entries, _, _} = running[pid]
        finished(owner, running, pid, all_failed(entries, Exception.format_exit(reason)))
    after
      max(deadline - System.monotonic_time(:millisecond), 0) ->
        Process.exit(first, :kill)
        receive do: ({:EXIT, ^first, _} -> :ok)
        receive do: ({__MODULE__, ^first, _} -> :ok), after: (0 -> :ok)
        {entries, _, _} = running[first]
        why = "it took longer than visibility_timeout, #{owner.opts.visibility_timeout} ms"
        finished(owner, running, first, all_failed(entries, why))
    end
  end

  defp finished(owner, running, pid, result) do
    {entries, _, began} = running[pid]
    measured = %{duration: System.monotonic_time() - began, messages: length(entries)}
    outcome = if result == :ok, do: :ok, else: :failed
    about = %{group: owner.opts.group, partition: owner.row.partition, result: outcome}
    Events.emit(owner.rt.name, :handled, measured, about)
    {pid, entries, result}
  end

  # ---- the handler ----

  defp handle(owner, entries, tx) do
    {module, _} = handler(owner)
    messages = for entry <- entries, do: %{entry.message | deliveries: entry.deliveries + 1}

    case module.handle_messages(messages, context(owner, tx)) do
      :ok ->
        :ok

      {:error, reason} ->
        all_failed(entries, text(reason))

      {:failed, []} ->
        :ok

      {:failed, list} when is_list(list) ->
        {:failed, Map.new(list, fn {message, reason} -> {message.sequence, text(reason)} end)}

      other ->
        all_failed(entries, "handle_messages/2 returned #{inspect(other)}")
    end
  end

  defp handler(%{opts: %{handler: {module, argument}}}), do: {module, argument}
  defp handler(%{opts: %{handler: module}}), do: {module, nil}

  defp context(owner, tx) do
    {_, argument} = handler(owner)

    %{
      log: owner.rt.name,
      group: owner.opts.group,
      partition: owner.row.partition,
      argument: argument,
      tx: tx
    }
  end

  defp all_failed(entries, why) do
    # A column of text takes no zero bytes.
    why = why |> String.replace("\0", "") |> String.slice(0, 2_000)
    {:failed, Map.new(entries, &{&1.message.sequence, why})}
  end

  defp text(reason) when is_binary(reason),
    do: if(String.valid?(reason), do: String.replace(reason, "\0", ""), else: inspect(reason))

  defp text(%{__exception__: true} = error), do: Exception.message(error)
  defp text(reason), do: inspect(reason)
end
