defmodule Causeway.Postgres.WAL.Refusal do
  @moduledoc false
  # What the server's refusals of a stream mean. They are known by their code and the function of the server that made
  # them: the message is in the language that the server was told to speak.

  alias Causeway.Postgres.{Error, WAL}

  @doc """
  The error in our terms, if it is one of those; `last` is the error of the attempt before. A publication that the
  stream misses twice, and that was there when the stream began, is one that was made later than what is to be read.
  """
  @spec known(Exception.t(), WAL.Options.t(), Exception.t() | nil) :: Exception.t()
  def known(%Error{postgres: %{code: :undefined_object, routine: routine}} = error, options, last) do
    cond do
      routine != "get_publication_oid" -> error
      publication?(last) -> %WAL.Error{reason: {:publication_too_new, options.publication}}
      true -> %WAL.Error{reason: {:publication_missing, options.publication}}
    end
  end

  def known(%Error{postgres: %{code: :object_in_use}}, options, _last),
    do: %WAL.Error{reason: {:slot_in_use, options.slot, nil}}

  def known(error, _options, _last), do: error

  defp publication?(%WAL.Error{reason: {what, _}}),
    do: what in [:publication_missing, :publication_too_new]

  defp publication?(_), do: false

  @doc "Whether a notice says that a publication was left out, as it is not there."
  @spec publication_skipped?(keyword) :: boolean
  def publication_skipped?(fields),
    do: fields[:code] == "55000" and fields[:routine] == "LoadPublications"
end
