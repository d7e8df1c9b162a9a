if Code.ensure_loaded?(Ecto.Adapters.SQL) and Code.ensure_loaded?(Postgrex) do
  defmodule Causeway.Ecto.Errors do
    @moduledoc false
    # What goes wrong, as users of Ecto and Postgrex match it: `Postgrex.Error` for what the server says,
    # `DBConnection.ConnectionError` for the connection.

    alias Causeway.Postgres.Error

    @doc "An error of the server, or of a statement that was cancelled at its deadline."
    def server(why, fields, connection_id, statement) do
      error = %Postgrex.Error{connection_id: connection_id, query: statement}
      said = Error.fields(fields)

      # What libpq or the port program says has no code.
      if said.pg_code,
        do: %{error | postgres: explained(said, why)},
        else: %{error | message: said[:message]}
    end

    defp explained(postgres, :timeout) do
      hint =
        "The option :cancel_after gave it no more time. The connection goes on; what was written is undone."

      Map.put_new(postgres, :hint, hint)
    end

    defp explained(postgres, _why), do: postgres

    @doc "A notice, as results have it in `:messages`."
    def notice(fields), do: Error.fields(fields)

    @doc "The connection is gone, of an error if one came with it: the server's last words, or libpq's."
    def lost(why, nil, _connection_id, _statement), do: lost(why)

    def lost(why, {:error, reason, fields}, connection_id, statement) do
      case server(reason, fields, connection_id, statement) do
        %{postgres: nil, message: message} -> lost(message || why)
        error -> error
      end
    end

    def lost(why), do: %DBConnection.ConnectionError{message: why, reason: :error}

    @doc "The connection could not be made."
    def connect(why, message) do
      case Error.connect(why, message) do
        %{postgres: nil, detail: detail} ->
          %DBConnection.ConnectionError{message: detail, reason: :error}

        %{postgres: postgres} ->
          %Postgrex.Error{postgres: postgres}
      end
    end
  end
end
