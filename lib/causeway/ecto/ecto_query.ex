if Code.ensure_loaded?(Ecto.Adapters.SQL) and Code.ensure_loaded?(Postgrex) do
  defmodule Causeway.Ecto.Query do
    @moduledoc false
    # A statement, as DBConnection takes it about: parsed and described once, parameters encoded and rows decoded in the
    # client, before the connection is taken from the pool and after it has been given back.
    #
    # Ecto keeps it in its cache, and copies it from there for each query: it has what that needs, and no more.

    alias Causeway.Ecto.CarriedCodec
    alias Causeway.Postgres.Types

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
      # Of parameters, as the request has them; 0 or 1, text or binary, of results.
      oids: "",
      formats: "",
      format: 1,
      # "" for none.
      name: "",
      # :prepared, by two round trips the first time; :direct, without parameters, by one; :copy.
      kind: :prepared,
      # Whether the connection keeps it by its name, for statements that Ecto makes anew each time.
      keep: false
    ]

    @type t :: %__MODULE__{}

    @doc "A statement of which only the text is known."
    @spec new(iodata) :: t
    def new(statement) do
      statement = IO.iodata_to_binary(statement)
      kind = if first_word(statement) == "copy", do: :copy, else: :prepared
      %__MODULE__{statement: statement, kind: kind}
    end

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
             params: params && CarriedCodec.new(params),
             oids: for(oid <- oids, into: "", do: <<oid::32>>),
             formats: if(params, do: params.param_formats, else: ""),
             result: result && CarriedCodec.new(result),
             format: if(result, do: result.result_format, else: 1),
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

    @doc "The rows of all frames, of which the last comes first."
    def rows(%{result: codec}, frames, opts) do
      case CarriedCodec.decode(codec, frames) do
        {:ok, rows} -> mapped(rows, opts[:decode_mapper])
        {:error, reason} -> raise DBConnection.ConnectionError, undecodable(reason)
      end
    end

    defp mapped(rows, nil), do: rows
    defp mapped(rows, mapper), do: Enum.map(rows, mapper)

    defp undecodable(reason) do
      "the server has sent what is no value of the type that it had said: #{inspect(reason)}. " <>
        "If a type was changed, the connections have to be made anew, as by Ecto.Adapters.SQL.disconnect_all/2"
    end
  end

  defimpl DBConnection.Query, for: Causeway.Ecto.Query do
    alias Causeway.Ecto.{CarriedCodec, Query}
    alias Causeway.Postgres.EncodeError

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
      case CarriedCodec.encode(codec, params) do
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

    # Rows are frames of values until here.
    def decode(query, {:frames, frames, result}, opts),
      do: %{result | rows: Query.rows(query, frames, opts)}

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
