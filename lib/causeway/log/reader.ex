defmodule Causeway.Log.Reader do
  @moduledoc false
  # Reads for one subscriber. For each partition it knows the last number it has been through, and takes the batch with the
  # next one: from memory, or else from the table. So nothing is missed and nothing repeated, wherever it comes from, and
  # whoever is slow takes no more memory than a page.

  use GenServer, restart: :temporary
  alias Causeway.Log.{Events, Message, Recent, Runtime, Table, Topic}

  # Until there is another look at a mailbox that was full, or a table that did not have it yet or could not be read.
  @full_ms 5
  @again_ms 50

  defstruct [:rt, :ref, :pid, :matcher, :opts, :flag, :timer, cursor: %{}, pages: %{}, rows: %{}]

  def start_link({rt, args}), do: GenServer.start_link(__MODULE__, {rt, args})

  @impl true
  def init({rt, args}) do
    Process.monitor(args.pid)
    Process.flag(:message_queue_data, :off_heap)

    state = %__MODULE__{
      rt: rt,
      ref: args.ref,
      pid: args.pid,
      matcher: args.matcher,
      opts: args.opts,
      cursor: args.cursor,
      flag: :atomics.new(1, [])
    }

    :ets.insert(rt.state, {{:subscription, args.ref}, self()})
    Runtime.watch(rt, Map.keys(args.cursor), state.flag)
    {:ok, state, {:continue, :run}}
  end

  @impl true
  def terminate(_reason, state), do: forget(state)

  defp forget(%{rt: rt} = state) do
    Runtime.unwatch(rt, self())
    :ets.delete(rt.state, {:subscription, state.ref})
  end

  @impl true
  def handle_continue(:run, state), do: run(state)

  @impl true
  def handle_call(:cursor, _from, state), do: {:reply, state.cursor, state}

  def handle_call(:stop, _from, state) do
    forget(state)
    {:stop, :normal, :ok, state}
  end

  @impl true
  def handle_info(:log_more, state), do: run(state)

  def handle_info({:timeout, timer, :run}, %{timer: timer} = state),
    do: run(%{state | timer: nil})

  def handle_info({:DOWN, _, :process, pid, _}, %{pid: pid} = state) do
    forget(state)
    {:stop, :normal, state}
  end

  def handle_info(_, state), do: {:noreply, state}

  # ---- ----

  # The flag is cleared before the heads are read: what comes afterwards wakes this again.
  defp run(state) do
    Runtime.looking(state.flag)
    {:noreply, state.cursor |> Map.keys() |> round(state)}
  end

  # One batch of each partition that has one, until none has.
  defp round(partitions, state) do
    case Enum.reduce_while(partitions, {[], state}, &step/2) do
      {:wait, ms, state} -> later(state, ms)
      {[], state} -> state
      {more, state} -> round(more, state)
    end
  end

  defp step(p, {more, state}) do
    cond do
      full?(state) ->
        {:halt, {:wait, @full_ms, state}}

      behind?(p, state) ->
        case take(p, state) do
          {:ok, state} -> {:cont, {[p | more], state}}
          {:wait, state} -> {:halt, {:wait, @again_ms, state}}
        end

      true ->
        {:cont, {more, state}}
    end
  end

  defp behind?(p, %{pages: pages} = state),
    do: is_map_key(pages, p) or Runtime.head(state.rt, p) > state.cursor[p]

  defp full?(state) do
    case Process.info(state.pid, :message_queue_len) do
      {_, n} -> n >= state.opts.max_queue
      nil -> true
    end
  end

  defp later(%{timer: nil} = state, ms),
    do: %{state | timer: :erlang.start_timer(ms, self(), :run)}

  defp later(state, _ms), do: state

  # ---- one batch ----

  defp take(p, %{pages: pages} = state) do
    case pages do
      %{^p => [batch]} -> {:ok, deliver(batch, %{state | pages: Map.delete(pages, p)})}
      %{^p => [batch | rest]} -> {:ok, deliver(batch, %{state | pages: %{pages | p => rest}})}
      _ -> look_up(p, state)
    end
  end

  defp look_up(p, state) do
    case Recent.fetch(state.rt, p, state.cursor[p] + 1) do
      nil -> read(p, state)
      batch -> {:ok, deliver(batch, state)}
    end
  end

  defp read(p, state) do
    rows = Map.get(state.rows, p, Table.first_rows())

    case Table.page(state.rt, p, state.cursor[p], rows) do
      {:ok, [], _} ->
        dropped(p, state)

      {:ok, batches, rows} ->
        take(p, %{
          state
          | pages: Map.put(state.pages, p, batches),
            rows: Map.put(state.rows, p, rows)
        })

      {:error, error} ->
        Events.emit(state.rt.name, :check_failed, %{}, %{error: error})
        {:wait, state}
    end
  end

  # Retention has taken all there was; or what the server's log has told of cannot be seen in the table yet.
  defp dropped(p, state) do
    with {:ok, ends} <- Table.ends(state.rt),
         {_, first, _} when first > 1 <- List.keyfind(ends, p, 0),
         true <- first - 1 > state.cursor[p] do
      {:ok, gap(p, first - 1, state)}
    else
      _ -> {:wait, state}
    end
  end

  defp gap(p, to, state) do
    from = state.cursor[p] + 1

    Events.emit(state.rt.name, :behind, %{missing: to - from + 1}, %{
      partition: p,
      subscriber: state.pid
    })

    send(state.pid, {:causeway, state.ref, {:gap, %{partition: p, from: from, to: to}}})
    %{state | cursor: %{state.cursor | p => to}}
  end

  defp deliver({p, first, last, _, _, _, _, _, _} = batch, state) do
    seen = state.cursor[p]

    cond do
      first > seen + 1 ->
        deliver(batch, gap(p, first - 1, state))

      last <= seen ->
        state

      true ->
        batch
        |> messages(seen, state.matcher, state.rt)
        |> tell(state)

        %{state | cursor: %{state.cursor | p => last}}
    end
  end

  defp tell([], _state), do: :ok

  defp tell(messages, state) do
    for piece <- Enum.chunk_every(messages, state.opts.max_messages),
        do: send(state.pid, {:causeway, state.ref, piece})
  end

  @doc "The messages of a batch that come after a number and are wanted."
  def messages(
        {p, first, _, time, publisher, topics, payloads, keys, metadata},
        seen,
        matcher,
        rt
      ) do
    fields = %Message{partition: p, time: time, publisher: publisher}
    walk(topics, payloads, keys, metadata, first, seen, matcher, fields, rt)
  end

  defp walk([], [], _, _, _, _, _, _, _), do: []

  defp walk(
         [topic | topics],
         [payload | payloads],
         [key | keys],
         [meta | metadata],
         n,
         seen,
         matcher,
         fields,
         rt
       ) do
    rest = walk(topics, payloads, keys, metadata, n + 1, seen, matcher, fields, rt)

    if n > seen and Topic.match?(matcher, topic),
      do: [
        Message.read(%{fields | topic: topic, sequence: n, key: key}, payload, meta, rt) | rest
      ],
      else: rest
  end
end
