defmodule Causeway.Log.Topic do
  @moduledoc """
  Topics, and patterns of them.

  A topic is any text in UTF-8 of 1 to 1024 bytes without a zero byte. Dots cut it into tokens, `orders.paris.created`, none of which is `*` or
  `>`. A pattern has one of these among its tokens:

    * `*` - any one token: `orders.*.created`
    * `>` - one token or more, at the end: `orders.>`

  Each topic belongs to one partition of a log, in which its messages are in order.
  """

  @max_bytes 1024

  @type t :: String.t()
  @typedoc "What `compile/1` makes of a topic or a pattern."
  @type matcher :: {:topic, t} | :all | {:tokens, [String.t()]}

  @doc """
  Whether a topic can be published under.

      iex> Causeway.Log.Topic.valid?("orders.paris")
      true
      iex> Causeway.Log.Topic.valid?("orders.*")
      false
  """
  @spec valid?(term) :: boolean
  def valid?(topic),
    do: text?(topic) and topic != "" and byte_size(topic) <= @max_bytes and not pattern?(topic)

  @doc false
  def text?(text) when is_binary(text), do: String.valid?(text) and not zero?(text)
  def text?(_), do: false

  # Not :binary.match/2, which takes all the caller's reductions (OTP 25) when it looks for one pattern and finds none: whoever
  # publishes would be scheduled twice.
  defp zero?(<<0, _::binary>>), do: true
  defp zero?(<<_, rest::binary>>), do: zero?(rest)
  defp zero?(<<>>), do: false

  @doc """
  Whether it is a pattern, and not a topic.

      iex> Causeway.Log.Topic.pattern?("orders.>")
      true
      iex> Causeway.Log.Topic.pattern?("2 > 1")
      false
  """
  @spec pattern?(String.t()) :: boolean
  def pattern?(topic), do: wild?(topic) and topic |> tokens() |> Enum.any?(&(&1 in ["*", ">"]))

  defp wild?(<<c, _::binary>>) when c in [?*, ?>], do: true
  defp wild?(<<_, rest::binary>>), do: wild?(rest)
  defp wild?(<<>>), do: false

  @doc """
  A topic or a pattern, to be matched with `match?/2` many times: `{:ok, matcher}`, or `{:error, why}`.

      iex> {:ok, matcher} = Causeway.Log.Topic.compile("orders.*.created")
      iex> Causeway.Log.Topic.match?(matcher, "orders.paris.created")
      true
      iex> Causeway.Log.Topic.compile("orders.>.created")
      {:error, "> can only be the last token"}
  """
  @spec compile(term) :: {:ok, matcher} | {:error, String.t()}
  def compile(">"), do: {:ok, :all}

  def compile(topic) do
    cond do
      valid?(topic) -> {:ok, {:topic, topic}}
      not text?(topic) or topic == "" -> {:error, "a topic is a text, and not empty"}
      byte_size(topic) > @max_bytes -> {:error, "a topic has #{@max_bytes} bytes at most"}
      true -> topic |> tokens() |> compile_tokens()
    end
  end

  defp compile_tokens(tokens) do
    if ">" in Enum.drop(tokens, -1),
      do: {:error, "> can only be the last token"},
      else: {:ok, {:tokens, tokens}}
  end

  @doc "Whether a topic is one that a matcher is for."
  @spec match?(matcher, t) :: boolean
  def match?({:topic, same}, same), do: true
  def match?({:topic, _}, _), do: false
  def match?(:all, _), do: true
  def match?({:tokens, pattern}, topic), do: match_tokens(pattern, tokens(topic))

  defp match_tokens([">"], [_ | _]), do: true
  defp match_tokens(["*" | pattern], [_ | topic]), do: match_tokens(pattern, topic)
  defp match_tokens([same | pattern], [same | topic]), do: match_tokens(pattern, topic)
  defp match_tokens([], []), do: true
  defp match_tokens(_, _), do: false

  defp tokens(topic), do: :binary.split(topic, ".", [:global])

  @doc """
  The partition of a topic, as the server's function `log_partition` has it.

      iex> Causeway.Log.Topic.partition("orders.paris", 8)
      6
  """
  @spec partition(t, pos_integer) :: non_neg_integer
  def partition(topic, partitions) do
    <<n::24, _::binary>> = :crypto.hash(:sha256, topic)
    rem(n, partitions)
  end
end
