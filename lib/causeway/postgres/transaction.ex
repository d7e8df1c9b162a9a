defmodule Causeway.Postgres.Transaction do
  @moduledoc false
  # Runs functions in transactions, and in transactions within those, which are savepoints.

  alias Causeway.Postgres.{Error, Session, Statements}

  @doc "See `Causeway.Postgres.transaction/3`."
  def run(session, fun, opts) do
    timeout = Keyword.get(opts, :timeout, session.timeout)
    {begin, commit, rollback} = commands(session, opts)
    lock = session.lock || make_ref()

    with {:ok, _, _} <- Statements.control(session, begin, timeout, role(session, {:begin, lock})) do
      inner = %{session | lock: lock, depth: session.depth + 1}
      call(inner, fun, {commit, rollback, role(session, :end), timeout})
    end
  end

  # Savepoints leave the lock where it is.
  defp role(%Session{lock: nil}, role), do: role
  defp role(_, _), do: :plain

  defp commands(%Session{lock: nil}, opts), do: {"BEGIN" <> modes(opts), "COMMIT", "ROLLBACK"}

  defp commands(%Session{depth: depth}, opts) do
    Keyword.drop(opts, [:timeout]) == [] ||
      raise ArgumentError,
            "a transaction within another one has its modes: #{inspect(opts)} cannot be set"

    # Two processes may be within the same one at once.
    name = "causeway_#{depth}_#{:erlang.unique_integer([:positive])}"

    {"SAVEPOINT #{name}", "RELEASE SAVEPOINT #{name}",
     "ROLLBACK TO SAVEPOINT #{name}; RELEASE SAVEPOINT #{name}"}
  end

  defp modes(opts), do: opts |> Keyword.drop([:timeout]) |> Enum.map_join(&mode/1)

  defp mode({:isolation, :serializable}), do: " ISOLATION LEVEL SERIALIZABLE"
  defp mode({:isolation, :repeatable_read}), do: " ISOLATION LEVEL REPEATABLE READ"
  defp mode({:isolation, :read_committed}), do: " ISOLATION LEVEL READ COMMITTED"
  defp mode({:read_only, true}), do: " READ ONLY"
  defp mode({:read_only, false}), do: " READ WRITE"
  defp mode({:deferrable, true}), do: " DEFERRABLE"
  defp mode({:deferrable, false}), do: " NOT DEFERRABLE"

  defp mode({name, value}) do
    raise ArgumentError,
          "option #{inspect(name)}: #{inspect(value)} cannot be; there are :isolation (:serializable, :repeatable_read, " <>
            ":read_committed), :read_only and :deferrable (true or false), and :timeout"
  end

  defp call(%Session{lock: lock, depth: depth} = inner, fun, {_, rollback, role, timeout} = ends) do
    try do
      fun.(inner)
    catch
      :throw, {:causeway_rollback, ^lock, ^depth, reason} ->
        undo(inner, rollback, timeout, role)
        {:error, reason}

      kind, reason ->
        undo(inner, rollback, timeout, role)
        :erlang.raise(kind, reason, __STACKTRACE__)
    else
      result -> commit(inner, result, ends)
    end
  end

  defp commit(inner, result, {commit, rollback, role, timeout}) do
    case Statements.control(inner, commit, timeout, role) do
      {:ok, _, :rollback} ->
        {:error, %Error{reason: :rolled_back}}

      {:ok, _, _} ->
        {:ok, result}

      {:error, error} ->
        # Whatever is left of it. A failed transaction does not let go of a savepoint.
        undo(inner, rollback, timeout, role)
        {:error, failed(error)}
    end
  end

  # When that cannot be, as another process is inside still, the connection does it as if this one had died.
  defp undo(inner, rollback, timeout, role) do
    with {:error, _} when role == :end <- Statements.control(inner, rollback, timeout, role),
         do: send(inner.pid, {:causeway_abandon, inner.lock})
  end

  defp failed(%{postgres: %{pg_code: "25P02"}}), do: %Error{reason: :rolled_back}
  defp failed(error), do: error

  @doc "See `Causeway.Postgres.rollback/2`."
  def rollback(%Session{lock: lock, depth: depth}, reason) when lock != nil,
    do: throw({:causeway_rollback, lock, depth, reason})
end
