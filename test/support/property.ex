defmodule Causeway.Property do
  @moduledoc false
  # Random tests. Each run is seeded by ExUnit's seed, the property's name and the run's number; a failing
  # one says how to see it again alone.
  #
  #     property "addition commutes", runs: 100 do
  #       {a, b} = {int(), int()}
  #       assert a + b == b + a
  #     end

  defmacro property(name, opts \\ [], do: block) do
    quote bind_quoted: [
            name: name,
            runs: Keyword.get(opts, :runs, 100),
            block: Macro.escape(block, unquote: true)
          ] do
      %{module: mod, file: file, line: line} = __ENV__
      fun = ExUnit.Case.register_test(mod, file, line, :property, name, [:property])

      def unquote(fun)(_context) do
        Causeway.Property.run(unquote(name), unquote(runs), fn -> unquote(block) end)
      end
    end
  end

  def run(name, runs, fun) do
    seed = ExUnit.configuration()[:seed]

    runs =
      case System.get_env("CAUSEWAY_RUN") do
        nil -> 1..runs
        run -> [String.to_integer(run)]
      end

    for run <- runs do
      :rand.seed(:exsss, {seed, run, :erlang.phash2(name)})

      try do
        fun.()
      catch
        kind, reason ->
          IO.puts("\n#{name}: again with CAUSEWAY_RUN=#{run} mix test --seed #{seed}")
          :erlang.raise(kind, reason, __STACKTRACE__)
      end
    end
  end

  # ---- choosing ----

  def below(n), do: :rand.uniform(n) - 1
  def between(a, b), do: a + below(b - a + 1)
  def one_of(list), do: Enum.random(list)
  def chance(percent), do: below(100) < percent
  def list_of(0, _fun), do: []
  def list_of(n, fun), do: for(_ <- 1..n, do: fun.())
end
