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
    if routine == "get_publication_oid", do: no_publication(options, last), else: error
  end

  def known(%Error{postgres: %{code: :object_in_use}}, options, _last),
    do: %WAL.Error{reason: {:slot_in_use, options.slot, nil}}

  def known(error, _options, _last), do: error

  defp no_publication(options, last) do
    reason = if publication?(last), do: :publication_too_new, else: :publication_missing
    %WAL.Error{reason: {reason, options.publication}}
  end

  defp publication?(%WAL.Error{reason: {what, _}}),
    do: what in [:publication_missing, :publication_too_new]

  defp publication?(_), do: false

  @doc """
  The same of a notice: PostgreSQL 18 goes on without a publication that is not there, and leaves out what it would have
  published. Nil if it says something else.
  """
  @spec skipped(keyword, WAL.Options.t(), Exception.t() | nil) :: Exception.t() | nil
  def skipped(fields, options, last) do
    if fields[:code] == "55000" and fields[:routine] == "LoadPublications",
      do: no_publication(options, last)
  end
end
