defmodule Causeway.Store.Committer do
  @moduledoc false
  # The one process that makes versions. What waits in its mailbox is done together: one write to the log, one
  # sync, one new version for the readers; then everybody gets an answer.

  # What was written without `:always` takes a while to sync.
  use GenServer, shutdown: 60_000
  alias Causeway.{Clock, Doc}
  alias Causeway.Store.{Checkpoint, Disk, Error, Events, Log, Runtime}

  @group 256
  @yields 20
  # A checkpoint when the log is as long as the last one, and at least this.
  @log_bytes 8_000_000

  defmodule State do
    @moduledoc false
    defstruct [
      :rt,
      :doc,
      :version,
      :disk,
      :log,
      :actor,
      :checkpoint,
      wrote: false,
      checkpointed: {0, 0},
      armed: [],
      waiting: %{},
      last_group: 0
    ]
  end

  def start_link(rt),
    do: GenServer.start_link(__MODULE__, rt, name: Runtime.process(rt.name, Committer))

  # ---- calls ----

  @doc "Commits operations as of a version (nil: none was read); `certify` are paths nobody may have written."
  def commit(rt, ops, seen, certify, timeout),
    do: call(rt, {:commit, ops, seen, certify}, timeout)

  @doc "Takes in a delta from a peer."
  def apply_delta(rt, delta, peer), do: call(rt, {:apply, delta, peer, nil}, :infinity)

  @doc "Returns when the clock has been seen."
  def wait(rt, clock, timeout), do: call(rt, {:wait, clock, timeout}, :infinity)

  def checkpoint(rt), do: call(rt, :checkpoint, :infinity)
  def info(rt), do: call(rt, :info, 5_000)

  @doc "A peer has seen `n` writes of this actor. When that is news, they were made before a backup was restored."
  def seen_elsewhere(rt, n), do: call(rt, {:seen_elsewhere, n}, :infinity)

  @doc "Sends `{:changed, version}` to the caller once there is a version after this one."
  def arm(rt, version),
    do: GenServer.cast(Runtime.process(rt.name, Committer), {:arm, self(), version})

  defp call(rt, request, timeout) do
    GenServer.call(Runtime.process(rt.name, Committer), request, timeout)
  catch
    :exit, {reason, _} when reason in [:noproc, :normal, :shutdown] ->
      {:error, %Error{reason: {:not_running, rt.name}}}
  end

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
    %State{rt: rt, doc: doc, version: version, actor: actor}
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

  defp own(doc, actor), do: doc |> Doc.clock() |> Clock.get(actor)
  defp cells(doc), do: Doc.info(doc).cells

  # ---- requests ----

  @impl true
  def handle_call({tag, _, _, _} = request, from, state) when tag in [:commit, :apply] do
    {:noreply, run_group(gather([{from, request}], state), state)}
  end

  def handle_call({:wait, clock, timeout}, from, state) do
    if Clock.contains?(Doc.clock(state.doc), clock) do
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

  def handle_call({:seen_elsewhere, n}, _from, state) do
    with :restored <- check_own(state.doc, n, state),
         {:ok, state} <- become_new(state) do
      {:reply, :ok, state}
    else
      :known -> {:reply, :ok, state}
      {:error, error} -> {:reply, {:error, error}, state}
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

  # Who has just got an answer from the last group is mostly about to come with the next request: they are let run
  # before the group is closed, where it waits for the disk for longer.
  defp gather(requests, %{log: nil}), do: requests |> drain(1) |> elem(0) |> Enum.reverse()

  defp gather(requests, %{rt: rt, last_group: last}) do
    yields = if rt.opts.fsync == :always, do: @yields, else: 1
    requests |> gather(last, yields) |> Enum.reverse()
  end

  defp gather(requests, last, yields) do
    {requests, n} = drain(requests, length(requests))

    if n >= last or n >= @group or yields == 0 do
      requests
    else
      :erlang.yield()
      gather(requests, last, yields - 1)
    end
  end

  # The newest first, and how many.
  defp drain(requests, @group), do: {requests, @group}

  defp drain(requests, n) do
    receive do
      {:"$gen_call", from, {tag, _, _, _} = request} when tag in [:commit, :apply] ->
        drain([{from, request} | requests], n + 1)
    after
      0 -> {requests, n}
    end
  end

  # ---- a group ----

  # deltas: for the log, newest first; mark: the document that they lead to; ops: how many led on from there;
  # versions: newest first
  defp run_group(requests, state) do
    began = System.monotonic_time()

    group = %{
      doc: state.doc,
      mark: state.doc,
      deltas: [],
      versions: [],
      answers: [],
      ops: 0,
      wrote: false
    }

    {group, rest} = run_all(requests, group, state)
    clock = Doc.clock(group.doc)
    group = Map.put(group, :changed, clock != Doc.clock(state.doc))

    case write(state, group) do
      {:ok, state} ->
        state = publish(%{state | wrote: state.wrote or group.wrote}, group)

        for {from, answer} <- group.answers,
            do: GenServer.reply(from, with(:ok <- answer, do: {:ok, clock}))

        measure(state, group, began)
        run_rest(rest, maybe_checkpoint(%{state | last_group: length(requests)}))

      {:error, error} ->
        for {from, answer} <- group.answers,
            do: GenServer.reply(from, with(:ok <- answer, do: {:error, error}))

        run_rest(rest, state)
    end
  end

  defp run_all([], group, _state), do: {group, []}

  defp run_all([request | rest] = all, group, state) do
    case run(request, group, state) do
      :restored -> {group, all}
      group -> run_all(rest, group, state)
    end
  end

  # A delta with writes of this actor that it does not know: they are taken in by a new one.
  defp run_rest([], state), do: state

  defp run_rest([{from, _} | rest] = requests, state) do
    case become_new(state) do
      {:ok, state} ->
        run_group(requests, state)

      {:error, error} ->
        GenServer.reply(from, {:error, error})
        if rest == [], do: state, else: run_group(rest, state)
    end
  end

  defp run({from, {:commit, ops, seen, certify}}, group, _state) do
    with :ok <- certify(group.doc, seen, certify),
         {:ok, doc} <- Doc.try_update(group.doc, ops, if(seen, do: [as_of: seen], else: [])) do
      ops_done = group.ops + length(List.wrap(ops))
      group = %{group | doc: doc, versions: [doc | group.versions], ops: ops_done, wrote: true}
      answer(group, from, :ok)
    else
      {:error, error} -> answer(group, from, {:error, error})
    end
  end

  defp run({from, {:apply, delta, _peer, nil}}, group, state) do
    with {:ok, doc} <- Doc.apply_delta(group.doc, delta),
         false <- Doc.clock(doc) == Doc.clock(group.doc),
         :known <- check_own(group.doc, own(doc, state.actor), state) do
      group |> record_own(state) |> take(doc, delta) |> answer(from, :ok)
    else
      true -> answer(group, from, :ok)
      :restored -> :restored
      {:error, error} -> answer(group, from, {:error, error})
    end
  end

  defp take(group, doc, delta) do
    %{
      group
      | doc: doc,
        mark: doc,
        ops: 0,
        deltas: [delta | group.deltas],
        versions: [doc | group.versions]
    }
  end

  defp answer(group, from, answer), do: %{group | answers: [{from, answer} | group.answers]}

  # What was committed here since the last delta.
  defp record_own(group, %{log: nil}), do: group

  defp record_own(%{mark: mark, doc: doc} = group, _state) do
    clock = Doc.clock(mark)

    if Doc.clock(doc) == clock,
      do: group,
      else: %{
        group
        | mark: doc,
          ops: 0,
          deltas: [delta(mark, clock, doc, group.ops) | group.deltas]
      }
  end

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

  defp certify(_doc, nil, _paths), do: :ok

  defp certify(doc, seen, paths) do
    case Enum.reject(paths, &(Doc.hash(doc, &1) == Doc.hash(seen, &1))) do
      [] -> :ok
      changed -> {:error, %Error{reason: {:conflict, changed}}}
    end
  end

  # ---- to the disk ----

  defp write(%{log: nil} = state, _group), do: {:ok, state}
  defp write(state, %{changed: false}), do: {:ok, state}

  defp write(state, group) do
    deltas = Enum.reverse(record_own(group, state).deltas)

    with {:ok, log} <- Log.append(state.log, deltas, state.rt.opts.fsync == :always),
         do: {:ok, %{state | log: log}}
  end

  # ---- to the readers ----

  defp publish(state, %{changed: false}), do: state

  defp publish(state, group) do
    version = state.version + 1
    Runtime.put_current(state.rt, group.doc, version)
    if Runtime.publishing?(state.rt), do: send_versions(state.rt, group.versions)
    for pid <- state.armed, do: send(pid, {:changed, version})
    release(%{state | doc: group.doc, version: version, armed: []})
  end

  defp send_versions(rt, versions) do
    if Runtime.enqueue(rt, length(versions)),
      do: send(Runtime.process(rt.name, Publisher), {:versions, Enum.reverse(versions)})
  rescue
    ArgumentError -> :ok
  end

  defp release(%{waiting: waiting} = state) when map_size(waiting) == 0, do: state

  defp release(state) do
    now = Doc.clock(state.doc)

    {done, waiting} =
      Enum.split_with(state.waiting, fn {_, {clock, _}} -> Clock.contains?(now, clock) end)

    for {from, {_, timer}} <- done do
      Process.cancel_timer(timer)
      GenServer.reply(from, :ok)
    end

    %{state | waiting: Map.new(waiting)}
  end

  defp measure(state, group, began) do
    Events.emit(state.rt.name, :commit, %{
      duration: System.monotonic_time() - began,
      transactions: length(group.answers)
    })
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
    failed(%{state | checkpoint: nil}, error)
  end

  # ---- a new actor ----

  # When peers have more writes of this actor than it knows, they were made before a backup was restored. As long as
  # it has written none since, there are no two with the same number.
  defp check_own(doc, n, state) do
    known = own(doc, state.actor)

    cond do
      n <= known ->
        :known

      state.wrote or known > own(state.doc, state.actor) ->
        {:error, %Error{reason: {:reused, state.actor, n}}}

      true ->
        :restored
    end
  end

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
    %{state | doc: doc, actor: actor, version: state.version + 1, wrote: false}
  end

  # ---- time ----

  defp arm_sync(%{rt: %{opts: %{fsync: {:every, ms}}}, log: log} = state) when log != nil do
    Process.send_after(self(), :sync, ms)
    state
  end

  defp arm_sync(state), do: state

  @impl true
  def handle_info(:sync, state) do
    with {:error, error} <- Log.sync(state.log), do: warn(Exception.message(error))
    {:noreply, arm_sync(state)}
  end

  def handle_info({:expire, from}, state) do
    case pop_in(state.waiting[from]) do
      {nil, state} ->
        {:noreply, state}

      {{clock, _}, state} ->
        GenServer.reply(from, {:error, %Error{reason: {:behind, missing(state.doc, clock)}}})
        {:noreply, state}
    end
  end

  def handle_info({:EXIT, pid, reason}, %{checkpoint: %{pid: pid}} = state),
    do: {:noreply, checkpoint_done(state, reason)}

  def handle_info({:EXIT, _, reason}, state), do: {:stop, reason, state}
  def handle_info(_, state), do: {:noreply, state}

  defp missing(doc, clock) do
    now = doc |> Doc.clock() |> Clock.to_map()

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
