if Code.ensure_loaded?(Ecto.Adapters.SQL) and Code.ensure_loaded?(Postgrex) do
  defmodule Causeway.Ecto.Script do
    @moduledoc false
    # SQL of several statements, whose values the server sends as texts.
    defstruct [:statement]

    defimpl DBConnection.Query do
      alias Causeway.Ecto.Scripts

      def parse(script, _), do: script
      def describe(script, _), do: script
      def encode(_script, params, _), do: params
      def decode(_script, results, _), do: Enum.map(results, &Scripts.decode/1)
    end

    defimpl String.Chars do
      def to_string(script), do: script.statement
    end
  end

  defmodule Causeway.Ecto.Scripts do
    @moduledoc false
    # query_many: one message, one answer for each statement in it. Without parameters, as PostgreSQL has it.

    alias Causeway.Ecto.{Script, Statements}
    alias Causeway.Postgres.{Codec, TextValues, Types}

    def run(conn, sql, [], opts) do
      script = %Script{statement: IO.iodata_to_binary(sql)}

      case DBConnection.prepare_execute(conn, script, [], opts) do
        {:ok, _, results} -> {:ok, results}
        {:error, error} -> {:error, error}
      end
    end

    def run(_conn, _sql, _params, _opts) do
      raise ArgumentError,
            "query_many takes no parameters: PostgreSQL knows them in single statements only"
    end

    @doc "The results, each with what decodes its rows."
    def execute(s, script, opts) do
      with {:ok, ended, notices, s} <- Statements.script(s, script.statement, opts),
           {:ok, results} <- results(s, ended, notices, []),
           do: {:ok, script, results, s}
    end

    defp results(_s, [], _notices, done), do: {:ok, Enum.reverse(done)}

    defp results(s, [{:ok, _, frames, columns} = ended | rest], notices, done) do
      result = Statements.result(ended, notices, s)

      with {:ok, codec} <- codec(s, columns),
           do: results(s, rest, [], [{result, columns, codec, frames} | done])
    end

    defp codec(_s, none) when none in [nil, []], do: {:ok, nil}

    defp codec(s, columns) do
      types = :ets.lookup_element(s.table, :types, 2)
      columns = for {_, oid, mod, _, _} <- columns, do: {oid, mod}

      with {:error, error} <- Types.columns(types, columns, &Statements.catalogue(s, &1)),
           do: {:error, error, s}
    end

    @doc false
    def decode({result, _columns, nil, _frames}), do: result

    def decode({result, columns, codec, frames}) do
      rows =
        for row <- Statements.texts(frames, length(columns)) do
          row = TextValues.decode_row(row, codec.specs, codec.columns, codec.options)
          Codec.decode_json(codec, row)
        end

      %{result | columns: for({name, _, _, _, _} <- columns, do: name), rows: rows}
    end
  end
end
