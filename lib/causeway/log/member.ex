defmodule Causeway.Log.Member do
  @moduledoc false
  # A member of a consumer group: says that it is there, and has an owner process for each partition it is given. When it
  # could not say so for as long as its lease, others may have them, and its owners are stopped before that.

  use GenServer
  alias Causeway.Log.{Acker, Ends, Error, Events, Groups, Owner, Runtime}
  alias Causeway.Postgres

  defstruct [:opts, :id, :conns, :acker, :rt, :timer, :until, :revision, owners: %{}]

  def start_link(opts) do
    Owner.matcher!(opts)
    name = if opts.name, do: [name: opts.name], else: []
    GenServer.start_link(__MODULE__, opts, name)
  end

  @impl true
  def init(opts) do
    Process.flag(:trap_exit, true)
    {:ok, tick(%__MODULE__{opts: opts}, 0)}
  end

  @impl true
  def handle_info({:timeout, timer, :claim}, %{timer: timer} = state),
    do: {:noreply, claim(%{state | timer: nil})}

  # An owner has ended: it has lost its partition, or crashed.
  def handle_info({:EXIT, pid, reason}, state) do
    case Enum.find(state.owners, fn {_, {owner, _}} -> owner == pid end) do
      {p, _} ->
        released(state, p, reason)
        {:noreply, tick(%{state | owners: Map.delete(state.owners, p)}, 100)}

      nil ->
        if reason in [:normal, :killed], do: {:noreply, state}, else: {:stop, reason, state}
    end
  end

  def handle_info(_, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, %{conns: nil}), do: :ok

  def terminate(_reason, state) do
    stop_all(state, :shutdown)
    Groups.release(conn(state), state.rt, state.opts.group, state.id, nil)
  end

  defp tick(state, ms) do
    if state.timer, do: :erlang.cancel_timer(state.timer)
    %{state | timer: :erlang.start_timer(ms, self(), :claim)}
  end

  # ---- claims ----

  defp claim(state) do
    with {:ok, state} <- ready(state),
         asked = now(),
         {:ok, rows} <-
           Groups.claim(conn(state), state.rt, state.opts.group, state.id, state.opts.lease),
         :ok <- same_server(state, rows) do
      %{state | until: asked + state.opts.lease}
      |> apply_claim(rows)
      |> tick(div(state.opts.lease, 3))
    else
      {:error, error} ->
        Events.emit(state.opts.log, :claim_failed, %{}, %{group: state.opts.group, error: error})
        state |> expire(error) |> tick(max(div(state.opts.lease, 20), 50))
    end
  end

  # The log may have been started again since, with tables of its own.
  defp ready(state) do
    case Runtime.fetch(state.opts.log) do
      {:error, error} -> {:error, error}
      %{id: id} when state.rt != nil and state.rt.id == id -> {:ok, state}
      rt -> state |> stop_all(:restarted) |> connect(rt) |> join()
    end
  end

  defp connect(state, rt) do
    conns = state.conns || for _ <- 1..state.opts.connections, do: start_connection(rt)

    id =
      state.id || "#{rt.publisher}/#{Base.encode32(:crypto.strong_rand_bytes(5), case: :lower)}"

    if state.acker, do: stop_acker(state.acker)
    {:ok, acker} = Acker.start_link(rt, hd(conns), state.opts.group)
    %{state | rt: rt, conns: conns, id: id, acker: acker}
  end

  # Of a log that was started again: it knows the one before.
  defp stop_acker(acker) do
    Process.unlink(acker)
    Process.exit(acker, :kill)
  end

  defp start_connection(rt) do
    {:ok, conn} = Postgres.start_link(Runtime.connection(rt))
    conn
  end

  defp join(state) do
    %{rt: rt, opts: %{group: group, from: from, transactional: repo}} = state

    with :ok <- Groups.ensure(conn(state), rt, group, from),
         :ok <- if(is_boolean(repo), do: :ok, else: Groups.seen_by(repo, rt, group)),
         do: {:ok, state}
  end

  # What is in memory may be of the server before: nobody may handle it in the name of this one, which is in the epochs.
  defp same_server(_state, [%{partition: nil} | _]), do: :ok

  defp same_server(state, [%{epoch: epoch} | _]),
    do: Ends.settled(state.rt, rem(epoch, 65_536), max(div(state.opts.lease, 3), 100))

  # There is nothing to handle for; or in vain for so long that the lease may end before the next attempt has.
  defp expire(state, %Error{reason: {:no_group, _}} = error), do: stop_all(state, error)
  defp expire(%{until: nil} = state, _error), do: state

  defp expire(state, error) do
    if now() + div(state.opts.lease, 4) >= state.until, do: stop_all(state, error), else: state
  end

  defp apply_claim(state, rows) do
    [%{paused: paused, revision: revision} | _] = rows
    rows = for %{partition: p} = row when p != nil <- rows, do: row

    keep =
      if paused,
        do: %{},
        else: for(row <- rows, not row.surplus, into: %{}, do: {row.partition, row})

    state =
      Enum.reduce(state.owners, state, fn {p, {_, epoch}}, state ->
        case keep do
          %{^p => %{epoch: ^epoch}} -> state
          _ -> stop(state, p, :released)
        end
      end)

    surplus = for %{surplus: true, partition: p} <- rows, do: p

    if surplus != [],
      do: Groups.release(conn(state), state.rt, state.opts.group, state.id, surplus)

    if revision != state.revision, do: for({_, {pid, _}} <- state.owners, do: send(pid, :reload))

    Enum.reduce(keep, %{state | revision: revision}, fn {p, row}, state ->
      if is_map_key(state.owners, p), do: state, else: start(state, row)
    end)
  end

  # ---- owners ----

  defp start(state, row) do
    conn = Enum.at(state.conns, rem(row.partition, length(state.conns)))
    {:ok, pid} = Owner.start_link(state.rt, state.opts, conn, state.acker, row)

    Events.emit(state.opts.log, :claimed, %{}, %{
      group: state.opts.group,
      partition: row.partition,
      reason: nil
    })

    %{state | owners: Map.put(state.owners, row.partition, {pid, row.epoch})}
  end

  defp stop(state, p, reason) do
    {pid, _} = state.owners[p]
    ref = Process.monitor(pid)
    # It may be within its handler, which is stopped with it.
    Process.exit(pid, :kill)
    receive do: ({:DOWN, ^ref, _, _, _} -> :ok)
    receive do: ({:EXIT, ^pid, _} -> :ok), after: (0 -> :ok)
    released(state, p, reason)
    %{state | owners: Map.delete(state.owners, p)}
  end

  defp stop_all(state, reason),
    do: Enum.reduce(Map.keys(state.owners), state, &stop(&2, &1, reason))

  defp released(state, p, reason) do
    Events.emit(state.opts.log, :released, %{}, %{
      group: state.opts.group,
      partition: p,
      reason: reason
    })
  end

  defp conn(state), do: hd(state.conns)
  defp now, do: System.monotonic_time(:millisecond)
end
