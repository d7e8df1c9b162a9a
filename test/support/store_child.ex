defmodule Causeway.StoreChild do
  @moduledoc false
  # Stores in an operating system process of their own, to be killed, starved and refused. It says what it does in
  # lines on stdout, and ends when stdin does.
  alias Causeway.Store
  alias Causeway.StoreCase

  # ---- in the test ----

  @doc "Starts one. Options: `:through`, a program and arguments that run the rest of the command line."
  def start(args, opts \\ []) do
    [program | rest] = Keyword.get(opts, :through, []) ++ command(args)
    # Not here: the VM looks for code, and complains about names, where it is.
    options = [:binary, :exit_status, {:line, 10_000}, args: rest, cd: System.tmp_dir!()]
    Port.open({:spawn_executable, System.find_executable(program)}, options)
  end

  defp command(args) do
    own = for path <- :code.get_path(), not List.starts_with?(path, :code.lib_dir()), do: path
    paths = Enum.flat_map(own -- [~c"."], &["-pa", Path.expand(&1)])
    main = "'#{__MODULE__}':main()"
    ["erl", "-noshell"] ++ paths ++ ["-eval", main, "-extra" | Enum.map(args, &to_string/1)]
  end

  @doc "The next line; nil when there is none any more, or for so long."
  def line(port, timeout \\ 30_000) do
    receive do
      {^port, {:data, {:eol, line}}} -> line
      {^port, {:exit_status, _}} -> nil
    after
      timeout -> nil
    end
  end

  @doc "Kills it, and returns the lines that it has said."
  def kill(port) do
    with {:os_pid, pid} <- Port.info(port, :os_pid),
         do: System.cmd("kill", ["-9", "#{pid}"], stderr_to_stdout: true)

    rest(port)
  end

  def rest(port) do
    case line(port) do
      nil -> []
      line -> [line | rest(port)]
    end
  end

  # ---- in the process ----

  def main do
    {:ok, _} = :application.ensure_all_started(:elixir)
    Process.flag(:trap_exit, true)
    :logger.set_primary_config(:level, :none)

    spawn(fn ->
      IO.read(:line)
      System.halt(0)
    end)

    [what | args] = Enum.map(:init.get_plain_arguments(), &List.to_string/1)
    run(what, args)
  end

  defp say(line), do: IO.puts(line)

  # It is in the pipe when this returns: through IO, it may still wait in memory.
  defp acknowledge(line) do
    out = Process.get(:out) || elem({:ok, _} = :file.open("/dev/stdout", [:raw, :append]), 1)
    Process.put(:out, out)
    :ok = :file.write(out, [line, ?\n])
  end

  # Opens a store, and keeps it.
  defp run("hold", [dir]) do
    case StoreCase.open(dir) do
      {:ok, _} -> say("open")
      {:error, error} -> say("refused #{inspect(error.reason)}")
    end

    Process.sleep(:infinity)
  end

  # Commits until a file is as large as it may get, then makes a checkpoint, and goes on in a new one.
  defp run("fill", [dir]) do
    store = StoreCase.open!(dir)
    {n, error} = fill(store, 1)
    say("full #{n} #{inspect(error.reason)} #{hash(store)} #{Store.get(store, {"n", 0})}")
    say("again #{inspect(Store.update(store, blob(n)) |> elem(0))} #{hash(store)}")
    say("checkpoint #{inspect(Store.checkpoint(store))}")
    say("later #{inspect(Store.update(store, blob(n)) |> elem(0))} #{hash(store)}")
    StoreCase.stop(store)
    store = StoreCase.open!(dir)
    say("reopened #{hash(store)} #{Store.get(store, {"n", 0})}")
  end

  # Several writers; each counts in two objects at once, and says how far it got. `wait` milliseconds at most
  # between two checkpoints.
  defp run("commits", [dir, fsync, writers, wait]) do
    store = StoreCase.open!(dir, fsync: fsync(fsync))
    writers = String.to_integer(writers)
    for w <- 1..writers, do: say("found #{w} #{count(store, "a", w)} #{count(store, "b", w)}")
    say("open #{count(store, "sum", 0)}")
    for w <- 1..writers, do: spawn_link(fn -> write(store, w, count(store, "a", w) + 1) end)
    checkpoints(store, String.to_integer(wait))
  end

  defp fsync("always"), do: :always
  defp fsync("never"), do: :never

  defp fill(store, n) do
    case Store.update(store, blob(n)) do
      {:ok, _} -> fill(store, n + 1)
      {:error, error} -> {n, error}
    end
  end

  defp blob(n), do: [{:put, {"blob", rem(n, 10)}, :rand.bytes(10_000)}, {:put, {"n", 0}, n}]

  defp hash(store), do: store |> Store.hash() |> Base.encode16()

  defp count(store, bucket, key), do: Store.get(store, {bucket, key}, 0)

  defp write(store, w, n) do
    blob = {:put, {"blob", rem(n, 20)}, :rand.bytes(:rand.uniform(3_000))}
    ops = [{:put, {"a", w}, n}, {:increment, {"sum", 0}}, blob, {:put, {"b", w}, n}]
    {:ok, _} = Store.update(store, ops)
    acknowledge("ok #{w} #{n}")
    write(store, w, n + 1)
  end

  defp checkpoints(store, wait) do
    Process.sleep(:rand.uniform(wait))
    :ok = Store.checkpoint(store)
    checkpoints(store, wait)
  end
end
