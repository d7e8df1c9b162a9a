defmodule Causeway.StallProxy do
  @moduledoc false
  # A TCP proxy between a client and a server on the loopback interface, for networks that misbehave. While it is
  # stalled, nothing passes and no connection is closed, as behind a firewall that drops packets; what was on its way
  # comes when it resumes. `forget/1` does this for ever to the connections that there are, as a
  # firewall that was restarted; `cut/1` resets them; `refuse/1` closes new ones at once, and `hold/1` leaves them where they
  # are, until `accept/1`.
  use GenServer

  @doc """
  Starts it in front of a port; it ends with the caller. `port/1` says where it listens. More options of the listening socket,
  such as a small `recbuf`, hold for the clients'.
  """
  def start_link(target, options \\ []), do: GenServer.start_link(__MODULE__, {target, options})

  def port(proxy), do: GenServer.call(proxy, :port)
  def stall(proxy), do: GenServer.call(proxy, :stall)
  def resume(proxy), do: GenServer.call(proxy, :resume)
  def forget(proxy), do: GenServer.call(proxy, :forget)
  def cut(proxy), do: GenServer.call(proxy, :cut)
  def refuse(proxy), do: GenServer.call(proxy, {:refuse, true})
  def hold(proxy), do: GenServer.call(proxy, {:refuse, :hold})
  def accept(proxy), do: GenServer.call(proxy, {:refuse, false})

  @doc "Connects clients to another port from now on."
  def target(proxy, port), do: GenServer.call(proxy, {:target, port})

  @doc "How many connections there are."
  def connections(proxy), do: GenServer.call(proxy, :connections)

  @options [:binary, active: false, nodelay: true, ip: {127, 0, 0, 1}]

  @impl true
  def init({target, options}) do
    options = [reuseaddr: true, backlog: 1024] ++ options ++ @options
    {:ok, listener} = :gen_tcp.listen(0, options)
    me = self()
    spawn_link(fn -> accept_all(listener, me) end)

    {:ok,
     %{
       listener: listener,
       target: target,
       pairs: %{},
       waiting: [],
       forgotten: [],
       stalled?: false,
       refuse?: false
     }}
  end

  defp accept_all(listener, proxy) do
    {:ok, client} = :gen_tcp.accept(listener)
    :ok = :gen_tcp.controlling_process(client, proxy)
    send(proxy, {:accepted, client})
    accept_all(listener, proxy)
  end

  @impl true
  def handle_call(:port, _from, s) do
    {:ok, port} = :inet.port(s.listener)
    {:reply, port, s}
  end

  def handle_call(:stall, _from, s), do: {:reply, :ok, %{s | stalled?: true}}

  def handle_call(:resume, _from, s) do
    s = Enum.reduce(s.waiting, %{s | stalled?: false, waiting: []}, &handle(&1, &2))
    {:reply, :ok, s}
  end

  def handle_call(:cut, _from, s) do
    Enum.each(Map.keys(s.pairs), &reset/1)
    {:reply, :ok, %{s | pairs: %{}, waiting: []}}
  end

  # Neither closed nor read: the sockets stay this process's.
  def handle_call(:forget, _from, s) do
    for socket <- Map.keys(s.pairs), do: :inet.setopts(socket, active: false)
    {:reply, :ok, %{s | pairs: %{}, waiting: [], forgotten: Map.keys(s.pairs) ++ s.forgotten}}
  end

  def handle_call({:refuse, refuse?}, _from, s), do: {:reply, :ok, %{s | refuse?: refuse?}}
  def handle_call({:target, port}, _from, s), do: {:reply, :ok, %{s | target: port}}
  def handle_call(:connections, _from, s), do: {:reply, div(map_size(s.pairs), 2), s}

  # What comes while it is stalled waits; a socket gives no more until it is asked again.
  @impl true
  def handle_info(event, %{stalled?: true} = s),
    do: {:noreply, %{s | waiting: s.waiting ++ [event]}}

  def handle_info(event, s), do: {:noreply, handle(event, s)}

  defp handle({:accepted, client}, %{refuse?: true} = s) do
    reset(client)
    s
  end

  defp handle({:accepted, client}, %{refuse?: :hold} = s),
    do: %{s | forgotten: [client | s.forgotten]}

  defp handle({:accepted, client}, s) do
    case :gen_tcp.connect({127, 0, 0, 1}, s.target, @options) do
      {:ok, server} ->
        Enum.each([client, server], &:inet.setopts(&1, active: :once))
        %{s | pairs: Map.merge(s.pairs, %{client => server, server => client})}

      {:error, _} ->
        reset(client)
        s
    end
  end

  defp handle({:tcp, socket, data}, s) do
    with %{^socket => other} <- s.pairs do
      :gen_tcp.send(other, data)
      :inet.setopts(socket, active: :once)
    end

    s
  end

  defp handle({closed, socket}, s) when closed == :tcp_closed, do: close(socket, s)
  defp handle({:tcp_error, socket, _}, s), do: close(socket, s)

  defp close(socket, s) do
    with %{^socket => other} <- s.pairs, do: :gen_tcp.close(other)
    %{s | pairs: Map.drop(s.pairs, [socket, s.pairs[socket]])}
  end

  defp reset(socket) do
    :inet.setopts(socket, linger: {true, 0})
    :gen_tcp.close(socket)
  end
end
