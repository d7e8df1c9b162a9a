defmodule Causeway.Postgres.CopyIn do
  @moduledoc false
  # COPY ... FROM STDIN: data goes to the port program in pieces, so many bytes ahead at most of what the server has
  # taken. Pieces smaller than a frame are gathered first.

  alias Causeway.Postgres.{Error, Protocol, Request, Session, Statements}

  @piece 65_536

  # Whether the request has ended is in an atomic, as who collects into it has no other copy than the first one when
  # something raises.
  @enforce_keys [:session, :ref, :wait, :sql, :window, :ended]
  defstruct [:session, :ref, :wait, :sql, :window, :ended, ahead: 0, gathered: [], size: 0]

  @type t :: %__MODULE__{}

  @doc "Begins; the statement must be one that reads from the client."
  @spec open(Session.t(), String.t(), timeout) :: {:ok, t} | {:error, Error.t()}
  def open(session, sql, timeout) do
    Statements.sql!(sql)
    ref = Request.start(session, Protocol.copy_in(sql), timeout)

    copy = %__MODULE__{
      session: session,
      ref: ref,
      wait: Request.wait(timeout),
      sql: sql,
      window: 0,
      ended: :atomics.new(1, [])
    }

    await_begin(copy)
  end

  defp await_begin(copy) do
    case Request.next(copy.session, copy.ref, copy.wait) do
      {:more, records} ->
        with [{:copying, _, _, window} | _] <- Protocol.records(records),
             do: {:ok, %{copy | window: window}},
             else: (_ -> await_begin(copy))

      {:last, _, records} ->
        Request.finish(copy.ref)
        {:error, no_copy(Protocol.records(records), copy.sql)}

      {:notice, _} ->
        await_begin(copy)

      {:error, error} ->
        {:error, %{error | query: copy.sql}}
    end
  end

  defp no_copy(records, sql) do
    case List.keyfind(records, :error, 0) do
      {:error, why, fields} ->
        %{Error.server(why, fields) | query: sql}

      nil ->
        message = "the statement was run, but is no COPY ... FROM STDIN"
        %{Error.server(:refused, message: message) | query: sql}
    end
  end

  @doc "More data. An error ends it."
  @spec put(t, iodata) :: {:ok, t} | {:error, Error.t()}
  def put(copy, data) do
    size = copy.size + :erlang.iolist_size(data)
    copy = %{copy | gathered: [copy.gathered | data], size: size}
    if size >= @piece, do: send_gathered(copy), else: {:ok, copy}
  end

  defp send_gathered(%{size: 0} = copy), do: {:ok, copy}

  defp send_gathered(copy) do
    pieces = cut(IO.iodata_to_binary(copy.gathered))
    send_pieces(pieces, %{copy | gathered: [], size: 0})
  end

  defp send_pieces([], copy), do: {:ok, copy}

  defp send_pieces([piece | rest], copy) do
    size = byte_size(piece)

    with {:ok, copy} <- await_room(copy, size) do
      Request.tell(copy.session, copy.ref, Protocol.copy_data(piece))
      send_pieces(rest, %{copy | ahead: copy.ahead + size})
    end
  end

  # One large binary is not one large piece, which the program would have to hold as a whole.
  defp cut(<<piece::binary-size(16 * @piece), rest::binary>>) when rest != "",
    do: [piece | cut(rest)]

  defp cut(data), do: [data]

  defp await_room(%{ahead: ahead, window: window} = copy, size)
       when ahead > 0 and ahead + size > window do
    case Request.next(copy.session, copy.ref, copy.wait) do
      {:more, records} -> await_room(taken(copy, records), size)
      {:last, _, records} -> finished_early(copy, records)
      {:notice, _} -> await_room(copy, size)
      {:error, error} -> lost(copy, error)
    end
  end

  defp await_room(copy, _size), do: {:ok, copy}

  defp taken(copy, records) do
    bytes = for {:taken, bytes} <- Protocol.records(records), do: bytes
    %{copy | ahead: copy.ahead - Enum.sum(bytes)}
  end

  defp lost(copy, error) do
    :atomics.put(copy.ended, 1, 1)
    {:error, %{error | query: copy.sql}}
  end

  defp finished_early(copy, records) do
    finished(copy)
    {:error, no_copy(Protocol.records(records), copy.sql)}
  end

  @doc "The end of the data: how many rows there were."
  @spec close(t) :: {:ok, non_neg_integer} | {:error, Error.t()}
  def close(copy) do
    with {:ok, copy} <- send_gathered(copy) do
      Request.tell(copy.session, copy.ref, Protocol.copy_done())
      finish(copy)
    end
  end

  defp finished(copy) do
    :atomics.put(copy.ended, 1, 1)
    Request.finish(copy.ref)
  end

  @doc "Nothing of it shall be kept. After an error it has ended already, and nothing more comes."
  @spec abort(t, String.t()) :: :ok
  def abort(copy, why) do
    if :atomics.get(copy.ended, 1) == 0 do
      Request.tell(copy.session, copy.ref, Protocol.copy_fail(why))
      finish(copy)
    end

    :ok
  end

  defp finish(copy) do
    case Request.next(copy.session, copy.ref, copy.wait) do
      {:last, _, records} ->
        finished(copy)
        result(Protocol.records(records), copy)

      {:error, error} ->
        lost(copy, error)

      _ ->
        finish(copy)
    end
  end

  defp result(records, copy) do
    case {List.keyfind(records, :error, 0), List.keyfind(records, :end, 0)} do
      {nil, {:end, _, _, tag}} -> {:ok, tag |> Protocol.tag() |> elem(1)}
      _ -> {:error, no_copy(records, copy.sql)}
    end
  end

  @doc "All of an enumerable."
  @spec run(Session.t(), String.t(), Enumerable.t(), timeout) ::
          {:ok, non_neg_integer} | {:error, Error.t()}
  def run(session, sql, enumerable, timeout) do
    with {:ok, copy} <- open(session, sql, timeout),
         {:ok, copy} <- put_all(copy, enumerable),
         do: close(copy)
  end

  defp put_all(copy, enumerable) do
    Enum.reduce_while(enumerable, {:ok, copy}, fn data, {:ok, copy} ->
      case put(copy, data) do
        {:ok, copy} -> {:cont, {:ok, copy}}
        error -> {:halt, error}
      end
    end)
  catch
    kind, reason ->
      abort(copy, "what was to be copied could not be had")
      :erlang.raise(kind, reason, __STACKTRACE__)
  end
end

defmodule Causeway.Postgres.Copy do
  @moduledoc """
  Something to collect into, from `Causeway.Postgres.copy/3`.
  """
  @enforce_keys [:conn, :sql, :opts]
  defstruct [:conn, :sql, :opts]

  @type t :: %__MODULE__{conn: term, sql: String.t(), opts: keyword}

  defimpl Collectable do
    alias Causeway.Postgres.{CopyIn, Session}

    def into(%{conn: conn, sql: sql, opts: opts} = target) do
      {:ok, copy} = ok!(CopyIn.open(Session.fetch(conn), sql, opts[:timeout] || :infinity))

      collect = fn
        copy, {:cont, data} -> copy |> CopyIn.put(data) |> ok!() |> elem(1)
        copy, :done -> ok!(CopyIn.close(copy)) && target
        copy, :halt -> CopyIn.abort(copy, "what was to be copied could not be had")
      end

      {copy, collect}
    end

    defp ok!({:error, error}), do: raise(error)
    defp ok!(ok), do: ok
  end
end
