defmodule Bench do
  @moduledoc """
  Runs cases and prints one line each: `bench case ours unit peer peer_value ratio`, tab-separated. The
  ratio says how many times better we are; `-` stands where no peer is on the code path.

  Times are CPU time of the VM, so that a busy machine disturbs them less, and medians of several samples.
  `BENCH_QUICK=1` takes few samples, to see that everything runs.
  """

  @doc "Whether a quick look is enough."
  def quick?, do: System.get_env("BENCH_QUICK") == "1"

  @doc "Prints a result next to those of its peers: `[{name, value}]`, `nil` for one that is not here."
  def line(bench, name, ours, unit, peers \\ []) do
    case Enum.reject(peers, fn {_, value} -> is_nil(value) end) do
      [] -> print([bench, name, number(ours), unit, "-", "-", "-"])
      peers -> Enum.each(peers, &peer_line(bench, name, ours, unit, &1))
    end
  end

  defp peer_line(bench, name, ours, unit, {peer, value}) do
    ratio = if String.ends_with?(unit, "/s"), do: ours / value, else: value / max(ours, 1.0e-9)
    print([bench, name, number(ours), unit, peer, number(value), number(ratio)])
  end

  defp print(columns), do: columns |> Enum.join("\t") |> IO.puts()

  defp number(n) when is_integer(n), do: Integer.to_string(n)
  defp number(n) when n >= 100, do: n |> round() |> Integer.to_string()
  defp number(n) when n >= 1, do: :erlang.float_to_binary(n * 1.0, decimals: 2)
  defp number(n), do: :erlang.float_to_binary(n * 1.0, decimals: 4)

  @doc """
  Microseconds of CPU time a call of `fun` takes: each sample calls it as often as takes some 50 ms, in a
  process of its own, with a fresh heap. `ops` is how many operations one call does.
  """
  def cpu(fun, ops \\ 1) do
    times = calibrate(fun, 1)
    samples = if quick?(), do: 3, else: 15
    per_call = for _ <- 1..samples, do: sample(fun, times) / times
    median(per_call) / ops
  end

  # How many calls take 50 ms, some 50 times the clock's tick.
  defp calibrate(fun, times) do
    case sample(fun, times) do
      us when us >= 25_000 -> max(round(times * 50_000 / us), 1)
      _ -> calibrate(fun, times * 4)
    end
  end

  defp sample(fun, times) do
    task =
      Task.async(fn ->
        :erlang.garbage_collect()
        before = cpu_us()
        repeat(fun, times)
        cpu_us() - before
      end)

    Task.await(task, :infinity)
  end

  defp repeat(fun, 1), do: fun.()

  defp repeat(fun, n) do
    fun.()
    repeat(fun, n - 1)
  end

  # CPU time of all threads of the VM; ticks in milliseconds.
  defp cpu_us, do: elem(:erlang.statistics(:runtime), 0) * 1000

  @doc "Operations a second of wall-clock time, of `fun` that does `ops` of them; the median of some runs."
  def rate(ops, fun) do
    runs = for _ <- 1..if(quick?(), do: 1, else: 5), do: ops / seconds(fun)
    median(runs)
  end

  @doc "Seconds of wall-clock time."
  def seconds(fun) do
    {us, _} = :timer.tc(fun)
    us / 1_000_000
  end

  @doc "Runs `fun` with 1 to n in as many processes at once."
  def parallel(n, fun) do
    1..n |> Enum.map(&Task.async(fn -> fun.(&1) end)) |> Task.await_many(:infinity)
  end

  def median(list) do
    sorted = Enum.sort(list)
    Enum.at(sorted, div(length(sorted), 2))
  end

  @doc "Distinct 16-byte binaries in no order, the same ones every time."
  def elements(range), do: for(i <- range, do: element(i))

  def element(i), do: :erlang.md5(<<i::64>>)

  @doc "The value of `fun` when the module is on the code path, else nil."
  def peer(module, fun) do
    if Code.ensure_loaded?(module), do: fun.()
  end
end
