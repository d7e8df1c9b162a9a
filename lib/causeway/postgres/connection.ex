defmodule Causeway.Postgres.Connection do
  @moduledoc false
  # Owns a port program, and so a connection to a server. Callers' requests wait here for their turn; what the program
  # answers goes to the caller as it is. It connects, and connects again.
  #
  #     :connecting -> :ready -> :connecting ...     lost: tried again at once, callers wait
  #          |  ^                                    refused: after a pause, in which callers are refused
  #          v  |
  #         :down
  #
  # The one who has its turn is only monitored once its request has been under way for a while, as most are done before that.
  #
  # A transaction is a lock: from the request that began it to the one that ends it, only requests that carry the lock's
  # reference have their turn. When its owner dies, what runs is cancelled and the transaction rolled back.
  #
  # The secrets among the options are in a function, which nothing prints.

  use GenServer

  alias Causeway.Postgres.{
    Error,
    Events,
    Listeners,
    Options,
    Program,
    Protocol,
    Session,
    Types,
    Waiting
  }

  @close_at 8
  @watch_after 50

  defstruct [
    # A function that gives the Options, and the options of this module.
    :secret,
    :opts,
    :session,
    :port,
    # Since when it is connecting, in native units, and the request's timer.
    :began,
    :timer,
    # A timer that has a look at who has its turn.
    :watcher,
    # Why there is no connection; the last word of a server that closed it.
    :failure,
    :fatal,
    phase: :connecting,
    pause: nil,
    facts: %{},
    id: 0,
    # The entry whose request is under way, and the transaction.
    current: nil,
    lock: nil,
    # Entries that wait: those with the lock, and all others. What the process itself has to do.
    inner: Waiting.new(),
    outer: Waiting.new(),
    chores: [],
    closing: [],
    transaction: ?I,
    listeners: nil
  ]

  # ---- calls ----

  def start_link(secret, opts),
    do: GenServer.start_link(__MODULE__, {secret, opts}, Keyword.take(opts, [:name]))

  @impl true
  def init({secret, opts}) do
    Process.flag(:trap_exit, true)
    Causeway.Telemetry.load()
    options = secret.()
    table = :ets.new(__MODULE__, [:public, read_concurrency: true])

    session = %Session{
      pid: self(),
      table: table,
      timeout: options.timeout,
      prepare: options.prepare,
      cache: Keyword.get(opts, :statement_cache, 200),
      disconnect_on: options.disconnect_on_error_codes
    }

    state = %__MODULE__{
      secret: secret,
      opts: opts,
      session: session,
      listeners: Listeners.new()
    }

    if opts[:sync_connect], do: connect_now(state), else: {:ok, state, {:continue, :connect}}
  end

  # Waits for the first connection in init, so that start_link says how it went.
  defp connect_now(state) do
    case state |> connect() |> await_connection() do
      %{phase: :ready} = state -> {:ok, state}
      %{failure: failure} -> {:stop, failure}
    end
  end

  defp await_connection(%{phase: :connecting} = state) do
    receive do
      {port, _} = message when is_port(port) ->
        state |> port_message(message) |> await_connection()

      {:timeout, _, _} = message ->
        state |> timer(message) |> await_connection()
    end
  end

  defp await_connection(state), do: state

  @impl true
  def handle_continue(:connect, state), do: {:noreply, connect(state)}

  @impl true
  def handle_call(:session, _from, state), do: {:reply, state.session, state}
  def handle_call(:info, _from, state), do: {:reply, info(state), state}

  def handle_call(:cancel, _from, state) do
    if state.current, do: command(state, state.current.id, Protocol.cancel())
    {:reply, :ok, state}
  end

  # The answer is long overdue. A request that waits still says nothing about the program.
  def handle_call({:overdue, ref}, _from, %{current: %{ref: ref}} = state),
    do: {:reply, :under_way, state}

  def handle_call({:overdue, ref}, _from, state),
    do: {:reply, :settled, state |> expired(:inner, ref) |> expired(:outer, ref)}

  def handle_call({:listen, pid, channel, gaps?}, _from, state) do
    {ref, listeners} = Listeners.add(state.listeners, pid, channel, gaps?)
    {:reply, ref, %{state | listeners: listeners}}
  end

  def handle_call({:unlisten, ref}, _from, state) do
    {:reply, :ok, state |> unlisten(Listeners.remove(state.listeners, ref)) |> next()}
  end

  @impl true
  def handle_info({:causeway_request, ref, pid, lock, deadline, role, body}, state) do
    entry = %{
      ref: ref,
      pid: pid,
      lock: lock,
      deadline: deadline,
      role: role,
      body: body,
      id: nil,
      monitor: nil,
      timer: nil
    }

    entry |> admit(state) |> reply()
  end

  def handle_info({:causeway_tell, ref, body}, %{current: %{ref: ref, id: id}} = state) do
    command(state, id, body)
    reply(state)
  end

  # Whoever says this is talking to a request that has ended.
  def handle_info({:causeway_tell, _, _}, state), do: {:noreply, state}

  def handle_info({:causeway_close, names}, state),
    do: reply(next(%{state | closing: names ++ state.closing}))

  # The owner of a transaction cannot end it.
  def handle_info({:causeway_abandon, ref}, %{lock: %{ref: ref} = lock} = state) do
    if state.current, do: command(state, state.current.id, Protocol.cancel())
    reply(next(%{state | lock: %{lock | pid: nil, dead?: true}}))
  end

  def handle_info({:causeway_abandon, _}, state), do: {:noreply, state}

  def handle_info({:causeway_disconnect, why}, %{phase: :ready} = state),
    do: {:noreply, lost(state, why)}

  def handle_info({:causeway_disconnect, _}, state), do: {:noreply, state}

  def handle_info({port, _} = message, state) when is_port(port),
    do: state |> port_message(message) |> reply()

  def handle_info({:timeout, _, _} = message, state), do: state |> timer(message) |> reply()

  def handle_info({:DOWN, monitor, :process, _, _}, state),
    do: state |> gone(monitor) |> next() |> reply()

  def handle_info({:EXIT, port, _} = message, state) when is_port(port),
    do: state |> port_message(message) |> reply()

  def handle_info({:EXIT, _, reason}, state), do: {:stop, reason, state}
  def handle_info(_, state), do: {:noreply, state}

  defp reply(%{phase: :stopped} = state), do: {:stop, {:shutdown, state.failure}, state}
  defp reply(state), do: {:noreply, state}

  defp watch_current(%{current: %{monitor: nil, pid: pid} = current} = state) when is_pid(pid),
    do: %{state | current: watch(current)}

  defp watch_current(state), do: state

  # The program ends with its input, and cancels what runs.
  @impl true
  def terminate(_reason, state), do: close_port(state)

  # ---- connecting ----

  defp connect(state) do
    state = %{state | phase: :connecting, began: System.monotonic_time(), fatal: nil}

    case Protocol.open() do
      {:ok, port} -> ask_to_connect(%{state | port: port})
      {:error, why} -> refused(state, %Error{reason: :not_connected, detail: why})
    end
  end

  defp ask_to_connect(state) do
    options = state.secret.()
    {_, os_pid} = Port.info(state.port, :os_pid) || {nil, nil}
    :ets.insert(state.session.table, {:os_pid, os_pid})
    timeout = if options.connect_timeout == :infinity, do: 0, else: options.connect_timeout
    Port.command(state.port, Protocol.request(0, timeout, Protocol.connect(options.conninfo)))
    # The program sees to the deadline itself, if it is running.
    timer = if timeout > 0, do: :erlang.start_timer(timeout + 5_000, self(), :connecting)
    %{state | timer: timer}
  end

  defp connected(state, facts) do
    facts = Map.new(facts)
    %{table: table} = state.session
    :ets.delete_all_objects(table)
    {_, os_pid} = Port.info(state.port, :os_pid) || {nil, nil}
    types = Types.new(Keyword.take(state.opts, Keyword.keys(Types.schema())))
    :ets.insert(table, [{:os_pid, os_pid}, {:connection, types, facts.pid}])
    measurements = %{duration: System.monotonic_time() - state.began}
    Events.emit(self(), :connect, measurements, Map.take(facts, [:server_version, :host]))
    # Not the first connection: there was none for a while.
    if state.facts != %{}, do: Listeners.gap(state.listeners)

    next(%{
      stop_timer(state)
      | phase: :ready,
        facts: facts,
        failure: nil,
        pause: nil,
        transaction: ?I,
        closing: [],
        chores: for(channel <- Listeners.channels(state.listeners), do: {:listen, channel})
    })
  end

  # A connection could not be made.
  defp refused(state, error) do
    Events.emit(self(), :connect_failed, %{duration: System.monotonic_time() - state.began}, %{
      error: error
    })

    state = close_port(stop_timer(state))
    state = %{state | failure: error, chores: []}
    state = refuse_all(state, :outer, error)
    if state.opts[:backoff_type] == :stop, do: %{state | phase: :stopped}, else: pause(state)
  end

  # Doubles from pause to pause; at random between its half and the whole, so that not all come back at once.
  defp pause(state) do
    least = Keyword.get(state.opts, :backoff_min, 100)
    most = Keyword.get(state.opts, :backoff_max, 10_000)
    pause = min(if(state.pause, do: state.pause * 2, else: least), most)
    :erlang.start_timer(div(pause, 2) + :rand.uniform(max(div(pause, 2), 1)), self(), :reconnect)
    %{state | phase: :down, pause: pause}
  end

  # A connection that was there is no more.
  defp lost(state, why) do
    why = if state.fatal, do: "#{state.fatal}; #{why}", else: why

    error = %Error{
      reason: :disconnected,
      detail: String.trim(why),
      connection_id: state.facts[:pid]
    }

    Events.emit(self(), :disconnect, %{}, %{reason: error.detail})
    state = close_port(state)
    if state.current, do: settle(state.current, {:error, error})
    if state.lock, do: Process.demonitor(state.lock.monitor, [:flush])
    state = %{state | current: nil, lock: nil, chores: [], closing: [], failure: error}
    state = refuse_all(state, :inner, %Error{reason: :transaction_lost, detail: error.detail})

    if state.opts[:backoff_type] == :stop,
      do: refuse_all(%{state | phase: :stopped}, :outer, error),
      else: connect(state)
  end

  defp close_port(%{port: nil} = state), do: state

  defp close_port(%{port: port} = state) do
    # It may have ended by itself a moment ago.
    try do
      Port.close(port)
    rescue
      ArgumentError -> :ok
    end

    receive do
      {:EXIT, ^port, _} -> :ok
    after
      0 -> :ok
    end

    %{state | port: nil}
  end

  defp stop_timer(%{timer: nil} = state), do: state

  defp stop_timer(%{timer: timer} = state) do
    :erlang.cancel_timer(timer)
    %{state | timer: nil}
  end

  # ---- what the program says ----

  defp port_message(%{port: port} = state, {port, {:data, frame}}), do: frame(frame, state)

  defp port_message(%{port: port} = state, {port, {:exit_status, status}}),
    do: program_ended(state, Protocol.exit_reason(status))

  # What is written to a program that has just died ends the port, and there is no status then.
  defp port_message(%{port: port} = state, {:EXIT, port, reason}),
    do: program_ended(state, "the port program has ended (#{inspect(reason)})")

  # Of a port of before.
  defp port_message(state, _), do: state

  defp program_ended(state, why) do
    if state.phase == :connecting,
      do: refused(state, %Error{reason: :not_connected, detail: why}),
      else: lost(state, why)
  end

  defp frame(frame, state) do
    case Protocol.frame(frame) do
      {:more, records} ->
        pass(state.current, {:more, records})
        state

      {:last, transaction, records} ->
        pass(state.current, last(state, transaction, records))
        next(ended(state, transaction))

      {:event, event} ->
        event(event, state)
    end
  end

  # Transactions are begun and ended by transaction/3, or others would be within them, and know nothing of it. One that is
  # prepared for two-phase commit has ended here, too, but as was asked for: that cannot be done in another way.
  @prepared "PREPARE TRANSACTION" <> <<19>>
  defp last(state, transaction, records) do
    case meddled(state, transaction) do
      nil ->
        {:last, transaction, records}

      why ->
        if String.ends_with?(records, @prepared),
          do: {:last, transaction, records},
          else: {:error, Error.server(:refused, message: why)}
    end
  end

  defp meddled(%{lock: nil, current: %{role: :plain}}, transaction)
       when transaction in [?T, ?E] do
    "a transaction that a statement begins has to be ended by the same call; what it did was rolled back: use transaction/3"
  end

  defp meddled(%{lock: %{dead?: false}, current: %{role: :plain}}, ?I) do
    "the statement was run, and has ended the transaction; that is for transaction/3 to do"
  end

  defp meddled(_state, _transaction), do: nil

  defp pass(%{pid: nil}, _), do: :ok
  defp pass(%{ref: ref}, part), do: send(ref, {ref, part})

  defp event({:connected, _, facts}, state), do: connected(state, facts)

  defp event({:failed, _, why, message}, state),
    do: refused(state, Error.connect(why, message))

  defp event({:notification, _pid, channel, payload}, state) do
    Listeners.tell(state.listeners, channel, payload)
    state
  end

  defp event({:notice, fields}, state) do
    if state.current, do: pass(state.current, {:notice, fields})
    # A server that closes a connection says why, if it can.
    if fields[:severity] in ["FATAL", "PANIC"],
      do: %{state | fatal: fields[:message]},
      else: state
  end

  defp event({:closed, _why, message}, state), do: lost(state, message)

  # ---- requests ----

  # Refuses it, starts it, or lets it wait.
  defp admit(%{lock: nil} = entry, state) do
    cond do
      state.lock && state.lock.pid == entry.pid -> refuse(entry, state, %Error{reason: :busy})
      own?(state.current, entry) -> refuse(entry, state, %Error{reason: :busy})
      state.phase == :down -> refuse(entry, state, %{state.failure | reason: :not_connected})
      state.phase == :ready and idle?(state) -> start(entry, state)
      true -> enqueue(entry, :outer, state)
    end
  end

  defp admit(entry, state) do
    cond do
      state.lock == nil or state.lock.ref != entry.lock ->
        refuse(entry, state, %Error{reason: :transaction_lost})

      own?(state.current, entry) ->
        refuse(entry, state, %Error{reason: :busy})

      state.current == nil ->
        start(entry, state)

      true ->
        enqueue(entry, :inner, state)
    end
  end

  defp own?(nil, _), do: false
  defp own?(current, entry), do: current.pid == entry.pid

  defp idle?(state), do: state.current == nil and state.lock == nil

  defp refuse(entry, state, error) do
    send(entry.ref, {entry.ref, {:error, error}})
    state
  end

  defp watch(entry), do: %{entry | monitor: Process.monitor(entry.pid)}

  defp enqueue(entry, queue, state) do
    entry = watch(entry)
    left = left(entry.deadline)

    timer =
      if left != :infinity, do: :erlang.start_timer(left, self(), {:expired, queue, entry.ref})

    Map.update!(state, queue, &Waiting.put(&1, %{entry | timer: timer}))
  end

  defp left(:infinity), do: :infinity
  defp left(deadline), do: max(deadline - System.monotonic_time(:millisecond), 0)

  defp start(entry, state) do
    id = rem(state.id + 1, 0xFFFFFFFF)
    if entry.timer, do: :erlang.cancel_timer(entry.timer)

    timeout =
      case left(entry.deadline) do
        :infinity -> 0
        left -> max(left, 1)
      end

    command(state, id, timeout, entry.body)
    look_later(%{state | id: id, current: %{entry | id: id, body: nil}})
  end

  # One timer for all that are done in the meantime.
  defp look_later(%{watcher: nil, current: %{monitor: nil}} = state),
    do: %{state | watcher: :erlang.start_timer(@watch_after, self(), :watch)}

  defp look_later(state), do: state

  # A port that has just ended takes no commands; its exit is told next.
  defp command(state, id, timeout \\ 0, body) do
    Port.command(state.port, Protocol.request(id, timeout, body))
  rescue
    ArgumentError -> false
  end

  # The answer is complete.
  defp ended(%{current: current} = state, transaction) do
    state = %{state | current: nil, transaction: transaction}

    case current.role do
      {:begin, ref} when transaction != ?I ->
        monitor = current.monitor || Process.monitor(current.pid)
        %{state | lock: %{ref: ref, pid: current.pid, monitor: monitor, dead?: false}}

      :end when transaction == ?I ->
        release(current)
        if state.lock, do: Process.demonitor(state.lock.monitor, [:flush])
        refuse_all(%{state | lock: nil}, :inner, %Error{reason: :transaction_lost})

      :plain ->
        release(current)
        if meddled(%{state | current: current}, transaction), do: settled(state), else: state

      _ ->
        release(current)
        state
    end
  end

  # A transaction that nobody owns is rolled back; of one that is no more, its owner is told when it goes on.
  defp settled(%{lock: nil} = state), do: %{state | lock: dead_lock()}

  defp settled(%{lock: lock} = state) do
    Process.demonitor(lock.monitor, [:flush])
    refuse_all(%{state | lock: nil}, :inner, %Error{reason: :transaction_lost})
  end

  defp release(%{monitor: nil}), do: true
  defp release(%{monitor: monitor}), do: Process.demonitor(monitor, [:flush])

  defp settle(%{pid: nil}, _), do: :ok

  defp settle(entry, part) do
    if entry.timer, do: :erlang.cancel_timer(entry.timer)
    release(entry)
    send(entry.ref, {entry.ref, part})
  end

  defp refuse_all(state, queue, error) do
    for entry <- Waiting.entries(Map.fetch!(state, queue)), do: settle(entry, {:error, error})
    Map.put(state, queue, Waiting.new())
  end

  # ---- whose turn it is ----

  defp next(%{phase: :ready, current: nil} = state) do
    cond do
      state.lock && state.lock.dead? -> start(own("ROLLBACK", :end), state)
      Waiting.size(state.inner) > 0 -> dequeue(:inner, state)
      state.lock -> state
      state.chores != [] -> chore(state)
      state.transaction == ?I and length(state.closing) >= @close_at -> close_statements(state)
      Waiting.size(state.outer) > 0 -> dequeue(:outer, state)
      true -> state
    end
  end

  defp next(state), do: state

  defp dequeue(queue, state) do
    {entry, rest} = Waiting.next(Map.fetch!(state, queue))
    start(entry, Map.put(state, queue, rest))
  end

  # A request of this process, whose answer nobody waits for.
  defp own(sql, role) when is_binary(sql), do: own([{:simple, sql}], role)

  defp own(steps, role) do
    %{
      ref: nil,
      pid: nil,
      lock: nil,
      deadline: System.monotonic_time(:millisecond) + 15_000,
      role: role,
      body: Protocol.run(steps),
      id: nil,
      monitor: nil,
      timer: nil
    }
  end

  defp chore(%{chores: [{what, channel} | chores]} = state) do
    state = %{state | chores: chores}

    if Listeners.any?(state.listeners, channel) == (what == :listen) do
      verb = if what == :listen, do: "LISTEN", else: "UNLISTEN"
      start(own("#{verb} #{Protocol.quoted(channel)}", :plain), state)
    else
      next(state)
    end
  end

  # One that fails, as the server has dropped it already, does not keep the others.
  defp close_statements(state) do
    steps = Enum.flat_map(state.closing, &[{:close, &1}, {:sync}])
    start(own(steps, :plain), %{state | closing: []})
  end

  # ---- those who are gone ----

  defp gone(state, monitor) do
    cond do
      state.lock && state.lock.monitor == monitor ->
        if state.current, do: command(state, state.current.id, Protocol.cancel())
        put_in(state.lock.dead?, true)

      state.current && state.current.monitor == monitor ->
        abandoned(state)

      true ->
        {_, inner} = Waiting.take_monitored(state.inner, monitor)
        {_, outer} = Waiting.take_monitored(state.outer, monitor)
        state = %{state | inner: inner, outer: outer}
        unlisten(state, Listeners.down(state.listeners, monitor))
    end
  end

  # What it runs is for nobody any more. A BEGIN may leave a transaction behind, which needs an owner to be dead.
  defp abandoned(state) do
    command(state, state.current.id, Protocol.cancel())
    current = %{state.current | pid: nil}

    case current.role do
      {:begin, _} -> %{state | current: %{current | role: :end}, lock: dead_lock()}
      _ -> %{state | current: current}
    end
  end

  defp dead_lock, do: %{ref: make_ref(), pid: nil, monitor: make_ref(), dead?: true}

  defp unlisten(state, {silent, listeners}) do
    chores =
      if state.phase == :ready, do: for(channel <- silent, do: {:unlisten, channel}), else: []

    %{state | listeners: listeners, chores: state.chores ++ chores}
  end

  # ---- time ----

  defp timer(%{phase: :down} = state, {:timeout, _, :reconnect}), do: connect(state)

  # The port program does not run: it would have seen to the deadline.
  defp timer(%{timer: timer, phase: :connecting} = state, {:timeout, timer, :connecting}) do
    with [{_, os_pid}] <- :ets.lookup(state.session.table, :os_pid), do: Program.kill(os_pid)
    refused(state, %Error{reason: :not_connected, detail: "the port program did not answer"})
  end

  defp timer(state, {:timeout, _, {:expired, queue, ref}}), do: expired(state, queue, ref)

  defp timer(%{watcher: timer} = state, {:timeout, timer, :watch}),
    do: watch_current(%{state | watcher: nil})

  defp timer(state, _), do: state

  defp expired(state, queue, ref) do
    {entry, rest} = Waiting.take(Map.fetch!(state, queue), ref)
    if entry, do: settle(entry, {:error, late(state)})
    Map.put(state, queue, rest)
  end

  defp late(%{phase: :ready}), do: %Error{reason: :queue_timeout}

  defp late(state) do
    why = if state.failure, do: state.failure.detail, else: "the server has not answered yet"
    %Error{reason: :not_connected, detail: "the deadline passed while connecting: #{why}"}
  end

  # ---- what is told of it ----

  defp info(state) do
    %{
      status: if(state.phase == :ready, do: :connected, else: state.phase),
      failure: state.failure,
      transaction: transaction(state.transaction),
      waiting: Waiting.size(state.inner) + Waiting.size(state.outer),
      busy: state.current != nil,
      channels: Listeners.channels(state.listeners),
      connection_id: state.facts[:pid],
      parameters: Map.new(state.facts[:parameters] || [])
    }
    |> Map.merge(
      Map.take(state.facts, [
        :server_version,
        :libpq_version,
        :user,
        :database,
        :host,
        :hostaddr,
        :port,
        :tls,
        :tls_cipher
      ])
    )
  end

  defp transaction(?I), do: :idle
  defp transaction(?T), do: :open
  defp transaction(?E), do: :failed
  defp transaction(_), do: :unknown

  # What runs, and the mailbox, may hold parameters; options hold secrets.
  # A callback of GenServer since Elixir 1.17; OTP calls it since 25.
  @impl {:format_status, 1} in GenServer.behaviour_info(:callbacks)
  def format_status(status) do
    Map.new(status, fn
      {:state, state} -> {:state, short(state)}
      {:message, _} -> {:message, :not_shown}
      other -> other
    end)
  end

  defp short(%__MODULE__{} = state), do: Map.delete(info(state), :parameters)
  defp short(other), do: other

  @doc "The options of this module."
  def schema do
    [
      name: "a name to register it by.",
      sync_connect:
        "`true`: `start_link` returns when it is connected, or with the error. Default: false.",
      backoff_type:
        "`:stop`: ends when the connection is lost or refused; otherwise it tries again.",
      backoff_min: "milliseconds before it tries again after a refusal; doubles. Default: 100.",
      backoff_max: "milliseconds at most. Default: 10000.",
      statement_cache: "how many statements of `query` are kept prepared. Default: 200."
    ] ++ Types.schema()
  end

  @doc "The options: those that libpq needs, and those of this module, checked."
  def split!(opts) do
    {options, own} = Options.split!(opts)
    names = Keyword.keys(schema())

    for {name, value} <- own do
      name in names || Options.new!([{name, value}])

      valid?(name, value) ||
        raise ArgumentError, "option #{inspect(name)}: #{inspect(value)} cannot be"
    end

    {options, own}
  end

  defp valid?(name, value) when name in [:backoff_min, :backoff_max],
    do: is_integer(value) and value > 0

  defp valid?(:statement_cache, n), do: is_integer(n) and n >= 0
  defp valid?(:sync_connect, value), do: is_boolean(value)
  defp valid?(:backoff_type, value), do: value in [:stop, :exp, :rand, :rand_exp]
  defp valid?(_, _), do: true
end
