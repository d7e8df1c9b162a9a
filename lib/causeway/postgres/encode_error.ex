defmodule Causeway.Postgres.EncodeError do
  @moduledoc """
  A parameter that cannot be sent. Nothing was.

  Fields:

    * `reason` - `:wrong` (another kind of term), `:out_of_range`, `:bad_utf8`, `:zero_byte`, `:too_large`, `:uneven`
      (lists in a list that differ in length), `:fields` (a tuple of another size), `:not_utc`, `:calendar`, `:too_deep`,
      `:unsupported`, `:json`; and for all of them together `:count` (too many or too few) and `:list` (no list)
    * `param` - its number, from 1; with `:count`, how many the statement has
    * `row` - in a list of rows, which one, from 0
    * `type` - the type that the server has for it
    * `kind` - what was expected where it did not fit, which can be an element or a field
    * `value` - the term, or the part of it that does not fit
  """

  alias Causeway.Error.Short

  defexception [:reason, :param, :row, :type, :kind, :value]

  @type t :: %__MODULE__{
          reason: atom,
          param: non_neg_integer | nil,
          row: non_neg_integer | nil,
          type: String.t() | nil,
          kind: atom,
          value: term
        }

  @impl true
  def message(%__MODULE__{row: nil} = error), do: sentence(error)
  def message(%__MODULE__{row: row} = error), do: "row #{row}: #{sentence(error)}"

  defp sentence(%{reason: :count, param: n, value: given}),
    do: "the statement has #{n} #{if n == 1, do: "parameter", else: "parameters"}, #{given} given"

  defp sentence(%{reason: :list, value: value}),
    do: "parameters must be a list, got #{Short.inspect(value)}"

  defp sentence(%{reason: :too_large, param: nil}),
    do: "parameters come to more than 2 GB, or one to more than 1 GB"

  defp sentence(%{reason: :out_of_memory}), do: "out of memory; nothing was sent"

  defp sentence(%{param: param, type: type} = error),
    do: "parameter $#{param} of type #{type}: #{problem(error)}"

  defp problem(%{reason: :wrong, kind: kind, value: value}),
    do: "expected #{expected(kind)}, got #{Short.inspect(value)}"

  defp problem(%{reason: :out_of_range, kind: kind, value: value}),
    do: "#{Short.inspect(value)} is out of range; expected #{expected(kind)}"

  defp problem(%{reason: :bad_utf8, value: value}),
    do: "#{Short.inspect(value)} is not valid UTF-8; binary data can go into bytea"

  defp problem(%{reason: :zero_byte, value: value}),
    do: "#{Short.inspect(value)} has a zero byte, which PostgreSQL does not take in text"

  defp problem(%{reason: :too_large, kind: :name}), do: "a name has 63 bytes at most"

  defp problem(%{reason: :too_large, kind: :tsvector}),
    do: "a word has 2046 bytes and 255 positions at most"

  defp problem(%{reason: :too_large}), do: "a value has 1 GB at most"

  defp problem(%{reason: :uneven, value: value}),
    do: "lists at the same depth must have the same length, in #{Short.inspect(value)}"

  defp problem(%{reason: :fields, value: value}),
    do: "#{Short.inspect(value)} does not have as many elements as the type has attributes"

  defp problem(%{reason: :not_utc, value: value}),
    do: "#{Short.inspect(value)} is not in UTC; see DateTime.shift_zone!/2"

  defp problem(%{reason: :calendar, value: value}),
    do: "#{Short.inspect(value)} is not of Calendar.ISO; see Date.convert!/2 and the like"

  defp problem(%{reason: :too_deep}), do: "arrays have six dimensions at most"

  defp problem(%{reason: :unsupported, kind: :record}),
    do: "a record of unknown type cannot be sent; cast the parameter to a composite type"

  defp problem(%{reason: :unsupported, kind: kind}),
    do: "there is no binary form of #{kind} to send here"

  defp problem(%{reason: :json, value: error}),
    do: "cannot be encoded: #{Exception.message(error)}"

  @doc "What terms a kind takes, for error messages."
  def expected(:bool), do: "true or false"
  def expected(:int2), do: "an integer from -32768 to 32767"
  def expected(:int4), do: "an integer from -2147483648 to 2147483647"
  def expected(:int8), do: "an integer from -9223372036854775808 to 9223372036854775807"
  def expected(:oid), do: "an integer from 0 to 4294967295"
  def expected(:xid8), do: "an integer from 0 to 18446744073709551615"
  def expected(:float4), do: "a number up to about 3.4e38, :NaN, :inf or :\"-inf\""
  def expected(:float8), do: "a number up to about 1.8e308, :NaN, :inf or :\"-inf\""

  def expected(:numeric),
    do:
      "an integer, a float, a Decimal or a Causeway.Postgres.Numeric with up to 131072 digits before the point " <>
        "and 16383 after it"

  def expected(kind) when kind in [:text, :bytea, :versioned], do: "a binary"
  def expected(:literal), do: "a binary with the text, or a term that has one"
  def expected(:name), do: "a binary of up to 63 bytes"
  def expected(:char), do: "a binary of one byte"

  def expected(kind) when kind in [:json, :jsonb],
    do: "a binary with the document, as there is no JSON library here"

  def expected(:uuid), do: "a binary of 16 bytes"
  def expected(:bit), do: "a bitstring"
  def expected(:date), do: "a Date from -4713-11-24 to 5874897-12-31, :inf or :\"-inf\""
  def expected(kind) when kind in [:time, :timetz], do: "a Time"

  def expected(:timestamp),
    do:
      "a NaiveDateTime or DateTime from -4713-11-24 to 294276-12-31 (the year 0 is 1 BC), :inf or :\"-inf\""

  def expected(:timestamptz),
    do:
      "a DateTime in UTC from -4713-11-24 to 294276-12-31 (the year 0 is 1 BC), :inf or :\"-inf\""

  def expected(:interval),
    do:
      "an Interval or Duration with months and days of 32 bits and microseconds of 64, :inf or :\"-inf\""

  def expected(:inet),
    do: "an INET with a tuple of 4 or 8 integers, and a mask of 0 to 32 or 128 bits, or nil"

  def expected(:macaddr), do: "a MACADDR with a tuple of 6 bytes"
  def expected(:macaddr8), do: "a MACADDR with a tuple of 8 bytes"
  def expected(:tid), do: "a tuple of a block, 32 bits, and an item, 16 bits"
  def expected(:void), do: ":void"
  def expected(:point), do: "a Point"
  def expected(:line), do: "a Line"
  def expected(:lseg), do: "a LineSegment of two Points"
  def expected(:box), do: "a Box of two Points"
  def expected(:path), do: "a Path with a list of Points, open or not"
  def expected(:polygon), do: "a Polygon with a list of Points"
  def expected(:circle), do: "a Circle with a Point and a radius of 0 or more"

  def expected(:tsvector),
    do: "a list of Lexemes with positions from 1 and weights :A, :B, :C or nil"

  def expected(:hstore), do: "a map of binaries to binaries or nil"
  def expected(kind) when kind in [:array, :vector], do: "a list"
  def expected(:range), do: "a Range with booleans for whether its bounds are inclusive"
  def expected(:multirange), do: "a Multirange with a list of Ranges"
  def expected(:composite), do: "a tuple"
  def expected(kind), do: "a value of #{kind}"
end
