defmodule Causeway.Log.Starter do
  @moduledoc false
  # Waits for the server, sees to the tables, and then has the log's processes started. An application starts whether its
  # server is there or not.

  use GenServer
  alias Causeway.Log.{Ends, Error, Migration, Retention, Runtime, Table, Tail, Writer}

  @retry_ms 200

  def start_link(rt), do: GenServer.start_link(__MODULE__, rt)

  @impl true
  def init(rt), do: {:ok, rt, {:continue, :try}}

  @impl true
  def handle_continue(:try, rt), do: attempt(rt)

  @impl true
  def handle_info(:try, rt), do: attempt(rt)
  def handle_info(_, rt), do: {:noreply, rt}

  defp attempt(rt) do
    case settings(rt) do
      {:ok, settings} ->
        begin(Runtime.with_settings(rt, settings))

      # These do not pass by themselves.
      {:error, %Error{} = error} ->
        {:stop, {:shutdown, error}, rt}

      {:error, error} ->
        Runtime.put(rt, :error, error)
        Process.send_after(self(), :try, @retry_ms)
        {:noreply, rt}
    end
  end

  defp settings(rt) do
    with :ok <- install(rt),
         {:ok, there} <- Migration.settings(Table.control(rt), schema: rt.schema) do
      asked = rt.opts.partitions

      if asked in [nil, there.partitions],
        do: {:ok, there},
        else: {:error, %Error{reason: {:partitions, rt.schema, there.partitions, asked}}}
    end
  end

  defp install(%{opts: %{install: false}}), do: :ok

  defp install(rt) do
    opts = [schema: rt.schema, partitions: rt.opts.partitions || 8, max_bytes: rt.opts.max_bytes]
    Migration.up(Table.control(rt), opts)
  end

  defp begin(rt) do
    writers = for n <- 0..(rt.opts.writers - 1), do: {Writer, {rt, n}}
    stream = if rt.opts.delivery == :wal, do: [{Tail, rt}], else: []
    children = [{Ends, rt}, {Retention, rt}] ++ stream ++ writers

    spec = %{
      id: :working,
      type: :supervisor,
      start:
        {Supervisor, :start_link,
         [
           children,
           [strategy: :one_for_one, name: Runtime.process(rt, :Working), max_restarts: 20]
         ]}
    }

    case DynamicSupervisor.start_child(Runtime.process(rt, :Main), spec) do
      {:error, reason} when not is_tuple(reason) or elem(reason, 0) != :already_started ->
        {:stop, reason, rt}

      _ ->
        Runtime.ready(rt)
        {:noreply, rt}
    end
  end
end
