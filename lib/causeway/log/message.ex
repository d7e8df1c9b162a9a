defmodule Causeway.Log.Message do
  @moduledoc """
  A message of a `Causeway.Log`.

    * `:payload` - what was published: a term, what a JSON library makes of JSON, or bytes
    * `:topic`
    * `:partition`, `:sequence` - its place: the numbers of a partition begin with 1 and have no gaps
    * `:time` - a `DateTime`, when it got its number, shortly before the commit; in a partition it does not decrease
    * `:publisher` - who published it: a node, or of SQL the connection's `application_name`
    * `:key` - what consumers keep in order, nil for the topic
    * `:metadata` - a map, or nil
    * `:raw` - nil, or the bytes of a payload that cannot be read here, as it is a term with atoms that this VM does not
      know (see the option `:atoms`) or is damaged. `:payload` is nil then
    * `:deliveries` - to a consumer: for the how manieth time; 1 for subscribers
  """

  alias Causeway.Log.Payload

  defstruct [
    :payload,
    :topic,
    :partition,
    :sequence,
    :time,
    :publisher,
    :key,
    :metadata,
    :raw,
    deliveries: 1
  ]

  @type t :: %__MODULE__{
          payload: term,
          topic: String.t(),
          partition: non_neg_integer,
          sequence: pos_integer,
          time: DateTime.t(),
          publisher: String.t(),
          key: String.t() | nil,
          metadata: map | nil,
          raw: binary | nil,
          deliveries: pos_integer
        }

  @doc false
  # Reads what it carries; `config` has `:atoms` and `:json`.
  def read(message, payload, metadata, config) do
    metadata = metadata(metadata, config)

    case Payload.decode(payload, config.atoms, config.json) do
      {:ok, term} -> %{message | payload: term, metadata: metadata}
      :error -> %{message | raw: payload, metadata: metadata}
    end
  end

  defp metadata(nil, _config), do: nil

  defp metadata(bytes, config) do
    case Payload.decode(bytes, config.atoms, config.json) do
      {:ok, metadata} -> metadata
      :error -> nil
    end
  end
end
