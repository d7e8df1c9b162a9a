defmodule Causeway.NifGarbageTest do
  # Every call of the NIF, with arguments that are right, nearly right and wrong. Nothing may crash, hang or
  # answer with something that is not in the specs; under ASan (scripts/nif_asan) nothing may touch memory that
  # is not its own either.
  use ExUnit.Case, async: true
  import Bitwise
  import Causeway.Property
  import Causeway.RandomTerms, only: [term: 1]
  alias Causeway.Doc

  @moduletag :asan
  @moduletag timeout: 300_000

  @kinds [
           :map,
           :map_grow,
           :set,
           :set_grow,
           :set_remove_wins,
           :counter,
           :counter_bounded,
           :register
         ] ++
           [:register_multi, :flag, :flag_disable_wins]

  # All but the one that makes files, wherever its argument says, and those on PostgreSQL's types, which have
  # their own test.
  @calls for {name, arity} <- :causeway_nif.module_info(:exports),
             name not in [:module_info, :file_lock] and not match?("pg_" <> _, to_string(name)),
             do: {name, arity}

  property "any call with any arguments", runs: 100 do
    pool = Enum.reduce(1..500, open(), fn _, pool -> step(pool) end)
    for ref <- pool.docs, do: check_doc(ref)
    for bytes <- pool.fragments, {:ok, doc} <- [Doc.decode(bytes, "x")], do: check_doc(doc.ref)
  end

  test "every call is made" do
    assert length(@calls) == 30
    for {name, arity} <- @calls, do: assert(length(args(name, arity, open())) == arity)
  end

  defp open do
    docs =
      for i <- 1..4 do
        ops =
          for _ <- 1..between(1, 40),
              op = good_op(),
              match?({:ok, _}, Doc.try_update(Doc.new("a"), op)),
              do: op

        Enum.reduce(ops, Doc.new("r#{i}"), fn op, doc ->
          doc |> Doc.try_update(op) |> or_else(doc)
        end).ref
      end

    clocks = for ref <- docs, do: :causeway_nif.doc_clock(ref)
    %{docs: docs, fragments: Enum.map(docs, &:causeway_nif.doc_encode/1), clocks: clocks}
  end

  defp or_else({:ok, doc}, _), do: doc
  defp or_else({:error, _}, doc), do: doc

  defp step(pool) do
    {name, arity} = one_of(@calls)
    args = for arg <- args(name, arity, pool), do: if(chance(10), do: garbage(pool), else: arg)

    case call(name, args) do
      :badarg ->
        pool

      result ->
        unless result?(name, result), do: flunk("#{name}: #{inspect(result, limit: 10)}")
        keep(pool, name, result)
    end
  end

  defp call(name, args) do
    apply(:causeway_nif, name, args)
  rescue
    ArgumentError -> :badarg
  end

  # ---- arguments ----

  defp args(:doc_update, 3, pool), do: [doc(pool), doc(pool), ops()]
  defp args(:doc_hash, 2, pool), do: [doc(pool), path()]
  defp args(name, _arity, pool), do: args(name, pool)

  defp args(:doc_new, _), do: [name()]
  defp args(:doc_fork, pool), do: [doc(pool), name()]
  defp args(:doc_update, pool), do: [doc(pool), ops()]
  defp args(:doc_merge, pool), do: [doc(pool), doc(pool)]

  defp args(:doc_get, pool),
    do: [doc(pool), path(), one_of([nil, nil, one_of(@kinds)]), chance(50)]

  defp args(:doc_member, pool),
    do: [doc(pool), path(), element(), one_of([nil, nil, one_of(@kinds)])]

  defp args(:doc_rights, pool), do: [doc(pool), path()]
  defp args(:doc_diff, pool), do: [doc(pool), doc(pool), chance(50)]
  defp args(name, pool) when name in [:doc_delta, :doc_remembers], do: [doc(pool), clock(pool)]

  defp args(:doc_news, pool),
    do: [doc(pool), clock(pool), Enum.sort(list_of(below(5), fn -> key(pool) end)), chance(50)]

  defp args(:doc_symbols, pool),
    do: [doc(pool), fragment(pool), fragment(pool), number(), one_of([0, 1, 40, number()])]

  defp args(:symbols_peel, pool),
    do: [symbols(pool), if(chance(80), do: symbols(pool), else: garbage(pool))]

  defp args(:doc_find, pool), do: [doc(pool), hashes(pool)]
  defp args(:doc_delta_between, pool), do: [doc(pool), doc(pool)]
  defp args(:doc_apply, pool), do: [doc(pool), fragment(pool)]
  defp args(:fragment_join, pool), do: [fragment(pool), fragment(pool)]

  defp args(name, pool) when name in [:clock_merge, :clock_compare],
    do: [clock(pool), clock(pool)]

  defp args(:clock_get, pool), do: [clock(pool), name()]
  defp args(:clock_to_list, pool), do: [clock(pool), chance(50)]
  defp args(:clock_from_list, _), do: [list_of(below(20), fn -> {name(), number()} end)]
  defp args(:hlc_tick, _), do: [number(), number()]
  defp args(_about_the_document, pool), do: [doc(pool)]

  defp doc(pool), do: one_of(pool.docs)

  # Of a cell that is there, or nearly.
  defp key(pool) do
    case :causeway_nif.doc_find(doc(pool), hashes(pool)) do
      [_ | _] = keys -> keys |> one_of() |> then(&if(chance(80), do: &1, else: mutate(&1, pool)))
      [] -> ""
    end
  end

  defp symbols(pool, n \\ 50) do
    ref = doc(pool)
    none = :causeway_nif.doc_news(ref, :causeway_nif.doc_clock(ref), [], false)
    symbols = :causeway_nif.doc_symbols(ref, none, none, 0, n)
    if chance(70), do: symbols, else: mutate(symbols, pool)
  end

  # All that is in a document, when it is small.
  defp hashes(pool) do
    case :causeway_nif.symbols_peel(symbols(pool, 300), :binary.copy(<<0>>, 300 * 16)) do
      hashes when is_binary(hashes) -> hashes
      _ -> ""
    end
  end

  defp fragment(pool),
    do: if(chance(50), do: one_of(pool.fragments), else: mutate(one_of(pool.fragments), pool))

  defp clock(pool),
    do: if(chance(50), do: one_of(pool.clocks), else: mutate(one_of(pool.clocks), pool))

  defp name, do: one_of(["a", "b", "r1", :a, "", "\0", "日本", :日本, term(0)])

  defp number,
    do: one_of([0, 1, 5, -1, 255, 256, (1 <<< 62) - 1, 1 <<< 62, 1 <<< 63, 1 <<< 64, below(1000)])

  defp path do
    one_of([
      list_of(between(1, 3), fn -> one_of([:x, "y", 1]) end),
      list_of(below(3), fn -> one_of([:x, "y", 1]) end),
      list_of(below(70), fn -> term(1) end)
    ])
  end

  defp element, do: one_of([1, "e", {:e, 1}, nil, term(2)])

  defp ops do
    case below(4) do
      0 ->
        good_op()

      1 ->
        list_of(below(10), &good_op/0)

      2 ->
        list_of(below(6), &op/0)

      3 ->
        one_of([
          list_of(between(300, 400), &good_op/0),
          [good_op() | good_op()],
          {:in, path(), :map, list_of(3, &op/0)}
        ])
    end
  end

  # What fits most of the time: the kind is in the field's name.
  defp good_op do
    kind = one_of(@kinds -- [:map, :map_grow])
    path = Enum.take_random([:x, "y", 1], below(3)) ++ [kind]

    op =
      case kind do
        kind when kind in [:register, :register_multi] ->
          {:put, path, term(2), kind}

        :counter_bounded ->
          one_of([
            {:increment, path, below(9), kind},
            {:decrement, path, below(3)},
            {:transfer, path, below(3), "r#{below(4)}"}
          ])

        :counter ->
          one_of([{:increment, path, between(-5, 5)}, {:decrement, path}, {:reset, path}])

        :set_grow ->
          {:add, path, below(50), kind}

        kind when kind in [:set, :set_remove_wins] ->
          {one_of([:add, :remove]), path, below(50), kind}

        kind ->
          {one_of([:enable, :disable]), path, kind}
      end

    case below(12) do
      0 -> {:delete, Enum.take(path, between(1, length(path)))}
      1 -> {:in, [:grown], :map_grow, [op]}
      _ -> op
    end
  end

  defp op do
    verb =
      one_of([
        :put,
        :increment,
        :decrement,
        :transfer,
        :add,
        :remove,
        :enable,
        :disable,
        :reset,
        :delete,
        :in,
        :no
      ])

    args =
      list_of(below(4), fn ->
        one_of([element(), number(), one_of(@kinds), list_of(below(3), &good_op/0)])
      end)

    List.to_tuple([verb | one_of([[path() | args], args])])
  end

  defp garbage(pool) do
    case below(16) do
      0 -> self()
      1 -> make_ref()
      2 -> fn -> pool end
      3 -> <<1::5>>
      4 -> [1 | 2]
      5 -> :rand.bytes(below(100))
      6 -> [[:deep, [%{self() => 1}]]]
      7 -> Enum.reduce(1..between(1, 200), 1, fn _, t -> one_of([[t], {t}, %{t => t}]) end)
      8 -> {}
      9 -> %{}
      10 -> number()
      11 -> doc(pool)
      12 -> fragment(pool)
      13 -> :binary.copy("x", one_of([8191, 8192, 8193, 40_000]))
      14 -> ops()
      15 -> term(4)
    end
  end

  # ---- bytes that are nearly right ----

  defp mutate(bytes, pool) do
    Enum.reduce(1..between(1, 3), bytes, fn _, bytes -> mutate_once(bytes, pool) end)
  end

  defp mutate_once("", _pool), do: :rand.bytes(3)

  defp mutate_once(bytes, pool) do
    at = below(byte_size(bytes))
    {head, <<byte, tail::binary>>} = :erlang.split_binary(bytes, at)

    case below(9) do
      0 ->
        head

      1 ->
        head <> tail

      2 ->
        <<head::binary, bxor(byte, 1 <<< below(8)), tail::binary>>

      3 ->
        <<head::binary, below(256), tail::binary>>

      4 ->
        <<head::binary, :rand.bytes(below(4))::binary, byte, tail::binary>>

      5 ->
        <<head::binary, one_of([0, 1, 127, 128, 255]), tail::binary>>

      # A number that is too large, or not in its shortest form.
      6 ->
        <<head::binary,
          one_of([<<255, 255, 255, 255, 15>>, <<128, 128, 0>>, <<255::64, 255, 1>>])::binary,
          tail::binary>>

      7 ->
        head <>
          binary_part(tail, div(byte_size(tail), 2), byte_size(tail) - div(byte_size(tail), 2))

      8 ->
        head <> splice(one_of(pool.fragments ++ pool.clocks))
    end
  end

  defp splice(bytes) do
    at = below(byte_size(bytes) + 1)
    binary_part(bytes, at, byte_size(bytes) - at)
  end

  # ---- results ----

  defp result?(_, {:error, code}) when is_atom(code), do: true
  defp result?(_, {:error, {code, _}}) when is_atom(code), do: true

  defp result?(name, ref) when name in [:doc_new, :doc_fork, :doc_update, :doc_merge, :doc_apply],
    do: is_reference(ref)

  defp result?(:doc_get, result),
    do: result == :absent or match?({kind, _} when kind in @kinds, result)

  defp result?(:doc_member, result), do: result in [true, false, :absent]

  defp result?(:doc_rights, result),
    do: result == :absent or match?({a, b} when a >= 0 and b >= 0, result)

  defp result?(:doc_diff, result),
    do: Enum.all?(result, &match?({[_ | _], kind, _, _} when kind in @kinds, &1))

  defp result?(:doc_hash, result), do: byte_size(result) == 16

  defp result?(:doc_about, result), do: match?({_, cells} when cells >= 0, result)

  defp result?(:doc_info, result),
    do: match?({_, cells, bytes} when cells >= 0 and bytes > 0, result)

  defp result?(:clock_compare, result), do: result in [:equal, :before, :after, :concurrent]
  defp result?(:clock_to_list, result), do: Enum.all?(result, &match?({_, n} when n > 0, &1))
  defp result?(:clock_get, result), do: result >= 0
  defp result?(:hlc_tick, result), do: is_integer(result)
  defp result?(:doc_remembers, result), do: is_boolean(result)

  defp result?(:doc_find, result), do: Enum.all?(result, &is_binary/1)
  defp result?(:symbols_peel, result), do: is_binary(result) or result >= 0
  defp result?(_, result), do: is_binary(result)

  defp keep(pool, _name, {:error, _}), do: pool

  defp keep(pool, name, ref)
       when name in [:doc_new, :doc_fork, :doc_update, :doc_merge, :doc_apply],
       do: Map.update!(pool, :docs, &Enum.take([ref | &1], 12))

  defp keep(pool, name, bytes)
       when name in [:doc_encode, :doc_delta, :doc_delta_between, :doc_news, :fragment_join],
       do: Map.update!(pool, :fragments, &Enum.take([bytes | &1], 12))

  defp keep(pool, name, bytes) when name in [:doc_clock, :clock_merge, :clock_from_list],
    do: Map.update!(pool, :clocks, &Enum.take([bytes | &1], 12))

  defp keep(pool, _name, _result), do: pool

  # Whatever it has been through.
  defp check_doc(ref) do
    doc = %Doc{ref: ref}
    bytes = Doc.encode(doc)
    again = Doc.decode!(bytes, "again")
    assert Doc.encode(again) == bytes
    assert Doc.hash(again) == Doc.hash(doc)
    assert Doc.value(again, atoms: :create) == Doc.value(doc, atoms: :create)
    assert Doc.encode(Doc.merge(doc, again)) == bytes
    assert Doc.diff(doc, again) == []
    assert is_binary(inspect(doc))
  end
end
