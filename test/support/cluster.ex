defmodule Causeway.Cluster do
  @moduledoc false
  # Erlang nodes for tests. Each is a VM of its own, controlled through its standard input and output, so that it can
  # be cut off from the others.

  @cookie :causeway_test

  @doc "Makes this VM a node, if it is none."
  def distribute! do
    unless Node.alive?() do
      {_, 0} = System.cmd("epmd", ["-daemon"])
      name = :"causeway-#{System.pid()}@127.0.0.1"
      {:ok, _} = :net_kernel.start([name, :longnames])
      Node.set_cookie(@cookie)
    end

    :ok
  end

  @doc "A name that no other node has."
  def unique(name), do: :"#{name}-#{System.pid()}-#{System.unique_integer([:positive])}"

  @doc """
  Starts a node: `{peer, node}`. It ends with the process that starts it.

  Options: `:name`, one of `unique/1`, when it is to be that of a node that has been killed; `:flags` of the VM, a
  string; `:env`, pairs of strings.
  """
  def start_node(name, opts \\ []) do
    {:ok, peer, node} =
      :peer.start_link(%{
        name: opts[:name] || unique(name),
        host: ~c"127.0.0.1",
        env: for({key, value} <- opts[:env] || [], do: {to_charlist(key), to_charlist(value)}),
        longnames: true,
        connection: :standard_io,
        wait_boot: 30_000,
        # Whoever is cut off from one is not cut off from all.
        args:
          ~c"-setcookie #{@cookie} -connect_all false -kernel prevent_overlapping_partitions false +S 1 #{opts[:flags]} -pa"
          |> :string.tokens(~c" ")
          |> Enum.concat(:code.get_path())
      })

    {:ok, _} = :peer.call(peer, :application, :ensure_all_started, [:elixir])
    :ok = :peer.call(peer, :logger, :set_primary_config, [:level, :none])
    {peer, node}
  end

  @doc "Starts a VM that is no Erlang node; calls reach it through its standard input and output."
  def start_alone do
    {:ok, peer, node} =
      :peer.start_link(%{
        connection: :standard_io,
        wait_boot: 30_000,
        args: [~c"+S", ~c"1", ~c"-pa" | :code.get_path()]
      })

    {:ok, _} = :peer.call(peer, :application, :ensure_all_started, [:elixir])
    :ok = :peer.call(peer, :logger, :set_primary_config, [:level, :none])
    {peer, node}
  end

  @doc "Calls a function over there, in a process of its own."
  def on(node, module, fun, args, timeout \\ 15_000)

  def on({peer, _node}, module, fun, args, timeout) do
    :peer.call(peer, module, fun, args, timeout)
  end

  @doc "Evaluates code over there, with bindings."
  def eval({peer, _node}, code, bindings \\ [], timeout \\ 15_000) do
    # Variables of a quote are its module's own; bindings are for nobody's.
    code =
      Macro.prewalk(code, fn form ->
        if(variable?(form), do: put_elem(form, 2, nil), else: form)
      end)

    {value, _} = :peer.call(peer, Code, :eval_quoted, [code, bindings], timeout)
    value
  end

  defp variable?({name, _, context}), do: is_atom(name) and is_atom(context)
  defp variable?(_), do: false

  @doc "Starts a store over there that goes on when its caller has ended."
  def start_store(node, opts), do: on(node, __MODULE__, :start_unlinked, [opts])

  @doc false
  def start_unlinked(opts) do
    {_, ref} =
      spawn_monitor(fn ->
        Process.flag(:trap_exit, true)
        result = Causeway.Store.start_link(opts)
        with {:ok, pid} <- result, do: Process.unlink(pid)
        exit({:started, result})
      end)

    receive(do: ({:DOWN, ^ref, _, _, {:started, result}} -> result))
  end

  @doc "kill -9."
  def kill({peer, node}) do
    Process.unlink(peer)
    pid = os_pid({peer, node})
    {_, 0} = System.cmd("kill", ["-KILL", pid])
    Causeway.Eventually.eventually(fn -> not Process.alive?(peer) end)
  end

  @doc "The operating system's process: `kill -STOP` makes a peer as slow as can be."
  def os_pid(node), do: node |> on(:os, :getpid, []) |> to_string()

  @doc "No packets between two nodes, in either direction, until `heal/2`."
  def cut(a, b) do
    for {{_, me} = x, {_, other}} <- [{a, b}, {b, a}],
        do: on(x, :erlang, :set_cookie, [other, me])

    on(a, :erlang, :disconnect_node, [elem(b, 1)])
  end

  def heal(a, b) do
    for {x, {_, other}} <- [{a, b}, {b, a}], do: on(x, :erlang, :set_cookie, [other, @cookie])
  end
end
