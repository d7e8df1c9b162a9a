if Code.ensure_loaded?(Ecto.Adapters.SQL) and Code.ensure_loaded?(Postgrex) do
  defmodule Causeway.Ecto.Query do
    @moduledoc false
    # A statement, as DBConnection takes it about: parsed and described once, parameters encoded and rows decoded in the
    # client, before the connection is taken from the pool and after it has been given back.
    #
    # Ecto keeps it in its cache, and copies it from there for each query: it has what that needs, and no more.

    alias Causeway.Postgres.{Codec, Types}

    @enforce_keys [:statement]
    defstruct [
      :statement,
      # What Ecto compares: another one means that the statement was prepared anew.
      :ref,
      # Codecs; nil where there is nothing to code. What the server said that the statement takes and gives.
      :params,
      :result,
      :described,
      :columns,
      # Of parameters, as the request has them.
      oids: "",
      formats: "",
      # "" for none.
      name: "",
      # :prepared, by two round trips the first time; :direct, without parameters, by one; :copy.
      kind: :prepared,
      # Whether the connection keeps it by its name, for statements that Ecto makes anew each time.
      keep: false
    ]

    @type t :: %__MODULE__{}

    @doc "With what the server has said of it."
    @spec described(t, Types.t(), [non_neg_integer], list, Types.fetch()) ::
            {:ok, t} | {:error, term}
    def described(query, types, oids, columns, fetch) do
      with {:ok, params} <- params(types, oids, fetch),
           {:ok, result} <- result(types, columns, fetch) do
        {:ok,
         %{
           query
           | ref: make_ref(),
             params: params,
             oids: for(oid <- oids, into: "", do: <<oid::32>>),
             formats: if(params, do: params.param_formats, else: ""),
             result: result,
             described: fingerprint(oids, columns),
             columns: names(columns)
         }}
      end
    end

    @doc "What tells whether a statement is what it was when it was described."
    def fingerprint(oids, columns),
      do: :erlang.phash2({oids, for({name, oid, mod, _, _} <- columns, do: {name, oid, mod})})

    defp params(_types, [], _fetch), do: {:ok, nil}
    defp params(types, oids, fetch), do: Types.params(types, oids, fetch)

    defp result(_types, [], _fetch), do: {:ok, nil}

    defp result(types, columns, fetch),
      do: Types.columns(types, for({_, oid, mod, _, _} <- columns, do: {oid, mod}), fetch)

    defp names(columns), do: for({name, _, _, _, _} <- columns, do: name)

    @doc "The first word of a statement, in lower case."
    def first_word(statement) do
      case Regex.run(~r/\A(?:\s|\(|--[^\n]*\n|\/\*.*?\*\/)*([a-z]+)/is, statement) do
        [_, word] -> String.downcase(word)
        nil -> ""
      end
    end

    @doc "0 for text, 1 for binary: what rows are asked for as."
    def result_format(%{result: nil}), do: 1
    def result_format(%{result: codec}), do: codec.result_format

    @doc false
    def mapped(rows, opts) do
      case opts[:decode_mapper] do
        nil -> rows
        mapper -> Enum.map(rows, mapper)
      end
    end

    @doc false
    def decode_frames(codec, frames), do: decode_frames(codec, frames, [])

    defp decode_frames(_codec, [], rows), do: rows

    defp decode_frames(codec, [{values, n} | frames], rows) do
      case Codec.decode_rows(codec, values, n, rows) do
        {:ok, rows} ->
          decode_frames(codec, frames, rows)

        {:error, reason} ->
          raise DBConnection.ConnectionError,
                "the server has sent what is no value of the type that it had said: #{inspect(reason)}. " <>
                  "If a type was changed, the connections have to be made anew"
      end
    end
  end

  defimpl DBConnection.Query, for: Causeway.Ecto.Query do
    alias Causeway.Ecto.Query
    alias Causeway.Postgres.{Codec, EncodeError}

    def parse(query, _opts) do
      %{
        query
        | name: IO.iodata_to_binary(query.name),
          statement: IO.iodata_to_binary(query.statement)
      }
    end

    def describe(query, _opts), do: query

    def encode(%{params: nil}, [], _opts), do: ""
    def encode(%{params: nil} = query, params, _opts), do: miscounted!(query, 0, params)

    def encode(%{params: codec} = query, params, _opts) do
      case Codec.encode(codec, params) do
        {:ok, values} ->
          values

        {:error, %EncodeError{reason: :count, param: n}} ->
          miscounted!(query, n, params)

        {:error, error} ->
          raise DBConnection.EncodeError, Exception.message(error)
      end
    end

    defp miscounted!(query, n, params) do
      raise ArgumentError,
            "parameters must be of length #{n} for query #{inspect(query)}, got: #{length(params)}"
    end

    # Rows are frames of values, the last first, until here.
    def decode(%{result: codec}, {:frames, frames, result}, opts) when codec != nil,
      do: %{result | rows: codec |> Query.decode_frames(frames) |> Query.mapped(opts)}

    def decode(_query, result, _opts), do: result
  end

  defimpl String.Chars, for: Causeway.Ecto.Query do
    def to_string(query), do: IO.iodata_to_binary(query.statement)
  end

  # The codecs are large and tell nobody anything.
  defimpl Inspect, for: Causeway.Ecto.Query do
    import Inspect.Algebra

    def inspect(query, opts) do
      fields = for key <- [:name, :statement, :columns], do: {key, Map.fetch!(query, key)}
      concat(["#Causeway.Ecto.Query<", to_doc(fields, opts), ">"])
    end
  end
end
