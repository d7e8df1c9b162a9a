defmodule Demo.Pgbench do
  @moduledoc """
  PostgreSQL's own benchmark as a writer: a bank, whose clients each move an amount in an account, a teller and a branch, and
  write it down in the history. It reports its progress each second, and `tps/1` is the last of these reports.
  """
  use GenServer

  def start_link(program, args), do: GenServer.start_link(__MODULE__, {program, args})

  @doc "Transactions a second, as it says."
  def tps(pid), do: GenServer.call(pid, :tps)

  @doc "Waits until it has ended: its exit status, and what it said."
  def await(pid), do: GenServer.call(pid, :await, :infinity)

  @impl true
  def init({program, args}) do
    options = [:binary, :exit_status, :stderr_to_stdout, line: 1_000, args: args]
    port = Port.open({:spawn_executable, program}, options)
    {:ok, %{port: port, tps: 0, said: [], status: nil, waiting: nil}}
  end

  @impl true
  def handle_call(:tps, _from, s), do: {:reply, s.tps, s}
  def handle_call(:await, from, s), do: {:noreply, answer(%{s | waiting: from})}

  @impl true
  def handle_info({port, {:data, {_, line}}}, %{port: port} = s) do
    case Regex.run(~r/^progress: .* ([\d.]+) tps/, line) do
      [_, tps] -> {:noreply, %{s | tps: tps |> String.to_float() |> round()}}
      nil -> {:noreply, %{s | said: [line | s.said]}}
    end
  end

  def handle_info({port, {:exit_status, status}}, %{port: port} = s),
    do: {:noreply, answer(%{s | status: status, tps: 0})}

  defp answer(%{status: nil} = s), do: s
  defp answer(%{waiting: nil} = s), do: s

  defp answer(s) do
    GenServer.reply(s.waiting, {s.status, Enum.reverse(s.said)})
    %{s | waiting: nil}
  end
end
