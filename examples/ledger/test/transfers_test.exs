defmodule Ledger.TransfersTest do
  use Ledger.Case, async: true

  test "takes from one what it gives to another" do
    accounts(%{"ADA" => 100, "BOB" => 0})
    assert {:ok, transfer} = move("ADA", "BOB", "12.34", memo: "Lunch", tags: ["Food", "food"])
    assert {balance("ADA"), balance("BOB")} == {"87.66", "12.34"}

    assert %{memo: "Lunch", tags: [%{name: "food"}], entries: entries} =
             Transfers.get!(transfer.id)

    assert Map.new(entries, &{&1.account.number, Decimal.to_string(&1.amount)}) ==
             %{"ADA" => "-12.3400", "BOB" => "12.3400"}
  end

  test "nothing happens when there is not enough" do
    accounts(%{"ADA" => 100, "BOB" => 0})
    assert {:error, changeset} = move("ADA", "BOB", "100.01", tags: ["dear"])
    assert errors(changeset) == %{balance: ["is not enough"]}
    assert {balance("ADA"), balance("BOB")} == {"100", "0"}
    assert Tags.usage() == []
  end

  test "what is asked for has to make sense" do
    accounts(%{"ADA" => 100, "BOB" => 0})
    {:ok, _} = Accounts.open(%{number: "TOK", name: "Tokyo", currency: :JPY}, "me")

    # As a form would have it.
    form = %{"from" => "ADA", "to" => "ADA", "amount" => "1"}
    assert {:error, changeset} = Transfers.make(form, "me")
    assert errors(changeset) == %{to: ["is where it comes from"]}

    assert {:error, changeset} = move("ADA", "ADA", -1)

    assert %{amount: ["must be greater than" <> _], to: ["is where it comes from"]} =
             errors(changeset)

    assert {:error, changeset} = move("ADA", "BOB", "much")
    assert errors(changeset) == %{amount: ["is invalid"]}
    assert move("ADA", "EVE", 1) == {:error, {:no_account, "EVE"}}
    assert move("ADA", "TOK", 1) == {:error, {:currencies, [:EUR, :JPY]}}
  end

  test "a reference is used once" do
    accounts(%{"ADA" => 100, "BOB" => 0})
    assert {:ok, _} = move("ADA", "BOB", 1, reference: "r1")
    assert {:error, changeset} = move("ADA", "BOB", 1, reference: "r1")
    assert errors(changeset) == %{reference: ["has already been taken"]}
    assert balance("BOB") == "1"
  end

  test "is reversed once" do
    accounts(%{"ADA" => 100, "BOB" => 0})
    {:ok, transfer} = move("ADA", "BOB", 40, memo: "Shoes", tags: ["clothes"])
    assert {:ok, %{memo: "Reversal: Shoes"} = reversal} = Transfers.reverse(transfer, "me")
    assert {balance("ADA"), balance("BOB")} == {"100", "0"}
    assert {:error, changeset} = Transfers.reverse(transfer, "me")
    assert errors(changeset) == %{reverses_id: ["is reversed already"]}
    assert [%{action: :reversed, actor: "me"}] = Audit.events(reversal.id)
  end

  test "an import is made whole or not at all" do
    accounts(%{"ADA" => 100, "BOB" => 0})
    good = for n <- 1..20, do: %{from: "ADA", to: "BOB", amount: n / 10, reference: "r#{n}"}
    bad = %{from: "BOB", to: "ADA", amount: 22, reference: "bad"}

    assert {:error, {20, changeset}} = Transfers.import(good ++ [bad], "me")
    assert errors(changeset) == %{balance: ["is not enough"]}
    assert balance("BOB") == "0"

    assert Transfers.import(good, "me") == {:ok, %{made: 20, known: 0}}
    assert Transfers.import(good, "me") == {:ok, %{made: 0, known: 20}}
    assert balance("BOB") == "21"
  end

  test "what does not sum up to zero is refused by the database" do
    accounts(%{"ADA" => 100})
    transfer = Repo.insert!(%Transfer{made_at: DateTime.utc_now()})
    Repo.insert!(%Entry{account_id: Accounts.get!("ADA").id, transfer_id: transfer.id, amount: 1})

    error = assert_raise Postgrex.Error, fn -> Repo.query!("SET CONSTRAINTS ALL IMMEDIATE") end
    assert %{code: :check_violation, constraint: "transfer_is_balanced"} = error.postgres
  end

  test "sums up days" do
    accounts(%{"ADA" => 100, "BOB" => 0})
    {:ok, old} = move("ADA", "BOB", 5)

    Repo.update_all(from(t in Transfer, where: t.id == ^old.id),
      set: [made_at: ~U[2026-01-02 23:59:59.999999Z]]
    )

    for _ <- 1..2, do: {:ok, _} = move("ADA", "BOB", 1)

    assert [%{day: ~D[2026-01-02], transfers: 1}, %{transfers: 2, amount: amount, day: %Date{}}] =
             "BOB" |> Accounts.get!() |> Transfers.days()

    assert Decimal.equal?(amount, 2)
  end

  test "many at once, from processes of their own, lose nothing" do
    accounts(%{"ADA" => 100, "BOB" => 100})
    me = self()

    1..40
    |> Task.async_stream(
      fn n ->
        Ecto.Adapters.SQL.Sandbox.allow(Repo, me, self())
        [from, to] = if rem(n, 2) == 0, do: ["ADA", "BOB"], else: ["BOB", "ADA"]
        {:ok, _} = move(from, to, n)
      end,
      max_concurrency: 4
    )
    |> Stream.run()

    assert {balance("ADA"), balance("BOB")} == {"80", "120"}
  end
end
