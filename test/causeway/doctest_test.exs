defmodule Causeway.DoctestTest do
  use ExUnit.Case, async: true

  doctest Causeway.Doc
  doctest Causeway.Clock
  doctest Causeway.HLC
end
