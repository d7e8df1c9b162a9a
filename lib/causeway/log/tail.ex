defmodule Causeway.Log.Tail do
  @moduledoc false
  # What the server's log brings goes to where readers find it. The slot is a temporary one: the table has all that was
  # missed while there was none, and readers see by the numbers that something was.

  use Causeway.Postgres.WAL.Handler
  alias Causeway.Log.{Events, Ends, Migration, Recent, Runtime}
  alias Causeway.Postgres.WAL

  # `timeline`: of the server that the stream comes from; `other`: whether that is not the one that the log goes by
  defstruct [:rt, :recent, :outbox, :timeline, other: false]

  def child_spec(rt) do
    # Names of slots are the server's, and those of a VM that has just died may still be there.
    slot = "#{String.slice(Runtime.namespace(rt), 0, 40)}_#{rt.id}"

    WAL.child_spec(
      id: __MODULE__,
      name: Runtime.process(rt, :Tail),
      connection: rt.opts.connection.(),
      slot: slot,
      temporary: true,
      publication: Migration.publication(rt.schema),
      messages: true,
      on_slot_lost: :recreate,
      decode_binary: :reference,
      handler: {__MODULE__, rt},
      backoff_max: 5_000
    )
    |> Map.put(:restart, :permanent)
  end

  @impl true
  def init(rt) do
    {:ok,
     %__MODULE__{
       rt: rt,
       recent: Recent.new(rt),
       outbox: "causeway.#{Runtime.namespace(rt)}.outbox"
     }}
  end

  @impl true
  def handle_transaction(transaction, state) do
    other = Runtime.get(state.rt, :timeline) not in [nil, state.timeline]
    {:ack, take(transaction.changes, %{state | other: other}, %{}, 0, 0)}
  end

  # What a server has sent that has been replaced must not be handled in the name of its successor; nor what the successor has,
  # until it has been compared. Both are looked for in the table.
  defp take([%{op: :insert} | changes], %{other: true} = state, heads, batches, messages),
    do: take(changes, state, heads, batches, messages)

  defp take([%{op: :insert, new: row} | changes], state, heads, batches, messages) do
    batch =
      {p, first, last, _, _, _, payloads, _, metadata} =
      {row["partition"], row["first"], row["last"], row["time"], row["publisher"], row["topics"],
       row["payloads"], row["keys"], row["metadata"]}

    n = last - first + 1
    recent = Recent.put(state.recent, batch, 100 * n + size(payloads, 0) + size(metadata, 0))
    take(changes, %{state | recent: recent}, Map.put(heads, p, last), batches + 1, messages + n)
  end

  # A message that is not the log's: see Causeway.PubSub.
  defp take(
         [%WAL.Message{prefix: prefix} = message | changes],
         %{outbox: outbox} = state,
         heads,
         batches,
         messages
       )
       when prefix != outbox do
    for {_, pid} <- :ets.lookup(state.rt.state, {:emitted, prefix}),
        do: send(pid, {:causeway_emitted, message.content})

    take(changes, state, heads, batches, messages)
  end

  # A transaction has left messages to be numbered: see log_commit.
  defp take(
         [%WAL.Message{prefix: prefix} | changes],
         %{outbox: prefix} = state,
         heads,
         batches,
         messages
       ) do
    Ends.drain(state.rt)
    take(changes, state, heads, batches, messages)
  end

  defp take([_ | changes], state, heads, batches, messages),
    do: take(changes, state, heads, batches, messages)

  defp take([], state, heads, batches, messages) do
    for {p, last} <- heads, Runtime.advance(state.rt, p, last), do: Runtime.wake(state.rt, p)

    if batches > 0,
      do: Events.emit(state.rt.name, :received, %{batches: batches, messages: messages})

    state
  end

  defp size(nil, sum), do: sum
  defp size([nil | rest], sum), do: size(rest, sum)
  defp size([bytes | rest], sum), do: size(rest, sum + byte_size(bytes))
  defp size([], sum), do: sum

  @impl true
  def handle_message(_message, state), do: {:ack, state}

  @impl true
  def handle_event({:connected, %{timeline: timeline}}, state) do
    if Runtime.get(state.rt, :timeline) not in [nil, timeline], do: Ends.settle(state.rt)
    Ends.streaming(state.rt, true)
    {:ok, %{state | timeline: timeline}}
  end

  # The next server may have other messages of the same numbers.
  def handle_event({:disconnected, %{error: error}}, state) do
    recent = Recent.new(state.rt)
    Ends.streaming(state.rt, false, error)
    {:ok, %{state | recent: recent}}
  end

  def handle_event({:rewound, _}, state) do
    Ends.settle(state.rt)
    {:ok, state}
  end

  def handle_event(_event, state), do: {:ok, state}
end
