defmodule Demo.Link do
  @moduledoc """
  The line between two replicas. It carries messages, and counts their bytes; while it is cut, what is sent
  over it is lost, and nobody is told.
  """
  use GenServer

  def start_link({_name, _pid} = a, {_, _} = b), do: GenServer.start_link(__MODULE__, [a, b])

  @doc "Sends `message` to the other end. `bytes` is what it would take on a wire."
  def carry(link, to, message, bytes), do: GenServer.cast(link, {:carry, to, message, bytes})

  def cut(link), do: GenServer.call(link, :cut)

  @doc "Carries again. Both ends hear of it, as they do of a node that comes up."
  def heal(link), do: GenServer.call(link, :heal)

  @doc "Whether it is up, what it carried (messages, bytes), and how many messages were lost."
  def stats(link), do: GenServer.call(link, :stats)

  @impl true
  def init(ends), do: {:ok, %{ends: ends, up?: true, messages: 0, bytes: 0, lost: 0}}

  @impl true
  def handle_cast({:carry, _to, _message, _bytes}, %{up?: false} = state) do
    {:noreply, %{state | lost: state.lost + 1}}
  end

  def handle_cast({:carry, to, message, bytes}, state) do
    send(to, message)
    {:noreply, %{state | messages: state.messages + 1, bytes: state.bytes + bytes}}
  end

  @impl true
  def handle_call(:cut, _from, state), do: {:reply, :ok, %{state | up?: false}}

  def handle_call(:heal, _from, %{up?: true} = state), do: {:reply, :ok, state}

  def handle_call(:heal, _from, %{ends: [{a, a_pid}, {b, b_pid}]} = state) do
    send(a_pid, {:link_up, b})
    send(b_pid, {:link_up, a})
    {:reply, :ok, %{state | up?: true}}
  end

  def handle_call(:stats, _from, state), do: {:reply, Map.delete(state, :ends), state}
end
