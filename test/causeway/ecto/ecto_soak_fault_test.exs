defmodule Causeway.Ecto.SoakFaultTest do
  # Faults of all kinds in random order, by several callers of one pool at once. Each caller meets the error of its fault,
  # or that of a lost connection if another's fault struck it; in the end nothing is left of any, here or on the server.
  #
  # CAUSEWAY_CONNECTS is how many faults there are (200); `make soak` makes 10,000. The order is that of `--seed`.
  use Causeway.EctoCase, async: false

  @moduletag timeout: :infinity
  @moduletag :no_pool

  with_ecto do
    import Causeway.{Eventually, Property}

    @faults String.to_integer(System.get_env("CAUSEWAY_CONNECTS") || "200")
    @size 4
    @callers 6

    # A few atoms are made once, by what is met seldom (2 in 10,000 faults); of the rarest kind there are ten times more.
    @slack %{atoms: div(@faults, 500), memory: 20_000_000}

    # How often each is in a deck of cards. A restart takes the server's time, and most of the others' with it.
    @deck [
      bad_option: 2,
      no_database: 1,
      wrong_password: 2,
      server_down: 2,
      server_restarted: 1,
      pool_exhausted: 2,
      pool_crowded: 2,
      timeout: 3,
      cancel_after: 3,
      statement_timeout: 3,
      backend_ended: 3,
      backend_ended_in_transaction: 3,
      program_killed: 3,
      programs_killed_in_transaction: 1,
      client_killed: 3,
      value_of_no_such_type: 1,
      value_of_no_such_field: 1,
      id_of_no_such_type: 1,
      text_of_no_such_type: 1,
      too_many_parameters: 1,
      one_parameter_too_many: 1,
      rolled_back: 2,
      stream_left: 2,
      copy_left: 2
    ]

    # What is killed is reported at length.
    setup_all do: Causeway.Silence.logger()

    setup do
      server = PostgresServer.start!()
      PostgresServer.psql!(server, "create role shop login password 'right'")
      PostgresServer.hba!(server, ["host all shop all scram-sha-256"])
      PostgresServer.reload!(server)
      options = [name: nil, backoff_min: 10, backoff_max: 50] ++ database(server)
      {:ok, server: server, options: options, nobody: PostgresServer.free_port()}
    end

    test "many faults at once leave nothing behind", context do
      :rand.seed(:exsss, {seed(), @faults, 6})
      context = Map.merge(context, %{others: programs(), too_many: too_many()})
      options = [pool_size: @size, idle_interval: 100, queue_target: 500]
      use_pool(Repo, options ++ context.options)

      # What is made once only is made now, as each kind makes it.
      load_all()
      deal(deck(), context)
      settle(context)
      usage()
      before = usage()
      tables = tables()

      met = deck() |> Stream.cycle() |> Enum.take(@faults) |> deal(context)
      settle(context)
      explain = "after #{inspect(met, limit: :infinity)}, seed #{seed()}"

      left = left(before, 2_000)

      assert left == [],
             "#{inspect(left)} too many, of tables #{inspect(tables() -- tables)}, #{explain}"

      assert Repo.aggregate(Item, :count) == 0, explain
      assert_server_said(PostgresServer.log(context.server), explain)

      # If none met its own error, the test has not tested it.
      if @faults >= 200, do: for({kind, _} <- @deck, do: assert(met[{kind, :met}], explain))
    end

    defp seed, do: ExUnit.configuration()[:seed]

    defp deck, do: for({kind, n} <- @deck, _ <- 1..n, do: kind)

    defp assert_server_said(log, explain) do
      assert log =~ ~s|password authentication failed for user "shop"|, explain
      assert log =~ ~s|database "nowhere" does not exist|, explain
    end

    # ---- callers ----

    # Whoever is free takes the next. Returns how often each kind had which end.
    defp deal(kinds, context) do
      kinds = kinds |> Enum.shuffle() |> List.to_tuple()
      context = Map.merge(context, %{kinds: kinds, next: :atomics.new(1, [])})

      for(n <- 1..@callers, do: apart(fn -> caller(n, context) end))
      |> Enum.map(&await/1)
      |> Enum.concat()
      |> Enum.frequencies()
    end

    # Half of them would find a link's signal in the mailbox, and the others would die of it.
    defp caller(n, context) do
      Process.flag(:trap_exit, rem(n, 2) == 0)
      :rand.seed(:exsss, {seed(), n, 7})
      met = take(context, [])
      # What comes late.
      Process.sleep(50)
      assert_nothing_came(:all)
      met
    end

    defp take(%{kinds: kinds} = context, met) do
      case :atomics.add_get(context.next, 1, 1) do
        n when n > tuple_size(kinds) ->
          met

        n ->
          kind = elem(kinds, n - 1)
          ended = kind |> fault(context) |> judge(kind)
          assert_nothing_came(kind)
          take(context, [{kind, ended} | met])
      end
    end

    defp assert_nothing_came(kind) do
      {:messages, messages} = Process.info(self(), :messages)
      assert messages == [], "#{kind} left #{inspect(messages)}, seed #{seed()}"
    end

    defp judge(ended, _) when ended in [:met, :missed], do: ended

    defp judge({:other, result}, kind) do
      assert lost?(result), "#{kind}: #{inspect(result)}, seed #{seed()}"
      :lost
    end

    # The connection is another's victim, or there is none.
    defp lost?({:error, %DBConnection.ConnectionError{}}), do: true

    defp lost?({:error, %Postgrex.Error{postgres: %{code: code}}}),
      do: code in [:admin_shutdown, :crash_shutdown, :cannot_connect_now]

    defp lost?(_), do: false

    # Whether a call ends with the error that it should.
    defmacrop meets(pattern, do: block) do
      quote do
        case outcome(fn -> unquote(block) end) do
          {:error, unquote(pattern)} -> :met
          other -> {:other, other}
        end
      end
    end

    defp outcome(fun) do
      fun.()
    rescue
      error -> {:error, error}
    end

    # ---- configuration ----

    @bad [
      [port: "x"],
      [prepare: :never],
      [sslmode: %{}],
      [search_path: "x"],
      [cancel_after: "1"],
      [log: :loud]
    ]

    # The supervisor that does not start is linked to whoever starts it.
    defp fault(:bad_option, context) do
      [{name, _}] = bad = one_of(@bad)
      {pid, monitor} = spawn_monitor(fn -> exit(Repo.start_link(bad ++ context.options)) end)
      assert_receive {:DOWN, ^monitor, :process, ^pid, reason}, 5_000
      assert inspect(reason) =~ inspect(name)
      :met
    end

    defp fault(:no_database, context),
      do: unconnected([database: "nowhere"], context)

    defp fault(:wrong_password, context),
      do: unconnected([username: "shop", password: "wr0ng"], context)

    defp fault(:server_down, context), do: unconnected([port: context.nobody], context)

    # ---- the pool ----

    defp fault(:pool_exhausted, context) do
      with_pool([pool_size: 1, queue_target: 1, queue_interval: 1], context, fn ->
        meets %DBConnection.ConnectionError{reason: :queue_timeout} do
          Repo.checkout(fn -> await(apart(fn -> Repo.query("select 1") end)) end)
        end
      end)
    end

    # Who finds it empty does not wait. That it is can only be had by chance.
    defp fault(:pool_crowded, _context) do
      crowd = for _ <- 0..@size, do: apart(fn -> outcome(fn -> sleep(0.02, []) end) end)
      Process.sleep(5)

      ended =
        meets %DBConnection.ConnectionError{message: "connection not available" <> _} do
          sleep(0, queue: false)
        end

      for result <- Enum.map(crowd, &await/1),
          do: assert(match?({:ok, _}, result) or lost?(result), inspect(result))

      if match?({:other, {:ok, _}}, ended), do: :missed, else: ended
    end

    # ---- time is up ----

    defp fault(:timeout, _context) do
      case outcome(fn -> sleep(10, timeout: between(1, 10)) end) do
        {:error, %DBConnection.ConnectionError{message: message}} = ended ->
          if message =~ "possibly due to a timeout", do: :met, else: {:other, ended}

        ended ->
          {:other, ended}
      end
    end

    defp fault(:cancel_after, _context) do
      meets %Postgrex.Error{postgres: %{code: :query_canceled}} do
        sleep(10, cancel_after: between(1, 10))
      end
    end

    defp fault(:statement_timeout, _context) do
      meets %Postgrex.Error{postgres: %{code: :query_canceled}} do
        in_transaction(fn ->
          Repo.query!("set local statement_timeout = 5")
          Repo.query!("select pg_sleep(10)")
        end)
      end
    end

    # ---- connections, programs and clients end ----

    defp fault(:backend_ended, _context) do
      meets %Postgrex.Error{postgres: %{code: :admin_shutdown}} do
        Repo.query("select pg_terminate_backend(pg_backend_pid())")
      end
    end

    defp fault(:backend_ended_in_transaction, _context) do
      meets %Postgrex.Error{postgres: %{code: :admin_shutdown}} do
        in_transaction(fn ->
          [[backend]] = Repo.query!("select pg_backend_pid()").rows
          signal(backend, "TERM")
          Process.sleep(below(10))
          Repo.query!("select pg_sleep(10)")
        end)
      end
    end

    defp fault(:program_killed, %{others: others}) do
      case programs() -- others do
        [] -> :missed
        some -> some |> one_of() |> signal("KILL") && :met
      end
    end

    defp fault(:programs_killed_in_transaction, %{others: others}) do
      meets %DBConnection.ConnectionError{} do
        in_transaction(fn ->
          signal(programs() -- others, "KILL")
          Process.sleep(below(10))
          Repo.query!("select pg_sleep(10)")
        end)
      end
    end

    defp fault(:client_killed, _context) do
      client =
        one_of([fn -> sleep(10, []) end, fn -> in_transaction(fn -> sleep(10, []) end) end])

      {pid, monitor} = spawn_monitor(pooled(client))
      Process.sleep(below(10))
      Process.exit(pid, :kill)
      assert_receive {:DOWN, ^monitor, :process, ^pid, _}, 5_000
      :met
    end

    defp fault(:server_restarted, %{server: server}) do
      mode = one_of(["fast", "immediate"])

      :global.trans({__MODULE__, self()}, fn ->
        await(apart(fn -> PostgresServer.restart!(server, mode) end))
      end)

      :met
    end

    # ---- what the caller has wrong ----

    defp fault(:value_of_no_such_type, _context),
      do: meets(%DBConnection.EncodeError{}, do: Repo.query("select $1::int", ["x"]))

    defp fault(:value_of_no_such_field, _context),
      do: meets(%Ecto.ChangeError{}, do: Repo.insert(%Item{name: 1}))

    defp fault(:id_of_no_such_type, _context),
      do: meets(%Ecto.Query.CastError{}, do: Repo.get(Item, "x"))

    defp fault(:text_of_no_such_type, _context) do
      meets %Postgrex.Error{postgres: %{code: :invalid_text_representation}} do
        Repo.query("select 'x'::int")
      end
    end

    defp fault(:too_many_parameters, %{too_many: {sql, values}}),
      do: meets(%Postgrex.QueryError{}, do: Repo.query(sql, values))

    defp fault(:one_parameter_too_many, _context),
      do: meets(%ArgumentError{}, do: Repo.query("select $1::int", [1, 2]))

    defp fault(:rolled_back, _context) do
      meets :no do
        in_transaction(fn ->
          {:error, _} = Repo.query("select 1/0")
          Repo.rollback(:no)
        end)
      end
    end

    defp fault(:stream_left, _context) do
      meets :enough do
        in_transaction(fn ->
          rows =
            Ecto.Adapters.SQL.stream(
              Repo.get_dynamic_repo(),
              "select generate_series(1, 100000)",
              [],
              max_rows: 10
            )

          Enum.each(rows, fn _ -> Repo.rollback(:enough) end)
        end)
      end
    end

    defp fault(:copy_left, _context) do
      meets :enough do
        in_transaction(fn ->
          lines = Stream.map(1..3, &if(&1 == 3, do: Repo.rollback(:enough), else: "-#{&1}\n"))

          Enum.into(
            lines,
            Ecto.Adapters.SQL.stream(Repo.get_dynamic_repo(), "copy items (id) from stdin")
          )
        end)
      end
    end

    # ---- what they have in common ----

    # In a process that is not linked: what is linked to it, such as a port of System.cmd/3, would tell a caller that traps
    # exits of its end.
    defp apart(fun) do
      fun = pooled(fun)
      spawn_monitor(fn -> exit({:done, fun.()}) end)
    end

    defp await({pid, monitor}) do
      receive do
        {:DOWN, ^monitor, :process, ^pid, {:done, result}} -> result
        {:DOWN, ^monitor, :process, ^pid, reason} -> flunk(Exception.format_exit(reason))
      end
    end

    defp signal(pids, name), do: await(apart(fn -> PostgresServer.signal(pids, name) end))

    defp sleep(seconds, opts), do: Repo.query("select pg_sleep($1)", [seconds], opts)

    # What it writes is never committed.
    defp in_transaction(fun) do
      Repo.transaction(fn ->
        Repo.insert!(%Item{tags: ["never"]})
        fun.()
        flunk("nothing went wrong")
      end)
    end

    defp unconnected(options, context) do
      with_pool([queue_target: 10, queue_interval: 10] ++ options, context, fn ->
        meets(%DBConnection.ConnectionError{reason: :queue_timeout}, do: Repo.query("select 1"))
      end)
    end

    # A pool of one's own, which ends with the fault.
    defp with_pool(options, context, fun) do
      shared = Repo.get_dynamic_repo()

      {:ok, pid} =
        Repo.start_link(Keyword.merge([pool_size: between(1, 3)] ++ context.options, options))

      Process.unlink(pid)
      Repo.put_dynamic_repo(pid)

      try do
        fun.()
      after
        Repo.put_dynamic_repo(shared)
        Supervisor.stop(pid)
      end
    end

    defp too_many do
      values = Enum.to_list(1..65_536)
      {"select " <> Enum.map_join(values, ",", &"$#{&1}::int"), values}
    end

    # ---- what is left ----

    # A module that is first used when it is too late brings its atoms; so does an error that the system meets seldom.
    defp load_all do
      _ = [:epipe, :econnreset, :ebadf]

      for app <- [
            :causeway,
            :ecto_sql,
            :ecto,
            :db_connection,
            :postgrex,
            :elixir,
            :stdlib,
            :kernel
          ],
          module <- Application.spec(app, :modules),
          do: Code.ensure_loaded(module)
    end

    # The pool has its connections again, and nobody else has any, or is at work.
    defp settle(%{server: server, others: others}) do
      eventually(
        fn ->
          match?({:ok, _}, Repo.query("select 1")) and
            length(programs() -- others) == @size and
            length(PostgresServer.backends(server)) == @size and
            PostgresServer.backends(server, "backend_type = 'client backend' and state <> 'idle'") ==
              []
        end,
        30_000
      )
    end

    # What there is more of than before, when it has had some time to go.
    defp left(before, ms) do
      now = usage()

      left =
        for {what, n} <- now,
            n > before[what] + Map.get(@slack, what, 0),
            do: {what, n - before[what]}

      if left == [] or ms <= 0 do
        left
      else
        Process.sleep(50)
        left(before, ms - 50)
      end
    end

    defp usage do
      for pid <- Process.list(), do: :erlang.garbage_collect(pid)

      %{
        processes: length(Process.list()),
        ports: length(Port.list()),
        tables: length(:ets.all()),
        atoms: :erlang.system_info(:atom_count),
        descriptors: length(Path.wildcard("/proc/self/fd/*")),
        programs: length(running()),
        memory: :erlang.memory(:total)
      }
    end

    defp tables, do: Enum.map(:ets.all(), &:ets.info(&1, :name))

    # The port programs of this VM as the operating system has them: also those that the VM does not know any more.
    defp running do
      for {"causeway_port", parent} <- Enum.map(Path.wildcard("/proc/[0-9]*"), &process/1),
          {"erl_child_setup", vm} <- [process("/proc/#{parent}")],
          vm == System.pid(),
          do: parent
    end

    defp process(dir) do
      with {:ok, stat} <- File.read(dir <> "/stat"),
           [_, name, parent] <- Regex.run(~r/\((.*)\) . (\d+)/s, stat),
           do: {name, parent}
    end
  end
end
