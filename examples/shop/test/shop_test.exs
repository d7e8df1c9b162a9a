defmodule ShopTest do
  use ExUnit.Case
  alias Causeway.Store

  # Two places in one VM, in memory.
  setup do
    for {name, replica} <- [{:here, "here"}, {:there, "there"}] do
      start_supervised!({Store, name: name, replica: replica, peers: [{:here, node()}]})
    end

    :ok
  end

  test "an order takes from the stock of both places" do
    {:ok, clock} = Shop.restock("bread", 10, :here)
    :ok = Store.wait(:there, clock)
    {:ok, clock} = Shop.order(1, "ada", %{"bread" => 7}, :there)
    :ok = Store.wait(:here, clock)
    assert Shop.in_stock("bread", :here) == 3
    assert Shop.orders("ada", :here) == [1]
  end

  test "what is not there is not sold" do
    {:ok, _} = Shop.restock("bread", 10, :here)
    assert Shop.order(1, "ada", %{"bread" => 11}, :here) == {:error, :sold_out}
    assert Shop.in_stock("bread", :here) == 10
    assert Shop.orders("ada", :here) == []
  end

  test "cut off from each other, both sell what they have, and no more" do
    {:ok, clock} = Shop.restock("bread", 10, :here)
    :ok = Store.wait(:there, clock)
    {:ok, clock} = Shop.order(1, "ada", %{"bread" => 4}, :there)
    :ok = Store.wait(:here, clock)
    for {a, b} <- [here: :there, there: :here], do: Store.disconnect(a, {b, node()})

    sold =
      for place <- [:here, :there], n <- 2..20, reduce: 4 do
        sold ->
          case Shop.order({place, n}, "bob", %{"bread" => 1}, place) do
            {:ok, _} -> sold + 1
            {:error, :sold_out} -> sold
          end
      end

    for {a, b} <- [here: :there, there: :here], do: Store.connect(a, {b, node()})
    :ok = Store.wait(:here, Store.clock(:there))
    assert Shop.in_stock("bread", :here) == 10 - sold
    assert sold <= 10
  end

  test "products, and who watches orders" do
    {:ok, _} = Shop.offer("bread", %{"name" => "Bread", "price" => 3}, :here)
    assert Shop.product("bread", :here) == %{"name" => "Bread", "price" => 3}
    {:ok, _ref, _} = Shop.watch(:there)
    {:ok, _} = Shop.restock("bread", 1, :here)
    {:ok, _} = Shop.order(7, "ada", %{"bread" => 1}, :here)

    assert_receive {:causeway, _,
                    %{changes: [{["orders", 7, "customer"], :register, nil, "ada"} | _]}},
                   1_000
  end
end
