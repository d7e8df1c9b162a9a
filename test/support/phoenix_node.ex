needs = [Absinthe.Phoenix.Endpoint, Bandit, Jason, Phoenix.LiveView]

if Enum.all?(needs, &Code.ensure_loaded?/1) do
  defmodule Causeway.PhoenixNode do
    @moduledoc false
    # An application of Phoenix, as small as can be, for nodes of tests: a channel with presence, a live view, subscriptions of
    # Absinthe. Nothing in it knows that its PubSub is ours.

    alias Causeway.PubSubNode
    alias Phoenix.PubSub

    defmodule Presence do
      @moduledoc false
      use Phoenix.Presence, otp_app: :causeway, pubsub_server: Shop.PubSub
    end

    defmodule Room do
      @moduledoc false
      use Phoenix.Channel

      def join(_topic, payload, socket) do
        if payload["name"], do: send(self(), {:track, payload["name"]})
        {:ok, socket}
      end

      def handle_info({:track, name}, socket) do
        {:ok, _} = Presence.track(socket, name, %{})
        push(socket, "presence_state", Presence.list(socket))
        {:noreply, socket}
      end

      def handle_in("shout", payload, socket) do
        broadcast_from!(socket, "shout", payload)
        {:reply, :ok, socket}
      end
    end

    defmodule Schema do
      @moduledoc false
      use Absinthe.Schema

      query do
        field(:nothing, :string)
      end

      mutation do
        field :sell, :string do
          arg(:item, non_null(:string))
          resolve(fn %{item: item}, _ -> {:ok, item} end)
        end
      end

      subscription do
        field :sold, :string do
          config(fn _, _ -> {:ok, topic: "all"} end)
          trigger(:sell, topic: fn _ -> "all" end)
          resolve(fn item, _, _ -> {:ok, item} end)
        end
      end
    end

    defmodule Socket do
      @moduledoc false
      use Phoenix.Socket
      use Absinthe.Phoenix.Socket, schema: Causeway.PhoenixNode.Schema

      channel("room:*", Room)
      channel("orders:*", Room)

      def connect(_params, socket, _info), do: {:ok, socket}
      def id(_socket), do: nil
    end

    defmodule PriceLive do
      @moduledoc false
      use Phoenix.LiveView

      def mount(_params, _session, socket) do
        if connected?(socket), do: PubSub.subscribe(Shop.PubSub, "prices")
        {:ok, assign(socket, price: 0)}
      end

      def handle_info({:price, price}, socket), do: {:noreply, assign(socket, price: price)}
      def render(assigns), do: ~H"<b>costs <%= @price %></b>"
    end

    defmodule Router do
      @moduledoc false
      use Phoenix.Router
      import Phoenix.LiveView.Router

      live("/price", PriceLive)
    end

    defmodule Endpoint do
      @moduledoc false
      use Phoenix.Endpoint, otp_app: :causeway
      use Absinthe.Phoenix.Endpoint

      socket("/socket", Socket, websocket: true)
      socket("/live", Phoenix.LiveView.Socket, websocket: true)
      plug(Router)
    end

    # Whoever is gone is missed after two seconds.
    @presence [
      broadcast_period: 100,
      max_silent_periods: 3,
      down_period: 2_000,
      permdown_period: 4_000
    ]

    @doc "Starts all of it; returns the port of its web server."
    def start(options, opts) do
      for app <- [:phoenix_live_view, :absinthe_phoenix, :bandit, :jason],
          do: {:ok, _} = Application.ensure_all_started(app)

      Application.put_env(:causeway, Endpoint,
        adapter: Bandit.PhoenixAdapter,
        http: [ip: {127, 0, 0, 1}, port: 0, startup_log: false],
        server: true,
        check_origin: false,
        pubsub_server: Shop.PubSub,
        secret_key_base: String.duplicate("k", 64),
        live_view: [signing_salt: String.duplicate("s", 8)]
      )

      {:ok, _} = PubSubNode.start(options, opts)
      children = [{Presence, @presence}, Endpoint, {Absinthe.Subscription, Endpoint}]
      {:ok, _} = PubSubNode.start_unlinked(children)
      {:ok, {_, port}} = Endpoint.server_info(:http)
      port
    end

    @doc "Who is present, with how many processes."
    def present(topic),
      do:
        for({name, %{metas: metas}} <- Presence.list(topic), into: %{}, do: {name, length(metas)})

    @doc "Processes that sleep, as many as that: their numbers as they are printed."
    def sleepers(count), do: for(_ <- 1..count, do: inspect(spawn(Process, :sleep, [:infinity])))

    @doc "Tracks the process of a number."
    def track(topic, number, name),
      do: {:ok, _} = Presence.track(pid(number), topic, name, %{})

    def kill(number), do: Process.exit(pid(number), :kill)

    defp pid("#PID" <> number), do: number |> String.to_charlist() |> :erlang.list_to_pid()
  end
end
