defmodule Causeway.Postgres.TextValues do
  @moduledoc false
  # Terms of the server's texts, the same that the C codec makes of its binary forms. For statements with a column of
  # which there is no binary form that we know: libpq has one format for all of them. Not fast, and not needed often.
  #
  # What does not look as expected stays text: with another DateStyle or IntervalStyle than ISO and postgres; in
  # anonymous records, whose types the text does not say; the names of regclass and the like, which are not numbers.

  alias Causeway.Postgres.{Numeric, TextSyntax}

  @doc "A row's terms, by the specs and type modifiers of its columns."
  def decode_row([], [], [], _options), do: []

  def decode_row([nil | row], [_ | s], [_ | c], options),
    do: [nil | decode_row(row, s, c, options)]

  def decode_row([text | row], [spec | specs], [{_oid, typmod} | columns], options),
    do: [decode(text, spec, typmod, options) | decode_row(row, specs, columns, options)]

  @doc "A value's term, or its text."
  @spec decode(String.t(), term, integer, %{flags: [atom]}) :: term
  def decode(text, spec, typmod, options) do
    case term(text, spec, %{flags: options.flags, typmod: typmod, nested: false}) do
      {:causeway_json, text} -> text
      term -> term
    end
  rescue
    # Whatever a parser made of something that it was not made for.
    _ -> text
  end

  # ---- what is made of other values ----

  defp term(nil, _spec, _ctx), do: nil

  defp term(text, {:array, _oid, spec}, ctx) do
    delimiter = if spec == :box, do: ?;, else: ?,
    text |> TextSyntax.array(delimiter) |> elements(spec, ctx)
  end

  defp term(text, {:vector, _oid, spec}, ctx),
    do: for(element <- String.split(text), do: term(element, spec, ctx))

  defp term(text, {:range, spec}, ctx), do: range(text, spec, %{ctx | typmod: -1})

  defp term(text, {:multirange, spec}, ctx) do
    ctx = %{ctx | typmod: -1}

    make(ctx, :Multirange,
      ranges: for(range <- TextSyntax.multirange(text), do: range(range, spec, ctx))
    )
  end

  defp term(text, {:composite, fields}, ctx) do
    texts = TextSyntax.composite(text, length(fields))
    ctx = %{ctx | typmod: -1}

    fields
    |> Enum.zip_with(texts, fn {_oid, spec}, text -> term(text, spec, ctx) end)
    |> List.to_tuple()
  end

  # ---- numbers ----

  defp term("t", :bool, _), do: true
  defp term("f", :bool, _), do: false
  defp term(text, kind, _) when kind in [:int2, :int4, :oid, :xid8], do: String.to_integer(text)

  # Money and positions in the log are integers of 64 bits, too.
  defp term(text, :int8, _) do
    case Integer.parse(text) do
      {n, ""} -> n
      _ -> if text =~ "/", do: lsn(text), else: money(text)
    end
  end

  defp term("NaN", kind, _) when kind in [:float4, :float8], do: :NaN
  defp term("Infinity", kind, _) when kind in [:float4, :float8], do: :inf
  defp term("-Infinity", kind, _) when kind in [:float4, :float8], do: :"-inf"
  defp term(text, :float8, _), do: float(text)

  defp term(text, :float4, _) do
    <<float::float-32>> = <<float(text)::float-32>>
    float
  end

  defp term(text, :numeric, ctx) do
    {:ok, number} = Numeric.parse(text)

    if :decimal in ctx.flags,
      do: struct!(Decimal, Map.from_struct(number)),
      else: number
  end

  # ---- texts and bytes ----

  defp term("\\x" <> hex, :bytea, _), do: Base.decode16!(hex, case: :lower)
  defp term(text, :bytea, _), do: TextSyntax.unescape_bytes(text)
  defp term("", :char, _), do: <<0>>
  defp term(<<"\\", octal::binary-size(3)>>, :char, _), do: <<String.to_integer(octal, 8)>>
  defp term(text, kind, _) when kind in [:json, :jsonb], do: {:causeway_json, text}
  defp term(text, :uuid, _), do: text |> String.replace("-", "") |> Base.decode16!(case: :lower)
  defp term(text, :bit, _), do: for(<<digit <- text>>, into: <<>>, do: <<digit - ?0::1>>)

  # ---- dates and times ----

  defp term("infinity", kind, _) when kind in [:date, :timestamp, :timestamptz, :interval],
    do: :inf

  defp term("-infinity", kind, _) when kind in [:date, :timestamp, :timestamptz, :interval],
    do: :"-inf"

  defp term(text, :date, _) do
    [_, year, month, day, bc] = Regex.run(~r/\A(\d{4,})-(\d\d)-(\d\d)(| BC)\z/, text)
    fields = [year: year(year, bc), month: integer(month), day: integer(day)]
    struct!(Date, [calendar: Calendar.ISO] ++ fields)
  end

  defp term(text, :time, ctx) do
    [_ | clock] = Regex.run(~r/\A(\d\d):(\d\d):(\d\d)(?:\.(\d+))?\z/, text)
    struct!(Time, [calendar: Calendar.ISO] ++ clock(clock, ctx))
  end

  # In binary form it is the C codec that brings it to UTC.
  defp term(text, :timetz, ctx) do
    [_, time, offset] = Regex.run(~r/\A([\d:.]+)([+-][\d:]+)\z/, text)
    bytes = encode(:time, term(time, :time, ctx))
    through_codec(:timetz, <<bytes::binary, -offset(offset)::signed-32>>, ctx)
  end

  defp term(text, :timestamp, ctx) do
    [_, date, time, bc] = Regex.run(~r/\A(\S+) ([\d:.]+)(| BC)\z/, text)
    through_codec(:timestamp, stamp(date, time, bc, ctx), ctx)
  end

  defp term(text, :timestamptz, ctx) do
    [_, date, time, offset, bc] = Regex.run(~r/\A(\S+) ([\d:.]+)([+-][\d:]+)(| BC)\z/, text)
    <<us::signed-64>> = stamp(date, time, bc, ctx)
    through_codec(:timestamptz, <<us - offset(offset) * 1_000_000::signed-64>>, ctx)
  end

  defp term(text, :interval, ctx) do
    pattern =
      ~r/\A(?:(-?\d+) years? ?)?(?:([+-]?\d+) mons? ?)?(?:([+-]?\d+) days? ?)?(?:([+-]?)(\d+):(\d\d):(\d\d)(?:\.(\d+))?)?\z/

    parts = Regex.run(pattern, text, capture: :all_but_first) ++ List.duplicate("", 8)
    [years, months, days, sign, hours, minutes, seconds, fraction | _] = parts

    us =
      ((integer(hours) * 60 + integer(minutes)) * 60 + integer(seconds)) * 1_000_000 +
        micro(fraction)

    us = if sign == "-", do: -us, else: us

    bytes =
      <<us::signed-64, integer(days)::signed-32,
        integer(years) * 12 + integer(months)::signed-32>>

    if text == "", do: raise(ArgumentError), else: through_codec(:interval, bytes, ctx)
  end

  # ---- addresses and positions ----

  defp term(text, :inet, ctx) do
    {address, mask} =
      case String.split(text, "/") do
        [address] -> {address, nil}
        [address, mask] -> {address, String.to_integer(mask)}
      end

    {:ok, address} = address |> String.to_charlist() |> :inet.parse_strict_address()
    make(ctx, :INET, address: address, netmask: mask)
  end

  defp term(text, kind, ctx) when kind in [:macaddr, :macaddr8] do
    bytes = for part <- String.split(text, ":"), do: String.to_integer(part, 16)
    make(ctx, :MACADDR, address: List.to_tuple(bytes))
  end

  defp term(text, :tid, _) do
    [_, block, item] = Regex.run(~r/\A\((\d+),(\d+)\)\z/, text)
    {integer(block), integer(item)}
  end

  defp term("", :void, _), do: :void

  # ---- figures ----

  defp term(text, :point, ctx), do: text |> points(ctx) |> hd()

  defp term(text, :line, ctx) do
    [a, b, c] = coordinates(text)
    make(ctx, :Line, a: a, b: b, c: c)
  end

  defp term(text, :lseg, ctx) do
    [a, b] = points(text, ctx)
    make(ctx, :LineSegment, point1: a, point2: b)
  end

  defp term(text, :box, ctx) do
    [a, b] = points(text, ctx)
    make(ctx, :Box, upper_right: a, bottom_left: b)
  end

  defp term(text, :path, ctx),
    do: make(ctx, :Path, points: points(text, ctx), open: String.starts_with?(text, "["))

  defp term(text, :polygon, ctx), do: make(ctx, :Polygon, vertices: points(text, ctx))

  defp term(text, :circle, ctx) do
    [x, y, radius] = coordinates(text)
    make(ctx, :Circle, center: make(ctx, :Point, x: x, y: y), radius: radius)
  end

  # ---- words and pairs ----

  defp term(text, :tsvector, ctx) do
    for {word, positions} <- TextSyntax.tsvector(text),
        do: make(ctx, :Lexeme, word: word, positions: positions)
  end

  defp term(text, :hstore, _ctx), do: Map.new(TextSyntax.hstore(text))

  # Of the rest the term is the text.
  defp term(text, _kind, _ctx), do: text

  # ---- parts ----

  defp elements(list, spec, ctx) do
    for element <- list,
        do: if(is_list(element), do: elements(element, spec, ctx), else: term(element, spec, ctx))
  end

  defp range("empty", _spec, ctx),
    do:
      make(ctx, :Range,
        lower: :empty,
        upper: :empty,
        lower_inclusive: false,
        upper_inclusive: false
      )

  defp range(text, spec, ctx) do
    {lower_inclusive, lower, upper, upper_inclusive} = TextSyntax.range(text)

    make(ctx, :Range,
      lower: bound(lower, spec, ctx),
      upper: bound(upper, spec, ctx),
      lower_inclusive: lower_inclusive,
      upper_inclusive: upper_inclusive
    )
  end

  defp bound(nil, _spec, _ctx), do: :unbound
  defp bound(text, spec, ctx), do: term(text, spec, ctx)

  defp lsn(text) do
    [high, low] = String.split(text, "/")
    <<lsn::signed-64>> = <<String.to_integer(high, 16)::32, String.to_integer(low, 16)::32>>
    lsn
  end

  # In the smallest unit, whatever the locale writes around its digits.
  defp money(text) do
    n = text |> String.replace(~r/\D/u, "") |> String.to_integer()
    if text =~ ~r/[-(]/, do: -n, else: n
  end

  defp float(text) do
    {float, ""} = Float.parse(text)
    float
  end

  defp integer(""), do: 0
  defp integer(text), do: String.to_integer(text)

  defp year(year, ""), do: integer(year)
  defp year(year, " BC"), do: 1 - integer(year)

  defp clock([hour, minute, second | fraction], ctx) do
    microsecond = {fraction |> List.to_string() |> micro(), precision(ctx.typmod)}

    [
      hour: integer(hour),
      minute: integer(minute),
      second: integer(second),
      microsecond: microsecond
    ]
  end

  defp micro(fraction), do: fraction |> String.pad_trailing(6, "0") |> integer()

  defp precision(typmod) when typmod in 0..6, do: typmod
  defp precision(_), do: 6

  # Seconds east of Greenwich.
  defp offset(<<sign, text::binary>>) do
    [hours, minutes, seconds] =
      Enum.take(for(part <- String.split(text, ":"), do: integer(part)) ++ [0, 0], 3)

    offset = (hours * 60 + minutes) * 60 + seconds
    if sign == ?-, do: -offset, else: offset
  end

  defp stamp(date, time, bc, ctx) do
    date = term(date <> bc, :date, ctx)
    time = term(time, :time, ctx)
    fields = Map.merge(Map.from_struct(date), Map.from_struct(time))
    encode(:timestamp, struct!(NaiveDateTime, fields))
  end

  # Calendars are C's.
  defp encode(kind, value) do
    <<_length::32, bytes::binary>> = :causeway_nif.pg_encode(one_column(kind, -1, []), [value])
    bytes
  end

  defp through_codec(kind, bytes, ctx) do
    codec = one_column(kind, ctx.typmod, ctx.flags)

    [[value]] =
      :causeway_nif.pg_decode_rows(codec, <<byte_size(bytes)::32, bytes::binary>>, 1, [])

    value
  end

  defp one_column(kind, typmod, flags),
    do: :causeway_nif.pg_codec_compile([{typmod, kind}], [], flags)

  defp points(text, ctx) do
    for [x, y] <- text |> coordinates() |> Enum.chunk_every(2), do: make(ctx, :Point, x: x, y: y)
  end

  defp coordinates(text) do
    for [number] <- Regex.scan(~r/[^\s,()<>{}\[\]]+/, text), do: term(number, :float8, nil)
  end

  defp make(ctx, name, fields) do
    base = if :postgrex in ctx.flags, do: Postgrex, else: Causeway.Postgres
    base |> Module.concat(name) |> struct!(fields)
  end
end
