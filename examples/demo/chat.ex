defmodule Demo.Chat do
  @moduledoc "One who takes part in a chat: what an application would have."
  use GenServer

  @doc "Joins, from here on."
  def join(name, options) do
    {_, ref} =
      spawn_monitor(fn ->
        Process.flag(:trap_exit, true)
        {:ok, log} = Causeway.Log.start_link(name: ChatLog, connection: options, publisher: name)
        {:ok, chat} = GenServer.start_link(__MODULE__, nil, name: __MODULE__)
        for pid <- [log, chat], do: Process.unlink(pid)
        exit(:joined)
      end)

    receive do: ({:DOWN, ^ref, _, _, :joined} -> :ok)
  end

  @doc "Says something, and returns when nobody will miss it."
  def say(name, text) do
    with {:ok, _place} <- Causeway.Log.publish(ChatLog, "chat.lobby", {name, text}), do: :ok
  end

  @doc "All that was said, `{name, text}`."
  def lines, do: GenServer.call(__MODULE__, :lines)

  @impl true
  def init(_) do
    {:ok, ref, _cursor} = Causeway.Log.subscribe(ChatLog, "chat.*")
    {:ok, {ref, []}}
  end

  @impl true
  def handle_info({:causeway, ref, messages}, {ref, lines}),
    do: {:noreply, {ref, Enum.reduce(messages, lines, &[&1.payload | &2])}}

  @impl true
  def handle_call(:lines, _from, {ref, lines}), do: {:reply, Enum.reverse(lines), {ref, lines}}
end
