defmodule Causeway.Store.Disconnected do
  @moduledoc false
  # Whom a store takes nothing from and gives nothing. It stands in the store's table, and, where there is a
  # directory, in a file DISCONNECTED: who has left for good is not to come back with a restart.
  #
  #     "causeway not 01\n" | crc32 u32 | [{name, node}] in external term format      the CRC is of the rest

  alias Causeway.Store.{Disk, Error}

  @header "causeway not 01\n"

  @doc "Reads them into the table, unless they are there already."
  def load(rt) do
    with [] <- :ets.lookup(rt.table, :disconnected), {:ok, peers} <- read(path(rt)) do
      put(rt, MapSet.new(peers))
    else
      [_] -> :ok
      error -> error
    end
  end

  def all(rt) do
    case :ets.lookup(rt.table, :disconnected) do
      [{:disconnected, peers}] -> peers
      # Not read yet.
      [] -> MapSet.new()
    end
  end

  def member?(rt, peer), do: peer in all(rt)

  @doc "Adds one; when that cannot be written down, it has not been done."
  def add(rt, peer), do: change(rt, &MapSet.put(&1, peer))
  def delete(rt, peer), do: change(rt, &MapSet.delete(&1, peer))

  defp change(rt, fun) do
    old = all(rt)
    new = fun.(old)
    with :ok <- if(new == old, do: :ok, else: write(rt, new)), do: put(rt, new)
  end

  defp put(rt, peers) do
    :ets.insert(rt.table, {:disconnected, peers})
    :ok
  end

  # ---- the file ----

  defp path(%{opts: %{dir: nil}}), do: nil
  defp path(%{opts: %{dir: dir}}), do: Path.join(dir, "DISCONNECTED")

  defp read(nil), do: {:ok, []}

  defp read(path) do
    case File.read(path) do
      {:ok, <<@header, crc::32, bytes::binary>>} ->
        if :erlang.crc32(bytes) == crc,
          do: {:ok, :erlang.binary_to_term(bytes)},
          else: {:error, %Error{reason: {:corrupt, path, 0, "checksum"}}}

      {:ok, <<"causeway not ", version::binary-size(2), "\n", _::binary>>} when version != "01" ->
        {:error, %Error{reason: {:newer_format, path}}}

      {:ok, _} ->
        {:error, %Error{reason: {:corrupt, path, 0, "header"}}}

      {:error, :enoent} ->
        {:ok, []}

      {:error, reason} ->
        Disk.disk_error("read", path, reason)
    end
  end

  defp write(rt, peers) do
    bytes = :erlang.term_to_binary(Enum.sort(peers))

    case path(rt) do
      nil -> :ok
      path -> Disk.write_whole(path, [@header, <<:erlang.crc32(bytes)::32>>, bytes])
    end
  end
end
