if Code.ensure_loaded?(Ecto.Adapters.SQL) and Code.ensure_loaded?(Postgrex) do
  defmodule Causeway.Ecto.CarriedCodec do
    @moduledoc false
    # A codec as a query carries it. Ecto's cache and the connection's table copy the query each time; what the codec
    # in C does not need for most values (names for errors, documents' places) goes along as it is when it is little,
    # and else as one binary, which is not copied: an insert_all has thousands of parameters.

    alias Causeway.Postgres.Codec

    @enforce_keys [:ref, :plain?, :rest]
    defstruct [:ref, :plain?, :rest]

    @type t :: %__MODULE__{ref: :causeway_nif.pg_codec(), plain?: boolean, rest: term}

    @little 32

    @spec new(Codec.t()) :: t
    def new(%Codec{} = codec) do
      %__MODULE__{
        ref: codec.ref,
        plain?: codec.json == nil and codec.result_format == 1,
        rest: packed(codec)
      }
    end

    defp packed(%{specs: specs} = codec) do
      if length(specs) > @little,
        do: :erlang.term_to_binary(%{codec | ref: nil}),
        else: codec
    end

    @doc "The codec as it was."
    @spec whole(t) :: Codec.t()
    def whole(%{rest: rest, ref: ref}) when is_binary(rest),
      do: %{:erlang.binary_to_term(rest) | ref: ref}

    def whole(%{rest: codec}), do: codec

    @spec encode(t, [term]) :: {:ok, binary} | {:error, Exception.t()}
    def encode(%{plain?: true} = carried, params) do
      case :causeway_nif.pg_encode(carried.ref, params) do
        values when is_binary(values) -> {:ok, values}
        # Some it leaves to the codec to round, and errors to tell of.
        {:error, _} -> Codec.encode(whole(carried), params)
      end
    end

    def encode(carried, params), do: Codec.encode(whole(carried), params)

    @doc "The rows of all frames, of which the last comes first."
    @spec decode(t, [{binary, non_neg_integer}]) :: {:ok, [[term]]} | {:error, term}
    def decode(carried, frames), do: decode_frames(whole(carried), frames, [])

    defp decode_frames(_codec, [], rows), do: {:ok, rows}

    defp decode_frames(codec, [{values, n} | frames], rows) do
      with {:ok, rows} <- Codec.decode_rows(codec, values, n, rows),
           do: decode_frames(codec, frames, rows)
    end
  end
end
