defmodule Causeway.SocketClient do
  @moduledoc false
  # A browser's part of a Phoenix socket, in the second version of its protocol, with nothing of Phoenix in it. What comes is
  # sent to whoever has connected: `{:socket, client, [join_ref, ref, topic, event, payload]}`.

  import Bitwise

  @options [:binary, active: false, nodelay: true, packet: :http_bin]

  @doc "The body of a page."
  def get!(port, path) do
    socket = request!(port, path, "connection: close\r\n")
    {200, _} = answer(socket)
    :inet.setopts(socket, packet: :raw)
    rest(socket, "")
  end

  defp rest(socket, body) do
    case :gen_tcp.recv(socket, 0, 10_000) do
      {:ok, more} -> rest(socket, body <> more)
      {:error, :closed} -> body
    end
  end

  @doc "Connects to a socket's path; ends with the caller."
  def connect!(port, path) do
    key = Base.encode64(:crypto.strong_rand_bytes(16))

    socket =
      request!(port, path <> "/websocket?vsn=2.0.0", """
      connection: Upgrade\r
      upgrade: websocket\r
      sec-websocket-version: 13\r
      sec-websocket-key: #{key}\r
      """)

    {101, _} = answer(socket)
    :inet.setopts(socket, packet: :raw)
    owner = self()
    spawn_link(fn -> receive_all(socket, owner) end)
    socket
  end

  @doc "Joins a topic, and returns what the channel replied."
  def join!(client, topic, payload \\ %{}), do: call!(client, topic, "phx_join", payload)

  @doc "Pushes an event, and returns what the channel replied."
  def call!(client, topic, event, payload) do
    ref = "#{System.unique_integer([:positive])}"
    text = IO.iodata_to_binary(json().encode_to_iodata!(["1", ref, topic, event, payload]))
    :ok = :gen_tcp.send(client, frame(text))

    receive do
      {:socket, ^client, [_, ^ref, ^topic, "phx_reply", %{"status" => "ok"} = reply]} ->
        reply["response"]

      {:socket, ^client, [_, ^ref, _, _, _] = reply} ->
        raise "#{event} of #{topic} was answered with #{inspect(reply)}"
    after
      10_000 -> raise "#{event} of #{topic} was not answered"
    end
  end

  def close(client), do: :gen_tcp.close(client)

  defp json, do: Causeway.Postgres.Json.library()

  defp request!(port, path, headers) do
    {:ok, socket} = :gen_tcp.connect({127, 0, 0, 1}, port, @options)
    request = "GET #{path} HTTP/1.1\r\nhost: localhost:#{port}\r\n#{headers}\r\n"
    :ok = :gen_tcp.send(socket, request)
    socket
  end

  defp answer(socket, status \\ nil, headers \\ []) do
    case :gen_tcp.recv(socket, 0, 10_000) do
      {:ok, {:http_response, _, status, _}} ->
        answer(socket, status, headers)

      {:ok, {:http_header, _, name, _, value}} ->
        answer(socket, status, [{name, value} | headers])

      {:ok, :http_eoh} ->
        {status, headers}
    end
  end

  # A text in one frame, masked as a client's must be: by zeros.
  defp frame(text) when byte_size(text) < 126,
    do: <<0x81, 1::1, byte_size(text)::7, 0::32, text::binary>>

  defp frame(text) when byte_size(text) < 0x10000,
    do: <<0x81, 1::1, 126::7, byte_size(text)::16, 0::32, text::binary>>

  defp receive_all(socket, owner) do
    with {:ok, <<first, length>>} <- :gen_tcp.recv(socket, 2),
         {:ok, payload} <- payload(socket, length) do
      if (first &&& 0x0F) == 1, do: send(owner, {:socket, socket, json().decode!(payload)})
      receive_all(socket, owner)
    end
  end

  defp payload(_socket, 0), do: {:ok, ""}
  defp payload(socket, 126), do: long(socket, 2)
  defp payload(socket, 127), do: long(socket, 8)
  defp payload(socket, length), do: :gen_tcp.recv(socket, length)

  defp long(socket, bytes) do
    with {:ok, length} <- :gen_tcp.recv(socket, bytes),
         do: :gen_tcp.recv(socket, :binary.decode_unsigned(length))
  end
end
