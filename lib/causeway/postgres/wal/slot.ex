defmodule Causeway.Postgres.WAL.Slot do
  @moduledoc false
  # The replication slot: whether it is there and good, or is to be made.

  alias Causeway.Postgres.{Error, LSN, Protocol, WAL}
  alias Causeway.Postgres.WAL.Client

  @typedoc "A slot that was just made. Without a snapshot, `snapshot` is nil."
  @type created :: %{lsn: LSN.t(), snapshot: String.t() | nil}

  # After so long, whoever is interested is told that a slot is still being made: the server waits for the
  # transactions that are open.
  @slow_ms 2_000

  @doc """
  Makes sure of the slot, knowing what became of it before; `slow` is told when its making takes long.
  """
  @spec prepare(Client.t(), WAL.Options.t(), atom, (term -> any)) ::
          {:ok, %{confirmed: LSN.t(), created: created | nil}} | {:error, Exception.t()}
  def prepare(client, options, past, slow) do
    with {:ok, found} <- find(client, options.slot) do
      if found == nil and standby?(client),
        do: error({:standby, options.slot}),
        else: decide(found, client, options, past, slow)
    end
  end

  # It may become the primary and have the slot then, or is only in the way of the one that has it.
  defp standby?(client),
    do: List.keyfind(client.facts[:parameters], "in_hot_standby", 0) == {"in_hot_standby", "on"}

  defp decide(nil, client, %{temporary: true} = options, _past, slow),
    do: create(client, options, slow)

  defp decide(nil, _client, options, :seen, _slow),
    do: lost(options, "it is not there any more")

  defp decide(nil, _client, %{create_slot: false} = options, _past, _slow),
    do: error({:slot_missing, options.slot})

  defp decide(nil, client, options, _past, slow), do: create(client, options, slow)

  defp decide(found, client, options, past, slow) do
    cond do
      kind = another_kind(found) ->
        error({:slot_of_another_kind, options.slot, kind})

      found.active_pid != nil or found.temporary != options.temporary ->
        error({:slot_in_use, options.slot, found.active_pid})

      past in [:lost, :unfinished] ->
        with :ok <- drop(client, options.slot), do: create(client, options, slow)

      found.invalidated ->
        lost(options, found.invalidated)

      true ->
        {:ok, %{confirmed: found.confirmed, created: nil}}
    end
  end

  defp another_kind(%{plugin: nil}), do: "is physical"

  defp another_kind(%{plugin: plugin}) when plugin != "pgoutput",
    do: "is for the output plugin #{plugin}"

  defp another_kind(%{here: false, database: database}), do: "is of database #{database}"
  defp another_kind(_), do: nil

  defp lost(options, why), do: error({:slot_lost, options.slot, why})
  defp error(reason), do: {:error, %WAL.Error{reason: reason}}

  # ---- looking ----

  defp find(client, slot) do
    sql = """
    SELECT plugin, database, database = pg_catalog.current_database(), temporary, active_pid, confirmed_flush_lsn,
           wal_status, #{invalidated(client.facts[:server_version])}
    FROM pg_catalog.pg_replication_slots WHERE slot_name = #{literal(slot)}\
    """

    with {:ok, rows} <- Client.query(client, sql), do: {:ok, parse(rows)}
  end

  # Since 17 the server says why, before that whether.
  defp invalidated(version) when version >= 170_000, do: "invalidation_reason"

  defp invalidated(version) when version >= 160_000,
    do: "CASE WHEN conflicting THEN 'it conflicts with recovery' END"

  defp invalidated(_), do: "NULL"

  defp parse([]), do: nil

  defp parse([[plugin, database, here, temporary, pid, confirmed, wal_status, invalidated]]) do
    %{
      plugin: plugin,
      database: database,
      here: here == "t",
      temporary: temporary == "t",
      active_pid: pid && String.to_integer(pid),
      confirmed: if(confirmed, do: LSN.parse!(confirmed), else: 0),
      invalidated: why(wal_status, invalidated)
    }
  end

  defp why(_, "wal_removed"), do: why("lost", nil)
  defp why(_, "rows_removed"), do: "the server has removed rows of its catalogues that it needs"

  defp why(_, "wal_level_insufficient"),
    do: "the server's wal_level, or its primary's, is no longer logical"

  defp why(_, "idle_timeout"),
    do: "nobody has used it for longer than idle_replication_slot_timeout"

  defp why(_, reason) when reason != nil, do: "the server has invalidated it: #{reason}"

  defp why("lost", _),
    do: "the server has removed what it needs, as it held back more than max_slot_wal_keep_size"

  defp why(_, _), do: nil

  # ---- making and dropping ----

  defp create(client, options, slow) do
    sql =
      "CREATE_REPLICATION_SLOT #{Protocol.quoted(options.slot)}#{if options.temporary, do: " TEMPORARY"} LOGICAL pgoutput " <>
        create_options(client.facts[:server_version], options)

    tell = fn -> slow.(:slot_creation) end

    case Client.query(client, sql, options.slot_timeout, {@slow_ms, tell}) do
      {:ok, [[_name, lsn, snapshot | _]]} ->
        lsn = LSN.parse!(lsn)
        {:ok, %{confirmed: lsn, created: %{lsn: lsn, snapshot: snapshot}}}

      {:error, %Error{reason: :timeout}} ->
        error({:slot_timeout, options.slot, options.slot_timeout})

      # Somebody else's, by now.
      {:error, %Error{postgres: %{code: :duplicate_object}}} ->
        error({:slot_in_use, options.slot, nil})

      {:error, error} ->
        {:error, error}
    end
  end

  defp create_options(version, options) when version >= 150_000 do
    snapshot = if options.snapshot, do: "'export'", else: "'nothing'"
    "(SNAPSHOT #{snapshot}#{if options.failover, do: ", FAILOVER"})"
  end

  defp create_options(_, %{snapshot: true}), do: "EXPORT_SNAPSHOT"
  defp create_options(_, _), do: "NOEXPORT_SNAPSHOT"

  defp drop(client, slot), do: Client.run(client, drop_sql(slot))

  @doc "The statement that drops a slot, on a connection for replication."
  def drop_sql(slot), do: "DROP_REPLICATION_SLOT #{Protocol.quoted(slot)} WAIT"

  # ---- quoting ----

  @doc "A text, quoted."
  def literal(text), do: [?', String.replace(text, "'", "''"), ?'] |> IO.iodata_to_binary()
end
