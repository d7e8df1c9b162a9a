defmodule Causeway.Log.Retention do
  @moduledoc false
  # Begins new segments, and drops those that are old or too many: whole tables, so that nothing has to be vacuumed. Each node
  # of a log looks after it; who comes first does it.

  use GenServer
  alias Causeway.Log.{Events, Runtime, Table}
  alias Causeway.Postgres

  # Of what is kept, so much more may be there.
  @segments 8

  def start_link(rt),
    do: GenServer.start_link(__MODULE__, rt, name: Runtime.process(rt, :Retention))

  @doc "Does it now: the segments that were dropped."
  def run(rt), do: GenServer.call(Runtime.process(rt, :Retention), :run, 60_000)

  @impl true
  def init(rt), do: {:ok, schedule(%{rt: rt})}

  @impl true
  def handle_call(:run, _from, state), do: {:reply, keep(state.rt), state}

  @impl true
  def handle_info(:run, state) do
    keep(state.rt)
    {:noreply, schedule(state)}
  end

  def handle_info(_, state), do: {:noreply, state}

  defp schedule(state) do
    Process.send_after(self(), :run, state.rt.opts.retention_interval)
    state
  end

  defp keep(%{opts: %{keep_ms: nil, keep_bytes: nil}}), do: {:ok, []}

  defp keep(%{opts: %{keep_ms: ms, keep_bytes: bytes}} = rt) do
    with {:ok, _} <- call(rt, "log_roll_if", [part(ms), part(bytes)]),
         {:ok, dropped} <- drop(rt, [ms, bytes], []) do
      {:ok, dropped}
    else
      {:error, error} ->
        Events.emit(rt.name, :check_failed, %{}, %{error: error})
        {:error, error}
    end
  end

  defp part(nil), do: nil
  defp part(n), do: max(div(n, @segments), 1)

  defp drop(rt, limits, dropped) do
    case call(rt, "log_drop_if", limits) do
      {:ok, nil} ->
        {:ok, Enum.reverse(dropped)}

      {:ok, segment} ->
        Events.emit(rt.name, :dropped, %{}, %{segment: segment})
        drop(rt, limits, [segment | dropped])

      error ->
        error
    end
  end

  defp call(rt, function, params) do
    with {:ok, %{rows: [[result]]}} <-
           Postgres.query(Table.control(rt), "SELECT #{rt.schema}.#{function}($1, $2)", params),
         do: {:ok, result}
  end
end
