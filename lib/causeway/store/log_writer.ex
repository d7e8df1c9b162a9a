defmodule Causeway.Store.LogWriter do
  @moduledoc false
  # Makes versions last, and shows them. What the committer has handed on in the meantime is written together: one
  # record in the log, one sync, one new version for the readers; then everybody gets an answer. The directory and
  # all that is in it is this process's: opening, checkpoints, closing.

  # What was written without `:always` takes a while to sync.
  use GenServer, shutdown: 60_000
  alias Causeway.{Clock, Doc}
  alias Causeway.Store.{Checkpoint, Disk, Error, Events, Log, Runtime}

  @group 256
  @yields 20
  # A checkpoint when the log is as long as the last one, and at least this.
  @log_bytes 8_000_000
  # After a failed sync, another checkpoint is tried as often.
  @rewrite_after 1_000

  defmodule State do
    @moduledoc false
    # doc, clock: what is in the log, and seen; failed: why nothing is written until the committer has taken note;
    # rewrite: whether a sync has failed, and no checkpoint has been begun since
    defstruct [
      :rt,
      :doc,
      :clock,
      :version,
      :disk,
      :log,
      :actor,
      :checkpoint,
      :committer,
      :failed,
      checkpointed: {0, 0},
      rewrite: false,
      armed: [],
      waiting: %{},
      last_group: 0
    ]
  end

  def start_link(rt),
    do: GenServer.start_link(__MODULE__, rt, name: Runtime.process(rt, LogWriter))

  # ---- for the committer ----

  @doc "The document and the actor to go on from. All that this process has handed on before is done or refused."
  def attach(rt), do: GenServer.call(process(rt), :attach, :infinity)

  @doc """
  Takes versions, oldest first, as `{from, doc, change}`: who gets the answer, and how many operations, or which
  delta, led there from the one before. After a failure `:write_failed` is sent to the committer, and all that comes
  before it attaches anew is refused.
  """
  def write(rt, versions), do: send(process(rt), {:write, self(), versions})

  @doc "Goes on under a new actor."
  def new_actor(rt), do: GenServer.call(process(rt), :new_actor, :infinity)

  # ---- for all ----

  @doc "Returns when the clock has been seen."
  def wait(rt, clock, timeout), do: call(rt, {:wait, clock, timeout}, :infinity)

  def checkpoint(rt), do: call(rt, :checkpoint, :infinity)
  def info(rt), do: call(rt, :info, 5_000)

  @doc "Sends `{:changed, version}` to the caller once there is a version after this one."
  def arm(rt, version), do: GenServer.cast(process(rt), {:arm, self(), version})

  defp process(rt), do: Runtime.process(rt, LogWriter)
  defp call(rt, request, timeout), do: Runtime.call(rt, LogWriter, request, timeout)

  # ---- opening ----

  @impl true
  def init(rt) do
    Process.flag(:trap_exit, true)
    began = System.monotonic_time()

    case open(rt, rt.opts[:dir]) do
      {:ok, state, facts} ->
        Runtime.put_current(rt, state.doc, state.version)

        facts =
          Map.merge(facts, %{duration: System.monotonic_time() - began, cells: cells(state.doc)})

        Events.emit(rt.name, :open, facts, %{dir: rt.opts[:dir]})
        {:ok, arm_sync(state)}

      # The supervisor's report would not show what to do about it.
      {:error, error} ->
        :logger.error(~c"causeway: store ~tp: ~ts", [rt.name, Exception.message(error)])
        {:stop, error}
    end
  end

  defp open(rt, nil) do
    {doc, version, actor} = Runtime.last(rt) || new_in_memory(rt.opts.replica)
    {:ok, state(rt, doc, version, actor), %{records: 0, cut: 0}}
  end

  defp open(rt, dir) do
    with {:ok, disk, fate} <- Disk.open(dir, rt.opts.replica, rt.opts.fsync),
         {:ok, doc, number, size} <- Checkpoint.read(disk, disk.identity.actor),
         :ok <- Log.drop_until(disk, number),
         {:ok, doc, found} <- Log.replay(disk, number, doc, &Doc.apply_delta(&2, &1)),
         {:ok, log} <- Log.open(disk, found.last + 1, found.bytes, true) do
      report(rt, disk, fate, found.cut)
      state = state(rt, doc, found.last, disk.identity.actor)
      state = %{state | disk: disk, log: log, checkpointed: {number, size}}
      {:ok, state, %{records: found.last - number, cut: found.cut}}
    end
  end

  # Peers may have writes of an earlier run, whose numbers are not known here and must not be used again.
  defp new_in_memory(replica) do
    actor = Disk.actor_name(replica)
    {Doc.new(actor), 0, actor}
  end

  defp state(rt, doc, version, actor) do
    Runtime.put_actor(rt, actor)
    %State{rt: rt, doc: doc, clock: Doc.clock(doc), version: version, actor: actor}
  end

  defp report(rt, disk, fate, cut) do
    if cut > 0,
      do:
        warn("#{disk.dir}: #{cut} bytes of an interrupted write were cut off the end of the log")

    with {:new_actor, why} <- fate do
      warn("#{disk.dir} #{explain(why)}; writes go on as #{disk.identity.actor}")
      Events.emit(rt.name, :new_actor, %{}, %{actor: disk.identity.actor, reason: why})
    end
  end

  defp explain(:copied), do: "was copied or restored since it was last open"
  defp explain(:machine_crashed), do: "was open without `fsync: :always` when the machine stopped"
  defp explain(:restored), do: "is older than what a peer has of it"

  defp warn(text), do: :logger.warning(~c"causeway: ~ts", [text])

  defp cells(doc), do: Doc.info(doc).cells

  # ---- requests ----

  @impl true
  def handle_call(:attach, {pid, _}, state),
    do: {:reply, {state.doc, state.actor}, %{state | committer: pid, failed: nil}}

  def handle_call(:new_actor, _from, state) do
    case become_new(state) do
      {:ok, state} -> {:reply, :ok, state}
      {:error, error} -> {:reply, {:error, error}, state}
    end
  end

  def handle_call({:wait, clock, timeout}, from, state) do
    if Clock.contains?(state.clock, clock) do
      {:reply, :ok, state}
    else
      timer = Process.send_after(self(), {:expire, from}, timeout)
      {:noreply, put_in(state.waiting[from], {clock, timer})}
    end
  end

  def handle_call(:checkpoint, _from, %{disk: nil} = state), do: {:reply, :ok, state}

  def handle_call(:checkpoint, from, state) do
    case start_checkpoint(state, [from]) do
      {:ok, state} -> {:noreply, state}
      {:error, error, state} -> {:reply, {:error, error}, state}
    end
  end

  def handle_call(:info, _from, state) do
    {number, bytes} = state.checkpointed

    info = %{
      actor: state.actor,
      version: state.version,
      log: state.log && %{path: state.log.path, bytes: state.log.bytes, next: state.log.next},
      checkpoint: state.disk && %{number: number, bytes: bytes, running: state.checkpoint != nil},
      waiting: map_size(state.waiting)
    }

    {:reply, info, state}
  end

  @impl true
  def handle_cast({:arm, pid, version}, state) when version < state.version do
    send(pid, {:changed, state.version})
    {:noreply, state}
  end

  def handle_cast({:arm, pid, _version}, state),
    do: {:noreply, %{state | armed: [pid | state.armed]}}

  # ---- a group ----

  @impl true
  def handle_info({:write, committer, versions}, %{committer: committer} = state) do
    {:noreply, versions |> gather(state) |> write_group(state)}
  end

  # Of a committer that has crashed: who asked for them has been told so.
  def handle_info({:write, _, _}, state), do: {:noreply, state}

  def handle_info(:sync, state) do
    state = arm_sync(state)

    with {:error, error} <- Log.sync(state.log) do
      warn(Exception.message(error))
      {:noreply, rewrite(state)}
    else
      :ok -> {:noreply, state}
    end
  end

  def handle_info(:rewrite, %{checkpoint: nil} = state) do
    with {:ok, log} <- Log.renew(state.log, state.disk),
         {:ok, state} <- start_checkpoint(%{state | log: log, rewrite: false}, []) do
      {:noreply, state}
    else
      {:error, error} -> {:noreply, %{state | rewrite: false} |> failed(error) |> rewrite_later()}
      {:error, error, state} -> {:noreply, state |> failed(error) |> rewrite_later()}
    end
  end

  # The one that is under way may have begun before.
  def handle_info(:rewrite, state), do: {:noreply, rewrite_later(%{state | rewrite: false})}

  def handle_info({:expire, from}, state) do
    case pop_in(state.waiting[from]) do
      {nil, state} ->
        {:noreply, state}

      {{clock, _}, state} ->
        GenServer.reply(from, {:error, %Error{reason: {:behind, missing(state.clock, clock)}}})
        {:noreply, state}
    end
  end

  def handle_info({:EXIT, pid, reason}, %{checkpoint: %{pid: pid}} = state),
    do: {:noreply, checkpoint_done(state, reason)}

  def handle_info({:EXIT, _, reason}, state), do: {:stop, reason, state}
  def handle_info(_, state), do: {:noreply, state}

  # Who has just got an answer from the last group is mostly about to come with the next request: they are let run
  # before the group is closed, where it waits for the disk for longer.
  defp gather(versions, %{rt: %{opts: %{fsync: :always}}, log: log} = state) when log != nil,
    do: gather([versions], length(versions), @yields, state)

  defp gather(versions, state), do: gather([versions], length(versions), 0, state)

  defp gather(groups, n, yields, %{committer: committer} = state) do
    receive do
      {:write, ^committer, versions} when n < @group ->
        gather([versions | groups], n + length(versions), yields, state)
    after
      0 ->
        if n >= state.last_group or n >= @group or yields == 0 do
          groups |> Enum.reverse() |> Enum.concat()
        else
          :erlang.yield()
          gather(groups, n, yields - 1, state)
        end
    end
  end

  defp write_group(versions, %{failed: nil} = state) do
    began = System.monotonic_time()
    {_, doc, _} = List.last(versions)
    clock = Doc.clock(doc)
    group = %{versions: versions, doc: doc, clock: clock, changed: clock != state.clock}

    with {:ok, state} <- append(state, group) do
      state = publish(state, group)
      for {from, _, _} <- versions, do: GenServer.reply(from, {:ok, clock})
      n = length(versions)
      measure(state, n, began)
      maybe_checkpoint(%{state | last_group: n})
    else
      {:error, error} ->
        send(state.committer, :write_failed)
        refuse(versions, %{state | failed: error})
    end
  end

  defp write_group(versions, state), do: refuse(versions, state)

  defp refuse(versions, %{failed: error} = state) do
    for {from, _, _} <- versions, do: GenServer.reply(from, {:error, error})
    state
  end

  # ---- to the disk ----

  defp append(%{log: nil} = state, _group), do: {:ok, state}
  defp append(state, %{changed: false}), do: {:ok, state}

  defp append(state, group) do
    with {:ok, log} <-
           Log.append(state.log, deltas(state, group), state.rt.opts.fsync == :always),
         do: {:ok, %{state | log: log}}
  end

  # What was committed here between two deltas of peers becomes one.
  defp deltas(state, group) do
    start = {state.doc, state.clock, state.doc, 0, []}

    {mark, clock, doc, ops, deltas} =
      Enum.reduce(group.versions, start, fn
        {_, doc, n}, {mark, clock, _, ops, deltas} when is_integer(n) ->
          {mark, clock, doc, ops + n, deltas}

        {_, doc, delta}, {mark, clock, last, ops, deltas} ->
          {doc, Doc.clock(doc), doc, 0, [delta | own(mark, clock, last, ops, deltas)]}
      end)

    Enum.reverse(own(mark, clock, doc, ops, deltas))
  end

  defp own(_mark, _clock, _doc, 0, deltas), do: deltas
  defp own(mark, clock, doc, ops, deltas), do: [delta(mark, clock, doc, ops) | deltas]

  # A clock is quick for a few operations. A document does not remember many, and would give the whole state.
  @many_ops 1_000
  @large 64_000

  defp delta(old, _clock, new, ops) when ops > @many_ops, do: Doc.delta(new, since: old)

  defp delta(old, clock, new, _ops) do
    delta = Doc.delta(new, since: clock)

    if byte_size(delta) > @large,
      do: Enum.min_by([delta, Doc.delta(new, since: old)], &byte_size/1),
      else: delta
  end

  # ---- to the readers ----

  defp publish(state, %{changed: false}), do: state

  defp publish(state, group) do
    version = state.version + 1
    Runtime.put_current(state.rt, group.doc, version)
    if Runtime.publishing?(state.rt), do: send_versions(state.rt, group.versions)
    for pid <- state.armed, do: send(pid, {:changed, version})
    release(%{state | doc: group.doc, clock: group.clock, version: version, armed: []})
  end

  defp send_versions(rt, versions) do
    if Runtime.enqueue(rt, length(versions)) do
      docs = for {_, doc, _} <- versions, do: doc
      send(Runtime.process(rt, Publisher), {:versions, docs})
    end
  rescue
    ArgumentError -> :ok
  end

  defp release(%{waiting: waiting} = state) when map_size(waiting) == 0, do: state

  defp release(state) do
    {done, waiting} =
      Enum.split_with(state.waiting, fn {_, {clock, _}} ->
        Clock.contains?(state.clock, clock)
      end)

    for {from, {_, timer}} <- done do
      Process.cancel_timer(timer)
      GenServer.reply(from, :ok)
    end

    %{state | waiting: Map.new(waiting)}
  end

  defp measure(state, transactions, began) do
    duration = System.monotonic_time() - began
    Events.emit(state.rt.name, :commit, %{duration: duration, transactions: transactions})
  end

  # ---- checkpoints ----

  defp maybe_checkpoint(%{log: nil} = state), do: state

  defp maybe_checkpoint(%{checkpoint: nil, checkpointed: {_, size}} = state) do
    if state.log.bytes > max(@log_bytes, size) do
      case start_checkpoint(state, []) do
        {:ok, state} -> state
        {:error, error, state} -> failed(state, error)
      end
    else
      state
    end
  end

  defp maybe_checkpoint(state), do: state

  # Not again before as much has been written.
  defp failed(state, error) do
    Events.emit(state.rt.name, :checkpoint_failed, %{}, %{dir: state.disk.dir, error: error})
    warn("no checkpoint: " <> Exception.message(error))
    put_in(state.log.bytes, 0)
  end

  # What a failed sync has not brought to the disk, the system may forget, and the next sync is then a success: only a
  # checkpoint brings it back.
  defp rewrite(%{rewrite: true} = state), do: state

  defp rewrite(state) do
    send(self(), :rewrite)
    %{state | rewrite: true}
  end

  defp rewrite_later(%{rewrite: true} = state), do: state

  defp rewrite_later(state) do
    Process.send_after(self(), :rewrite, @rewrite_after)
    %{state | rewrite: true}
  end

  # Somebody may wait for one that is under way.
  defp start_checkpoint(%{checkpoint: %{waiting: waiting} = running} = state, more),
    do: {:ok, %{state | checkpoint: %{running | waiting: more ++ waiting}}}

  # Writers go on, in a new segment, while a process of its own writes the state as it was.
  defp start_checkpoint(%{disk: disk, doc: doc} = state, waiting) do
    number = state.log.next - 1

    with {:ok, log} <- next_segment(state) do
      began = System.monotonic_time()
      pid = spawn_link(fn -> exit({:written, write_checkpoint(disk, doc, number)}) end)
      running = %{pid: pid, number: number, began: began, waiting: waiting}
      {:ok, %{state | log: log, checkpoint: running}}
    else
      {:error, error} -> {:error, error, state}
    end
  end

  # Without `:always`, there is much to sync; the last segments stand on the disk before a checkpoint does.
  defp write_checkpoint(disk, doc, number) do
    with :ok <- Log.sync_all(disk),
         {:ok, bytes} <- Checkpoint.write(disk, doc, number),
         :ok <- Log.drop_until(disk, number),
         do: {:ok, bytes}
  end

  # A segment without records is as good as a new one.
  defp next_segment(%{log: log} = state) do
    if Log.empty?(log) do
      {:ok, %{log | bytes: 0}}
    else
      with {:ok, new} <- Log.open(state.disk, log.next, 0, state.rt.opts.fsync == :always) do
        Log.close(log)
        {:ok, new}
      end
    end
  end

  defp checkpoint_done(state, {:written, {:ok, bytes}}) do
    %{number: number, began: began} = state.checkpoint
    duration = System.monotonic_time() - began

    Events.emit(state.rt.name, :checkpoint, %{duration: duration, bytes: bytes}, %{
      dir: state.disk.dir
    })

    for from <- state.checkpoint.waiting, do: GenServer.reply(from, :ok)
    %{state | checkpoint: nil, checkpointed: {number, bytes}}
  end

  defp checkpoint_done(state, reason) do
    error =
      case reason do
        {:written, {:error, error}} -> error
        other -> %Error{reason: {:checkpoint_crashed, state.disk.dir, other}}
      end

    for from <- state.checkpoint.waiting, do: GenServer.reply(from, {:error, error})
    state = failed(%{state | checkpoint: nil}, error)
    if match?({:disk, "sync", _, _}, error.reason), do: rewrite_later(state), else: state
  end

  # ---- a new actor ----

  defp become_new(%{disk: nil} = state),
    do: {:ok, rename(state, Disk.actor_name(state.rt.opts.replica))}

  defp become_new(state) do
    with {:ok, disk} <- Disk.new_actor(state.disk) do
      report(state.rt, disk, {:new_actor, :restored}, 0)
      {:ok, rename(%{state | disk: disk}, disk.identity.actor)}
    end
  end

  defp rename(state, actor) do
    doc = Doc.fork(state.doc, actor)
    Runtime.put_actor(state.rt, actor)
    Runtime.put_current(state.rt, doc, state.version + 1)
    %{state | doc: doc, actor: actor, version: state.version + 1}
  end

  # ---- time ----

  defp arm_sync(%{rt: %{opts: %{fsync: {:every, ms}}}, log: log} = state) when log != nil do
    Process.send_after(self(), :sync, ms)
    state
  end

  defp arm_sync(state), do: state

  defp missing(now, clock) do
    now = Clock.to_map(now)

    for {replica, n} <- clock |> Clock.to_map() |> Enum.sort(),
        seen = Map.get(now, replica, 0),
        seen < n,
        do: {replica, seen, n}
  end

  @impl true
  def terminate(_reason, %{log: nil}), do: :ok

  def terminate(_reason, state) do
    if state.checkpoint, do: Process.exit(state.checkpoint.pid, :kill)
    Log.close(state.log)
    with :ok <- Log.sync_all(state.disk), do: Disk.close(state.disk)
  end
end
