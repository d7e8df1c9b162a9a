defmodule Ledger.TagsTest do
  use Ledger.Case, async: true

  setup do
    accounts(%{"ADA" => 100, "BOB" => 0})

    for {memo, tags} <- [a: ["home"], b: ["home", "rent"], c: ["Rent"], d: []] do
      {:ok, _} = move("ADA", "BOB", 1, memo: "#{memo}", tags: tags)
    end

    :ok
  end

  defp memos(tags), do: tags |> Tags.transfers() |> Enum.map(& &1.memo)

  test "finds transfers that have all of them" do
    assert memos(["HOME"]) == ["b", "a"]
    assert memos(["home", "rent"]) == ["b"]
    assert memos(["nothing"]) == []
    assert [%{tags: [%{name: "home"}, %{name: "rent"}]}, _] = Tags.transfers(["home"])
  end

  test "counts, and keeps one of a name" do
    Tags.ensure(["home", "HOME", "new"])
    assert Tags.usage() == [{"home", 2}, {"rent", 2}, {"new", 0}]
  end

  test "two become one" do
    assert {:ok, _} = Tags.rename("rent", "home")
    assert Tags.usage() == [{"home", 3}]
    assert memos(["home"]) == ["c", "b", "a"]
  end
end
