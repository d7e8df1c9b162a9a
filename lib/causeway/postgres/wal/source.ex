defmodule Causeway.Postgres.WAL.Source do
  @moduledoc false
  # Owns the port program and with it the stream. It connects, and connects again; hands frames to the handler's process
  # and its confirmations to the program. It waits for nobody, so it can be asked at any time.
  #
  #     :connecting -> :starting -> :streaming -> :draining -> :waiting -> :connecting ...
  #          |  \-> :snapshot -^                                  ^
  #          \----------------------------------------------------/
  #
  #     :connecting   another process makes the connection ready (WAL.Setup)
  #     :snapshot     the handler takes the snapshot
  #     :starting     the server was asked for the stream
  #     :draining     the stream is gone, and the handler's process still has frames of it
  #     :waiting      until the next attempt
  #
  # The secrets among the options are in a function, which nothing prints.

  use GenServer
  alias Causeway.Postgres.{Error, Protocol, WAL}

  alias Causeway.Postgres.WAL.{
    Consumer,
    Counters,
    Events,
    Patience,
    Private,
    Rates,
    Refusal,
    Setup,
    Slot
  }

  # A stream that lasted so long was a good one: attempts begin anew with the shortest pause.
  @good_ms 1_000

  # For the server to take the last confirmation, and to drop a slot.
  @end_ms 2_000

  defstruct [
    :options,
    :secret,
    :consumer,
    :counters,
    :setup,
    :ready,
    :port,
    :ref,
    :timer,
    # Why there is no stream: the program's last word, then the last attempt's
    :farewell,
    :error,
    :server,
    # What the program has said of the stream
    :report,
    :rates,
    # With a server that is silent
    :patience,
    phase: :connecting,
    detail: nil,
    slot: :unknown,
    streaming: true,
    acked: 0,
    handed: 0,
    # Bytes of frames that the handler's process has
    in_flight: 0,
    backoff: 0,
    began: 0,
    since: 0,
    connects: 0
  ]

  def start_link(options) do
    {connection, options} = Map.get_and_update!(options, :connection, &{&1, nil})
    args = {options, fn -> connection end}
    opts = if options.name, do: [name: options.name], else: []
    GenServer.start_link(__MODULE__, args, opts)
  end

  # ---- life ----

  @impl true
  def init({options, secret}) do
    Process.flag(:trap_exit, true)
    Causeway.Telemetry.load()
    counters = Counters.new()

    case Consumer.start_link(options, secret, counters) do
      {:ok, consumer, lsn} ->
        state = %__MODULE__{
          options: options,
          secret: secret,
          consumer: consumer,
          counters: counters,
          acked: lsn,
          handed: lsn,
          rates: Rates.new(),
          patience: Patience.new(options.silence_timeout)
        }

        {:ok, state, {:continue, :connect}}

      {:error, reason} ->
        {:stop, reason}
    end
  end

  @impl true
  def handle_continue(:connect, state), do: {:noreply, connect(state)}

  @impl true
  def terminate(_reason, state) do
    Counters.put(state.counters, :stopping, 1)
    stop_consumer(state)
    Private.flush()
    if state.setup, do: Process.exit(state.setup, :kill)
    if state.port, do: leave(state)
  end

  # It ends after what it is doing; a supervisor does not wait for ever, and neither does this.
  defp stop_consumer(%{consumer: pid}) do
    monitor = Process.monitor(pid)
    Process.exit(pid, :shutdown)

    receive do
      {:DOWN, ^monitor, _, _, _} -> :ok
    after
      WAL.shutdown() - 2 * @end_ms -> Process.exit(pid, :kill)
    end
  end

  # The server is told the last confirmation, and the end of the stream, so that the slot is free at once.
  defp leave(%{phase: :streaming} = state) do
    acked = max(state.acked, Counters.get(state.counters, :acked))
    command(state, Protocol.confirm(0, acked))
    command(state, Protocol.cancel())
    await_end(state.port)
    close(state.port)
  end

  defp leave(%{slot: :unfinished} = state) do
    command(state, Protocol.run([{:simple, Slot.drop_sql(state.options.slot)}]))
    await_end(state.port)
    close(state.port)
  end

  defp leave(state), do: close(state.port)

  defp await_end(port) do
    receive do
      {^port, {:data, <<?A, state, _::binary>>}} when state != 0 -> :ok
      {^port, {:exit_status, _}} -> :ok
      {:EXIT, ^port, _} -> :ok
    after
      @end_ms -> :ok
    end
  end

  defp close(port) do
    if Port.info(port), do: Port.close(port)
  rescue
    # It has ended in between.
    ArgumentError -> :ok
  end

  # ---- calls ----

  @impl true
  def handle_cast({:ack, lsn}, state) do
    lsn = min(lsn, Counters.get(state.counters, :handed))
    {:noreply, confirm(state, 0, lsn)}
  end

  @impl true
  def handle_call(:info, _from, state) do
    state = %{state | rates: Rates.sample(state.rates, state.counters)}
    {:reply, info(state), state}
  end

  # ---- the handler's process ----

  @impl true
  def handle_info({:done, ref, bytes, acked}, state) do
    state = %{state | rates: Rates.sample(state.rates, state.counters)}

    if ref == state.ref,
      do: {:noreply, confirm(%{state | in_flight: state.in_flight - bytes}, bytes, acked)},
      else: {:noreply, %{state | acked: max(state.acked, acked)}}
  end

  def handle_info({:drained, ref, handed, acked}, %{ref: ref, phase: :draining} = state) do
    state = %{state | ref: nil, handed: handed, acked: max(state.acked, acked), in_flight: 0}

    case state.error do
      %WAL.Error{reason: {:publication_too_new, _}} = error ->
        slot_lost(state, error, Exception.message(error))

      _ ->
        {:noreply, wait(state)}
    end
  end

  def handle_info({:undecodable, ref, reason}, %{ref: ref, phase: :streaming} = state),
    do: {:noreply, disconnect(state, %WAL.Error{reason: {:decode, reason}})}

  def handle_info({:snapshot_taken, ref}, %{ref: ref, phase: :snapshot} = state),
    do: {:noreply, start(%{state | slot: :seen})}

  def handle_info({:EXIT, pid, reason}, %{consumer: pid} = state), do: {:stop, reason, state}

  # ---- getting ready ----

  def handle_info({:setup, pid, result}, %{setup: pid} = state),
    do: setup(result, %{state | setup: nil, detail: nil})

  def handle_info({:slow, pid, what}, %{setup: pid} = state) do
    Consumer.event(state.consumer, {:waiting, what})
    {:noreply, %{state | detail: what}}
  end

  def handle_info({:EXIT, pid, reason}, %{setup: pid} = state) when reason != :normal do
    message = "the connection could not be prepared: #{Exception.format_exit(reason)}"
    setup({:error, %WAL.Error{reason: {:ended, message}}}, %{state | setup: nil, detail: nil})
  end

  def handle_info({:timeout, timer, :connect}, %{timer: timer} = state),
    do: {:noreply, connect(%{state | timer: nil})}

  # ---- the port program ----

  def handle_info({port, {:data, frame}}, %{port: port} = state) do
    case Protocol.frame(frame) do
      {:wal, frame} -> {:noreply, take_frame(frame, state)}
      {:more, records} -> {:noreply, take_records(Protocol.records(records), state)}
      {:last, _, records} -> {:noreply, ended(Protocol.records(records), state)}
      {:event, event} -> {:noreply, take_event(event, state)}
    end
  end

  def handle_info({port, {:exit_status, n}}, %{port: port} = state) do
    {:noreply, program_ended(state, Protocol.exit_reason(n))}
  end

  # What is written to a program that has just died ends the port, and there is no status then.
  def handle_info({:EXIT, port, reason}, %{port: port} = state),
    do: {:noreply, program_ended(state, "the port program has ended (#{inspect(reason)})")}

  # What is of an earlier connection, and the ends of ports and processes that are known of.
  def handle_info(_, state), do: {:noreply, state}

  defp program_ended(state, why) do
    error = state.farewell || %WAL.Error{reason: {:ended, why}}
    disconnect(%{state | port: nil}, error)
  end

  defp take_frame(frame, state) do
    Consumer.frame(state.consumer, state.ref, frame)
    %{state | in_flight: state.in_flight + byte_size(frame)}
  end

  defp take_records([{:replicating} | _], state) do
    facts = state.ready.facts
    server = state.ready.server

    about = %{
      server_version: facts[:server_version],
      host: facts[:host],
      port: facts[:port],
      database: facts[:database],
      system_id: server.system_id,
      timeline: server.timeline,
      lsn: state.ready.start
    }

    Consumer.event(state.consumer, {:connected, about})
    duration = System.monotonic_time() - state.began
    Events.emit(state.options, :connected, %{duration: duration}, about)
    %{state | phase: :streaming, since: now(), connects: state.connects + 1}
  end

  defp take_records(_, state), do: state

  # The answer to the request has ended: there is no stream, or none any more.
  defp ended(records, state) do
    case List.keyfind(records, :error, 0) do
      {:error, why, fields} -> disconnect(state, server_error(why, fields))
      nil -> disconnect(state, %WAL.Error{reason: {:ended, "the server has ended the stream"}})
    end
  end

  # Without a code it is libpq's word, not the server's.
  defp server_error(why, fields) do
    if fields[:code],
      do: Error.server(why, fields),
      else: %Error{reason: :disconnected, detail: String.trim(fields[:message] || "")}
  end

  defp take_event({:wal, report}, state) do
    Events.emit(state.options, :status, numbers(info(%{state | report: report})))
    %{state | report: report}
  end

  defp take_event({:closed, :spill, message}, state),
    do: %{state | farewell: %WAL.Error{reason: {:spill, message}}, streaming: false}

  defp take_event({:closed, :silent, _message}, %{patience: patience} = state) do
    error = %WAL.Error{reason: {:silent, patience.ms}}
    %{state | farewell: error, patience: Patience.lost(patience, info(state).confirmed_lsn)}
  end

  defp take_event({:closed, why, message}, state) when why in [:wal, :protocol],
    do: %{state | farewell: %WAL.Error{reason: {:protocol, message}}}

  defp take_event({:closed, why, message}, state),
    do: %{state | farewell: state.farewell || Error.connect(why, message)}

  defp take_event({:notice, fields}, %{phase: :streaming} = state) do
    error = Refusal.skipped(fields, state.options, state.error)
    if error, do: disconnect(state, error), else: state
  end

  defp take_event(_, state), do: state

  # ---- connecting ----

  defp connect(state) do
    me = self()
    %{options: options, secret: secret} = state

    past = %{
      acked: state.acked,
      handed: state.handed,
      server: state.server,
      slot: state.slot,
      streaming: state.streaming
    }

    setup =
      spawn_link(fn ->
        slow = fn what -> send(me, {:slow, self(), what}) end
        send(me, {:setup, self(), Setup.run(options, secret.(), past, me, slow)})
      end)

    %{state | phase: :connecting, setup: setup, began: System.monotonic_time(), farewell: nil}
  end

  defp setup({:ok, ready}, state) do
    state = %{state | port: ready.port, ready: ready, ref: make_ref(), report: nil}
    Consumer.connected(state.consumer, state.ref, ready.limit)

    state =
      state
      |> tell_rewound()
      |> tell_created()
      |> Map.merge(%{server: ready.server, in_flight: 0})

    cond do
      # It has ended before it was ours.
      Port.info(state.port) == nil ->
        {:noreply, disconnect(%{state | port: nil}, lost())}

      ready.created && ready.created.snapshot && state.options.snapshot ->
        snapshot = %{name: ready.created.snapshot, lsn: ready.created.lsn}
        Consumer.snapshot(state.consumer, state.ref, snapshot)
        {:noreply, %{state | phase: :snapshot, slot: :unfinished}}

      true ->
        {:noreply, start(%{state | slot: :seen})}
    end
  end

  defp setup({:error, %WAL.Error{reason: {:slot_lost, _, why}} = error}, state),
    do: slot_lost(state, error, why)

  defp setup({:error, error}, state), do: {:noreply, wait(failed(state, error))}

  defp lost, do: %WAL.Error{reason: {:ended, Protocol.exit_reason(0)}}

  defp start(state) do
    %{options: options, ready: ready} = state

    body =
      Protocol.replicate(%{
        sql: ready.sql,
        start: ready.start,
        credit: options.buffer_bytes,
        spool: options.spool_bytes,
        interval: ready.interval,
        patience: Patience.ms(state.patience),
        dir: options.spool_dir
      })

    command(state, body)
    %{state | phase: :starting}
  end

  # Positions are good up to the limit only.
  defp tell_rewound(%{ready: %{limit: limit}} = state) when state.handed <= limit, do: state

  defp tell_rewound(%{ready: %{limit: limit, server: server}} = state) do
    about = %{from: state.handed, to: limit, timeline: server.timeline}
    Consumer.event(state.consumer, {:rewound, about})
    Events.emit(state.options, :rewound, Map.take(about, [:from, :to]), about)
    %{state | handed: limit, acked: min(state.acked, limit)}
  end

  defp tell_created(%{ready: %{created: nil}} = state), do: state

  defp tell_created(%{options: options, ready: %{created: %{lsn: lsn}}} = state) do
    about = %{slot: options.slot, lsn: lsn, temporary: options.temporary}
    Consumer.event(state.consumer, {:slot_created, about})
    Events.emit(options, :slot_created, %{}, about)
    if state.connects > 0 or state.handed > 0, do: tell_gap(state, lsn)
    state
  end

  defp tell_gap(state, lsn) do
    why = if state.options.temporary, do: :temporary_slot, else: :new_slot
    about = %{from: state.handed, to: lsn, why: why}
    Consumer.event(state.consumer, {:gap, about})
    Events.emit(state.options, :gap, Map.take(about, [:from, :to]), about)
  end

  # ---- losing the slot ----

  defp slot_lost(%{options: options} = state, error, why) do
    Consumer.event(state.consumer, {:slot_lost, %{slot: options.slot, why: why}})
    Events.emit(options, :slot_lost, %{}, %{why: why, action: options.on_slot_lost})

    case options.on_slot_lost do
      :stop -> {:stop, {:shutdown, {:slot_lost, why}}, %{state | error: error}}
      :recreate -> {:noreply, connect(%{state | slot: :lost, error: error})}
    end
  end

  # ---- losing the stream ----

  defp disconnect(%{phase: :draining} = state, _error), do: state

  defp disconnect(state, error) do
    if state.port, do: close(state.port)
    Consumer.disconnected(state.consumer, state.ref)
    good? = state.phase == :streaming and now() - state.since >= @good_ms
    state = if good?, do: %{state | backoff: 0, error: nil}, else: state
    error = Refusal.known(error, state.options, state.error)
    streaming = not match?(%{reason: {:spill, _}}, error)
    failed(%{state | port: nil, phase: :draining, streaming: streaming}, error)
  end

  # The pause that comes now, and what the next attempt has to know.
  defp failed(state, error) do
    backoff = next_backoff(state)
    Consumer.event(state.consumer, {:disconnected, %{error: error, retry_ms: backoff}})
    Events.emit(state.options, :disconnected, %{retry_ms: backoff}, %{error: error})
    %{state | error: error, backoff: backoff}
  end

  defp next_backoff(%{backoff: 0, options: options}), do: options.backoff_min

  # Not all consumers of a server that comes back at the same time.
  defp next_backoff(%{backoff: last, options: options}),
    do: min(options.backoff_max, last + div(last, 2) + :rand.uniform(last))

  defp wait(state) do
    timer = :erlang.start_timer(state.backoff, self(), :connect)
    %{state | phase: :waiting, timer: timer}
  end

  # ---- to the program ----

  defp command(state, body) do
    Port.command(state.port, Protocol.request(state.ready.id, 0, body))
  rescue
    # It has ended; its exit status is on its way.
    ArgumentError -> false
  end

  defp confirm(%{phase: :streaming} = state, credit, lsn) do
    acked = max(state.acked, lsn)
    if credit > 0 or acked > state.acked, do: command(state, Protocol.confirm(credit, acked))
    %{state | acked: acked}
  end

  defp confirm(state, _credit, lsn), do: %{state | acked: max(state.acked, lsn)}

  # ---- what is known ----

  defp info(state) do
    done = Counters.all(state.counters)
    report = state.report || []
    server = max(report[:server] || 0, (state.ready && state.ready.flushed) || 0)
    confirmed = max(report[:confirmed] || 0, (state.ready && state.ready.start) || 0)
    {transactions_s, bytes_s} = Rates.get(state.rates)

    %{
      status: status(state),
      error: if(state.phase != :streaming, do: state.error),
      slot: state.options.slot,
      timeline: state.server && state.server.timeline,
      connects: state.connects,
      os_pid: os_pid(state.port),
      server_lsn: server,
      handed_lsn: done.handed,
      acked_lsn: max(state.acked, done.acked),
      confirmed_lsn: confirmed,
      lag_bytes: max(server - confirmed, 0),
      lag_ms: lag_ms(state, done),
      in_flight_bytes: state.in_flight,
      streamed_transactions: report[:streamed] || 0,
      spool_bytes: report[:memory] || 0,
      spilled_bytes: report[:spilled] || 0,
      transactions: done.transactions,
      changes: done.changes,
      bytes: done.bytes,
      transactions_per_second: transactions_s,
      bytes_per_second: bytes_s
    }
  end

  defp os_pid(nil), do: nil

  defp os_pid(port) do
    case Port.info(port, :os_pid) do
      {:os_pid, pid} -> pid
      nil -> nil
    end
  end

  defp status(%{phase: :connecting, detail: nil}), do: :connecting
  defp status(%{phase: :connecting, detail: what}), do: {:waiting, what}
  defp status(%{phase: phase}), do: phase

  defp lag_ms(%{in_flight: n}, %{commit_time: at}) when n > 0 and at > 0,
    do: max(div(System.os_time(:microsecond) - at, 1000), 0)

  defp lag_ms(_, _), do: 0

  defp numbers(info),
    do: for({key, n} <- info, is_number(n), key != :os_pid, into: %{}, do: {key, n})

  defp now, do: System.monotonic_time(:millisecond)

  # A callback of GenServer since Elixir 1.17; OTP calls it since 25.
  @impl {:format_status, 1} in GenServer.behaviour_info(:callbacks)
  def format_status(status), do: Private.status(status, &short/1)

  defp short(%__MODULE__{options: options} = state),
    do: state |> info() |> Map.put(:handler, elem(options.handler, 0))

  # What it was to begin with.
  defp short(_), do: :not_shown
end
