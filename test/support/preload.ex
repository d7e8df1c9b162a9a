defmodule Causeway.Preload do
  @moduledoc false
  # What test/preload has, put before the C library of a VM, so that its clock or its disk goes wrong. Only where the
  # loader knows LD_PRELOAD.

  @doc "Builds one: `{:ok, path}`, or `{:error, why not}`."
  def build(name) do
    cond do
      :os.type() != {:unix, :linux} -> {:error, "LD_PRELOAD is for Linux"}
      System.get_env("LD_PRELOAD") -> {:error, "something else is preloaded"}
      true -> make(name)
    end
  end

  defp make(name) do
    env = [{"MAKEFLAGS", nil}, {"MAKELEVEL", nil}]
    make = System.get_env("MAKE") || "make"

    case System.cmd(make, ["preload/#{name}"], env: env, stderr_to_stdout: true) do
      {_, 0} -> {:ok, Path.expand("_build/c/lib/#{name}.so")}
      {output, _} -> {:error, "test/preload/#{name}.c cannot be built: #{output}"}
    end
  end

  @doc "The path that `build/1` gave, in a test that is skipped where there is none."
  def path!({:ok, path}), do: path

  @doc "The environment of a VM with one of them, which takes orders in a file."
  def env(path, variable, file), do: [{"LD_PRELOAD", path}, {variable, file}]
end
