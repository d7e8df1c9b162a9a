defmodule Causeway.DoctestTest do
  use ExUnit.Case, async: true

  doctest Causeway.Doc
  doctest Causeway.Clock
  doctest Causeway.HLC
  doctest Causeway.Postgres.Numeric
  doctest Causeway.Postgres.TextSyntax

  test "the README's example runs as it stands there" do
    [_, example] = Regex.run(~r/```elixir\n(.*?)```/s, File.read!("README.md"))
    {true, _} = Code.eval_string(example)
    # and is as long as its heading says
    assert length(String.split(example, "\n", trim: true)) <= 20
  end
end
