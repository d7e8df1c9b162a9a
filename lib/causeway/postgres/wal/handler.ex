defmodule Causeway.Postgres.WAL.Handler do
  @moduledoc """
  What receives the transactions of a `Causeway.Postgres.WAL`.

      defmodule Shop.Projector do
        use Causeway.Postgres.WAL.Handler

        def handle_transaction(transaction, state) do
          for %{op: :insert, relation: %{table: "orders"}, new: order} <- transaction.changes do
            Shop.Search.index(order["id"], order)
          end

          {:ack, state}
        end
      end

  All callbacks run in one process, one after another; while one of them runs, the server is kept content, and no more
  is read than fits the buffer. A handler that crashes takes the consumer with it, whose supervisor starts it again;
  it goes on after the last transaction that was confirmed. `use` defines all callbacks but `handle_transaction/2`.

  Crash reports of it show neither its state and argument nor the transaction; but an exception of the handler's own is
  logged with what it says.

  ## What is confirmed

    * `{:ack, state}` - this transaction and all before it are done. The server forgets about them. For a part that is
      not the last one of its transaction, it means no more than `:noack`
    * `{:noack, state}` - not yet: `Causeway.Postgres.WAL.ack/2` will tell, from any process, or a later `:ack`
    * `{:ack, lsn, state}` - all up to the `:end_lsn` of an earlier transaction is done
    * `{:stop, reason, state}` - ends the consumer, with this transaction not confirmed

  A transaction that was not confirmed comes again after a crash of the handler or of the VM; while the handler lives,
  it is given no transaction twice. To do each exactly once, whatever happens, keep its `:end_lsn` in the same place
  as what was made of it, in the same transaction there, and return it from `c:init/1`.
  """

  alias Causeway.Postgres.{LSN, WAL}

  @type state :: term

  @type result ::
          {:ack, state}
          | {:noack, state}
          | {:ack, LSN.t(), state}
          | {:stop, reason :: term, state}

  @doc """
  Makes the handler's state of the argument in `handler: {module, argument}`.

  With a position, what ends at or before it is not given to the handler again: the `:end_lsn` of the last transaction
  that it has done. It may be behind what the server was told, as idle databases advance the slot.
  """
  @callback init(argument :: term) ::
              {:ok, state} | {:ok, state, LSN.t()} | {:stop, reason :: term}

  @doc "A committed transaction, or a part of a large one."
  @callback handle_transaction(WAL.Transaction.t(), state) :: result

  @doc """
  A logical message that belongs to no transaction. They come with `messages: true` only, and are confirmed like
  transactions.
  """
  @callback handle_message(WAL.Message.t(), state) :: result

  @doc """
  With `snapshot: true`: the slot was made, and this is what the tables held at that moment. All that was committed
  later comes as transactions, once this has returned.

      Repo.transaction(fn ->
        Repo.query!("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        Repo.query!("SET TRANSACTION SNAPSHOT '\#{snapshot.name}'")
        ...
      end)

  When it fails, the slot is dropped again.
  """
  @callback handle_snapshot(%{name: String.t(), lsn: LSN.t()}, state) ::
              {:ok, state} | {:stop, reason :: term, state}

  @doc """
  Something has happened to the connection, between two transactions: see "Events" in `Causeway.Postgres.WAL`.
  """
  @callback handle_event(WAL.event(), state) :: {:ok, state} | {:stop, reason :: term, state}

  @doc "Any other message to the process, as of `GenServer`."
  @callback handle_info(message :: term, state) ::
              {:ok, state} | {:ack, LSN.t(), state} | {:stop, reason :: term, state}

  @doc "The consumer ends. Called as `c:GenServer.terminate/2` is."
  @callback terminate(reason :: term, state) :: term

  @doc false
  defmacro __using__(_) do
    quote location: :keep do
      @behaviour Causeway.Postgres.WAL.Handler

      @impl true
      def init(argument), do: {:ok, argument}

      @impl true
      def handle_message(_message, state), do: {:ack, state}

      @impl true
      def handle_snapshot(_snapshot, state), do: {:ok, state}

      @impl true
      def handle_event(_event, state), do: {:ok, state}

      @impl true
      def handle_info(_message, state), do: {:ok, state}

      @impl true
      def terminate(_reason, _state), do: :ok

      defoverridable init: 1,
                     handle_message: 2,
                     handle_snapshot: 2,
                     handle_event: 2,
                     handle_info: 2,
                     terminate: 2
    end
  end
end
