defmodule Causeway.Log.Options do
  @moduledoc false
  # One list says what there is, what it must be, and what it is for; docs and checks are made of it.

  alias Causeway.Log.{Database, Error, Topic}
  alias Causeway.Schema

  @start [
    name: {:name, nil, "an atom, the log's name in this VM. Required."},
    connection:
      {:any, [],
       "how to reach the server: the options of `Causeway.Postgres.start_link/1`, or a connection string or URI."},
    schema: {:schema, "causeway", "the schema with its tables; each is a log of its own."},
    install:
      {:boolean, true,
       "whether to make the tables, or bring them up to date, at the start; see `Causeway.Log.Migration`."},
    partitions:
      {{:between, 1, 1024}, nil,
       "how many there are, when the tables are made: 8, unless it is given."},
    max_bytes:
      {{:between, 1, 0x10000000}, 1_048_576,
       "what a message may have with its metadata, when the tables are made."},
    publisher:
      {:text, nil,
       "who publishes, as messages have it. Default: the node, or the host and process."},
    delivery:
      {{:in, [:wal, :poll]}, :wal,
       "`:wal`, by a temporary replication slot, for which the server needs `wal_level = logical` and the user " <>
         "`REPLICATION`; `:poll` looks into the table every `:poll_interval`."},
    poll_interval:
      {:positive, 100, "milliseconds between two looks into the table, while there is no stream."},
    check_interval:
      {:positive, 1_000,
       "milliseconds between two looks, while there is one: nothing depends on it alone."},
    writers:
      {{:between, 1, 64}, 1,
       "connections that publish; each partition has one of them. One makes the largest batches; more are for disks that " <>
         "take long to sync."},
    readers: {{:between, 1, 64}, 2, "connections that read what is not in memory."},
    batch_messages:
      {{:between, 1, 10_000}, 500, "messages that are published in one go, at most."},
    batch_bytes: {{:between, 1, 0x1000000}, 262_144, "their bytes, at which no more are added."},
    recent_bytes:
      {:positive, 33_554_432,
       "memory for the latest messages, shared by all subscribers of this node; who is further behind reads the table."},
    keep_ms:
      {:positive, nil,
       "milliseconds for which messages are kept, and up to an eighth longer. Default: for ever."},
    keep_bytes:
      {:positive, nil,
       "what the tables may take on the server's disk, and up to an eighth more. Default: no limit."},
    retention_interval:
      {:positive, 60_000, "milliseconds between two looks at what is not to be kept."},
    atoms:
      {{:in, [:existing, :create]}, :existing,
       "whether terms may have atoms that this VM does not know."},
    json: {:any, nil, "the library for JSON, as `Causeway.Postgres` takes it."}
  ]

  @publish [
    format:
      {{:in, [:term, :json, :binary]}, :term,
       "`:term`, for Elixir; `:json`; `:binary`, bytes as they are."},
    key: {:text, nil, "what consumers keep in order, within the topic. Default: the topic."},
    metadata: {:metadata, nil, "a map, or nil."},
    in:
      {:conn, nil,
       "a transaction of `Causeway.Postgres.transaction/3`, or an Ecto repository that is in one: with that it is committed. Of " <>
         "other clients: `statement/4`."},
    timeout: {:timeout, 15_000, "milliseconds to wait for the commit."}
  ]

  @subscribe [
    from:
      {:from, :now,
       "`:now`; `:beginning`, of what is kept; a `DateTime`; or a cursor, `%{partition => sequence}`, to go on after that."},
    max_queue:
      {:positive, 100,
       "the subscriber is sent no more while so many messages of whatever kind are in its mailbox."},
    max_messages: {:positive, 100, "how many are sent in one piece, at most."}
  ]

  @delete [
    force:
      {:boolean, false,
       "delete it though it has members. Within a third of their lease they handle nothing any more, until they are " <>
         "started anew, which makes a new group."}
  ]

  @consumer [
    log: {:name, nil, "the log's name in this VM. Required."},
    group: {:group, nil, "the group's name. Required."},
    topic: {:text, ">", "a topic or a pattern; the same for all of a group."},
    handler:
      {:handler, nil, "a `Causeway.Log.Consumer`: a module, or `{module, argument}`. Required."},
    from: {:from, :now, "where a group begins that is new, as of `Causeway.Log.subscribe/3`."},
    batch: {{:between, 1, 10_000}, 100, "messages that a call of the handler is given, at most."},
    concurrency:
      {{:between, 1, 1000}, 1,
       "calls at a time for each partition; those of a key keep their order."},
    transactional:
      {:transactional, false,
       "`true`, or an Ecto repository: the handler runs in a transaction, `context.tx`, which its acknowledgement belongs to."},
    visibility_timeout:
      {:positive, 30_000,
       "milliseconds that a call may take. Then it is killed, which is a failure."},
    max_deliveries:
      {:positive, 10, "how often a message is delivered, until it is left with the dead letters."},
    backoff:
      {:range, {200, 60_000},
       "`{least, most}` milliseconds until a message that failed is delivered again; twice as long each time."},
    max_parked:
      {:positive, 10_000,
       "messages of a partition that failed, or wait for such ones; when there are more, no new ones are taken."},
    lease:
      {{:between, 1, 500_000}, 6_000,
       "milliseconds, 500 seconds at most, after which the partitions of a node that is gone are taken by others."},
    connections: {{:between, 1, 64}, 1, "to the server."},
    name: {:name, nil, "a name for the process."}
  ]

  def docs(:delete), do: Schema.docs(@delete)
  def docs(:consumer), do: Schema.docs(@consumer)
  def docs(:start), do: Schema.docs(@start)
  def docs(:publish), do: Schema.docs(@publish)
  def docs(:subscribe), do: Schema.docs(@subscribe)

  def start!(opts) do
    opts = check!(opts, @start)
    opts[:name] == nil && bad!(:name, "is required")
    Map.new(opts)
  end

  @no_publish for {key, {_, default, _}} <- @publish, into: %{}, do: {key, default}
  def publish!([]), do: @no_publish
  def publish!(opts), do: opts |> check!(@publish) |> Map.new()
  def subscribe!(opts), do: opts |> check!(@subscribe) |> Map.new()

  def delete!(opts), do: opts |> check!(@delete) |> Map.new()

  def consumer!(opts) do
    opts = check!(opts, @consumer)
    for key <- [:log, :group, :handler], opts[key] == nil, do: bad!(key, "is required")

    opts[:transactional] && opts[:concurrency] > 1 &&
      bad!(:concurrency, "is 1 with :transactional, as a transaction is one after the other")

    Map.new(opts)
  end

  @doc "The name of a schema, which SQL is made with."
  def schema!(schema) do
    valid?(:schema, schema) || bad!(:schema, "#{expected(:schema)}, got #{inspect(schema)}")
    schema
  end

  @doc "Options checked by another list like those here."
  def check!(opts, schema) do
    Keyword.keyword?(opts) || bad!(:options, "expected a keyword list, got #{inspect(opts)}")

    for {key, _} <- opts, not Keyword.has_key?(schema, key) do
      known = schema |> Keyword.keys() |> Enum.map_join(", ", &inspect/1)
      bad!(key, "there is no such option; there are #{known}")
    end

    for {key, {type, default, _}} <- schema do
      value = Keyword.get(opts, key, default)

      value === default || valid?(type, value) ||
        bad!(key, "#{expected(type)}, got #{inspect(value)}")

      {key, value}
    end
  end

  def bad!(key, why), do: raise(Error, reason: {:bad_option, key, why})

  defp valid?(:any, _), do: true
  defp valid?(:conn, conn), do: is_pid(conn) or is_atom(conn) or is_struct(conn) or is_tuple(conn)
  defp valid?(:name, name), do: is_atom(name) and name not in [nil, true, false]

  defp valid?(:schema, name),
    do: is_binary(name) and byte_size(name) < 50 and name =~ ~r/\A[a-z_][a-z0-9_]*\z/

  defp valid?(:boolean, value), do: is_boolean(value)
  defp valid?(:transactional, value), do: is_boolean(value) or Database.repo?(value)
  defp valid?(:positive, n), do: is_integer(n) and n > 0
  defp valid?({:between, low, high}, n), do: is_integer(n) and n in low..high
  defp valid?({:in, values}, value), do: value in values
  defp valid?(:text, nil), do: true
  defp valid?(:text, text), do: Topic.text?(text)
  defp valid?(:metadata, map), do: is_map(map) or map == nil
  defp valid?(:timeout, :infinity), do: true
  defp valid?(:timeout, ms), do: is_integer(ms) and ms >= 0
  defp valid?(:from, from) when from in [:now, :beginning], do: true
  defp valid?(:from, %DateTime{}), do: true

  defp valid?(:from, %{} = cursor) when not is_struct(cursor) do
    Enum.all?(cursor, fn {p, n} -> is_integer(p) and p >= 0 and is_integer(n) and n >= 0 end)
  end

  defp valid?(:durable, :all), do: true
  defp valid?(:durable, list), do: is_list(list) and Enum.all?(list, &valid?(:durable_one, &1))

  defp valid?(:durable_one, one),
    do: (is_binary(one) and one != "") or is_struct(one, Regex) or is_function(one, 1)

  defp valid?(:group, name), do: Topic.text?(name) and name != "" and byte_size(name) <= 200
  defp valid?(:handler, {module, _}), do: valid?(:handler, module)

  defp valid?(:handler, module) do
    is_atom(module) and Code.ensure_loaded?(module) and
      function_exported?(module, :handle_messages, 2)
  end

  defp valid?(:range, {low, high}), do: is_integer(low) and is_integer(high) and low in 0..high
  defp valid?(_, _), do: false

  defp expected(:name), do: "expected an atom"

  defp expected(:schema),
    do: "expected a name of small letters, digits and underscores, shorter than 50 bytes"

  defp expected(:boolean), do: "expected true or false"
  defp expected(:transactional), do: "expected true, false or an Ecto repository"
  defp expected(:positive), do: "expected a positive integer"
  defp expected({:between, low, high}), do: "expected an integer from #{low} to #{high}"
  defp expected({:in, values}), do: "expected one of #{inspect(values)}"
  defp expected(:text), do: "expected a text in UTF-8, without a zero byte"
  defp expected(:metadata), do: "expected a map"
  defp expected(:conn), do: "expected a connection"
  defp expected(:timeout), do: "expected milliseconds or :infinity"

  defp expected(:durable),
    do:
      "expected :all, or a list of topics, of beginnings with * at the end, of regular expressions and functions"

  defp expected(:group), do: "expected a text of 1 to 200 bytes"
  defp expected(:handler), do: "expected a module with handle_messages/2, or {module, argument}"
  defp expected(:range), do: "expected {least, most} milliseconds"

  defp expected(:from),
    do: "expected :now, :beginning, a DateTime or a cursor, %{partition => sequence}"
end
