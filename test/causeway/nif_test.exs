defmodule Causeway.NifTest do
  # The library's life, memory and manners: upgrades, millions of handles, many processes, and the time that
  # calls take on normal schedulers. Not async: it measures, and it replaces the code.
  use ExUnit.Case, async: false
  import Bitwise, only: [<<<: 2]
  alias Causeway.{Clock, Doc, Slices}

  @moduletag :nif
  @moduletag timeout: 120_000

  # Under ASan everything is ten times slower, and each block stays for a while when it is freed.
  @asan System.get_env("CAUSEWAY_NIF") != nil
  @scale if(@asan, do: 20, else: 1)

  defp set(n, replica \\ "a"), do: fill(Doc.new(replica), n, &{:add, [:s], <<&1::128>>})
  defp map(n, replica \\ "a"), do: fill(Doc.new(replica), n, &{:put, [:m, &1], &1})

  defp fill(doc, n, op) do
    for chunk <- Enum.chunk_every(1..n, 20_000), reduce: doc do
      doc -> Doc.update(doc, Enum.map(chunk, op))
    end
  end

  # What the VM has allocated, once it no longer falls.
  defp memory(last \\ nil) do
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)
    Process.sleep(50)
    now = :erlang.memory(:total)
    if last && now > last - 100_000, do: min(now, last), else: memory(now)
  end

  defp parallel(n, fun) do
    1..n |> Enum.map(&Task.async(fn -> fun.(&1) end)) |> Task.await_many(60_000)
  end

  describe "upgrade" do
    @describetag :asan

    defp reload do
      :code.purge(:causeway_nif)
      assert {:module, :causeway_nif} = :code.load_file(:causeway_nif)
    end

    defp library,
      do:
        System.get_env("CAUSEWAY_NIF") || Path.join(:code.priv_dir(:causeway), "causeway_nif.so")

    test "documents go on" do
      start = set(500)

      {doc, olds} =
        for i <- 1..20, reduce: {start, []} do
          {doc, olds} ->
            reload()
            doc = Doc.update(doc, [{:add, [:s], i}, {:increment, [:n]}])
            if rem(i, 2) == 0, do: :code.purge(:causeway_nif)
            made = Doc.new("r#{i}") |> Doc.update({:add, [:s], {i}})
            {Doc.merge(doc, made), [{doc, Doc.encode(doc)} | olds]}
        end

      assert Doc.get(doc, [:n]) == 20
      assert MapSet.size(Doc.get(doc, [:s])) == 540
      for {old, bytes} <- olds, do: assert(Doc.encode(old) == bytes)
      assert MapSet.size(Doc.get(start, [:s])) == 500
    end

    test "codecs go on" do
      for _ <- 1..3, reduce: [] do
        codecs ->
          spec = {:composite, [{23, :int4}, {1184, :timestamptz}]}
          codecs = [:causeway_nif.pg_codec_compile([{-1, {:array, 9, spec}}], [], []) | codecs]
          reload()
          row = [[{1, ~U[2024-02-29 12:00:00.000001Z]}, nil]]

          for codec <- codecs do
            bytes = :causeway_nif.pg_encode(codec, row)
            assert :causeway_nif.pg_decode_rows(codec, bytes, 1, []) == [row]
          end

          codecs
      end
    end

    test "documents go on in a library from another file, when the old one is closed" do
      before = System.get_env("CAUSEWAY_NIF")
      start = set(500)
      large = set(20_000)
      dir = Path.join(System.tmp_dir!(), "causeway_nif_test_#{System.pid()}")
      File.mkdir_p!(dir)

      try do
        docs =
          for i <- 1..3 do
            copy = Path.join(dir, "copy_#{i}.so")
            File.cp!(library(), copy)
            System.put_env("CAUSEWAY_NIF", copy)
            reload()
            doc = start |> Doc.fork("r#{i}") |> Doc.update({:add, [:s], i})
            :code.purge(:causeway_nif)
            parallel(4, fn k -> for j <- 1..200, do: Doc.update(doc, {:add, [:s], {k, j}}) end)
            Doc.update(doc, {:add, [:s], {i}})
          end

        for doc <- docs, do: assert(MapSet.size(Doc.get(doc, [:s])) == 502)

        assert docs
               |> Enum.with_index()
               |> Enum.map(fn {d, i} -> d |> Doc.encode() |> Doc.decode!("r#{i}") end)
               |> Enum.reduce(&Doc.merge/2)
               |> Doc.member?([:s], <<77::128>>)

        assert Doc.update(large, {:delete, [:s]}) |> Doc.value() == %{}
      after
        if before,
          do: System.put_env("CAUSEWAY_NIF", before),
          else: System.delete_env("CAUSEWAY_NIF")

        reload()
        :code.purge(:causeway_nif)
        File.rm_rf!(dir)
      end

      assert Doc.member?(start, [:s], <<77::128>>)
    end

    test "documents of another layout are refused, and freed by the library that made them" do
      before = System.get_env("CAUSEWAY_NIF")
      start = set(500)
      copy = Path.join(System.tmp_dir!(), "causeway_nif_layout_#{System.pid()}.so")
      code = File.read!(library())
      assert code =~ "causeway_doc_1"
      File.write!(copy, String.replace(code, "causeway_doc_1", "causeway_doc_X"))

      try do
        System.put_env("CAUSEWAY_NIF", copy)
        large = set(20_000)
        reload()
        :code.purge(:causeway_nif)
        assert_raise ArgumentError, fn -> Doc.update(start, {:put, [:x], 1}) end
        assert_raise ArgumentError, fn -> Doc.merge(Doc.new("b"), large) end
        assert Doc.new("b") |> Doc.update({:put, [:x], 1}) |> Doc.value() == %{x: 1}
      after
        if before,
          do: System.put_env("CAUSEWAY_NIF", before),
          else: System.delete_env("CAUSEWAY_NIF")

        :erlang.garbage_collect()
        reload()
        :code.purge(:causeway_nif)
        File.rm!(copy)
      end

      # Nor does a later library find them.
      assert_raise ArgumentError, fn -> Doc.value(start) end
      assert Doc.get(set(500), [:s]) |> MapSet.size() == 500
    end

    test "while processes work" do
      test = self()

      workers =
        for w <- 1..4 do
          spawn_link(fn ->
            doc =
              Stream.iterate(0, &(&1 + 1))
              |> Enum.reduce_while({Doc.new("w#{w}"), 0}, fn i, {doc, n} ->
                doc = Doc.update(doc, [{:add, [:s], rem(i, 3000)}, {:increment, [:n]}])
                receive do: (:stop -> {:halt, {doc, n + 1}}), after: (0 -> {:cont, {doc, n + 1}})
              end)

            send(test, {:done, self(), doc})
          end)
        end

      for _ <- 1..15 do
        reload()
        Process.sleep(2)
      end

      for worker <- workers do
        send(worker, :stop)
        assert_receive {:done, ^worker, {doc, n}}, 5000
        assert Doc.get(doc, [:n]) == n
        assert MapSet.size(Doc.get(doc, [:s])) == min(n, 3000)
      end
    end

    test "unload and load anew, while there are documents" do
      # In a process of its own, which then takes its documents with it.
      parallel(1, fn _ ->
        doc = set(20_000)
        :code.purge(:causeway_nif)
        :code.delete(:causeway_nif)
        :code.purge(:causeway_nif)
        refute :code.is_loaded(:causeway_nif)

        # Without code to take them over, documents are gone for good; to touch one is no worse than that.
        for _ <- 1..3 do
          try do
            Doc.hash(doc)
          rescue
            ArgumentError -> :ok
          end
        end

        assert Doc.new("b") |> Doc.update({:put, [:x], 1}) |> Doc.value() == %{x: 1}
      end)

      :erlang.garbage_collect()
      assert Doc.new("b") |> Doc.update({:put, [:x], 1}) |> Doc.value() == %{x: 1}
    end
  end

  describe "handles" do
    # Four a turn.
    defp turn(i) do
      doc = Doc.new("a") |> Doc.update({:put, ["x"], i})
      fork = Doc.fork(doc, "b")
      Doc.merge(fork, doc)
    end

    test "a million, made and dropped" do
      for i <- 1..20_000, do: turn(i)
      before = memory()
      Enum.each(1..250_000, &turn/1)
      assert memory() - before < 4_000_000
    end

    test "a million, in many processes at once" do
      parallel(50, fn _ -> Enum.each(1..200, &turn/1) end)
      before = memory()
      for _ <- 1..5, do: parallel(50, fn _ -> Enum.each(1..1000, &turn/1) end)
      assert memory() - before < 8_000_000
    end

    test "of failing calls" do
      doc = Doc.new("a") |> Doc.update([{:put, [:x], 1}, {:increment, [:n], 1, :counter_bounded}])

      bytes = Doc.encode(doc)
      <<part::binary-size(20), _::binary>> = bytes
      clock = %Clock{bytes: "no clock"}
      long = :binary.copy("x", 1000)

      fail = fn ->
        for op <- [
              {:add, [:x], 1},
              {:put, [:x], self()},
              {:decrement, [:n], 2},
              {:put, :x, 1},
              {:increment, [:n], 1 <<< 62}
            ],
            do: {:error, _} = Doc.try_update(doc, List.duplicate({:put, [:y], long}, 5) ++ [op])

        {:error, _} = Doc.decode(part, "b")
        {:error, _} = Doc.apply_delta(doc, part)
        {:error, _} = Doc.join_deltas(bytes, part)
        {:error, _} = Doc.decode(bytes <> "x", "b")

        for fun <- [
              fn -> Doc.delta(doc, since: clock) end,
              fn -> Clock.merge(clock, clock) end,
              fn -> Doc.new(nil) end,
              fn -> Doc.get(doc, [[self()]]) end
            ],
            do: assert_raise(Causeway.Error, fun)
      end

      for _ <- 1..500, do: fail.()
      before = memory()
      for _ <- 1..5_000, do: fail.()
      assert memory() - before < 2_000_000
    end

    test "values of PostgreSQL, right and wrong" do
      spec = {:array, 25, :text}
      text = String.duplicate("x", 5_000)
      codec = :causeway_nif.pg_codec_compile([{-1, spec}, {-1, :numeric}, {-1, :hstore}], [], [])
      row = [[text, text], 10 ** 100, %{"a" => text}]
      bytes = :causeway_nif.pg_encode(codec, row)
      large = [[String.duplicate("x", 500_000)], 10 ** 5_000, %{}]

      round = fn ->
        for _ <- 1..div(1_000, @scale) do
          :causeway_nif.pg_decode_rows(codec, bytes, 1, [])
          {:error, :emalformed} = :causeway_nif.pg_decode_rows(codec, bytes <> "x", 1, [])
          {:error, {2, _, _, _}} = :causeway_nif.pg_encode(codec, List.replace_at(row, 2, 1))
          {:error, {2, _, _, _}} = :causeway_nif.pg_encode(codec, List.replace_at(large, 2, 1))
          {:error, {:row, 1, _}} = :causeway_nif.pg_encode_rows(codec, [large, 1])
          :causeway_nif.pg_codec_compile([{-1, spec}], [], [])
        end
      end

      round.()
      before = memory()
      for _ <- 1..5, do: round.()
      assert memory() - before < 2_000_000
    end

    test "of calls that succeed" do
      a =
        Doc.new("a")
        |> Doc.update([
          {:put, [:x], :binary.copy("x", 5000)} | for(i <- 1..100, do: {:add, [:s], i})
        ])

      b =
        a
        |> Doc.fork("b")
        |> Doc.update([{:increment, [:n], 5, :counter_bounded}, {:transfer, [:n], 2, "a"}])

      succeed = fn i ->
        c =
          Doc.update(b, [
            {:add, [:s], {i}},
            {:remove, [:s], 5},
            {:put, [:m, :deep], %{i => [1 <<< 200]}},
            {:put, [:x], i}
          ])

        delta = Doc.delta(c, since: Doc.clock(a))
        {:ok, joined} = Doc.join_deltas(delta, Doc.delta(b, since: a))
        d = Doc.apply_delta!(Doc.update(a, {:delete, [:s]}), joined)

        assert d |> Doc.merge(c) |> Doc.encode() |> Doc.decode!("d") |> Doc.value() |> map_size() ==
                 4

        assert {Doc.rights(d, [:n]), Doc.member?(d, [:s], {i}), Doc.get(d, [:s])} ==
                 {{2, 3}, true, MapSet.new([{i}])}

        assert length(Doc.diff(a, d)) == 4
        clock = Clock.merge(Doc.clock(d), Clock.new(%{"e" => i}))
        assert Clock.compare(clock, Doc.clock(b)) == :after
        assert map_size(Clock.to_map(clock)) == 3
        assert Doc.info(d).bytes > byte_size(Doc.hash(d))
      end

      for i <- 1..1000, do: succeed.(i)
      before = memory()
      for i <- 1..10_000, do: succeed.(i)
      assert memory() - before < 2_000_000
    end

    test "of one library after the other" do
      cycle = fn ->
        doc = set(2000)
        reload()
        Doc.update(doc, {:delete, [:s]})
        :code.purge(:causeway_nif)
        :code.delete(:causeway_nif)
        :code.purge(:causeway_nif)
        Doc.new("a")
      end

      for _ <- 1..10, do: parallel(1, fn _ -> cycle.() && :ok end)
      before = memory()
      for _ <- 1..100, do: parallel(1, fn _ -> cycle.() && :ok end)
      assert memory() - before < 3_000_000
    end

    @tag :asan
    test "used by many processes at once" do
      docs = for i <- 1..5, do: set(2000, "r#{i}") |> Doc.update({:put, [:x], i})
      # Edits that are not in the tree yet are put there by the first who looks, whoever that is.
      docs = for doc <- docs, do: Doc.update(doc, {:add, [:s], :last})
      all = Enum.reduce(docs, &Doc.merge/2)
      expected = {Doc.hash(all), Doc.encode(all)}

      parallel(20, fn _ ->
        for _ <- 1..div(20, @scale) do
          [a | rest] = Enum.shuffle(docs)
          merged = Enum.reduce(rest, a, &Doc.merge/2)
          assert {Doc.hash(merged), Doc.encode(merged)} == expected
          assert Doc.get(a, [:s]) |> MapSet.size() == 2001
          assert Doc.member?(a, [:s], :last)
          assert Doc.delta(merged, since: Doc.clock(a)) |> byte_size() > 0

          mine = a |> Doc.fork("mine") |> Doc.update([{:delete, [:s]}, {:increment, [:n]}])
          assert Doc.get(mine, [:n]) == 1
        end
      end)
    end

    @tag :asan
    test "first looked at by many processes at once" do
      for i <- 1..div(200, @scale) do
        doc = Doc.new("a") |> Doc.update(for k <- 1..10, do: {:add, [:s], {i, k}})
        doc = for k <- 1..20, reduce: doc, do: (doc -> Doc.update(doc, {:add, [:s], {k, i}}))

        hashes =
          parallel(6, fn n ->
            {Enum.at([&Doc.hash/1, &Doc.encode/1, &Doc.value/1], rem(n, 3)).(doc), rem(n, 3)}
          end)

        assert hashes |> Enum.uniq() |> length() == 3
      end
    end

    @tag :asan
    test "sent from process to process, and dropped there" do
      before = unless @asan, do: memory()

      for _ <- 1..5 do
        chain =
          for _ <- 1..20, reduce: self() do
            next ->
              spawn_link(fn ->
                for _ <- 1..div(100, @scale), do: receive(do: (doc -> pass(doc, next)))
              end)
          end

        for i <- 1..div(100, @scale), do: send(chain, Doc.new("a") |> Doc.update({:put, [:i], i}))

        for i <- 1..div(100, @scale) do
          assert_receive %Doc{} = doc, 5000
          assert Doc.value(doc) == %{i: i, hops: 20}
        end
      end

      unless @asan, do: assert(memory() - before < 3_000_000)
    end

    defp pass(doc, next), do: send(next, Doc.update(doc, {:increment, [:hops]}))
  end

  describe "a large document" do
    test "gives its memory back" do
      before = memory()

      for doc <- [&set/1, &map/1, &set/1] do
        parallel(1, fn _ ->
          hash = Doc.hash(doc.(1_000_000))
          assert :erlang.memory(:total) - before > 20_000_000
          :erlang.garbage_collect()
          hash
        end)

        assert eventually(fn -> :erlang.memory(:total) - before < 10_000_000 end)
      end
    end

    # Each takes some 20 ms to free, and the clock of threads counts hundredths.
    if File.dir?("/proc/self/task") do
      test "is freed by the reaper, so that no scheduler stands still for it" do
        before = {memory(), reaper_time()}
        value = :binary.copy("x", 300)

        for _ <- 1..4 do
          parallel(1, fn _ ->
            Doc.new("a") |> fill(200_000, &{:put, [&1], value}) |> Doc.hash()
          end)
        end

        assert eventually(fn -> :erlang.memory(:total) - elem(before, 0) < 10_000_000 end)
        assert eventually(fn -> reaper_time() > elem(before, 1) end)
      end

      # User and system time of its thread; the name is in parentheses.
      defp reaper_time do
        for path <- Path.wildcard("/proc/self/task/*/stat"),
            {:ok, stat} <- [File.read(path)],
            [_, "causeway_reaper", numbers] <- [Regex.run(~r/\((.*)\) (.*)/, stat)],
            {user, system} =
              numbers |> String.split() |> then(&{Enum.at(&1, 11), Enum.at(&1, 12)}),
            reduce: 0,
            do: (time -> time + String.to_integer(user) + String.to_integer(system))
      end
    end

    defp eventually(fun, tries \\ 200) do
      fun.() or (tries > 0 and Process.sleep(50) == :ok and eventually(fun, tries - 1))
    end

    test "that shares most of itself with another one leaves that as it is" do
      doc = set(100_000)
      hash = Doc.hash(doc)

      for i <- 1..50,
          do: Doc.update(doc, for(k <- 1..1000, do: {:remove, [:s], <<i * k::128>>}))

      assert memory() > 0
      assert Doc.hash(doc) == hash
      assert Doc.get(doc, [:s]) |> MapSet.size() == 100_000
    end
  end

  # One of seven measurements must be below a millisecond. Of large documents the work itself must be
  # on a dirty scheduler, where it is to be found.
  describe "no call keeps a normal scheduler for a millisecond:" do
    defp check(name, fun) do
      {normal, dirty} = Slices.measure_below(fun, 1000, 7)

      assert normal <= 1000,
             "#{name}: #{normal} us on a normal scheduler (and #{dirty} on a dirty one)"

      dirty
    end

    defp nif(name, args), do: fn -> apply(:causeway_nif, name, args) end

    for n <- [300, 1400, 1600, 20_000, 1_000_000] do
      test "#{n} cells" do
        n = unquote(n)
        {s, m, empty} = {set(n), map(n), Doc.new("a")}
        some = for i <- 1..250, do: {:add, [:s], i}

        {more, other} =
          {Doc.update(s, some),
           s |> Doc.fork("b") |> Doc.update(for i <- 1..250, do: {:add, [:s], -i})}

        tenth =
          s |> Doc.fork("c") |> Doc.update(for i <- 1..max(div(n, 10), 1), do: {:add, [:s], i})

        bytes = Doc.encode(s)
        delta = Doc.delta(more, since: Doc.clock(s))

        small = [
          add: nif(:doc_update, [s.ref, {:add, [:s], 0}]),
          remove: nif(:doc_update, [s.ref, {:remove, [:s], <<n::128>>}]),
          put: nif(:doc_update, [m.ref, {:put, [:m, n], 0}]),
          some: nif(:doc_update, [s.ref, some]),
          merge_some: nif(:doc_merge, [s.ref, other.ref]),
          merge_both: nif(:doc_merge, [more.ref, other.ref]),
          merge_same: nif(:doc_merge, [s.ref, s.ref]),
          get_one: nif(:doc_get, [m.ref, [:m, n], nil, false]),
          member: nif(:doc_member, [s.ref, [:s], <<n::128>>, nil]),
          delta: nif(:doc_delta, [more.ref, Doc.clock(s).bytes]),
          delta_between: nif(:doc_delta_between, [s.ref, more.ref]),
          apply_delta: nif(:doc_apply, [s.ref, delta]),
          diff: nif(:doc_diff, [s.ref, more.ref, false]),
          clock: nif(:doc_clock, [s.ref]),
          hash: nif(:doc_hash, [s.ref]),
          fork: nif(:doc_fork, [s.ref, "other"]),
          drop: fn -> Doc.update(s, some) && :erlang.garbage_collect() end
        ]

        large = [
          batch: nif(:doc_update, [s.ref, for(i <- 1..n, i <= 1000, do: {:add, [:s], {i}})]),
          merge_tenth: nif(:doc_merge, [s.ref, tenth.ref]),
          merge_into_nothing: nif(:doc_merge, [empty.ref, s.ref]),
          get_set: nif(:doc_get, [s.ref, [:s], nil, false]),
          get_all: nif(:doc_get, [m.ref, [], nil, false]),
          delta: nif(:doc_delta, [s.ref, Clock.new().bytes]),
          delta_between: nif(:doc_delta_between, [empty.ref, s.ref]),
          encode: nif(:doc_encode, [s.ref]),
          apply: nif(:doc_apply, [empty.ref, bytes]),
          join: nif(:fragment_join, [bytes, delta]),
          delete: nif(:doc_update, [m.ref, {:delete, [:m]}]),
          diff: nif(:doc_diff, [empty.ref, m.ref, false])
        ]

        for {name, fun} <- small, do: check(name, fun)

        for {name, fun} <- large do
          dirty = check(name, fun)

          if n >= 20_000 and name not in [:merge_into_nothing],
            do: assert(dirty > 0, "#{name}: not on a dirty scheduler")
        end

        check(:info, nif(:doc_info, [s.ref]))
        check(:about, nif(:doc_about, [s.ref]))
        if n > 1000, do: assert(check(:inspect, fn -> inspect(s) end) == 0)
      end
    end

    test "a delta whose keys share nearly all they are" do
      long = :binary.copy("x", 7000)
      doc = Doc.update(Doc.new("b"), for(i <- 1..1000, do: {:add, [:s], long <> <<i::16>>}))
      bytes = Doc.encode(doc)
      assert byte_size(bytes) < 32_000
      assert check(:apply, nif(:doc_apply, [Doc.new("a").ref, bytes])) > 0
      assert check(:join, nif(:fragment_join, [bytes, bytes])) > 0
      assert Doc.hash(Doc.apply_delta!(Doc.new("a"), bytes)) == Doc.hash(doc)
    end

    test "a document that remembers many edits" do
      old = set(300_000)
      doc = Enum.reduce(1..60_000, old, &Doc.update(&2, {:add, [:s], &1}))
      assert check(:delta, nif(:doc_delta, [doc.ref, Doc.clock(old).bytes])) > 0
      check(:add, nif(:doc_update, [doc.ref, {:add, [:s], 0}]))
    end

    # None of these is too long for a normal scheduler, but many in a row are, unless each says what it cost.
    test "many calls in a row" do
      {s, m, c, empty} = {set(1000), map(500), map(12), Doc.new("a")}
      other = s |> Doc.fork("b") |> Doc.update(for i <- 1..250, do: {:add, [:s], -i})
      delta = Doc.delta(other, since: s)
      names = for i <- 1..1000, do: {"replica #{i}", i}
      {v, w} = {:causeway_clock.new(names), :causeway_clock.new([{"x", 1} | names])}
      {few, more} = {:causeway_clock.new(Enum.take(names, 8)), :causeway_clock.new([{"x", 1}])}
      large = Doc.update(empty, {:put, [:x], Enum.to_list(1..1000)})
      path = [Map.new(1..600, &{&1, &1})]

      for {name, args} <- [
            doc_update: [m.ref, {:put, [:m, 1], 2}],
            doc_update: [m.ref, for(i <- 1..100, do: {:put, [:m, i], 2})],
            doc_update: [m.ref, {:put, [:m, 1], Enum.to_list(1..2000)}],
            doc_update: [c.ref, {:delete, [:m]}],
            doc_update: [m.ref, {:put, path, 1}],
            doc_merge: [s.ref, other.ref],
            doc_get: [m.ref, [], nil, false],
            doc_get: [c.ref, [], nil, false],
            doc_get: [m.ref, [:m, 1], nil, false],
            doc_get: [s.ref, [:s], nil, false],
            doc_get: [large.ref, [:x], nil, false],
            doc_get: [m.ref, path, nil, false],
            doc_member: [s.ref, [:s], hd(path), nil],
            doc_hash: [m.ref, path],
            doc_diff: [s.ref, other.ref, false],
            doc_encode: [s.ref],
            doc_delta: [s.ref, Clock.new().bytes],
            doc_delta_between: [s.ref, other.ref],
            doc_apply: [s.ref, delta],
            doc_info: [s.ref],
            fragment_join: [Doc.encode(s), delta],
            clock_merge: [v, w],
            clock_merge: [few, more],
            clock_compare: [v, w],
            clock_get: [v, "replica 1"],
            clock_to_list: [v, false],
            clock_from_list: [names]
          ] do
        call = nif(name, args)
        {us, _} = :timer.tc(fn -> for _ <- 1..5, do: call.() end)
        calls = div(5 * 100_000, us + 1) + 100
        {slice, _} = Slices.measure_below(fn -> again(call, calls) end, 10_000, 7)
        assert slice <= 10_000, "#{name} #{inspect(args, limit: 3)}: #{slice} us without a break"
      end
    end

    defp again(_call, 0), do: :ok
    defp again(call, n), do: call.() && again(call, n - 1)

    test "removals go dirty for what they remove, not for what is beside it" do
      doc =
        Doc.update(map(5000), [
          {:put, [:x], 1},
          {:increment, [:n]},
          {:in, [:g], :map_grow, [{:increment, [:n]}, {:increment, [:m]}]}
        ])

      for op <- [
            {:delete, [:x]},
            {:delete, [:m, 5]},
            {:delete, [:m, 5], :register},
            {:delete, [:m, :none, :none]},
            {:reset, [:n]},
            {:reset, [:g, :n]},
            {:in, [:g], :map_grow, [{:reset, [:n]}]},
            for(i <- 1..200, do: {:delete, [:m, i]})
          ],
          do: assert(check(:few, nif(:doc_update, [doc.ref, op])) == 0, inspect(op))

      for op <- [
            {:delete, [:m]},
            {:delete, [:m], :map},
            {:in, [], :map, [{:put, [:y], 1}, {:delete, [:m]}]},
            {:in, [:m], :map, {:delete, [5]}},
            [{:put, [:y], 1}, {:delete, [:x]}, {:delete, [:m]}]
          ],
          do: assert(check(:many, nif(:doc_update, [doc.ref, op])) > 0, inspect(op))
    end

    test "documents that have nothing in common" do
      check(:merge, nif(:doc_merge, [set(1_000_000).ref, map(1_000_000, "b").ref]))
    end

    test "large terms" do
      large = [
        Enum.to_list(1..1_000_000),
        List.to_tuple(Enum.to_list(1..1_000_000)),
        Map.new(1..100_000, &{&1, &1}),
        :binary.copy("x", 50_000_000),
        List.duplicate(List.duplicate(List.duplicate(1, 100), 100), 20),
        List.duplicate(Bitwise.bsl(1, 5000), 1000)
      ]

      empty = Doc.new("a")

      # Too large for anything, and about the largest that OTP 27 and later have.
      for term <- [1 <<< 4_000_000, -1 <<< 4_000_000] do
        check(:put, nif(:doc_update, [empty.ref, {:put, [:x], [term]}]))
        check(:add, nif(:doc_update, [empty.ref, {:add, [:x], term}]))
        check(:path, nif(:doc_get, [empty.ref, [term], nil, false]))
      end

      for term <- large do
        set = Doc.update(empty, {:add, [:s], 1})
        doc = Doc.update(empty, {:put, [:x], term})
        bytes = Doc.encode(doc)
        check(:put, nif(:doc_update, [empty.ref, {:put, [:x], term}]))
        check(:get, nif(:doc_get, [doc.ref, [:x], nil, false]))
        check(:get_all, nif(:doc_get, [doc.ref, [], nil, false]))
        check(:encode, nif(:doc_encode, [doc.ref]))
        check(:delta, nif(:doc_delta, [doc.ref, Clock.new().bytes]))
        check(:delta_between, nif(:doc_delta_between, [empty.ref, doc.ref]))
        check(:apply, nif(:doc_apply, [empty.ref, bytes]))
        check(:diff, nif(:doc_diff, [empty.ref, doc.ref, false]))
        check(:overwrite, nif(:doc_update, [doc.ref, {:put, [:x], 1}]))
        # What is too large for a field or an element, and for a name.
        check(:field, nif(:doc_update, [empty.ref, {:put, [term], 1}]))
        check(:element, nif(:doc_update, [empty.ref, {:add, [:s], term}]))
        check(:path, nif(:doc_get, [doc.ref, [term], nil, false]))
        check(:member, nif(:doc_member, [set.ref, [:s], term, nil]))
        check(:name, nif(:doc_new, [term]))
      end

      check(:path, nif(:doc_update, [empty.ref, {:put, hd(large), 1}]))
      check(:path, nif(:doc_get, [empty.ref, hd(large), nil, false]))

      check(
        :nothing,
        nif(:doc_update, [empty.ref, List.duplicate({:in, [], :map, []}, 100_000)])
      )
    end

    # Each field is short enough for a key, all of them are not.
    test "paths of large terms" do
      doc = Doc.update(Doc.new("a"), [{:put, [:x], 1}, {:add, [:s], 1}])
      keys = Map.new(1..1400, &{&1, &1})
      wide = Enum.reduce(1..60, 0, fn _, term -> [term | Enum.to_list(1..4000)] end)

      for field <- [keys, wide, List.duplicate(nil, 8000)] do
        path = List.duplicate(field, 64)
        check(:get, nif(:doc_get, [doc.ref, path, nil, false]))
        check(:member, nif(:doc_member, [doc.ref, path, 1, nil]))
        check(:element, nif(:doc_member, [doc.ref, [:s], path, nil]))
        check(:rights, nif(:doc_rights, [doc.ref, path]))
        check(:hash, nif(:doc_hash, [doc.ref, path]))
        check(:put, nif(:doc_update, [doc.ref, {:put, path, 1}]))
        check(:value, nif(:doc_update, [doc.ref, {:put, [:x], path}]))
        assert :causeway_nif.doc_get(doc.ref, path, nil, false) == :absent
        assert Doc.hash(doc, path) == <<0::128>>
        assert {:error, %{reason: {:too_large, _}}} = Doc.try_update(doc, {:put, path, 1})
      end
    end

    test "many replicas" do
      counters = for i <- 1..20_000, do: {"replica #{i}", i}
      {a, b} = {:causeway_clock.new(counters), :causeway_clock.new([{"x", 1} | counters])}
      check(:new, nif(:clock_from_list, [counters]))
      long = for i <- 1..1000, do: {String.pad_leading("#{i}", 1000), i}
      check(:new, nif(:clock_from_list, [long]))
      assert_raise ArgumentError, fn -> :causeway_clock.new([{"a", 1} | :rest]) end
      assert_raise ArgumentError, fn -> :causeway_clock.new(long ++ [{"a", 1} | :rest]) end
      check(:merge, nif(:clock_merge, [a, b]))
      check(:merge_same, nif(:clock_merge, [a, a]))
      check(:compare, nif(:clock_compare, [a, b]))
      check(:get, nif(:clock_get, [a, "replica 5"]))
      check(:to_list, nif(:clock_to_list, [a, false]))
      check(:delta, nif(:doc_delta, [Doc.new("a").ref, a]))

      # A document that all of them have written to: each its own field, half of which are gone.
      alone = fn n -> Doc.new("replica #{n}") |> Doc.update({:put, [n], n}) end
      all = Enum.reduce(1..3000, Doc.new("all"), &Doc.merge(&2, alone.(&1)))
      all = Doc.update(all, for(n <- 1..2900, do: {:delete, [n]}))
      more = Doc.update(all, {:put, [:x], 1})
      {old, new} = {all.ref, more.ref}
      as_of = Doc.merge(more, alone.(0)).ref

      for {name, args} <- [
            doc_clock: [new],
            doc_fork: [new, "b"],
            doc_merge: [Doc.fork(all, "c").ref, new],
            doc_encode: [new],
            doc_delta: [new, Doc.clock(all).bytes],
            doc_delta: [new, Clock.new().bytes],
            doc_delta_between: [old, new],
            doc_apply: [old, Doc.delta(more, since: all)],
            doc_update: [as_of, new, {:put, [:x], 2}]
          ],
          do: assert(check(name, nif(name, args)) > 0, "#{name}: not on a dirty scheduler")

      too_many = List.duplicate({"a", 1}, (1 <<< 24) + 1)
      refused = fn -> catch_error(:causeway_nif.clock_from_list(too_many)) end
      assert refused.() == :badarg
      check(:too_many, refused)
    end
  end
end
