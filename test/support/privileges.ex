defmodule Causeway.Privileges do
  @moduledoc false
  # What a test of permissions and of a full disk can do where it runs.

  @doc "A prefix of a command line that runs it as a user to whom permissions apply, or why there is none."
  def ordinary_user do
    cond do
      id("-u") != "0" ->
        {:ok, []}

      System.find_executable("setpriv") == nil ->
        {:error, "running as root, and no setpriv"}

      not works?(setpriv() ++ readable()) ->
        {:error, "an ordinary user cannot read what was built"}

      true ->
        {:ok, setpriv()}
    end
  end

  @doc "The ordinary user, for chown."
  def ordinary_id, do: if(id("-u") == "0", do: 65_534, else: String.to_integer(id("-u")))

  # A home that can be written to is not needed, but must not be asked for.
  defp setpriv,
    do: ~w(setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=/tmp)

  defp readable, do: ["test", "-r", to_string(:code.which(__MODULE__))]

  @doc "Mounts a file system of so many kilobytes: `:ok`, or why not."
  def mount(dir, kilobytes) do
    options = ["-t", "tmpfs", "-o", "size=#{kilobytes}k", "causeway-test", dir]

    cond do
      System.find_executable("mount") == nil -> {:error, "no mount"}
      works?(["mount" | options]) -> :ok
      true -> {:error, "this user may not mount a small file system"}
    end
  end

  @doc "Whether `mount/2` works: `:ok`, or why not."
  def mountable do
    dir = Causeway.StoreCase.new_dir()
    result = mount(dir, 100)
    if result == :ok, do: unmount(dir)
    File.rm_rf!(dir)
    result
  end

  def unmount(dir), do: System.cmd("umount", [dir], stderr_to_stdout: true)

  defp id(option), do: "id" |> System.cmd([option]) |> elem(0) |> String.trim()

  defp works?([program | args]),
    do: match?({_, 0}, System.cmd(program, args, stderr_to_stdout: true))

  @doc "Why a test is skipped, for `@tag skip:`; nil when it is not."
  def skip({:error, why}), do: why
  def skip(_), do: nil
end
