if Code.ensure_loaded?(Ecto.Adapters.SQL) and Code.ensure_loaded?(Postgrex) do
  defmodule Causeway.Ecto.Keeper do
    @moduledoc false
    # Owns a connection's port program while no client does: what the program says then (that the server has closed the
    # connection, a notice) is no client's business. It is linked to the program and to the connection's process: with
    # that one, however it ends, the program ends, which cancels what runs.
    #
    # It keeps the program's last words for those who find it gone.

    alias Causeway.Postgres.Protocol

    @doc "Starts a port program, and its keeper, for the calling process."
    @spec start_link :: {:ok, pid, port} | {:error, String.t()}
    def start_link do
      parent = self()
      {keeper, monitor} = spawn_monitor(fn -> init(parent) end)
      Process.link(keeper)

      receive do
        {^keeper, {:ok, port}} ->
          Process.demonitor(monitor, [:flush])
          {:ok, keeper, port}

        {^keeper, {:error, why}} ->
          Process.demonitor(monitor, [:flush])
          {:error, why}

        {:DOWN, ^monitor, :process, _, reason} ->
          {:error, "its keeper has ended: #{inspect(reason)}"}
      end
    end

    @doc "Why the program is gone, or nil."
    @spec fate(pid) :: String.t() | nil
    def fate(keeper) do
      monitor = Process.monitor(keeper)
      send(keeper, {:fate, self(), monitor})

      receive do
        {^monitor, why} ->
          Process.demonitor(monitor, [:flush])
          why

        {:DOWN, ^monitor, :process, _, _} ->
          nil
      end
    end

    @doc "Ends the keeper, and with it the program, whoever owns it."
    @spec stop(pid, port) :: :ok
    def stop(keeper, port) do
      # A client that waits for an answer has it from nobody else that none will come.
      owner = owner(port)
      Process.unlink(keeper)
      Process.exit(keeper, :kill)
      close(port)
      if owner not in [nil, keeper, self()], do: send(owner, {port, :closed})
      :ok
    end

    defp owner(port) do
      case Port.info(port, :connected) do
        {:connected, pid} -> pid
        nil -> nil
      end
    end

    defp close(port) do
      Port.close(port)
    rescue
      ArgumentError -> true
    end

    defp init(parent) do
      Process.flag(:trap_exit, true)

      case open() do
        {:ok, port} ->
          send(parent, {self(), {:ok, port}})
          loop(parent, port, nil)

        error ->
          Process.unlink(parent)
          send(parent, {self(), error})
      end
    end

    defp open do
      Protocol.open()
    rescue
      # No process, no descriptor, no memory.
      error in ErlangError -> {:error, "it cannot be started: #{inspect(error.original)}"}
    end

    defp loop(parent, port, why) do
      receive do
        {^port, {:data, frame}} ->
          loop(parent, port, last_words(frame) || why)

        {^port, {:exit_status, status}} ->
          loop(parent, port, why || Protocol.exit_reason(status))

        {:EXIT, ^parent, _} ->
          close(port)

        {:EXIT, ^port, reason} ->
          loop(parent, port, why || "the port program is gone: #{inspect(reason)}")

        {:fate, from, ref} ->
          send(from, {ref, why})
          loop(parent, port, why)

        _ ->
          loop(parent, port, why)
      end
    end

    defp last_words(frame) do
      case Protocol.frame(frame) do
        {:event, {:closed, _, message}} -> String.trim(message)
        _ -> nil
      end
    end
  end
end
