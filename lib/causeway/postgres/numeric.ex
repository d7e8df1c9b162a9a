defmodule Causeway.Postgres.Numeric do
  @moduledoc """
  A number of PostgreSQL's type `numeric`, exactly: `sign * coef * 10 ** exp`.

  It stands for `Decimal` where that is not loaded, and has the same fields: `sign` is 1 or -1, `coef` a non-negative
  integer, `:NaN` or `:inf`. As a parameter either is taken, integers and floats too.

      iex> Causeway.Postgres.Numeric.new("12.340")
      %Causeway.Postgres.Numeric{sign: 1, coef: 12340, exp: -3}
      iex> to_string(%Causeway.Postgres.Numeric{sign: -1, coef: 5, exp: -3})
      "-0.005"
  """

  defstruct sign: 1, coef: 0, exp: 0

  @type t :: %__MODULE__{sign: 1 | -1, coef: non_neg_integer | :NaN | :inf, exp: integer}

  @doc """
  From an integer, a float or a string, such as `"1.5"`, `"-2e3"`, `"NaN"` or `"-Infinity"`.

  A float becomes the shortest decimal number that is nearest to it.
  """
  @spec new(integer | float | String.t()) :: t
  def new(n) when is_integer(n) and n < 0, do: %__MODULE__{sign: -1, coef: -n}
  def new(n) when is_integer(n), do: %__MODULE__{coef: n}
  def new(n) when is_float(n), do: n |> Float.to_string() |> new()

  def new(text) when is_binary(text) do
    case parse(text) do
      {:ok, number} -> number
      :error -> raise ArgumentError, "not a number: #{Causeway.Error.Short.inspect(text)}"
    end
  end

  @doc "The number that a string is, if it is one."
  @spec parse(String.t()) :: {:ok, t} | :error
  def parse("-" <> text), do: with({:ok, number} <- parse(text), do: {:ok, negate(number)})
  def parse("NaN"), do: {:ok, %__MODULE__{coef: :NaN}}
  def parse(text) when text in ["inf", "Infinity"], do: {:ok, %__MODULE__{coef: :inf}}

  def parse(text) do
    case Regex.run(~r/\A(\d+)(?:\.(\d*))?(?:e([+-]?\d{1,9}))?\z/i, text) do
      [_, whole] -> {:ok, finite(whole, "", "0")}
      [_, whole, part] -> {:ok, finite(whole, part, "0")}
      [_, whole, part, exp] -> {:ok, finite(whole, part, exp)}
      nil -> :error
    end
  end

  defp negate(%__MODULE__{coef: :NaN} = number), do: number
  defp negate(number), do: %{number | sign: -number.sign}

  defp finite(whole, part, exp) do
    %__MODULE__{
      coef: String.to_integer(whole <> part),
      exp: String.to_integer(exp) - byte_size(part)
    }
  end

  defimpl String.Chars do
    def to_string(%{coef: :NaN}), do: "NaN"
    def to_string(%{coef: :inf, sign: sign}), do: sign(sign) <> "Infinity"

    def to_string(%{sign: sign, coef: coef, exp: exp}) when exp >= 0,
      do: sign(sign) <> Integer.to_string(coef) <> zeros(coef, exp)

    def to_string(%{sign: sign, coef: coef, exp: exp}) do
      digits = coef |> Integer.to_string() |> String.pad_leading(1 - exp, "0")
      {whole, part} = String.split_at(digits, exp)
      sign(sign) <> whole <> "." <> part
    end

    defp sign(-1), do: "-"
    defp sign(1), do: ""

    defp zeros(0, _), do: ""
    defp zeros(_, n), do: String.duplicate("0", n)
  end
end
