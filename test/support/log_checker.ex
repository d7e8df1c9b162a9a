defmodule Causeway.LogChecker do
  @moduledoc false
  # What the nodes of a test of faults do: publish and say what came of it; read, and say how far, and what is wrong. There
  # may be millions of messages: of each there are 8 bytes in `Causeway.LogLedger`, and none here. What is sent to
  # `{:ledger, node}` is described there.
  #
  # A message is `{publisher, number}`, of 32 bits each, in bytes of which any one that is wrong is noticed; each is published
  # once, whatever comes of it.

  alias Causeway.{Log, Postgres}

  # A publisher's batch; what a killed one may have published without having said that it tries.
  @most 100
  # After so many messages of a partition, a reader says what it has read.
  @mark 1_000
  @topics 5
  # What Causeway.Postgres.Error says of these: not done.
  @undone [:server, :rolled_back, :not_connected, :queue_timeout]

  def most, do: @most

  @doc """
  Starts a log, a reader of all and publishers, which go on when the caller has ended.

    * `:options` - of connections
    * `:ledger` - the node
    * `:reader` - what the ledger calls it
    * `:from` - `:beginning`, or what the ledger has of a reader that has ended: `%{partition => {sequence, hash}}`
    * `:publishers` - their numbers
  """
  def start(%{} = about) do
    {_, ref} =
      spawn_monitor(fn ->
        Process.flag(:trap_exit, true)
        opts = [name: Checked, connection: about.options, recent_bytes: 50_000]
        {:ok, log} = Log.start_link(opts)
        Process.unlink(log)
        start_reader(about)
        exit(:started)
      end)

    receive do
      {:DOWN, ^ref, _, _, :started} -> :ok
    after
      10_000 -> {:error, :log_does_not_start}
    end
  end

  defp start_reader(about) do
    spawn(fn ->
      # Of the publishers of this node that have a transaction open: their messages, first to last.
      :ets.new(:checked_open, [:named_table, :public, read_concurrency: true])
      for id <- about.publishers, do: spawn(fn -> start_publisher(about, id) end)
      Process.register(self(), :checked_reader)
      read(about)
    end)
  end

  # ---- messages ----

  @doc "The bytes of a message: their size varies, and all follow from its number."
  def payload(id, i) do
    filler = rem(id * 7 + i * 13, 60)
    <<id::32, i::32, :erlang.crc32(<<id::32, i::32>>)::32, 0::size(filler)-unit(8)>>
  end

  @doc "Which message it is, or nil when it is none."
  def parse(<<id::32, i::32, _::binary>> = bytes),
    do: if(payload(id, i) == bytes, do: {id, i})

  def parse(_), do: nil

  @doc "The hash of all up to a message, with what was before."
  def hash(before, bytes), do: :erlang.crc32(before, bytes)

  # ---- reading ----

  defp read(about) do
    {ref, state} = subscribe(about)
    keep(ref, state, about)
  end

  # The state is the ledger's: `%{partition => {sequence, hash}}`.
  defp subscribe(about) do
    from =
      if about.from == :beginning,
        do: :beginning,
        else: Map.new(about.from, fn {p, {n, _}} -> {p, n} end)

    case Log.subscribe(Checked, ">", from: from) do
      {:ok, ref, cursor} ->
        before = if about.from == :beginning, do: %{}, else: about.from
        {ref, Map.new(cursor, fn {p, n} -> {p, Map.get(before, p, {n, 0})} end)}

      {:error, _} ->
        Process.sleep(50)
        subscribe(about)
    end
  end

  defp keep(ref, state, about) do
    receive do
      {:causeway, ^ref, messages} when is_list(messages) ->
        keep(ref, Enum.reduce(messages, state, &take(&1, &2, about)), about)

      {:causeway, ^ref, what} ->
        wrong(about, {:told, what})

      {:at, pid} ->
        send(pid, {:at, state})
        keep(ref, state, about)
    end
  end

  # The numbers of a partition come one after the other, and nothing before its commit has begun.
  defp take(%{partition: p, sequence: n, payload: bytes}, state, about) do
    {before, hash} = state[p]
    n == before + 1 || wrong(about, {:number, p, n, :after, before})

    case parse(bytes) do
      nil -> wrong(about, {:payload, p, n, bytes})
      {id, i} -> open?(id, i) && wrong(about, {:early, p, n, {id, i}})
    end

    now = {n, hash(hash, bytes)}
    if rem(n, @mark) == 0, do: tell(about, {:read, about.reader, p, now})
    %{state | p => now}
  end

  defp open?(id, i) do
    case :ets.lookup(:checked_open, id) do
      [{_, first, last}] -> i in first..last
      [] -> false
    end
  end

  @spec wrong(map, term) :: no_return
  defp wrong(about, what) do
    tell(about, {:wrong, about.reader, what})
    exit({:shutdown, what})
  end

  @doc "How far it has read, `%{partition => {sequence, hash}}`; or `:no_reader`."
  def at do
    if pid = Process.whereis(:checked_reader) do
      send(pid, {:at, self()})
      receive do: ({:at, state} -> state), after: (10_000 -> :no_answer)
    else
      :no_reader
    end
  end

  @doc "Where the processes of the log and the checker are: for who waits in vain."
  def where do
    for pid <- Process.list(),
        about =
          Process.info(pid, [:registered_name, :current_stacktrace, :message_queue_len, :status]),
        Enum.any?(about[:current_stacktrace], &ours?/1) or about[:message_queue_len] > 0,
        do: {pid, about[:registered_name], about[:message_queue_len], places(about)}
  end

  defp ours?({module, _, _, _}),
    do: String.starts_with?(Atom.to_string(module), "Elixir.Causeway")

  defp places(about) do
    for {module, fun, arity, at} <- Enum.take(about[:current_stacktrace], 8),
        do: "#{inspect(module)}.#{fun}/#{arity}:#{at[:line]}"
  end

  # ---- publishing ----

  @doc "Ends the publishers, each after what it is doing."
  def stop, do: :persistent_term.put(__MODULE__, :stop)

  defp start_publisher(about, id) do
    Process.flag(:trap_exit, true)
    :rand.seed(:exsss, {id, about.seed, 3})
    {:ok, conn} = Postgres.start_link(about.options)
    publish(about, conn, id, 1)
  end

  defp publish(about, conn, id, i) do
    if :persistent_term.get(__MODULE__, nil) == :stop do
      tell(about, {:ended, id})
    else
      {way, count} = way()
      last = i + count - 1
      tell(about, {:tries, id, last})
      fates = once(way, conn, id, i, last)
      tell(about, {:came, id, i, last, fates})
      publish(about, conn, id, last + 1)
    end
  end

  defp tell(about, what), do: send({:ledger, about.ledger}, what)

  # How it is published, and how many at once.
  defp way do
    case :rand.uniform(10) do
      n when n <= 3 -> {:one, 1}
      n when n <= 7 -> {:many, :rand.uniform(@most)}
      n when n <= 8 -> {:transaction, :rand.uniform(5)}
      9 -> {:sql, :rand.uniform(@most)}
      10 -> {:snapshot, :rand.uniform(5)}
    end
  end

  defp topic(id, i), do: "t.#{id}.#{rem(i, @topics)}"

  # Both formats, which readers get the same of.
  defp format(i), do: if(rem(i, 2) == 0, do: :binary, else: :term)

  # What it returns is what the ledger knows as fates.
  defp once(:one, _conn, id, i, _) do
    case Log.publish(Checked, topic(id, i), payload(id, i), format: format(i)) do
      {:ok, place} -> [place]
      {:error, error} -> failed(error)
    end
  end

  defp once(:many, _conn, id, first, last) do
    messages = for i <- first..last, do: {topic(id, i), payload(id, i), [format: format(i)]}

    case Log.publish_many(Checked, messages) do
      {:ok, places} -> places
      # Of some partitions it may have been.
      {:error, error} -> failed(error) && {:unknown, Exception.message(error)}
    end
  end

  defp once(:transaction, conn, id, first, last),
    do: in_transaction(conn, id, first, last, [], &each(&1, id, first, last))

  defp once(:snapshot, conn, id, first, last) do
    isolation = Enum.random([:repeatable_read, :serializable])
    in_transaction(conn, id, first, last, [isolation: isolation], &each(&1, id, first, last))
  end

  @sql "SELECT causeway.publish_bytes(t, p) FROM unnest($1::text[], $2::bytea[]) AS m (t, p)"

  defp once(:sql, conn, id, first, last) do
    topics = for i <- first..last, do: topic(id, i)
    payloads = for i <- first..last, do: payload(id, i)

    in_transaction(conn, id, first, last, [], fn tx ->
      with {:ok, _} <- Postgres.query(tx, @sql, [topics, payloads]), do: :ok
    end)
  end

  defp each(tx, id, first, last) do
    Enum.reduce_while(first..last, :ok, fn i, _ ->
      case Log.publish(Checked, topic(id, i), payload(id, i), format: format(i), in: tx) do
        :ok -> {:cont, :ok}
        error -> {:halt, error}
      end
    end)
  end

  defp in_transaction(conn, id, first, last, opts, fun) do
    fate = :rand.uniform(4)
    :ets.insert(:checked_open, {id, first, last})

    result =
      Postgres.transaction(
        conn,
        fn tx ->
          with {:error, error} <- fun.(tx), do: Postgres.rollback(tx, error)
          if fate == 1, do: Process.sleep(:rand.uniform(20))
          if fate == 2, do: Postgres.rollback(tx, :no)
          :ets.delete(:checked_open, id)
        end,
        opts
      )

    :ets.delete(:checked_open, id)

    case result do
      {:ok, _} -> :committed
      {:error, :no} -> :undone
      {:error, error} -> failed(error)
    end
  end

  # The server has refused, or was not asked; or nobody knows. Who has no connection tries again in a moment.
  defp failed(error) do
    Process.sleep(20)

    case error do
      %Log.Error{reason: {:server, _}} -> :undone
      %Log.Error{reason: {:not_ready, _, _}} -> :undone
      %Postgres.Error{reason: reason} when reason in @undone -> :undone
      _ -> {:unknown, Exception.message(error)}
    end
  end
end
