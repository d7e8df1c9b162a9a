defmodule Causeway.PostgresRandom do
  @moduledoc false
  # Random types of PostgreSQL, as specs for the codec, and random values of them, in the form that they come back in.

  import Bitwise
  import Causeway.Property

  alias Causeway.Postgres.{
    Box,
    Circle,
    INET,
    Interval,
    Lexeme,
    Line,
    LineSegment,
    MACADDR,
    Multirange,
    Numeric,
    Path,
    Point,
    Polygon,
    Range
  }

  @scalars ~w(bool int2 int4 int8 oid xid8 float4 float8 numeric text name char bytea literal versioned uuid bit date time
              timetz timestamp timestamptz interval inet macaddr macaddr8 tid void point line lseg box path polygon circle
              tsvector hstore)a

  # Texts that C leaves to Elixir, and kinds that are only read.
  @others ~w(json jsonb record anyarray tsquery snapshot)a

  def scalars, do: @scalars

  @doc "A spec, nested up to so many levels; `:any` includes those whose values cannot be made here."
  def spec(depth, which \\ :values) do
    case if(depth > 0, do: below(10), else: 9) do
      0 -> {:array, oid(), spec(depth - 1, which)}
      1 -> {:range, spec(depth - 1, which)}
      2 -> {:multirange, spec(depth - 1, which)}
      3 -> {:composite, list_of(below(5), fn -> {oid(), spec(depth - 1, which)} end)}
      4 -> {:vector, oid(), one_of([:int2, :oid])}
      _ -> if which == :any and chance(20), do: one_of(@others), else: one_of(@scalars)
    end
  end

  defp oid, do: one_of([1, 23, 16_384, 4_294_967_295, below(100_000) + 1])

  @doc "A value, or nil."
  def value(spec, nulls \\ 10), do: if(chance(nulls), do: nil, else: some(spec))

  # ---- made of others ----

  defp some({:array, _oid, spec}) do
    # A list in a list is another dimension, but for types that are lists themselves.
    dims = if match?({:array, _, _}, spec), do: 1, else: between(1, 3)
    array(dims, spec, for(_ <- 1..dims, do: between(1, 3)))
  end

  defp some({:vector, _oid, spec}), do: list_of(between(1, 5), fn -> some(spec) end)

  defp some({:range, spec}) do
    case below(5) do
      0 ->
        %Range{lower: :empty, upper: :empty, lower_inclusive: false, upper_inclusive: false}

      _ ->
        {lower, upper} = {bound(spec), bound(spec)}

        %Range{
          lower: lower,
          upper: upper,
          lower_inclusive: lower != :unbound and chance(50),
          upper_inclusive: upper != :unbound and chance(50)
        }
    end
  end

  defp some({:multirange, spec}),
    do: %Multirange{ranges: list_of(below(4), fn -> some({:range, spec}) end)}

  defp some({:composite, fields}),
    do: fields |> Enum.map(fn {_oid, spec} -> value(spec) end) |> List.to_tuple()

  # ---- numbers ----

  defp some(:bool), do: chance(50)
  defp some(:int2), do: signed(16)
  defp some(:int4), do: signed(32)
  defp some(:int8), do: signed(64)
  defp some(:oid), do: signed(32) + (1 <<< 31)
  defp some(:xid8), do: signed(64) + (1 <<< 63)

  defp some(:float4) do
    <<bits::32>> = :rand.bytes(4)

    case <<bits::32>> do
      <<float::float-32>> -> float
      _ -> one_of([:NaN, :inf, :"-inf"])
    end
  end

  defp some(:float8) do
    case :rand.bytes(8) do
      <<float::float-64>> -> one_of([float, 0.0, 1.5, -1.0e300])
      _ -> one_of([:NaN, :inf, :"-inf"])
    end
  end

  defp some(:numeric) do
    digits = one_of([0, 1, 4, 5, 8, 18, 19, 20, between(1, 60), between(1, 400)])
    coef = if digits == 0, do: 0, else: below(10 ** digits)

    case below(12) do
      0 ->
        %Numeric{coef: :NaN}

      1 ->
        %Numeric{coef: :inf, sign: one_of([1, -1])}

      # The server has no negative zero, and no powers of ten.
      _ ->
        %Numeric{
          sign: if(coef == 0, do: 1, else: one_of([1, -1])),
          coef: coef,
          exp: -one_of([0, 0, below(10), below(300)])
        }
    end
  end

  # ---- texts ----

  defp some(kind) when kind in [:text, :literal, :versioned], do: text(below(one_of([5, 100])))
  defp some(:name), do: text(below(15))
  defp some(kind) when kind == :char, do: :rand.bytes(1)
  defp some(:bytea), do: :rand.bytes(below(one_of([5, 300])))
  defp some(:uuid), do: :rand.bytes(16)

  defp some(:bit) do
    bits = below(70)
    <<:rand.uniform(1 <<< 70)::size(bits)>>
  end

  # ---- times ----

  defp some(:date), do: if(chance(5), do: infinity(), else: date())
  defp some(kind) when kind in [:time, :timetz], do: clock(Time, %{})

  defp some(:timestamp),
    do: if(chance(5), do: infinity(), else: clock(NaiveDateTime, Map.from_struct(date())))

  defp some(:timestamptz) do
    zone = %{std_offset: 0, utc_offset: 0, time_zone: "Etc/UTC", zone_abbr: "UTC"}
    if chance(5), do: infinity(), else: clock(DateTime, Map.merge(Map.from_struct(date()), zone))
  end

  defp some(:interval) do
    # The greatest ones, with the greatest days and months, would be infinity.
    us = one_of([div(signed(64), 2), below(100_000_000)])

    %Interval{
      months: signed(32),
      days: signed(32),
      secs: div(us, 1_000_000),
      microsecs: rem(us, 1_000_000)
    }
  end

  # ---- the rest ----

  defp some(:inet) do
    case below(2) do
      0 ->
        %INET{address: bytes(4), netmask: one_of([nil, below(32)])}

      1 ->
        %INET{
          address: List.to_tuple(list_of(8, fn -> below(65_536) end)),
          netmask: one_of([nil, below(128)])
        }
    end
  end

  defp some(:macaddr), do: %MACADDR{address: bytes(6)}
  defp some(:macaddr8), do: %MACADDR{address: bytes(8)}
  defp some(:tid), do: {some(:oid), below(65_536)}
  defp some(:void), do: :void
  defp some(:point), do: %Point{x: some(:float8), y: some(:float8)}
  defp some(:line), do: %Line{a: some(:float8), b: some(:float8), c: some(:float8)}
  defp some(:lseg), do: %LineSegment{point1: some(:point), point2: some(:point)}
  defp some(:box), do: %Box{upper_right: some(:point), bottom_left: some(:point)}
  defp some(:path), do: %Path{points: points(), open: chance(50)}
  defp some(:polygon), do: %Polygon{vertices: points()}
  defp some(:circle), do: %Circle{center: some(:point), radius: below(100) / 7}

  defp some(:tsvector) do
    list_of(between(1, 4), fn ->
      positions = list_of(below(4), fn -> {between(1, 16_383), one_of([:A, :B, :C, nil])} end)
      %Lexeme{word: text(between(1, 5)), positions: positions}
    end)
  end

  defp some(:hstore), do: Map.new(list_of(below(4), fn -> {text(3), one_of([nil, text(3)])} end))

  # ---- parts ----

  defp array(_dims, spec, [length]), do: list_of(length, fn -> value(spec) end)

  defp array(dims, spec, [length | rest]),
    do: list_of(length, fn -> array(dims - 1, spec, rest) end)

  defp bound(spec), do: if(chance(20), do: :unbound, else: some(spec))

  defp signed(bits) do
    most = (1 <<< (bits - 1)) - 1
    n = :rand.uniform(1 <<< bits) - 1 + (-most - 1)
    one_of([n, n, 0, -1, most, -most - 1])
  end

  defp text(n),
    do:
      for(
        _ <- 1..n//1,
        into: "",
        do: <<one_of([?a, ?", ?\\, ?', ?,, 0x17B, 0x65E5, 0x1F388])::utf8>>
      )

  defp bytes(n), do: List.to_tuple(list_of(n, fn -> below(256) end))
  defp points, do: list_of(below(4), fn -> some(:point) end)
  defp infinity, do: one_of([:inf, :"-inf"])

  defp date do
    year = one_of([between(1, 9999), between(-4712, 294_276)])
    %{Date.new!(2000, between(1, 12), between(1, 28)) | year: year}
  end

  defp clock(module, fields) do
    clock = %{
      hour: below(24),
      minute: below(60),
      second: below(60),
      microsecond: {below(1_000_000), 6}
    }

    struct!(module, fields |> Map.merge(clock) |> Map.put(:calendar, Calendar.ISO))
  end
end
