defmodule Causeway.Postgres.Error do
  @moduledoc """
  What went wrong, in `:reason` for programs and in `message/1` for people. (A parameter that cannot be sent is a
  `Causeway.Postgres.EncodeError`.)

  Reasons:

    * `:server` - the server refused; `:postgres` says all that it said
    * `:timeout` - the deadline passed, and the statement was cancelled; the connection can be used on
    * `:cancelled` - by `Causeway.Postgres.cancel/1`; likewise
    * `:queue_timeout` - the deadline passed before the connection was free; nothing was sent
    * `:disconnected` - the connection was lost while the statement ran: nobody knows whether it was done
    * `:not_connected` - there is no connection now, and nothing was sent; `:detail` says why
    * `:transaction_lost` - the transaction has ended: committed, rolled back, prepared for two-phase commit, or
      lost with its connection
    * `:rolled_back` - a transaction in which a statement had failed was to be committed
    * `:busy` - this process has a stream or a copy under way on this connection, or is inside a transaction and
      did not use the one that it was given
    * `:aborted` - a step of a pipeline that was not run, after one that failed
    * `:refused` - what cannot be done this way, such as COPY through `query`
    * `:decode` - the server sent what is no value of the type that it said it was

  `:postgres` is nil, or a map as Postgrex has it: `:code` (a name such as `:unique_violation`, nil for codes that
  PostgreSQL does not document), `:pg_code` ("23505"), `:severity`, `:message`, and those that were sent of `:detail`, `:hint`,
  `:position`, `:internal_position`, `:internal_query`, `:where`, `:schema`, `:table`, `:column`, `:data_type`,
  `:constraint`, `:file`, `:line`, `:routine`. Of a pipeline, `:step` says which statement it was, from 0.
  """

  alias Causeway.Postgres.ErrorCodes

  defexception [:reason, :postgres, :detail, :connection_id, :query, :step]

  @type t :: %__MODULE__{
          reason: atom,
          postgres: map | nil,
          detail: String.t() | nil,
          connection_id: pos_integer | nil,
          query: String.t() | nil,
          step: non_neg_integer | nil
        }

  @doc false
  # From the fields of an error or a notice.
  def fields(fields) do
    map = for {key, value} <- fields, into: %{}, do: {key, text(value)}
    {code, map} = Map.pop(map, :code)
    Map.merge(map, %{pg_code: code, code: code && ErrorCodes.name(code)})
  end

  # Before it knows the client's encoding, the server speaks its own.
  defp text(value), do: if(String.valid?(value), do: value, else: replaced(value))

  defp replaced(<<char::utf8, rest::binary>>), do: <<char::utf8>> <> replaced(rest)
  defp replaced(<<_, rest::binary>>), do: "?" <> replaced(rest)
  defp replaced(<<>>), do: ""

  @doc false
  def server(reason, []), do: %__MODULE__{reason: reason}
  def server(reason, fields), do: %__MODULE__{reason: reason, postgres: fields(fields)}

  @doc false
  # Why there is no connection. The code is in the message, if there is one.
  def connect(why, message) do
    message = message |> text() |> String.trim()

    case Regex.run(~r/(FATAL|ERROR|PANIC):  ([0-9A-Z]{5}): (.*)/, message) do
      [_, severity, code, text] ->
        fields = [severity: severity, code: code, message: text]

        %__MODULE__{
          reason: :not_connected,
          postgres: fields(fields),
          detail: without_code(message)
        }

      nil ->
        %__MODULE__{reason: :not_connected, detail: detail(why, message)}
    end
  end

  defp detail(:timeout, ""), do: "no answer in time"
  defp detail(_why, message), do: message

  defp without_code(message) do
    message
    |> String.replace(~r/(FATAL|ERROR|PANIC):  [0-9A-Z]{5}: /, "\\1:  ")
    |> String.replace(~r/\nLOCATION: .*/, "")
  end

  @impl true
  def message(%__MODULE__{} = error), do: sentence(error) <> in_query(error)

  defp in_query(%{query: nil}), do: ""

  # It may be what the server has refused for not being UTF-8.
  defp in_query(%{query: query}) do
    if byte_size(query) > 1000,
      do: "\n\n    query: " <> (query |> binary_part(0, 1000) |> text()) <> " ...",
      else: "\n\n    query: " <> text(query)
  end

  defp sentence(%{reason: reason, postgres: postgres}) when reason in [:server, :refused],
    do: server_says(postgres)

  defp sentence(%{reason: :timeout}) do
    "the deadline passed, and the statement was cancelled; it may be given more time with the option :timeout"
  end

  defp sentence(%{reason: :cancelled}), do: "the statement was cancelled"

  defp sentence(%{reason: :queue_timeout}) do
    "the connection was not free in time, and nothing was sent; there are longer statements or transactions of others " <>
      "on it, so use more connections, or wait longer with the option :timeout"
  end

  defp sentence(%{reason: :disconnected, detail: detail}) do
    "the connection was lost while the statement ran, so it may have been done or not: #{detail || "no reason is known"}"
  end

  defp sentence(%{reason: :not_connected, detail: detail}) do
    "not connected, so nothing was sent: #{detail || "no reason is known"}"
  end

  defp sentence(%{reason: :transaction_lost}) do
    "the transaction has ended: it was committed, rolled back or prepared, or its connection was lost, and it with that"
  end

  defp sentence(%{reason: :rolled_back}) do
    "the transaction was rolled back: a statement in it had failed, after which nothing can be committed; return " <>
      "from the function with rollback/2 after a failure, or let what may fail be a transaction of its own inside"
  end

  defp sentence(%{reason: :busy}) do
    "this process holds the connection already: inside transaction/3 use what the function was given, and end a " <>
      "stream or a copy before the next statement"
  end

  defp sentence(%{reason: :aborted}),
    do: "this step of a pipeline was not run, because one before it failed"

  defp sentence(%{reason: :decode, detail: detail}), do: "the result cannot be decoded: #{detail}"
  defp sentence(%{reason: reason}), do: inspect(reason)

  defp server_says(%{message: message} = postgres) do
    [
      severity(postgres),
      message,
      more(postgres, :detail, "detail"),
      more(postgres, :hint, "hint"),
      more(postgres, :where, "where")
    ]
    |> Enum.join()
  end

  defp severity(%{severity: severity, pg_code: pg_code, code: code}),
    do: "#{severity} #{pg_code} (#{code || "unknown"}) "

  defp severity(_), do: ""

  defp more(postgres, key, name) do
    case postgres do
      %{^key => text} -> "\n\n    #{name}: #{text}"
      _ -> ""
    end
  end
end
