defmodule Demo.Edits do
  @moduledoc "Edits: those that load records, and random ones. Randomness is the calling process's `:rand`."

  # Half of all edits are about these few records, so that replicas meet at the same ones.
  @hot 300

  @doc "The operations that load a record; paths inside `:in` go on from its own."
  def load(record) do
    puts = for {path, value} <- record.registers, value != nil, do: {:put, path, value}
    adds = for {path, elements} <- record.sets, e <- elements, do: {:add, path, e}
    {:in, [record.name], :map, puts ++ adds}
  end

  @doc "`n` random edits by `who`; `records` is a tuple."
  def random(records, who, n), do: for(_ <- 1..n, do: random_edit(pick(records), who))

  defp pick(records) do
    size = tuple_size(records)
    elem(records, :rand.uniform(if(:rand.uniform(2) == 1, do: min(@hot, size), else: size)) - 1)
  end

  defp random_edit(%{name: name} = record, who) do
    case :rand.uniform(100) do
      p when p <= 25 -> {:put, [name, field()], "#{who} #{:rand.uniform(1_000_000)}"}
      p when p <= 45 -> {:increment, [name, "votes"], :rand.uniform(5) - 1}
      p when p <= 50 -> {:decrement, [name, "votes"]}
      p when p <= 62 -> {:add, [name, "tags"], "demo::#{:rand.uniform(20)}"}
      p when p <= 72 -> {:remove, [name, "tags"], tag(record)}
      p when p <= 80 -> {:put, [name, "reviews", who, "stars"], :rand.uniform(5)}
      p when p <= 86 -> {:add, [name, "reviews", who, "words"], word()}
      p when p <= 90 -> {Enum.random([:enable, :disable]), [name, "orphaned"]}
      p when p <= 93 -> {:reset, [name, "votes"]}
      p when p <= 96 -> {:delete, [name, Enum.random(["about", "reviews", "tags"])]}
      _ -> {:delete, [name]}
    end
  end

  defp field, do: Enum.random(["version", "section", "maintainer"])
  defp word, do: Enum.random(~w(quick slow tiny huge solid flaky old new))

  defp tag(record) do
    [{["tags"], tags} | _] = record.sets
    Enum.random(["demo::#{:rand.uniform(20)}" | tags])
  end
end
