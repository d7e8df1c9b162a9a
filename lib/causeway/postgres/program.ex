defmodule Causeway.Postgres.Program do
  @moduledoc false
  # Where the port program is: the environment's CAUSEWAY_PORT, the application's `:postgres_program`, or
  # what `make build` made.

  @doc "The program's path, or a sentence that says why there is none."
  @spec path :: {:ok, Path.t()} | {:error, String.t()}
  def path do
    path =
      System.get_env("CAUSEWAY_PORT") || Application.get_env(:causeway, :postgres_program) ||
        Application.app_dir(:causeway, "priv/causeway_port")

    if File.regular?(path) do
      {:ok, path}
    else
      {:error,
       "there is no port program at #{path}: it is built with Causeway where libpq 14 or later and " <>
         "Erlang's ei are (Debian: apt-get install libpq-dev erlang-dev), so install them and run `make build`"}
    end
  end

  @doc "Ends a port program that does not end by itself."
  @spec kill(pos_integer | nil) :: :ok
  def kill(nil), do: :ok

  def kill(os_pid) do
    System.cmd("kill", ["-KILL", Integer.to_string(os_pid)], stderr_to_stdout: true)
    :ok
  end
end
