defmodule Causeway.TestJson do
  @moduledoc false
  # A JSON library for tests that must not depend on one: small documents, no care for anything else.

  def decode!(text) do
    {value, rest} = text |> String.trim() |> value()
    "" = String.trim(rest)
    value
  end

  defp value("null" <> rest), do: {nil, rest}
  defp value("true" <> rest), do: {true, rest}
  defp value("false" <> rest), do: {false, rest}
  defp value("\"" <> rest), do: string(rest, "")
  defp value("[" <> rest), do: rest |> String.trim_leading() |> elements([])
  defp value("{" <> rest), do: rest |> String.trim_leading() |> pairs(%{})

  defp value(text) do
    [number] = Regex.run(~r/\A-?[\d.]+(?:[eE][-+]?\d+)?/, text)
    rest = String.replace_prefix(text, number, "")

    case Integer.parse(number) do
      {n, ""} -> {n, rest}
      _ -> {number |> Float.parse() |> elem(0), rest}
    end
  end

  defp string("\"" <> rest, text), do: {text, rest}

  defp string("\\u" <> <<hex::binary-size(4), rest::binary>>, text),
    do: string(rest, text <> <<String.to_integer(hex, 16)::utf8>>)

  defp string("\\n" <> rest, text), do: string(rest, text <> "\n")
  defp string(<<"\\", c, rest::binary>>, text), do: string(rest, <<text::binary, c>>)
  defp string(<<c, rest::binary>>, text), do: string(rest, <<text::binary, c>>)

  defp elements("]" <> rest, list), do: {Enum.reverse(list), rest}

  defp elements(text, list) do
    {element, rest} = value(text)
    rest |> next() |> elements([element | list])
  end

  defp pairs("}" <> rest, map), do: {map, rest}

  defp pairs("\"" <> rest, map) do
    {key, rest} = string(rest, "")
    ":" <> rest = String.trim_leading(rest)
    {value, rest} = rest |> String.trim_leading() |> value()
    rest |> next() |> pairs(Map.put(map, key, value))
  end

  defp next(text) do
    case String.trim_leading(text) do
      "," <> rest -> String.trim_leading(rest)
      rest -> rest
    end
  end

  def encode_to_iodata!(nil), do: "null"
  def encode_to_iodata!(value) when is_boolean(value), do: to_string(value)
  def encode_to_iodata!(value) when is_number(value), do: to_string(value)

  def encode_to_iodata!(value) when is_binary(value),
    do: [?", String.replace(value, ["\\", "\""], &("\\" <> &1)), ?"]

  def encode_to_iodata!(value) when is_list(value),
    do: [?[, value |> Enum.map(&encode_to_iodata!/1) |> Enum.intersperse(?,), ?]]

  def encode_to_iodata!(%{} = value) do
    pairs = for {key, value} <- value, do: [encode_to_iodata!(key), ?:, encode_to_iodata!(value)]
    [?{, Enum.intersperse(pairs, ?,), ?}]
  end
end
