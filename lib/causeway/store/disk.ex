defmodule Causeway.Store.Disk do
  @moduledoc false
  # A store's directory: who it belongs to, and that nobody else has it open.
  #
  #     LOCK              locked while the store is open; where and since when IDENTITY lies
  #     IDENTITY          the replica, and the actor under which it writes
  #     DISCONNECTED      whom it does not replicate with
  #     checkpoint-N      the state after record N
  #     log-N             records from N on
  #
  # An actor's writes are numbered, and no number may be used twice. A directory that was copied or brought
  # back from a backup would do so. Its IDENTITY then lies in another inode than LOCK says, or does so since
  # another time, which nobody who copies can set: inodes are used again. The store then goes on under a new
  # actor. So it does after a crash of the machine that may have lost the log's end.

  alias Causeway.Store.Error

  # lossy: the machine has crashed, and what was not synced may be there in parts.
  defstruct [:dir, :identity, lossy: false]

  @format 1

  @spec open(Path.t(), String.t(), term()) ::
          {:ok, %__MODULE__{}, :same | {:new_actor, atom()}} | {:error, Error.t()}
  def open(dir, replica, fsync) do
    with :ok <- make_dir(dir),
         :ok <- lock(Path.join(dir, "LOCK"), dir),
         {:ok, old} <- read_identity(dir),
         :ok <- check(dir, old, replica),
         {:ok, copied?} <- copied?(dir, old) do
      lossy = lossy?(old)
      {identity, fate} = identity(old, replica, copied?, lossy)
      disk = %__MODULE__{dir: dir, identity: identity, lossy: lossy}

      with {:ok, disk} <- write_identity(disk, %{fsync: fsync, clean: false}),
           do: {:ok, disk, fate}
    end
  end

  @doc "The store is about to stop with all it has written on the disk."
  def close(disk), do: write_identity(disk, %{clean: true})

  @doc "Goes on under a new actor."
  def new_actor(disk),
    do: write_identity(disk, %{actor: actor_name(disk.identity.replica)})

  def path(%__MODULE__{dir: dir}, name), do: Path.join(dir, name)

  @doc "The files `prefix` and a number, as paths and numbers, in order."
  def numbered(disk, prefix) do
    with {:ok, names} <- list(disk.dir) do
      {:ok,
       for name <- Enum.sort(names), n = number(name, prefix) do
         {path(disk, name), n}
       end}
    end
  end

  @doc "The name that `numbered/2` finds."
  def name(prefix, number),
    do: prefix <> String.pad_leading(Integer.to_string(number), 16, "0")

  # A wildcard would read more into a directory's name.
  defp number(name, prefix) do
    with true <- String.starts_with?(name, prefix) and byte_size(name) == byte_size(prefix) + 16,
         {n, ""} when n >= 0 <- name |> String.replace_prefix(prefix, "") |> Integer.parse() do
      n
    else
      _ -> nil
    end
  end

  @doc "Makes what was created, renamed and deleted in the directory last, where the system can."
  def sync_dir(disk) do
    with {:ok, fd} <- :file.open(disk.dir, [:read, :raw, :directory]) do
      result = :file.sync(fd)
      :file.close(fd)
      if result == {:error, :eio}, do: disk_error("sync", disk.dir, :eio), else: :ok
    else
      _ -> :ok
    end
  end

  # ---- opening ----

  defp make_dir(dir) do
    with {:error, reason} <- File.mkdir_p(dir), do: disk_error("make the directory", dir, reason)
  end

  # Who had it may still be dying. A second is not long for the one who is refused.
  @tries 50

  # The lock is held as long as its term is anywhere. That must not be in a crash report, or in a process that is
  # busy after the store has crashed: so it is in one that has nothing else.
  defp lock(path, dir) do
    owner = self()
    {pid, ref} = spawn_monitor(fn -> hold_lock(path, owner) end)

    receive do
      {^pid, :ok} ->
        Process.link(pid)
        Process.demonitor(ref, [:flush])
        :ok

      {:DOWN, ^ref, :process, _, {:lock, :locked}} ->
        {:error, %Error{reason: {:locked, dir}}}

      {:DOWN, ^ref, :process, _, {:lock, reason}} ->
        disk_error("lock", path, reason)
    end
  end

  defp hold_lock(path, owner) do
    Process.monitor(owner)

    case try_lock(path, @tries) do
      {:ok, lock} ->
        send(owner, {self(), :ok})

        receive do
          {:DOWN, _, :process, ^owner, _} -> lock
        end

      {:error, reason} ->
        exit({:lock, reason})
    end
  end

  defp try_lock(path, tries) do
    case :causeway_nif.file_lock(path) do
      {:error, :locked} when tries > 1 ->
        Process.sleep(20)
        try_lock(path, tries - 1)

      result ->
        result
    end
  end

  defp read_identity(dir) do
    path = Path.join(dir, "IDENTITY")

    case File.read(path) do
      {:ok, bytes} -> decode_identity(bytes, path)
      {:error, :enoent} -> no_identity(dir, path)
      {:error, reason} -> disk_error("read", path, reason)
    end
  end

  defp no_identity(dir, path) do
    with {:ok, names} <- list(dir) do
      if Enum.any?(names, &String.starts_with?(&1, ["log-", "checkpoint-"])),
        do: corrupt(path, "it is missing"),
        else: {:ok, nil}
    end
  end

  defp list(dir) do
    with {:error, reason} <- File.ls(dir), do: disk_error("list", dir, reason)
  end

  defp decode_identity(<<"causeway store\n", format::16, crc::32, bytes::binary>>, path) do
    cond do
      format > @format -> {:error, %Error{reason: {:newer_format, path}}}
      format < 1 -> corrupt(path, "format")
      :erlang.crc32(bytes) != crc -> corrupt(path, "checksum")
      true -> {:ok, :erlang.binary_to_term(bytes, [:safe])}
    end
  end

  defp decode_identity(_, path), do: corrupt(path, "header")

  defp corrupt(path, what), do: {:error, %Error{reason: {:corrupt, path, 0, what}}}

  defp check(_dir, nil, _replica), do: :ok
  defp check(_dir, %{replica: replica}, replica), do: :ok

  defp check(dir, %{replica: there}, asked),
    do: {:error, %Error{reason: {:wrong_replica, dir, there, asked}}}

  defp copied?(_dir, nil), do: {:ok, false}

  defp copied?(dir, _old) do
    with {:ok, stamp} <- stamp(Path.join(dir, "IDENTITY")),
         do: {:ok, File.read(Path.join(dir, "LOCK")) != {:ok, stamp}}
  end

  defp lossy?(nil), do: false
  defp lossy?(old), do: not old.clean and old.fsync != :always and old.boot != boot()

  defp identity(nil, replica, _copied?, _lossy),
    do: {%{replica: replica, actor: actor_name(replica), uuid: :rand.bytes(16)}, :same}

  defp identity(old, replica, true, _lossy),
    do: {%{old | actor: actor_name(replica)}, {:new_actor, :copied}}

  defp identity(old, replica, _copied?, true),
    do: {%{old | actor: actor_name(replica)}, {:new_actor, :machine_crashed}}

  defp identity(old, _replica, _copied?, _lossy), do: {old, :same}

  @doc "A name under which nobody has written yet."
  def actor_name(replica),
    do: replica <> "~" <> Base.encode32(:rand.bytes(5), case: :lower)

  # ---- IDENTITY ----

  # A crash before LOCK is written makes a new actor, no harm.
  defp write_identity(disk, changes) do
    path = path(disk, "IDENTITY")
    identity = disk.identity |> Map.merge(changes) |> Map.put(:boot, boot())

    with :ok <- write_whole(path, encode_identity(identity)),
         {:ok, stamp} <- stamp(path),
         :ok <- File.write(path(disk, "LOCK"), stamp, [:sync]) do
      {:ok, %{disk | identity: identity}}
    else
      {:error, %Error{}} = error -> error
      {:error, reason} -> disk_error("write", path(disk, "LOCK"), reason)
    end
  end

  @doc "Writes a file, all of it or nothing: under a name of its own first."
  def write_whole(path, bytes) do
    new = path <> ".new"

    with :ok <- File.write(new, bytes, [:sync]), :ok <- File.rename(new, path) do
      sync_dir(%{dir: Path.dirname(path)})
    else
      {:error, reason} ->
        File.rm(new)
        disk_error("write", path, reason)
    end
  end

  defp encode_identity(identity) do
    bytes = :erlang.term_to_binary(identity)
    ["causeway store\n", <<@format::16, :erlang.crc32(bytes)::32>>, bytes]
  end

  defp stamp(path) do
    case File.stat(path, time: :posix) do
      {:ok, stat} -> {:ok, "#{stat.major_device} #{stat.inode} #{stat.ctime}\n"}
      {:error, reason} -> disk_error("read", path, reason)
    end
  end

  # Tells one run of the machine from the next, where the system says; else nothing is assumed lost.
  defp boot do
    case File.read("/proc/sys/kernel/random/boot_id") do
      {:ok, id} -> String.trim(id)
      {:error, _} -> nil
    end
  end

  @doc false
  def disk_error(action, path, reason),
    do: {:error, %Error{reason: {:disk, action, path, reason}}}
end
