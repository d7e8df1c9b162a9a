# What one update costs against the size of the document, from 10 to 10,000,000 elements: a line a size, and
# a plot in bench/scale.svg. SCALE_MAX stops earlier.

Code.require_file("support/bench.ex", __DIR__)

defmodule ScaleBench do
  import Bench
  alias Causeway.Doc

  @chunk 10_000
  @steps 1_000

  def run do
    most =
      String.to_integer(System.get_env("SCALE_MAX", if(quick?(), do: "100000", else: "10000000")))

    sizes = 1..7 |> Enum.map(&(10 ** &1)) |> Enum.filter(&(&1 <= most))
    {points, _} = Enum.map_reduce(sizes, {Doc.new("a"), 0}, &measure/2)
    unless quick?(), do: plot(points, Path.join(__DIR__, "scale.svg"))
  end

  # Each size goes on from the one before.
  defp measure(size, {doc, have}) do
    doc = grow(doc, have, size)
    new = elements((size + 1)..(size + @steps))
    us = cpu(fn -> Enum.reduce(new, doc, &Doc.update(&2, {:add, ["s"], &1})) end, @steps)
    line("scale", "add to #{size}", us, "us")
    {{size, us}, {doc, size}}
  end

  defp grow(doc, have, size) do
    (have + 1)..size
    |> Enum.chunk_every(@chunk)
    |> Enum.reduce(doc, fn chunk, doc ->
      Doc.update(doc, Enum.map(chunk, &{:add, ["s"], element(&1)}))
    end)
  end

  # ---- the plot: sizes by powers of ten, times on a linear axis ----

  @width 640
  @height 360
  @margin 56

  defp plot(points, path) do
    top = points |> Enum.map(&elem(&1, 1)) |> Enum.max() |> ceil()
    xy = Enum.map(points, fn {size, us} -> {x(size), y(us, top)} end)

    File.write!(path, """
    <svg xmlns="http://www.w3.org/2000/svg" width="#{@width}" height="#{@height}" font-family="sans-serif" font-size="12">
    <rect width="100%" height="100%" fill="white"/>
    <text x="#{@margin}" y="24">one update, microseconds of CPU, against elements in the document</text>
    #{Enum.map_join(0..top, "\n", &grid(&1, top))}
    #{Enum.map_join(points, "\n", &tick/1)}
    <polyline fill="none" stroke="#0b63ce" stroke-width="2" points="#{Enum.map_join(xy, " ", fn {x, y} -> "#{x},#{y}" end)}"/>
    #{Enum.map_join(xy, "\n", fn {x, y} -> ~s(<circle cx="#{x}" cy="#{y}" r="3" fill="#0b63ce"/>) end)}
    </svg>
    """)
  end

  defp x(size), do: round(@margin + (@width - 2 * @margin) * (:math.log10(size) - 1) / 6)
  defp y(us, top), do: round(@height - @margin - (@height - 2 * @margin) * us / top)

  defp grid(us, top) do
    ~s(<line x1="#{@margin}" x2="#{@width - @margin}" y1="#{y(us, top)}" y2="#{y(us, top)}" stroke="#ddd"/>) <>
      ~s(<text x="#{@margin - 24}" y="#{y(us, top) + 4}">#{us}</text>)
  end

  defp tick({size, _us}) do
    ~s(<text x="#{x(size) - 14}" y="#{@height - @margin + 20}">10^#{round(:math.log10(size))}</text>)
  end
end

ScaleBench.run()
