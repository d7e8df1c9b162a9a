defmodule Causeway.Store.Runtime do
  @moduledoc false
  # What every process of a store, and every caller, knows of it. The current version stands in an ETS table,
  # so that reads wait for nobody.

  alias Causeway.Store.Error

  # `flags`: 1: the publisher wants versions; 2: versions on their way to it; 3: some were left out
  # `processes`: the names of those that every commit goes through
  defstruct [:name, :table, :flags, :opts, :processes]

  @publish 1
  @queued 2
  @skipped 3

  def new(opts) do
    Causeway.Telemetry.load()
    name = Keyword.fetch!(opts, :name)
    table = :ets.new(name, [:public, read_concurrency: true])
    processes = Map.new([Committer, LogWriter, Publisher], &{&1, process(name, &1)})

    rt = %__MODULE__{
      name: name,
      table: table,
      flags: :atomics.new(3, []),
      opts: Map.new(opts),
      processes: processes
    }

    :persistent_term.put({__MODULE__, name}, rt)
    rt
  end

  def fetch!(name) do
    case :persistent_term.get({__MODULE__, name}, nil) do
      nil -> raise Error, reason: {:not_running, name}
      rt -> rt
    end
  end

  @doc "`fetch!/1` for those who are about to ask a process: a store that has stopped is still known."
  def running!(name) do
    rt = fetch!(name)
    current(rt)
    rt
  end

  @doc "What the process for a task is called."
  def process(%__MODULE__{processes: processes}, role), do: Map.fetch!(processes, role)
  def process(name, role) when is_atom(name), do: Module.concat([name, role])

  @doc "Asks one of the store's processes."
  def call(%__MODULE__{name: name} = rt, role, request, timeout) do
    GenServer.call(process(rt, role), request, timeout)
  catch
    :exit, {reason, _} when reason in [:noproc, :normal, :shutdown] ->
      {:error, %Error{reason: {:not_running, name}}}
  end

  @doc "The current version: a document and its number."
  def current(%__MODULE__{table: table, name: name}) do
    case :ets.lookup(table, :current) do
      [{:current, doc, version}] -> {doc, version}
      [] -> raise Error, reason: {:not_running, name}
    end
  rescue
    ArgumentError -> reraise %Error{reason: {:not_running, name}}, __STACKTRACE__
  end

  def doc(rt), do: rt |> current() |> elem(0)

  def put_current(rt, doc, version), do: :ets.insert(rt.table, {:current, doc, version})

  @doc "What a store without a directory goes on from after a crash of its committer."
  def last(rt) do
    case :ets.lookup(rt.table, :current) do
      [{:current, doc, version}] -> {doc, version, actor(rt)}
      [] -> nil
    end
  end

  @doc "The name under which this replica writes: its own, until a backup was restored."
  def actor(rt), do: :ets.lookup_element(rt.table, :actor, 2)
  def put_actor(rt, actor), do: :ets.insert(rt.table, {:actor, actor})

  # ---- versions on their way to the publisher ----

  @queue 1_000

  def publishing(rt, on?), do: :atomics.put(rt.flags, @publish, if(on?, do: 1, else: 0))
  def publishing?(rt), do: :atomics.get(rt.flags, @publish) == 1

  @doc "Whether `n` more versions may be sent; else it is noted that they were not."
  def enqueue(rt, n) do
    if :atomics.add_get(rt.flags, @queued, n) <= @queue do
      true
    else
      :atomics.sub(rt.flags, @queued, n)
      :atomics.put(rt.flags, @skipped, 1)
      false
    end
  end

  def forget_queue(rt), do: :atomics.put(rt.flags, @queued, 0)
  def dequeued(rt, n), do: :atomics.sub(rt.flags, @queued, n)
  def skipped?(rt), do: :atomics.exchange(rt.flags, @skipped, 0) == 1
end
