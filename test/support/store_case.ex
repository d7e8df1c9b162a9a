defmodule Causeway.StoreCase do
  @moduledoc false
  # For tests of stores that come and go: a directory of their own, and what is logged sent to the test as
  # `{:logged, level, text}` instead of shown.
  use ExUnit.CaseTemplate
  alias Causeway.Store
  alias Causeway.Store.Runtime

  @defaults [name: __MODULE__.Store, replica: "paris", fsync: :never]

  using do
    quote do
      import Causeway.StoreCase
      alias Causeway.{Clock, Doc, Store}
      alias Causeway.Store.Error
    end
  end

  setup do
    Process.flag(:trap_exit, true)
    dir = new_dir()
    filter = :"logs_of_#{inspect(self())}"
    :ok = :logger.add_primary_filter(filter, {&__MODULE__.log/2, self()})

    # What a failed test has left dies with it, but not at once; last reports come late.
    on_exit(fn ->
      Process.sleep(20)
      eventually(fn -> Process.whereis(@defaults[:name]) == nil end)
      eventually(fn -> committer(@defaults[:name]) == nil end)
      :logger.remove_primary_filter(filter)
      File.rm_rf!(dir)
    end)

    {:ok, dir: dir}
  end

  # Progress reports and the like go on.
  def log(%{level: level} = event, test) when level in [:warning, :error] do
    send(test, {:logged, level, text(event.msg)})
    :stop
  end

  def log(_event, _test), do: :ignore

  defp text({:string, text}), do: IO.chardata_to_string(text)
  defp text({:report, report}), do: inspect(report)
  defp text({format, args}), do: format |> :io_lib.format(args) |> IO.chardata_to_string()

  def logged do
    receive do
      {:logged, _, text} -> [text | logged()]
    after
      0 -> []
    end
  end

  def new_dir do
    name = "causeway_store_#{System.pid()}_#{System.unique_integer([:positive])}"
    dir = Path.join(System.tmp_dir!(), name)
    File.rm_rf!(dir)
    File.mkdir_p!(dir)
    dir
  end

  # ---- stores ----

  @doc "Starts a store: `{:ok, name}` or `{:error, error}`."
  def open(dir, opts \\ []) do
    opts = @defaults |> Keyword.merge(dir: dir) |> Keyword.merge(opts)
    with {:ok, _pid} <- Store.start_link(opts), do: {:ok, opts[:name]}
  end

  def open!(dir, opts \\ []) do
    {:ok, name} = open(dir, opts)
    name
  end

  def stop(name), do: Supervisor.stop(name)

  @doc "Ends a store without a chance to do anything."
  def kill(name) do
    supervisor = Process.whereis(name)
    pids = [supervisor, log_writer(name), committer(name)]
    refs = for pid <- pids, do: Process.monitor(pid)
    for pid <- pids, do: Process.exit(pid, :kill)
    for ref <- refs, do: receive(do: ({:DOWN, ^ref, _, _, _} -> :ok))
  end

  @doc "Kills the committer or the log writer, and waits for the next."
  def crash(name, process \\ &log_writer/1) do
    committer = committer(name)
    Process.exit(process.(name), :kill)
    eventually(fn -> committer(name) not in [committer, nil] and is_map(Store.info(name)) end)
  end

  def committer(name), do: name |> Runtime.process(Committer) |> Process.whereis()
  def log_writer(name), do: name |> Runtime.process(LogWriter) |> Process.whereis()

  def eventually(fun, tries \\ 500) do
    ready =
      try do
        fun.()
      rescue
        _ in [Store.Error, FunctionClauseError, BadMapError] -> false
      catch
        :exit, _ -> false
      end

    cond do
      ready -> :ok
      tries == 0 -> raise "it did not happen"
      true -> Process.sleep(10) && eventually(fun, tries - 1)
    end
  end

  # ---- files ----

  def files(dir), do: dir |> File.ls!() |> Enum.sort()
  def logs(dir), do: for("log-" <> _ = name <- files(dir), do: Path.join(dir, name))

  def checkpoints(dir),
    do: for("checkpoint-" <> _ = name <- files(dir), do: Path.join(dir, name))

  @doc "What is in a directory; `put_back/2` makes it so again, in the same files where they are still there."
  def contents(dir), do: for(name <- files(dir), do: {name, File.read!(Path.join(dir, name))})

  def put_back(dir, contents) do
    for name <- files(dir), not List.keymember?(contents, name, 0), do: rm!(dir, name)

    for {name, bytes} <- contents,
        path = Path.join(dir, name),
        File.read(path) != {:ok, bytes},
        do: File.write!(path, bytes)
  end

  defp rm!(dir, name), do: dir |> Path.join(name) |> File.rm!()

  @doc "As `cp -a`."
  def copy(from, to) do
    {_, 0} = System.cmd("cp", ["-a", from, to])
    to
  end

  @doc "Puts other bytes at an offset of a file; negative ones count from its end."
  def patch(path, offset, bytes) do
    old = File.read!(path)
    offset = if offset < 0, do: byte_size(old) + offset, else: offset
    {head, rest} = :erlang.split_binary(old, offset)
    {_, tail} = :erlang.split_binary(rest, byte_size(bytes))
    File.write!(path, [head, bytes, tail])
  end

  def flip(path, offset) do
    byte = path |> File.read!() |> :binary.at(offset)
    patch(path, offset, <<Bitwise.bxor(byte, Bitwise.bsl(1, :rand.uniform(8) - 1))>>)
  end

  @doc "Where the records of a log begin, and where the last one ends."
  def offsets(path), do: path |> File.read!() |> offsets(16)
  defp offsets(bytes, at) when byte_size(bytes) == at, do: [at]

  defp offsets(bytes, at) do
    <<_crc::32, size::64>> = binary_part(bytes, at, 12)
    [at | offsets(bytes, at + 20 + size)]
  end
end
