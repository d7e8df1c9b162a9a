defmodule Causeway.LogCase do
  @moduledoc false
  # Tests of logs: a database on the shared cluster, and logs that end with the test.
  use ExUnit.CaseTemplate

  alias Causeway.{Log, PostgresServer}

  using do
    quote do
      import Causeway.Eventually
      import Causeway.LogCase
      alias Causeway.{Log, Postgres, PostgresServer}
      alias Causeway.Log.{Error, Message}

      @moduletag :postgres
    end
  end

  @doc "For `setup`: a database of the test's own."
  def database(_context \\ %{}) do
    options = PostgresServer.database!()
    {:ok, server: PostgresServer.shared(), options: options, database: options[:database]}
  end

  @doc "Starts a log, of a name of its own, and waits until it streams."
  def start_log!(context, opts \\ []) do
    name = :"log#{System.unique_integer([:positive])}"
    opts = Keyword.merge([name: name, connection: context.options], opts)
    ExUnit.Callbacks.start_supervised!({Log, opts})
    wanted = if opts[:delivery] == :poll, do: :connecting, else: :streaming

    Causeway.Eventually.eventually(fn ->
      match?(%Log.Runtime{}, Log.Runtime.fetch(opts[:name])) and
        Log.Runtime.get(Log.Runtime.fetch!(opts[:name]), :stream) == wanted
    end)

    opts[:name]
  end

  def sql!(context, sql),
    do: String.trim(PostgresServer.psql!(context.server, sql, context.database))

  @doc "So many messages of a subscription, in the order in which they came."
  def receive_messages(ref, count, ms \\ 10_000), do: collect(ref, count, ms, [])

  defp collect(_ref, left, _ms, lists) when left <= 0,
    do: lists |> Enum.reverse() |> Enum.concat()

  defp collect(ref, left, ms, lists) do
    receive do
      {:causeway, ^ref, list} when is_list(list) ->
        collect(ref, left - length(list), ms, [list | lists])

      {:causeway, ^ref, other} ->
        raise ExUnit.AssertionError, message: "unexpected: #{inspect(other)}"
    after
      ms ->
        raise ExUnit.AssertionError,
          message: "#{left} messages are missing, after #{inspect(lists, limit: 20)}"
    end
  end

  @doc "That nothing comes of a subscription."
  def nothing(ref, ms \\ 200) do
    receive do
      {:causeway, ^ref, what} ->
        raise ExUnit.AssertionError, message: "unexpected: #{inspect(what)}"
    after
      ms -> :ok
    end
  end

  @doc "Whether each partition's messages have their numbers one after the other, from those of a cursor on."
  def assert_gapless!(messages, cursor) do
    Enum.reduce(messages, cursor, fn message, cursor ->
      wanted = cursor[message.partition] + 1

      if message.sequence != wanted,
        do:
          raise(ExUnit.AssertionError,
            message:
              "expected #{wanted} of partition #{message.partition}, got #{inspect(message)}"
          )

      %{cursor | message.partition => wanted}
    end)
  end
end
