defmodule Ledger.AccountsTest do
  use Ledger.Case, async: true

  @ada %{number: "ADA", name: "Ada", currency: :EUR}

  test "opens an account" do
    assert {:ok, %Account{id: id}} =
             Accounts.open(Map.put(@ada, :details, %{"vip" => true}), "me")

    assert %Account{id: ^id, name: "Ada", currency: :EUR, details: %{"vip" => true}} =
             Accounts.get!("ADA")

    assert balance("ADA") == "0"
  end

  test "a number is there once, and not just anything" do
    {:ok, _} = Accounts.open(@ada, "me")
    assert {:error, changeset} = Accounts.open(@ada, "me")
    assert errors(changeset) == %{number: ["has already been taken"]}

    assert {:error, changeset} = Accounts.open(%{number: "a b", currency: "GBP"}, "me")

    assert errors(changeset) == %{
             number: ["has invalid format"],
             currency: ["is invalid"],
             name: ["can't be blank"]
           }
  end

  test "of many, those that can be are opened" do
    {:ok, _} = Accounts.open(@ada, "me")
    many = for n <- ["BOB", "ADA", "CYD"], do: %{@ada | number: n}
    assert {[%{number: "BOB"}, %{number: "CYD"}], [refused]} = Accounts.open_many(many)
    assert errors(refused) == %{number: ["has already been taken"]}
    assert Enum.map(Accounts.list(), & &1.number) == ["ADA", "BOB", "CYD"]
  end

  test "who renames what another has renamed is told" do
    {:ok, read} = Accounts.open(@ada, "me")
    assert {:ok, %{name: "Countess", lock_version: 2}} = Accounts.rename(read, "Countess", "me")
    assert Accounts.rename(read, "Lovelace", "you") == {:error, :stale}
    assert Accounts.get!("ADA").name == "Countess"
    assert [%{action: :opened}, %{action: :renamed, data: data}] = Audit.events("ADA")
    assert data == %{"from" => "Ada", "to" => "Countess"}
  end

  test "what has money is not closed, what is closed gets none" do
    accounts(%{"ADA" => 10, "BOB" => 0})
    assert {:error, changeset} = Accounts.close(Accounts.get!("ADA"), "me")
    assert errors(changeset) == %{balance: ["must be zero"]}
    assert {:ok, %{closed_at: %DateTime{}}} = Accounts.close(Accounts.get!("BOB"), "me")
    assert {:error, changeset} = move("ADA", "BOB", 1)
    assert errors(changeset) == %{closed_at: ["is set: account closed"]}
    assert balance("ADA") == "10"
  end

  test "lists by what details contain" do
    for {number, details} <- [
          {"A", %{vip: true}},
          {"B", %{vip: false}},
          {"C", %{vip: true, x: [1]}}
        ] do
      {:ok, _} =
        Accounts.open(%{number: number, name: "x", currency: :USD, details: details}, "me")
    end

    assert Enum.map(Accounts.list(%{vip: true}), & &1.number) == ["A", "C"]
    assert Enum.map(Accounts.list(%{x: [1]}), & &1.number) == ["C"]
    assert length(Accounts.list()) == 3
  end

  test "totals by currency" do
    accounts(%{"ADA" => 10, "BOB" => "2.5"})
    {:ok, _} = Accounts.open(%{number: "YEN", name: "Yen", currency: :JPY}, "me")
    assert %{EUR: %{has: has, owes: owes}, JPY: %{has: zero}} = Accounts.totals()

    assert Decimal.equal?(has, "12.5") and Decimal.equal?(owes, "-12.5") and
             Decimal.equal?(zero, 0)
  end

  test "a statement, line by line, with what was left each time" do
    accounts(%{"ADA" => 2000, "BOB" => 0})
    for n <- 1..600, do: {:ok, _} = move("ADA", "BOB", 1, memo: "No. #{n}")

    lines = "ADA" |> Accounts.get!() |> Accounts.statement([], &[&1 | &2]) |> Enum.reverse()
    assert length(lines) == 601
    assert %{memo: "No. 600", at: %DateTime{}} = last = List.last(lines)
    assert Decimal.equal?(last.amount, -1) and Decimal.equal?(last.balance, 1400)
  end
end
