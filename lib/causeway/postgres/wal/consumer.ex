defmodule Causeway.Postgres.WAL.Consumer do
  @moduledoc false
  # The process of the handler. It is given frames as the port program sent them, and tells the source what it has done
  # with them. Frames and what happens to the connection come in order: when the source says that the connection is
  # gone, all frames of it are done with.

  use GenServer
  alias Causeway.Postgres.Types
  alias Causeway.Postgres.WAL.{Client, Counters, Decoder, Events, Private, Transaction}

  # How long a confirmation may wait for the end of a frame.
  @ack_ms 100

  # Room for the terms of some frames, so that they are made in place and not moved by every collection; but not so
  # much that collections are left to dirty schedulers, as those of more than 128 Ki words are.
  @heap_words 121_000

  defstruct [
    :source,
    :options,
    :secret,
    :counters,
    :module,
    :state,
    # Of the connection: a reference, nil for none; the decoder
    :ref,
    :decoder,
    # When the last transaction was committed
    :time,
    # Where the last transaction ends that the handler was given whole, and what it has confirmed
    handed: 0,
    acked: 0,
    # What of this the source was told, and when
    told: 0,
    told_at: 0,
    # Pieces of a transaction of which the last has not come
    partial: nil
  ]

  # ---- the source's side ----

  @doc "Starts the process; `{:ok, pid, lsn}` with what `init/1` said."
  def start_link(options, secret, counters) do
    args = {self(), options, secret, counters}
    opts = [spawn_opt: [min_heap_size: @heap_words]]

    with {:ok, pid} <- GenServer.start_link(__MODULE__, args, opts),
         do: {:ok, pid, Counters.get(counters, :handed)}
  end

  @doc "A connection begins. What it was given before that is not good beyond `limit`."
  def connected(pid, ref, limit), do: send(pid, {:connected, ref, limit})

  def frame(pid, ref, frame), do: send(pid, {:frame, ref, frame})

  @doc "The connection is gone; answered with `{:drained, ref, handed}`."
  def disconnected(pid, ref), do: send(pid, {:disconnected, ref})

  @doc "Something to tell the handler."
  def event(pid, event), do: send(pid, {:wal_event, event})

  @doc "Has the handler take the snapshot; answered with `{:snapshot_taken, ref}`."
  def snapshot(pid, ref, snapshot), do: send(pid, {:snapshot, ref, snapshot})

  # ---- life ----

  @impl true
  def init({source, options, secret, counters}) do
    {module, argument} = options.handler
    Process.flag(:trap_exit, true)

    state = %__MODULE__{
      source: source,
      options: options,
      secret: secret,
      counters: counters,
      module: module
    }

    case init_handler(module, argument) do
      {:ok, handler} -> {:ok, begin(state, handler, options.start_lsn || 0)}
      {:ok, handler, lsn} -> {:ok, begin(state, handler, max(lsn, options.start_lsn || 0))}
      {:stop, reason} -> {:stop, reason}
    end
  end

  defp init_handler(module, argument) do
    if exported?(module, :init, 1),
      do: Private.call(fn -> module.init(argument) end),
      else: {:ok, argument}
  end

  defp begin(state, handler, lsn) do
    Counters.put(state.counters, :handed, lsn)
    Counters.put(state.counters, :acked, lsn)
    %{state | state: handler, handed: lsn, acked: lsn, told: lsn}
  end

  @impl true
  def terminate(reason, state) do
    Private.flush()
    Counters.put(state.counters, :acked, state.acked)

    if exported?(state.module, :terminate, 2),
      do: Private.call(fn -> state.module.terminate(reason, state.state) end)
  end

  # A callback of GenServer since Elixir 1.17; OTP calls it since 25.
  @impl {:format_status, 1} in GenServer.behaviour_info(:callbacks)
  def format_status(status), do: Private.status(status, &short/1)

  defp short(%__MODULE__{} = state),
    do: Map.take(state, [:module, :ref, :handed, :acked, :told, :time])

  defp short(other), do: other

  defp exported?(module, name, arity), do: function_exported?(module, name, arity)

  # ---- messages ----

  @impl true
  def handle_info({:frame, ref, frame}, %{ref: ref} = state),
    do: take_frame(frame, look_up(state))

  def handle_info({:frame, _, _}, state), do: {:noreply, state}

  def handle_info({:connected, ref, limit}, state) do
    handed = min(state.handed, limit)
    acked = min(state.acked, limit)
    Counters.put(state.counters, :handed, handed)
    Counters.put(state.counters, :acked, acked)

    {:noreply,
     %{state | ref: ref, decoder: decoder(state), handed: handed, acked: acked, told: acked}}
  end

  def handle_info({:disconnected, ref}, state) do
    send(state.source, {:drained, ref, state.handed, state.acked})
    {:noreply, %{state | ref: nil, decoder: nil, partial: nil}}
  end

  def handle_info({:wal_event, event}, state), do: tell(event, state)

  def handle_info({:snapshot, ref, snapshot}, state) do
    case call(state, :handle_snapshot, snapshot, fn -> {:ok, state.state} end) do
      {:ok, handler} ->
        send(state.source, {:snapshot_taken, ref})
        {:noreply, %{state | state: handler}}

      {:stop, reason, handler} ->
        {:stop, reason, %{state | state: handler}}
    end
  end

  def handle_info({:EXIT, source, reason}, %{source: source} = state), do: {:stop, reason, state}

  def handle_info(message, state) do
    case call(state, :handle_info, message, fn -> {:ok, state.state} end) do
      {:ok, handler} -> {:noreply, %{state | state: handler}}
      {:ack, lsn, handler} -> {:noreply, flush(acknowledge(%{state | state: handler}, lsn))}
      {:stop, reason, handler} -> {:stop, reason, %{state | state: handler}}
    end
  end

  defp call(state, name, argument, default) do
    if exported?(state.module, name, 2),
      do: Private.call(fn -> apply(state.module, name, [argument, state.state]) end),
      else: default.()
  end

  defp tell(event, state) do
    case call(state, :handle_event, event, fn -> {:ok, state.state} end) do
      {:ok, handler} -> {:noreply, %{state | state: handler}}
      {:stop, reason, handler} -> {:stop, reason, %{state | state: handler}}
    end
  end

  # ---- frames ----

  defp take_frame(_frame, %{ref: nil} = state), do: {:noreply, state}

  defp take_frame(frame, state) do
    began = System.monotonic_time()

    case Decoder.decode(state.decoder, frame) do
      {:ok, blocks, decoder} ->
        case take_blocks(blocks, %{state | decoder: decoder}, {0, 0}) do
          {:ok, state, done} -> {:noreply, frame_done(state, frame, done, began)}
          {:stop, reason, state} -> {:stop, reason, flush(state)}
        end

      # The source connects again, and what is not handed comes again.
      {:error, reason} ->
        send(state.source, {:undecodable, state.ref, reason})
        {:noreply, %{state | ref: nil}}
    end
  end

  defp frame_done(state, frame, {transactions, changes}, began) do
    bytes = byte_size(frame)
    Counters.add(state.counters, :transactions, transactions)
    Counters.add(state.counters, :changes, changes)
    Counters.add(state.counters, :bytes, bytes)
    if state.time, do: Counters.put(state.counters, :commit_time, micros(state.time))
    send(state.source, {:done, state.ref, bytes, state.acked})

    duration = System.monotonic_time() - began
    counts = %{transactions: transactions, changes: changes, bytes: bytes, duration: duration}
    Events.emit(state.options, :handled, counts)
    told(state)
  end

  defp micros(time), do: DateTime.to_unix(time, :microsecond)

  defp take_blocks([], state, done), do: {:ok, state, done}

  # What is left of the frame comes again.
  defp take_blocks(_, %{ref: nil} = state, done), do: {:ok, state, done}

  # What the handler was given before the connection was lost.
  defp take_blocks([%{commit_lsn: lsn, message: false} | blocks], %{handed: handed} = state, done)
       when lsn < handed,
       do: take_blocks(blocks, state, done)

  defp take_blocks([%{commit_lsn: lsn, message: true} | blocks], %{handed: handed} = state, done)
       when lsn <= handed,
       do: take_blocks(blocks, state, done)

  defp take_blocks([block | blocks], state, {transactions, changes}) do
    case take_block(block, state) do
      {:ok, state} ->
        done = {transactions + if(block.last, do: 1, else: 0), changes + length(block.changes)}
        take_blocks(blocks, state |> maybe_flush() |> look_up(), done)

      {:stop, reason, state} ->
        {:stop, reason, state}
    end
  end

  # ---- transactions ----

  defp take_block(%{message: true, changes: [message]} = block, state),
    do: hand(:handle_message, message, block.end_lsn, block, state)

  defp take_block(%{first: true, last: true} = block, state),
    do:
      hand(
        :handle_transaction,
        transaction(block, block.changes, nil),
        block.end_lsn,
        block,
        state
      )

  defp take_block(block, state) do
    {pieces, bytes, part} = if block.first, do: {[], 0, 0}, else: state.partial
    pieces = if block.changes == [], do: pieces, else: [block.changes | pieces]
    bytes = bytes + block.bytes

    cond do
      block.last ->
        part = if part == 0, do: nil, else: part + 1
        transaction = transaction(block, join(pieces), part)
        hand(:handle_transaction, transaction, block.end_lsn, block, %{state | partial: nil})

      bytes >= state.options.max_transaction_bytes ->
        transaction = transaction(block, join(pieces), part + 1)
        state = %{state | partial: {[], 0, part + 1}}
        hand(:handle_transaction, transaction, nil, block, state)

      true ->
        {:ok, %{state | partial: {pieces, bytes, part}}}
    end
  end

  defp join([changes]), do: changes
  defp join(pieces), do: pieces |> Enum.reverse() |> Enum.concat()

  defp transaction(block, changes, part) do
    %Transaction{
      xid: block.xid,
      commit_lsn: block.commit_lsn,
      end_lsn: if(block.last, do: block.end_lsn),
      commit_time: block.commit_time,
      origin: block.origin,
      changes: changes,
      part: part,
      last: block.last
    }
  end

  # Of a part, which cannot be confirmed, `lsn` is nil. What can be, the handler may confirm before it returns, too.
  defp hand(callback, what, nil, _block, state) do
    case Private.call(fn -> apply(state.module, callback, [what, state.state]) end) do
      {ack, handler} when ack in [:ack, :noack] -> {:ok, %{state | state: handler}}
      {:ack, lsn, handler} -> {:ok, acknowledge(%{state | state: handler}, lsn)}
      {:stop, reason, handler} -> {:stop, reason, %{state | state: handler}}
    end
  end

  defp hand(callback, what, lsn, block, state) do
    Counters.put(state.counters, :handed, lsn)
    time = block.commit_time || state.time

    case Private.call(fn -> apply(state.module, callback, [what, state.state]) end) do
      {:ack, handler} ->
        {:ok, %{state | state: handler, handed: lsn, acked: lsn, time: time}}

      {:noack, handler} ->
        {:ok, %{state | state: handler, handed: lsn, time: time}}

      {:ack, acked, handler} ->
        {:ok, acknowledge(%{state | state: handler, handed: lsn, time: time}, acked)}

      {:stop, reason, handler} ->
        {:stop, reason, %{state | state: handler}}
    end
  end

  # When the source is to end, it does not wait for all that is on its way. When it was killed, the next one may be there
  # already, with a handler of its own.
  defp look_up(state) do
    if Counters.get(state.counters, :stopping) == 0 and Process.alive?(state.source),
      do: state,
      else: %{state | ref: nil}
  end

  # ---- confirmations ----

  defp acknowledge(%{acked: acked, handed: handed} = state, lsn) do
    lsn = min(lsn, handed)
    if lsn > acked, do: %{state | acked: lsn}, else: state
  end

  # A handler that takes its time for each transaction of a frame.
  defp maybe_flush(%{acked: same, told: same} = state), do: state

  defp maybe_flush(state) do
    if now() - state.told_at >= @ack_ms, do: flush(state), else: state
  end

  defp flush(%{acked: same, told: same} = state), do: state

  defp flush(state) do
    send(state.source, {:done, state.ref, 0, state.acked})
    told(state)
  end

  defp told(state) do
    Counters.put(state.counters, :acked, state.acked)
    %{state | told: state.acked, told_at: now()}
  end

  defp now, do: System.monotonic_time(:millisecond)

  # ---- types ----

  defp decoder(%{options: %{values: :text} = options}),
    do: Decoder.new(nil, options.decode_binary)

  defp decoder(%{options: options} = state) do
    types = Types.new(types_options(options))
    fetch = &fetch(state.secret, &1)
    codec = fn columns, why, lenient -> codec(types, columns, why, lenient, fetch) end
    Decoder.new(codec, options.decode_binary)
  end

  defp types_options(options) do
    [decode_binary: options.decode_binary, interval_decode_type: options.interval_decode_type] ++
      if(options.json == :default, do: [], else: [json: options.json])
  end

  defp codec(types, columns, nil, lenient, fetch),
    do: Types.relation(types, columns, fetch, lenient)

  defp codec(types, columns, :forget, lenient, fetch) do
    Types.forget(types)
    codec(types, columns, nil, lenient, fetch)
  end

  defp codec(types, columns, {:unknown_type, oid}, lenient, fetch) do
    with {:ok, _} <- Types.lookup(types, [oid], fetch),
         do: codec(types, columns, nil, lenient, fetch)
  end

  # Types that are not the server's own are rare, and are looked up once: not worth a connection that stays.
  defp fetch(secret, sql) do
    with {:ok, client} <- Client.open(secret.()) do
      result = Client.query(client, sql)
      Client.close(client)
      result
    end
  end
end
