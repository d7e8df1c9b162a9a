defmodule Causeway.WallClock do
  @moduledoc false
  # Nodes of test/support/cluster.ex whose wall clocks are wrong, by test/preload/wall_clock.c: what the system says, and
  # so what the VM and documents take for the time.
  import Causeway.Cluster
  import ExUnit.Assertions
  alias Causeway.Preload

  # The VM goes by the system's clock at once. By default, it starts with it and follows slowly.
  @jumps "+C multi_time_warp +c false"

  @doc """
  Starts a node, with its clock as the file says, in seconds ahead of the time; `jumps?` is whether what is set later
  counts at once: `{peer, node}`.
  """
  def start(name, preload, file, jumps?) do
    env = Preload.env(preload, "WALL_CLOCK", file)
    opts = [name: name, flags: if(jumps?, do: @jumps), env: env]
    {peer, _} = node = start_node(nil, opts)
    Process.unlink(peer)
    is_off!(node, file)
    node
  end

  @doc "Sets the clock. In place: a VM that has the file mapped would not survive an empty one."
  def set(file, seconds) do
    {:ok, fd} = :file.open(file, [:raw, :read, :write])
    :ok = :file.pwrite(fd, 0, <<seconds::64-signed-native>>)
    :file.close(fd)
  end

  @doc "Asserts that a node takes for the time what its clock says."
  def is_off!(node, file) do
    <<seconds::64-signed-native>> = File.read!(file)
    there = on(node, System, :system_time, [:second])
    assert_in_delta there, System.os_time(:second) + seconds, 5
  end
end
