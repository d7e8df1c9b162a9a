defmodule Causeway.Ecto.AdapterTest do
  # What upstream's own suites do not look at.
  use Causeway.EctoCase, async: true

  with_ecto do
    test "results are Postgrex's" do
      assert %Postgrex.Result{
               command: :select,
               columns: ["a", "b"],
               rows: [[1, "x"]],
               num_rows: 1
             } = result = Repo.query!("select 1 as a, $1::text as b", ["x"])

      assert is_integer(result.connection_id) and result.messages == []

      assert %{rows: nil, columns: nil, num_rows: 0, command: :create_table} =
               Repo.query!("create table empty ()")

      assert %{rows: [], columns: [], num_rows: 0} = Repo.query!("select from empty")
      assert %{rows: [[], []], num_rows: 2} = Repo.query!("select from generate_series(1, 2)")
      assert %{rows: [["UTC"]], command: :show, num_rows: 1} = Repo.query!("show timezone")
      assert %{rows: nil, num_rows: 0} = Repo.query!("")
      assert %{rows: [[nil]]} = Repo.query!("select $1::int[]", [nil])

      assert %{rows: [[2]], num_rows: 1} =
               Repo.query!("with a as (select 1 as b) select b + $1 from a", [1])
    end

    test "notices are messages" do
      assert %{messages: [%{message: "hello", severity: "NOTICE"}]} =
               Repo.query!("do $$ begin raise notice 'hello'; end $$")
    end

    test "errors are Postgrex's, and become errors of changesets" do
      assert {:error, %Postgrex.Error{postgres: postgres, query: query, connection_id: id}} =
               Repo.query("select 1/$1::int", [0])

      assert %{code: :division_by_zero, pg_code: "22012", message: "division by zero"} = postgres
      assert query == "select 1/$1::int" and is_integer(id)

      assert_raise Postgrex.Error, ~r/42P01 \(undefined_table\) relation "nothing"/, fn ->
        Repo.query!("select * from nothing")
      end

      changeset = fn fields ->
        %Item{}
        |> Ecto.Changeset.change(fields)
        |> Ecto.Changeset.unique_constraint(:name)
        |> Ecto.Changeset.check_constraint(:price, name: :items_price_check)
      end

      assert {:ok, _} = Repo.insert(changeset.(name: "a"))

      assert {:error, %{errors: [name: {_, [constraint: :unique] ++ _}]}} =
               Repo.insert(changeset.(name: "a"))

      assert {:error, %{errors: [price: {_, [constraint: :check] ++ _}]}} =
               Repo.insert(changeset.(price: Decimal.new(-1)))

      assert_raise Ecto.ConstraintError, ~r/items_name_index/, fn ->
        Repo.insert(%Item{name: "a"})
      end
    end

    test "values that cannot be sent" do
      assert_raise DBConnection.EncodeError, ~r/parameter \$1 of type int4.*got "x"/s, fn ->
        Repo.query!("select $1::int", ["x"])
      end

      assert_raise ArgumentError, ~r/parameters must be of length 1 .* got: 2/, fn ->
        Repo.query!("select $1::int", [1, 2])
      end

      assert_raise ArgumentError, ~r/expected params to be a list/, fn ->
        Repo.query!("select $1::int", %{})
      end

      assert_raise Ecto.Query.CastError, fn -> Repo.get(Item, "x") end

      many = Enum.to_list(1..65_536)

      assert {:error, %Postgrex.QueryError{message: message}} =
               Repo.query("select #{Enum.map_join(many, ",", &"$#{&1}::int")}", many)

      assert message =~ "can not handle 65536 parameters, the maximum is 65535"
      assert Repo.query!("select 1").rows == [[1]]
    end

    @tag pool: [pool_size: 1]
    test "a statement that the server has dropped is prepared again" do
      get = fn -> Repo.get(Item, 0) end
      insert = fn n -> Repo.insert!(%Item{name: "dropped #{n}"}) end
      assert get.() == nil
      insert.(1)
      Repo.query!("discard all")
      assert get.() == nil
      insert.(2)
      Repo.query!("deallocate all")

      # In a transaction nothing can be done about it, but once; then it goes on.
      assert {:error, :rollback} =
               Repo.transaction(fn ->
                 assert_raise Postgrex.Error, ~r/26000/, fn -> get.() end
               end)

      assert {:ok, nil} = Repo.transaction(get)
    end

    @tag pool: [pool_size: 1]
    test "a statement of which the columns have changed is prepared again" do
      Repo.query!("create table shapes (a int)")
      Repo.query!("insert into shapes values (1)")
      all = fn -> Repo.query!("select * from shapes", [], cache_statement: "shapes") end
      assert %{columns: ["a"], rows: [[1]]} = all.()
      Repo.query!("alter table shapes add b text default 'x'")
      assert %{columns: ["a", "b"], rows: [[1, "x"]]} = all.()
      Repo.query!("alter table shapes alter a type text")
      assert %{columns: ["a", "b"], rows: [["1", "x"]]} = all.()
    end

    test "types that are made while it runs" do
      Repo.query!("create type mood as enum ('good', 'bad')")
      Repo.query!("create table moods (m mood, all_of mood[])")
      Repo.query!("insert into moods values ($1, $2)", ["good", ["bad", "good"]])
      assert Repo.query!("select * from moods").rows == [["good", ["bad", "good"]]]
    end

    test "columns without a binary form" do
      assert Repo.query!("select '{=r/postgres}'::aclitem[], 1").rows == [[["=r/postgres"], 1]]

      assert {:ok, [[_, 1]]} =
               Repo.transaction(fn ->
                 Repo.query!("select '=r/postgres'::aclitem, $1::int", [1]).rows
               end)
    end

    test "query_many" do
      assert [%{rows: [[1, "x"]], columns: ["a", "b"]}, %{rows: [[nil]]}, %{command: :set}] =
               Repo.query_many!("select 1 as a, 'x' as b; select null; set timezone to 'UTC'")

      assert [%{rows: [[at, n, list, map]]}] =
               Repo.query_many!(
                 "select '2026-01-01 12:00:00+00'::timestamptz, 1.50::numeric, '{1,null}'::int[], '{\"a\": 1}'::jsonb"
               )

      assert at == ~U[2026-01-01 12:00:00.000000Z] and n == Decimal.new("1.50")
      assert list == [1, nil] and map == %{"a" => 1}
      assert {:error, %Postgrex.Error{}} = Repo.query_many("select 1; select 1/0")
      assert_raise ArgumentError, ~r/no parameters/, fn -> Repo.query_many("select $1", [1]) end
    end

    test "comments" do
      assert [[text]] =
               Repo.query!("select query from pg_stat_activity where pid = pg_backend_pid()", [],
                 comment: "page=1"
               ).rows

      assert text =~ ~r"^/\*page=1\*/ select"

      assert_raise Postgrex.Error, ~r/comment/, fn ->
        Repo.query!("select 1", [], comment: "*/ drop table x")
      end

      assert {:ok, 1} = Repo.transaction(fn -> 1 end, commit_comment: "x")
    end

    @tag pool: [prepare: :unnamed]
    test "no prepared statements, for poolers" do
      for n <- 1..3 do
        assert %Item{} = Repo.insert!(%Item{name: "unnamed #{n}"})
        assert [_ | _] = Repo.all(from(i in Item, where: i.id > ^0))
        assert [[0]] = Repo.query!("select count(*) from pg_prepared_statements").rows
      end
    end

    @tag pool: [pool_size: 1, cancel_after: 2_000]
    test "a query with a deadline of its own is cancelled, and the connection goes on" do
      [[pid]] = Repo.query!("select pg_backend_pid()").rows

      assert {:error, %Postgrex.Error{postgres: %{code: :query_canceled, hint: hint}}} =
               Repo.query("select pg_sleep(30)", [], cancel_after: 50)

      assert hint =~ ":cancel_after"
      assert Repo.query!("select pg_backend_pid()").rows == [[pid]]

      # The configuration's.
      {us, {:error, %{postgres: %{code: :query_canceled}}}} =
        :timer.tc(fn -> Repo.query("select pg_sleep(30)") end)

      assert us in 1_900_000..10_000_000
      assert Repo.query!("select pg_backend_pid()").rows == [[pid]]
    end

    @tag pool: [pool_size: 1]
    test "a deadline in a transaction fails the statement, and a savepoint keeps the rest" do
      assert {:ok, 1} =
               Repo.transaction(fn ->
                 Repo.insert!(%Item{name: "kept"})

                 assert {:error, %{postgres: %{code: :query_canceled}}} =
                          Repo.query("select pg_sleep(30)", [], cancel_after: 50, mode: :savepoint)

                 Repo.aggregate(from(i in Item, where: i.name == "kept"), :count)
               end)
    end

    @tag pool: [pool_size: 1]
    test "options that cannot be cost no connection" do
      pid = fn -> Repo.query!("select pg_backend_pid()").rows end
      before = pid.()
      all = fn opts -> Repo.all(Item, opts) end

      stream = fn opts ->
        Repo.transaction(fn -> Item |> Repo.stream(opts) |> Enum.to_list() end)
      end

      for {fun, opts} <- [
            {all, [cancel_after: "50"]},
            {all, [cancel_after: 0]},
            {&Repo.query!("select 1", [], &1), [cancel_after: -1]},
            {&Repo.query_many!("select 1", [], &1), [cancel_after: 1.5]},
            {&Repo.insert!(%Item{}, &1), [cancel_after: true]},
            {stream, [cancel_after: "50"]},
            {stream, [max_rows: -1]},
            {all, [after: "0/1", after_timeout: "1"]},
            {&Repo.transaction(fn -> flunk("begun") end, &1), [after: "0/1", after_timeout: -1]},
            {&Repo.insert_all(Item, [%{price: 1}], &1), [bulk: true]},
            {&Repo.insert_all(Item, [%{price: 1}], &1), [bulk: 0]}
          ] do
        name = opts |> List.last() |> elem(0)

        assert_raise ArgumentError, ~r/option #{inspect(name)}: expected .*, got/, fn ->
          fun.(opts)
        end

        assert pid.() == before
      end

      assert {:ok, []} = stream.(max_rows: 0)
      assert all.(cancel_after: :infinity) == []
    end

    test "the server's own timeout is its error" do
      assert {:error, %Postgrex.Error{postgres: %{code: :query_canceled, message: message}}} =
               Repo.checkout(fn ->
                 Repo.query!("set statement_timeout = 50")
                 result = Repo.query("select pg_sleep(30)")
                 Repo.query!("reset statement_timeout")
                 result
               end)

      assert message =~ "statement timeout"
    end

    test "arrays, documents, times, as Ecto dumps and loads them" do
      item = %Item{
        name: "all",
        price: Decimal.new("12.50"),
        tags: ["a", "b\"c", ""],
        data: %{"a" => [1, nil, %{"b" => "ü"}]},
        at: ~U[2026-02-03 04:05:06.789012Z]
      }

      %{id: id} = Repo.insert!(item)

      assert Map.take(Repo.get(Item, id), [:name, :price, :tags, :data, :at]) ==
               Map.take(item, [:name, :price, :tags, :data, :at])

      assert [^id] =
               Repo.all(from(i in Item, where: type(i.data["a"][0], :integer) == 1, select: i.id))
    end

    test "uuids are loaded as Ecto.Adapters.Postgres loads them" do
      for type <- [Ecto.UUID, :binary_id, {:array, Ecto.UUID}],
          value <- [:rand.bytes(16), <<0::128>>, <<-1::128>>, nil, "short", 7, [:rand.bytes(16)]] do
        load = fn adapter ->
          try do
            Ecto.Type.adapter_load(adapter, type, value)
          rescue
            error -> error.__struct__
          end
        end

        assert load.(Causeway.Ecto.Adapter) == load.(Ecto.Adapters.Postgres),
               inspect({type, value})
      end
    end

    test "telemetry, as Ecto tells it" do
      me = self()
      id = make_ref()

      :telemetry.attach(
        id,
        [:causeway, :ecto_case, :repo, :query],
        fn _, measurements, metadata, _ ->
          if self() == me, do: send(me, {measurements, metadata})
        end,
        nil
      )

      Repo.all(from(i in Item, where: i.id == ^7))
      :telemetry.detach(id)
      assert_received {%{query_time: _, queue_time: _, decode_time: _, total_time: _}, metadata}
      assert %{source: "items", params: [7], query: "SELECT" <> _, repo: Repo} = metadata
      assert {:ok, %Postgrex.Result{num_rows: 0}} = metadata.result
    end

    test "decode_mapper" do
      assert Repo.query!("select 1, 2", [], decode_mapper: &List.to_tuple/1).rows == [{1, 2}]
    end

    test "prefixes" do
      Repo.query!("create schema other")
      Repo.query!("create table other.items (like items including all)")
      Repo.insert!(%Item{name: "elsewhere"}, prefix: "other")
      assert Repo.get_by(Item, name: "elsewhere") == nil
      assert %Item{} = Repo.get_by(Item, [name: "elsewhere"], prefix: "other")
    end

    # ---- configuration ----

    @tag :no_pool
    test "bad configuration is told when the pool is started", %{options: options} do
      Process.flag(:trap_exit, true)

      for {opts, message} <-
            [
              [[port: "x"], ~r/option :port: expected a number/],
              [[prepare: :never], ~r/option :prepare/],
              [[sslmode: %{}], ~r/option :sslmode/],
              [[search_path: "x"], ~r/option :search_path: expected a list/],
              [[cancel_after: "1"], ~r/option :cancel_after: expected/],
              [[log: :loud], ~r/invalid value for :log/]
            ]
            |> Enum.map(&List.to_tuple/1) do
        assert {message, {:error, reason}} =
                 {message, Repo.start_link([name: nil] ++ opts ++ options)}

        assert inspect(reason) =~ message
      end
    end

    # Intervals are Elixir's durations with it, as of Elixir 1.17.
    @tag :no_pool
    test "a module of Postgrex's types", %{options: options} do
      types = __MODULE__.Durations
      Postgrex.Types.define(types, [], interval_decode_type: Duration)
      sql = "select '1 year 2 days 3.5 s'::interval, '1 month 00:00:01'::interval month"
      {:ok, conn} = Postgrex.start_link([types: types] ++ options)
      %{rows: [[interval, month]]} = Postgrex.query!(conn, sql, [])

      use_pool(Repo, [name: nil, types: types] ++ options)
      assert Repo.query!(sql).rows == [[interval, month]]
      assert Repo.query!("select $1::interval", [interval]).rows == [[interval]]
    end

    @tag :no_pool
    test "what libpq's connection strings know", %{options: options} do
      host = "127.0.0.1:1,127.0.0.1:#{options[:port]}"
      uri = "postgresql://postgres@#{host}/#{options[:database]}?target_session_attrs=read-write"
      use_pool(Repo, name: nil, conninfo: uri, application_name: "shop", log: false)

      assert Repo.query!("select current_database()::text, current_setting('application_name')").rows ==
               [[options[:database], "shop"]]
    end

    @tag :no_pool
    test "several hosts, and parameters of the session", %{options: options} do
      port = options[:port]

      use_pool(
        Repo,
        [name: nil, endpoints: [{"127.0.0.1", 1}, {"127.0.0.1", port}], search_path: ["a", "b"]] ++
          [parameters: [application_name: "shop", work_mem: "5MB"]] ++
          Keyword.drop(options, [:hostname, :port])
      )

      assert Repo.query!("select current_setting('work_mem'), current_setting('search_path')").rows ==
               [["5MB", "a, b"]]
    end

    @tag :no_pool
    test "what is run after connecting, and options computed then", %{options: options} do
      after_connect = fn conn ->
        {:ok, _} =
          Causeway.Ecto.Adapter.Connection.query(conn, "set application_name = 'mine'", [], [])
      end

      use_pool(
        Repo,
        [name: nil, after_connect: after_connect, database: "not this one"] ++
          [configure: &Keyword.put(&1, :database, options[:database])] ++
          Keyword.delete(options, :database)
      )

      assert Repo.query!("show application_name").rows == [["mine"]]
    end

    @tag :no_pool
    test "Postgrex's functions, as Ecto's guides have them after connecting", %{options: options} do
      set = {Postgrex, :query!, ["set application_name = 'theirs'", []]}
      repo = use_pool(Repo, [name: nil, after_connect: set] ++ options)
      assert Repo.query!("show application_name").rows == [["theirs"]]

      %{pid: pool} = Ecto.Adapter.lookup_meta(repo)

      assert %{rows: [[2]], columns: ["n"]} =
               Postgrex.query!(pool, "select $1::int + 1 as n", [1])

      for _ <- 1..2,
          do: assert(%{rows: [[3]]} = Postgrex.query!(pool, "select 3", [], cache_statement: "3"))

      assert {:error, %Postgrex.Error{}} = Postgrex.query(pool, "select 1/0", [])
      assert %{rows: ["1\n"]} = Postgrex.query!(pool, "copy (select 1) to stdout", [])

      assert {:ok, [%{rows: [[1]]}]} =
               Postgrex.transaction(pool, fn conn ->
                 conn |> Postgrex.stream("select 1", []) |> Enum.to_list()
               end)
    end

    @tag :no_pool
    test "a password in a connection string is not shown to other programs" do
      opts = [conninfo: "postgresql://postgres:secret@127.0.0.1/x", database: "x"]

      assert_raise ArgumentError, ~r/:conninfo has a password/, fn ->
        Causeway.Ecto.Adapter.dump_cmd([], opts)
      end
    end

    @tag :no_pool
    test "structure is dumped and loaded with what libpq was asked", %{options: options} do
      dir = Path.join(System.tmp_dir!(), "causeway-dump-#{System.unique_integer([:positive])}")
      on_exit(fn -> File.rm_rf!(dir) end)
      adapter = Causeway.Ecto.Adapter
      uri = "postgresql://postgres@127.0.0.1:#{options[:port]}/#{options[:database]}"
      from = [conninfo: uri, database: options[:database]]
      assert {:ok, path} = adapter.structure_dump(dir, from)
      assert File.read!(path) =~ "CREATE TABLE public.items"

      to = Keyword.put(options, :database, "loaded_#{System.unique_integer([:positive])}")
      assert adapter.storage_status(to) == :down
      assert adapter.storage_up([timezone: "Asia/Tokyo"] ++ to) == :ok
      assert adapter.storage_up(to) == {:error, :already_up}
      assert {:ok, ^path} = adapter.structure_load(dir, to)
      use_pool(Repo, [name: nil] ++ to)
      assert Repo.all(Item) == []
      assert Repo.query!("show timezone").rows == [["Asia/Tokyo"]]
      assert adapter.storage_down([force_drop: true] ++ to) == :ok
      assert adapter.storage_down(to) == {:error, :already_down}
    end
  end
end
