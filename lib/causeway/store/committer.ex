defmodule Causeway.Store.Committer do
  @moduledoc false
  # The one process that makes versions: it applies what is asked for, in order, to the newest one. That is not to be
  # seen before it is in the log: the log writer takes it there, shows it, and answers. While it does, the next
  # requests are applied here.

  # When it ends, it waits for what it has handed on.
  use GenServer, shutdown: 60_000
  alias Causeway.{Clock, Doc}
  alias Causeway.Store.{Error, LogWriter, Runtime}

  # Requests that are handed on together.
  @group 256

  # wrote: whether anything was written under this actor's name since it was taken
  defstruct [:rt, :doc, :actor, wrote: false]

  def start_link(rt),
    do: GenServer.start_link(__MODULE__, rt, name: Runtime.process(rt, Committer))

  # ---- calls ----

  @doc "Commits operations as of a version (nil: none was read); `certify` are paths nobody may have written."
  def commit(rt, ops, seen, certify, timeout),
    do: call(rt, {:commit, ops, seen, certify}, timeout)

  @doc "Takes in a delta from a peer."
  def apply_delta(rt, delta), do: call(rt, {:apply, delta}, :infinity)

  @doc "A peer has seen `n` writes of this actor. When that is news, they were made before a backup was restored."
  def seen_elsewhere(rt, n), do: call(rt, {:seen_elsewhere, n}, :infinity)

  defp call(rt, request, timeout), do: Runtime.call(rt, Committer, request, timeout)

  # ---- requests ----

  @impl true
  def init(rt) do
    Process.flag(:trap_exit, true)
    {:ok, go_on(%__MODULE__{rt: rt})}
  end

  # From what is in the log, without what may have been on its way there.
  defp go_on(state) do
    {doc, actor} = LogWriter.attach(state.rt)
    %{state | doc: doc, actor: actor}
  end

  @impl true
  def handle_call({:seen_elsewhere, n}, _from, state) do
    with :restored <- check_own(state.doc, n, state),
         {:ok, state} <- become_new(state) do
      {:reply, :ok, state}
    else
      :known -> {:reply, :ok, state}
      {:error, error} -> {:reply, {:error, error}, state}
    end
  end

  def handle_call(request, from, state),
    do: {:noreply, [{from, request}] |> drain(1) |> Enum.reverse() |> run_all([], state)}

  # The newest first.
  defp drain(requests, @group), do: requests

  defp drain(requests, n) do
    receive do
      {:"$gen_call", from, request} when elem(request, 0) in [:commit, :apply] ->
        drain([{from, request} | requests], n + 1)
    after
      0 -> requests
    end
  end

  @impl true
  def handle_info(:write_failed, state), do: {:noreply, go_on(state)}
  def handle_info(_, state), do: {:noreply, state}

  # Who still waits for an answer then has been given it. When the log writer has crashed, nobody knows what was
  # committed, and this process ends with another reason than that the store was stopped.
  @impl true
  def terminate(_reason, state), do: LogWriter.attach(state.rt)

  # ---- versions ----

  # done: newest first, as LogWriter takes it
  defp run_all([], done, state) do
    hand_on(done, state)
    state
  end

  defp run_all([{from, request} | rest], done, state) do
    case run(request, state) do
      {:ok, change, state} ->
        run_all(rest, [{from, state.doc, change} | done], state)

      {:error, error} ->
        GenServer.reply(from, {:error, error})
        run_all(rest, done, state)

      :restored ->
        hand_on(done, state)
        run_again(from, request, rest, state)
    end
  end

  defp hand_on([], _state), do: :ok
  defp hand_on(done, state), do: LogWriter.write(state.rt, Enum.reverse(done))

  # A delta with writes of this actor that it does not know: they are taken in by a new one.
  defp run_again(from, request, rest, state) do
    case become_new(state) do
      {:ok, state} ->
        run_all([{from, request} | rest], [], state)

      {:error, error} ->
        GenServer.reply(from, {:error, error})
        run_all(rest, [], state)
    end
  end

  defp run({:commit, ops, seen, certify}, state) do
    with :ok <- certify(state.doc, seen, certify),
         {:ok, doc} <- Doc.try_update(state.doc, ops, if(seen, do: [as_of: seen], else: [])) do
      {:ok, count(ops), %{state | doc: doc, wrote: true}}
    end
  end

  defp run({:apply, delta}, state) do
    with {:ok, doc} <- Doc.apply_delta(state.doc, delta),
         false <- Doc.clock(doc) == Doc.clock(state.doc),
         :known <- check_own(state.doc, own(doc, state.actor), state) do
      {:ok, delta, %{state | doc: doc}}
    else
      true -> {:ok, 0, state}
      other -> other
    end
  end

  defp count(ops) when is_list(ops), do: length(ops)
  defp count(_op), do: 1

  defp certify(_doc, nil, _paths), do: :ok

  defp certify(doc, seen, paths) do
    case Enum.reject(paths, &(Doc.hash(doc, &1) == Doc.hash(seen, &1))) do
      [] -> :ok
      changed -> {:error, %Error{reason: {:conflict, changed}}}
    end
  end

  # ---- a new actor ----

  # When peers have more writes of this actor than it knows, they were made before a backup was restored. As long as
  # it has written none since, there are no two with the same number.
  defp check_own(doc, n, state) do
    cond do
      n <= own(doc, state.actor) -> :known
      state.wrote -> {:error, %Error{reason: {:reused, state.actor, n}}}
      true -> :restored
    end
  end

  defp own(doc, actor), do: doc |> Doc.clock() |> Clock.get(actor)

  defp become_new(state) do
    with :ok <- LogWriter.new_actor(state.rt), do: {:ok, %{go_on(state) | wrote: false}}
  end
end
