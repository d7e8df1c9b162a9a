defmodule Causeway.Postgres.ProgramTest do
  # The environment is one for all.
  use ExUnit.Case, async: false

  alias Causeway.Postgres.Program

  setup do
    env = System.get_env("CAUSEWAY_PORT")
    System.delete_env("CAUSEWAY_PORT")

    on_exit(fn ->
      Application.delete_env(:causeway, :postgres_program)
      if env, do: System.put_env("CAUSEWAY_PORT", env), else: System.delete_env("CAUSEWAY_PORT")
    end)
  end

  test "the environment comes before the application, and that before priv" do
    Application.put_env(:causeway, :postgres_program, __ENV__.file)
    assert Program.path() == {:ok, __ENV__.file}
    other = Path.join(__DIR__, "../../test_helper.exs")
    System.put_env("CAUSEWAY_PORT", other)
    assert Program.path() == {:ok, other}
  end

  test "says where it looked, and what to do" do
    Application.put_env(:causeway, :postgres_program, "/nowhere/port")
    assert {:error, why} = Program.path()
    assert why =~ "/nowhere/port"
    assert why =~ "make build"
  end
end
