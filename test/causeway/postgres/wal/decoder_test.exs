defmodule Causeway.Postgres.WAL.DecoderTest do
  # Frames to terms, without a server: good ones, and what nobody sends.
  use ExUnit.Case, async: true
  import Causeway.{Property, WalFrames}
  alias Causeway.Postgres.Types
  alias Causeway.Postgres.WAL.{Change, Decoder, Message, Relation, Truncate}

  @moduletag :asan

  @people relation(5, "people", [{"id", 23, :key}, "name", "email"])

  defp text, do: Decoder.new(nil, :copy)

  # Types that need no server.
  defp terms do
    # Otherwise it would look for a JSON library each time.
    types = Types.new(json: nil)

    fetch = fn _ -> {:error, :none} end

    Decoder.new(
      fn columns, _, lenient -> Types.relation(types, columns, fetch, lenient) end,
      :copy
    )
  end

  defp decode!(decoder, blocks) do
    {:ok, blocks, decoder} = Decoder.decode(decoder, frame(blocks))
    {blocks, decoder}
  end

  defp blocks!(decoder, blocks), do: decoder |> decode!(blocks) |> elem(0)
  defp rows(blocks), do: for(%{changes: changes} <- blocks, change <- changes, do: change.new)

  test "each kind of change" do
    messages = [
      @people,
      type(99, "mood"),
      insert(5, ["1", "Ada", nil]),
      update(5, ["1", "Ada", :unchanged_toast]),
      update(5, {"K", ["1", nil, nil]}, ["2", "Ada", ""]),
      update(5, {"O", ["2", "Ada", ""]}, ["2", "Bob", ""]),
      delete(5, {"K", ["2", nil, nil]}),
      truncate([5], 3),
      message("app", <<0, 255>>)
    ]

    [first, more, rest] =
      blocks!(text(), [block(messages, origin: "paris", origin_lsn: 3, time: 1)])

    changes = first.changes ++ more.changes ++ rest.changes

    # What comes between two descriptions is a part of its own, which the consumer puts together.
    assert for(b <- [first, more, rest], do: {b.first, b.last}) ==
             [{true, false}, {false, false}, {false, true}]

    assert %{xid: 7, commit_lsn: 100, end_lsn: 150, origin: {"paris", 3}, message: false} = rest
    assert rest.commit_time == ~U[2000-01-01 00:00:00.000001Z]

    assert [
             %Change{op: :insert, new: %{"id" => "1", "name" => "Ada", "email" => nil}} = insert,
             %Change{op: :update, new: %{"email" => :unchanged_toast}, old: nil, key: nil},
             %Change{op: :update, new: %{"id" => "2"}, key: %{"id" => "1"} = key, old: nil},
             %Change{op: :update, new: %{"name" => "Bob"}, old: %{"name" => "Ada"}, key: nil},
             %Change{op: :delete, new: nil, key: %{"id" => "2"}, old: nil},
             %Truncate{
               cascade: true,
               restart_identity: true,
               relations: [%Relation{table: "people"}]
             },
             %Message{transactional: true, prefix: "app", content: <<0, 255>>, lsn: 9}
           ] = changes

    assert map_size(key) == 1
    assert %Relation{oid: 5, schema: "public", keys: ["id"]} = insert.relation
  end

  test "values in binary form, by their types" do
    columns = [{"i", 23}, {"f", 701}, {"at", 1184}, {"t", 25}, {"a", 1007}]

    row = [
      {:binary, <<42::32>>},
      {:binary, <<1.5::float>>},
      {:binary, <<1::64>>},
      {:binary, "é"},
      "{1,2}"
    ]

    [_, block] = blocks!(terms(), [block([relation(6, "t", columns), insert(6, row)])])

    # What the server sends as text stays that.
    assert rows([block]) == [
             %{
               "i" => 42,
               "f" => 1.5,
               "at" => ~U[2000-01-01 00:00:00.000001Z],
               "t" => "é",
               "a" => "{1,2}"
             }
           ]
  end

  test "a description counts until there is another one" do
    {_, decoder} = decode!(text(), [block([@people, insert(5, ["1", "a", "b"])])])
    assert [%{"id" => "2"}] = rows(blocks!(decoder, [block([insert(5, ["2", nil, nil])])]))
    other = relation(5, "persons", ["id"], arrival: 2)

    {blocks, decoder} =
      decode!(decoder, [block([insert(5, ["3", nil, nil]), other, insert(5, ["4"])])])

    assert [%{"id" => "3", "name" => nil}, new] = rows(blocks)
    assert new == %{"id" => "4"}

    assert {:error, {:wrong_columns, 5}} =
             Decoder.decode(decoder, frame([block([insert(5, ["1", "2"])])]))

    assert {:error, {:unknown_relation, 8}} =
             Decoder.decode(decoder, frame([block([insert(8, ["1"])])]))
  end

  # A streamed transaction began before the table was altered, and commits after changes that came later.
  test "a streamed transaction has its own descriptions" do
    old = relation(5, "t", ["a"], arrival: 1)
    new = relation(5, "t", ["a", "b"], arrival: 2)
    {_, decoder} = decode!(text(), [block([new, insert(5, ["1", "2"])])])
    streamed = block([old, insert(5, ["1"])], flags: 7)

    # In one frame, with transactions before and after it, and another streamed one.
    {blocks, decoder} =
      decode!(decoder, [
        block([insert(5, ["3", "4"])]),
        streamed,
        block([insert(5, ["5", "6"])]),
        streamed,
        block([insert(5, ["7", "8"])])
      ])

    assert rows(blocks) == [
             %{"a" => "3", "b" => "4"},
             %{"a" => "1"},
             %{"a" => "5", "b" => "6"},
             %{"a" => "1"},
             %{"a" => "7", "b" => "8"}
           ]

    # In parts over several frames.
    {_, decoder} = decode!(decoder, [block([old, insert(5, ["1"])], flags: 5)])
    {blocks, decoder} = decode!(decoder, [block([insert(5, ["2"])], flags: 4)])
    assert rows(blocks) == [%{"a" => "2"}]
    {_, decoder} = decode!(decoder, [block([], flags: 6)])
    assert [%{"b" => "2"}] = rows(blocks!(decoder, [block([insert(5, ["1", "2"])])]))

    # One that is newer than what was known counts on.
    newest = relation(5, "t", ["c"], arrival: 3)
    {_, decoder} = decode!(decoder, [block([newest, insert(5, ["1"])], flags: 7)])
    assert rows(blocks!(decoder, [block([insert(5, ["2"])])])) == [%{"c" => "2"}]
  end

  test "large frames are decoded in slices, to the same" do
    {_, decoder} = decode!(text(), [block([@people])])
    rows = for i <- 1..20_000, do: ["#{i}", "name #{i}", nil]
    blocks = blocks!(decoder, [block(Enum.map(rows, &insert(5, &1)))])
    assert length(blocks) > 1
    assert hd(blocks).first and not hd(blocks).last and List.last(blocks).last
    assert for(%{"id" => id, "name" => name} <- rows(blocks), do: [id, name, nil]) == rows
    assert blocks |> Enum.map(& &1.bytes) |> Enum.sum() > 400_000

    # A row that is too much for one slice is for a dirty scheduler.
    wide = relation(9, "wide", for(i <- 1..1600, do: "c#{i}"))
    {_, decoder} = decode!(decoder, [block([wide])])
    row = for i <- 1..1600, do: String.duplicate("#{rem(i, 10)}", 3000)

    assert [row] ==
             for(
               %{} = new <- rows(blocks!(decoder, [block([insert(9, row)])])),
               do: for(i <- 1..1600, do: new["c#{i}"])
             )
  end

  test "texts are copies, or parts of the frame" do
    long = String.duplicate("x", 100)
    frame = frame([block([@people, insert(5, ["1", long, nil])])])

    for {mode, whole?} <- [copy: false, reference: true] do
      {:ok, [_, %{changes: [change]}], _} = Decoder.decode(Decoder.new(nil, mode), frame)
      assert :binary.referenced_byte_size(change.new["name"]) >= byte_size(frame) == whole?
    end
  end

  # ---- what nobody sends ----

  defp sample do
    changes = [
      insert(5, ["1", nil, "x"]),
      update(5, {"K", ["1", nil, nil]}, ["2", :unchanged_toast, ""]),
      delete(5, {"O", ["2", "a", "b"]}),
      truncate([5]),
      message("a", "b")
    ]

    [
      block([@people, type(7, "t")] ++ changes, origin: "x"),
      block([relation(5, "p", ["id", "n", "e"], arrival: 2)] ++ changes, flags: 7),
      block(changes, flags: 1),
      block(changes, flags: 2),
      block([message("a", "b", flags: 0)], flags: 11)
    ]
  end

  test "a frame that ends anywhere" do
    frame = frame(sample())

    for n <- 1..(byte_size(frame) - 1) do
      case Decoder.decode(text(), binary_part(frame, 0, n)) do
        {:ok, blocks, _} -> assert length(blocks) < 12
        {:error, reason} -> assert reason == :emalformed
      end
    end
  end

  property "frames with other bytes in them", runs: 300 do
    frame = frame(sample())

    frame =
      Enum.reduce(1..between(1, 4), frame, fn _, frame ->
        at = between(1, byte_size(frame) - 1)
        {before, <<_, rest::binary>>} = :erlang.split_binary(frame, at)
        <<before::binary, byte()::8, rest::binary>>
      end)

    for decoder <- [text(), terms()] do
      case Decoder.decode(decoder, frame) do
        {:ok, blocks, _} -> assert is_list(blocks)
        {:error, reason} -> assert is_atom(reason) or is_tuple(reason)
      end
    end
  end

  defp byte, do: one_of([0, 1, 255, ?n, ?t, ?u, ?b, ?N, ?I, ?R, between(0, 255)])

  test "arguments that are none" do
    codec = :causeway_nif.pg_codec_compile([], [], [:copy])
    frame = frame([block([insert(5, ["1"])])])
    good = {codec, %Relation{}, {"a"}, <<0::16, 0>>}
    decode = &:causeway_nif.pg_wal_decode/6
    assert {:done, [_]} = decode.(codec, %{5 => good}, %{}, frame, 1, 0)

    for args <- [
          [:no, %{}, %{}, frame, 1, 0],
          [codec, [], %{}, frame, 1, 0],
          [codec, %{}, nil, frame, 1, 0],
          [codec, %{}, %{}, :frame, 1, 0],
          [codec, %{}, %{}, "", 1, 0],
          [codec, %{}, %{}, "X" <> frame, 1, 0],
          [codec, %{}, %{}, frame, 0, 0],
          [codec, %{}, %{}, frame, byte_size(frame) + 1, 0],
          [codec, %{}, %{}, frame, -1, 0],
          [codec, %{}, %{}, frame, 1, :no]
        ],
        do: assert_raise(ArgumentError, fn -> apply(decode, args) end)

    for entry <- [
          nil,
          {},
          {codec, 1, 2, 3},
          {nil, 1, {"a"}, <<0::16, 0>>},
          {codec, 1, {"a"}, <<0::16>>},
          {codec, 1, {"a"}, <<7::16, 0>>},
          {codec, 1, {"a", "a"}, <<0::16, 0, 1::16, 0>>}
        ],
        do: assert({:error, _} = decode.(codec, %{5 => entry}, %{}, frame, 1, 0))

    # Places that are not where something begins.
    for block <- 1..byte_size(frame), message <- 0..(byte_size(frame) + 1) do
      assert elem(decode.(codec, %{5 => good}, %{}, frame, block, message), 0) in [
               :done,
               :error,
               :more
             ]
    end
  end
end
