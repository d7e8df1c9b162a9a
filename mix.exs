defmodule Causeway.MixProject do
  use Mix.Project

  # The version and the description live once, where rebar3 needs them.
  {:ok, [{:application, :causeway, app_src}]} =
    :file.consult(Path.join(__DIR__, "src/causeway.app.src"))

  @version to_string(app_src[:vsn])
  @description to_string(app_src[:description])

  # What Causeway works with when it is there: an application, a module that tells, its versions.
  @integrations [
    {:decimal, Decimal, "~> 2.0 or ~> 3.0"},
    {:ecto, Ecto, "~> 3.10"},
    {:ecto_sql, Ecto.Adapters.SQL, "~> 3.10"},
    {:jason, Jason, "~> 1.4"},
    {:phoenix_live_view, Phoenix.LiveView, "~> 0.20 or ~> 1.0"},
    {:phoenix_pubsub, Phoenix.PubSub, "~> 2.1"},
    {:plug, Plug, "~> 1.14"},
    {:postgrex, Postgrex, "~> 0.17 or ~> 1.0"},
    {:telemetry, :telemetry, "~> 1.0"}
  ]

  # What tests use besides, where it is there: nothing that Causeway would depend on.
  @tested_with [:absinthe, :absinthe_phoenix]

  def project do
    [
      app: :causeway,
      version: @version,
      elixir: "~> 1.14",
      compilers: [:causeway_nif | Mix.compilers()],
      elixirc_paths: elixirc_paths(Mix.env()),
      start_permanent: Mix.env() == :prod,
      # Integrations may come from ERL_LIBS; Elixir 1.15 and later would drop them from the path.
      prune_code_paths: false,
      elixirc_options: [no_warn_undefined: for({_, module, _} <- present(), do: module)],
      xref: [exclude: Enum.flat_map(@tested_with, &modules/1)],
      deps: deps(),
      integrations: for({app, module, _} <- @integrations, do: {app, module}),
      name: "Causeway",
      description: @description,
      package: package(),
      docs: docs()
    ]
  end

  # Integrations that come as dependencies start before us anyway; those from ERL_LIBS do so by this.
  def application do
    from_path = if deps() == [], do: present(), else: []
    [extra_applications: [:crypto | for({app, _, _} <- from_path, do: app)]]
  end

  defp elixirc_paths(:test), do: ["lib", "test/support"]
  defp elixirc_paths(_), do: ["lib"]

  # A module that needs an integration is compiled when that is on the code path, which Mix does not
  # watch. It does watch its compiler's options: when this list changes, everything is compiled anew.
  # Not to be warned about modules that exist is all that the option does otherwise.
  defp present do
    Enum.filter(@integrations, fn {_, module, _} -> Code.ensure_loaded?(module) end)
  end

  defp modules(app) do
    Application.load(app)
    Application.spec(app, :modules) || []
  end

  # Without Hex, Mix would stop to ask whether to install it. See scripts/mix for CAUSEWAY_DEPS.
  defp deps do
    if Code.ensure_loaded?(Hex) and System.get_env("CAUSEWAY_DEPS") != "none" do
      [{:ex_doc, "~> 0.31", only: :dev, runtime: false}] ++
        for {app, _, versions} <- @integrations, do: {app, versions, optional: true}
    else
      []
    end
  end

  defp package do
    [
      licenses: ["Apache-2.0"],
      links: %{},
      files:
        ~w(c_src docs lib src .formatter.exs Makefile mix.exs rebar.config) ++
          ~w(CHANGELOG.md LICENSE README.md)
    ]
  end

  defp docs do
    [
      main: "readme",
      source_ref: "v#{@version}",
      extras: ["README.md", "CHANGELOG.md", "LICENSE"] ++ Path.wildcard("docs/*.md")
    ]
  end
end

# What elixir_make does, in the small: the package needs no other package to be built.
defmodule Mix.Tasks.Compile.CausewayNif do
  @moduledoc false
  use Mix.Task.Compiler

  @impl true
  def run(_args) do
    look_again()

    case make("build") do
      0 ->
        # If this made priv, it is not linked into _build yet.
        Mix.Project.build_structure()
        {:ok, []}

      _ ->
        Mix.raise("""
        Causeway's C parts could not be built; the lines above say why. They need make, a C11 compiler,
        xxhash.h 0.8 or later and Erlang's own headers; Causeway.Postgres needs libpq 14 or later too.
        On Debian and Ubuntu:

            apt-get install make gcc libc6-dev libxxhash-dev erlang-dev libpq-dev libjemalloc-dev

        On macOS: xcode-select --install; brew install pkg-config xxhash libpq jemalloc
        """)
    end
  end

  # Which applications there are Mix asks once, and warns about the calls of those that come later by ERL_LIBS.
  defp look_again do
    File.rm(Path.join(Mix.Project.manifest_path(), "compile.app_tracer"))
  end

  @impl true
  def clean, do: make("clean-nif")

  defp make(target) do
    env = [
      {"ERTS_INCLUDE_DIR",
       System.get_env("ERTS_INCLUDE_DIR") || "#{:code.root_dir()}/usr/include"},
      # This may itself run under a make, whose flags and job server are not for this one.
      {"MAKEFLAGS", nil},
      {"MAKELEVEL", nil}
    ]

    options = [env: env, into: IO.stream(:stdio, :line), stderr_to_stdout: true]
    {_, status} = System.cmd(System.get_env("MAKE") || "make", [target], options)
    status
  end
end
