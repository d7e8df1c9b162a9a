defmodule Causeway do
  @moduledoc """
  Data that can be written everywhere at once and still agrees.

  Every replica edits its own copy without asking anyone; copies merge without conflicts, and replicas
  that have seen the same writes are equal byte for byte. The merging is done by a core in C.
  """
end
