defmodule Causeway.Log.Runtime do
  @moduledoc false
  # What every process of a log, and every caller, knows of it. How far each partition goes stands in an atomic, and the
  # latest messages in an ETS table, so that readers wait for nobody.

  alias Causeway.Log.{Error, Migration}
  alias Causeway.Postgres.Json

  @enforce_keys [
    :name,
    :opts,
    :schema,
    :publisher,
    :atoms,
    :json,
    :recent,
    :readers,
    :state,
    :id,
    :writers
  ]
  defstruct @enforce_keys ++ [:partitions, :max_bytes, :heads]

  @type t :: %__MODULE__{}

  @doc "Of a log that starts. What the server has to say comes with `ready/2`."
  def new(opts) do
    Causeway.Telemetry.load()
    id = Base.encode32(:crypto.strong_rand_bytes(10), case: :lower)

    rt = %__MODULE__{
      name: opts.name,
      id: id,
      # What is printed shows no password.
      opts: Map.update!(opts, :connection, fn connection -> fn -> connection end end),
      schema: opts.schema,
      publisher: opts.publisher || publisher(),
      atoms: opts.atoms,
      json: opts.json || Json.library(),
      # Made once: each message asks for one.
      writers: List.to_tuple(for n <- 0..(opts.writers - 1), do: process(opts.name, :Writer, n)),
      recent: :ets.new(:recent, [:ordered_set, :public, read_concurrency: true]),
      readers: :ets.new(:readers, [:bag, :public, read_concurrency: true]),
      state: :ets.new(:state, [:set, :public, read_concurrency: true])
    }

    :ets.insert(rt.state, stream: :connecting, error: nil, timeline: nil)
    :persistent_term.put({__MODULE__, rt.name}, {:starting, rt})
    rt
  end

  defp publisher do
    if Node.alive?() do
      Atom.to_string(node())
    else
      {:ok, host} = :inet.gethostname()
      "#{host}:#{System.pid()}"
    end
  end

  @doc "The tables are there, with these settings."
  def with_settings(rt, settings) do
    %{
      rt
      | partitions: settings.partitions,
        max_bytes: settings.max_bytes,
        heads: heads(rt, settings)
    }
  end

  @doc "All processes are there."
  def ready(rt), do: :persistent_term.put({__MODULE__, rt.name}, {:ready, rt})

  # Those of before a crash of the process that has asked.
  defp heads(rt, settings) do
    case :persistent_term.get({__MODULE__, rt.name}, nil) do
      {:ready, %{id: id, heads: heads, partitions: n}}
      when id == rt.id and n == settings.partitions ->
        heads

      _ ->
        :atomics.new(settings.partitions, [])
    end
  end

  @doc "The log of a name, which is connected; raises otherwise."
  def fetch!(name) do
    with {:error, error} <- fetch(name), do: raise(error)
  end

  @doc "Likewise, after waiting until it is connected."
  def await(name, timeout) do
    case fetch(name) do
      {:error, %Error{reason: {:not_ready, _, _}}} when timeout > 0 ->
        Process.sleep(10)
        await(name, if(timeout == :infinity, do: timeout, else: timeout - 10))

      result ->
        result
    end
  end

  def fetch(name) do
    case :persistent_term.get({__MODULE__, name}, nil) do
      {:ready, rt} -> if alive?(rt), do: rt, else: not_running(name)
      {:starting, rt} -> if alive?(rt), do: not_ready(rt), else: not_running(name)
      nil -> not_running(name)
    end
  end

  # A log that has stopped is still known, but its tables are gone.
  defp alive?(rt), do: :ets.info(rt.state, :id) != :undefined

  defp not_running(name), do: {:error, %Error{reason: {:not_running, name}}}

  defp not_ready(rt),
    do: {:error, %Error{reason: {:not_ready, rt.name, :ets.lookup_element(rt.state, :error, 2)}}}

  def put(rt, key, value), do: :ets.insert(rt.state, {key, value})
  def get(rt, key), do: :ets.lookup_element(rt.state, key, 2)

  # Numbers are given in READ COMMITTED, whatever the database has for others.
  @doc "How the log's own connections are made."
  def connection(rt), do: read_committed(rt.opts.connection.())

  defp read_committed(url) when is_binary(url), do: read_committed(url: url)

  defp read_committed(opts) do
    own = [default_transaction_isolation: "read committed"]
    Keyword.update(opts, :parameters, own, &Keyword.merge(&1, own))
  end

  @doc "What the process for a task is called."
  def process(%{name: name}, role), do: process(name, role)
  def process(name, role) when is_atom(name), do: Module.concat([name, role])
  def process(rt_or_name, role, n), do: process(rt_or_name, :"#{role}#{n}")

  def namespace(rt), do: Migration.namespace(rt.schema)

  # ---- how far the partitions go ----

  def head(rt, partition), do: :atomics.get(rt.heads, partition + 1)

  @doc "A partition goes at least so far; whether that is news."
  def advance(rt, partition, last) do
    now = head(rt, partition)

    cond do
      now >= last -> false
      :atomics.compare_exchange(rt.heads, partition + 1, now, last) == :ok -> true
      true -> advance(rt, partition, last)
    end
  end

  @doc """
  A partition of this server goes so far only. Whoever reads it is sent `{:log_rewound, partition, last}`.
  """
  def rewind(rt, partition, last) do
    :atomics.put(rt.heads, partition + 1, last)

    for {_, pid, _} <- :ets.lookup(rt.readers, partition),
        do: send(pid, {:log_rewound, partition, last})

    :ok
  end

  # ---- those who wait for more ----

  @doc "Has the caller sent `:log_more` when partitions go further; once, until it has called `looking/1`."
  def watch(rt, partitions, flag) do
    for p <- partitions, do: :ets.insert(rt.readers, {p, self(), flag})
    :ok
  end

  def unwatch(rt, pid), do: :ets.match_delete(rt.readers, {:_, pid, :_})

  def looking(flag), do: :atomics.put(flag, 1, 0)

  def wake(rt, partition) do
    for {_, pid, flag} <- :ets.lookup(rt.readers, partition),
        :atomics.exchange(flag, 1, 1) == 0,
        do: send(pid, :log_more)

    :ok
  end
end
