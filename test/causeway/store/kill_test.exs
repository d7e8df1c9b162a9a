defmodule Causeway.Store.KillTest do
  # An operating system process is killed in the middle of commits, checkpoints and recoveries, and started again
  # on the same directory. What it said it had committed must be there, and nothing by halves.
  #
  # `make soak` runs more rounds: CAUSEWAY_KILLS.
  use Causeway.StoreCase, async: false
  import Causeway.Property
  alias Causeway.StoreChild

  @moduletag timeout: :infinity
  @kills String.to_integer(System.get_env("CAUSEWAY_KILLS") || "10")
  @writers 4
  # The script that starts Erlang complains when it is killed.
  @quiet ["sh", "-c", "exec \"$0\" \"$@\" 2>/dev/null"]

  for fsync <- ["always", "never"] do
    test "killed at any instant, a store has what it acknowledged; fsync: #{fsync}", %{dir: dir} do
      seed = ExUnit.configuration()[:seed]
      :rand.seed(:exsss, {seed, @kills, :erlang.phash2(unquote(fsync))})
      acknowledged = Map.new(1..@writers, &{&1, 0})

      {acknowledged, lines} =
        Enum.reduce(1..div(@kills + 1, 2), {acknowledged, 0}, fn _, {acknowledged, lines} ->
          {acknowledged, more} = round(dir, unquote(fsync), acknowledged)
          {acknowledged, lines + more}
        end)

      # If none got so far, nothing was tested.
      assert lines > 0
      store = open!(dir)
      counts = for w <- 1..@writers, do: {w, count(store, "a", w), count(store, "b", w)}
      check(counts, count(store, "sum", 0), acknowledged)
      stop(store)
    end
  end

  defp count(store, bucket, key), do: Store.get(store, {bucket, key}, 0)

  # Mostly killed in the middle of commits, now and then while it starts.
  defp round(dir, fsync, acknowledged) do
    args = ["commits", dir, fsync, @writers, one_of([5, 50, 1_000])]
    child = StoreChild.start(args, through: @quiet)
    head = if chance(75), do: wait_open(child), else: []
    Process.sleep(below(300))
    lines = head ++ StoreChild.kill(child)

    found = for "found " <> rest <- lines, do: rest |> numbers() |> List.to_tuple()
    opened = for "open " <> sum <- lines, do: String.to_integer(sum)

    with [sum] <- opened, do: check(found, sum, acknowledged)
    done = for "ok " <> rest <- lines, [w, n] = numbers(rest), do: {w, n}
    other = Enum.reject(lines, &String.starts_with?(&1, ["found ", "open ", "ok "]))
    assert other == []
    acknowledged = for {w, n} <- done, reduce: acknowledged, do: (map -> Map.put(map, w, n))
    # What was found when it was opened must never be lost either.
    known = for {w, n, _} <- found, into: %{}, do: {w, n}
    {Map.merge(known, acknowledged, fn _, a, b -> max(a, b) end), length(done)}
  end

  defp wait_open(child) do
    case StoreChild.line(child) do
      "found " <> _ = line -> [line | wait_open(child)]
      line -> [line]
    end
  end

  defp numbers(text), do: text |> String.split() |> Enum.map(&String.to_integer/1)

  # A writer that was killed may have committed one more than it could say.
  defp check(found, sum, acknowledged) do
    assert length(found) == @writers

    for {w, a, b} <- found do
      assert a == b, "writer #{w}: one object has #{a}, the other #{b}"
      seen = acknowledged[w]
      assert a in [seen, seen + 1], "writer #{w}: #{seen} acknowledged, #{a} recovered"
    end

    assert sum == found |> Enum.map(&elem(&1, 1)) |> Enum.sum()
  end
end
