defmodule Causeway.LogChecker do
  @moduledoc false
  # What the nodes of a test of faults do: publish, and remember what came of it; read, and remember all. What was published
  # is told to `{:collector, node}`:
  #
  #     {:tried, payload}          before
  #     {:acked, payload, place}   it was committed, and where
  #     {:committed, payload}      with a transaction, and so was this
  #     {:rolled_back, payload}
  #     {:unknown, payload}
  #
  # A payload is `{node, publisher, number}`, the node as a text, as others need not know the atom; each is published once,
  # whatever comes of it.

  alias Causeway.{Log, Postgres}

  @doc "Starts a log, a reader of all and publishers, which go on when the caller has ended."
  def start(options, collector, publishers) do
    {_, ref} =
      spawn_monitor(fn ->
        Process.flag(:trap_exit, true)
        {:ok, log} = Log.start_link(name: Checked, connection: options, recent_bytes: 50_000)
        Process.unlink(log)
        spawn(fn -> read() end)
        for n <- 1..publishers, do: spawn(fn -> publish(options, collector, n) end)
        exit(:started)
      end)

    receive do: ({:DOWN, ^ref, _, _, :started} -> :ok)
  end

  # ---- reading ----

  defp read do
    Process.register(self(), :checked_reader)
    {ref, cursor} = subscribe()
    keep(ref, cursor, [])
  end

  defp subscribe do
    case Log.subscribe(Checked, ">", from: :beginning) do
      {:ok, ref, cursor} ->
        {ref, cursor}

      {:error, _} ->
        Process.sleep(50)
        subscribe()
    end
  end

  defp keep(ref, cursor, seen) do
    receive do
      {:causeway, ^ref, messages} when is_list(messages) ->
        now = System.monotonic_time()
        cursor = Enum.reduce(messages, cursor, &next!/2)

        keep(
          ref,
          cursor,
          Enum.reduce(messages, seen, &[{{&1.partition, &1.sequence}, &1.payload, now} | &2])
        )

      {:count, pid} ->
        send(pid, {:count, length(seen)})
        keep(ref, cursor, seen)

      {:all, pid} ->
        send(pid, {:all, Enum.reverse(seen)})
        keep(ref, cursor, seen)
    end
  end

  # The numbers of a partition, one after the other; else the reader ends, and its test fails.
  defp next!(%{partition: p, sequence: n}, cursor) do
    ^n = cursor[p] + 1
    %{cursor | p => n}
  end

  @doc "How many messages have been read; all of them, `{place, payload, time}`."
  def count, do: ask(:count)
  def all, do: ask(:all)

  defp ask(what) do
    send(:checked_reader, {what, self()})
    receive do: ({^what, result} -> result), after: (10_000 -> :no_reader)
  end

  # ---- publishing ----

  @doc "Ends the publishers, each after what it is doing."
  def stop, do: :persistent_term.put(__MODULE__, :stop)

  defp publish(options, collector, n) do
    Process.flag(:trap_exit, true)
    :rand.seed(:exsss, {n, :erlang.phash2(node()), System.unique_integer()})
    {:ok, conn} = Postgres.start_link(options)
    publish(collector, conn, n, 1)
  end

  defp publish(collector, conn, n, i) do
    if :persistent_term.get(__MODULE__, nil) == :stop do
      tell(collector, {:ended, node(), n})
    else
      payload = {Atom.to_string(node()), n, i}
      tell(collector, {:tried, payload})
      way = if :rand.uniform(3) == 1, do: :transaction, else: :direct
      tell(collector, once(way, conn, "t.#{n}.#{rem(i, 5)}", payload))
      publish(collector, conn, n, i + 1)
    end
  end

  defp tell(collector, what), do: send({:collector, collector}, what)

  defp once(:direct, _conn, topic, payload) do
    case Log.publish(Checked, topic, payload) do
      {:ok, place} ->
        {:acked, payload, place}

      {:error, %{reason: {:server, %{reason: :not_connected}}}} ->
        Process.sleep(20) && {:rolled_back, payload}

      {:error, _} ->
        Process.sleep(20) && {:unknown, payload}
    end
  end

  defp once(:transaction, conn, topic, payload) do
    fate = :rand.uniform(3)

    result =
      Postgres.transaction(conn, fn tx ->
        with {:error, error} <- Log.publish(Checked, topic, payload, in: tx),
             do: Postgres.rollback(tx, error)

        if fate == 1, do: Process.sleep(:rand.uniform(20))
        if fate == 2, do: Postgres.rollback(tx, :no)
        System.monotonic_time()
      end)

    case result do
      {:ok, before} ->
        {:committed, payload, before}

      {:error, :no} ->
        {:rolled_back, payload}

      {:error, %Postgres.Error{reason: :not_connected}} ->
        Process.sleep(20) && {:rolled_back, payload}

      {:error, _} ->
        Process.sleep(20) && {:unknown, payload}
    end
  end
end
