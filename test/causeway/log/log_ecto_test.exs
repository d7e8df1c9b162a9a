defmodule Causeway.LogEctoTest do
  # The log in transactions of Ecto repositories, with either adapter.
  use Causeway.EctoCase, async: true

  with_ecto do
    import Causeway.{Eventually, LogCase}
    alias Causeway.Log
    alias Causeway.Log.{Consumer, Error}

    @moduletag :no_pool

    defmodule Ours do
      use Ecto.Repo, otp_app: :causeway, adapter: Causeway.Ecto.Adapter
    end

    defmodule Theirs do
      use Ecto.Repo, otp_app: :causeway, adapter: Ecto.Adapters.Postgres
    end

    defmodule Handler do
      use Consumer

      # The argument is `{repo, function}`.
      @impl true
      def handle_messages(messages, %{argument: {repo, answer}, tx: repo}) do
        for %{payload: i} <- messages,
            do: repo.query!("INSERT INTO effects SELECT $1, count(*) FROM effects", [i])

        answer.(messages)
      end
    end

    setup do
      options = PostgresServer.database!(PostgresServer.shared(), log: false, pool_size: 4)
      for repo <- [Ours, Theirs], do: start_supervised!({repo, options})
      Ours.query!("CREATE TABLE effects (i int, n int)")
      Ours.query!("CREATE TABLE late (i int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
      connection = Keyword.drop(options, [:log, :pool_size])
      {:ok, options: connection, log: start_log!(%{options: connection}, partitions: 2)}
    end

    defp options(log, repo, answer, opts) do
      Keyword.merge(
        [
          log: log,
          group: "g",
          handler: {Handler, {repo, answer}},
          transactional: repo,
          lease: 600,
          backoff: {5, 20},
          from: :beginning,
          batch: 5
        ],
        opts
      )
    end

    defp consume!(log, repo, answer, opts \\ []) do
      child = {Consumer, options(log, repo, answer, opts)}
      start_supervised!(Supervisor.child_spec(child, id: make_ref(), restart: :temporary))
    end

    defp effects(repo), do: Enum.concat(repo.query!("SELECT i FROM effects ORDER BY i").rows)

    defp group(log) do
      # Its own connection may have been killed just now.
      with {:ok, groups} <- Log.consumers(log), do: Enum.find(groups, &(&1.group == "g"))
    end

    defp publish!(log, numbers),
      do: {:ok, _} = Log.publish_many(log, for(i <- numbers, do: {"t.#{rem(i, 7)}", i}))

    for repo <- [Ours, Theirs] do
      @repo repo

      test "#{inspect(repo)}: what is published in a transaction comes with its commit", %{
        log: log
      } do
        {:ok, ref, _} = Log.subscribe(log, "orders")

        assert {:error, :no} =
                 @repo.transaction(fn ->
                   :ok = Log.publish(log, "orders", :never, in: @repo)
                   @repo.rollback(:no)
                 end)

        {:ok, :ok} =
          @repo.transaction(fn ->
            :ok = Log.publish(log, "orders", :one, in: @repo)
            nothing(ref)
            Log.publish(log, "orders", :two, in: @repo)
          end)

        assert [:one, :two] = Enum.map(receive_messages(ref, 2), & &1.payload)
        nothing(ref)
      end

      test "#{inspect(repo)}: a handler fails in every way, and each message counts once", %{
        log: log
      } do
        publish!(log, 1..60)

        answer = fn messages ->
          case {hd(messages).payload, hd(messages).deliveries} do
            {_, n} when n > 3 -> :ok
            {i, _} when rem(i, 5) == 0 -> raise "no #{i}"
            {i, _} when rem(i, 5) == 1 -> @repo.rollback(:by_itself)
            {i, _} when rem(i, 5) == 2 -> {:error, :returned}
            {i, _} when rem(i, 5) == 3 -> late(@repo)
            _ -> :ok
          end
        end

        consume!(log, @repo, answer)
        eventually(fn -> match?(%{lag: 0, parked: 0, dead: 0}, group(log)) end, 30_000)
        assert effects(@repo) == Enum.to_list(1..60)
        assert @repo.query!("SELECT count(*) FROM late").rows == [[0]]
      end

      test "#{inspect(repo)}: exactly once, while its connections and its members are killed",
           context do
        %{log: log, options: options} = context
        seed = String.to_integer(System.get_env("CAUSEWAY_SEED") || "#{:rand.uniform(1_000_000)}")
        :rand.seed(:exsss, {seed, 1, 2})
        answer = fn _ -> if :rand.uniform(10) == 1, do: {:error, :now_and_then}, else: :ok end

        publish!(log, 1..400)

        for _ <- 1..8 do
          opts = options(log, @repo, answer, lease: 300, max_deliveries: 1000)
          {:ok, member} = Consumer.start_link(opts)
          Process.unlink(member)
          Process.sleep(:rand.uniform(150))
          kill_connections(options)
          Process.sleep(:rand.uniform(150))
          Process.exit(member, :kill)
        end

        consume!(log, @repo, fn _ -> :ok end, max_deliveries: 1000)

        eventually(fn -> match?(%{lag: 0, parked: 0, dead: 0}, group(log)) end, 30_000)
        assert effects(@repo) == Enum.to_list(1..400), "seed #{seed}"
      end
    end

    test "a repository that is not there, or on another database", %{log: log} do
      test = self()

      :telemetry.attach(
        inspect(test),
        [:causeway, :log, :claim_failed],
        fn _, _, about, _ -> send(test, {:claim_failed, about}) end,
        nil
      )

      on_exit(fn -> :telemetry.detach(inspect(test)) end)

      stop_supervised!(Ours)
      consume!(log, Ours, fn _ -> :ok end)

      assert_receive {:claim_failed,
                      %{error: %Error{reason: {:not_seen, Ours, "g", why}} = error}}

      assert Exception.message(why) =~ "could not lookup Ecto repo"

      assert Exception.message(error) =~
               "has to run before its consumers, on the log's own database"

      start_supervised!({Ours, PostgresServer.database!(PostgresServer.shared(), log: false)})

      assert_receive {:claim_failed,
                      %{error: %Error{reason: {:not_seen, Ours, "g", %Postgrex.Error{}}}}}

      assert_raise Error,
                   ~r/:transactional: expected true, false or an Ecto repository, got String/,
                   fn ->
                     Consumer.start_link(options(log, Ours, nil, transactional: String))
                   end
    end

    test "a repository whose transactions would not see acknowledgements", context do
      stop_supervised!(Ours)
      level = [parameters: [default_transaction_isolation: "repeatable read"], log: false]
      start_supervised!({Ours, level ++ context.options})
      rt = Log.Runtime.fetch!(context.log)
      consume!(context.log, Theirs, fn _ -> :ok end)
      eventually(fn -> group(context.log) end)

      assert {:error, %Error{reason: {:isolation, Ours, "repeatable read"}} = error} =
               Log.Groups.seen_by(Ours, rt, "g")

      assert Exception.message(error) =~ "read committed"
      assert :ok = Log.Groups.seen_by(Theirs, rt, "g")
    end

    test "a repository that is in no transaction publishes nothing", %{log: log} do
      for publish <- [
            fn -> Log.publish(log, "t", 1, in: Ours) end,
            fn ->
              Ours.transaction(fn ->
                Task.await(Task.async(fn -> catch_error(Log.publish(log, "t", 1, in: Ours)) end))
                |> raise()
              end)
            end
          ],
          do:
            assert_raise(
              Error,
              ~r/option :in: .*Ours is in no transaction of this process/,
              publish
            )

      assert {:ok, ref, _} = Log.subscribe(log, "t", from: :beginning)
      nothing(ref)
    end

    test "a call that takes longer than the repository's timeout", %{log: log, options: options} do
      publish!(log, [1])

      slow = fn _ ->
        Process.sleep(300)
        :ok
      end

      stop_supervised!(Ours)
      start_supervised!({Ours, [timeout: 100, log: false] ++ options})
      consume!(log, Ours, slow, max_deliveries: 1)
      eventually(fn -> match?(%{lag: 0, parked: 0, dead: 0}, group(log)) end)
      assert effects(Ours) == [1]
    end

    # Found out by COMMIT.
    defp late(repo) do
      for _ <- 1..2, do: repo.query!("INSERT INTO late VALUES (1)")
      :ok
    end

    defp kill_connections(options) do
      PostgresServer.psql!(
        PostgresServer.shared(),
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity " <>
          "WHERE datname = '#{options[:database]}' AND backend_type = 'client backend'"
      )
    end
  end
end
