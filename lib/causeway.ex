defmodule Causeway do
  @moduledoc """
  Data that can be written everywhere at once and still agrees.

  Every replica edits its own copy without asking anyone; copies merge without conflicts, and replicas
  that have seen the same writes are equal byte for byte. The merging is done by a core in C.

  `Causeway.Doc` is such a copy, and where to begin. `Causeway.Clock` tells what a copy has seen, and
  `Causeway.Store` keeps one on disk and in step with those of other nodes. From Erlang, the modules are
  `:causeway_doc` and `:causeway_clock`.
  """
end
