defmodule Causeway.Clock do
  @moduledoc """
  What a replica has seen: for each replica, how many of its edits. A version vector.

  A clock is a small value that can be sent, stored (`bytes`), put into a session, and compared:

      iex> alias Causeway.Clock
      iex> a = Clock.new(%{"paris" => 3, "tokyo" => 1})
      iex> b = Clock.new(%{"paris" => 2, "tokyo" => 5})
      iex> Clock.compare(a, b)
      :concurrent
      iex> Clock.to_map(Clock.merge(a, b))
      %{"paris" => 3, "tokyo" => 5}

  Hybrid logical clocks, which order what version vectors leave concurrent, are in `Causeway.HLC`.
  """

  alias Causeway.{Error, ReadOptions}

  @enforce_keys [:bytes]
  defstruct [:bytes]

  @type t :: %__MODULE__{bytes: binary()}

  @type replica :: Causeway.Doc.replica()

  @doc "A clock of counters by replica; zeros are left out."
  @spec new(%{optional(replica()) => non_neg_integer()}) :: t()
  def new(counters \\ %{}) when is_map(counters) do
    counters |> Map.to_list() |> :causeway_nif.clock_from_list() |> wrap!()
  end

  @doc "The least clock that contains both."
  @spec merge(t(), t()) :: t()
  def merge(%__MODULE__{bytes: a}, %__MODULE__{bytes: b}) do
    case :causeway_nif.clock_merge(a, b) do
      bytes when is_binary(bytes) -> %__MODULE__{bytes: bytes}
      error -> raise Error.from_nif(error, [], "one of the clocks")
    end
  end

  @doc "Whether the first has seen the same as the second, less, more, or each something else."
  @spec compare(t(), t()) :: :equal | :before | :after | :concurrent
  def compare(%__MODULE__{bytes: a}, %__MODULE__{bytes: b}) do
    case :causeway_nif.clock_compare(a, b) do
      order when is_atom(order) -> order
      error -> raise Error.from_nif(error, [], "one of the clocks")
    end
  end

  @doc "Whether all that the second has seen, the first has too."
  @spec contains?(t(), t()) :: boolean()
  def contains?(a, b), do: compare(a, b) in [:equal, :after]

  @doc """
  The counter of one replica, 0 when it is not there.

      iex> Causeway.Clock.get(Causeway.Clock.new(%{"paris" => 3}), "paris")
      3
  """
  @spec get(t(), replica()) :: non_neg_integer()
  def get(%__MODULE__{bytes: bytes}, replica) do
    case :causeway_nif.clock_get(bytes, replica) do
      counter when is_integer(counter) -> counter
      error -> raise Error.from_nif(error, [], "the clock")
    end
  end

  @doc """
  The counters by replica.

  A replica whose name is an atom that this VM does not have raises, unless `atoms: :create` says that it may be
  made.
  """
  @spec to_map(t(), atoms: :create) :: %{optional(replica()) => pos_integer()}
  def to_map(%__MODULE__{bytes: bytes}, opts \\ []) do
    {nil, new_atoms} = ReadOptions.read!(opts, "Causeway.Clock.to_map/2", [:atoms])

    case :causeway_nif.clock_to_list(bytes, new_atoms) do
      list when is_list(list) -> Map.new(list)
      error -> raise Error.from_nif(error, [], "the clock")
    end
  end

  @doc "A clock of `bytes` that came from elsewhere."
  @spec decode(binary()) :: {:ok, t()} | {:error, Error.t()}
  def decode(bytes) when is_binary(bytes) do
    case :causeway_nif.clock_to_list(bytes, false) do
      list when is_list(list) -> {:ok, %__MODULE__{bytes: bytes}}
      {:error, {:unknown_atom, _}} -> {:ok, %__MODULE__{bytes: bytes}}
      error -> {:error, Error.from_nif(error, [], "the clock")}
    end
  end

  @doc "The bytes, as `decode/1` takes them."
  @spec encode(t()) :: binary()
  def encode(%__MODULE__{bytes: bytes}), do: bytes

  defp wrap!(bytes) when is_binary(bytes), do: %__MODULE__{bytes: bytes}
  defp wrap!(error), do: raise(Error.from_nif(error))

  defimpl Inspect do
    import Inspect.Algebra

    def inspect(clock, opts) do
      concat(["#Causeway.Clock<", content(clock, opts), ">"])
    end

    defp content(clock, opts) do
      to_doc(Causeway.Clock.to_map(clock), opts)
    rescue
      error in Causeway.Error -> inspect(error.reason)
    end
  end
end
