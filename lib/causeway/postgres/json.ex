defmodule Causeway.Postgres.Json do
  @moduledoc false
  # Documents of json and jsonb: which library reads and writes them, and where they stand in rows and parameters.
  # The C codec knows their text only.

  alias Causeway.Postgres.TypeWalk

  @typedoc "A module with `decode!/1` and `encode_to_iodata!/1`; nil for those who want the text."
  @type library :: module | nil

  @doc """
  The library to use when none is named: the one configured for this application or for Postgrex, then whichever is
  here of Jason, Elixir's own, and Erlang's own.
  """
  @spec library() :: library
  def library do
    configured(:causeway) || configured(:postgrex) ||
      Enum.find([Jason, JSON, Causeway.Postgres.Json.Erlang], &usable?/1)
  end

  defp configured(app) do
    module = Application.get_env(app, :json_library)
    if module && usable?(module), do: module
  end

  defp usable?(Causeway.Postgres.Json.Erlang), do: Code.ensure_loaded?(:json)

  defp usable?(module),
    do: Code.ensure_loaded?(module) and function_exported?(module, :encode_to_iodata!, 1)

  # ---- rows ----

  @doc "What to do with each column: `:document`, `:inside`, or nil; nil for all when there is nothing to do."
  def plan(specs) do
    plan = Enum.map(specs, &place/1)
    if Enum.any?(plan), do: plan
  end

  defp place(spec) when spec in [:json, :jsonb], do: :document
  defp place(spec), do: if(TypeWalk.any?(spec, &holds_json?/1), do: :inside)

  # Of records nobody knows before they come.
  defp holds_json?(spec), do: spec in [:json, :jsonb, :record, :anyarray, :opaque]

  @doc "Decodes the documents of a row, or of any list of values that `plan` is for."
  def decode_row(row, nil, _library), do: row
  def decode_row(row, plan, nil), do: decode(row, plan, & &1)
  def decode_row(row, plan, library), do: decode(row, plan, &library.decode!/1)

  defp decode([], [], _fun), do: []
  defp decode([value | row], [nil | plan], fun), do: [value | decode(row, plan, fun)]
  defp decode([nil | row], [_ | plan], fun), do: [nil | decode(row, plan, fun)]
  defp decode([text | row], [:document | plan], fun), do: [fun.(text) | decode(row, plan, fun)]

  defp decode([value | row], [:inside | plan], fun),
    do: [unwrap(value, fun) | decode(row, plan, fun)]

  # The mark is made by the C codec; no value of a type is a tuple with this atom.
  defp unwrap({:causeway_json, text}, fun), do: fun.(text)
  defp unwrap(list, fun) when is_list(list), do: for(value <- list, do: unwrap(value, fun))

  defp unwrap(tuple, fun) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> unwrap(fun) |> List.to_tuple()

  defp unwrap(%{lower: lower, upper: upper} = range, fun),
    do: %{range | lower: unwrap(lower, fun), upper: unwrap(upper, fun)}

  defp unwrap(%{ranges: ranges} = multirange, fun),
    do: %{multirange | ranges: unwrap(ranges, fun)}

  defp unwrap(value, _fun), do: value

  # ---- parameters ----

  @doc "A parameter with its documents written."
  def encode(spec, value, library) do
    TypeWalk.map(spec, value, fn
      kind, document when kind in [:json, :jsonb] ->
        document |> library.encode_to_iodata!() |> IO.iodata_to_binary()

      _kind, value ->
        value
    end)
  end
end

defmodule Causeway.Postgres.Json.Erlang do
  @moduledoc false
  # The json of OTP 27 and later, with Elixir's nil. Where Elixir has a JSON of its own, that is used instead.
  @compile {:no_warn_undefined, :json}

  def decode!(text) do
    {document, :ok, rest} = :json.decode(text, :ok, %{null: nil})
    if String.trim(rest) == "", do: document, else: raise(ArgumentError, "more than one document")
  end

  def encode_to_iodata!(document), do: :json.encode(document, &value/2)

  defp value(nil, _encode), do: "null"
  defp value(value, encode), do: :json.encode_value(value, encode)
end
