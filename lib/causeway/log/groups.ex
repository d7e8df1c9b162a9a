defmodule Causeway.Log.Groups do
  @moduledoc false
  # What groups say to the tables.

  alias Causeway.Log.{Database, Error, Message, Table}
  alias Causeway.Postgres

  # ---- members ----

  @doc "Makes the group, if there is none."
  def ensure(conn, rt, group, from) do
    with {:ok, %{rows: [[false]]}} <-
           Postgres.query(
             conn,
             "SELECT EXISTS (SELECT FROM #{rt.schema}.log_groups WHERE name = $1)",
             [group]
           ),
         {:ok, cursor} <- Table.cursor(rt, from),
         {partitions, positions} = Enum.unzip(cursor),
         {:ok, _} <-
           Postgres.query(conn, "SELECT #{rt.schema}.log_group($1, $2, $3)", [
             group,
             partitions,
             positions
           ]) do
      :ok
    else
      {:ok, _} -> :ok
      error -> error
    end
  end

  @claimed [:partition, :epoch, :acked, :surplus, :paused, :revision]

  @doc "Takes and keeps partitions: what the member has, and the group's state."
  def claim(conn, rt, group, member, lease) do
    sql = "SELECT #{Enum.join(@claimed, ", ")} FROM #{rt.schema}.log_claim($1, $2, $3)"

    case Postgres.query(conn, sql, [group, member, lease], timeout: max(div(lease, 3), 100)) do
      {:ok, %{rows: []}} -> {:error, %Error{reason: {:no_group, group}}}
      {:ok, %{rows: rows}} -> {:ok, for(row <- rows, do: Map.new(Enum.zip(@claimed, row)))}
      error -> error
    end
  end

  @doc "Gives partitions back, or all."
  def release(conn, rt, group, member, partitions) do
    with {:ok, _} <-
           Postgres.query(
             conn,
             "SELECT #{rt.schema}.log_release($1, $2, $3)",
             [group, member, partitions],
             timeout: 2_000
           ),
         do: :ok
  end

  # ---- owners ----

  @doc "All up to a number is done with, and these of the parked ones: whether that counts."
  def ack(conn, rt, group, row, upto, done, []) do
    sql = "SELECT #{rt.schema}.log_ack($1, $2, $3, $4, $5)"
    counts(Postgres.query(conn, sql, [group, row.partition, row.epoch, upto, done]))
  end

  def ack(conn, rt, group, row, upto, done, parked) when is_list(parked) do
    sql =
      "SELECT #{rt.schema}.log_park($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)"

    column = fn name -> Enum.map(parked, &Map.fetch!(&1, name)) end
    header = fn name -> Enum.map(parked, &Map.fetch!(&1.message, name)) end

    params =
      [
        group,
        row.partition,
        row.epoch,
        upto,
        done,
        header.(:sequence),
        header.(:topic),
        header.(:key)
      ] ++
        [
          column.(:payload),
          column.(:metadata),
          header.(:publisher),
          header.(:time),
          column.(:deliveries)
        ] ++
        [column.(:wait), column.(:dead), column.(:error)]

    counts(Postgres.query(conn, sql, params))
  end

  @doc "The same of many `{partition, epoch, upto}`: the partitions for which it counts."
  def acks(conn, rt, group, acks) do
    columns = for n <- 0..2, do: Enum.map(acks, &elem(&1, n))

    with {:ok, %{rows: rows}} <-
           Postgres.query(conn, "SELECT #{rt.schema}.log_acks($1, $2, $3, $4)", [group | columns]),
         do: {:ok, Enum.concat(rows)}
  end

  @doc "The same, if that is what was acknowledged before, and all of these are still parked."
  def ack_once(database, rt, group, row, expected, upto, done) do
    sql = "SELECT #{rt.schema}.log_ack($1, $2, $3, $4, $5, $6)"
    counts(Database.query(database, sql, [group, row.partition, row.epoch, upto, done, expected]))
  end

  @doc "That a repository can acknowledge: it is on the log's database, and sees what is committed there."
  def seen_by(repo, rt, group) do
    sql =
      "SELECT EXISTS (SELECT FROM #{rt.schema}.log_groups WHERE name = $1), current_setting('transaction_isolation')"

    case Database.query(repo, sql, [group]) do
      {:ok, %{rows: [[true, "read committed"]]}} -> :ok
      {:ok, %{rows: [[true, level]]}} -> {:error, %Error{reason: {:isolation, repo, level}}}
      {:ok, _} -> {:error, %Error{reason: {:not_seen, repo, group, nil}}}
      {:error, error} -> {:error, %Error{reason: {:not_seen, repo, group, error}}}
    end
  rescue
    # The repository is not running.
    error -> {:error, %Error{reason: {:not_seen, repo, group, error}}}
  end

  defp counts({:ok, %{rows: [[true]]}}), do: :ok
  defp counts({:ok, %{rows: [[false]]}}), do: :fenced
  defp counts(error), do: error

  @doc "What is parked of a partition and not dead, in order."
  def parked(conn, rt, group, partition) do
    sql = """
    SELECT sequence, topic, key, payload, metadata, publisher, time, deliveries, error,
           greatest(0, (extract(epoch FROM due - clock_timestamp()) * 1000)::int8)
    FROM #{rt.schema}.log_parked WHERE name = $1 AND partition = $2 AND NOT dead ORDER BY sequence
    """

    with {:ok, %{rows: rows}} <- Postgres.query(conn, sql, [group, partition]),
         do: {:ok, for(row <- rows, do: parked_row(row, partition, rt))}
  end

  defp parked_row(
         [sequence, topic, key, payload, metadata, publisher, time, deliveries, error, wait],
         partition,
         rt
       ) do
    fields = %Message{
      partition: partition,
      sequence: sequence,
      topic: topic,
      key: key,
      publisher: publisher,
      time: time
    }

    message = Message.read(fields, payload, metadata, rt)

    %{
      message: message,
      payload: payload,
      metadata: metadata,
      deliveries: deliveries,
      wait: wait,
      dead: false,
      error: error
    }
  end

  # ---- people ----

  @doc "All groups, and how they are."
  def list(rt) do
    sql = """
    SELECT g.name, g.paused, p.partition, p.acked, e.last - least(p.acked, e.last), p.owner,
           #{rt.schema}.log_alive(p.expires),
           (SELECT count(*) FROM #{rt.schema}.log_parked k WHERE k.name = g.name AND k.partition = p.partition AND NOT dead),
           (SELECT count(*) FROM #{rt.schema}.log_parked k WHERE k.name = g.name AND k.partition = p.partition AND dead)
    FROM #{rt.schema}.log_groups g JOIN #{rt.schema}.log_positions p ON p.name = g.name
      JOIN #{rt.schema}.log_ends() e ON e.partition = p.partition
    ORDER BY g.name, p.partition
    """

    with {:ok, %{rows: rows}} <- Postgres.query(Table.control(rt), sql) do
      {:ok,
       for {[group, paused], rows} <- Enum.group_by(rows, &Enum.take(&1, 2)) do
         partitions =
           for [_, _, p, acked, lag, owner, alive, parked, dead] <- rows do
             owner = if alive, do: owner
             %{partition: p, acked: acked, lag: lag, owner: owner, parked: parked, dead: dead}
           end

         sum = fn key -> partitions |> Enum.map(& &1[key]) |> Enum.sum() end
         members = partitions |> Enum.map(& &1.owner) |> Enum.reject(&is_nil/1) |> Enum.uniq()

         %{
           group: group,
           paused: paused,
           lag: sum.(:lag),
           parked: sum.(:parked),
           dead: sum.(:dead),
           members: members,
           partitions: partitions
         }
       end}
    end
  end

  def pause(rt, group, paused?) do
    one(rt, group, "UPDATE #{rt.schema}.log_groups SET paused = $2 WHERE name = $1", [
      group,
      paused?
    ])
  end

  def delete(rt, group, force) do
    sql = "SELECT #{rt.schema}.log_delete_group($1, $2)"

    case Postgres.query(Table.control(rt), sql, [group, force]) do
      {:ok, %{rows: [[nil]]}} -> no_group(group)
      {:ok, %{rows: [[[]]]}} -> :ok
      {:ok, %{rows: [[members]]}} -> {:error, %Error{reason: {:has_members, group, members}}}
      error -> error
    end
  end

  def seek(rt, group, cursor) do
    {partitions, positions} = Enum.unzip(cursor)

    case Postgres.query(Table.control(rt), "SELECT #{rt.schema}.log_seek($1, $2, $3)", [
           group,
           partitions,
           positions
         ]) do
      {:ok, %{rows: [[true]]}} -> :ok
      {:ok, _} -> no_group(group)
      error -> error
    end
  end

  def dead_letters(rt, group, limit) do
    sql = """
    SELECT partition, sequence, topic, key, payload, metadata, publisher, time, deliveries, error
    FROM #{rt.schema}.log_parked WHERE name = $1 AND dead ORDER BY time, partition, sequence LIMIT $2
    """

    with {:ok, %{rows: rows}} <- Postgres.query(Table.control(rt), sql, [group, limit]) do
      {:ok,
       for [partition | row] <- rows do
         parked = parked_row(row ++ [0], partition, rt)
         {%{parked.message | deliveries: parked.deliveries}, parked.error}
       end}
    end
  end

  @doc "Dead letters are to be delivered once more, from the first time on: how many."
  def redrive(rt, group, which) do
    sql = """
    WITH again AS (
      UPDATE #{rt.schema}.log_parked SET dead = false, deliveries = 0, due = clock_timestamp()
      WHERE name = $1 AND dead AND #{which(which)} RETURNING 1),
    seen AS (UPDATE #{rt.schema}.log_groups SET revision = revision + 1 WHERE name = $1)
    SELECT count(*) FROM again
    """

    counted(rt, sql, group, which)
  end

  def discard(rt, group, which) do
    sql = """
    WITH gone AS (DELETE FROM #{rt.schema}.log_parked WHERE name = $1 AND dead AND #{which(which)} RETURNING 1)
    SELECT count(*) FROM gone
    """

    counted(rt, sql, group, which)
  end

  defp which(:all), do: "true"

  defp which(_places),
    do: "(partition, sequence) IN (SELECT * FROM unnest($2::int[], $3::int8[]))"

  defp counted(rt, sql, group, which) do
    params = if which == :all, do: [], else: which |> Enum.unzip() |> Tuple.to_list()

    with {:ok, %{rows: [[n]]}} <- Postgres.query(Table.control(rt), sql, [group | params]),
         do: {:ok, n}
  end

  defp one(rt, group, sql, params) do
    case Postgres.query(Table.control(rt), sql, params) do
      {:ok, %{num_rows: 1}} -> :ok
      {:ok, _} -> no_group(group)
      error -> error
    end
  end

  defp no_group(group), do: {:error, %Error{reason: {:no_group, group}}}
end
