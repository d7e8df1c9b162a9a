defmodule Shop.Application do
  @moduledoc false
  use Application

  # One store on every node. SHOP_REPLICA names this one, SHOP_PEER is any node that runs already.
  @impl true
  def start(_type, _args) do
    replica = System.get_env("SHOP_REPLICA", "paris")
    peers = for peer <- List.wrap(System.get_env("SHOP_PEER")), do: String.to_atom(peer)

    children = [
      {Causeway.Store,
       name: Shop.Store, replica: replica, dir: Path.join("data", replica), peers: peers}
    ]

    Supervisor.start_link(children, strategy: :one_for_one)
  end
end
