defmodule Causeway.Log do
  @moduledoc """
  Messages that are never lost: a log in ordinary tables of PostgreSQL, to which all nodes publish and which all nodes can
  read, from now on or from any point in the past.

      children = [
        {Causeway.Log, name: Events, connection: [hostname: "db", database: "shop"]}
      ]

      {:ok, _place} = Causeway.Log.publish(Events, "orders.paris.created", %{id: 17})

      {:ok, ref, cursor} = Causeway.Log.subscribe(Events, "orders.*.created", from: :beginning)

      receive do
        {:causeway, ^ref, messages} when is_list(messages) -> Enum.each(messages, &handle/1)
      end

  Whoever can run SQL can publish, inside of any transaction; the message is delivered if, and only if, that commits:

      INSERT INTO orders ...;
      SELECT causeway.publish('orders.paris.created', '{"id": 17}');

  A topic belongs to a partition. In a partition all messages have one order, which is that of their commits and the same
  everywhere, and numbers without gaps. See `Causeway.Log.Topic` for topics and patterns, `Causeway.Log.Message` for what
  comes, and docs/log.md for how it is made.

  ## Options

  #{Causeway.Log.Options.docs(:start)}
  """

  use Supervisor

  alias Causeway.Log.{
    Groups,
    Error,
    Message,
    Options,
    Payload,
    Reader,
    Retention,
    Runtime,
    Starter,
    Table,
    Topic,
    Writer
  }

  alias Causeway.Postgres

  @type log :: atom

  @typedoc "Where a message is: its partition and its number."
  @type place :: {partition :: non_neg_integer, sequence :: pos_integer}

  @typedoc "The last number seen of each partition: what to go on after."
  @type cursor :: %{(partition :: non_neg_integer) => sequence :: non_neg_integer}

  @doc "Starts a log, as a child of a supervisor mostly. Options are those of the module. It returns before it is connected."
  @spec start_link(keyword | (() -> keyword)) :: Supervisor.on_start()
  def start_link(opts) when is_function(opts, 0), do: start_link(opts.())

  def start_link(opts) do
    opts = Options.start!(opts)
    Supervisor.start_link(__MODULE__, fn -> opts end, name: opts.name)
  end

  # Supervisors print what they start: a function does not show the password in it.
  @doc false
  def child_spec(opts) do
    %{
      id: {__MODULE__, opts[:name]},
      start: {__MODULE__, :start_link, [fn -> opts end]},
      type: :supervisor
    }
  end

  @impl true
  def init(secret) do
    rt = Runtime.new(secret.())

    children =
      connections(rt) ++
        [
          {DynamicSupervisor, name: Runtime.process(rt, :Readers)},
          {DynamicSupervisor, name: Runtime.process(rt, :Main)},
          {Starter, rt}
        ]

    Supervisor.init(children, strategy: :one_for_one)
  end

  defp connections(rt) do
    names =
      [Runtime.process(rt, :Control)] ++
        for(n <- 0..(rt.opts.readers - 1), do: Runtime.process(rt, :Read, n)) ++
        for(n <- 0..(rt.opts.writers - 1), do: Runtime.process(rt, :Write, n))

    for name <- names, do: {Postgres, [name: name] ++ Runtime.connection(rt)}
  end

  # ---- publishing ----

  @doc """
  Publishes a message, and returns its place when it has been committed.

  With an error of reason `{:unknown, _}` or `:timeout`, it may have been committed or not. With `in: tx` it is `:ok`, as
  the number is given when that transaction commits.

  Options:

  #{Options.docs(:publish)}
  """
  @spec publish(log, Topic.t(), term, keyword) :: {:ok, place} | :ok | {:error, Error.t()}
  def publish(log, topic, payload, opts \\ []) do
    opts = Options.publish!(opts)

    with %Runtime{} = rt <- Runtime.await(log, opts.timeout),
         {:ok, message, bytes} <- encode(rt, topic, payload, opts) do
      if opts.in,
        do: Writer.publish_in(opts.in, rt, message),
        else: publish_one(rt, message, bytes, opts.timeout)
    end
  end

  defp publish_one(rt, message, bytes, timeout) do
    partition = Topic.partition(elem(message, 0), rt.partitions)

    with {:ok, [first]} <- commit(rt, [{partition, [message], 1, bytes}], timeout),
         do: {:ok, {partition, first}}
  end

  @doc """
  Publishes many messages, each `{topic, payload}` or `{topic, payload, options}`, and returns their places when all have
  been committed.

  Those of a partition keep their order. It is not one transaction: when it fails, some may have been committed. What is
  to be all or nothing is published `in: tx`.
  """
  @spec publish_many(log, [{Topic.t(), term} | {Topic.t(), term, keyword}], keyword) ::
          {:ok, [place]} | {:error, Error.t()}
  def publish_many(log, messages, opts \\ []) do
    common = Options.publish!(opts)
    common.in && Options.bad!(:in, "is for publish/4; call that for each message")

    with %Runtime{} = rt <- Runtime.await(log, common.timeout),
         {:ok, encoded} <- encode_all(messages, rt, opts, []),
         pieces = pieces(encoded, rt),
         {:ok, firsts} <- commit(rt, pieces, common.timeout) do
      {:ok, places(encoded, pieces, firsts)}
    end
  end

  defp encode_all([], _rt, _common, done), do: {:ok, Enum.reverse(done)}

  defp encode_all([message | messages], rt, common, done) do
    {topic, payload, opts} =
      case message do
        {topic, payload} -> {topic, payload, common}
        {topic, payload, opts} -> {topic, payload, Keyword.merge(common, opts)}
      end

    with {:ok, message, bytes} <- encode(rt, topic, payload, Options.publish!(opts)),
         do:
           encode_all(messages, rt, common, [
             {Topic.partition(topic, rt.partitions), message, bytes} | done
           ])
  end

  # Of each partition, as many as are committed in one go at a time.
  defp pieces(encoded, rt) do
    for {p, group} <- Enum.group_by(encoded, &elem(&1, 0)),
        piece <- cut(group, rt.opts),
        do:
          {p, Enum.map(piece, &elem(&1, 1)), length(piece),
           piece |> Enum.map(&elem(&1, 2)) |> Enum.sum()}
  end

  defp cut(group, %{batch_messages: most, batch_bytes: most_bytes}) do
    step = fn {_, _, bytes} = message, {piece, n, sum} ->
      if n + 1 >= most or sum + bytes >= most_bytes,
        do: {:cont, Enum.reverse([message | piece]), {[], 0, 0}},
        else: {:cont, {[message | piece], n + 1, sum + bytes}}
    end

    last = fn
      {[], _, _} = none -> {:cont, none}
      {piece, _, _} -> {:cont, Enum.reverse(piece), nil}
    end

    Enum.chunk_while(group, {[], 0, 0}, step, last)
  end

  defp places(encoded, pieces, firsts) do
    numbers =
      pieces
      |> Enum.zip(firsts)
      |> Enum.group_by(fn {{p, _, _, _}, _} -> p end, fn {{_, _, n, _}, first} ->
        Enum.to_list(first..(first + n - 1))
      end)
      |> Map.new(fn {p, lists} -> {p, Enum.concat(lists)} end)

    {places, _} =
      Enum.map_reduce(encoded, numbers, fn {p, _, _}, numbers ->
        [n | rest] = numbers[p]
        {{p, n}, %{numbers | p => rest}}
      end)

    places
  end

  defp commit(rt, pieces, timeout) do
    deadline =
      if timeout == :infinity, do: timeout, else: System.monotonic_time(:millisecond) + timeout

    refs =
      for {p, messages, count, bytes} <- pieces do
        monitor = monitor(Writer.of(rt, p))
        Writer.publish(rt, monitor, p, messages, count, bytes, deadline)
        monitor
      end

    await(refs, deadline, rt, [])
  end

  # An answer that comes too late comes nowhere.
  defp monitor(name), do: :erlang.monitor(:process, name, alias: :reply_demonitor)

  defp await([], _deadline, _rt, firsts), do: {:ok, Enum.reverse(firsts)}

  defp await([ref | refs], deadline, rt, firsts) do
    case await_one(ref, deadline, rt) do
      {:ok, first} ->
        await(refs, deadline, rt, [first | firsts])

      error ->
        for ref <- refs, do: Process.demonitor(ref, [:flush])
        for ref <- refs, do: flush(ref)
        error
    end
  end

  defp await_one(ref, deadline, rt) do
    receive do
      {^ref, result} ->
        result

      {:DOWN, ^ref, _, _, :noproc} ->
        {:error, %Error{reason: {:not_running, rt.name}}}

      {:DOWN, ^ref, _, _, reason} ->
        {:error,
         %Error{reason: {:unknown, %RuntimeError{message: Exception.format_exit(reason)}}}}
    after
      left(deadline) ->
        Process.demonitor(ref, [:flush])
        flush(ref)
        {:error, %Error{reason: :timeout}}
    end
  end

  defp flush(ref) do
    receive do: ({^ref, _} -> :ok), after: (0 -> :ok)
  end

  defp left(:infinity), do: :infinity
  defp left(deadline), do: max(deadline - System.monotonic_time(:millisecond), 0)

  @doc """
  The SQL that publishes a message, with its parameters, for whatever client has a transaction under way:

      Repo.transaction(fn ->
        order = Repo.insert!(order)
        {sql, params} = Causeway.Log.statement(Events, "orders.paris.created", %{id: order.id})
        Repo.query!(sql, params)
      end)

  Options as of `publish/4`. It raises when that would return an error.
  """
  @spec statement(log, Topic.t(), term, keyword) :: {String.t(), [term]}
  def statement(log, topic, payload, opts \\ []) do
    opts = Options.publish!(opts)

    with %Runtime{} = rt <- Runtime.await(log, opts.timeout),
         {:ok, message, _} <- encode(rt, topic, payload, opts) do
      Writer.statement(rt, message)
    else
      {:error, error} -> raise error
    end
  end

  defp encode(rt, topic, payload, opts) do
    with :ok <- check_topic(topic),
         {:ok, payload} <- encode_payload(payload, opts.format, rt.json),
         {:ok, metadata} <- encode_metadata(opts.metadata, opts.format, rt.json) do
      bytes = byte_size(payload) + byte_size(metadata || "")

      if bytes > rt.max_bytes,
        do: {:error, %Error{reason: {:too_large, bytes, rt.max_bytes}}},
        else: {:ok, {topic, payload, opts.key, metadata}, bytes}
    end
  end

  defp check_topic(topic) do
    cond do
      Topic.valid?(topic) ->
        :ok

      is_binary(topic) and Topic.text?(topic) and Topic.pattern?(topic) ->
        bad_topic(topic, "* and > are for patterns")

      true ->
        bad_topic(topic, "it takes a text in UTF-8 of 1 to 1024 bytes, without a zero byte")
    end
  end

  defp bad_topic(topic, why), do: {:error, %Error{reason: {:bad_topic, topic, why}}}

  defp encode_payload(term, :binary, _json) when not is_binary(term),
    do: bad_payload(term, "format: :binary takes a binary")

  defp encode_payload(term, :json, nil),
    do: bad_payload(term, "format: :json takes a JSON library, such as Jason")

  defp encode_payload(term, format, json) do
    {:ok, Payload.encode(term, format, json)}
  rescue
    error -> bad_payload(term, Exception.message(error))
  end

  defp bad_payload(term, why), do: {:error, %Error{reason: {:bad_payload, term, why}}}

  # Whoever reads JSON can read it, too.
  defp encode_metadata(nil, _format, _json), do: {:ok, nil}
  defp encode_metadata(map, :json, json), do: encode_payload(map, :json, json)
  defp encode_metadata(map, _format, json), do: encode_payload(map, :term, json)

  # ---- subscribing ----

  @doc """
  Has the caller sent all messages of a topic, or of topics that a pattern is for: `{:ok, ref, cursor}`. They come as
  `{:causeway, ref, messages}`, lists of `Causeway.Log.Message`: those of a partition in order, each once, first what is there
  `:from` that point on, then whatever is committed.

  The cursor is where it begins. A subscriber that keeps it up to date, with `cursor/2`, can go on with `from: cursor`, later or
  elsewhere.

  A subscriber that is slow is sent no more than it takes, and what it has not got stays in the tables. When retention has
  taken something from there, it is told so before anything else of that partition, by
  `{:causeway, ref, {:gap, %{partition: p, from: first, to: last}}}`, the numbers that it will not see.

  After a failover to a standby that lacks messages which were sent from here, it is told
  `{:causeway, ref, {:rewound, %{partition: p, from: last, to: n}}}`: those after `n` are gone, and their numbers are given to
  others, which come now.

  Options:

  #{Options.docs(:subscribe)}
  """
  @spec subscribe(log, Topic.t(), keyword) :: {:ok, reference, cursor} | {:error, Exception.t()}
  def subscribe(log, topic, opts \\ []) do
    opts = Options.subscribe!(opts)

    with %Runtime{} = rt <- Runtime.await(log, 15_000),
         {:ok, matcher} <- compile(topic),
         {:ok, cursor} <- Table.cursor(rt, opts.from),
         cursor = Map.take(cursor, partitions(rt, matcher)),
         ref = make_ref(),
         args = %{ref: ref, pid: self(), matcher: matcher, opts: opts, cursor: cursor},
         {:ok, _} <-
           DynamicSupervisor.start_child(Runtime.process(rt, :Readers), {Reader, {rt, args}}) do
      {:ok, ref, cursor}
    end
  end

  defp compile(topic) do
    with {:error, why} <- Topic.compile(topic), do: bad_topic(topic, why)
  end

  defp partitions(rt, {:topic, topic}), do: [Topic.partition(topic, rt.partitions)]
  defp partitions(rt, _), do: Enum.to_list(0..(rt.partitions - 1))

  @doc """
  A cursor after these messages, after a gap, or where it was rewound to.

      iex> Causeway.Log.cursor(%{0 => 7, 1 => 3}, [%Causeway.Log.Message{partition: 1, sequence: 5}])
      %{0 => 7, 1 => 5}
  """
  @spec cursor(cursor, [Message.t()] | {:gap, map} | {:rewound, map}) :: cursor
  def cursor(cursor, {what, %{partition: p, to: to}}) when what in [:gap, :rewound],
    do: Map.put(cursor, p, to)

  def cursor(cursor, messages) when is_list(messages),
    do: Enum.reduce(messages, cursor, &Map.put(&2, &1.partition, &1.sequence))

  @doc "Ends what `subscribe/3` began. What is in the mailbox stays there."
  @spec unsubscribe(log, reference) :: :ok
  def unsubscribe(log, ref) do
    rt = Runtime.fetch!(log)

    case :ets.lookup(rt.state, {:subscription, ref}) do
      [{_, pid}] -> GenServer.call(pid, :stop, :infinity)
      [] -> :ok
    end
  catch
    :exit, {reason, _} when reason in [:noproc, :normal, :shutdown] -> :ok
  end

  # ---- how it is ----

  @typedoc """
  What `info/1` tells.

    * `:stream` - `:streaming`, from the server's log; `:polling`, while there is no stream, with `:error`, why; `:connecting`
    * `:partitions` - of each `:first` and `:last`, the numbers that are kept in the tables, and `:seen`, what this node knows of
    * `:segments` - of each `:bytes` on the disk, `:messages`, when it was `:opened` and `:closed`, nil for the last one
    * `:subscriptions` - of this node
    * `:recent_batches`, `:recent_words` - in memory, and what that takes
    * `:wal` - `t:Causeway.Postgres.WAL.info/0` of the stream, nil with `delivery: :poll`
  """
  @type info :: %{atom => term}

  @doc "How the log is doing."
  @spec info(log) :: {:ok, info} | {:error, Exception.t()}
  def info(log) do
    with_log(log, fn rt ->
      with {:ok, ends} <- Table.ends(rt), {:ok, segments} <- Table.segments(rt) do
        partitions =
          for {p, first, last} <- ends,
              do: %{partition: p, first: first, last: last, seen: Runtime.head(rt, p)}

        {:ok,
         %{
           stream: Runtime.get(rt, :stream),
           error: Runtime.get(rt, :error),
           publisher: rt.publisher,
           max_bytes: rt.max_bytes,
           partitions: partitions,
           segments: segments,
           subscriptions: DynamicSupervisor.count_children(Runtime.process(rt, :Readers)).active,
           recent_batches: :ets.info(rt.recent, :size),
           recent_words: :ets.info(rt.recent, :memory),
           wal: if(rt.opts.delivery == :wal, do: Postgres.WAL.info(Runtime.process(rt, :Tail)))
         }}
      end
    end)
  end

  @doc """
  Drops what is not to be kept now, and not within `:retention_interval`: the numbers of the segments that were dropped.
  """
  @spec retain(log) :: {:ok, [pos_integer]} | {:error, Exception.t()}
  def retain(log), do: with_log(log, &Retention.run/1)

  # ---- consumer groups ----

  @doc """
  The consumer groups, each a map: `:group`, `:paused`, `:lag` in messages, how many are `:parked` and `:dead`, its `:members`, and
  the same by partition.
  """
  @spec consumers(log) :: {:ok, [map]} | {:error, Exception.t()}
  def consumers(log), do: with_log(log, &Groups.list/1)

  @doc "Has a group handle nothing, on any node, within a third of its lease, until `resume/2`."
  @spec pause(log, String.t()) :: :ok | {:error, Exception.t()}
  def pause(log, group), do: with_log(log, &Groups.pause(&1, group, true))

  @doc "Ends what `pause/2` began."
  @spec resume(log, String.t()) :: :ok | {:error, Exception.t()}
  def resume(log, group), do: with_log(log, &Groups.pause(&1, group, false))

  @doc """
  Has a group go on elsewhere: `:now`, `:beginning`, a `DateTime`, or a cursor, which may be of some partitions only. What was
  to be delivered again, of these partitions, is not; dead letters stay.
  """
  @spec seek(log, String.t(), :now | :beginning | DateTime.t() | cursor) ::
          :ok | {:error, Exception.t()}
  def seek(log, group, to) do
    [from: to] = Options.subscribe!(from: to) |> Keyword.new() |> Keyword.take([:from])

    with_log(log, fn rt ->
      with {:ok, cursor} <- Table.cursor(rt, to) do
        only =
          if is_map(to) and not is_struct(to), do: Map.take(cursor, Map.keys(to)), else: cursor

        Groups.seek(rt, group, only)
      end
    end)
  end

  @doc """
  Forgets a group, its position and its dead letters. While it has members that are alive, or have died within their lease, it
  is an error of reason `{:has_members, group, members}`.

  Options:

  #{Options.docs(:delete)}
  """
  @spec delete_consumers(log, String.t(), keyword) :: :ok | {:error, Exception.t()}
  def delete_consumers(log, group, opts \\ []) do
    %{force: force} = Options.delete!(opts)
    with_log(log, &Groups.delete(&1, group, force))
  end

  @doc "The messages that a group has given up, oldest first, each with the last error: `{message, error}`. Option: `:limit`."
  @spec dead_letters(log, String.t(), keyword) ::
          {:ok, [{Message.t(), String.t()}]} | {:error, Exception.t()}
  def dead_letters(log, group, opts \\ []) do
    limit = Keyword.get(opts, :limit, 100)
    is_integer(limit) || Options.bad!(:limit, "expected an integer, got #{inspect(limit)}")
    with_log(log, &Groups.dead_letters(&1, group, limit))
  end

  @doc "Has dead letters delivered again, `:all` or those of some places; how many there were."
  @spec redrive(log, String.t(), :all | [place]) ::
          {:ok, non_neg_integer} | {:error, Exception.t()}
  def redrive(log, group, which), do: with_log(log, &Groups.redrive(&1, group, which))

  @doc "Forgets dead letters, `:all` or those of some places; how many there were."
  @spec discard(log, String.t(), :all | [place]) ::
          {:ok, non_neg_integer} | {:error, Exception.t()}
  def discard(log, group, which), do: with_log(log, &Groups.discard(&1, group, which))

  defp with_log(log, fun) do
    with %Runtime{} = rt <- Runtime.await(log, 15_000), do: fun.(rt)
  end
end
