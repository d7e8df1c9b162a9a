defmodule Causeway.Store.Checkpoint do
  @moduledoc false
  # The whole state as of a record of the log, in a file checkpoint-N:
  #
  #     "causeway chk 01\n" | crc32 u32 | number u64 | size u64 | size bytes      the CRC is of the rest
  #
  # It is written beside the old one and takes its place when it is on the disk. What the process that writes it
  # leaves unfinished, the next start deletes.

  alias Causeway.Doc
  alias Causeway.Store.{Disk, Error}

  @header "causeway chk 01\n"

  @doc "Writes the document, as it was after record `number`. Returns its size."
  def write(disk, doc, number) do
    path = Disk.path(disk, Disk.name("checkpoint-", number))
    new = path <> ".new"
    bytes = Doc.encode(doc)
    body = [<<number::64, byte_size(bytes)::64>>, bytes]

    with :ok <- File.write(new, [@header, <<:erlang.crc32(body)::32>> | body], [:raw, :sync]),
         :ok <- File.rename(new, path),
         :ok <- Disk.sync_dir(disk) do
      drop_before(disk, number)
      {:ok, byte_size(bytes)}
    else
      {:error, %Error{}} = error ->
        error

      {:error, reason} ->
        File.rm(new)
        Disk.disk_error("write", path, reason)
    end
  end

  defp drop_before(disk, number) do
    with {:ok, paths} <- paths(disk) do
      for {old, n} <- paths, n < number, do: File.rm(old)
      :ok
    end
  end

  @doc """
  The last checkpoint's document, the number of the last record in it, and its size; `{:ok, empty, 0, 0}` when
  there is none.
  """
  def read(disk, actor) do
    with {:ok, paths} <- paths(disk), :ok <- drop_unfinished(disk) do
      case List.last(paths) do
        nil -> {:ok, Doc.new(actor), 0, 0}
        {path, number} -> read_file(path, number, actor)
      end
    end
  end

  defp drop_unfinished(disk) do
    with {:ok, names} <- File.ls(disk.dir) do
      for "checkpoint-" <> _ = name <- names,
          String.ends_with?(name, ".new"),
          do: File.rm(Disk.path(disk, name))

      :ok
    else
      {:error, reason} -> Disk.disk_error("list", disk.dir, reason)
    end
  end

  defp read_file(path, number, actor) do
    case File.read(path) do
      {:ok, <<@header, crc::32, body::binary>>} ->
        if :erlang.crc32(body) == crc,
          do: decode(body, number, actor, path),
          else: corrupt(path, "checksum")

      {:ok, <<"causeway chk ", version::binary-size(2), "\n", _::binary>>} when version != "01" ->
        {:error, %Error{reason: {:newer_format, path}}}

      {:ok, _} ->
        corrupt(path, "header")

      {:error, reason} ->
        Disk.disk_error("read", path, reason)
    end
  end

  defp decode(<<number::64, size::64, bytes::binary-size(size)>>, number, actor, path) do
    case Doc.decode(bytes, actor) do
      {:ok, doc} ->
        {:ok, doc, number, size}

      {:error, %{reason: {:unknown_version, _}}} ->
        {:error, %Error{reason: {:newer_format, path}}}

      {:error, error} ->
        corrupt(path, Exception.message(error))
    end
  end

  defp decode(_, _number, _actor, path), do: corrupt(path, "its name or size is not what it says")

  defp corrupt(path, what), do: {:error, %Error{reason: {:corrupt, path, 0, what}}}

  defp paths(disk), do: Disk.numbered(disk, "checkpoint-")
end
