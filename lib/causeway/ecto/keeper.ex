if Code.ensure_loaded?(Ecto.Adapters.SQL) and Code.ensure_loaded?(Postgrex) do
  defmodule Causeway.Ecto.Keeper do
    @moduledoc false
    # Owns a connection's port program while no client does: what the program says then (that the server has closed the
    # connection, a notice) is no client's business. It is linked to the program and to the connection's process: with
    # that one, however it ends, the program ends, which cancels what runs.
    #
    # It keeps the last words, of the server and of the program, for those who find it gone.

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

    @typedoc "The fields of the error with which the server has ended the connection; a sentence. Either may be nil."
    @type fate :: {[{atom, binary}] | nil, String.t() | nil}

    @doc "Why the program is gone."
    @spec fate(pid) :: fate
    def fate(keeper) do
      monitor = Process.monitor(keeper)
      send(keeper, {:fate, self(), monitor})

      receive do
        {^monitor, fate} ->
          Process.demonitor(monitor, [:flush])
          fate

        {:DOWN, ^monitor, :process, _, _} ->
          {nil, nil}
      end
    end

    @doc "What the program has said to a client, that is no part of an answer, may be the last words, too."
    @spec told(pid, port, tuple) :: :ok
    def told(keeper, port, event) do
      send(keeper, {port, {:told, event}})
      :ok
    end

    @doc "Ends the keeper, and the program, whoever owns it: a client that waits for an answer finds out."
    @spec stop(pid, port) :: :ok
    def stop(keeper, port) do
      Process.unlink(keeper)
      Process.exit(keeper, :kill)
      close(port)
      :ok
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
          loop(parent, port, {nil, nil})

        error ->
          Process.unlink(parent)
          send(parent, {self(), error})
      end
    end

    defp open do
      Protocol.open([:patient])
    rescue
      # No process, no descriptor, no memory.
      error in ErlangError -> {:error, "it cannot be started: #{inspect(error.original)}"}
    end

    defp loop(parent, port, fate) do
      receive do
        {^port, {:data, frame}} ->
          loop(parent, port, heard(Protocol.frame(frame), fate))

        {^port, {:told, event}} ->
          loop(parent, port, heard({:event, event}, fate))

        {^port, {:exit_status, status}} ->
          loop(parent, port, because(fate, Protocol.exit_reason(status)))

        {:EXIT, ^parent, _} ->
          close(port)

        {:EXIT, ^port, reason} ->
          loop(parent, port, because(fate, "the port program is gone: #{inspect(reason)}"))

        {:fate, from, ref} ->
          send(from, {ref, fate})
          loop(parent, port, fate)

        _ ->
          loop(parent, port, fate)
      end
    end

    defp heard({:event, {:closed, _, message}}, {fatal, _}), do: {fatal, String.trim(message)}

    defp heard({:event, {:notice, fields}}, fate),
      do: if(fatal?(fields), do: put_elem(fate, 0, fields), else: fate)

    defp heard(_, fate), do: fate

    @doc "Whether what looks like a notice is why the server ends the connection."
    def fatal?(fields), do: fields[:severity] in ["FATAL", "PANIC"]

    # What was said first says most.
    defp because({fatal, nil}, why), do: {fatal, why}
    defp because(fate, _why), do: fate
  end
end
