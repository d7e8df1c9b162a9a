defmodule Causeway.Postgres.WAL.Options do
  @moduledoc false
  # One list says what there is, what it must be, and what it is for; docs and checks are made of it.

  alias Causeway.Postgres.{LSN, Options, Types}
  alias Causeway.Schema
  require LSN

  @schema [
    name: {:any, nil, "a name for the process, as of `GenServer`."},
    connection:
      {:connection, [],
       "how to reach the server: the options of `Causeway.Postgres.start_link/1`, or a connection string or URI. " <>
         "The user needs the `REPLICATION` attribute. With several hosts and `target_session_attrs: " <>
         "\"read-write\"`, the one that is primary is found."},
    handler:
      {:handler, nil,
       "a `Causeway.Postgres.WAL.Handler`: a module, or `{module, argument}`. Required."},
    slot:
      {:string, nil,
       "the name of the replication slot, which remembers at the server what was confirmed. Required."},
    temporary:
      {:boolean, false,
       "whether the slot lives only as long as the connection. What happens between two connections is then lost, " <>
         "and the handler is told so by a `:gap`."},
    create_slot:
      {:boolean, true,
       "whether to make the slot when there is none and there has been none before."},
    slot_timeout:
      {:timeout, :infinity,
       "milliseconds that the making of the slot may take. The server waits until all transactions have ended that are open " <>
         "then, also those of other databases; the handler is told of that (`{:waiting, :slot_creation}`), and `info/1` tells " <>
         "it. After this time it is given up, and tried again like a connection."},
    snapshot:
      {:boolean, false,
       "whether to call `handle_snapshot` with what the tables held when the slot was made, once it was."},
    failover:
      {:boolean, false,
       "whether the slot that is made is kept in step on standbys (PostgreSQL 17)."},
    on_slot_lost:
      {{:in, [:stop, :recreate]}, :stop,
       "what to do when the slot that was there is gone, or was invalidated by the server: `:stop` ends the process " <>
         "with `{:shutdown, {:slot_lost, why}}`; `:recreate` makes it again and tells the handler of the `:gap`."},
    publication:
      {:publication, nil, "the name of the publication, or a list of names. Required."},
    create_publication:
      {:create_publication, nil,
       "makes the publication, and alters it when it is another one: a keyword list of `:tables` (`:all`, or a list " <>
         "of names, each `\"table\"` or `{\"schema\", \"table\"}`), `:publish` (a list of `:insert`, `:update`, `:delete` and " <>
         "`:truncate`, all by default) and `:via_root` (publishes partitions as their root)."},
    values:
      {{:in, [:terms, :text]}, :terms, "`:terms`, as queries give them, or the server's `:text`."},
    decode_binary: {{:in, [:copy, :reference]}, :copy, "#{Types.schema()[:decode_binary]}"},
    json: {:json, :default, "#{Types.schema()[:json]}"},
    interval_decode_type: {:any, nil, "#{Types.schema()[:interval_decode_type]}"},
    messages: {:boolean, false, "whether logical messages are wanted."},
    origin:
      {{:in, [:any, :none]}, :any,
       "`:none` leaves out what was replicated to the server from elsewhere (PostgreSQL 16)."},
    streaming:
      {:boolean, true,
       "whether the server sends large transactions before they commit, to be kept here, rather than keep them " <>
         "itself. They are delivered when they have committed, either way."},
    start_lsn:
      {:lsn, nil,
       "the position to begin after, of a slot that has not got as far; `c:Causeway.Postgres.WAL.Handler.init/1` can " <>
         "say it, too."},
    max_transaction_bytes:
      {:positive, 16 * 1024 * 1024,
       "transactions of more bytes, as the server sends them, come in parts of about as many. As terms they take " <>
         "several times that."},
    buffer_bytes:
      {{:between, 0x10000, 0x40000000}, 1024 * 1024,
       "what may be on its way between the port program and the handler."},
    spool_bytes:
      {{:between, 0, 0xFFFFFFFF}, 64 * 1024 * 1024,
       "the memory for transactions that are streamed before they commit; beyond, they go to files."},
    spool_dir:
      {:dir, nil,
       "the folder for these files, which have no names and are gone with the program. Default: `System.tmp_dir/0`."},
    status_interval:
      {:positive, 10_000,
       "milliseconds after which the server is told the position again, at most; a third of its " <>
         "`wal_sender_timeout`, if that is less."},
    silence_timeout:
      {:timeout, 60_000,
       "milliseconds, or `:infinity`, after which a server that says nothing, though it was asked, counts as lost. It is given " <>
         "twice as long after each such loss, until it gets further: one that has nothing to send may need the time."},
    backoff_min: {:positive, 200, "milliseconds before the first attempt to connect again."},
    backoff_max:
      {:positive, 30_000,
       "milliseconds before any later one; each waits about twice as long as the one before."}
  ]

  @names Keyword.keys(@schema)
  @enforce_keys [:connection, :handler, :slot, :publication]
  defstruct @names

  @type t :: %__MODULE__{}

  @doc "Markdown of the options."
  def docs, do: Schema.docs(@schema)

  @doc "The options, or an `ArgumentError` that names the one that cannot be."
  @spec new!(keyword) :: t
  def new!(opts) do
    # It may hold a password.
    Keyword.keyword?(opts) || bad!(:options, "expected a keyword list")

    for {name, _} <- opts, name not in @names do
      bad!(name, "there is no such option; there are #{Enum.map_join(@names, ", ", &inspect/1)}")
    end

    checked =
      for {name, {type, default, _}} <- @schema,
          do: {name, value!(name, type, default, Keyword.fetch(opts, name))}

    __MODULE__
    |> struct!(checked)
    |> require!([:handler, :slot, :publication])
    |> check_together!()
  end

  # Of a JSON library, none is a choice.
  defp value!(_name, :json, _default, {:ok, nil}), do: nil
  defp value!(name, type, _default, {:ok, value}) when value != nil, do: check!(name, type, value)
  defp value!(_name, _type, default, _), do: default

  defp require!(options, names) do
    for name <- names, Map.fetch!(options, name) == nil, do: bad!(name, "is required")
    %{options | connection: Options.new!(options.connection)}
  end

  defp check_together!(options) do
    if options.create_publication && length(options.publication) != 1 do
      bad!(
        :create_publication,
        "is for one publication, and there are #{length(options.publication)}"
      )
    end

    if options.backoff_min > options.backoff_max,
      do: bad!(:backoff_min, "is more than :backoff_max, #{options.backoff_max}")

    %{options | spool_dir: options.spool_dir || System.tmp_dir!()}
  end

  defp check!(_name, :any, value), do: value
  defp check!(_name, :connection, value), do: value
  defp check!(_name, :string, value) when is_binary(value) and value != "", do: value
  defp check!(_name, :boolean, value) when is_boolean(value), do: value
  defp check!(_name, :positive, n) when is_integer(n) and n > 0, do: n
  defp check!(_name, :timeout, :infinity), do: :infinity
  defp check!(_name, :timeout, n) when n in 1..0xFFFFFFFF, do: n
  defp check!(_name, :lsn, lsn) when LSN.is_lsn(lsn), do: lsn
  defp check!(_name, :json, module) when is_atom(module), do: module

  defp check!(_name, :handler, module) when is_atom(module), do: handler!({module, nil})

  defp check!(_name, :handler, {module, argument}) when is_atom(module),
    do: handler!({module, argument})

  defp check!(_name, :publication, name) when is_binary(name), do: [name]

  defp check!(_name, {:between, low, high}, n) when is_integer(n) and n >= low and n <= high,
    do: n

  defp check!(name, :dir, dir) when is_binary(dir) do
    File.dir?(dir) || bad!(name, "#{inspect(dir)} is no folder")
    dir
  end

  defp check!(name, :publication, [_ | _] = names) do
    Enum.all?(names, &is_binary/1) || bad!(name, expected(:publication, names))
    names
  end

  defp check!(name, :create_publication, opts) when is_list(opts), do: publication!(name, opts)

  defp check!(name, {:in, values}, value) do
    value in values || bad!(name, expected({:in, values}, value))
    value
  end

  defp check!(name, type, value), do: bad!(name, expected(type, value))

  defp handler!({module, argument}) do
    unless Code.ensure_loaded?(module) and function_exported?(module, :handle_transaction, 2),
      do: bad!(:handler, "#{inspect(module)} is no Causeway.Postgres.WAL.Handler")

    {module, argument}
  end

  # ---- publications ----

  @publish [:insert, :update, :delete, :truncate]

  defp publication!(name, opts) do
    Keyword.keyword?(opts) || bad!(name, expected(:create_publication, opts))

    for {key, _} <- opts,
        key not in [:tables, :publish, :via_root],
        do: bad!(name, "has no #{inspect(key)}; it has :tables, :publish and :via_root")

    tables = Keyword.get(opts, :tables, :all)
    publish = Keyword.get(opts, :publish, @publish)
    via_root = Keyword.get(opts, :via_root, false)
    tables == :all || (is_list(tables) and tables != []) || bad!(name, tables(tables))

    (is_list(publish) and publish != [] and Enum.all?(publish, &(&1 in @publish))) ||
      bad!(name, ":publish is a list of #{inspect(@publish)}, got #{inspect(publish)}")

    is_boolean(via_root) || bad!(name, ":via_root is true or false, got #{inspect(via_root)}")
    tables = if tables == :all, do: :all, else: Enum.map(tables, &table!(name, &1))
    %{tables: tables, publish: publish, via_root: via_root}
  end

  defp table!(_name, {schema, table}) when is_binary(schema) and is_binary(table),
    do: {schema, table}

  defp table!(_name, table) when is_binary(table), do: {"public", table}
  defp table!(name, table), do: bad!(name, tables(table))

  defp tables(got),
    do: ":tables is :all, or a list of \"table\" or {\"schema\", \"table\"}, got #{inspect(got)}"

  # ---- errors ----

  # What :connection was may hold a password, and is not shown.
  defp expected(:string, got), do: "expected a string, got #{inspect(got)}"
  defp expected(:boolean, got), do: "expected true or false, got #{inspect(got)}"
  defp expected(:positive, got), do: "expected a positive integer, got #{inspect(got)}"
  defp expected(:timeout, got), do: "expected milliseconds or :infinity, got #{inspect(got)}"
  defp expected(:dir, got), do: "expected a folder, got #{inspect(got)}"
  defp expected(:json, got), do: "expected a module, got #{inspect(got)}"

  defp expected(:lsn, got),
    do:
      "expected a position as an integer (see Causeway.Postgres.LSN.parse!/1), got #{inspect(got)}"

  defp expected(:handler, got),
    do: "expected a module, or {module, argument}, got #{inspect(got)}"

  defp expected(:publication, got), do: "expected a name, or a list of names, got #{inspect(got)}"
  defp expected(:create_publication, got), do: "expected a keyword list, got #{inspect(got)}"
  defp expected({:in, values}, got), do: "expected one of #{inspect(values)}, got #{inspect(got)}"

  defp expected({:between, low, high}, got),
    do: "expected an integer from #{low} to #{high}, got #{inspect(got)}"

  defp bad!(name, why), do: raise(ArgumentError, "option #{inspect(name)}: #{why}")
end
