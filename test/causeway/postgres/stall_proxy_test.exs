defmodule Causeway.Postgres.StallProxyTest do
  # The proxy that other tests use, in front of a server that answers what it got.
  use ExUnit.Case, async: true
  alias Causeway.StallProxy

  setup do
    {:ok, listener} = :gen_tcp.listen(0, [:binary, active: false, ip: {127, 0, 0, 1}])
    {:ok, port} = :inet.port(listener)
    spawn_link(fn -> echo_all(listener) end)
    {:ok, proxy} = StallProxy.start_link(port)
    {:ok, proxy: proxy}
  end

  defp echo_all(listener) do
    {:ok, socket} = :gen_tcp.accept(listener)
    pid = spawn_link(fn -> echo(socket) end)
    :gen_tcp.controlling_process(socket, pid)
    echo_all(listener)
  end

  defp echo(socket) do
    with {:ok, data} <- :gen_tcp.recv(socket, 0) do
      :gen_tcp.send(socket, data)
      echo(socket)
    end
  end

  defp connect(proxy) do
    {:ok, socket} = try_connect(proxy)
    socket
  end

  defp try_connect(proxy),
    do: :gen_tcp.connect({127, 0, 0, 1}, StallProxy.port(proxy), [:binary, active: false])

  test "passes on, stalls, resumes", %{proxy: proxy} do
    socket = connect(proxy)
    :ok = :gen_tcp.send(socket, "a")
    assert {:ok, "a"} = :gen_tcp.recv(socket, 1, 5_000)
    StallProxy.stall(proxy)
    :ok = :gen_tcp.send(socket, "b")
    assert {:error, :timeout} = :gen_tcp.recv(socket, 1, 50)
    StallProxy.resume(proxy)
    assert {:ok, "b"} = :gen_tcp.recv(socket, 1, 5_000)
    assert StallProxy.connections(proxy) == 1
  end

  test "cuts and refuses", %{proxy: proxy} do
    socket = connect(proxy)
    :ok = :gen_tcp.send(socket, "a")
    assert {:ok, "a"} = :gen_tcp.recv(socket, 1, 5_000)
    StallProxy.cut(proxy)
    assert {:error, reason} = :gen_tcp.recv(socket, 1, 5_000)
    assert reason in [:closed, :econnreset]
    StallProxy.refuse(proxy)

    # Accepted and reset, which the one who connects may see at once.
    assert {:error, _} =
             with({:ok, socket} <- try_connect(proxy), do: :gen_tcp.recv(socket, 1, 5_000))

    StallProxy.accept(proxy)
    socket = connect(proxy)
    :ok = :gen_tcp.send(socket, "a")
    assert {:ok, "a"} = :gen_tcp.recv(socket, 1, 5_000)
  end
end
