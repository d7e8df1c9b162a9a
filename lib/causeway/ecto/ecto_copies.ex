if Code.ensure_loaded?(Ecto.Adapters.SQL) and Code.ensure_loaded?(Postgrex) do
  defmodule Causeway.Ecto.Copy do
    @moduledoc false
    # COPY ... FROM STDIN that is under way.
    defstruct [:statement]

    defimpl DBConnection.Query do
      def parse(copy, _), do: copy
      def describe(copy, _), do: copy

      def encode(_copy, {:data, data}, _) do
        {:data, IO.iodata_to_binary(data)}
      rescue
        ArgumentError ->
          reraise ArgumentError,
                  [message: "expected iodata to copy to database, got: " <> inspect(data)],
                  __STACKTRACE__
      end

      def encode(_copy, message, _), do: message
      def decode(_copy, result, _), do: result
    end

    defimpl String.Chars do
      def to_string(copy), do: copy.statement
    end
  end

  defmodule Causeway.Ecto.Copies do
    @moduledoc false
    # COPY, both ways. While one is under way the connection is for nothing else, and its port program is the client's:
    # `copy` in the state says so.
    #
    #     {:in, window, room}    how many bytes may be on their way, and how many more just now
    #     {:out, lines?}         whether what comes is lines of text

    alias Causeway.Ecto.{Errors, Keeper, Statements, Wire}
    alias Causeway.Postgres.Protocol

    # ---- out ----

    @doc "Runs COPY ... TO STDOUT to its end; rows are what it gives."
    def read(s, query, opts) do
      Statements.alone(s, opts, fn s ->
        with {:ok, query, _cursor, s} <- open(s, query, Statements.deadline(opts)),
             do: read_all(s, query, [])
      end)
    end

    defp read_all(s, query, parts) do
      case fetch(s, query) do
        {:cont, %{rows: rows}, s} ->
          read_all(s, query, [rows | parts])

        {:halt, result, s} ->
          rows = Enum.concat(Enum.reverse(parts, [result.rows]))
          {:ok, query, %{result | rows: rows, num_rows: length(rows), command: :copy}, s}

        other ->
          other
      end
    end

    defp open(s, %{statement: statement} = query, timeout) do
      # Of CSV, a line's end may be within a value.
      made = fn format, _window -> {:out, format == 0 and not (statement =~ ~r/\bcsv\b/i)} end

      with {:ok, s} <- begin(s, Protocol.copy_out(statement, 1), timeout, statement, made),
           do: {:ok, query, nil, s}
    end

    @doc """
    Begins COPY ... TO STDOUT as a stream: nothing more is read than is fetched. Who has had enough cancels it, which
    a savepoint keeps from the transaction.
    """
    def declare(s, query) do
      with {:ok, _, _, s} <- Statements.commands(s, ["SAVEPOINT causeway_copy"], []),
           do: open(s, query, 0)
    end

    @doc "The next part."
    def fetch(%{copy: {:out, lines?}} = s, query) do
      case part(s) do
        {:more, data, s} ->
          Wire.tell(s, Protocol.credit(1))
          {:cont, result(s, data, lines?), s}

        {:last, data, s} ->
          {:halt, result(s, data, lines?), s}

        {:error, why, fields, s} ->
          {:error, Errors.server(why, fields, s.id, query.statement), s}

        disconnect ->
          disconnect
      end
    end

    defp result(s, data, lines?) do
      rows = if lines?, do: data |> IO.iodata_to_binary() |> lines(), else: data

      %Postgrex.Result{
        command: :copy_stream,
        rows: rows,
        num_rows: length(rows),
        connection_id: s.id,
        messages: []
      }
    end

    defp lines(""), do: []

    defp lines(text) do
      case :binary.split(text, "\n") do
        [line, rest] -> [line <> "\n" | lines(rest)]
        [line] -> [line]
      end
    end

    @doc "Ends a stream, wherever it is."
    def deallocate(%{copy: {:out, _}} = s) do
      Wire.tell(s, Protocol.cancel())
      with {:ok, s} <- drain(s), do: undo(s)
    end

    def deallocate(%{status: :transaction} = s) do
      with {:ok, _, _, s} <- Statements.commands(s, ["RELEASE SAVEPOINT causeway_copy"], []),
           do: {:ok, nil, s}
    end

    def deallocate(s), do: {:ok, nil, s}

    defp undo(s) do
      undo = ["ROLLBACK TO SAVEPOINT causeway_copy", "RELEASE SAVEPOINT causeway_copy"]
      with {:ok, _, _, s} <- Statements.commands(s, undo, []), do: {:ok, nil, s}
    end

    defp drain(s) do
      case part(s) do
        {:more, _, s} ->
          Wire.tell(s, Protocol.credit(1))
          drain(s)

        {:disconnect, _, _} = disconnect ->
          disconnect

        # That it was cancelled, mostly.
        {:error, _, _, s} ->
          {:ok, s}

        {:last, _, s} ->
          {:ok, s}
      end
    end

    # ---- in ----

    @doc "What a stream that is collected into says."
    def write(s, copy, :begin, _opts) do
      made = fn _format, window -> {:in, window, window} end

      with {:ok, s} <- begin(s, Protocol.copy_in(copy.statement), 0, copy.statement, made),
           do: {:ok, copy, copy, s}
    end

    def write(%{copy: {:in, _, _}} = s, copy, {:data, data}, _opts) do
      case send_data(s, data) do
        {:ok, s} -> {:ok, copy, nil, s}
        {:error, error, s} -> {:error, error, s}
        {:disconnect, error, s} -> {:disconnect, error, s}
      end
    end

    def write(%{copy: {:in, _, _}} = s, copy, :done, _opts) do
      Wire.tell(s, Protocol.copy_done())

      case ended(s) do
        {:ok, tag, s} -> {:ok, copy, Statements.result({:ok, tag, [], nil}, [], s), s}
        {:error, error, s} -> {:error, error, s}
        {:disconnect, error, s} -> {:disconnect, error, s}
      end
    end

    def write(s, copy, :fail, _opts), do: {:ok, copy, nil, abandon(s)}

    def write(s, copy, _message, _opts),
      do: {:error, ArgumentError.exception("#{copy.statement} is not under way"), s}

    @doc "Ends what is under way, and what it has written so far is undone."
    def abandon(%{copy: {:in, _, _}} = s) do
      Wire.tell(s, Protocol.copy_fail("abandoned"))

      case ended(s) do
        {_, _, s} -> s
      end
    end

    def abandon(%{copy: {:out, _}} = s) do
      Wire.tell(s, Protocol.cancel())

      case drain(s) do
        {:ok, s} -> s
        {:disconnect, _, s} -> s
      end
    end

    def abandon(s), do: s

    defp send_data(s, ""), do: {:ok, s}

    defp send_data(%{copy: {:in, window, 0}} = s, data) do
      case Wire.next(s.port) do
        {:more, records} ->
          send_data(%{s | copy: {:in, window, taken(records)}}, data)

        {:last, state, records} ->
          over(s, state, records)

        {:event, {:closed, _, why}} ->
          lost(s, why)

        {:event, event} ->
          s |> aside(event) |> send_data(data)

        {:lost, why} ->
          lost(s, why)
      end
    end

    defp send_data(%{copy: {:in, window, room}} = s, data) do
      size = min(room, byte_size(data))
      {now, later} = :erlang.split_binary(data, size)
      Wire.tell(s, Protocol.copy_data(now))
      send_data(%{s | copy: {:in, window, room - size}}, later)
    end

    defp taken(records),
      do: Enum.sum(for {:taken, n} <- Protocol.records(records), do: n)

    defp ended(s) do
      case Wire.next(s.port) do
        {:last, state, records} -> over(s, state, records)
        {:lost, why} -> lost(s, why)
        {:event, {:closed, _, why}} -> lost(s, why)
        {:event, event} -> s |> aside(event) |> ended()
        {:more, _} -> ended(s)
      end
    end

    defp over(s, ?X, records), do: gone(s, Protocol.records(records), nil)

    defp over(s, state, records) do
      s = free(s, state)

      case Enum.reject(Protocol.records(records), &match?({:taken, _}, &1)) do
        [{:end, _, _, tag}] -> {:ok, tag, s}
        [{:error, why, fields} | _] -> {:error, Errors.server(why, fields, s.id, nil), s}
        _ -> lost(s, nil)
      end
    end

    defp lost(s, why) do
      Wire.give_back(s)
      {fatal, kept} = Wire.last_words(s)
      error = if fatal, do: {:error, :server, fatal}
      {:disconnect, Errors.lost(String.trim(why || kept), error, s.id, nil), %{s | copy: nil}}
    end

    # The server's last words, perhaps.
    defp aside(s, event) do
      Keeper.told(s.keeper, s.port, event)
      s
    end

    # The server has said why, or nobody knows.
    defp gone(s, records, statement) do
      Wire.give_back(s)
      {fatal, _} = Wire.last_words(s)
      error = if fatal, do: {:error, :server, fatal}, else: List.keyfind(records, :error, 0)
      error = Errors.lost("the server has closed the connection", error, s.id, statement)
      {:disconnect, error, %{s | copy: nil}}
    end

    # ---- both ----

    defp begin(%{copy: nil} = s, body, timeout, statement, made) do
      with {:ok, s} <- Statements.begin(s) do
        case Wire.take(s, body, timeout) do
          :ok -> begun(s, statement, made)
          {:lost, why, _} -> lost(s, why)
        end
      end
    end

    defp begin(s, _body, _timeout, statement, _made) do
      message =
        "connection is locked copying to or from the database and can not execute #{inspect(statement)}"

      {:error, ArgumentError.exception(message), s}
    end

    defp begun(s, statement, made) do
      case Wire.next(s.port) do
        {:more, records} ->
          [{:copying, format, _, window}] = Protocol.records(records)
          {:ok, %{s | copy: made.(format, window)}}

        {:last, ?X, records} ->
          gone(s, Protocol.records(records), statement)

        {:last, state, records} ->
          s = free(s, state)
          {:error, no_copy(s, Protocol.records(records), statement), s}

        {:event, {:closed, _, why}} ->
          lost(s, why)

        {:event, event} ->
          s |> aside(event) |> begun(statement, made)

        {:lost, why} ->
          lost(s, why)
      end
    end

    defp no_copy(s, records, statement) do
      case records do
        [{:error, why, fields} | _] -> Errors.server(why, fields, s.id, statement)
        _ -> ArgumentError.exception("this is no COPY of that direction: #{statement}")
      end
    end

    # The connection is for other things again.
    defp free(s, state) do
      Wire.give_back(s)
      %{s | copy: nil, status: Wire.status(state)}
    end

    defp part(s) do
      case Wire.next(s.port) do
        {:more, records} -> more(s, Protocol.records(records))
        {:last, ?X, records} -> gone(s, Protocol.records(records), nil)
        {:last, state, records} -> last(free(s, state), Protocol.records(records))
        {:event, {:closed, _, why}} -> lost(s, why)
        {:event, event} -> s |> aside(event) |> part()
        {:lost, why} -> lost(s, why)
      end
    end

    defp more(s, records), do: {:more, data(records), s}

    defp last(s, records) do
      case List.keyfind(records, :error, 0) do
        nil -> {:last, data(records), s}
        {:error, why, fields} -> {:error, why, fields, s}
      end
    end

    defp data(records), do: for({:copy, data} <- records, do: data)
  end
end
