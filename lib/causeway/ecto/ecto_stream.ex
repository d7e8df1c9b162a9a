if Code.ensure_loaded?(Ecto.Adapters.SQL) and Code.ensure_loaded?(Postgrex) do
  defmodule Causeway.Ecto.Stream do
    @moduledoc false
    # What Repo.stream and Ecto.Adapters.SQL.stream enumerate, and collect into.
    @derive {Inspect, only: [:statement]}
    defstruct [:conn, :statement, :params, :opts]

    defimpl Enumerable do
      alias Causeway.Ecto.Query

      def reduce(stream, acc, fun) do
        stream = %DBConnection.PrepareStream{
          conn: stream.conn,
          query: Query.new(stream.statement),
          params: stream.params,
          opts: stream.opts
        }

        DBConnection.reduce(stream, acc, fun)
      end

      def count(_), do: {:error, __MODULE__}
      def member?(_, _), do: {:error, __MODULE__}
      def slice(_), do: {:error, __MODULE__}
    end

    defimpl Collectable do
      alias Causeway.Ecto.Copy

      def into(%{conn: %DBConnection{} = conn, opts: opts} = stream) do
        copy = %Copy{statement: stream.statement}
        DBConnection.execute!(conn, copy, :begin, opts)

        {:ok,
         fn
           :ok, {:cont, data} ->
             DBConnection.execute!(conn, copy, {:data, data}, opts)
             :ok

           :ok, :done ->
             DBConnection.execute!(conn, copy, :done, opts)
             stream

           # Whoever fills it has failed.
           :ok, :halt ->
             DBConnection.execute(conn, copy, :fail, opts)
             stream
         end}
      end

      def into(_),
        do: raise(ArgumentError, "data can only be copied to database inside a transaction")
    end
  end
end
