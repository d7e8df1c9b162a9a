defmodule Causeway.Store.RightsTest do
  # Rights in bounded counters: they are where they are needed, and their sum is what it must be. Stores in this VM; on
  # nodes of their own in cluster_test.exs.
  use ExUnit.Case, async: false
  import Causeway.Eventually
  import Causeway.Property, except: [run: 3]
  alias Causeway.Store

  @stock {"stock", 1}
  @path ["stock", 1]

  setup do: Causeway.Silence.logger()

  defp open(n, opts) do
    names = for i <- 1..n, do: :"#{__MODULE__}.#{System.unique_integer([:positive])}.#{i}"

    for name <- names do
      peers = for other <- names, other != name, do: {other, node()}
      opts = [name: name, replica: Atom.to_string(name), peers: peers] ++ opts
      {:ok, pid} = Store.start_link(opts)
      Process.unlink(pid)
      on_exit(fn -> if Process.alive?(pid), do: Supervisor.stop(pid) end)
    end

    names
  end

  defp met!(names) do
    eventually(fn -> names |> Enum.map(&Store.hash/1) |> Enum.uniq() |> length() == 1 end)
  end

  defp here(name), do: name |> Store.rights(@stock) |> elem(0)

  defp give(from, id, n, to) do
    request = {:give, id, @path, n, Store.info(to).actor, {to, node()}}
    GenServer.call(Module.concat(from, Rights), request)
  end

  test "a request that comes again is answered again, and gives nothing more" do
    [a, b] = open(2, rights_interval: 60_000)
    {:ok, clock} = Store.update(a, {:increment, @stock, 10, :counter_bounded})
    id = make_ref()
    assert {:ok, 3, given} = give(a, id, 3, b)
    assert give(a, id, 3, b) == {:ok, 3, given}
    assert Causeway.Clock.contains?(given, clock)
    :ok = Store.wait(b, given)
    assert {here(a), here(b)} == {7, 3}
    # Another one gives again, as much as there is.
    assert {:ok, 7, given} = give(a, make_ref(), 100, b)
    :ok = Store.wait(b, given)
    assert {here(a), here(b)} == {0, 10}
    assert {:ok, 0, nil} = give(a, make_ref(), 1, b)
  end

  test "rights move to where they are spent, ahead of need, and leave some behind" do
    [a, b] = open(2, rights_interval: 20)
    {:ok, clock} = Store.update(a, {:increment, @stock, 10_000, :counter_bounded})
    :ok = Store.wait(b, clock)

    for _ <- 1..40 do
      {:ok, _} = Store.update(b, {:decrement, @stock, 2})
      Process.sleep(5)
    end

    # One that was asked for would be gone with what it was asked for.
    eventually(fn -> here(b) >= 20 end)
    met!([a, b])
    assert here(a) + here(b) == 10_000 - 80
    assert here(a) > here(b)
    # When nobody spends any more, they stay where they are.
    Process.sleep(500)
    before = {here(a), here(b)}
    Process.sleep(200)
    assert {here(a), here(b)} == before
  end

  property "what is left is what was put there less what was spent, whatever gets lost, late or twice",
    runs: 5 do
    names = open(3, rights_interval: 10)
    for name <- names, do: Store.update!(name, {:increment, @stock, 30, :counter_bounded})
    met!(names)

    # What each has put there, less what it has spent, of what was acknowledged.
    workers =
      for name <- names, seed = below(1_000_000) do
        Task.async(fn ->
          :rand.seed(:exsss, seed)
          Enum.sum(for _ <- 1..60, do: work(name, names))
        end)
      end

    trouble = Task.async(fn -> trouble(names) end)
    sums = Task.await_many(workers, 60_000)
    send(trouble.pid, :enough)
    Task.await(trouble)
    for a <- names, b <- names, a != b, do: :ok = Store.connect(a, {b, node()})
    met!(names)
    # Nobody moves rights while they are counted.
    for name <- names, do: :sys.suspend(Module.concat(name, Rights))
    Process.sleep(50)
    met!(names)
    left = Store.get(hd(names), @stock, 0)
    assert left == 90 + Enum.sum(sums)
    assert names |> Enum.map(&here/1) |> Enum.sum() == left
    for name <- names, do: Supervisor.stop(name)
  end

  defp work(name, names) do
    Process.sleep(below(5))
    assert Store.get(name, @stock, 0) >= 0

    n = between(1, 3)

    op =
      one_of([
        {:increment, @stock, n},
        {:decrement, @stock, n},
        {:decrement, @stock, n},
        {:give, one_of(names), n}
      ])

    case op do
      {:give, other, n} ->
        # Asked for once or several times, soon or late; some of it is never used.
        id = make_ref()

        for _ <- 1..between(1, 3) do
          spawn(fn ->
            Process.sleep(below(40))
            give(other, id, n, name)
          end)
        end

        0

      {verb, _, n} ->
        case Store.update(name, op, timeout: one_of([0, 1, 10])) do
          {:ok, _} -> if verb == :increment, do: n, else: -n
          {:error, %{reason: {:insufficient_rights, _, _, _}}} -> 0
        end
    end
  end

  # Rights are killed seldom: too often, and the supervisor gives up.
  defp trouble(names, kills \\ 2) do
    receive do
      :enough -> :ok
    after
      between(1, 20) ->
        [a, b] = Enum.take_random(names, 2)

        case one_of([:kill] ++ for(what <- [:disconnect, :connect, :heal], _ <- 1..5, do: what)) do
          :disconnect -> Store.disconnect(a, {b, node()})
          :connect -> Store.connect(a, {b, node()})
          :heal -> for {x, y} <- [{a, b}, {b, a}], do: Store.connect(x, {y, node()})
          # Answers that were given are forgotten with it.
          :kill when kills > 0 -> a |> Module.concat(Rights) |> Process.whereis() |> kill()
          :kill -> :ok
        end
        |> then(&trouble(names, if(&1 == :killed, do: kills - 1, else: kills)))
    end
  end

  defp kill(nil), do: :ok

  defp kill(pid) do
    Process.exit(pid, :kill)
    :killed
  end
end
