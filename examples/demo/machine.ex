defmodule Demo.Machine do
  @moduledoc "Virtual machines of their own, on this computer: started, called, killed."

  @host "127.0.0.1"

  @doc "Makes this one a node that others can be connected with."
  def distribute do
    System.cmd("epmd", ["-daemon"])
    # A machine that is killed is reported by the demo.
    :logger.set_primary_config(:level, :error)
    {:ok, _} = Node.start(:"demo#{System.pid()}@#{@host}")
  end

  def start(name) do
    args = Enum.flat_map(:code.get_path(), &[~c"-pa", &1])
    name = :"#{name}#{System.pid()}"
    {:ok, peer, node} = :peer.start(%{name: name, host: to_charlist(@host), args: args})
    machine = %{peer: peer, node: node, os_pid: nil}
    {:ok, _} = call(machine, Application, :ensure_all_started, [:elixir])
    :ok = call(machine, :logger, :set_primary_config, [:level, :error])

    for file <- ~w(shop/lib/shop demo/customers) do
      call(machine, Code, :require_file, [Path.expand("../#{file}.ex", __DIR__)])
    end

    %{machine | os_pid: call(machine, System, :pid, [])}
  end

  def call(machine, module, fun, args), do: :erpc.call(machine.node, module, fun, args, 120_000)

  @doc "Starts a child that outlives the call."
  def start_child(machine, {module, _} = child) do
    spec = Supervisor.child_spec(child, id: {module, make_ref()})
    call(machine, :supervisor, :start_child, [:kernel_safe_sup, spec])
  end

  def kill(machine) do
    {_, 0} = System.cmd("kill", ["-9", machine.os_pid])
    await_down(machine.node)
  end

  # Its name is free again when epmd has noticed.
  defp await_down(node) do
    if Node.ping(node) == :pong,
      do: await_down(Process.sleep(50) && node),
      else: Process.sleep(200)
  end

  def stop(machine), do: Process.alive?(machine.peer) && :peer.stop(machine.peer)
end
