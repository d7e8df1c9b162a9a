# mix setup runs this: a few accounts, some money, a month of transfers.
alias Ledger.{Accounts, Transfers}

{:ok, _} =
  Accounts.open(
    %{number: "WORLD", name: "What is outside", currency: :EUR, may_be_negative: true},
    "seeds"
  )

for {number, name} <- [{"ADA", "Ada"}, {"BOB", "Bob"}, {"RENT", "The landlord"}] do
  {:ok, _} = Accounts.open(%{number: number, name: name, currency: :EUR}, "seeds")
end

salaries =
  for number <- ["ADA", "BOB"],
      do: %{from: "WORLD", to: number, amount: "2500.00", memo: "Salary", tags: ["salary"]}

rents =
  for number <- ["ADA", "BOB"],
      do: %{from: number, to: "RENT", amount: "740.50", memo: "Rent", tags: ["rent", "home"]}

{:ok, %{made: made}} = Transfers.import(salaries ++ rents, "seeds")
IO.puts("#{made} transfers made; iex -S mix, then Ledger.Accounts.totals()")
