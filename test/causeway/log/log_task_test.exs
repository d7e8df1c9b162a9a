defmodule Causeway.LogTaskTest do
  use Causeway.LogCase, async: false

  defmodule Failing do
    use Log.Consumer
    @impl true
    def handle_messages(_, _), do: {:error, "not today"}
  end

  setup do
    shell = Mix.shell()
    Mix.shell(Mix.Shell.Process)
    on_exit(fn -> Mix.shell(shell) end)
    database()
  end

  # As from the command line: a log of its own, which ends with it.
  defp run(context, args) do
    url = "host=127.0.0.1 port=#{context.options[:port]} user=postgres dbname=#{context.database}"

    # Its shell tells the one that has started it.
    with :ok <- fn -> look(args ++ ["--url", url]) end |> Task.async() |> Task.await(30_000),
         do: lines([])
  end

  defp look(args) do
    Mix.Tasks.Causeway.Log.run(args)
    :ok
  rescue
    error in Mix.Error -> {:raised, error.message}
  end

  defp lines(lines) do
    receive do: ({:mix_shell, :info, [line]} -> lines([line | lines])),
            after: (0 -> Enum.reverse(lines))
  end

  test "tail, info, consumers, dead letters", context do
    log = start_log!(context, partitions: 2)
    {:ok, _} = Log.publish_many(log, for(i <- 1..5, do: {"orders.#{i}", {:order, i}}))
    lines = run(context, ["tail", "orders.>", "--from", "beginning", "--count", "3"])
    assert length(lines) == 3
    assert Enum.all?(lines, &(&1 =~ "{:order, "))
    assert [_, _, "segment 1\t5 messages" <> _] = run(context, ["info"])

    start_supervised!(
      {Log.Consumer,
       log: log,
       group: "mailer",
       handler: Failing,
       from: :beginning,
       max_deliveries: 1,
       lease: 600}
    )

    eventually(fn -> match?({:ok, [%{dead: 5}]}, Log.consumers(log)) end)
    assert ["mailer\t1 members\tlag 0\tparked 0\tdead 5" | _] = run(context, ["consumers"])
    assert [_, "  1 deliveries: not today" | _] = run(context, ["dead", "mailer"])
    assert ["5 messages"] = run(context, ["redrive", "mailer"])
    assert [] = run(context, ["pause", "mailer"])
    assert {:ok, [%{paused: true}]} = Log.consumers(log)
    assert [] = run(context, ["resume", "mailer"])
    assert [] = run(context, ["replay", "mailer", "--from", "beginning"])
  end

  test "what cannot be", context do
    start_log!(context)

    for args <- [
          ["dance"],
          ["replay", "mailer"],
          ["pause", "nobody"],
          ["tail", "--from", "yesterday"],
          ["info", "--what"]
        ] do
      assert {:raised, message} = run(context, args)
      assert is_binary(message)
    end
  end
end
