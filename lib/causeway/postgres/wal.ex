defmodule Causeway.Postgres.WAL do
  @moduledoc """
  Committed transactions of a PostgreSQL database, in the order of their commits, as they happen: logical replication,
  read from the server's write-ahead log and handed to the application.

      children = [
        {Causeway.Postgres.WAL,
         connection: [hostname: "db", username: "shop", password: "...", database: "shop"],
         slot: "search_index",
         publication: "orders",
         create_publication: [tables: ["orders", "customers"]],
         handler: Shop.SearchIndex}
      ]

  A `Causeway.Postgres.WAL.Handler` receives whole transactions, `Causeway.Postgres.WAL.Transaction`, and confirms
  them; nothing else is ever reported to the server. The server keeps all that was not confirmed, so nothing is missed
  and nothing done is repeated, whatever is restarted in between. What nobody reads, it keeps as well: a slot that is
  not needed any more must be dropped, or the server's disk fills up.

  The server needs `wal_level = logical`, PostgreSQL 14 or later. docs/wal.md tells more, and what to watch.

  ## Options

  #{Causeway.Postgres.WAL.Options.docs()}

  ## Events

  What happens to the connection is told to `c:Causeway.Postgres.WAL.Handler.handle_event/2`, in order with the transactions, and
  to telemetry (`Causeway.Postgres.WAL.Events`):

    * `{:connected, about}` - the stream has begun: `:server_version`, `:host`, `:port`, `:database`, `:system_id`, `:timeline`,
      and `:lsn`, what it begins after
    * `{:disconnected, %{error: error, retry_ms: ms}}` - it has ended, or did not begin. A `Causeway.Postgres.WAL.Error` or a
      `Causeway.Postgres.Error` says why. It is tried again after the pause, until it succeeds
    * `{:waiting, :slot_creation}` - the server makes the slot when all transactions that are open now have ended
    * `{:slot_created, %{slot: slot, lsn: lsn, temporary: boolean}}`
    * `{:slot_lost, %{slot: slot, why: why}}` - see `:on_slot_lost`
    * `{:gap, %{from: lsn, to: lsn, why: why}}` - what was committed between the two was not seen, and will not be: the slot
      is another one, as it is temporary (`:temporary_slot`) or was lost (`:new_slot`)
    * `{:rewound, %{from: lsn, to: lsn, timeline: n}}` - the server, now another one, does not have what was handed on after
      `:to`. It was committed once, and is lost there; what comes next continues from `:to`
  """

  alias Causeway.Postgres.LSN
  alias Causeway.Postgres.WAL.{Options, Source, Transaction}

  require LSN

  @type event ::
          {:connected, map}
          | {:disconnected, %{error: Exception.t(), retry_ms: non_neg_integer}}
          | {:waiting, :slot_creation}
          | {:slot_created, %{slot: String.t(), lsn: LSN.t(), temporary: boolean}}
          | {:slot_lost, %{slot: String.t(), why: String.t()}}
          | {:gap, %{from: LSN.t(), to: LSN.t(), why: :temporary_slot | :new_slot}}
          | {:rewound, %{from: LSN.t(), to: LSN.t(), timeline: pos_integer}}

  @typedoc """
  What `info/1` tells. Positions are `t:Causeway.Postgres.LSN.t/0`.

    * `:status` - `:streaming`; or `:connecting`, `{:waiting, :slot_creation}`, `:snapshot`, `:starting`, `:draining`, `:waiting`
      for the next attempt
    * `:error` - why there is no stream, nil while there is one
    * `:connects` - how often the stream has begun
    * `:os_pid` - of the port program, nil while there is none
    * `:server_lsn` - how far the server has read its log for this consumer, or, if that is further, how far the log went
      when it connected
    * `:handed_lsn`, `:acked_lsn`, `:confirmed_lsn` - where the last transaction ends that the handler was given, that it has
      confirmed; what the server was told, which for an idle database is further
    * `:lag_bytes` - from `:confirmed_lsn` to `:server_lsn`
    * `:lag_ms` - how old the last transaction is that the handler was given, while there are more; 0 when there are none
    * `:in_flight_bytes` - on their way to the handler
    * `:streamed_transactions`, `:spool_bytes`, `:spilled_bytes` - that are kept until they commit, and the memory and files
      they take
    * `:transactions`, `:changes`, `:bytes` - handled since the start; `:transactions_per_second`, `:bytes_per_second` lately
  """
  @type info :: %{atom => term}

  # Milliseconds; the handler may need some of it to end.
  @shutdown 10_000

  @doc false
  def shutdown, do: @shutdown

  @doc """
  For a supervisor. A consumer that has lost its slot ends in order and is not started again, with `restart: :transient`,
  the default; of several, each needs an `:id` or a `:name` of its own.
  """
  def child_spec(opts) do
    {id, opts} = Keyword.pop(opts, :id, opts[:name] || __MODULE__)

    %{
      id: id,
      # Options may have a password in them, which a supervisor would show.
      start: {__MODULE__, :start_link, [fn -> opts end]},
      restart: :transient,
      shutdown: @shutdown
    }
  end

  @doc """
  Starts a consumer, with the options above. It returns before there is a connection, and goes on trying to have one.
  """
  @spec start_link(keyword | (... -> keyword)) :: GenServer.on_start()
  def start_link(opts) when is_function(opts, 0), do: start_link(opts.())
  def start_link(opts), do: opts |> Options.new!() |> Source.start_link()

  @doc """
  Confirms all transactions up to and with this one, or up to a position: the `:end_lsn` of one that the handler was given.
  What it was not given cannot be confirmed; of parts, the last one confirms the transaction.

  The server is told within a moment, and then does not send them again.
  """
  @spec ack(GenServer.server(), Transaction.t() | LSN.t()) :: :ok
  def ack(wal, %Transaction{end_lsn: lsn}) when lsn != nil, do: ack(wal, lsn)
  def ack(_wal, %Transaction{}), do: :ok
  def ack(wal, lsn) when LSN.is_lsn(lsn), do: GenServer.cast(wal, {:ack, lsn})

  @doc """
  How the consumer is doing; a slow handler does not delay the answer.
  """
  @spec info(GenServer.server()) :: info
  def info(wal), do: GenServer.call(wal, :info)

  @doc """
  Ends the consumer, after what its handler is doing now. The slot stays.
  """
  @spec stop(GenServer.server()) :: :ok
  def stop(wal), do: GenServer.stop(wal, :normal, @shutdown)
end
