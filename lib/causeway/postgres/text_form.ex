defmodule Causeway.Postgres.TextForm do
  @moduledoc false
  # Terms as the texts that PostgreSQL reads, for parameters whose type is not known here, or not before they are sent:
  # the server knows it, and parses the text. What a term is has to be seen by itself, so that a list is an array, a
  # tuple a composite, a map a JSON document, and a binary that is not UTF-8 goes as bytea.

  alias Causeway.Postgres.{Json, Numeric}

  @spec encode(term, Json.library()) :: {:ok, String.t()} | {:error, bad :: term}
  def encode(term, library) do
    {:ok, term |> text(library) |> IO.iodata_to_binary()}
  catch
    {:no_text, bad} -> {:error, bad}
  end

  # ---- scalars ----

  defp text(binary, _) when is_binary(binary) do
    if String.valid?(binary) and not String.contains?(binary, <<0>>),
      do: binary,
      else: ["\\x", Base.encode16(binary, case: :lower)]
  end

  defp text(bits, _) when is_bitstring(bits), do: for(<<bit::1 <- bits>>, do: ?0 + bit)
  defp text(true, _), do: "true"
  defp text(false, _), do: "false"
  defp text(:NaN, _), do: "NaN"
  defp text(:inf, _), do: "Infinity"
  defp text(:"-inf", _), do: "-Infinity"
  defp text(:void, _), do: ""
  defp text(number, _) when is_integer(number), do: Integer.to_string(number)
  defp text(number, _) when is_float(number), do: Float.to_string(number)

  # ---- made of others ----

  defp text([%{__struct__: module, word: _} | _] = list, _) when is_atom(module),
    do: list |> Enum.map(&lexeme/1) |> Enum.intersperse(" ")

  defp text(list, library) when is_list(list) do
    unless List.improper?(list), do: array(list, library), else: throw({:no_text, list})
  end

  defp text(tuple, library) when is_tuple(tuple) do
    fields = for field <- Tuple.to_list(tuple), do: field(field, library)
    [?(, Enum.intersperse(fields, ?,), ?)]
  end

  defp text(%_{} = struct, library), do: of_struct(struct, library)

  defp text(%{} = map, library) when library != nil do
    library.encode_to_iodata!(map)
  rescue
    _ -> throw({:no_text, map})
  end

  defp text(other, _), do: throw({:no_text, other})

  defp array(list, library) do
    delimiter = if match?([%{upper_right: _} | _], list), do: ?;, else: ?,
    [?{, list |> Enum.map(&element(&1, library)) |> Enum.intersperse(delimiter), ?}]
  end

  defp element(nil, _library), do: "NULL"
  defp element([%{word: _} | _] = lexemes, library), do: quoted(text(lexemes, library))
  defp element(list, library) when is_list(list), do: text(list, library)
  defp element(term, library), do: quoted(text(term, library))

  defp field(nil, _library), do: ""
  defp field(term, library), do: quoted(text(term, library))

  defp quoted(text) do
    text = IO.iodata_to_binary(text)
    [?", String.replace(text, ["\\", "\""], &("\\" <> &1)), ?"]
  end

  # ---- structs ----

  defp of_struct(%Date{calendar: Calendar.ISO} = date, _), do: date(date, "")
  defp of_struct(%Time{calendar: Calendar.ISO} = time, _), do: clock(time)

  defp of_struct(%NaiveDateTime{calendar: Calendar.ISO} = naive, _),
    do: date(naive, [" ", clock(naive)])

  defp of_struct(%DateTime{calendar: Calendar.ISO} = datetime, _),
    do: date(datetime, [" ", clock(datetime), offset(datetime.utc_offset + datetime.std_offset)])

  defp of_struct(%{sign: sign, coef: coef, exp: exp}, _)
       when is_integer(coef) and is_integer(exp),
       do: [if(sign < 0, do: "-", else: ""), Integer.to_string(coef), "e", Integer.to_string(exp)]

  defp of_struct(%{coef: coef} = number, _) when coef in [:NaN, :inf],
    do: to_string(%Numeric{sign: number.sign, coef: coef})

  defp of_struct(%{months: months, days: days, secs: secs, microsecs: us}, _),
    do: interval(months, days, secs * 1_000_000 + us)

  defp of_struct(%{__struct__: Duration, microsecond: {us, _}} = d, _) do
    seconds = (d.hour * 60 + d.minute) * 60 + d.second
    interval(d.year * 12 + d.month, d.week * 7 + d.day, seconds * 1_000_000 + us)
  end

  defp of_struct(%{lower: :empty, upper: :empty}, _), do: "empty"

  defp of_struct(%{lower: lower, upper: upper} = range, library) do
    [
      if(range.lower_inclusive, do: "[", else: "("),
      bound(lower, library),
      ",",
      bound(upper, library),
      if(range.upper_inclusive, do: "]", else: ")")
    ]
  end

  defp of_struct(%{ranges: ranges}, library) when is_list(ranges),
    do: [?{, ranges |> Enum.map(&text(&1, library)) |> Enum.intersperse(?,), ?}]

  defp of_struct(%{address: address, netmask: mask}, _) when is_tuple(address) do
    case :inet.ntoa(address) do
      {:error, _} -> throw({:no_text, address})
      text -> [text, if(mask, do: ["/", Integer.to_string(mask)], else: "")]
    end
  end

  defp of_struct(%{address: address}, _) when is_tuple(address) do
    address
    |> Tuple.to_list()
    |> Enum.map(&(&1 |> Integer.to_string(16) |> String.pad_leading(2, "0")))
    |> Enum.intersperse(":")
  end

  defp of_struct(%{x: x, y: y}, _), do: [?(, text(x, nil), ?,, text(y, nil), ?)]

  defp of_struct(%{a: a, b: b, c: c}, _),
    do: [?{, text(a, nil), ?,, text(b, nil), ?,, text(c, nil), ?}]

  defp of_struct(%{point1: a, point2: b}, _), do: points([a, b])
  defp of_struct(%{upper_right: a, bottom_left: b}, _), do: points([a, b])
  defp of_struct(%{points: points, open: true}, _), do: [?[, points(points), ?]]
  defp of_struct(%{points: points, open: false}, _), do: [?(, points(points), ?)]
  defp of_struct(%{vertices: points}, _), do: [?(, points(points), ?)]

  defp of_struct(%{center: center, radius: radius}, _),
    do: [?<, text(center, nil), ?,, text(radius, nil), ?>]

  defp of_struct(other, _), do: throw({:no_text, other})

  # ---- parts ----

  defp bound(bound, _library) when bound in [nil, :unbound], do: ""
  defp bound(bound, library), do: quoted(text(bound, library))

  defp points(points), do: points |> Enum.map(&text(&1, nil)) |> Enum.intersperse(?,)

  defp lexeme(%{word: word, positions: positions}) do
    word = String.replace(word, ["\\", "'"], &(&1 <> &1))

    positions =
      for {position, weight} <- positions, do: [Integer.to_string(position), weight(weight)]

    [?', word, ?', if(positions == [], do: "", else: [?:, Enum.intersperse(positions, ?,)])]
  end

  defp weight(nil), do: ""
  defp weight(weight), do: Atom.to_string(weight)

  # The year 0 is 1 BC.
  defp date(%{year: year, month: month, day: day}, rest) do
    {year, era} = if year > 0, do: {year, ""}, else: {1 - year, " BC"}
    [digits(year, 4), ?-, digits(month, 2), ?-, digits(day, 2), rest, era]
  end

  defp clock(%{hour: hour, minute: minute, second: second, microsecond: {us, _}}),
    do: [digits(hour, 2), ?:, digits(minute, 2), ?:, digits(second, 2), ?., digits(us, 6)]

  defp offset(seconds) do
    sign = if seconds < 0, do: ?-, else: ?+
    seconds = abs(seconds)

    [
      sign,
      digits(div(seconds, 3600), 2),
      ?:,
      digits(rem(div(seconds, 60), 60), 2),
      ?:,
      digits(rem(seconds, 60), 2)
    ]
  end

  defp interval(months, days, us) do
    sign = if us < 0, do: "-", else: ""

    seconds = [
      sign,
      Integer.to_string(div(abs(us), 1_000_000)),
      ?.,
      digits(rem(abs(us), 1_000_000), 6)
    ]

    "#{months} mons #{days} days #{seconds} secs"
  end

  defp digits(n, width), do: n |> Integer.to_string() |> String.pad_leading(width, "0")
end
