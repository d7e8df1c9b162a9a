defmodule Causeway.EctoCase do
  @moduledoc false
  # Tests of the Ecto adapter, each module with a database and a pool of its own:
  #
  #     defmodule Causeway.Ecto.XTest do
  #       use Causeway.EctoCase
  #
  #       with_ecto do
  #         test "...", do: assert Repo.query!("select 1")
  #       end
  #     end
  #
  # What is within `with_ecto` uses Ecto's macros. Where Ecto is not on the code path, its tests are there by name only,
  # to be counted as skipped.

  @here Code.ensure_loaded?(Ecto.Adapters.SQL) and Code.ensure_loaded?(Postgrex)

  defmacro __using__(opts) do
    quote do
      use ExUnit.Case, unquote(opts)
      import Causeway.EctoCase
      alias Causeway.PostgresServer

      @moduletag :postgres
      @moduletag integration: :ecto_sql
      @moduletag :capture_log
    end
  end

  defmacro with_ecto(do: block), do: if(@here, do: here(block), else: names(block))

  defp here(block) do
    quote do
      import Ecto.Query, only: [from: 1, from: 2]
      alias Causeway.EctoCase.{Item, Replica, Repo}

      setup_all do: {:ok, options: Causeway.EctoCase.database()}

      setup context do
        if context[:no_pool], do: :ok, else: Causeway.EctoCase.pool(context)
      end

      unquote(block)
    end
  end

  defp names({:__block__, _, forms}), do: {:__block__, [], Enum.map(forms, &name/1)}
  defp names(form), do: name(form)

  defp name({:test, _, [name | _]}), do: quote(do: test(unquote(name), do: flunk("no Ecto here")))

  defp name({:describe, _, [_, [do: block]]}), do: names(block)
  defp name(_), do: nil

  if @here do
    defmodule Repo do
      @moduledoc false
      use Ecto.Repo, otp_app: :causeway, adapter: Causeway.Ecto.Adapter
    end

    defmodule Replica do
      @moduledoc false
      use Ecto.Repo, otp_app: :causeway, adapter: Causeway.Ecto.Adapter, read_only: true
    end

    defmodule Item do
      @moduledoc false
      use Ecto.Schema

      schema "items" do
        field(:name, :string)
        field(:price, :decimal)
        field(:tags, {:array, :string})
        field(:data, :map)
        field(:at, :utc_datetime_usec)
      end
    end

    @table """
    create table items (id bigserial primary key, name text constraint items_name_index unique,
      price numeric check (price >= 0), tags text[], data jsonb, at timestamptz)
    """

    @doc "A database with the table of items: options that connect to it."
    def database(server \\ Causeway.PostgresServer.shared()) do
      for app <- [:ecto_sql, :postgrex, :causeway],
          do: {:ok, _} = Application.ensure_all_started(app)

      options = Causeway.PostgresServer.database!(server, log: false)
      Causeway.PostgresServer.psql!(server, @table, options[:database])
      options
    end

    @doc "A pool that ends with the test, as the test process's `Repo`; `@tag pool: [...]` has options for it."
    def pool(context) do
      options = (context[:pool] || []) ++ [name: nil, pool_size: 3] ++ context.options
      use_pool(Repo, options)
      Repo.query!("truncate items restart identity")
      :ok
    end

    @doc "Starts a pool, for the calling process to use."
    def use_pool(repo, options) do
      pid = ExUnit.Callbacks.start_supervised!({repo, options}, id: make_ref())
      repo.put_dynamic_repo(pid)
      pid
    end

    @doc "A task that uses the same pool."
    def task(fun), do: Task.async(pooled(fun))

    @doc "The same function, for another process: there it uses the caller's pool."
    def pooled(fun) do
      repo = Repo.get_dynamic_repo()

      fn ->
        Repo.put_dynamic_repo(repo)
        fun.()
      end
    end

    @doc "The port programs of this VM, as it has them."
    def programs do
      for port <- Port.list(),
          {:name, name} <- [Port.info(port, :name)],
          to_string(name) =~ "causeway_port",
          {:os_pid, pid} <- [Port.info(port, :os_pid)],
          do: pid
    end
  end
end
