defmodule Causeway.Postgres.WAL.Setup do
  @moduledoc false
  # All that comes before the stream: a connection, the publication, the slot, and from where to go on. Runs in a
  # process of its own, which gives the port program to the one that wants the stream.

  alias Causeway.Postgres.{LSN, Protocol, WAL}
  alias Causeway.Postgres.WAL.{Client, Publication, Slot, Timeline}

  @typedoc """
  What is known of earlier connections:

    * `acked` - what the handler has confirmed
    * `handed` - what it was given
    * `server` - nil, or which server that was (`t:Causeway.Postgres.WAL.Timeline.t/0`)
    * `slot` - `:unknown`; `:seen`, so that it must still be there; `:unfinished`, made for a snapshot that was not
      taken; `:lost`, and to be made again
    * `streaming` - whether transactions may be streamed before they commit
  """
  @type past :: %{
          acked: LSN.t(),
          handed: LSN.t(),
          server: Timeline.t() | nil,
          slot: :unknown | :seen | :unfinished | :lost,
          streaming: boolean
        }

  @type ready :: %{
          port: port,
          id: pos_integer,
          facts: keyword,
          server: Timeline.t(),
          # How far its log goes
          flushed: LSN.t(),
          # What to begin after, and the statement that does so
          start: LSN.t(),
          sql: String.t(),
          interval: pos_integer,
          # Up to where the handler was given what this server has
          limit: LSN.t(),
          # nil, or the slot that was made, with its snapshot
          created: Slot.created() | nil
        }

  @doc """
  Connects and prepares; `slow` is told of what takes long. The port program then belongs to `owner`.
  """
  @spec run(WAL.Options.t(), Causeway.Postgres.Options.t(), past, pid, (term -> any)) ::
          {:ok, ready} | {:error, Exception.t()}
  def run(options, connection, past, owner, slow) do
    pairs = [{"replication", "database"}]

    with {:ok, client} <- Client.open(connection, pairs, options.silence_timeout) do
      case prepare(client, options, past, slow) do
        {:ok, ready} ->
          {:ok, Map.merge(ready, %{port: Client.give(client, owner), id: client.id + 1})}

        {:error, error} ->
          Client.close(client)
          {:error, error}
      end
    end
  end

  defp prepare(client, options, past, slow) do
    with :ok <- check_version(client, options),
         :ok <- settings(client),
         {:ok, server, flushed} <- Timeline.identify(client),
         {:ok, limit} <- Timeline.common(past.server, server, flushed),
         :ok <- Publication.prepare(client, options),
         {:ok, interval} <- interval(client, options),
         wanted = min(past.acked, limit),
         :ok <- Timeline.check(wanted, flushed),
         # The last, as the next statement would end the snapshot.
         {:ok, slot} <- Slot.prepare(client, options, past.slot, slow) do
      start = max(wanted, slot.confirmed)

      {:ok,
       %{
         facts: client.facts,
         server: server,
         flushed: flushed,
         start: start,
         sql: start(client, options, past, start),
         interval: interval,
         limit: limit,
         created: slot.created
       }}
    end
  end

  # ---- the session ----

  @oldest 140_000

  defp check_version(client, options) do
    version = client.facts[:server_version]

    cond do
      version < @oldest ->
        unsupported("this is PostgreSQL #{major(version)}, and 14 or later is needed")

      options.origin == :none and version < 160_000 ->
        unsupported("origin: :none is for PostgreSQL 16 or later, and this is #{major(version)}")

      options.failover and version < 170_000 ->
        unsupported("failover: true is for PostgreSQL 17 or later, and this is #{major(version)}")

      true ->
        :ok
    end
  end

  defp major(version), do: div(version, 10_000)
  defp unsupported(message), do: {:error, %WAL.Error{reason: {:unsupported, message}}}

  # Whatever the user and the database have set: texts are to be read by programs. A statement is not cut off, and a
  # connection that waits for its handler is not idle.
  defp settings(client) do
    Client.run(
      client,
      "SET client_encoding = 'UTF8'; SET datestyle = 'ISO, YMD'; SET intervalstyle = 'postgres'; " <>
        "SET extra_float_digits = 3; SET bytea_output = 'hex'; SET statement_timeout = 0; SET lock_timeout = 0; " <>
        "SET idle_session_timeout = 0; SET search_path = ''"
    )
  end

  # Twice as often as would do.
  defp interval(client, options) do
    sql = "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'"

    with {:ok, [[ms]]} <- Client.query(client, sql) do
      case String.to_integer(ms) do
        0 -> {:ok, options.status_interval}
        timeout -> {:ok, options.status_interval |> min(div(timeout, 3)) |> max(1)}
      end
    end
  end

  # ---- the statement ----

  defp start(client, options, past, start) do
    version = client.facts[:server_version]

    given =
      [proto_version: proto(version), publication_names: names(options.publication)] ++
        if(options.values == :terms, do: [binary: "true"], else: []) ++
        if(options.messages, do: [messages: "true"], else: []) ++
        if(options.streaming and past.streaming, do: [streaming: "on"], else: []) ++
        if(options.origin == :none, do: [origin: "none"], else: [])

    "START_REPLICATION SLOT #{Protocol.quoted(options.slot)} LOGICAL #{LSN.to_string(start)} (" <>
      Enum.map_join(given, ", ", fn {name, value} -> "#{name} #{Slot.literal(value)}" end) <> ")"
  end

  # 3 and 4 are for two-phase commit and parallel workers, which nobody asks for here; they cost nothing.
  defp proto(version) when version >= 160_000, do: "4"
  defp proto(version) when version >= 150_000, do: "3"
  defp proto(_), do: "2"

  defp names(names), do: Enum.map_join(names, ",", &Protocol.quoted/1)
end
