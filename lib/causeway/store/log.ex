defmodule Causeway.Store.Log do
  @moduledoc false
  # The append-only log: what is in it is committed. Segments are files log-N, N the number of their first
  # record; a segment is written by one run of the store, up to a checkpoint.
  #
  #     segment = "causeway log 01\n" record*
  #     record  = crc32 u32 | size u64 | number u64 | size bytes           big-endian; the CRC is of the rest
  #     bytes   = (size u64 | delta)*
  #
  # A record is what a group of commits did; numbers have no gaps, within a segment or from one to the next. An
  # interrupted write leaves a torn record at the end of the last segment, and nothing after it. But when the
  # machine crashes, any of what was not synced may be there, or not: `lossy`.

  alias Causeway.Store.{Disk, Error}

  @header "causeway log 01\n"
  @header_size 16
  @head 20
  @chunk 1_000_000

  # size: of the file; bytes: of records since the last checkpoint
  defstruct [:path, :fd, :size, :first, :next, :bytes]

  @doc "A new segment whose first record will be number `next`, on the disk if `sync?`."
  def open(disk, next, bytes, sync?) do
    path = Disk.path(disk, Disk.name("log-", next))

    case :file.open(path, [:raw, :binary, :write, :exclusive]) do
      {:ok, fd} -> begin(disk, fd, path, next, bytes, sync?)
      {:error, reason} -> Disk.disk_error("make", path, reason)
    end
  end

  defp begin(disk, fd, path, next, bytes, sync?) do
    with :ok <- :file.write(fd, @header),
         :ok <- if(sync?, do: :file.datasync(fd), else: :ok),
         :ok <- if(sync?, do: Disk.sync_dir(disk), else: :ok) do
      log = %__MODULE__{path: path, fd: fd, size: @header_size}
      {:ok, %{log | first: next, next: next, bytes: bytes}}
    else
      {:error, reason} ->
        :file.close(fd)
        File.rm(path)
        if is_struct(reason), do: {:error, reason}, else: Disk.disk_error("make", path, reason)
    end
  end

  def close(log), do: :file.close(log.fd)

  @doc "Writes a segment without records anew, of which nobody knows what is on the disk."
  def renew(log, disk) do
    if empty?(log) do
      new = log.path <> ".new"

      with {:ok, fd} <- :file.open(new, [:raw, :binary, :write]),
           :ok <- :file.write(fd, @header),
           :ok <- :file.datasync(fd),
           :ok <- :file.rename(new, log.path),
           :ok <- Disk.sync_dir(disk) do
        close(log)
        {:ok, %{log | fd: fd}}
      else
        {:error, %Error{}} = error -> error
        {:error, reason} -> Disk.disk_error("make", log.path, reason)
      end
    else
      {:ok, log}
    end
  end

  @doc "Whether nothing was written to this segment."
  def empty?(log), do: log.next == log.first

  @doc "Appends deltas as one record, and syncs it if told to; on failure it is not there."
  def append(log, deltas, sync?) do
    record = record(log.next, for(delta <- deltas, do: [<<byte_size(delta)::64>>, delta]))
    size = IO.iodata_length(record)

    with {:write, :ok} <- {:write, :file.write(log.fd, record)},
         {:sync, :ok} <- {:sync, if(sync?, do: :file.datasync(log.fd), else: :ok)} do
      {:ok, %{log | next: log.next + 1, size: log.size + size, bytes: log.bytes + size}}
    else
      {action, {:error, reason}} -> take_back(log, "#{action} to", reason)
    end
  end

  def sync(log) do
    with {:error, reason} <- :file.datasync(log.fd), do: Disk.disk_error("sync", log.path, reason)
  end

  @doc "Syncs all segments, from whichever process; a checkpoint may be deleting some."
  def sync_all(disk) do
    with {:ok, segments} <- segments(disk),
         :ok <- Disk.sync_dir(disk),
         do: Enum.find_value(segments, :ok, fn {path, _} -> not_synced(path) end)
  end

  defp not_synced(path) do
    with {:ok, fd} <- :file.open(path, [:raw, :read, :write]) do
      result = :file.datasync(fd)
      :file.close(fd)
      with {:error, reason} <- result, do: Disk.disk_error("sync", path, reason), else: (_ -> nil)
    else
      {:error, :enoent} -> nil
      {:error, reason} -> Disk.disk_error("sync", path, reason)
    end
  end

  # What was half written must not stand before what is written later. If it cannot be taken back, only a new
  # start can tell what is there.
  defp take_back(log, action, reason) do
    with {:ok, _} <- :file.position(log.fd, log.size),
         :ok <- :file.truncate(log.fd) do
      Disk.disk_error("append (#{action} the log)", log.path, reason)
    else
      {:error, again} -> raise Error, reason: {:disk, "take back a write to", log.path, again}
    end
  end

  defp record(number, payload) do
    body = [<<IO.iodata_length(payload)::64, number::64>>, payload]
    [<<:erlang.crc32(body)::32>> | body]
  end

  @doc "The segments' paths and first numbers, in order."
  def segments(disk), do: Disk.numbered(disk, "log-")

  @doc "Deletes the segments that have only records up to this one."
  def drop_until(disk, number) do
    with {:ok, segments} <- segments(disk) do
      for [{path, _}, {_, next}] <- Enum.chunk_every(segments, 2, 1, :discard),
          next <= number + 1,
          do: File.rm(path)

      :ok
    end
  end

  # ---- reading ----

  @doc """
  Calls `fun` with each delta after record `after_number` and the accumulator, which it returns as `{:ok, acc}`;
  an `{:error, exception}` is damage. Returns the accumulator and

    * `:last` - the last record's number
    * `:cut` - how many bytes of a torn end were cut off
    * `:bytes` - how many are in the records
  """
  def replay(disk, after_number, acc, fun) do
    with {:ok, segments} <- segments(disk),
         {:ok, segments, cut} <- drop_empty(segments),
         state = %{acc: acc, fun: fun, after: after_number, next: after_number + 1, bytes: 0},
         state = Map.put(state, :begun, false),
         {:ok, state, torn} <- replay_all(segments, state, disk.lossy) do
      {:ok, state.acc, %{last: state.next - 1, cut: cut + torn, bytes: state.bytes}}
    end
  end

  # The last segment may have been made and never written to, or not even its header.
  defp drop_empty(segments, cut \\ 0) do
    with {path, _} <- List.last(segments),
         {:ok, bytes} when byte_size(bytes) <= @header_size <- head(path),
         true <- String.starts_with?(@header, bytes) do
      torn = rem(byte_size(bytes), @header_size)

      with :ok <- delete(path),
           do: segments |> List.delete_at(-1) |> drop_empty(cut + torn)
    else
      {:error, error} -> {:error, error}
      _ -> {:ok, segments, cut}
    end
  end

  defp head(path) do
    with {:ok, fd} <- open_file(path, [:read]) do
      result = :file.read(fd, @header_size + 1)
      :file.close(fd)

      case result do
        :eof -> {:ok, ""}
        {:ok, bytes} -> {:ok, bytes}
        {:error, reason} -> Disk.disk_error("read", path, reason)
      end
    end
  end

  defp delete(path) do
    with {:error, reason} <- File.rm(path), do: Disk.disk_error("delete", path, reason)
  end

  defp replay_all([], state, _lossy), do: {:ok, state, 0}

  # Records that are in the checkpoint need not be there.
  defp replay_all([{path, first} | _] = segments, %{next: next} = state, lossy)
       when first > next do
    if lossy and state.begun,
      do: with({:ok, lost} <- drop_all(segments), do: {:ok, state, lost}),
      else: corrupt(path, 0, "records #{next} to #{first - 1} are missing before it")
  end

  # What the last run did not sync is, before there is a segment after it.
  defp replay_all([{path, first} | more], state, lossy) do
    with {:ok, file} <- open_segment(path, more == [], lossy),
         {:ok, state, cut} <- replay_segment(file, %{state | next: first, begun: true}),
         :ok <- close_segment(file),
         state = %{state | next: max(state.next, state.after + 1)},
         {:ok, lost} <- if(cut > 0, do: drop_all(more), else: {:ok, 0}),
         {:ok, state, later} <- replay_all(if(cut > 0, do: [], else: more), state, lossy) do
      {:ok, state, cut + lost + later}
    end
  end

  # Nothing can follow a hole.
  defp drop_all(segments) do
    Enum.reduce_while(segments, {:ok, 0}, fn {path, _}, {:ok, bytes} ->
      with {:ok, %{size: size}} <- File.stat(path), :ok <- File.rm(path) do
        {:cont, {:ok, bytes + size}}
      else
        {:error, reason} -> {:halt, Disk.disk_error("delete", path, reason)}
      end
    end)
  end

  # After an error, the process ends, which closes it.
  defp open_segment(path, last?, lossy) do
    with {:ok, fd} <- open_file(path, [:read, :write]) do
      {:ok, size} = :file.position(fd, :eof)
      {:ok, _} = :file.position(fd, 0)
      {:ok, %{path: path, fd: fd, size: size, last?: last?, lossy: lossy}}
    end
  end

  defp close_segment(file) do
    result = :file.datasync(file.fd)
    :file.close(file.fd)
    with {:error, reason} <- result, do: Disk.disk_error("sync", file.path, reason)
  end

  defp open_file(path, modes) do
    with {:error, reason} <- :file.open(path, [:raw, :binary | modes]),
         do: Disk.disk_error("open", path, reason)
  end

  defp replay_segment(file, state) do
    case read(file, "", @header_size) do
      {:ok, <<@header, bytes::binary>>} -> records(bytes, @header_size, file, state)
      {:ok, <<"causeway log ", _::16, "\n", _::binary>>} -> newer(file)
      {:ok, _} when file.lossy -> cut(0, file, state)
      {:ok, _} -> corrupt(file.path, 0, "header")
      error -> error
    end
  end

  defp newer(file), do: {:error, %Error{reason: {:newer_format, file.path}}}

  # `bytes` begin at `offset` in the file; they are some of what is there.
  defp records(
         <<crc::32, size::64, n::64, body::binary-size(size), rest::binary>> = bytes,
         offset,
         file,
         state
       ) do
    cond do
      crc != checksum(bytes, size) -> damaged("checksum", offset, file, state)
      n != state.next -> corrupt(file.path, offset, "record #{n} instead of #{state.next}")
      true -> take(body, rest, offset, file, state)
    end
  end

  defp records(<<>>, offset, %{size: offset}, state), do: {:ok, state, 0}

  defp records(bytes, offset, file, state) do
    wanted = wanted(bytes)

    if offset + wanted > file.size do
      damaged("it ends too early", offset, file, state)
    else
      with {:ok, more} when more != bytes <- read(file, bytes, wanted) do
        records(more, offset, file, state)
      else
        {:ok, _} -> damaged("it ends too early", offset, file, state)
        error -> error
      end
    end
  end

  defp wanted(<<_::32, size::64, _::binary>>), do: @head + size
  defp wanted(_), do: @head

  defp checksum(bytes, size), do: bytes |> binary_part(4, @head - 4 + size) |> :erlang.crc32()

  # At least so many bytes in all, or all there are.
  defp read(file, bytes, wanted) do
    case :file.read(file.fd, max(wanted - byte_size(bytes), @chunk)) do
      {:ok, more} -> {:ok, bytes <> more}
      :eof -> {:ok, bytes}
      {:error, reason} -> Disk.disk_error("read", file.path, reason)
    end
  end

  defp take(body, rest, offset, file, state) do
    size = @head + byte_size(body)
    next = %{state | next: state.next + 1, bytes: state.bytes + size}

    case if state.next > state.after, do: deltas(body, state.acc, state.fun), else: :known do
      {:ok, acc} -> records(rest, offset + size, file, %{next | acc: acc})
      :known -> records(rest, offset + size, file, next)
      {:error, error} -> corrupt(file.path, offset, Exception.message(error))
    end
  end

  defp deltas(<<size::64, delta::binary-size(size), rest::binary>>, acc, fun) do
    with {:ok, acc} <- fun.(delta, acc), do: deltas(rest, acc, fun)
  end

  defp deltas(<<>>, acc, _fun), do: {:ok, acc}

  # ---- damage ----

  defp damaged(_what, offset, %{lossy: true} = file, state), do: cut(offset, file, state)
  defp damaged(what, offset, %{last?: false} = file, _), do: corrupt(file.path, offset, what)

  defp damaged(what, offset, file, state) do
    with {:ok, after_it?} <- intact_after?(offset, file, state) do
      if after_it?, do: corrupt(file.path, offset, what), else: cut(offset, file, state)
    end
  end

  defp corrupt(path, offset, what), do: {:error, %Error{reason: {:corrupt, path, offset, what}}}

  # Whether some later record is whole: then the damage is no interrupted write.
  defp intact_after?(offset, file, state) do
    case :file.pread(file.fd, offset + 1, file.size) do
      {:ok, bytes} -> {:ok, any_intact?(bytes, state.next)}
      :eof -> {:ok, false}
      {:error, reason} -> Disk.disk_error("read", file.path, reason)
    end
  end

  defp any_intact?(<<_, rest::binary>> = bytes, next),
    do: intact?(bytes, next) or any_intact?(rest, next)

  defp any_intact?(<<>>, _next), do: false

  defp intact?(<<crc::32, size::64, n::64, _::binary-size(size), _::binary>> = bytes, next)
       when n >= next and n < next + 1_000_000_000,
       do: crc == checksum(bytes, size)

  defp intact?(_, _), do: false

  # Nothing is left of it, and the name is needed again.
  defp cut(offset, file, state) when offset <= @header_size do
    with :ok <- delete(file.path), do: {:ok, state, file.size - offset}
  end

  defp cut(offset, file, state) do
    with {:ok, _} <- :file.position(file.fd, offset),
         :ok <- :file.truncate(file.fd) do
      {:ok, state, file.size - offset}
    else
      {:error, reason} -> Disk.disk_error("cut off the torn end of", file.path, reason)
    end
  end
end
