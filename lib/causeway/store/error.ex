defmodule Causeway.Store.Error do
  @moduledoc """
  What went wrong in a store, in `:reason` for programs and in `message/1` for people. What a document
  refuses is a `Causeway.Error`.

  Reasons:

    * `{:conflict, addresses}` - with `certify: true`: somebody else wrote these objects since the
      transaction's snapshot
    * `{:behind, missing}` - the clock waited for has not been seen in time; by replica, how many writes
      have been seen and how many were asked for
    * `{:rolled_back, reason}` - by `Causeway.Store.rollback/2`, or by a hook before commit
    * `{:not_running, name}` - no such store in this VM
    * `{:no_transaction, what}` - a transaction that has ended, or is another process's
    * `{:bad_option, option, why}` and `{:bad_address, term}`
    * `{:disk, action, path, reason}` - the file system refused; of a commit, nothing was done
    * `{:checkpoint_crashed, dir, reason}` - the state is in the log all the same
    * `{:locked, dir}` - another VM, or another store of this one, has the directory open
    * `{:wrong_replica, dir, there, asked}` - the directory belongs to another replica
    * `{:newer_format, path}` - written by a newer release
    * `{:reused, actor, n}` - the replica was restored from a backup, and wrote before it met a peer that has `n` of
      its earlier writes; the peer does not take it in
    * `{:corrupt, path, offset, what}` - a file is damaged, not merely cut short by a crash; the message says
      how to salvage
  """

  defexception [:reason]

  @type t :: %__MODULE__{reason: term()}

  @impl true
  def message(%__MODULE__{reason: reason}), do: format(reason)

  defp format({:conflict, addresses}) do
    "#{Enum.map_join(addresses, ", ", &inspect/1)} changed since the transaction's snapshot; run it again"
  end

  defp format({:behind, missing}) do
    lag =
      Enum.map_join(missing, ", ", fn {replica, seen, asked} ->
        "#{seen} of #{asked} writes of #{inspect(replica)}"
      end)

    "this replica has not caught up in time: it has seen #{lag}; wait longer with :timeout, or read " <>
      "without :after"
  end

  defp format({:rolled_back, reason}), do: "the transaction was rolled back: #{inspect(reason)}"

  defp format({:not_running, name}) do
    "no store #{inspect(name)} runs in this VM; start it with {Causeway.Store, name: #{inspect(name)}, ...}"
  end

  defp format({:no_transaction, what}) do
    "#{inspect(what)} is no transaction of this process that is under way; it has been committed or rolled " <>
      "back, or belongs to another process"
  end

  defp format({:bad_option, option, why}), do: "option #{inspect(option)}: #{why}"

  defp format({:bad_address, term}) do
    "#{inspect(term)} is no address; one looks like {bucket, key} or [bucket, key | path]"
  end

  defp format({:disk, action, path, reason}) do
    "could not #{action} #{path}: #{:file.format_error(reason)} (#{inspect(reason)})#{disk_advice(reason)}"
  end

  defp format({:checkpoint_crashed, dir, reason}) do
    "writing a checkpoint in #{dir} failed: #{Exception.format_exit(reason)}; all that was committed is in the log"
  end

  defp format({:locked, dir}) do
    "#{dir} is open in another VM, or in another store of this one; a directory is for one store at a time"
  end

  defp format({:wrong_replica, dir, there, asked}) do
    "#{dir} belongs to replica #{inspect(there)}, and was opened for #{inspect(asked)}; a replica's directory " <>
      "cannot become another's, start that one with an empty directory and let it catch up"
  end

  defp format({:reused, actor, n}) do
    "this replica was restored from a backup and has written since, under numbers that a peer knows for other " <>
      "writes: it has #{n} of #{inspect(actor)}. Move the directory aside, start with an empty one, and write again " <>
      "what was written since"
  end

  defp format({:newer_format, path}) do
    "#{path} was written by a newer release of causeway; update it here"
  end

  defp format({:corrupt, path, offset, what}) do
    file = path |> Path.basename() |> String.replace(~r/-.*/, "")

    "#{path} is damaged at byte #{offset} (#{what}), and no interrupted write would have left it so. To salvage, keep " <>
      "a copy of #{Path.dirname(path)}; then #{salvage(file, path, offset)}"
  end

  defp format(reason), do: inspect(reason)

  defp disk_advice(:enospc), do: "; make room"
  defp disk_advice(reason) when reason in [:eacces, :eperm], do: "; the VM's user must own it"
  defp disk_advice(_), do: ""

  # Without LOCK, it goes on as a new actor: numbers of writes that are lost here, but seen elsewhere, are not given
  # again.
  defp salvage("log", path, offset) do
    catch_up() <>
      "cut the file off there (truncate -s #{offset} #{path}), delete the log files after it and the file LOCK, which " <>
      "loses what was committed later"
  end

  defp salvage("checkpoint", _path, _offset) do
    catch_up() <>
      "only a backup has what was in it: put all of its files there, and no others"
  end

  defp salvage("DISCONNECTED", _path, _offset),
    do: "delete the file, and disconnect again from those that shall not be replicated with"

  defp salvage(_identity, path, _offset) do
    "start a store of the same replica with an empty directory, stop it, and copy its IDENTITY to #{path}, which " <>
      "loses nothing"
  end

  defp catch_up do
    "delete all files in it but IDENTITY, start the store, and let it catch up from a peer. Without a peer, "
  end
end
