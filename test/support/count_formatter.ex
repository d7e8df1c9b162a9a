defmodule Causeway.CountFormatter do
  @moduledoc false
  # Writes the run's counts to the file named by CAUSEWAY_COUNTS, for the summary of `make test`:
  #
  #     passed property 12
  #     integration ecto present 34
  #
  # ExUnit's own last line is for people, and its wording has changed between releases.
  use GenServer

  @impl true
  def init(opts) do
    # With `--only`, the tests left out were not asked for: they are not counted as skipped.
    {:ok, %{counts: %{}, only?: :test in Keyword.get(opts, :exclude, [])}}
  end

  @impl true
  def handle_cast({:test_finished, %{state: state, tags: tags}}, %{only?: only?} = s) do
    case outcome(state, only?) do
      nil -> {:noreply, s}
      outcome -> {:noreply, count(s, outcome, tags)}
    end
  end

  def handle_cast({:suite_finished, _times}, s) do
    if path = System.get_env("CAUSEWAY_COUNTS"), do: File.write!(path, report(s.counts))
    {:noreply, s}
  end

  def handle_cast(_event, s), do: {:noreply, s}

  defp outcome(nil, _), do: :passed
  defp outcome({:skipped, _}, _), do: :skipped
  defp outcome({:excluded, _}, only?), do: if(only?, do: nil, else: :skipped)
  # Also a test that could not run because its module's setup_all failed.
  defp outcome(_, _), do: :failed

  defp count(s, outcome, tags) do
    server = if tags[:postgres], do: "PostgreSQL"

    keys =
      [{outcome, tags[:test_type]}] ++
        for(name <- [tags[:integration], server], do: {outcome, :integration, name})

    %{s | counts: Enum.reduce(keys, s.counts, &Map.update(&2, &1, 1, fn n -> n + 1 end))}
  end

  defp report(counts) do
    kinds = for {{outcome, kind}, n} <- counts, do: "#{outcome} #{kind} #{n}\n"
    [kinds, integrations(Mix.Project.config()[:integrations], counts)]
  end

  # The examples have none.
  defp integrations(nil, _counts), do: []

  defp integrations(apps, counts) do
    apps =
      for {app, module} <- apps do
        presence = if Code.ensure_loaded?(module), do: "present", else: "absent"
        integration(app, presence, counts)
      end

    server = if Causeway.PostgresServer.missing(), do: "absent", else: "present"
    [apps, integration("PostgreSQL", server, counts)]
  end

  defp integration(name, presence, counts),
    do: "integration #{name} #{presence} #{counts[{:passed, :integration, name}] || 0}\n"
end
