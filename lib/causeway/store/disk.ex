defmodule Causeway.Store.Disk do
  @moduledoc false
  # A store's directory: who it belongs to, and that nobody else has it open.
  #
  #     LOCK              locked while the store is open
  #     IDENTITY          the replica, and the actor under which it writes
  #     checkpoint-N      the state after record N
  #     log-N             records from N on
  #
  # An actor's writes are numbered, and no number may be used twice. A directory that was copied or brought
  # back from a backup would do so. Its IDENTITY then lies in another inode than it says, and the store
  # goes on under a new actor. So it does after a crash of the machine that may have lost the log's end.

  alias Causeway.Store.Error

  defstruct [:dir, :lock, :identity]

  @format 1

  @spec open(Path.t(), String.t(), term()) ::
          {:ok, %__MODULE__{}, :same | {:new_actor, atom()}} | {:error, Error.t()}
  def open(dir, replica, fsync) do
    with :ok <- make_dir(dir),
         {:ok, lock} <- lock(dir),
         {:ok, old} <- read_identity(dir),
         :ok <- check(dir, old, replica) do
      {identity, fate} = identity(dir, old, replica)
      disk = %__MODULE__{dir: dir, lock: lock, identity: identity}

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

  # ---- opening ----

  defp make_dir(dir) do
    with {:error, reason} <- File.mkdir_p(dir), do: disk_error("make the directory", dir, reason)
  end

  defp lock(dir) do
    path = Path.join(dir, "LOCK")

    case :causeway_nif.file_lock(IO.chardata_to_string(path)) do
      {:ok, lock} -> {:ok, lock}
      {:error, :locked} -> {:error, %Error{reason: {:locked, dir}}}
      {:error, reason} -> disk_error("lock", path, reason)
    end
  end

  defp read_identity(dir) do
    path = Path.join(dir, "IDENTITY")

    case File.read(path) do
      {:ok, bytes} -> decode_identity(bytes, path)
      {:error, :enoent} -> if bare?(dir), do: {:ok, nil}, else: corrupt(path, "missing")
      {:error, reason} -> disk_error("read", path, reason)
    end
  end

  defp bare?(dir) do
    {:ok, names} = File.ls(dir)
    not Enum.any?(names, &String.starts_with?(&1, ["log-", "checkpoint-"]))
  end

  defp decode_identity(<<"causeway store\n", format::16, crc::32, bytes::binary>>, path) do
    cond do
      format > @format -> {:error, %Error{reason: {:newer_format, path}}}
      :erlang.crc32(bytes) != crc -> corrupt(path, "checksum")
      true -> {:ok, :erlang.binary_to_term(bytes, [:safe])}
    end
  end

  defp decode_identity(_, path), do: corrupt(path, "not an identity")

  defp corrupt(path, what), do: {:error, %Error{reason: {:corrupt, path, 0, what}}}

  defp check(_dir, nil, _replica), do: :ok
  defp check(_dir, %{replica: replica}, replica), do: :ok

  defp check(dir, %{replica: there}, asked),
    do: {:error, %Error{reason: {:wrong_replica, dir, there, asked}}}

  defp identity(_dir, nil, replica),
    do: {%{replica: replica, actor: replica, uuid: :rand.bytes(16)}, :same}

  defp identity(dir, old, replica) do
    cond do
      old.inode != inode(Path.join(dir, "IDENTITY")) ->
        {%{old | actor: actor_name(replica)}, {:new_actor, :copied}}

      not old.clean and old.fsync != :always and old.boot != boot() ->
        {%{old | actor: actor_name(replica)}, {:new_actor, :machine_crashed}}

      true ->
        {old, :same}
    end
  end

  @doc "A name under which nobody has written yet."
  def actor_name(replica),
    do: replica <> "~" <> Base.encode32(:rand.bytes(5), case: :lower)

  # ---- IDENTITY ----

  # Under a name of its own first: it must be whole, and say in which inode it is.
  defp write_identity(disk, changes) do
    path = path(disk, "IDENTITY")
    new = path <> ".new"

    with {:touch, :ok} <- {:touch, File.write(new, "")},
         identity =
           disk.identity |> Map.merge(changes) |> Map.merge(%{inode: inode(new), boot: boot()}),
         {:write, :ok} <- {:write, File.write(new, encode_identity(identity), [:sync])},
         {:rename, :ok} <- {:rename, File.rename(new, path)} do
      {:ok, %{disk | identity: identity}}
    else
      {_, {:error, reason}} -> disk_error("write", path, reason)
    end
  end

  defp encode_identity(identity) do
    bytes = :erlang.term_to_binary(identity)
    ["causeway store\n", <<@format::16, :erlang.crc32(bytes)::32>>, bytes]
  end

  defp inode(path) do
    {:ok, stat} = File.stat(path)
    {stat.major_device, stat.inode}
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
