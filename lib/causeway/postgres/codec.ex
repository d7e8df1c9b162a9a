defmodule Causeway.Postgres.Codec do
  @moduledoc false
  # What the parameters or the columns of one statement are: values of the server to terms, and back. Made by
  # Causeway.Postgres.Types, which knows the catalogue; the work is done in C, see c_src/nif/pg_codec.h.
  #
  #     params:  Types.params(types, oids, fetch)            encode/2, and param_formats for the request
  #     columns: Types.columns(types, columns, fetch)        decode_rows/4, and result_format for the request
  #     WAL:     Types.relation(types, columns, fetch)       ref for the decoder in C, decode_json/2 for what it gives

  alias Causeway.Postgres.{EncodeError, Json, Numeric, TextForm, TextValues, TypeWalk}

  @enforce_keys [:ref, :columns, :specs, :names, :options]
  defstruct [
    :ref,
    :columns,
    :specs,
    :names,
    :options,
    :json,
    :prepare,
    param_formats: <<>>,
    result_format: 1
  ]

  @typedoc """
  `columns` are OIDs and type modifiers; `param_formats` has a byte for each parameter, `result_format` is for all
  columns: 0 for text, 1 for binary, as in libpq. `json` is nil when no column holds any; `prepare` says whether Elixir
  has something to do with parameters before C has, and whether their types are to be inferred.
  """
  @type t :: %__MODULE__{
          ref: :causeway_nif.pg_codec(),
          columns: [{non_neg_integer, integer}],
          specs: [TypeWalk.spec()],
          names: [String.t()],
          options: options,
          json: list | nil,
          prepare: nil | :all | :infer,
          param_formats: binary,
          result_format: 0 | 1
        }

  @type options :: %{flags: [atom], json: Json.library()}

  # ---- parameters ----

  @doc """
  Each parameter's length, 32 bits, and bytes, in one binary; a length of -1 is NULL.
  """
  @spec encode(t, [term]) :: {:ok, binary} | {:error, EncodeError.t()}
  def encode(%__MODULE__{prepare: nil} = codec, params), do: encode_now(codec, params)

  def encode(%__MODULE__{} = codec, params) do
    with {:ok, params} <- prepare(codec, params), do: encode_now(codec, params)
  end

  defp encode_now(codec, params) do
    case :causeway_nif.pg_encode(codec.ref, params) do
      bytes when is_binary(bytes) -> {:ok, bytes}
      {:error, {_, _, :convert, _}} -> encode_converted(codec, params)
      {:error, reason} -> {:error, refusal(codec, reason)}
    end
  end

  defp encode_converted(codec, params) do
    case :causeway_nif.pg_encode(codec.ref, convert(codec.specs, params)) do
      bytes when is_binary(bytes) -> {:ok, bytes}
      {:error, reason} -> {:error, refusal(codec, reason)}
    end
  end

  @doc """
  Rows as `COPY ... FROM STDIN (FORMAT binary)` has them, without its header and trailer.
  """
  @spec encode_rows(t, [[term]]) :: {:ok, binary} | {:error, EncodeError.t()}
  def encode_rows(%__MODULE__{prepare: nil} = codec, rows), do: encode_rows_now(codec, rows)

  def encode_rows(%__MODULE__{} = codec, rows) do
    with {:ok, rows} <- prepare_rows(codec, rows, 0, []), do: encode_rows_now(codec, rows)
  end

  defp encode_rows_now(codec, rows) do
    case :causeway_nif.pg_encode_rows(codec.ref, rows) do
      {:error, {:row, _, {_, _, :convert, _}}} ->
        rows = for row <- rows, do: convert(codec.specs, row)
        rows_result(codec, :causeway_nif.pg_encode_rows(codec.ref, rows))

      result ->
        rows_result(codec, result)
    end
  end

  defp rows_result(_codec, bytes) when is_binary(bytes), do: {:ok, bytes}

  defp rows_result(codec, {:error, {:row, row, reason}}),
    do: {:error, %{refusal(codec, reason) | row: row}}

  defp rows_result(codec, {:error, reason}), do: {:error, refusal(codec, reason)}

  # What C leaves to be rounded: floats to decimal digits, large integers to floats. As many as fit.
  defp convert([spec | specs], [param | params]),
    do: [TypeWalk.map(spec, param, &round_number/2) | convert(specs, params)]

  defp convert(_specs, params), do: params

  defp round_number(:numeric, number) when is_float(number), do: Numeric.new(number)

  # Elixir has no infinity to round to; the text is refused, which the number would be, too.
  defp round_number(kind, number)
       when is_integer(number) and
              kind in [:float4, :float8, :point, :line, :lseg, :box, :path, :polygon, :circle] do
    :erlang.float(number)
  rescue
    ArgumentError -> Integer.to_string(number)
  end

  defp round_number(_kind, value), do: value

  # What Elixir does before C does the rest: documents, and the text of what is of unknown type.
  defp prepare(codec, params), do: prepare(codec.specs, params, codec, 1, [])

  defp prepare([spec | specs], [param | params], codec, at, done) do
    case prepare_one(spec, param, codec) do
      {:ok, param} -> prepare(specs, params, codec, at + 1, [param | done])
      {:error, kind, reason, bad} -> {:error, refusal(codec, {at - 1, kind, reason, bad})}
    end
  end

  defp prepare(_specs, params, _codec, _at, done), do: {:ok, Enum.reverse(done, params)}

  # A binary for a type that the server has named is the type's text.
  defp prepare_one(:literal, param, %{prepare: :all}) when is_binary(param), do: {:ok, param}
  defp prepare_one(:literal, nil, _codec), do: {:ok, nil}

  defp prepare_one(:literal, param, codec) do
    with {:error, bad} <- TextForm.encode(param, codec.options.json),
         do: {:error, :literal, :wrong, bad}
  end

  defp prepare_one(_spec, param, %{options: %{json: nil}}), do: {:ok, param}

  defp prepare_one(spec, param, %{options: %{json: library}}) do
    {:ok, Json.encode(spec, param, library)}
  rescue
    error -> {:error, :json, :json, error}
  end

  defp prepare_rows(codec, [row | rows], at, done) do
    case prepare(codec, row) do
      {:ok, row} -> prepare_rows(codec, rows, at + 1, [row | done])
      {:error, error} -> {:error, %{error | row: at}}
    end
  end

  defp prepare_rows(_codec, rows, _at, done), do: {:ok, Enum.reverse(done, rows)}

  defp refusal(_codec, {:count, n, given}),
    do: %EncodeError{reason: :count, param: n, value: given}

  defp refusal(_codec, {:list, value}), do: %EncodeError{reason: :list, value: value}

  defp refusal(codec, {at, kind, reason, value}) do
    %EncodeError{
      reason: reason,
      param: at + 1,
      type: Enum.at(codec.names, at),
      kind: kind,
      value: value
    }
  end

  defp refusal(_codec, :elimit), do: %EncodeError{reason: :too_large}
  defp refusal(_codec, :enomem), do: %EncodeError{reason: :out_of_memory}

  # ---- rows ----

  @doc """
  The rows of a frame, in front of `tail`: for each row, for each column, a length, 32 bits, and bytes.

  Errors: `:emalformed` - not values of these types, as when a composite was changed; `{:unknown_type, oid}` - of a
  record's field; `:elimit` - nested too deeply; `:enomem`.
  """
  @spec decode_rows(t, binary, non_neg_integer, [[term]]) :: {:ok, [[term]]} | {:error, term}
  def decode_rows(codec, bytes, n, tail \\ [])

  def decode_rows(%__MODULE__{result_format: 1, json: nil} = codec, bytes, n, tail) do
    case :causeway_nif.pg_decode_rows(codec.ref, bytes, n, tail) do
      {:error, reason} -> {:error, reason}
      rows -> {:ok, rows}
    end
  end

  def decode_rows(%__MODULE__{} = codec, bytes, n, tail) do
    case :causeway_nif.pg_decode_rows(codec.ref, bytes, n, []) do
      {:error, reason} -> {:error, reason}
      rows -> {:ok, Enum.map(rows, &finish_row(codec, &1)) ++ tail}
    end
  end

  @typedoc "What a result comes in: bytes, how many rows, and those themselves where they are decoded already."
  @type frame :: {binary, non_neg_integer} | {binary, non_neg_integer, [[term]]}

  @doc """
  A frame that has come while the server still sends others: with its rows, if C can make them. What it cannot is left for
  when all have come: it may be asked for then, and a library of the user's may raise.
  """
  @spec decode_early(t | nil, binary, non_neg_integer) :: frame
  def decode_early(%__MODULE__{result_format: 1, json: nil} = codec, bytes, n) do
    case decode_rows(codec, bytes, n) do
      {:ok, rows} -> {bytes, n, rows}
      {:error, _} -> {bytes, n}
    end
  end

  def decode_early(_codec, bytes, n), do: {bytes, n}

  @doc "The same without its rows."
  @spec undecoded(frame) :: frame
  def undecoded({bytes, n, _rows}), do: {bytes, n}
  def undecoded(frame), do: frame

  defp finish_row(%{result_format: 1} = codec, row), do: decode_json(codec, row)

  defp finish_row(codec, row),
    do: decode_json(codec, TextValues.decode_row(row, codec.specs, codec.columns, codec.options))

  @doc "Values of all columns with their documents decoded."
  @spec decode_json(t, [term]) :: [term]
  def decode_json(%__MODULE__{json: plan, options: options}, row),
    do: Json.decode_row(row, plan, options.json)
end
