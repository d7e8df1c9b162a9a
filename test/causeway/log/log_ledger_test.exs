defmodule Causeway.LogLedgerTest do
  # What checks the log is checked: it finds each thing that must not be.
  use Causeway.LogCase, async: true
  alias Causeway.{LogChecker, LogLedger}

  setup :database

  setup context do
    log = start_log!(context, partitions: 1)
    {:ok, conn} = Postgres.start_link(context.options)
    {:ok, log: log, conn: conn}
  end

  defp publish!(log, messages) do
    messages = for {id, i} <- messages, do: {"t", LogChecker.payload(id, i), [format: :binary]}
    {:ok, places} = Log.publish_many(log, messages)
    places
  end

  # A ledger of its own, which was told this.
  defp check(context, told) do
    {:ok, ledger} = GenServer.start_link(LogLedger, nil)
    for what <- told, do: send(ledger, what)
    LogLedger.check(ledger, context.conn)
  end

  test "what was said and is so", context do
    [a, b] = publish!(context.log, [{1, 1}, {1, 2}])
    publish!(context.log, [{2, 1}, {1, 4}])

    told = [
      {:tries, 1, 2},
      {:came, 1, 1, 2, [a, b]},
      {:tries, 1, 3},
      {:came, 1, 3, 3, :undone},
      {:tries, 1, 5},
      {:came, 1, 4, 5, {:unknown, "why"}},
      {:tries, 2, 1},
      {:came, 2, 1, 1, :committed}
    ]

    assert {:ok, counts, %{0 => {4, hash}}} = check(context, told)
    assert counts == %{acknowledged: 2, committed: 1, undone: 1, unknown: 2}

    all = for {id, i} <- [{1, 1}, {1, 2}, {2, 1}, {1, 4}], do: LogChecker.payload(id, i)
    assert hash == Enum.reduce(all, 0, &LogChecker.hash(&2, &1))
  end

  test "what was acknowledged and is elsewhere, or nowhere", context do
    [a, b] = publish!(context.log, [{1, 1}, {1, 2}])
    tries = {:tries, 1, 3}

    assert {:error, [{{:lost, ^b, :there_is, ^a}, {1, 1}}, _]} =
             check(context, [tries, {:came, 1, 1, 2, [b, a]}])

    gone = {0, 3}

    assert {:error, [{{:lost, ^gone, :there_is, nil}, {1, 3}}]} =
             check(context, [tries, {:came, 1, 1, 3, [a, b, gone]}])

    assert {:error, [{:committed_and_lost, {1, 3}}]} =
             check(context, [tries, {:came, 1, 1, 3, :committed}])
  end

  test "what was rolled back and is there", context do
    publish!(context.log, [{1, 1}])
    told = [{:tries, 1, 1}, {:came, 1, 1, 1, :undone}]
    assert {:error, [{{:undone_and_there, {0, 1}}, {1, 1}}]} = check(context, told)
  end

  test "what is there twice, in another order, or from nobody", context do
    [b, a] = publish!(context.log, [{1, 2}, {1, 1}])
    told = [{:tries, 1, 2}, {:came, 1, 1, 2, [a, b]}]
    assert {:error, [{{:order, 0, 1, 2}, {1, 2}}]} = check(context, told)
    publish!(context.log, [{1, 1}])
    assert {:error, {:twice, {1, 1}, {0, 3}, {0, 2}}} = check(context, told)
  end

  test "what nobody has published", context do
    publish!(context.log, [{1, 1}])
    assert {:error, {:made_up, {1, 1}, {0, 1}}} = check(context, [{:tries, 2, 1}])
    {:ok, _} = Log.publish(context.log, "t", "something", format: :binary)
    assert {:error, {:no_message_of_ours, {0, 2}}} = check(context, [{:tries, 1, 1}])
  end
end
