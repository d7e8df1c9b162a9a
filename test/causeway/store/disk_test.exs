defmodule Causeway.Store.DiskTest do
  # What is in a store's directory survives what happens to directories, or the store says why not.
  use Causeway.StoreCase, async: false
  import Causeway.Property
  alias Causeway.{Privileges, StoreChild}
  alias Causeway.Store.{Committer, Runtime}

  # ---- recovery ----

  @kinds [:register, :register_multi, :counter, :counter_bounded] ++
           [:set, :set_grow, :set_remove_wins, :flag, :flag_disable_wins]

  property "what was committed is there after restarts, crashes and checkpoints", runs: 12 do
    dir = new_dir()
    store = open!(dir)
    doc = Doc.new(Store.info(store).actor)
    world = %{dir: dir, store: store, doc: doc, peer: Doc.new("tokyo")}
    world = Enum.reduce(1..between(20, 60), world, fn _, world -> world |> step() |> check() end)
    stop(world.store)
    check(%{world | store: open!(dir)})
    kill(world.store)
    File.rm_rf!(dir)
  end

  defp step(world) do
    case below(20) do
      n when n < 9 -> commit(world, list_of(between(1, 4), &random_op/0))
      n when n < 12 -> commit_at_once(world)
      n when n < 14 -> hear_from_peer(world)
      14 -> commit(world, for(n <- 1..1_500, do: {:add, {"large", below(3)}, {n, below(100)}}))
      15 -> restart(world, &stop/1)
      n when n < 18 -> restart(world, &kill/1)
      18 -> crash_once(world)
      19 -> tap(world, &assert(Store.checkpoint(&1.store) == :ok))
    end
  end

  # Its supervisor would not let it crash again and again.
  defp crash_once(%{crashed: true} = world), do: world

  defp crash_once(world) do
    crash(world.store)
    Map.put(world, :crashed, true)
  end

  defp check(world) do
    assert Store.clock(world.store) == Doc.clock(world.doc)
    snapshot = Store.snapshot(world.store)
    assert Doc.value(snapshot) == Doc.value(world.doc)
    if world[:hash], do: assert(Store.hash(world.store) == world.hash)
    Map.put(world, :hash, nil)
  end

  defp restart(world, fun) do
    hash = Store.hash(world.store)
    fun.(world.store)
    open!(world.dir, fsync: one_of([:never, :never, {:every, 5}, :always]))
    Map.merge(world, %{hash: hash, crashed: false})
  end

  defp commit(world, ops) do
    case {Store.update(world.store, ops), Doc.try_update(world.doc, Enum.map(ops, &Store.op!/1))} do
      {{:ok, _}, {:ok, doc}} ->
        %{world | doc: doc}

      {{:error, a}, {:error, b}} ->
        assert a.reason == b.reason
        world
    end
  end

  # Some of them in one group.
  defp commit_at_once(world) do
    ops = for i <- 1..between(2, 8), do: {:increment, ["at once", i, below(3)], between(1, 9)}
    tasks = for op <- ops, do: Task.async(fn -> Store.update!(world.store, op) end)
    if chance(50), do: Store.checkpoint(world.store)
    Task.await_many(tasks)
    %{world | doc: Enum.reduce(ops, world.doc, &Doc.update(&2, &1))}
  end

  defp hear_from_peer(world) do
    rt = Runtime.fetch!(world.store)

    Enum.reduce(1..between(1, 3), world, fn _, world ->
      new = Doc.update(world.peer, {:add, ["peer", below(5)], below(100)})
      delta = Doc.delta(new, since: world.peer)
      {:ok, _} = Committer.apply_delta(rt, delta)
      %{world | peer: new, doc: Doc.apply_delta!(world.doc, delta)}
    end)
  end

  defp random_op do
    kind = one_of(@kinds)
    path = ["bucket", kind, below(3)]

    case kind do
      _ when kind != :set_grow and kind != :set_remove_wins and path == ["bucket", :set, 0] ->
        {:delete, path}

      kind when kind in [:register, :register_multi] ->
        {:put, path, Causeway.RandomTerms.term(2), kind}

      :counter ->
        one_of([{:increment, path, below(9)}, {:decrement, path, below(9)}, {:reset, path}])

      :counter_bounded ->
        one_of([{:increment, path, below(9), kind}, {:decrement, path, below(9), kind}])

      :set_grow ->
        {:add, path, below(9), kind}

      kind when kind in [:set, :set_remove_wins] ->
        {one_of([:add, :remove]), path, below(9), kind}

      kind ->
        {one_of([:enable, :disable]), path, kind}
    end
  end

  test "a store that was never written to, or not since, starts again", %{dir: dir} do
    for n <- [0, 0, 1, 1, 1] do
      store = open!(dir)
      if Store.get(store, {"n", 1}, 0) < n, do: Store.update!(store, {:increment, {"n", 1}})
      assert Store.get(store, {"n", 1}, 0) == n
      stop(store)
    end

    assert [_, _] = logs(dir)
  end

  test "a directory's name may be anything", %{dir: dir} do
    dir = Path.join(dir, "a [b] {c,d} * ü ?/e")
    store = open!(dir)
    Store.update!(store, {:put, {"a", 1}, 1})
    Store.checkpoint(store)
    Store.update!(store, {:put, {"a", 2}, 2})
    stop(store)
    store = open!(dir)
    assert {Store.get(store, {"a", 1}), Store.get(store, {"a", 2})} == {1, 2}
    stop(store)
  end

  test "files that are not the store's are left alone", %{dir: dir} do
    stop(open!(dir))
    names = ["log-1", "log-old", "log-0000000000000001.bak", "checkpoint-x", "notes"]
    for name <- names, do: File.write!(Path.join(dir, name), "mine")
    store = open!(dir)
    Store.update!(store, {:put, {"a", 1}, 1})
    :ok = Store.checkpoint(store)
    stop(store)
    store = open!(dir)
    assert Store.get(store, {"a", 1}) == 1
    for name <- names, do: assert(File.read!(Path.join(dir, name)) == "mine")
    stop(store)
  end

  # ---- damage to the log ----

  # Commits one after the other, and returns the hash after each.
  defp fill(store, range) do
    for n <- range do
      Store.update!(store, [{:put, {"a", n}, "value #{n}"}, {:increment, {"sum", 0}, n}])
      Store.hash(store)
    end
  end

  test "a torn end is cut off at any byte, reported, and nothing before it is lost", %{dir: dir} do
    store = open!(dir)
    [before, _last] = store |> fill(1..4) |> Enum.take(-2)
    stop(store)
    [log] = logs(dir)
    files = contents(dir)
    [last, size] = log |> offsets() |> Enum.take(-2)
    whole = File.read!(log)

    for at <- last..(size - 1) do
      File.write!(log, binary_part(whole, 0, at))
      logged()
      store = open!(dir)
      assert Store.hash(store) == before, "cut at #{at}"
      told = Enum.filter(logged(), &(&1 =~ "cut off"))
      if at == last, do: assert(told == []), else: assert(hd(told) =~ "#{at - last} bytes")
      assert File.stat!(log).size == last
      [after_it] = fill(store, 5..5)
      stop(store)
      store = open!(dir)
      assert Store.hash(store) == after_it
      stop(store)
      put_back(dir, files)
    end
  end

  test "so is an end that was not torn but never written right", %{dir: dir} do
    store = open!(dir)
    [before, _] = fill(store, 1..2)
    stop(store)
    [log] = logs(dir)
    files = contents(dir)
    [_, last, size] = offsets(log)

    for damage <- [
          fn -> flip(log, between(last, size - 1)) end,
          fn -> patch(log, last, :binary.copy(<<0>>, size - last)) end,
          fn -> File.write!(log, :binary.copy(<<0>>, 5_000), [:append]) end,
          fn -> File.write!(log, :rand.bytes(5_000), [:append]) end
        ] do
      damage.()
      store = open!(dir)
      assert Enum.any?(logged(), &(&1 =~ "cut off"))
      if Store.get(store, {"a", 2}) == nil, do: assert(Store.hash(store) == before)
      assert Store.get(store, {"a", 1}) == "value 1"
      stop(store)
      put_back(dir, files)
    end
  end

  test "a segment that was just begun, at any byte of its header", %{dir: dir} do
    store = open!(dir)
    [hash] = fill(store, 1..1)
    stop(store)
    header = binary_part(File.read!(hd(logs(dir))), 0, 16)

    for n <- 0..16 do
      File.write!(Path.join(dir, "log-0000000000000002"), binary_part(header, 0, n))
      store = open!(dir)
      assert Store.hash(store) == hash
      stop(store)
    end
  end

  test "only the first record, and that torn", %{dir: dir} do
    store = open!(dir)
    fill(store, 1..1)
    stop(store)
    [log] = logs(dir)
    [first, size] = offsets(log)
    File.write!(log, binary_part(File.read!(log), 0, between(first + 1, size - 1)))
    store = open!(dir)
    assert Store.get(store, {"a", 1}) == nil
    [hash] = fill(store, 1..1)
    stop(store)
    store = open!(dir)
    assert Store.hash(store) == hash
    stop(store)
  end

  property "damage in the middle stops the store; its message says how to salvage", runs: 15 do
    dir = new_dir()
    hashes = segments(dir)
    was = actor(dir)
    logs = logs(dir)
    records = for log <- logs, [from, to] <- log |> offsets() |> pairs(), do: {log, from, to}
    {{log, from, to}, index} = records |> Enum.drop(-1) |> Enum.with_index() |> one_of()
    flip(log, between(from, to - 1))
    files = files(dir)

    assert {:error, %Error{reason: {:corrupt, ^log, ^from, _}} = error} = open(dir)
    message = Exception.message(error)
    assert Enum.any?(logged(), &(&1 =~ message))
    assert files(dir) == files
    assert message =~ "#{log} is damaged at byte #{from}"

    salvage(message, dir, log)
    store = open!(dir)
    assert Store.hash(store) == if(index == 0, do: <<0::128>>, else: Enum.at(hashes, index - 1))
    # Numbers of writes that others may have seen are not given again.
    assert Store.info(store).actor != was
    [hash] = fill(store, 100..100)
    stop(store)
    store = open!(dir)
    assert Store.hash(store) == hash
    stop(store)
    File.rm_rf!(dir)
  end

  # Several runs' logs.
  defp segments(dir) do
    for range <- [1..4, 5..5, 6..12], reduce: [] do
      hashes ->
        store = open!(dir)
        more = fill(store, range)
        kill(store)
        hashes ++ more
    end
  end

  test "or to have it all from a peer", %{dir: dir} do
    segments(dir)
    flip(hd(logs(dir)), 40)
    assert {:error, error} = open(dir)
    assert Exception.message(error) =~ "delete all files in it but IDENTITY"
    for name <- files(dir), name != "IDENTITY", do: File.rm!(Path.join(dir, name))
    store = open!(dir)
    assert Clock.to_map(Store.clock(store)) == %{}
    assert "paris~" <> _ = Store.info(store).actor
    stop(store)
  end

  defp pairs(offsets), do: Enum.chunk_every(offsets, 2, 1, :discard)

  # What the message says, to the letter.
  defp salvage(message, dir, log) do
    [_, command] = Regex.run(~r/\((truncate -s \d+ [^)]+)\)/, message)
    {_, 0} = System.cmd("sh", ["-c", command])
    assert message =~ "delete the log files after it and the file LOCK"
    for later <- logs(dir), later > log, do: File.rm!(later)
    File.rm!(Path.join(dir, "LOCK"))
  end

  test "a segment that is missing", %{dir: dir} do
    segments(dir)
    [first, middle, last] = logs(dir)

    for gone <- [first, middle] do
      next = if gone == first, do: middle, else: last
      bytes = File.read!(gone)
      File.rm!(gone)
      assert {:error, %Error{reason: {:corrupt, ^next, 0, what}}} = open(dir)
      assert what =~ "missing"
      File.write!(gone, bytes)
    end

    store = open!(dir)
    assert Store.get(store, {"a", 12}) == "value 12"
    stop(store)
  end

  test "records that belong elsewhere", %{dir: dir} do
    store = open!(dir)
    fill(store, 1..3)
    stop(store)
    [log] = logs(dir)
    [a, b, c, d] = offsets(log)
    bytes = File.read!(log)
    head = binary_part(bytes, 0, a)
    [first, second, third] = for [x, y] <- pairs([a, b, c, d]), do: binary_part(bytes, x, y - x)
    twice = a + byte_size(first)
    File.write!(log, [head, first, first, second, third])
    assert {:error, %Error{reason: {:corrupt, ^log, ^twice, _}}} = open(dir)
    File.write!(log, [head, second, third])
    assert {:error, %Error{reason: {:corrupt, ^log, ^a, _}}} = open(dir)
  end

  test "a delta that does not fit", %{dir: dir} do
    stop(open!(dir))
    log = Path.join(dir, "log-0000000000000001")
    delta = "no delta"
    body = [<<byte_size(delta) + 8::64, 1::64, byte_size(delta)::64>>, delta]
    File.write!(log, ["causeway log 01\n", <<:erlang.crc32(body)::32>>, body])
    assert {:error, %Error{reason: {:corrupt, ^log, 16, _}}} = open(dir)
  end

  # The name in IDENTITY.
  defp actor(dir) do
    <<_head::binary-size(17), _crc::32, term::binary>> = File.read!(Path.join(dir, "IDENTITY"))
    :erlang.binary_to_term(term).actor
  end

  # ---- a crash of the machine ----

  # What the directory would look like on the next run of the machine.
  defp reboot(dir) do
    path = Path.join(dir, "IDENTITY")
    <<head::binary-size(17), _crc::32, term::binary>> = File.read!(path)

    bytes =
      term |> :erlang.binary_to_term() |> Map.put(:boot, "another") |> :erlang.term_to_binary()

    File.write!(path, [head, <<:erlang.crc32(bytes)::32>>, bytes])
    stat = File.stat!(path, time: :posix)
    File.write!(Path.join(dir, "LOCK"), "#{stat.major_device} #{stat.inode} #{stat.ctime}\n")
  end

  for {fsync, actor} <- [always: :same, never: :new] do
    test "after a crash of the machine, the actor is: #{actor} with fsync: #{fsync}", %{dir: dir} do
      store = open!(dir, fsync: unquote(fsync))
      actor = Store.info(store).actor
      [hash] = fill(store, 1..1)
      kill(store)
      reboot(dir)
      store = open!(dir, fsync: :always)
      assert Store.hash(store) == hash
      assert Store.info(store).actor == actor == unquote(actor == :same)
      stop(store)
      # Stopped in order, nothing can be lost.
      actor = Store.info(open!(dir, fsync: unquote(fsync))).actor
      stop(store)
      reboot(dir)
      assert Store.info(open!(dir)).actor == actor
      stop(store)
    end
  end

  test "then, without fsync: :always, a hole in the last segment is no damage", %{dir: dir} do
    for {fsync, lost?} <- [never: true, always: false] do
      sub = Path.join(dir, "#{fsync}")
      store = open!(sub, fsync: fsync)
      [_, before | _] = fill(store, 1..5)
      kill(store)
      [log] = logs(sub)
      at = log |> offsets() |> Enum.at(2)
      patch(log, at, :binary.copy(<<0>>, 30))
      reboot(sub)

      if lost? do
        store = open!(sub)
        assert Store.hash(store) == before
        assert Enum.any?(logged(), &(&1 =~ "cut off"))
        fill(store, 6..6)
        stop(store)
      else
        assert {:error, %Error{reason: {:corrupt, ^log, ^at, _}}} = open(sub)
      end
    end
  end

  test "and what follows a hole is dropped", %{dir: dir} do
    hashes = segments(dir)
    files = contents(dir)
    [first, middle, last] = logs(dir)

    for {damage, kept} <- [
          {fn -> flip(first, first |> offsets() |> Enum.at(2)) end, 2},
          {fn -> flip(middle, middle |> offsets() |> hd()) end, 4},
          {fn -> patch(middle, 0, :binary.copy(<<0>>, 16)) end, 4},
          {fn -> File.rm!(middle) end, 4},
          {fn -> patch(last, 0, :binary.copy(<<0>>, 16)) end, 5}
        ] do
      put_back(dir, files)
      damage.()
      reboot(dir)
      logged()
      store = open!(dir)
      assert Store.hash(store) == Enum.at(hashes, kept - 1)
      assert Enum.any?(logged(), &(&1 =~ "cut off"))
      [hash] = fill(store, 20..20)
      stop(store)
      store = open!(dir)
      assert Store.hash(store) == hash
      stop(store)
    end

    # The first segment was there before the others.
    put_back(dir, files)
    File.rm!(first)
    reboot(dir)
    assert {:error, %Error{reason: {:corrupt, ^middle, 0, _}}} = open(dir)
  end

  # ---- checkpoints ----

  test "a checkpoint takes the place of what is before it", %{dir: dir} do
    store = open!(dir)
    fill(store, 1..3)
    :ok = Store.checkpoint(store)
    assert [_] = logs(dir)
    assert [first] = checkpoints(dir)
    fill(store, 4..5)
    :ok = Store.checkpoint(store)
    [hash] = fill(store, 6..6)
    assert [second] = checkpoints(dir)
    assert first != second
    assert [log] = logs(dir)
    assert length(offsets(log)) == 2
    stop(store)
    store = open!(dir)
    assert Store.hash(store) == hash
    assert %{checkpoint: %{number: 5, running: false}} = Store.info(store)
    stop(store)
  end

  test "one is made when the log is long, also over restarts", %{dir: dir} do
    for n <- 1..4, [] == checkpoints(dir) do
      store = open!(dir)
      for i <- 1..3, do: Store.update!(store, {:put, {"blob", i}, :rand.bytes(1_000_000)})
      assert n < 4
      if n == 3, do: eventually(fn -> checkpoints(dir) != [] and not running?(store) end)
      stop(store)
    end

    assert [_] = checkpoints(dir)
    assert [_] = logs(dir)
  end

  defp running?(store), do: Store.info(store).checkpoint.running

  test "writers go on during a checkpoint", %{dir: dir} do
    store = open!(dir)
    large(store)
    checkpoint = Task.async(fn -> Store.checkpoint(store) end)
    eventually(fn -> running?(store) end)

    counts =
      Stream.repeatedly(fn -> Store.update!(store, {:increment, {"n", 1}}) && running?(store) end)

    meanwhile = counts |> Stream.take_while(& &1) |> Enum.count()
    assert meanwhile > 0
    assert Task.await(checkpoint) == :ok
    hash = Store.hash(store)
    kill(store)
    store = open!(dir)
    assert Store.hash(store) == hash
    assert Store.get(store, {"n", 1}) == meanwhile + 1
    stop(store)
  end

  defp large(store) do
    for i <- 1..20, do: Store.update!(store, for(j <- 1..5_000, do: {:put, {i, j}, j}))
  end

  test "a crash during a checkpoint leaves the state before it", %{dir: dir} do
    store = open!(dir)
    large(store)
    hash = Store.hash(store)
    spawn(fn -> Store.checkpoint(store) end)
    eventually(fn -> running?(store) end)
    crash(store)
    assert Store.hash(store) == hash
    assert Store.checkpoint(store) == :ok

    spawn(fn ->
      fill(store, 1..1)
      Store.checkpoint(store)
    end)

    eventually(fn -> running?(store) end)
    hash = Store.hash(store)
    kill(store)
    store = open!(dir)
    assert Store.hash(store) == hash
    stop(store)
  end

  test "a checkpoint that cannot be written is reported, and the next one can", %{dir: dir} do
    store = open!(dir)
    fill(store, 1..1)
    # In the place of the file that it writes first.
    blocked = Path.join(dir, "checkpoint-0000000000000001.new")
    File.mkdir!(blocked)
    assert {:error, %Error{reason: {:disk, "write", _, :eisdir}}} = Store.checkpoint(store)
    File.rmdir!(blocked)
    hash = List.last(fill(store, 2..3))
    assert Store.checkpoint(store) == :ok
    stop(store)
    store = open!(dir)
    assert Store.hash(store) == hash
    stop(store)
  end

  test "whatever was done of a checkpoint when it was killed", %{dir: dir} do
    store = open!(dir)
    fill(store, 1..3)
    :ok = Store.checkpoint(store)
    fill(store, 4..6)
    # Not a segment's end: the next one begins with the checkpoint.
    old = contents(dir)
    :ok = Store.checkpoint(store)
    [hash] = fill(store, 7..7)
    new = contents(dir)
    kill(store)

    [checkpoint] = for {"checkpoint-" <> _ = name, bytes} <- new, do: {name, bytes}
    {name, bytes} = checkpoint
    logs = for {"log-" <> _, _} = file <- new, do: file
    half = binary_part(bytes, 0, div(byte_size(bytes), 2))

    states = [
      # not begun; half of it; not renamed yet
      old ++ logs,
      old ++ logs ++ [{name <> ".new", half}],
      old ++ logs ++ [{name <> ".new", bytes}],
      # nothing deleted yet; not all of it
      old ++ logs ++ [checkpoint],
      Enum.reject(old, fn {n, _} -> n =~ "checkpoint" end) ++ logs ++ [checkpoint],
      new
    ]

    for state <- states do
      put_back(dir, Enum.uniq_by(state, &elem(&1, 0)))
      store = open!(dir)
      assert Store.hash(store) == hash
      assert Store.checkpoint(store) == :ok
      assert length(checkpoints(dir)) == 1
      stop(store)
      assert Enum.filter(files(dir), &String.ends_with?(&1, ".new")) == []
    end
  end

  test "a damaged checkpoint stops the store; a backup brings it back", %{dir: dir} do
    store = open!(dir)
    fill(store, 1..10)
    :ok = Store.checkpoint(store)
    [hash] = fill(store, 11..11)
    stop(store)
    backup = copy(dir, new_dir() <> "/backup")
    [checkpoint] = checkpoints(dir)
    whole = File.read!(checkpoint)

    for damage <- [
          # Other digits of the version would be a newer release's.
          fn -> flip(checkpoint, one_of([below(13), between(15, 19)])) end,
          fn -> flip(checkpoint, between(20, byte_size(whole) - 1)) end,
          fn -> File.write!(checkpoint, binary_part(whole, 0, below(byte_size(whole)))) end,
          fn -> File.write!(checkpoint, binary_part(whole, 0, between(14, 20))) end,
          fn -> File.write!(checkpoint, "x", [:append]) end,
          fn -> File.rename!(checkpoint, checkpoint |> String.replace(~r/\d$/, "9")) end
        ] do
      File.write!(checkpoint, whole)
      damage.()
      [damaged] = checkpoints(dir)
      assert {:error, %Error{reason: {:corrupt, ^damaged, 0, _}} = error} = open(dir)
      message = Exception.message(error)
      assert message =~ damaged and message =~ "backup"
      refute message =~ "truncate"
      File.rename!(damaged, checkpoint)
    end

    was = actor(dir)
    for name <- files(dir), do: File.rm!(Path.join(dir, name))
    later()
    copy(backup <> "/.", dir)
    store = open!(dir)
    assert Store.hash(store) == hash
    assert Store.info(store).actor != was
    stop(store)
    File.rm_rf!(Path.dirname(backup))
    File.rm_rf!(dir)
  end

  # ---- whose it is ----

  test "a damaged or missing IDENTITY, and how to salvage", %{dir: dir} do
    store = open!(dir)
    was = Store.info(store).actor
    [hash] = fill(store, 1..1)
    stop(store)
    path = Path.join(dir, "IDENTITY")
    files = contents(dir)
    size = File.stat!(path).size

    for damage <-
          [fn -> flip(path, below(size)) end, fn -> File.write!(path, "") end] ++
            [fn -> File.write!(path, "x", [:append]) end, fn -> File.rm!(path) end] do
      put_back(dir, files)
      damage.()

      case open(dir) do
        {:error, %Error{reason: {:corrupt, ^path, 0, _}} = error} ->
          assert Exception.message(error) =~ "copy its IDENTITY to #{path}"

        # The number of the format, of all bytes.
        {:error, %Error{reason: reason}} ->
          assert reason == {:newer_format, path}
      end
    end

    empty = Path.join(dir, "empty")
    stop(open!(empty))
    later()
    File.cp!(Path.join(empty, "IDENTITY"), path)
    store = open!(dir)
    assert Store.hash(store) == hash
    assert Store.info(store).actor != was
    stop(store)
  end

  # The time of a change, by which a copy in the same inode is known, is told in seconds.
  defp later, do: Process.sleep(1_100)

  test "files of a newer release are left alone", %{dir: dir} do
    store = open!(dir)
    fill(store, 1..1)
    :ok = Store.checkpoint(store)
    fill(store, 2..2)
    :ok = Store.disconnect(store, :other@host)
    stop(store)
    files = contents(dir)
    [log] = logs(dir)
    [checkpoint] = checkpoints(dir)
    identity = Path.join(dir, "IDENTITY")
    disconnected = Path.join(dir, "DISCONNECTED")

    for {path, offset, version} <- [
          {log, 13, "02"},
          {checkpoint, 13, "02"},
          {disconnected, 13, "02"},
          {identity, 15, <<2::16>>}
        ] do
      patch(path, offset, version)
      bytes = File.read!(path)
      assert {:error, %Error{reason: {:newer_format, ^path}} = error} = open(dir)
      assert Exception.message(error) =~ path
      assert File.read!(path) == bytes
      put_back(dir, files)
    end

    store = open!(dir)
    assert Store.get(store, {"a", 2}) == "value 2"
    stop(store)
  end

  test "a directory of another replica", %{dir: dir} do
    stop(open!(dir))
    assert {:error, error} = open(dir, replica: "tokyo")
    assert error.reason == {:wrong_replica, dir, "paris", "tokyo"}
    stop(open!(dir))
  end

  test "one store at a time, in this VM and others", %{dir: dir} do
    store = open!(dir)
    actor = Store.info(store).actor
    locked = {:error, %Error{reason: {:locked, dir}}}
    assert open(dir, name: __MODULE__.Second) == locked
    child = StoreChild.start(["hold", dir])
    assert StoreChild.line(child) == "refused #{inspect({:locked, dir})}"
    StoreChild.kill(child)
    # The first has lost nothing by it.
    fill(store, 1..1)
    stop(store)

    child = StoreChild.start(["hold", dir])
    assert StoreChild.line(child) == "open"
    assert open(dir) == locked
    StoreChild.kill(child)
    store = open!(dir)
    assert Store.get(store, {"a", 1}) == "value 1"
    assert Store.info(store).actor == actor
    stop(store)
  end

  test "a copy goes on as another actor, the original as itself", %{dir: dir} do
    store = open!(dir)
    own = Store.info(store).actor
    fill(store, 1..3)
    stop(store)
    copy = copy(dir, new_dir() <> "/copy")
    twin = open!(copy, name: __MODULE__.Second)
    store = open!(dir)
    assert Store.info(store).actor == own
    assert "paris~" <> _ = actor = Store.info(twin).actor
    assert actor != own
    assert Enum.any?(logged(), &(&1 =~ "was copied" and &1 =~ actor))
    Store.update!(store, {:put, {"b", 1}, "here"})
    Store.update!(twin, {:put, {"b", 2}, "there"})
    merged = Doc.merge(Store.snapshot(store), Store.snapshot(twin))
    assert {Doc.get(merged, ["b", 1]), Doc.get(merged, ["b", 2])} == {"here", "there"}
    stop(twin)
    # It stays who it is.
    twin = open!(copy, name: __MODULE__.Second)
    assert Store.info(twin).actor == actor
    stop(twin)
    stop(store)
    File.rm_rf!(Path.dirname(copy))
  end

  test "a backup goes on as another actor, even in the same inodes", %{dir: dir} do
    store = open!(dir)
    fill(store, 1..3)
    stop(store)
    files = contents(dir)
    store = open!(dir)
    Store.update!(store, {:put, {"b", 1}, "lost here, but seen elsewhere"})
    seen = Store.snapshot(store)
    stop(store)
    later()
    # Over what is there, which keeps the inodes.
    put_back(dir, files)
    store = open!(dir)
    assert "paris~" <> _ = Store.info(store).actor
    Store.update!(store, {:put, {"b", 2}, "new"})
    merged = Doc.merge(Store.snapshot(store), seen)
    assert Doc.get(merged, ["b", 2]) == "new"
    assert "lost here" <> _ = Doc.get(merged, ["b", 1])
    stop(store)
  end

  # ---- who is disconnected ----

  test "who is disconnected stays so over restarts, until it is connected again", %{dir: dir} do
    other = {__MODULE__.Other, node()}
    opts = [peers: [other]]
    store = open!(dir, opts)
    assert [%{peer: ^other}] = Store.info(store).peers
    :ok = Store.disconnect(store, other)
    :ok = Store.disconnect(store, :another@host)

    for stop <- [&stop/1, &kill/1, &stop/1] do
      stop.(store)
      open!(dir, opts)
      assert Store.info(store).peers == []
      assert Store.info(store).disconnected == [other, {store, :another@host}]
    end

    :ok = Store.connect(store, other)
    stop(store)
    open!(dir, opts)
    assert [%{peer: ^other}] = Store.info(store).peers
    assert Store.info(store).disconnected == [{store, :another@host}]
    stop(store)
  end

  test "that this is not known any more is an error, too", %{dir: dir} do
    store = open!(dir)
    :ok = Store.disconnect(store, :other@host)
    stop(store)
    path = Path.join(dir, "DISCONNECTED")
    bytes = File.read!(path)

    for damage <- [
          fn -> flip(path, one_of([below(13), between(15, byte_size(bytes) - 1)])) end,
          fn -> File.write!(path, binary_part(bytes, 0, below(byte_size(bytes)))) end,
          fn -> File.write!(path, binary_part(bytes, 0, between(16, 19))) end
        ] do
      File.write!(path, bytes)
      damage.()
      assert {:error, %Error{reason: {:corrupt, ^path, 0, _}} = error} = open(dir)
      assert Exception.message(error) =~ "delete the file, and disconnect again"
      assert Enum.any?(logged(), &(&1 =~ Exception.message(error)))
    end

    File.rm!(path)
    store = open!(dir)
    assert Store.info(store).disconnected == []
    stop(store)
  end

  # ---- processes that crash ----

  test "the store comes back with all that was committed", %{dir: dir} do
    for {process, i} <- Enum.with_index([&committer/1, &log_writer/1]),
        opts <- [[fsync: :always], [fsync: :never], [dir: nil]] do
      dir = Path.join(dir, "#{i}-#{opts[:fsync]}")
      store = open!(dir, opts)
      actor = Store.info(store).actor

      for n <- 1..3 do
        hash = List.last(fill(store, (10 * n)..(10 * n + 3)))
        crash(store, process)
        assert Store.hash(store) == hash
        assert Store.info(store).actor == actor
      end

      fill(store, 50..50)

      assert Store.get(store, {"sum", 0}) ==
               50 + Enum.sum(for n <- 1..3, i <- 0..3, do: 10 * n + i)

      stop(store)
    end
  end

  test "a log that can neither be written to nor mended ends the log writer, not the store", %{
    dir: dir
  } do
    store = open!(dir)
    [hash] = fill(store, 1..1)
    {:ok, closed} = :file.open(hd(logs(dir)), [:raw, :read])
    :sys.replace_state(log_writer(store), &put_in(&1.log.fd, closed))
    old = {log_writer(store), committer(store)}
    assert catch_exit(Store.update(store, {:put, {"a", 2}, 2}))

    eventually(fn ->
      log_writer(store) not in [nil, elem(old, 0)] and committer(store) not in [nil, elem(old, 1)]
    end)

    assert Store.hash(store) == hash
    fill(store, 2..2)
    stop(store)
  end

  # ---- no room, no right ----

  @ordinary Privileges.ordinary_user()

  test "a file that may not grow: commits fail, and go on when there is room", %{dir: dir} do
    limit = ["sh", "-c", "trap '' XFSZ; ulimit -f 400; exec \"$0\" \"$@\""]
    child = StoreChild.start(["fill", dir], through: limit)
    assert "full " <> full = StoreChild.line(child)

    assert [n, ":" <> _, reason, hash, last] =
             full |> String.replace(~r/\{.*, /, ": ") |> String.split()

    assert reason == ":efbig}"
    assert String.to_integer(last) == String.to_integer(n) - 1
    assert StoreChild.line(child) == "again :error #{hash}"
    assert StoreChild.line(child) == "checkpoint :ok"
    assert ["later", ":ok", later] = child |> StoreChild.line() |> String.split()
    assert later != hash
    assert StoreChild.line(child) == "reopened #{later} #{n}"
    StoreChild.kill(child)
  end

  @mountable Privileges.mountable()
  @tag skip: Privileges.skip(@mountable)
  test "a full disk: commits fail, and go on when there is room", %{dir: dir} do
    :ok = Privileges.mount(dir, 1_000)
    on_exit(fn -> Privileges.unmount(dir) end)
    filler = Path.join(dir, "filler")
    File.write!(filler, :binary.copy("x", 400_000))
    store = open!(dir, fsync: :always)
    processes = {log_writer(store), committer(store)}
    {n, error} = until_full(store, 1)
    assert {:disk, _, _, :enospc} = error.reason
    assert Exception.message(error) =~ "make room"
    hash = Store.hash(store)
    assert Store.get(store, {"n", 0}) == n - 1

    # It goes on, as it was.
    assert {:error, _} = Store.update(store, blob(n))
    assert {:error, %Error{reason: {:disk, _, _, :enospc}}} = Store.checkpoint(store)
    assert {:error, _} = Store.update(store, blob(n))
    assert Store.hash(store) == hash
    assert {log_writer(store), committer(store)} == processes

    # So it starts not, or with all it has.
    kill(store)
    File.write(filler, :binary.copy("x", 100_000), [:append])

    case open(dir) do
      {:ok, store} ->
        assert Store.hash(store) == hash
        kill(store)

      {:error, error} ->
        assert {:disk, _, _, :enospc} = error.reason
    end

    File.rm!(filler)
    store = open!(dir, fsync: :always)
    assert Store.hash(store) == hash
    assert {:ok, _} = Store.update(store, blob(n))
    assert Store.checkpoint(store) == :ok
    hash = Store.hash(store)
    kill(store)
    store = open!(dir)
    assert Store.hash(store) == hash
    assert Store.get(store, {"n", 0}) == n
    stop(store)
    Privileges.unmount(dir)
  end

  defp blob(n), do: [{:put, {"blob", rem(n, 10)}, :rand.bytes(10_000)}, {:put, {"n", 0}, n}]

  defp until_full(store, n) do
    case Store.update(store, blob(n)) do
      {:ok, _} -> until_full(store, n + 1)
      {:error, error} -> {n, error}
    end
  end

  @tag skip: Privileges.skip(@ordinary)
  test "a directory that is read-only, or somebody else's", %{dir: dir} do
    {:ok, through} = Privileges.ordinary_user()
    store = open!(dir)
    fill(store, 1..1)
    stop(store)
    files = contents(dir)
    for path <- [dir | Path.wildcard(dir <> "/*")], do: File.chown(path, Privileges.ordinary_id())

    File.chmod!(dir, 0o500)
    assert refused(dir, through) =~ ~r/^refused \{:disk, "write", ".*IDENTITY", :eacces\}$/
    for path <- Path.wildcard(dir <> "/*"), do: File.chmod!(path, 0o400)
    assert refused(dir, through) =~ ~r/^refused \{:disk, "lock", ".*LOCK", :eacces\}$/
    File.chmod!(dir, 0o700)

    if through != [] do
      for path <- [dir | Path.wildcard(dir <> "/*")], do: File.chown!(path, 0)
      assert refused(dir, through) =~ ~r/^refused \{:disk, ".*", ".*", :eacces\}$/
      assert refused(Path.join(dir, "below"), through) =~ "make the directory"
    end

    for path <- Path.wildcard(dir <> "/*"), do: File.chmod!(path, 0o600)
    assert Keyword.delete(contents(dir) |> atoms(), :LOCK) == Keyword.delete(atoms(files), :LOCK)
    store = open!(dir)
    assert Store.get(store, {"a", 1}) == "value 1"
    stop(store)
  end

  defp atoms(files), do: for({name, bytes} <- files, do: {String.to_atom(name), bytes})

  defp refused(dir, through) do
    child = StoreChild.start(["hold", dir], through: through)
    line = StoreChild.line(child)
    StoreChild.kill(child)
    line
  end

  test "what is in the way of a directory", %{dir: dir} do
    path = Path.join(dir, "file")
    File.write!(path, "")
    assert {:error, %Error{reason: {:disk, "make the directory", ^path, reason}}} = open(path)
    assert reason in [:eexist, :enotdir]
  end
end
