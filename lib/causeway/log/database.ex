defmodule Causeway.Log.Database do
  @moduledoc false
  # Where a user's transactions are that the log takes part in: a connection of `Causeway.Postgres`, or an Ecto repository,
  # with whatever adapter for PostgreSQL. Nothing of Ecto has to be there to compile this.

  alias Causeway.Log.Error
  alias Causeway.Postgres

  @type t :: Postgres.conn() | module

  @doc "Whether it is an Ecto repository."
  @spec repo?(term) :: boolean
  def repo?(module) do
    is_atom(module) and Code.ensure_loaded?(module) and
      function_exported?(module, :__adapter__, 0)
  end

  @doc "Raises for a repository that is in no transaction of this process: what is said there is committed at once."
  @spec in_transaction!(t) :: :ok
  def in_transaction!(database) do
    if repo?(database) and not database.in_transaction?(),
      do:
        raise(Error,
          reason: {:bad_option, :in, "#{inspect(database)} is in no transaction of this process"}
        ),
      else: :ok
  end

  @spec query(t, iodata, list) :: {:ok, %{rows: [list] | nil}} | {:error, Exception.t()}
  def query(database, sql, params),
    do:
      if(repo?(database),
        do: database.query(sql, params),
        else: Postgres.query(database, sql, params)
      )

  @doc """
  Calls a function in a transaction: with a connection's transaction, or with the repository. It is committed if that
  returns `:ok`, and rolled back if it returns anything else, which is then returned. What it raises comes out of this.

  `{:not_committed, error}` - nothing was done; `{:unknown, error}` - nobody knows whether it was committed.
  """
  @spec transaction(t, (t -> :ok | term)) ::
          :ok | term | {:not_committed, Exception.t()} | {:unknown, Exception.t()}
  def transaction(database, fun) do
    if repo?(database), do: in_repo(database, fun), else: in_connection(database, fun)
  end

  defp in_connection(conn, fun) do
    committed =
      Postgres.transaction(conn, fn tx ->
        with other when other != :ok <- fun.(tx), do: Postgres.rollback(tx, other)
      end)

    case committed do
      {:ok, :ok} ->
        :ok

      {:error, %Postgres.Error{reason: reason} = error} when reason in [:server, :rolled_back] ->
        {:not_committed, error}

      {:error, %Postgres.Error{} = error} ->
        {:unknown, error}

      {:error, other} ->
        other
    end
  end

  # An exception of the function's is caught inside, to tell it from those of BEGIN and COMMIT.
  defp in_repo(repo, fun) do
    case commit(repo, fun) do
      {:ok, :ok} ->
        :ok

      {:error, {:raised, kind, reason, stack}} ->
        :erlang.raise(kind, reason, stack)

      {:error, {:returned, other}} ->
        other

      {:error, why} ->
        {:not_committed, %RuntimeError{message: "it was rolled back: #{inspect(why)}"}}

      other ->
        other
    end
  end

  defp commit(repo, fun) do
    # How long it may take is the caller's to say.
    repo.transaction(
      fn -> with other when other != :ok <- called(fun, repo), do: repo.rollback(other) end,
      timeout: :infinity
    )
  rescue
    error -> if refused?(error), do: {:not_committed, error}, else: {:unknown, error}
  end

  defp called(fun, repo) do
    with other when other != :ok <- fun.(repo), do: {:returned, other}
  catch
    # The repository's own way out, if the function rolls back by itself.
    :throw, {DBConnection, _, _} = rollback -> throw(rollback)
    kind, reason -> {:raised, kind, reason, __STACKTRACE__}
  end

  # The server's words that are none about the connection: its classes 08 and 57P.
  defp refused?(%{postgres: %{pg_code: <<"08", _::binary>>}}), do: false
  defp refused?(%{postgres: %{pg_code: <<"57P", _::binary>>}}), do: false
  defp refused?(error), do: match?(%{postgres: %{pg_code: _}}, error)
end
