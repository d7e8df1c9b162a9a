defmodule Causeway.Store.Log do
  @moduledoc false
  # The append-only log: what is in it is committed. Segments are files log-N, N the number of their first
  # record; a segment is written by one run of the store, up to a checkpoint.
  #
  #     segment = "causeway log 01\n" record*
  #     record  = crc32 u32 | size u32 | number u64 | size bytes           big-endian; the CRC is of the rest
  #
  # A write that was interrupted leaves a torn record at the end of the last segment, and nothing after it.

  alias Causeway.Store.{Disk, Error}

  @header "causeway log 01\n"
  @head 16

  defstruct [:disk, :path, :fd, :size, :next, bytes: 0]

  @doc "A new segment whose first record will be number `next`."
  def open(disk, next) do
    path = Disk.path(disk, name(next))

    with {:ok, fd} <- :file.open(path, [:raw, :binary, :write]),
         :ok <- :file.write(fd, @header),
         :ok <- :file.datasync(fd) do
      {:ok, %__MODULE__{disk: disk, path: path, fd: fd, size: byte_size(@header), next: next}}
    else
      {:error, reason} -> Disk.disk_error("make", path, reason)
    end
  end

  def close(log), do: :file.close(log.fd)

  @doc "Appends records; on failure none of them is there."
  def append(log, payloads) do
    {iodata, next} = Enum.map_reduce(payloads, log.next, &{record(&2, &1), &2 + 1})
    size = IO.iodata_length(iodata)

    case :file.write(log.fd, iodata) do
      :ok -> {:ok, %{log | next: next, size: log.size + size, bytes: log.bytes + size}}
      {:error, reason} -> take_back(log, reason)
    end
  end

  def sync(log) do
    with {:error, reason} <- :file.datasync(log.fd), do: Disk.disk_error("sync", log.path, reason)
  end

  # What was half written must not stand before what is written later.
  defp take_back(log, reason) do
    with {:ok, _} <- :file.position(log.fd, log.size),
         :ok <- :file.truncate(log.fd) do
      Disk.disk_error("write to", log.path, reason)
    else
      {:error, again} -> raise Error, reason: {:disk, "take back a write to", log.path, again}
    end
  end

  defp record(number, payload) do
    body = [<<byte_size(payload)::32, number::64>>, payload]
    [<<:erlang.crc32(body)::32>> | body]
  end

  defp name(number), do: "log-" <> String.pad_leading(Integer.to_string(number), 16, "0")

  @doc "The segments' paths and first numbers, in order."
  def segments(disk) do
    for path <- disk.dir |> Path.join("log-*") |> Path.wildcard() |> Enum.sort() do
      {path, path |> Path.basename() |> String.trim_leading("log-") |> String.to_integer()}
    end
  end

  @doc "Deletes the segments before the one that begins with this record."
  def drop_before(disk, number) do
    for {path, first} <- segments(disk), first < number, do: File.rm(path)
    :ok
  end

  @doc """
  Calls `fun` with each record after number `after_number` and the accumulator; returns it with the last
  number and how many bytes of a torn end were cut off.
  """
  def replay(disk, after_number, acc, fun) do
    segments = segments(disk)
    last = List.last(segments)

    Enum.reduce_while(segments, {:ok, acc, after_number, 0}, fn {path, first} = segment,
                                                                {:ok, acc, done, _} ->
      state = %{path: path, acc: acc, done: done, next: first, after: after_number, fun: fun}

      case replay_segment(state, segment == last) do
        {:ok, state, cut} -> {:cont, {:ok, state.acc, max(done, state.next - 1), cut}}
        {:error, error} -> {:halt, {:error, error}}
      end
    end)
  end

  defp replay_segment(state, last?) do
    case File.read(state.path) do
      {:ok, <<@header, rest::binary>>} ->
        records(rest, byte_size(@header), state, last?)

      {:ok, <<"causeway log ", _::binary>>} ->
        {:error, %Error{reason: {:newer_format, state.path}}}

      {:ok, bytes} when last? and byte_size(bytes) < byte_size(@header) ->
        cut(state, 0, byte_size(bytes))

      {:ok, _} ->
        corrupt(state, 0, "header")

      {:error, reason} ->
        Disk.disk_error("read", state.path, reason)
    end
  end

  defp records(<<>>, _offset, state, _last?), do: {:ok, state, 0}

  defp records(
         <<crc::32, size::32, n::64, payload::binary-size(size), rest::binary>> = all,
         offset,
         state,
         last?
       ) do
    cond do
      crc != :erlang.crc32(binary_part(all, 4, 12 + size)) -> damaged(all, offset, state, last?)
      n > state.next -> corrupt(state, offset, "record #{n} where #{state.next} was expected")
      true -> records(rest, offset + @head + size, take(state, n, payload), last?)
    end
  end

  defp records(bytes, offset, state, last?), do: damaged(bytes, offset, state, last?)

  defp take(%{after: after_number} = state, n, _payload) when n <= after_number,
    do: %{state | next: n + 1}

  defp take(state, n, payload), do: %{state | next: n + 1, acc: state.fun.(payload, state.acc)}

  defp damaged(bytes, offset, state, last?) do
    if last? and not intact_after?(bytes, state.next),
      do: cut(state, offset, byte_size(bytes)),
      else: corrupt(state, offset, "checksum")
  end

  defp corrupt(state, offset, what),
    do: {:error, %Error{reason: {:corrupt, state.path, offset, what}}}

  # Whether some later record is whole: then the damage is no interrupted write.
  defp intact_after?(<<_, bytes::binary>>, next),
    do: intact?(bytes, next) or intact_after?(bytes, next)

  defp intact_after?(<<>>, _next), do: false

  defp intact?(<<crc::32, size::32, n::64, _::binary-size(size), _::binary>> = all, next)
       when n >= next and n < next + 1_000_000,
       do: crc == :erlang.crc32(binary_part(all, 4, 12 + size))

  defp intact?(_, _), do: false

  # An empty header is cut off with its file.
  defp cut(state, 0, bytes) do
    with {:error, reason} <- File.rm(state.path),
         do: Disk.disk_error("delete", state.path, reason),
         else: (_ -> {:ok, state, bytes})
  end

  defp cut(state, offset, bytes) do
    with {:ok, fd} <- :file.open(state.path, [:raw, :read, :write]),
         {:ok, _} <- :file.position(fd, offset),
         :ok <- :file.truncate(fd),
         :ok <- :file.datasync(fd),
         :ok <- :file.close(fd) do
      {:ok, state, bytes}
    else
      {:error, reason} -> Disk.disk_error("cut off the torn end of", state.path, reason)
    end
  end
end
