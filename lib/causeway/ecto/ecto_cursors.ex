if Code.ensure_loaded?(Ecto.Adapters.SQL) and Code.ensure_loaded?(Postgrex) do
  defmodule Causeway.Ecto.Cursors do
    @moduledoc false
    # Streams of rows, by the server's cursors: other statements may run between two parts. The first part comes with
    # the cursor's declaration. What has no cursor (INSERT ... RETURNING) is run when it is declared, as the server
    # would do it with one, and comes in one part.

    alias Causeway.Ecto.{Query, Statements}

    # How many rows a part has; 0 is all of them in one, as Postgrex has it.
    defstruct [:name, :max_rows, :first]

    @max_rows 500

    @doc "Raises an `ArgumentError` unless the option `:max_rows` can be."
    def check_max_rows!(opts) do
      n = Keyword.get(opts, :max_rows, @max_rows)

      (is_integer(n) and n >= 0) ||
        raise ArgumentError,
              "option :max_rows: expected a number of rows, or 0 for all at once, got #{inspect(n)}"
    end

    def declare(s, query, values, opts) do
      case Query.first_word(query.statement) do
        word when word in ~w(select values table) -> open(s, query, values, opts)
        "with" -> try_open(s, query, values, opts)
        _ -> run(s, query, values, opts)
      end
    end

    # WITH may write, which a cursor does not.
    defp try_open(s, query, values, opts) do
      case open(s, query, values, Keyword.put(opts, :mode, :savepoint)) do
        {:error, %{postgres: %{code: :feature_not_supported}}, s} -> run(s, query, values, opts)
        other -> other
      end
    end

    defp open(s, query, values, opts) do
      name = "causeway_cursor_#{System.unique_integer([:positive])}"
      cursor = %__MODULE__{name: name, max_rows: Keyword.get(opts, :max_rows, @max_rows)}
      declare = "DECLARE #{name} NO SCROLL CURSOR FOR #{query.statement}"

      steps = [
        {:query, declare, query.oids, values, query.formats, 1},
        fetch_step(query, cursor)
      ]

      with {:ok, [_, ended], notices, s} <- Statements.perform(s, steps, query.statement, opts),
           do: {:ok, query, %{cursor | first: {ended, notices}}, s}
    end

    defp fetch_step(query, cursor) do
      {:query, "FETCH #{rows(cursor.max_rows)} FROM #{cursor.name}", "", "", "", query.format}
    end

    defp rows(0), do: "ALL"
    defp rows(n), do: "FORWARD #{n}"

    defp run(s, query, values, opts) do
      with {:ok, query, result, s} <- Statements.execute(s, query, values, opts),
           do: {:ok, query, %__MODULE__{first: result}, s}
    end

    # ---- parts ----

    def fetch(s, _query, %{name: nil, first: result}, _opts), do: {:halt, result, s}

    # The first part is the cursor's, which is the same each time it is asked; what was given is told by the table.
    def fetch(s, query, %{first: {ended, notices}} = cursor, opts) do
      if :ets.insert_new(s.table, {{:cursor, cursor.name}}),
        do: part(s, query, cursor, ended, notices),
        else: next(s, query, cursor, opts)
    end

    defp next(s, query, cursor, opts) do
      with {:ok, [ended], notices, s} <-
             Statements.perform(s, [fetch_step(query, cursor)], query.statement, opts),
           do: part(s, query, cursor, ended, notices)
    end

    defp part(s, query, cursor, {:ok, _, frames, _} = ended, notices) do
      result = %{Statements.result(ended, notices, s) | command: :select, columns: query.columns}
      more = if cursor.max_rows in 1..result.num_rows//1, do: :cont, else: :halt
      {more, {:frames, frames, result}, s}
    end

    # ---- ends ----

    def close(s, _query, %{name: nil}, _opts), do: {:ok, nil, s}

    def close(s, query, cursor, opts) do
      :ets.delete(s.table, {:cursor, cursor.name})
      close_now(s, query, cursor, opts)
    end

    # A failed transaction takes its cursors with it.
    defp close_now(%{status: status} = s, _query, _cursor, _opts) when status != :transaction,
      do: {:ok, nil, s}

    defp close_now(s, query, cursor, opts) do
      opts = Keyword.delete(opts, :mode)

      with {:ok, [ended], notices, s} <-
             Statements.perform(s, [{:simple, "CLOSE #{cursor.name}"}], query.statement, opts),
           do: {:ok, Statements.result(ended, notices, s), s}
    end
  end
end
