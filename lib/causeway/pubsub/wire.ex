defmodule Causeway.PubSub.Wire do
  @moduledoc false
  # Messages as bytes. All VMs that are no Erlang nodes are called nonode@nohost, and count their processes alike: what one
  # of them has sent its pid in, another would read as that of a process of its own. Presence has a pid with each entry, and
  # would mix them up. So pids, ports and references travel as those of another node, and where they come home, they are again
  # what they were. Those within functions are left.
  #
  # That node has one name for all: of nodes that have borne the same name, a pid says by 32 bits which it is from, and these
  # are random here, once for each VM. So nobody need make an atom for each there has ever been.

  @nowhere :nonode@nohost
  @elsewhere :elsewhere@nohost

  @doc "Bytes of a message."
  def encode(term) do
    bytes = :erlang.term_to_binary(term)

    if node() == @nowhere and mentioned?(bytes, @nowhere),
      do: :erlang.term_to_binary(move(term, here(), away())),
      else: bytes
  end

  @doc "A message of bytes, or `:error`."
  def decode(bytes, config)

  # None is compressed: what is may be a thousand times as long.
  def decode(<<131, 80, _::binary>>, _config), do: :error

  def decode(bytes, config) do
    term = :erlang.binary_to_term(bytes, if(config.atoms == :create, do: [], else: [:safe]))
    if mentioned?(bytes, @elsewhere), do: move(term, away(), here()), else: term
  rescue
    ArgumentError -> :error
  end

  # Most messages have none, and need not be walked through.
  defp mentioned?(bytes, node), do: :binary.match(bytes, Atom.to_string(node)) != :nomatch

  # A node as the external term format has it in a pid: the name, and which of those that have borne it.
  defp away, do: {atom(@elsewhere), creation()}

  defp creation do
    with nil <- :persistent_term.get(__MODULE__, nil) do
      :persistent_term.put(__MODULE__, :crypto.strong_rand_bytes(4))
      creation()
    end
  end

  defp here do
    <<131, _pid, rest::binary>> = :erlang.term_to_binary(self())
    {atom(node()), binary_part(rest, byte_size(rest), -4)}
  end

  defp atom(atom) do
    <<131, bytes::binary>> = :erlang.term_to_binary(atom)
    bytes
  end

  defp move([head | tail], from, to), do: [move(head, from, to) | move(tail, from, to)]

  defp move(tuple, from, to) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> move(from, to) |> List.to_tuple()

  defp move(map, from, to) when is_map(map),
    do: map |> :maps.to_list() |> move(from, to) |> :maps.from_list()

  defp move(id, from, to) when is_pid(id) or is_port(id) or is_reference(id),
    do: id |> :erlang.term_to_binary() |> rename(from, to) |> :erlang.binary_to_term()

  defp move(other, _from, _to), do: other

  @reference 90

  # A reference's creation follows the name, a pid's and a port's is at the end.
  defp rename(<<131, @reference, words::16, rest::binary>> = id, {name, creation}, {to, other}) do
    size = byte_size(name)

    case rest do
      <<^name::binary-size(size), ^creation::binary-4, rest::binary>> ->
        <<131, @reference, words::16, to::binary, other::binary, rest::binary>>

      _ ->
        id
    end
  end

  defp rename(<<131, kind, rest::binary>> = id, {name, creation}, {to, other}) do
    size = byte_size(name)
    between = byte_size(rest) - size - 4

    case rest do
      <<^name::binary-size(size), number::binary-size(between), ^creation::binary-4>> ->
        <<131, kind, to::binary, number::binary, other::binary>>

      _ ->
        id
    end
  end
end
