defmodule Causeway.Slices do
  @moduledoc false
  # How long a call keeps a normal scheduler, and how long a dirty one. The VM's tracer tells when the caller
  # is scheduled in and out, and where; dirty schedulers have no number.

  @doc "`{normal, dirty}` in microseconds: the longest time at once on a normal scheduler, all on dirty ones."
  def measure(fun) do
    slices = fun |> trace() |> pairs()
    {on(slices, &(&1 > 0)) |> Enum.max(fn -> 0 end), on(slices, &(&1 == 0)) |> Enum.sum()}
  end

  @doc """
  The same, measured again while `normal` is above a limit: what others do to this machine only adds to it.
  """
  def measure_below(fun, limit, tries) do
    {normal, dirty} = measure(fun)

    if normal > limit and tries > 1,
      do: fun |> measure_below(limit, tries - 1) |> min({normal, dirty}),
      else: {normal, dirty}
  end

  defp on(slices, which?), do: for({scheduler, us} <- slices, which?.(scheduler), do: us)

  defp trace(fun) do
    test = self()
    tracer = spawn_link(fn -> collect([]) end)

    caller =
      spawn_link(fn ->
        receive do: (:go -> fun.())
        send(test, {:done, self()})
        receive do: (:stop -> :ok)
      end)

    :erlang.trace(caller, true, [:running, :scheduler_id, :monotonic_timestamp, {:tracer, tracer}])

    send(caller, :go)
    receive do: ({:done, ^caller} -> :ok)
    :erlang.trace(caller, false, [:all])
    delivered = :erlang.trace_delivered(caller)
    receive do: ({:trace_delivered, ^caller, ^delivered} -> :ok)
    send(tracer, {:give, self()})
    events = receive do: ({:events, events} -> events)
    send(caller, :stop)
    events
  end

  defp collect(events) do
    receive do
      {:give, to} -> send(to, {:events, Enum.reverse(events)})
      event -> collect([event | events])
    end
  end

  defp pairs([{:trace_ts, _, :in, _, at, from}, {:trace_ts, _, :out, _, at, to} | events]) do
    [{at, System.convert_time_unit(to - from, :native, :microsecond)} | pairs(events)]
  end

  defp pairs([_ | events]), do: pairs(events)
  defp pairs([]), do: []
end
