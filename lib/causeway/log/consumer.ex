defmodule Causeway.Log.Consumer do
  @moduledoc """
  Consumer groups: each message of a topic, or a pattern, is handled by one member of the group, on whatever node.

      defmodule Shop.Mailer do
        use Causeway.Log.Consumer

        @impl true
        def handle_messages(messages, _context) do
          Enum.each(messages, &send_mail/1)
        end
      end

      children = [
        {Causeway.Log, name: Events, connection: [...]},
        {Causeway.Log.Consumer, log: Events, group: "mailer", topic: "orders.*.created", handler: Shop.Mailer}
      ]

  The partitions are shared out among the members that are alive; each has one owner at a time. Of a node that dies, the
  others take them when its lease has run out.

  ## What a handler returns

    * `:ok` - all are done with
    * `{:failed, [{message, reason}]}` - all are but these
    * `{:error, reason}`, an exception, an exit, or no end within `:visibility_timeout` - none is

  A message that failed is delivered again after a while, by itself, and meanwhile those with the same key that follow wait
  for it; the others go on. After `:max_deliveries` it is a dead letter: see `Causeway.Log.dead_letters/3` and
  `Causeway.Log.redrive/3`. What was handled but not acknowledged when a node died is handled again: *at least* once.

  ## Exactly once

  With `transactional: true` the handler is called inside a transaction of the log's own database, `context.tx`, a connection
  of `Causeway.Postgres`. What it writes there and the acknowledgement are committed together, and only by the owner
  of the partition:

      def handle_messages(messages, %{tx: tx}) do
        for message <- messages, do: Causeway.Postgres.query!(tx, "INSERT INTO mails VALUES ($1)", [message.payload.id])
        :ok
      end

  When that fails, it is rolled back, and the messages are tried one by one.

  With `transactional: Shop.Repo`, an Ecto repository on the log's own database, with whatever adapter for PostgreSQL, it
  is the repository's transaction, and the handler uses the repository as anywhere:

      def handle_messages(messages, _context) do
        for message <- messages, do: Shop.Repo.insert!(%Shop.Mail{order_id: message.payload.id})
        :ok
      end

  ## Options

  #{Causeway.Log.Options.docs(:consumer)}
  """

  alias Causeway.Log.{Member, Message, Options}

  @typedoc """
  `:log`, `:group` and `:partition`; `:argument`, of the option `:handler`; `:tx`, a connection or a repository with `:transactional`, or nil.
  """
  @type context :: %{
          log: atom,
          group: String.t(),
          partition: non_neg_integer,
          argument: term,
          tx: Causeway.Postgres.conn() | module | nil
        }

  @doc "Some messages of one partition, in order; of a key, none before the last ones are done with."
  @callback handle_messages([Message.t()], context) ::
              :ok | {:failed, [{Message.t(), reason :: term}]} | {:error, reason :: term}

  @doc "Retention has taken messages that the group had not come to: their numbers."
  @callback handle_gap(%{partition: non_neg_integer, from: pos_integer, to: pos_integer}, context) ::
              any

  @optional_callbacks handle_gap: 2

  @doc false
  defmacro __using__(_) do
    quote do
      @behaviour Causeway.Log.Consumer
    end
  end

  @doc "For a supervisor; after the log."
  def child_spec(opts) do
    %{
      id: {__MODULE__, opts[:log], opts[:group], opts[:name]},
      start: {__MODULE__, :start_link, [opts]},
      shutdown: 10_000
    }
  end

  @doc "Starts a member, with the options above."
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(opts), do: opts |> Options.consumer!() |> Member.start_link()
end
