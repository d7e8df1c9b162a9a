defmodule Causeway.Postgres.WAL.FailoverTest do
  # A standby that becomes the primary, and what that means for positions.
  use Causeway.WalCase, async: true
  alias Causeway.Postgres.WAL.Timeline

  doctest Timeline

  defp insert!(context, id), do: sql!(context, "insert into t values (#{id})")
  defp id(%{changes: [%{new: %{"id" => id}}]}), do: id

  setup do
    primary = PostgresServer.start!()
    PostgresServer.psql!(primary, "create table t (id int primary key)")
    standby = PostgresServer.standby!(primary)
    {:ok, proxy} = StallProxy.start_link(standby.port)
    endpoints = for port <- [primary.port, StallProxy.port(proxy)], do: {"127.0.0.1", port}

    options =
      primary
      |> PostgresServer.options()
      |> Keyword.drop([:hostname, :port])
      |> Keyword.merge(endpoints: endpoints, target_server_type: :primary)

    {:ok, server: primary, standby: standby, proxy: proxy, options: options, database: "postgres"}
  end

  defp replayed?(context) do
    lsn = sql!(context, "select pg_current_wal_lsn()")
    PostgresServer.psql!(context.standby, "select pg_last_wal_replay_lsn() >= '#{lsn}'") == "t\n"
  end

  test "to a standby that has everything, and the slot", context do
    wal = start_wal!(context)
    for id <- 1..3, do: insert!(context, id)
    for id <- 1..3, do: assert(id(next()) == id)
    eventually(fn -> replayed?(context) end)

    StallProxy.refuse(context.proxy)
    PostgresServer.stop!(context.server)
    receive_event(:disconnected)
    PostgresServer.promote!(context.standby)
    now = %{context | server: context.standby}

    # Before 17, standbys have no slots of their primaries; somebody makes it before there is something to miss.
    sql!(now, "select pg_create_logical_replication_slot('#{slot_name(context)}', 'pgoutput')")
    StallProxy.accept(context.proxy)
    about = receive_event(:connected, 30_000)
    assert about.timeline == 2
    assert about.port == "#{StallProxy.port(context.proxy)}"
    insert!(now, 4)
    assert id(next()) == 4
    refute_received {:event, {:gap, _}}
    refute_received {:event, {:rewound, _}}
    assert %{timeline: 2, connects: 2} = WAL.info(wal)
  end

  test "to a standby that lacks some of what was delivered", context do
    start_wal!(context, on_slot_lost: :recreate)
    insert!(context, 1)
    one = next()
    eventually(fn -> replayed?(context) end)

    # What comes now, the standby does not get.
    PostgresServer.stop!(context.standby)
    for id <- 2..5, do: insert!(context, id)
    [_, _, _, five] = for _ <- 2..5, do: next()
    PostgresServer.kill!(context.server)
    PostgresServer.start_again(context.standby)
    PostgresServer.promote!(context.standby)
    now = %{context | server: context.standby}
    assert sql!(now, "select max(id) from t") == "1"

    assert %{why: _} = receive_event(:slot_lost, 30_000)
    assert %{from: from, to: to, timeline: 2} = receive_event(:rewound)
    assert from == five.end_lsn
    assert to >= one.end_lsn and to < from
    assert %{from: ^to, why: :new_slot} = receive_event(:gap)
    receive_event(:connected)

    # On the new timeline positions come again that were there before.
    for id <- 6..8, do: insert!(now, id)
    transactions = for id <- 6..8, do: next() |> tap(&assert(id(&1) == id))
    assert hd(transactions).end_lsn < five.end_lsn + 100_000
    eventually(fn -> slot(now).confirmed >= List.last(transactions).end_lsn end)
  end

  test "a standby that has no slot is not one that has lost it", context do
    stop_wal(start_wal!(context))
    eventually(fn -> replayed?(context) end)
    # Only the standby is there, and any server will do.
    options = PostgresServer.options(context.standby)
    wal = start_wal(context, connection: options, create_publication: nil)
    assert %{error: %{reason: {:standby, _}} = error} = receive_event(:disconnected)
    assert Exception.message(error) =~ "target_server_type: :primary"
    assert Process.alive?(wal)
  end

  test "where the positions of two timelines part" do
    server = fn timeline, history -> %{system_id: "1", timeline: timeline, history: history} end
    common = fn one, other, flushed -> elem(Timeline.common(one, other, flushed), 1) end

    assert common.(server.(1, []), server.(1, []), 100) == 100
    assert common.(server.(1, []), server.(2, [{1, 70}]), 100) == 70
    # Back to the old primary, which nobody has rewound.
    assert common.(server.(2, [{1, 70}]), server.(1, []), 100) == 70
    assert common.(server.(2, [{1, 70}]), server.(3, [{1, 70}, {2, 90}]), 200) == 90
    # Two standbys that were promoted.
    assert common.(server.(2, [{1, 70}]), server.(3, [{1, 60}]), 200) == 60
    assert common.(server.(3, [{1, 60}]), server.(4, [{1, 60}, {3, 80}]), 200) == 80
    assert common.(server.(1, []), %{server.(1, []) | system_id: "2"}, 100) == 0
    assert common.(nil, server.(5, []), 100) > 0xFFFFFFFF

    assert Timeline.parse("\\x" <> Base.encode16("1\t0/30\tx\n2\tA/0\tno\n")) == [
             {1, 0x30},
             {2, 0xA00000000}
           ]
  end
end
