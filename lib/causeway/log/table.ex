defmodule Causeway.Log.Table do
  @moduledoc false
  # What is read from the tables.

  alias Causeway.Log.{Error, Runtime}
  alias Causeway.Postgres

  # Rows of a page are chosen so that it has about as many bytes.
  @page_bytes 1_048_576
  @most_rows 512

  @doc "The connection that asks how things are."
  def control(rt), do: Runtime.process(rt, :Control)

  # Each reader has its connection, as long as it lives.
  defp reader(rt), do: Runtime.process(rt, :Read, :erlang.phash2(self(), rt.opts.readers))

  @doc "Of each partition: `{partition, first, last}`."
  def ends(rt) do
    with {:ok, %{rows: rows}} <-
           Postgres.query(control(rt), "SELECT * FROM #{rt.schema}.log_ends()"),
         do: {:ok, Enum.map(rows, &List.to_tuple/1)}
  end

  @doc """
  The same, the timeline of that server's log, and the last batch of each partition, `{partition, first, last, time}`:
  `{:ok, timeline, ends, batches}`.
  """
  def timeline(rt) do
    sql = """
    SELECT #{rt.schema}.log_timeline(), e.partition, e.first, e.last, b.first, b.time
    FROM #{rt.schema}.log_ends() e LEFT JOIN LATERAL (
      SELECT b.first, b.time FROM #{rt.schema}.log_batches b WHERE b.partition = e.partition AND b.last = e.last
        AND b.segment = (SELECT max(s.segment) FROM #{rt.schema}.log_segments s
                         WHERE s.partition = e.partition AND s.first <= e.last) LIMIT 1) b ON true
    """

    with {:ok, %{rows: [[timeline | _] | _] = rows}} <- Postgres.query(control(rt), sql) do
      batches = for [_, p, _, last, from, time] <- rows, time != nil, do: {p, from, last, time}
      {:ok, timeline, for([_, p, first, last, _, _] <- rows, do: {p, first, last}), batches}
    end
  end

  @segment [:segment, :bytes, :opened, :closed, :messages]

  @doc "The segments, oldest first."
  def segments(rt) do
    sql = "SELECT #{Enum.join(@segment, ", ")} FROM #{rt.schema}.log_sizes()"

    with {:ok, %{rows: rows}} <- Postgres.query(control(rt), sql),
         do: {:ok, for(row <- rows, do: Map.new(Enum.zip(@segment, row)))}
  end

  @doc "Numbers what transactions with snapshots of their own have published."
  def drain(rt) do
    with {:ok, _} <- Postgres.query(control(rt), "SELECT #{rt.schema}.log_drain()"), do: :ok
  end

  @doc "What comes before all that is to be read."
  def cursor(rt, :now) do
    with {:ok, ends} <- ends(rt), do: {:ok, Map.new(ends, fn {p, _, last} -> {p, last} end)}
  end

  def cursor(rt, :beginning) do
    with {:ok, ends} <- ends(rt),
         do: {:ok, Map.new(ends, fn {p, first, _} -> {p, first - 1} end)}
  end

  def cursor(rt, %DateTime{} = time), do: before(rt, time)

  # Of partitions that it does not have, all is new.
  def cursor(rt, %{} = cursor) do
    case Enum.find(cursor, fn {p, _} -> p >= rt.partitions end) do
      nil ->
        {:ok, Map.new(0..(rt.partitions - 1), &{&1, Map.get(cursor, &1, 0)})}

      {p, _} ->
        {:error,
         %Error{
           reason: {:bad_option, :from, "the log has no partition #{p}, only #{rt.partitions}"}
         }}
    end
  end

  defp before(rt, %DateTime{} = time) do
    sql =
      "SELECT p, #{rt.schema}.log_before(p, $1) FROM generate_series(0, #{rt.partitions - 1}) p"

    with {:ok, %{rows: rows}} <- Postgres.query(reader(rt), sql, [time]),
         do: {:ok, Map.new(rows, &List.to_tuple/1)}
  end

  @doc """
  Batches of a partition with what comes after a number, in order; `{:ok, batches, rows}`, with how many rows to ask for the
  next time.
  """
  def page(rt, partition, after_sequence, rows) do
    sql = """
    SELECT partition, first, last, time, publisher, topics, payloads, keys, metadata FROM #{rt.schema}.log_batches
    WHERE partition = $1 AND last > $2
      AND segment >= (SELECT coalesce(max(segment), 0) FROM #{rt.schema}.log_segments WHERE partition = $1 AND first <= $2 + 1)
    ORDER BY last LIMIT $3
    """

    with {:ok, %{rows: found}} <-
           Postgres.query(reader(rt), sql, [partition, after_sequence, rows]) do
      {:ok, Enum.map(found, &List.to_tuple/1), next_rows(found, rows)}
    end
  end

  @doc "Which of some batches, `{partition, first, last, time}`, are not there."
  def missing(rt, marks) do
    sql = """
    SELECT m.n FROM unnest($1::int[], $2::int8[], $3::timestamptz[]) WITH ORDINALITY m (partition, last, time, n)
    WHERE NOT EXISTS (SELECT FROM #{rt.schema}.log_batches b
                      WHERE b.partition = m.partition AND b.last = m.last AND b.time = m.time)
    """

    columns = for n <- [0, 2, 3], do: Enum.map(marks, &elem(&1, n))

    with {:ok, %{rows: rows}} <- Postgres.query(control(rt), sql, columns) do
      marks = List.to_tuple(marks)
      {:ok, for([n] <- rows, do: elem(marks, n - 1))}
    end
  end

  @doc "How many rows to ask for at first."
  def first_rows, do: 16

  defp next_rows([], rows), do: rows

  defp next_rows(found, rows) do
    bytes = found |> Enum.map(&row_bytes/1) |> Enum.sum()
    fit = div(@page_bytes * length(found), max(bytes, 1))
    fit |> min(2 * rows) |> min(@most_rows) |> max(1)
  end

  defp row_bytes([_, _, _, _, _, _, payloads, _, _]),
    do: Enum.reduce(payloads, 0, fn payload, sum -> sum + byte_size(payload) + 64 end)
end
