defmodule Causeway.Postgres.TextSyntax do
  @moduledoc false
  # The server's texts of values that are made of others: which texts they are made of. They raise for anything else.

  # ---- arrays ----

  @doc ~S"""
  Nested lists of texts and nils.

      iex> Causeway.Postgres.TextSyntax.array(~S([0:1]={{a,NULL},{"b c","\"NULL"}}), ?,)
      [["a", nil], ["b c", "\"NULL"]]
  """
  def array("[" <> _ = text, delimiter) do
    [_bounds, array] = String.split(text, "=", parts: 2)
    array(array, delimiter)
  end

  def array("{" <> rest, delimiter) do
    {list, ""} = items(rest, delimiter, [])
    list
  end

  defp items("}" <> rest, _delimiter, []), do: {[], rest}

  defp items(text, delimiter, items) do
    {item, rest} = item(text, delimiter)

    case rest do
      "}" <> rest -> {Enum.reverse([item | items]), rest}
      <<^delimiter, rest::binary>> -> items(rest, delimiter, [item | items])
    end
  end

  defp item("{" <> rest, delimiter), do: items(rest, delimiter, [])
  defp item("\"" <> rest, _delimiter), do: quoted(rest, "")

  defp item(text, delimiter) do
    case bare(text, [delimiter, ?}], "") do
      {"NULL", rest} -> {nil, rest}
      item -> item
    end
  end

  # Up to one of these characters, which is not taken.
  defp bare(<<c, _::binary>> = rest, stops, text) do
    cond do
      c in stops ->
        {text, rest}

      c == ?\\ ->
        <<_, next, rest::binary>> = rest
        bare(rest, stops, <<text::binary, next>>)

      true ->
        <<_, rest::binary>> = rest
        bare(rest, stops, <<text::binary, c>>)
    end
  end

  # Up to the closing quotation mark; a doubled one, and anything behind a backslash, stands for itself.
  defp quoted(<<?", ?", rest::binary>>, text), do: quoted(rest, <<text::binary, ?">>)
  defp quoted(<<?", rest::binary>>, text), do: {text, rest}
  defp quoted(<<?\\, c, rest::binary>>, text), do: quoted(rest, <<text::binary, c>>)
  defp quoted(<<c, rest::binary>>, text), do: quoted(rest, <<text::binary, c>>)

  # ---- composites ----

  @doc ~S"""
  Texts and nils, as many as are expected.

      iex> Causeway.Postgres.TextSyntax.composite(~S|(1,,"a ""b"" c")|, 3)
      ["1", nil, "a \"b\" c"]
  """
  def composite("()", 0), do: []

  def composite("(" <> rest, count) do
    fields = fields(rest, [])
    ^count = length(fields)
    fields
  end

  defp fields(text, fields) do
    {field, rest} = field(text, [?,, ?)])

    case rest do
      ")" -> Enum.reverse([field | fields])
      "," <> rest -> fields(rest, [field | fields])
    end
  end

  # Nothing is NULL, nothing in quotation marks is "".
  defp field("\"" <> rest, _stops), do: quoted(rest, "")

  defp field(text, stops) do
    case bare(text, stops, "") do
      {"", rest} -> {nil, rest}
      field -> field
    end
  end

  # ---- ranges ----

  @doc """
  Whether the lower bound is inclusive, the bounds, nil for none, and whether the upper one is inclusive.

      iex> Causeway.Postgres.TextSyntax.range(~S|[1,"2 3")|)
      {true, "1", "2 3", false}
      iex> Causeway.Postgres.TextSyntax.range("(,5]")
      {false, nil, "5", true}
  """
  def range(text) do
    {range, ""} = one_range(text)
    range
  end

  @doc "The texts of its ranges."
  def multirange("{}"), do: []
  def multirange("{" <> rest), do: ranges(rest, [])

  defp ranges(text, ranges) do
    {_range, rest} = one_range(text)
    range = binary_part(text, 0, byte_size(text) - byte_size(rest))

    case rest do
      "}" -> Enum.reverse([range | ranges])
      "," <> rest -> ranges(rest, [range | ranges])
    end
  end

  defp one_range(<<open, rest::binary>>) when open in [?[, ?(] do
    {lower, "," <> rest} = field(rest, [?,])
    {upper, <<close, rest::binary>>} = field(rest, [?), ?]])
    {{open == ?[, lower, upper, close == ?]}, rest}
  end

  # ---- hstore ----

  @doc ~S"""
  Pairs of texts.

      iex> Causeway.Postgres.TextSyntax.hstore(~S("a"=>"1", "b"=>NULL))
      [{"a", "1"}, {"b", nil}]
  """
  def hstore(""), do: []

  def hstore("\"" <> rest) do
    {key, "=>" <> rest} = quoted(rest, "")

    {value, rest} =
      case rest do
        "NULL" <> rest -> {nil, rest}
        "\"" <> rest -> quoted(rest, "")
      end

    case rest do
      ", " <> rest -> [{key, value} | hstore(rest)]
      "" -> [{key, value}]
    end
  end

  # ---- tsvector ----

  @doc ~S"""
  Words with their positions and weights.

      iex> Causeway.Postgres.TextSyntax.tsvector("'a':1A,3 'it''s'")
      [{"a", [{1, :A}, {3, nil}]}, {"it's", []}]
  """
  def tsvector(""), do: []

  def tsvector("'" <> rest) do
    {word, rest} = word(rest, "")
    {positions, rest} = positions(rest)

    case rest do
      " " <> rest -> [{word, positions} | tsvector(rest)]
      "" -> [{word, positions}]
    end
  end

  defp word("''" <> rest, word), do: word(rest, word <> "'")
  defp word("'" <> rest, word), do: {word, rest}
  defp word("\\\\" <> rest, word), do: word(rest, word <> "\\")
  defp word(<<c, rest::binary>>, word), do: word(rest, <<word::binary, c>>)

  defp positions(":" <> rest) do
    [positions | rest] = String.split(rest, " ", parts: 2)

    positions =
      for position <- String.split(positions, ","), do: position(Integer.parse(position))

    {positions, Enum.map_join(rest, &(" " <> &1))}
  end

  defp positions(rest), do: {[], rest}

  defp position({position, ""}), do: {position, nil}
  defp position({position, "A"}), do: {position, :A}
  defp position({position, "B"}), do: {position, :B}
  defp position({position, "C"}), do: {position, :C}

  # ---- bytes ----

  @doc """
  Bytes in the older of the server's two texts for them.

      iex> Causeway.Postgres.TextSyntax.unescape_bytes("a\\\\\\\\b\\\\000")
      <<"a\\\\b", 0>>
  """
  def unescape_bytes(""), do: ""
  def unescape_bytes("\\\\" <> rest), do: "\\" <> unescape_bytes(rest)

  def unescape_bytes(<<"\\", octal::binary-size(3), rest::binary>>),
    do: <<String.to_integer(octal, 8)>> <> unescape_bytes(rest)

  def unescape_bytes(<<c, rest::binary>>), do: <<c>> <> unescape_bytes(rest)
end
