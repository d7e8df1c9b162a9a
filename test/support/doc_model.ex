defmodule Causeway.DocModel do
  @moduledoc false
  # The obvious model of what documents hold: all acts ever done, each with what its replica had seen.
  #
  #     an act is alive unless somebody who had seen it overrode it;
  #     what is there are the acts alive.
  #
  # Each path has one kind here, the same at all times; what two kinds at one path do is in doc_test.exs and
  # in test/c/doc_model.c.

  # verb: :put, :add, :remove, :enable, :disable, :count, :give, :delete, :reset
  defmodule Act do
    @moduledoc false
    defstruct [:verb, :path, :arg, :n, :replica, :counter, :known]
  end

  @type vv :: %{optional(String.t()) => pos_integer()}

  def within?(vv, of), do: Enum.all?(vv, fn {replica, n} -> Map.get(of, replica, 0) >= n end)
  def join(a, b), do: Map.merge(a, b, fn _, x, y -> max(x, y) end)

  @doc "The acts that are seen and alive, of a list with the newest first; oldest first."
  def alive(acts, vv) do
    seen = Enum.filter(acts, &in?(&1, vv))

    {alive, _later} =
      Enum.reduce(seen, {[], []}, fn act, {alive, later} ->
        gone? = Enum.any?(later, &(overrides?(&1, act) and saw?(&1, act)))

        {if(gone? or leaves_nothing?(act), do: alive, else: [act | alive]),
         overriding(act, later)}
      end)

    alive
  end

  defp in?(act, vv), do: act.counter <= Map.get(vv, act.replica, 0)

  defp saw?(b, a), do: {a.replica, a.counter} == {b.replica, b.counter} or in?(a, b.known)

  defp overriding(%Act{verb: verb}, later) when verb in [:count, :give], do: later
  defp overriding(act, later), do: [act | later]

  defp overrides?(%Act{verb: verb, path: path}, a) when verb in [:delete, :reset],
    do: List.starts_with?(a.path, path)

  defp overrides?(b, a),
    do: b.path == a.path and (b.verb not in [:add, :remove] or b.arg == a.arg)

  defp leaves_nothing?(%Act{verb: verb, path: path}) do
    verb in [:delete, :reset] or
      (verb in [:remove, :disable] and kind(path) not in [:set_remove_wins, :flag_disable_wins])
  end

  @doc "The kind that the model has at a path: the last field's name says it."
  def kind(path), do: path |> List.last() |> then(fn {kind, _} -> kind end)

  @doc "What is there, as `Causeway.Doc.value/1` shows it; registers as `{:one_of, values}`."
  def value(acts, vv) do
    acts
    |> alive(vv)
    |> Enum.group_by(& &1.path)
    |> Enum.reduce(%{}, fn {path, acts}, map -> put_in_path(map, path, read(kind(path), acts)) end)
  end

  defp put_in_path(map, [field], value), do: Map.put(map, field, value)

  defp put_in_path(map, [field | path], value) do
    Map.put(map, field, put_in_path(Map.get(map, field, %{}), path, value))
  end

  defp read(:register, acts), do: {:one_of, Enum.map(acts, & &1.arg)}
  defp read(:register_multi, acts), do: {:all_of, acts |> Enum.map(& &1.arg) |> Enum.sort()}
  defp read(:counter, acts), do: acts |> Enum.map(& &1.n) |> Enum.sum()

  defp read(:counter_bounded, acts) do
    for replica <- holders(acts), reduce: 0 do
      sum -> sum + max(rights_of(acts, replica), 0)
    end
  end

  defp read(:flag, _acts), do: true
  defp read(:flag_disable_wins, acts), do: not Enum.any?(acts, &(&1.verb == :disable))

  defp read(_set, acts) do
    removed = for %Act{verb: :remove, arg: element} <- acts, into: MapSet.new(), do: element

    for %Act{verb: :add, arg: element} <- acts,
        element not in removed,
        into: MapSet.new(),
        do: element
  end

  # ---- rights ----

  @doc "`{here, elsewhere}`, and what `replica` owes after a removal that crossed a spending."
  def rights(acts, vv, path, replica) do
    acts = acts |> alive(vv) |> Enum.filter(&(&1.path == path))
    here = rights_of(acts, replica)

    elsewhere =
      for other <- holders(acts), other != replica, reduce: 0 do
        sum -> sum + max(rights_of(acts, other), 0)
      end

    {max(here, 0), elsewhere, max(-here, 0)}
  end

  defp holders(acts) do
    Enum.uniq(Enum.map(acts, & &1.replica) ++ for(%Act{verb: :give, arg: to} <- acts, do: to))
  end

  defp rights_of(acts, replica) do
    for act <- acts, reduce: 0 do
      sum ->
        own = if act.replica == replica, do: act.n, else: 0
        given = if act.verb == :give and act.arg == replica, do: -act.n, else: 0
        sum + own + given
    end
  end
end
