defmodule Causeway.Log.Error do
  @moduledoc """
  What went wrong in a log, in `:reason` for programs and in `message/1` for people.

  Reasons:

    * `{:bad_option, option, why}`, `{:bad_topic, topic, why}`, `{:bad_payload, term, why}`
    * `{:too_large, bytes, limit}` - a message with its metadata
    * `{:not_running, name}` - no such log in this VM
    * `{:not_ready, name, why}` - it has not been connected to its server yet
    * `{:settling, name}` - the server is another one since a failover, and what is here is still to be compared with it
    * `:timeout` - it was not committed in time, and may be yet
    * `{:unknown, error}` - the connection was lost, and nobody knows whether it was committed
    * `{:server, error}` - the server has refused, and nothing was done: a `Causeway.Postgres.Error`, or the repository's error
    * `{:newer, schema, there, here}` - the tables are of a newer release
    * `{:not_installed, schema}` - there are no tables
    * `{:partitions, schema, there, asked}` - the tables have another number of partitions
    * `{:has_members, group, members}` - a consumer group that is to be deleted has members, by what they are called
    * `{:no_group, group}` - no such consumer group
    * `{:not_seen, repo, group, error}` - the repository of `transactional:` is not on the log's database, or not there
    * `{:isolation, repo, level}` - its transactions see no acknowledgement that is made while they run
  """

  defexception [:reason]

  @type t :: %__MODULE__{reason: term}

  @impl true
  def message(%__MODULE__{reason: reason}), do: format(reason)

  defp format({:bad_option, option, why}), do: "option #{inspect(option)}: #{why}"
  defp format({:bad_topic, topic, why}), do: "#{short(topic)} cannot be a topic: #{why}"
  defp format({:bad_payload, term, why}), do: "#{short(term)} cannot be published: #{why}"

  defp format({:too_large, bytes, limit}) do
    "the message has #{bytes} bytes with its metadata, and #{limit} is the most; publish where it is kept, or raise " <>
      "max_bytes in the table log_settings"
  end

  defp format({:not_running, name}) do
    "no log #{inspect(name)} runs in this VM; start it with {Causeway.Log, name: #{inspect(name)}, connection: [...]}"
  end

  defp format({:not_ready, name, why}),
    do:
      "the log #{inspect(name)} has no connection to its server yet#{why && ": " <> reason(why)}"

  defp format({:settling, name}) do
    "the log #{inspect(name)} is at another server since a failover, and has not compared yet what that one lacks"
  end

  defp format(:timeout) do
    "it was not committed in time; it may be yet, or not: give it more time with the option :timeout"
  end

  defp format({:unknown, error}),
    do: "nobody knows whether it was committed: #{Exception.message(error)}"

  defp format({:server, error}), do: Exception.message(error)

  defp format({:newer, schema, there, here}) do
    "the tables in schema #{schema} are of version #{there}, and this release knows #{here}; update causeway here"
  end

  defp format({:not_installed, schema}) do
    "there is no log in schema #{schema}; make it with Causeway.Log.Migration.up/2, or start the log with install: true"
  end

  defp format({:partitions, schema, there, asked}) do
    "the log in schema #{schema} has #{there} partitions, which cannot be changed, and #{asked} were asked for; leave the " <>
      "option out, or use another schema"
  end

  defp format({:has_members, group, members}) do
    "the consumer group #{short(group)} has members: #{Enum.join(members, ", ")}; stop them, or wait until the lease of those " <>
      "that have died is over, or give force: true"
  end

  defp format({:no_group, group}), do: "there is no consumer group #{short(group)} in this log"

  defp format({:isolation, repo, level}) do
    "transactional: #{inspect(repo)} has #{level} transactions, which would fail one after the other; give it " <>
      ~s|parameters: [default_transaction_isolation: "read committed"], or the consumer a repository that has|
  end

  defp format({:not_seen, repo, group, error}) do
    "transactional: #{inspect(repo)} does not see the consumer group #{short(group)}; the repository has to run before its " <>
      "consumers, on the log's own database#{error && ": " <> Exception.message(error)}"
  end

  defp format(reason), do: inspect(reason)

  defp reason(%{__exception__: true} = error), do: Exception.message(error)
  defp reason(other), do: inspect(other)

  defp short(term), do: Causeway.Error.short(term)
end
