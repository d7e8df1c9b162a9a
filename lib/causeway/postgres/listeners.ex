defmodule Causeway.Postgres.Listeners do
  @moduledoc false
  # Who listens on which channel. Pure, but for monitors and messages.

  defstruct by_ref: %{}, by_channel: %{}

  def new, do: %__MODULE__{}

  @doc "A process listens, from when LISTEN has been run."
  def add(listeners, pid, channel, gaps?) do
    ref = make_ref()
    entry = %{pid: pid, channel: channel, gaps?: gaps?, monitor: Process.monitor(pid)}
    refs = Map.get(listeners.by_channel, channel, []) ++ [ref]

    {ref,
     %{
       listeners
       | by_ref: Map.put(listeners.by_ref, ref, entry),
         by_channel: Map.put(listeners.by_channel, channel, refs)
     }}
  end

  @doc "No longer. Gives the channels on which nobody listens any more."
  def remove(listeners, ref) do
    case Map.pop(listeners.by_ref, ref) do
      {nil, _} ->
        {[], listeners}

      {%{channel: channel, monitor: monitor}, by_ref} ->
        Process.demonitor(monitor, [:flush])
        listeners = %{listeners | by_ref: by_ref}

        case List.delete(listeners.by_channel[channel], ref) do
          [] -> {[channel], %{listeners | by_channel: Map.delete(listeners.by_channel, channel)}}
          refs -> {[], put_in(listeners.by_channel[channel], refs)}
        end
    end
  end

  @doc "A process has ended."
  def down(listeners, monitor) do
    case Enum.find(listeners.by_ref, fn {_, entry} -> entry.monitor == monitor end) do
      {ref, _} -> remove(listeners, ref)
      nil -> {[], listeners}
    end
  end

  def channels(listeners), do: Map.keys(listeners.by_channel)
  def any?(listeners, channel), do: is_map_key(listeners.by_channel, channel)

  @doc "Sends a notification to those who listen."
  def tell(listeners, channel, payload) do
    for ref <- Map.get(listeners.by_channel, channel, []) do
      send(listeners.by_ref[ref].pid, {:notification, self(), ref, channel, payload})
    end
  end

  @doc "Tells those who asked for it that notifications may have been lost."
  def gap(listeners) do
    for {ref, %{gaps?: true} = entry} <- listeners.by_ref do
      send(entry.pid, {:notification_gap, self(), ref, entry.channel})
    end
  end

  # The server cuts longer names, and would notify by what is left.
  @longest 63

  @doc "Raises unless there can be a channel of that name."
  def check!(channel) do
    is_binary(channel) ||
      raise ArgumentError, "a channel's name is a string, which #{inspect(channel)} is not"

    byte_size(channel) <= @longest ||
      raise ArgumentError, "a channel's name has #{@longest} bytes at most: #{inspect(channel)}"

    :binary.match(channel, <<0>>) == :nomatch ||
      raise ArgumentError, "a channel's name cannot have a zero byte in it: #{inspect(channel)}"
  end
end
