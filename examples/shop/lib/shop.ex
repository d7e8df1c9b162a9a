defmodule Shop do
  @moduledoc """
  A shop that sells in several places at once and never sells what it has not.

  Everything is kept in a `Causeway.Store`: products as maps, stock as bounded counters, orders and customers. An
  order is one transaction: elsewhere it is seen with what it took from the stock, or not at all.
  """

  alias Causeway.Store

  @store Shop.Store

  @doc "Puts a product on sale. `fields` are any."
  def offer(id, fields, store \\ @store) do
    Store.update(store, for({field, value} <- fields, do: {:put, ["products", id, field], value}))
  end

  def product(id, store \\ @store), do: Store.get(store, {"products", id})

  @doc "More of a product, here. Other places get their share when they need it."
  def restock(id, n, store \\ @store),
    do: Store.update(store, {:increment, {"stock", id}, n, :counter_bounded})

  @doc "How many are left, everywhere."
  def in_stock(id, store \\ @store), do: Store.get(store, {"stock", id}, 0)

  @doc """
  Orders `%{product => n}`: `{:ok, clock}`, or `{:error, :sold_out}` and nothing is taken.

  When there are enough, but in other places, they are asked for some; that takes a moment, and fails when they
  cannot be reached.
  """
  def order(id, customer, items, store \\ @store) do
    take = for {product, n} <- items, do: {:decrement, {"stock", product}, n, :counter_bounded}

    write = [
      {:put, ["orders", id, "customer"], customer},
      {:put, ["orders", id, "items"], items},
      {:add, ["customers", customer, "orders"], id},
      {:increment, ["customers", customer, "bought"], items |> Map.values() |> Enum.sum()}
    ]

    case Store.update(store, take ++ write, timeout: 1_000) do
      {:ok, clock} -> {:ok, clock}
      {:error, %Causeway.Error{reason: {:insufficient_rights, _, _, _}}} -> {:error, :sold_out}
      {:error, error} -> {:error, error}
    end
  end

  def orders(customer, store \\ @store) do
    store |> Store.get(["customers", customer, "orders"], MapSet.new()) |> Enum.sort()
  end

  @doc "Tells the caller of each order, as it is seen here."
  def watch(store \\ @store), do: Store.subscribe(store, ["orders"])
end
