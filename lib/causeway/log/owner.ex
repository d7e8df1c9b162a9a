defmodule Causeway.Log.Owner do
  @moduledoc false
  # Handles one partition for a consumer group. It goes in rounds: messages that are due again and new ones are handed to the
  # handler, in processes of their own, each of a key's to the same one; then one statement acknowledges the round. What
  # failed is parked, with what follows of the same key, so that all up to a number is always done with.
  #
  # It may be killed at any moment: see Causeway.Log.Member.

  use GenServer, restart: :temporary
  alias Causeway.Log.{Acker, Call, Error, Events, Feed, Groups, Runtime, Topic}

  # Until what could not be read or acknowledged is tried again; until what nobody wants is acknowledged.
  @again_ms 100
  @idle_ms 1_000

  # `known`: numbers that were read and parked by an owner which did not come to acknowledge what was before them;
  # `queue`: read and not handled; `parked`: by number, with `:at`, when it is due; `lines`: by key, the numbers of its parked
  # messages in order
  defstruct [
              :member,
              :rt,
              :opts,
              :conn,
              :acker,
              :row,
              :matcher,
              :feed,
              :flag,
              :timer,
              :acked,
              :known
            ] ++
              [queue: [], parked: %{}, lines: %{}]

  def start_link(rt, opts, conn, acker, row),
    do: GenServer.start_link(__MODULE__, {self(), rt, opts, conn, acker, row})

  @doc "Raises when the option is no topic or pattern."
  def matcher!(opts) do
    case Topic.compile(opts.topic) do
      {:ok, matcher} -> matcher
      {:error, why} -> raise Error, reason: {:bad_topic, opts.topic, why}
    end
  end

  @impl true
  def init({member, rt, opts, conn, acker, row}) do
    # Calls that fail are told of by their exits.
    Process.flag(:trap_exit, true)

    state = %__MODULE__{
      member: member,
      rt: rt,
      opts: opts,
      conn: conn,
      acker: acker,
      row: row,
      acked: row.acked,
      matcher: matcher!(opts),
      feed: Feed.new(rt, row.partition, row.acked, bytes: true),
      flag: :atomics.new(1, [])
    }

    Runtime.watch(rt, [row.partition], state.flag)
    {:ok, state, {:continue, :load}}
  end

  @impl true
  def handle_continue(:load, state), do: load(state)

  @impl true
  def handle_info(:log_more, state), do: rounds(state)
  def handle_info(:reload, state), do: load(state)

  # The server is another one, which knows where the group is.
  def handle_info({:log_rewound, _, _}, state), do: {:stop, {:shutdown, :rewound}, state}

  def handle_info({:timeout, timer, :again}, %{timer: timer} = state),
    do: rounds(%{state | timer: nil})

  def handle_info({:timeout, timer, :load}, %{timer: timer} = state),
    do: load(%{state | timer: nil})

  def handle_info(_, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, state), do: Runtime.unwatch(state.rt, self())

  defp load(state) do
    case Groups.parked(state.conn, state.rt, state.opts.group, state.row.partition) do
      {:ok, parked} ->
        parked = Enum.map(parked, &soon(&1, state.opts))
        rounds(park(parked, known(parked, %{state | parked: %{}, lines: %{}})))

      {:error, _} ->
        {:noreply, later(state, @again_ms, :load)}
    end
  end

  # Longer than any wait is what the server's clock was set back by.
  defp soon(entry, %{backoff: {_, most}}), do: %{entry | wait: min(entry.wait, most)}

  defp known(parked, %{known: nil, acked: acked} = state),
    do: %{
      state
      | known: for(entry <- parked, n = sequence(entry), n > acked, into: MapSet.new(), do: n)
    }

  defp known(_parked, state), do: state

  # ---- rounds ----

  # The flag is cleared before the head is read: what comes afterwards wakes this again.
  defp rounds(state) do
    Runtime.looking(state.flag)

    case one_round(state) do
      {:more, state} -> between_rounds(state)
      {:wait, ms, state} -> {:noreply, later(state, ms, :again)}
      {:fenced, state} -> {:stop, {:shutdown, :fenced}, state}
    end
  end

  # What a process that is never done would not come to.
  defp between_rounds(%{member: member} = state) do
    receive do
      {:EXIT, ^member, reason} -> {:stop, reason, state}
      :reload -> load(state)
    after
      0 -> rounds(state)
    end
  end

  defp one_round(state) do
    again = due(state)
    {new, status, state} = collect(state, [], 0)
    {waiting, ready} = Enum.split_with(new, &is_map_key(state.lines, key(&1)))

    if again == [] and new == [],
      do: idle(state, status),
      else: handle(state, again, ready, Enum.map(waiting, &behind/1))
  end

  # What waits is parked first, so that each transaction acknowledges all up to its own last message.
  defp handle(%{opts: %{transactional: database}} = state, again, ready, waiting)
       when database != false do
    calls = Enum.map(again, &[&1]) ++ if(ready == [], do: [], else: [ready])
    if waiting == [], do: in_transactions(state, calls), else: wait_then(state, waiting, calls)
  end

  defp handle(state, again, ready, waiting) do
    lanes =
      ready |> Enum.group_by(&:erlang.phash2(key(&1), state.opts.concurrency)) |> Map.values()

    results = Call.all(state, Enum.map(again, &[&1]) ++ lanes, state.opts.concurrency)
    {done, failed} = Enum.reduce(results, {[], []}, &sort_out/2)
    done = for sequence <- done, is_map_key(state.parked, sequence), do: sequence
    commit(state, done, Enum.map(failed, &failure(&1, state)) ++ waiting)
  end

  # `{entries, :ok | {:failed, [{sequence, error}]}}`, of all of them together.
  defp sort_out({entries, :ok}, {done, failed}),
    do: {Enum.map(entries, &sequence/1) ++ done, failed}

  defp sort_out({entries, {:failed, errors}}, {done, failed}) do
    {bad, good} = Enum.split_with(entries, &is_map_key(errors, sequence(&1)))
    bad = for entry <- bad, do: {entry, errors[sequence(entry)]}
    {Enum.map(good, &sequence/1) ++ done, bad ++ failed}
  end

  # ---- acknowledging ----

  defp commit(state, done, parked) do
    upto = upto(state)

    case acknowledge(state, upto, done, parked) do
      :ok ->
        tell_parked(parked, state)
        {:more, park(parked, settle(done, %{state | acked: upto}))}

      :fenced ->
        {:fenced, state}

      # Not to be handled again here: only the acknowledgement is.
      {:error, _} ->
        Process.sleep(@again_ms)
        commit(state, done, parked)
    end
  end

  defp acknowledge(state, upto, [], []), do: Acker.ack(state.acker, state.row, upto)

  defp acknowledge(state, upto, done, parked),
    do: Groups.ack(state.conn, state.rt, state.opts.group, state.row, upto, done, parked)

  # All of the feed that was handled, and what of it nobody wanted.
  defp upto(%{queue: [entry | _]}), do: sequence(entry) - 1
  defp upto(state), do: state.feed.at

  # What nobody wants is passed over now and then.
  defp idle(%{acked: acked, feed: %{at: at}} = state, status)
       when at > acked and status != :later do
    if at - acked > 10_000 or status == :quiet,
      do: commit(state, [], []),
      else: {:wait, @idle_ms, state}
  end

  defp idle(state, :later), do: {:wait, @again_ms, state}
  defp idle(state, _), do: {:wait, soonest(state), state}

  # ---- new messages ----

  defp collect(%{queue: [_ | _] = queue} = state, entries, n) do
    {taken, rest} = Enum.split(queue, state.opts.batch - n)
    collect_more(%{state | queue: rest}, entries ++ taken, n + length(taken))
  end

  defp collect(state, entries, n), do: collect_more(state, entries, n)

  defp collect_more(state, entries, n) when n >= state.opts.batch, do: {entries, :more, state}

  defp collect_more(state, entries, _n) when map_size(state.parked) >= state.opts.max_parked,
    do: {entries, :full, state}

  defp collect_more(state, entries, n) do
    case Feed.next(state.feed, state.matcher) do
      {:ok, messages, feed} ->
        entries_of =
          for {message, _, _} = read <- messages,
              message.sequence not in state.known,
              do: entry(read)

        collect(%{state | feed: feed, queue: entries_of}, entries, n)

      # What is before it is handled first; then there is another look.
      {:gap, _gap, _feed} when entries != [] ->
        {entries, :more, state}

      {:gap, gap, feed} ->
        tell_gap(gap, state)
        collect_more(%{state | feed: feed}, entries, n)

      :none ->
        {entries, :quiet, state}

      :later ->
        {entries, :later, state}
    end
  end

  defp entry({message, payload, metadata}) do
    %{
      message: message,
      payload: payload,
      metadata: metadata,
      deliveries: 0,
      wait: 0,
      dead: false,
      error: nil
    }
  end

  defp tell_gap(gap, %{opts: opts} = state) do
    Events.emit(state.rt.name, :behind, %{missing: gap.to - gap.from + 1}, %{
      partition: gap.partition,
      subscriber: opts.group
    })

    Call.gap(state, gap)
  end

  # ---- parked ones ----

  defp key(%{message: %{key: nil, topic: topic}}), do: topic
  defp key(%{message: %{key: key}}), do: key
  defp sequence(%{message: %{sequence: sequence}}), do: sequence

  defp behind(entry), do: %{entry | error: "waits for another one of its key"}

  # Again after twice the time; or not any more.
  defp failure({entry, error}, %{opts: %{backoff: {least, most}} = opts}) do
    n = entry.deliveries + 1
    wait = min(most, least * Integer.pow(2, min(n - 1, 30)))
    %{entry | deliveries: n, wait: wait, dead: n >= opts.max_deliveries, error: error}
  end

  defp park(entries, state) do
    state =
      Enum.reduce(entries, state, fn entry, state ->
        if entry.dead do
          settle([sequence(entry)], state)
        else
          entry = Map.put(entry, :at, now() + entry.wait)
          %{state | parked: Map.put(state.parked, sequence(entry), entry)}
        end
      end)

    %{state | lines: lines(state.parked)}
  end

  defp settle([], state), do: state

  defp settle(sequences, state) do
    parked = Map.drop(state.parked, sequences)
    %{state | parked: parked, lines: lines(parked)}
  end

  defp lines(parked) when parked == %{}, do: %{}

  defp lines(parked) do
    for {key, entries} <- parked |> Map.values() |> Enum.group_by(&key/1), into: %{} do
      {key, entries |> Enum.map(&sequence/1) |> Enum.sort()}
    end
  end

  # The first of each key, if it is time for it.
  defp due(%{lines: lines}) when lines == %{}, do: []

  defp due(state) do
    for {_, [first | _]} <- state.lines, entry = state.parked[first], entry.at <= now(), do: entry
  end

  defp soonest(%{lines: lines}) when lines == %{}, do: :infinity

  defp soonest(state) do
    times = for {_, [first | _]} <- state.lines, do: state.parked[first].at
    max(Enum.min(times) - now(), 1)
  end

  defp tell_parked([], _state), do: :ok

  defp tell_parked(parked, state) do
    metadata = %{group: state.opts.group, partition: state.row.partition}
    {dead, parked} = Enum.split_with(parked, & &1.dead)
    if dead != [], do: Events.emit(state.rt.name, :dead, %{messages: length(dead)}, metadata)

    if parked != [],
      do: Events.emit(state.rt.name, :parked, %{messages: length(parked)}, metadata)
  end

  # ---- in transactions ----

  defp wait_then(state, waiting, calls) do
    case Groups.ack(state.conn, state.rt, state.opts.group, state.row, state.acked, [], waiting) do
      :ok ->
        tell_parked(waiting, state)
        in_transactions(park(waiting, state), calls)

      :fenced ->
        {:fenced, state}

      {:error, _} ->
        Process.sleep(@again_ms)
        wait_then(state, waiting, calls)
    end
  end

  # One after another; each call has its transaction, which acknowledges what it was given.
  defp in_transactions(state, []), do: {:more, state}

  defp in_transactions(state, [entries | rest]) do
    upto = if rest == [], do: upto(state), else: upto_call(entries, state)

    case Call.transaction(state, entries, upto) do
      :ok ->
        done =
          for entry <- entries, is_map_key(state.parked, sequence(entry)), do: sequence(entry)

        in_transactions(settle(done, %{state | acked: upto}), rest)

      :fenced ->
        {:fenced, state}

      {:failed, _} when length(entries) > 1 ->
        in_transactions(state, Enum.map(entries, &[&1]) ++ rest)

      {:failed, errors} ->
        failed_alone(state, hd(entries), errors, rest)
    end
  end

  # Those that follow of the same key wait from now on, unless it is given up.
  defp failed_alone(state, entry, errors, rest) do
    failed = failure({entry, errors[sequence(entry)]}, state)
    own = key(entry)

    {behind, others} =
      if failed.dead,
        do: {[], rest},
        else: Enum.split_with(rest, fn [next | _] -> key(next) == own end)

    parked = [failed | behind |> Enum.concat() |> Enum.map(&behind/1)]
    upto = upto_call([entry], state)

    case Groups.ack(state.conn, state.rt, state.opts.group, state.row, upto, [], parked) do
      :ok ->
        tell_parked(parked, state)
        in_transactions(park(parked, %{state | acked: upto}), others)

      :fenced ->
        {:fenced, state}

      {:error, _} ->
        Process.sleep(@again_ms)
        failed_alone(state, entry, errors, rest)
    end
  end

  # A message that is delivered again is one that was acknowledged.
  defp upto_call(entries, state),
    do: entries |> Enum.map(&sequence/1) |> Enum.max() |> max(state.acked)

  defp later(state, :infinity, _what), do: state

  defp later(state, ms, what) do
    if state.timer, do: :erlang.cancel_timer(state.timer)
    %{state | timer: :erlang.start_timer(ms, self(), what)}
  end

  defp now, do: System.monotonic_time(:millisecond)
end
