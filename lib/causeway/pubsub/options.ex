defmodule Causeway.PubSub.Options do
  @moduledoc false
  # The adapter's own options among those of Phoenix.PubSub.

  alias Causeway.Log.Options

  @schema [
    log: {:name, nil, "the name of a `Causeway.Log` that runs in this VM. Required."},
    durable:
      {:durable, [],
       "which topics are durable: `:all`, or a list of topics, of beginnings as in `\"orders:*\"`, of regular expressions " <>
         "and of functions from a topic to a boolean. All nodes must have the same."},
    fast:
      {{:in, [:distribution, :database]}, nil,
       "how the others go to other nodes. Default: `:distribution` where the VM is a node when it starts, otherwise " <>
         "`:database`."},
    node_name:
      {:text, nil, "what the node is called without distribution. Default: one of its own."},
    atoms:
      {{:in, [:existing, :create]}, :create,
       "whether a message may have atoms that this VM does not know. Whoever can write to the log's tables can make them: " <>
         "with `:existing`, messages with such atoms are left out."},
    timeout: {:timeout, 15_000, "milliseconds that a broadcast on a durable topic may take."}
  ]

  defstruct Keyword.keys(@schema) ++
              [:name, :adapter_name, :node, :id, :prefix, :pattern, :places]

  def docs, do: Causeway.Schema.docs(@schema)

  def new!(opts) do
    {own, phoenix} = Keyword.split(opts, Keyword.keys(@schema))
    own = Options.check!(own, @schema)
    own[:log] == nil && Options.bad!(:log, "is required: the name of a Causeway.Log")
    fast = own[:fast] || if(Node.alive?(), do: :distribution, else: :database)
    id = :crypto.strong_rand_bytes(12)
    prefix = "pubsub." <> inspect(phoenix[:name]) <> "."

    struct!(
      %__MODULE__{
        name: phoenix[:name],
        adapter_name: phoenix[:adapter_name],
        id: id,
        node: if(fast == :distribution, do: node(), else: own[:node_name] || node_name(id)),
        prefix: prefix,
        pattern: prefix <> ">"
      },
      Keyword.put(own, :fast, fast)
    )
  end

  defp node_name(id) do
    {:ok, host} = :inet.gethostname()
    "#{host}:#{System.pid()}:#{Base.encode32(binary_part(id, 0, 5), case: :lower)}"
  end

  @doc "Whether a topic is."
  def durable?([], _topic), do: false
  def durable?(:all, _topic), do: true
  def durable?(list, topic) when is_list(list), do: Enum.any?(list, &one?(&1, topic))

  defp one?(same, same), do: true
  defp one?(fun, topic) when is_function(fun, 1), do: fun.(topic) == true
  defp one?(%Regex{} = regex, topic), do: Regex.match?(regex, topic)

  defp one?(text, topic) when is_binary(text),
    do: String.ends_with?(text, "*") and String.starts_with?(topic, beginning(text))

  defp beginning(text), do: binary_part(text, 0, byte_size(text) - 1)
end
