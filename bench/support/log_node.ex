defmodule LogBench.Node do
  @moduledoc "What either node does."
  alias Causeway.Log

  @doc "Starts a log that goes on when the caller has ended, and a reader of all."
  def start(options) do
    {_, ref} =
      spawn_monitor(fn ->
        Process.flag(:trap_exit, true)
        {:ok, log} = Log.start_link(name: Bench, connection: options)
        Process.unlink(log)
        test = self()
        spawn(fn -> read(test) end)
        receive do: (:reading -> :ok)
        exit(:started)
      end)

    receive do: ({:DOWN, ^ref, _, _, :started} -> await_stream())
  end

  defp await_stream do
    {:ok, %{stream: stream}} = Log.info(Bench)
    if stream == :streaming, do: :ok, else: Process.sleep(20) && await_stream()
  end

  defp read(starter) do
    Process.register(self(), :bench_reader)
    {:ok, ref, _} = Log.subscribe(Bench, ">")
    send(starter, :reading)
    count(ref, 0, [])
  end

  # Payloads that are times tell how long it took.
  defp count(ref, n, latencies) do
    receive do
      {:causeway, ^ref, messages} ->
        now = System.os_time(:microsecond)
        new = for %{payload: {:sent, then}} <- messages, do: now - then
        count(ref, n + length(messages), new ++ latencies)

      {:count, pid} ->
        send(pid, {:count, n})
        count(ref, n, latencies)

      {:latencies, pid} ->
        send(pid, {:latencies, latencies})
        count(ref, n, [])
    end
  end

  def count, do: ask(:count)
  def latencies, do: ask(:latencies)

  defp ask(what) do
    send(:bench_reader, {what, self()})
    receive do: ({^what, result} -> result)
  end
end
