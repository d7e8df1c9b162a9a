defmodule Causeway.LogLedger do
  @moduledoc false
  # What publishers and readers of a test of faults have said, for comparison with what is in the tables at the end. There may
  # be millions of messages: 8 bytes for each.
  #
  #     {:tries, publisher, last}                 will publish its messages up to this one
  #     {:came, publisher, first, last, fates}    what came of these: their places, in order; or for all of them
  #                                               :committed, :undone or {:unknown, why}
  #     {:ended, publisher}                       publishes no more
  #     {:read, reader, partition, mark}          has read so far, `{sequence, hash of all}`
  #     {:wrong, reader, what}                    has noticed that something is not as it must be
  use GenServer
  alias Causeway.{LogChecker, Postgres}

  # In order of publishers' numbers: what came of each message.
  @unknown <<0::64>>
  @undone <<1::64>>
  @committed <<2::64>>

  def start_link, do: GenServer.start_link(__MODULE__, nil, name: :ledger)

  @doc "Publishers that have ended; messages of which one knows what came; what is wrong."
  def ended(ledger), do: GenServer.call(ledger, :ended, 30_000)
  def count(ledger), do: GenServer.call(ledger, :count, 30_000)
  def wrong(ledger), do: GenServer.call(ledger, :wrong, 30_000)

  @doc "Why one does not know what came of some, and how often."
  def why(ledger), do: GenServer.call(ledger, :why, 30_000)

  @doc "Where a reader was the last time that it said so: `%{partition => {sequence, hash}}`."
  def read(ledger, reader), do: GenServer.call(ledger, {:read, reader}, 30_000)

  defp publishers(ledger), do: GenServer.call(ledger, :publishers, 30_000)

  @impl true
  def init(nil),
    do: {:ok, %{publishers: %{}, read: %{}, ended: MapSet.new(), wrong: [], count: 0, why: %{}}}

  @impl true
  def handle_call(:ended, _, state), do: {:reply, state.ended, state}
  def handle_call(:count, _, state), do: {:reply, state.count, state}
  def handle_call(:wrong, _, state), do: {:reply, state.wrong, state}
  def handle_call(:publishers, _, state), do: {:reply, state.publishers, state}

  def handle_call(:why, _, state), do: {:reply, state.why, state}

  def handle_call({:read, reader}, _, state),
    do: {:reply, Map.get(state.read, reader, %{}), state}

  @impl true
  def handle_info({:tries, id, last}, state) do
    {_, fates} = Map.get(state.publishers, id, {0, []})
    {:noreply, put_in(state.publishers[id], {last, fates})}
  end

  def handle_info({:came, id, first, last, came}, state) do
    n = last - first + 1
    {tried, fates} = state.publishers[id]
    publishers = %{state.publishers | id => {tried, [fates | fates(came, n)]}}

    {:noreply,
     %{state | publishers: publishers, count: state.count + n, why: why(came, state.why)}}
  end

  def handle_info({:ended, id}, state),
    do: {:noreply, %{state | ended: MapSet.put(state.ended, id)}}

  def handle_info({:read, reader, p, mark}, state) do
    marks = state.read |> Map.get(reader, %{}) |> Map.put(p, mark)
    {:noreply, put_in(state.read[reader], marks)}
  end

  def handle_info({:wrong, reader, what}, state),
    do: {:noreply, %{state | wrong: [{reader, what} | state.wrong]}}

  defp why({:unknown, why}, known), do: Map.update(known, why, 1, &(&1 + 1))
  defp why(_, known), do: known

  defp fates({:unknown, _}, n), do: :binary.copy(@unknown, n)
  defp fates(:undone, n), do: :binary.copy(@undone, n)
  defp fates(:committed, n), do: :binary.copy(@committed, n)
  defp fates(places, _), do: for({p, sequence} <- places, into: <<>>, do: place(p, sequence))

  defp place(p, sequence), do: <<3::4, p::12, sequence::48>>

  # ---- the check ----

  @doc """
  Compares what was said with what is in the tables, which are read by SQL: `{:ok, counts, hashes}`, with the hash of each
  partition's messages, or `{:error, what}`.
  """
  def check(ledger, conn) do
    publishers = publishers(ledger)
    found = Map.new(publishers, fn {id, {tried, _}} -> {id, found(tried)} end)

    with {:ok, hashes} <- read_tables(conn, found) do
      case Enum.flat_map(publishers, fn {id, {_, fates}} -> compare(id, fates, found[id]) end) do
        [] -> {:ok, counts(publishers), hashes}
        wrong -> {:error, wrong}
      end
    end
  end

  # Places by number. One who was killed may have published once more than it could say.
  defp found(tried), do: :atomics.new(tried + LogChecker.most(), [])

  defp read_tables(conn, found) do
    {:ok, %{rows: rows}} =
      Postgres.query(conn, "SELECT DISTINCT partition FROM causeway.log_segments")

    Enum.reduce_while(Enum.concat(rows), {:ok, %{}}, fn p, {:ok, hashes} ->
      case read_partition(conn, p, {0, 0}, found) do
        {:error, _} = error -> {:halt, error}
        at -> {:cont, {:ok, Map.put(hashes, p, at)}}
      end
    end)
  end

  @page """
  SELECT first, last, payloads FROM causeway.log_batches WHERE partition = $1 AND last > $2 ORDER BY last LIMIT 1000
  """

  defp read_partition(conn, p, {n, _} = at, found) do
    %{rows: rows} = Postgres.query!(conn, @page, [p, n], timeout: 60_000)

    case Enum.reduce_while(rows, at, &read_batch(&1, &2, p, found)) do
      {:error, _} = error -> error
      ^at -> at
      at -> read_partition(conn, p, at, found)
    end
  end

  defp read_batch([first, last, payloads], {n, hash}, p, found) do
    if first == n + 1 and last - n == length(payloads),
      do: read_messages(payloads, n, hash, p, found),
      else: {:halt, {:error, {:numbers, p, first, last, length(payloads), :after, n}}}
  end

  defp read_messages([], n, hash, _p, _found), do: {:cont, {n, hash}}

  defp read_messages([stored | payloads], n, hash, p, found) do
    bytes = payload(stored)

    case note(LogChecker.parse(bytes), p, n + 1, found) do
      :ok -> read_messages(payloads, n + 1, LogChecker.hash(hash, bytes), p, found)
      error -> {:halt, {:error, error}}
    end
  end

  defp payload(<<0, bytes::binary>>), do: bytes
  defp payload(<<131, _::binary>> = term), do: :erlang.binary_to_term(term, [:safe])

  defp note({id, i} = message, p, n, found) do
    <<place::64>> = place(p, n)

    cond do
      not is_map_key(found, id) or i > :atomics.info(found[id]).size ->
        {:made_up, message, {p, n}}

      (other = :atomics.exchange(found[id], i, place)) != 0 ->
        {:twice, message, {p, n}, unpack(<<other::64>>)}

      true ->
        :ok
    end
  end

  defp note(nil, p, n, _), do: {:no_message_of_ours, {p, n}}

  defp unpack(<<3::4, p::12, n::48>>), do: {p, n}
  defp unpack(<<0::64>>), do: nil

  # What came of a publisher's messages, against where they are; and what it has published one after the other is in order.
  defp compare(id, fates, found), do: compare(IO.iodata_to_binary([fates]), 1, %{}, id, found, [])

  defp compare(<<fate::binary-8, rest::binary>>, i, lasts, id, found, wrong) do
    at = <<:atomics.get(found, i)::64>>

    case judge(fate, at, lasts) do
      {:wrong, what} -> compare(rest, i + 1, lasts, id, found, [{what, {id, i}} | wrong])
      lasts -> compare(rest, i + 1, lasts, id, found, wrong)
    end
  end

  defp compare(<<>>, _, _, _, _, wrong), do: wrong |> Enum.reverse() |> Enum.take(10)

  defp judge(@unknown, _, lasts), do: lasts
  defp judge(@undone, <<0::64>>, lasts), do: lasts
  defp judge(@undone, at, _), do: {:wrong, {:undone_and_there, unpack(at)}}
  defp judge(@committed, <<0::64>>, _), do: {:wrong, :committed_and_lost}
  defp judge(@committed, _, lasts), do: lasts

  defp judge(place, place, lasts) do
    {p, n} = unpack(place)

    if n > Map.get(lasts, p, 0),
      do: Map.put(lasts, p, n),
      else: {:wrong, {:order, p, n, lasts[p]}}
  end

  defp judge(place, at, _), do: {:wrong, {:lost, unpack(place), :there_is, unpack(at)}}

  defp counts(publishers) do
    for {_, {_, fates}} <- publishers,
        <<kind::4, _::56, last::4 <- IO.iodata_to_binary([fates])>>,
        reduce: %{acknowledged: 0, committed: 0, undone: 0, unknown: 0} do
      counts -> Map.update!(counts, kind(kind, last), &(&1 + 1))
    end
  end

  defp kind(3, _), do: :acknowledged
  defp kind(0, 2), do: :committed
  defp kind(0, 1), do: :undone
  defp kind(0, 0), do: :unknown
end
