if Code.ensure_loaded?(Ecto.Adapters.SQL) and Code.ensure_loaded?(Postgrex) do
  defmodule Causeway.Ecto.Adapter do
    @moduledoc """
    An Ecto adapter for PostgreSQL, on Causeway's port program.

        defmodule Shop.Repo do
          use Ecto.Repo, otp_app: :shop, adapter: Causeway.Ecto.Adapter
        end

    It does what `Ecto.Adapters.Postgres` does, takes the same options, makes the same SQL and gives the same results and
    errors, so that a change from one to the other is one of this line. What differs, and what there is beyond, is told in
    "Switching from Ecto.Adapters.Postgres".

    Beyond: several hosts and anything else that libpq's connection strings know (`:conninfo`); `:cancel_after`; and, in
    `Causeway.Ecto`, commits' places in the server's log, and reads that wait for them on a standby.

    It is there when ecto_sql and postgrex are; of the latter it uses the structs of results and errors, and ecto_sql's
    generator of SQL.
    """

    use Ecto.Adapters.SQL, driver: :postgrex

    @behaviour Ecto.Adapter.Storage
    @behaviour Ecto.Adapter.Structure

    alias Causeway.Ecto.{Bulk, Storage}
    alias Ecto.Adapters.Postgres

    @impl true
    def ensure_all_started(config, type) do
      with {:ok, driver} <- Ecto.Adapters.SQL.ensure_all_started(:postgrex, config, type),
           {:ok, own} <- Application.ensure_all_started(:causeway, type),
           do: {:ok, driver ++ own}
    end

    # Options of queries that may have a default in the repository's configuration.
    @defaults [:cancel_after, :last_commit, :after_timeout, :bulk]

    defoverridable init: 1

    @impl true
    def init(config) do
      {:ok, child, meta} = Ecto.Adapters.SQL.init(@conn, :postgrex, config)
      opts = Keyword.take(config, @defaults) ++ [causeway: make_ref()]
      {:ok, child, %{meta | opts: meta.opts ++ opts}}
    end

    # ---- many rows at once ----

    @impl true
    def insert_all(meta, schema, header, rows, on_conflict, returning, placeholders, opts) do
      all = {meta, schema, header, rows, on_conflict, returning, placeholders, opts}

      with :unsuited <- Bulk.insert_all(all),
           do: super(meta, schema, header, rows, on_conflict, returning, placeholders, opts)
    end

    # ---- values ----

    # To write uuids as text took a seventh of the VM's time when rows were loaded that have one: here C does it.
    @impl true
    def loaders(:binary_id, type), do: [&load_uuid/1, type]
    def loaders(:uuid, Ecto.UUID), do: [&load_uuid/1]
    def loaders(primitive, type), do: Postgres.loaders(primitive, type)

    defp load_uuid(<<_::128>> = uuid), do: {:ok, :causeway_nif.pg_uuid_text(uuid)}
    defp load_uuid(nil), do: {:ok, nil}
    defp load_uuid(other), do: Ecto.UUID.load(other)

    # ---- what ecto_sql does ----

    @impl true
    defdelegate dumpers(primitive, type), to: Postgres

    @impl true
    defdelegate execute(adapter_meta, query_meta, query, params, opts), to: Postgres

    @impl true
    defdelegate supports_ddl_transaction?, to: Postgres

    @impl true
    defdelegate lock_for_migrations(meta, opts, fun), to: Postgres

    # ---- storage and structure ----

    @impl true
    defdelegate storage_up(opts), to: Storage, as: :up
    @impl true
    defdelegate storage_down(opts), to: Storage, as: :down
    @impl true
    defdelegate storage_status(opts), to: Storage, as: :status
    @impl true
    defdelegate structure_dump(default, config), to: Storage
    @impl true
    defdelegate structure_load(default, config), to: Storage
    @impl true
    def dump_cmd(args, opts \\ [], config), do: Storage.dump(args, opts, config)
  end
end
