defmodule Causeway.Postgres.WAL.Private do
  @moduledoc false
  # What logs and crash reports must not show: rows, frames with rows, the handler's state and argument. The handler's own
  # errors say what they say; but the values that a function was called with are not a part of them here.

  @doc "Runs what is the handler's; its failures have no arguments in their stack traces."
  def call(fun) do
    fun.()
  catch
    kind, reason -> :erlang.raise(kind, reason, stacktrace(__STACKTRACE__))
  end

  @doc "Without arguments, which are there for calls that no clause was for."
  def stacktrace(stacktrace) do
    for frame <- stacktrace do
      case frame do
        {module, name, args, place} when is_list(args) -> {module, name, length(args), place}
        {fun, args, place} when is_list(args) -> {fun, length(args), place}
        other -> other
      end
    end
  end

  @doc "For `c:GenServer.format_status/1`; `short` makes what may be shown of a state."
  def status(status, short) do
    Map.new(status, fn
      {:state, state} -> {:state, short.(state)}
      {:message, _} -> {:message, :not_shown}
      {:log, _} -> {:log, []}
      other -> other
    end)
  end

  @doc "Drops the messages that hold rows, which a crash report would show."
  def flush do
    receive do
      {:frame, _, _} -> flush()
      {port, {:data, _}} when is_port(port) -> flush()
    after
      0 -> :ok
    end
  end
end
