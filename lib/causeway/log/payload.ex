defmodule Causeway.Log.Payload do
  @moduledoc false
  # What a message carries, as bytes that begin with what they are, so that a log holds what Elixir, SQL and others have
  # published side by side:
  #
  #     131      a term, in the external term format
  #     0        bytes
  #     other    JSON, which begins with neither

  @term 131
  @binary 0

  @doc "Bytes of a payload; raises what the JSON library raises."
  def encode(term, :term, _json), do: :erlang.term_to_binary(term)
  def encode(bytes, :binary, _json) when is_binary(bytes), do: <<@binary, bytes::binary>>
  def encode(term, :json, json), do: IO.iodata_to_binary(json.encode_to_iodata!(term))

  @doc "`{:ok, value}`, or `:error` for what cannot be read here."
  def decode(bytes, atoms, json)

  # What is compressed may be a thousand times as long, which nobody has agreed to.
  def decode(<<@term, 80, _::binary>>, _atoms, _json), do: :error

  def decode(<<@term, _::binary>> = bytes, :existing, _json) do
    {:ok, :erlang.binary_to_term(bytes, [:safe])}
  rescue
    ArgumentError -> :error
  end

  def decode(<<@term, _::binary>> = bytes, :create, _json) do
    {:ok, :erlang.binary_to_term(bytes)}
  rescue
    ArgumentError -> :error
  end

  def decode(<<@binary, bytes::binary>>, _atoms, _json), do: {:ok, bytes}
  def decode(text, _atoms, nil), do: {:ok, text}

  def decode(text, _atoms, json) do
    {:ok, json.decode!(text)}
  rescue
    _ -> :error
  end
end
