defmodule Causeway.SmallDoc do
  @moduledoc false
  # What the tests of documents by example share.
  import ExUnit.Assertions
  alias Causeway.{Doc, Error}

  def doc(replica \\ "a", ops), do: replica |> Doc.new() |> Doc.update(ops)

  @doc "Why operations are refused, which both kinds of update must say, in a sentence."
  def reason(doc, ops) do
    {:error, %Error{reason: reason} = error} = Doc.try_update(doc, ops)
    assert error == assert_raise(Error, fn -> Doc.update(doc, ops) end)
    assert Exception.message(error) =~ ~r/^.{10,}/
    reason
  end
end
