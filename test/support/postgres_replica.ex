defmodule Causeway.PostgresReplica do
  @moduledoc false
  # The oracle of the tests of faults: a handler that copies the tables of Causeway.PostgresLoad from the write-ahead log, and
  # checks each transaction. The copy is in an ETS table, as in a database beside the position that it has got to, and lives
  # on when the consumer is killed.
  #
  #     new/1         the copy; `trust: true`: the position is not given to the consumer, and what comes again is counted
  #     contents/1    what it holds, to be compared with PostgresLoad.tables/2
  #     problems/1    what was wrong with what came
  use Causeway.Postgres.WAL.Handler

  @counts %{transactions: 0, repeated: 0, parts: 0, events: []}

  def new(opts \\ []) do
    copy = :ets.new(__MODULE__, [:public])

    :ets.insert(copy,
      lsn: 0,
      counts: @counts,
      problems: [],
      trust: opts[:trust] || false
    )

    for client <- 0..3, do: :ets.insert(copy, {{:total, client}, {0, 0}})
    copy
  end

  def contents(copy) do
    rows = :ets.tab2list(copy)

    %{
      events: for({{:event, id}, row} when row != :deleted <- rows, into: %{}, do: {id, row}),
      totals: for({{:total, client}, total} <- rows, into: %{}, do: {client, total})
    }
  end

  @doc "The handler's process."
  def handler(copy), do: get(copy, :handler)

  def lsn(copy), do: get(copy, :lsn)
  def problems(copy), do: get(copy, :problems)
  def counts(copy), do: get(copy, :counts)

  defp get(copy, key), do: :ets.lookup_element(copy, key, 2)
  defp put(copy, key, value), do: :ets.insert(copy, {key, value})

  defp count(copy, key, by) do
    put(copy, :counts, Map.update!(get(copy, :counts), key, by))
  end

  defp wrong(copy, what), do: put(copy, :problems, [what | get(copy, :problems)])

  # ---- the handler ----

  @impl true
  def init(copy) do
    put(copy, :handler, self())
    if get(copy, :trust), do: {:ok, copy}, else: {:ok, copy, get(copy, :lsn)}
  end

  @impl true
  def handle_event(event, copy) do
    count(copy, :events, &[event | &1])
    {:ok, copy}
  end

  # Parts are kept until the last one: a loss of the connection begins the transaction again.
  @impl true
  def handle_transaction(%{part: part} = transaction, copy) when part != nil do
    count(copy, :parts, &(&1 + 1))
    earlier = if part == 1, do: [], else: get(copy, :parts)
    if part != length(earlier) + 1, do: wrong(copy, {:part, part, :after, length(earlier)})
    parts = [transaction.changes | earlier]
    put(copy, :parts, parts)

    if transaction.last,
      do: whole(%{transaction | changes: parts |> Enum.reverse() |> Enum.concat()}, copy),
      else: {:noack, copy}
  end

  def handle_transaction(transaction, copy), do: whole(transaction, copy)

  defp whole(%{end_lsn: lsn} = transaction, copy) do
    cond do
      lsn > get(copy, :lsn) ->
        check(transaction, copy)
        count(copy, :transactions, &(&1 + 1))
        # At once, whatever happens to this process.
        :ets.insert(copy, [{:lsn, lsn} | Enum.flat_map(transaction.changes, &rows(&1, copy))])

      get(copy, :trust) ->
        count(copy, :repeated, &(&1 + 1))

      true ->
        wrong(copy, {:repeated, transaction.xid, lsn})
    end

    confirm(lsn, copy)
  end

  # Not each at once: a restart has something to repeat. But soon: a server that is told to stop waits for it.
  defp confirm(lsn, copy) do
    if :rand.uniform(20) == 1 do
      {:ack, copy}
    else
      Process.send_after(self(), {:confirm, lsn}, 100)
      {:noack, copy}
    end
  end

  @impl true
  def handle_info({:confirm, lsn}, copy), do: {:ack, lsn, copy}

  # What one transaction of the load is: rows of one client, with its own number in them, as many as the client's total
  # grows by.
  defp check(%{changes: changes} = transaction, copy) do
    inserts = for %{op: :insert, relation: %{table: "events"}, new: row} <- changes, do: row
    updates = for %{op: :update, relation: %{table: "totals"}, new: row} <- changes, do: row

    with [%{"client" => client, "rows" => rows, "transactions" => n}] <- updates,
         {rows_before, n_before} = get(copy, {:total, client}),
         true <- rows == rows_before + length(inserts) and n == n_before + 1,
         true <- Enum.all?(inserts, &(&1["client"] == client)),
         true <- Enum.all?(inserts, &(number(&1["xid"]) == transaction.xid)) do
      :ok
    else
      _ -> wrong(copy, {:not_whole, transaction})
    end
  end

  # The server's numbers have 64 bits in SQL, and 32 in the log.
  defp number(xid), do: xid |> String.to_integer() |> rem(0x1_0000_0000)

  defp rows(%{op: :insert, relation: %{table: "events"}, new: row} = change, copy) do
    if :ets.member(copy, {:event, row["id"]}), do: wrong(copy, {:inserted_twice, change})
    [{{:event, row["id"]}, {row["client"], row["k"], number(row["xid"])}}]
  end

  defp rows(%{op: :delete, relation: %{table: "events"}, key: %{"id" => id}} = change, copy) do
    unless match?([{_, {_, _, _}}], :ets.lookup(copy, {:event, id})),
      do: wrong(copy, {:deleted_unseen, change})

    [{{:event, id}, :deleted}]
  end

  defp rows(%{op: :update, relation: %{table: "totals"}, new: row}, _copy),
    do: [{{:total, row["client"]}, {row["rows"], row["transactions"]}}]

  defp rows(change, copy) do
    wrong(copy, {:unexpected, change})
    []
  end
end
