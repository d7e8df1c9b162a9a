defmodule Shop.MixProject do
  use Mix.Project

  def project do
    [
      app: :shop,
      version: "0.1.0",
      elixir: "~> 1.14",
      deps: [{:causeway, path: "../.."}]
    ]
  end

  def application do
    # Tests start stores of their own.
    mod = if Mix.env() == :test, do: [], else: [mod: {Shop.Application, []}]
    [extra_applications: [:logger]] ++ mod
  end
end
