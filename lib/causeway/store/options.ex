defmodule Causeway.Store.Options do
  @moduledoc false
  # One list says what there is, what it must be, and what it is for; docs and checks are made of it.

  alias Causeway.Schema
  alias Causeway.Store.Error

  @start [
    name: {:name, nil, "an atom, the store's name in this VM. Required."},
    replica:
      {:replica, nil,
       "a string that names this copy, different for each and always the same for one. Required."},
    dir: {:dir, nil, "where it is kept. Without it, it lives in memory only."},
    peers:
      {:peers, [],
       "the stores to replicate with: nodes, where a store of the same name runs, or `{name, node}`. One that " <>
         "is up is enough: the others are learned from it."},
    fsync:
      {:fsync, :always,
       "when a commit is on the disk: `:always` before it returns; `{:every, ms}`; `:never`, when the system " <>
         "likes. Whatever it is, a crash of the VM loses nothing; of the machine, the last moments."},
    before_commit:
      {:hooks, [],
       "functions, called with the operations of a transaction before it is committed, that return `{:ok, " <>
         "operations}` or `{:error, reason}`, which rolls it back."},
    after_commit:
      {:hooks, [],
       "functions, called with `%{operations: _, clock: _}` after a commit; a failure is reported."},
    rights_interval:
      {:positive, 200,
       "milliseconds between two looks at where rights in bounded counters are spent."}
  ]

  @transaction [
    after: {:clock, nil, "a `Causeway.Clock`: wait until this replica has seen it."},
    certify:
      {:boolean, false,
       "whether to fail with `{:conflict, addresses}` when somebody else wrote, since the transaction began, an " <>
         "object that it writes."},
    timeout:
      {:timeout, 5_000,
       "milliseconds to wait for `:after`, for the commit, and for rights in bounded counters."}
  ]

  @subscribe [since: {:clock, nil, "the clock of an earlier event, to go on after that."}]

  def docs(:start), do: Schema.docs(@start)
  def docs(:transaction), do: Schema.docs(@transaction)

  def start!(opts), do: check!(opts, @start) |> require!(:name) |> require!(:replica)

  @no_options for {key, {_, default, _}} <- @transaction, do: {key, default}
  def transaction!([]), do: @no_options
  def transaction!(opts), do: check!(opts, @transaction)
  def subscribe!(opts), do: check!(opts, @subscribe)

  def peer!(peer) do
    valid?(:peer, peer) || bad!(:peer, "#{expected(:peer)}, got #{inspect(peer)}")
    peer
  end

  defp check!(opts, schema) do
    is_list(opts) || bad!(:options, "expected a keyword list, got #{inspect(opts)}")

    for option <- opts, not match?({key, _} when is_atom(key), option) do
      bad!(option, "expected a keyword list")
    end

    for {key, _} <- opts, not Keyword.has_key?(schema, key) do
      bad!(
        key,
        "unknown; there are #{schema |> Keyword.keys() |> Enum.map_join(", ", &inspect/1)}"
      )
    end

    for {key, {type, default, _}} <- schema do
      value = Keyword.get(opts, key, default)

      value === default || valid?(type, value) ||
        bad!(key, "#{expected(type)}, got #{inspect(value)}")

      {key, normal(type, value)}
    end
  end

  defp require!(opts, key), do: if(opts[key] == nil, do: bad!(key, "is required"), else: opts)

  defp bad!(key, why), do: raise(Error, reason: {:bad_option, key, why})

  defp valid?(:name, name), do: is_atom(name) and name not in [nil, true, false]
  defp valid?(:replica, name), do: is_binary(name) and name != "" and byte_size(name) <= 200
  defp valid?(:dir, dir), do: is_binary(dir) or (is_list(dir) and List.ascii_printable?(dir))
  defp valid?(:peers, peers), do: is_list(peers) and Enum.all?(peers, &valid?(:peer, &1))
  defp valid?(:peer, {name, node}), do: valid?(:name, name) and valid?(:name, node)
  defp valid?(:peer, node), do: valid?(:name, node)
  defp valid?(:fsync, {:every, ms}), do: is_integer(ms) and ms > 0
  defp valid?(:fsync, policy), do: policy in [:always, :never]
  defp valid?(:hooks, hooks), do: is_list(hooks) and Enum.all?(hooks, &is_function(&1, 1))
  defp valid?(:positive, n), do: is_integer(n) and n > 0
  defp valid?(:clock, clock), do: is_struct(clock, Causeway.Clock)
  defp valid?(:boolean, value), do: is_boolean(value)
  defp valid?(:timeout, ms), do: is_integer(ms) and ms >= 0

  defp expected(:name), do: "expected an atom"
  defp expected(:replica), do: "expected a string of at most 200 bytes"
  defp expected(:dir), do: "expected a path"
  defp expected(:peers), do: "expected a list of nodes, or of {name, node}"
  defp expected(:peer), do: "expected a node or {name, node}"
  defp expected(:fsync), do: "expected :always, {:every, milliseconds} or :never"
  defp expected(:hooks), do: "expected a list of functions of one argument"
  defp expected(:positive), do: "expected a positive integer"
  defp expected(:clock), do: "expected a Causeway.Clock"
  defp expected(:boolean), do: "expected true or false"
  defp expected(:timeout), do: "expected milliseconds"

  defp normal(:dir, dir) when dir != nil, do: dir |> IO.chardata_to_string() |> Path.expand()
  defp normal(_, value), do: value
end
