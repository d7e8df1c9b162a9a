defmodule Causeway.Log.Acker do
  @moduledoc false
  # Acknowledges for all owners of a member: what comes while one statement is being committed is the next one.

  use GenServer
  alias Causeway.Log.Groups

  def start_link(rt, conn, group), do: GenServer.start_link(__MODULE__, {rt, conn, group})

  @doc "All of a partition up to a number is done with: whether that counts."
  @spec ack(pid, map, non_neg_integer) :: :ok | :fenced | {:error, Exception.t()}
  def ack(acker, row, upto), do: GenServer.call(acker, {:ack, row, upto}, :infinity)

  @impl true
  def init({rt, conn, group}), do: {:ok, %{rt: rt, conn: conn, group: group}}

  @impl true
  def handle_call({:ack, row, upto}, from, state) do
    acks = gather([{from, row, upto}])
    asked = for {_, row, upto} <- acks, do: {row.partition, row.epoch, upto}

    case Groups.acks(state.conn, state.rt, state.group, asked) do
      {:ok, counted} ->
        for {from, row, _} <- acks,
            do: GenServer.reply(from, if(row.partition in counted, do: :ok, else: :fenced))

      error ->
        for {from, _, _} <- acks, do: GenServer.reply(from, error)
    end

    {:noreply, state}
  end

  # Each owner waits for its answer, and so each partition is here once.
  defp gather(acks) do
    receive do
      {:"$gen_call", from, {:ack, row, upto}} -> gather([{from, row, upto} | acks])
    after
      0 -> acks
    end
  end
end
