defmodule Causeway.Store.Checkpoint do
  @moduledoc false
  # The whole state as of a record of the log, in a file checkpoint-N:
  #
  #     "causeway chk 01\n" | crc32 u32 | number u64 | size u64 | size bytes      the CRC is of the rest
  #
  # It is written beside the old one and takes its place when it is on the disk.

  alias Causeway.Doc
  alias Causeway.Store.{Disk, Error}

  @header "causeway chk 01\n"

  @doc "Writes the document, as it was after record `number`. Returns its size."
  def write(disk, doc, number) do
    path = Disk.path(disk, name(number))
    new = path <> ".new"
    bytes = Doc.encode(doc)
    body = [<<number::64, byte_size(bytes)::64>>, bytes]

    with :ok <- File.write(new, [@header, <<:erlang.crc32(body)::32>> | body], [:raw, :sync]),
         :ok <- File.rename(new, path) do
      for old <- paths(disk), old != path, do: File.rm(old)
      {:ok, byte_size(bytes)}
    else
      {:error, reason} ->
        File.rm(new)
        Disk.disk_error("write", path, reason)
    end
  end

  @doc "The last checkpoint's document and number; `{:ok, empty, 0}` when there is none."
  def read(disk, actor) do
    for unfinished <- Path.wildcard(Disk.path(disk, "checkpoint-*.new")), do: File.rm(unfinished)

    case disk |> paths() |> List.last() do
      nil -> {:ok, Doc.new(actor), 0, 0}
      path -> read_file(path, actor)
    end
  end

  defp read_file(path, actor) do
    case File.read(path) do
      {:ok, <<@header, crc::32, body::binary>>} ->
        if :erlang.crc32(body) == crc,
          do: decode(body, actor, path),
          else: corrupt(path, "checksum")

      {:ok, <<"causeway chk ", _::binary>>} ->
        {:error, %Error{reason: {:newer_format, path}}}

      {:ok, _} ->
        corrupt(path, "header")

      {:error, reason} ->
        Disk.disk_error("read", path, reason)
    end
  end

  defp decode(<<number::64, size::64, bytes::binary-size(size)>>, actor, path) do
    case Doc.decode(bytes, actor) do
      {:ok, doc} ->
        {:ok, doc, number, size}

      {:error, %{reason: {:unknown_version, _}}} ->
        {:error, %Error{reason: {:newer_format, path}}}

      {:error, error} ->
        corrupt(path, Exception.message(error))
    end
  end

  defp decode(_, _actor, path), do: corrupt(path, "size")

  defp corrupt(path, what), do: {:error, %Error{reason: {:corrupt, path, 0, what}}}

  defp paths(disk),
    do:
      disk
      |> Disk.path("checkpoint-" <> String.duplicate("[0-9]", 16))
      |> Path.wildcard()
      |> Enum.sort()

  defp name(number), do: "checkpoint-" <> String.pad_leading(Integer.to_string(number), 16, "0")
end
