defmodule Mix.Tasks.Causeway.Log do
  @shortdoc "Looks into a Causeway.Log: tail, consumers, replay, dead letters"
  @moduledoc """
  Looks into a log from the command line.

      mix causeway.log info
      mix causeway.log tail "orders.>" --from beginning --count 10
      mix causeway.log consumers
      mix causeway.log dead mailer
      mix causeway.log redrive mailer
      mix causeway.log replay mailer --from "2026-01-31 12:00:00Z"
      mix causeway.log pause mailer
      mix causeway.log resume mailer

  `replay` puts a consumer group elsewhere, and `redrive` has its dead letters delivered again.

  ## Options

    * `--url` - of the database, as libpq takes it. Without it, libpq's own variables (`PGHOST`, `PGDATABASE` ...) say
    * `--schema` - the log's; `causeway` by default
    * `--from` - `now`, `beginning`, or a time; of `tail` `now` by default
    * `--count` - after how many messages `tail` ends; never by default
  """
  use Mix.Task

  alias Causeway.Log

  @switches [url: :string, schema: :string, from: :string, count: :integer]

  @impl true
  def run(args) do
    {opts, words, invalid} = OptionParser.parse(args, strict: @switches)
    for {switch, _} <- invalid, do: Mix.raise("#{switch}: no such option, or not with this value")
    Mix.Task.run("app.config")
    {:ok, _} = Application.ensure_all_started(:causeway)
    log = start!(opts)

    try do
      command(words, log, opts)
    after
      Supervisor.stop(log)
    end
  end

  # Whoever looks makes no tables, and needs no replication slot.
  defp start!(opts) do
    name = __MODULE__
    connection = if url = opts[:url], do: url, else: []
    schema = opts[:schema] || "causeway"

    {:ok, pid} =
      Log.start_link(
        name: name,
        connection: connection,
        schema: schema,
        install: false,
        delivery: :poll,
        writers: 1,
        readers: 1
      )

    Process.unlink(pid)
    name
  end

  defp command(["info"], log, _opts) do
    info = ok!(Log.info(log))
    for p <- info.partitions, do: say("partition #{p.partition}\t#{p.first} to #{p.last}")

    for s <- info.segments,
        do:
          say("segment #{s.segment}\t#{s.messages} messages\t#{s.bytes} bytes\tsince #{s.opened}")
  end

  defp command(["tail" | topic], log, opts) do
    from = from(opts[:from] || "now")
    {ref, _cursor} = ok!(Log.subscribe(log, List.first(topic) || ">", from: from))
    tail(ref, opts[:count] || :infinity)
  end

  defp command(["consumers"], log, _opts) do
    for group <- ok!(Log.consumers(log)) do
      state = if group.paused, do: "paused", else: "#{length(group.members)} members"

      say(
        "#{group.group}\t#{state}\tlag #{group.lag}\tparked #{group.parked}\tdead #{group.dead}"
      )

      for p <- group.partitions,
          do:
            say(
              "  partition #{p.partition}\tacknowledged #{p.acked}\tlag #{p.lag}\t#{p.owner || "nobody's"}"
            )
    end
  end

  defp command(["dead", group], log, _opts) do
    for {message, error} <- ok!(Log.dead_letters(log, group)) do
      say(line(message))
      say("  #{message.deliveries} deliveries: #{error}")
    end
  end

  defp command(["redrive", group], log, _opts),
    do: say("#{ok!(Log.redrive(log, group, :all))} messages")

  defp command(["pause", group], log, _opts), do: ok!(Log.pause(log, group))
  defp command(["resume", group], log, _opts), do: ok!(Log.resume(log, group))

  defp command(["replay", group], log, opts) do
    opts[:from] || Mix.raise("replay needs --from: now, beginning, or a time")
    ok!(Log.seek(log, group, from(opts[:from])))
  end

  defp command(words, _log, _opts) do
    Mix.raise("#{inspect(Enum.join(words, " "))} is no command; see mix help causeway.log")
  end

  defp tail(_ref, left) when is_integer(left) and left <= 0, do: :ok

  defp tail(ref, left) do
    receive do
      {:causeway, ^ref, {:gap, gap}} ->
        say("partition #{gap.partition}: #{gap.from} to #{gap.to} are gone")
        tail(ref, left)

      {:causeway, ^ref, {:rewound, %{partition: p, to: to}}} ->
        say(
          "partition #{p}: after a failover, what came after #{to} is gone; other messages follow"
        )

        tail(ref, left)

      {:causeway, ^ref, messages} ->
        messages = if left == :infinity, do: messages, else: Enum.take(messages, left)
        for message <- messages, do: say(line(message))
        tail(ref, if(left == :infinity, do: left, else: left - length(messages)))
    end
  end

  defp line(message) do
    payload =
      if message.raw,
        do: "(#{byte_size(message.raw)} bytes)",
        else: inspect(message.payload, limit: 50)

    "#{message.time}\t#{message.partition}:#{message.sequence}\t#{message.topic}\t#{payload}"
  end

  defp from("now"), do: :now
  defp from("beginning"), do: :beginning

  defp from(text) do
    case DateTime.from_iso8601(text) do
      {:ok, time, _} ->
        time

      {:error, _} ->
        Mix.raise(
          "--from #{text}: expected now, beginning, or a time such as 2026-01-31T12:00:00Z"
        )
    end
  end

  defp say(line), do: Mix.shell().info(line)

  defp ok!(:ok), do: :ok
  defp ok!({:ok, result}), do: result
  defp ok!({:ok, ref, cursor}), do: {ref, cursor}
  defp ok!({:error, error}), do: Mix.raise(Exception.message(error))
end
