defmodule Demo.Screen do
  @moduledoc "Lines on a terminal: colours where it has them, and plain text elsewhere."

  @colours %{"paris" => :light_blue, "tokyo" => :light_magenta, "lima" => :yellow}

  def title(text), do: line(["\n", :bright, text])

  def line(parts \\ ""), do: IO.puts(format(parts))

  @doc "A line that the next one replaces; nothing where that cannot be."
  def progress(parts) do
    if IO.ANSI.enabled?(), do: IO.write(["\r", format(parts), "\e[K"])
  end

  def clear_progress, do: progress("")

  def good(text), do: [:green, text, :reset]
  def bad(text), do: [:red, :bright, text, :reset]
  def dim(text), do: [:faint, text, :reset]

  @doc "A replica's name in its colour, padded."
  def name(name, width \\ 0), do: [@colours[name], String.pad_trailing(name, width), :reset]

  def hash(<<hash::binary-size(16)>>), do: Base.encode16(hash, case: :lower)

  def number(n) do
    n
    |> Integer.to_string()
    |> String.replace(~r/(?<=\d)(?=(\d{3})+$)/, ",")
  end

  def bytes(n) when n < 10_000, do: "#{number(n)} B"
  def bytes(n) when n < 10_000_000, do: "#{number(div(n, 1000))} kB"
  def bytes(n), do: "#{Float.round(n / 1.0e6, 1)} MB"

  def time(micros) when micros < 10_000, do: "#{number(micros)} us"
  def time(micros) when micros < 10_000_000, do: "#{number(div(micros, 1000))} ms"
  def time(micros), do: "#{Float.round(micros / 1.0e6, 1)} s"

  def right(text, width), do: String.pad_leading(text, width)

  defp format(parts), do: IO.ANSI.format(parts, colour?())

  defp colour?, do: IO.ANSI.enabled?() and System.get_env("NO_COLOR") in [nil, ""]
end
