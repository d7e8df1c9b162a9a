defmodule Causeway.Postgres.PortProgramTest do
  # The port program alone, by its protocol: what it makes of requests that no VM sends, of ends, and of time.
  use ExUnit.Case, async: true

  import Causeway.Eventually
  import Causeway.PostgresCase, only: [alive?: 1]
  alias Causeway.Postgres.Protocol
  import Causeway.Property
  alias Causeway.{PostgresServer, StallProxy}
  import Bitwise

  @moduletag :postgres
  @moduletag :asan

  setup_all do
    options = PostgresServer.database!()

    pairs =
      for {name, key} <- [hostname: "host", port: "port", username: "user", database: "dbname"],
          do: {key, to_string(options[name])}

    {:ok, pairs: pairs}
  end

  defp open do
    {:ok, port} = Protocol.open()
    port
  end

  defp ask(port, id, timeout \\ 5000, body),
    do: Port.command(port, Protocol.request(id, timeout, body))

  defp next(port, wait \\ 10_000) do
    receive do
      {^port, {:data, frame}} ->
        case Protocol.frame(frame) do
          {:event, event} -> event
          {:more, records} -> {:more, Protocol.records(records)}
          {:last, state, records} -> {:last, state, Protocol.records(records)}
        end

      {^port, {:exit_status, status}} ->
        {:exit, status}
    after
      wait -> :nothing
    end
  end

  defp connected(pairs) do
    port = open()
    ask(port, 1, Protocol.connect(pairs))
    assert {:connected, 1, facts} = next(port)
    assert is_integer(facts[:pid])
    port
  end

  defp term(term), do: :erlang.term_to_binary(term)

  test "the names are those of the header" do
    header = File.read!("c_src/port/port_protocol.h")

    for {list, names} <- Protocol.names() do
      [_, text] =
        Regex.run(~r/#define PORT_#{String.upcase("#{list}")}\(X\)((?:.*\\\n)*.*)/, header)

      there = for [_, name] <- Regex.scan(~r/X\((\w+)/, text), do: String.to_atom(name)
      assert {list, names -- there, there -- names} == {list, [], []}
      assert names == Enum.filter(there, &(&1 in names))
    end
  end

  describe "requests that no VM sends" do
    @requests [
      "",
      "short",
      <<0::64>>,
      <<0::64, 131>>,
      <<0::64, 130, 104, 1>>,
      <<0::64, 131, 104, 0>>,
      <<0::64, 131, 104, 1, 97, 1>>,
      <<0::64, 131, 104, 1, 119, 255, "run">>,
      <<0::64, 131, 104, 1, 100, 255, 255, "run">>,
      <<0::64, 131, 108, 255, 255, 255, 255, 97, 1, 106>>,
      <<0::64, 131, 104, 2, 119, 7, "connect", 108, 255, 255, 255, 255, 104, 2>>,
      <<0::64, 131, 104, 2, 119, 7, "connect", 108, 0, 0, 0, 0, 106>>,
      <<0::64, 131, 104, 2, 119, 7, "connect", 108, 0, 0, 0, 1, 104, 2, 109, 255, 255, 255, 255,
        "x">>
    ]

    @terms [
      {:nonsense},
      {:connect},
      {:connect, []},
      {:connect, :x},
      {:connect, [{"host"}]},
      {:connect, [{"host", 1}]},
      {:connect, [{"host", "a\0b"}]},
      {:connect, [{"host", "x"} | :tail]},
      {:run, 0, 0, [{:simple, "select 1"}]},
      {:info},
      {:copy_in, "x"}
    ]

    test "end it before it is connected, and it says so" do
      # An empty list of parameters is one: libpq's defaults.
      for frame <-
            @requests ++ for(term <- @terms, term != {:connect, []}, do: <<0::64>> <> term(term)) do
        port = open()
        Port.command(port, frame)
        assert {:closed, :protocol, _} = next(port)
        assert {:exit, 0} = next(port)
      end
    end

    test "end it when it is", %{pairs: pairs} do
      values = <<4::32, 1::32>>

      terms = [
        {:connect, []},
        {:run, 0, 0, []},
        {:run, 0, 0},
        {:run, -1, 0, [{:simple, "select 1"}]},
        {:run, 0, 1 <<< 33, [{:simple, "select 1"}]},
        {:run, 0, 0, [{:simple, "select 1"}, {:simple, "select 1"}]},
        {:run, 0, 0, [{:simple, "select 1"}, {:sync}]},
        {:run, 0, 0, [{:sync}]},
        {:run, 0, 0, [{:simple, "select \0 1"}]},
        {:run, 0, 0, [{:nonsense, "x"}]},
        {:run, 0, 0, [:sync]},
        {:run, 0, 0, [{:prepare, "a", "b", "123"}]},
        {:run, 0, 0, [{:execute, "a", values, "", 1}]},
        {:run, 0, 0, [{:execute, "a", values, <<1, 1>>, 1}]},
        {:run, 0, 0, [{:execute, "a", values, <<2>>, 1}]},
        {:run, 0, 0, [{:execute, "a", values, <<1>>, 2}]},
        {:run, 0, 0, [{:execute, "a", <<5::32, 1::32>>, <<1>>, 1}]},
        {:run, 0, 0, [{:execute, "a", <<-2::32>>, <<1>>, 1}]},
        {:run, 0, 0, [{:execute, "a", <<3::32, "a", 0, "b">>, <<0>>, 1}]},
        {:run, 0, 0,
         [
           {:query, "select 1", "", :binary.copy(<<-1::32>>, 65_536), :binary.copy(<<1>>, 65_536),
            1}
         ]},
        {:copy_in},
        {:copy_out, "copy", "x"},
        {:info, 1}
      ]

      for term <- terms do
        port = connected(pairs)
        Port.command(port, <<0::64>> <> term(term))
        assert {^term, {:closed, :protocol, _}} = {term, next(port)}
        assert {:exit, 0} = next(port)
      end
    end

    property "of random bytes, and of good ones that were changed", runs: 60 do
      good =
        for body <- [
              Protocol.connect([{"host", "/nowhere"}]),
              Protocol.run([{:prepare, "a", "select 1", ""}, {:sync}])
            ],
            do: IO.iodata_to_binary(Protocol.request(1, 100, body))

      frame =
        case :rand.uniform(3) do
          1 -> :rand.bytes(:rand.uniform(100))
          2 -> good |> Enum.random() |> changed()
          3 -> good |> Enum.random() |> changed() |> changed() |> part()
        end

      port = open()
      Port.command(port, frame)
      # One that is good still does not reach anybody.
      assert match?({what, _, _} when what in [:closed, :failed], next(port, 300) |> short()) or
               close(port)
    end

    defp short({:failed, id, why, _}), do: {:failed, id, why}
    defp short(other), do: other

    defp close(port) do
      {:os_pid, pid} = Port.info(port, :os_pid) || {:os_pid, nil}
      if pid, do: Port.close(port)
      if pid, do: eventually(fn -> not alive?(pid) end)
      true
    end

    defp changed(frame) do
      at = :rand.uniform(byte_size(frame)) - 1
      {before, <<_, rest::binary>>} = :erlang.split_binary(frame, at)
      <<before::binary, :rand.uniform(256) - 1, rest::binary>>
    end

    defp part(frame), do: binary_part(frame, 0, :rand.uniform(byte_size(frame)))

    test "while another one is under way", %{pairs: pairs} do
      port = connected(pairs)
      ask(port, 2, Protocol.run([{:simple, "select pg_sleep(10)"}]))
      ask(port, 3, Protocol.info())
      assert {:closed, :protocol, _} = next(port)
      assert {:exit, 0} = next(port)
    end

    test "a frame that says it is longer than any" do
      port =
        Port.open({:spawn_executable, elem(Causeway.Postgres.Program.path(), 1)}, [
          :binary,
          :exit_status
        ])

      Port.command(port, <<0xFFFFFFFF::32, "x">>)
      assert_receive {^port, {:data, data}}, 2000
      assert data =~ "longer than"
      assert_receive {^port, {:exit_status, 0}}, 2000
    end
  end

  test "what comes late, or for another request, is ignored", %{pairs: pairs} do
    port = connected(pairs)

    for body <- [
          Protocol.cancel(),
          Protocol.credit(1),
          Protocol.copy_done(),
          Protocol.copy_data("x")
        ],
        do: ask(port, 2, body)

    ask(port, 3, Protocol.run([{:simple, "select pg_sleep(0.2)"}]))

    for body <- [
          Protocol.cancel(),
          Protocol.credit(1),
          Protocol.copy_fail("x"),
          Protocol.copy_data("x")
        ],
        do: ask(port, 2, body)

    assert {:last, ?I, [{:columns, _}, {:end, 1, _, "SELECT 1"}]} = next(port)
    ask(port, 3, Protocol.cancel())
    ask(port, 4, Protocol.info())
    assert {:last, ?I, [{:parameters, [_ | _]}]} = next(port)
  end

  test "frames in pieces, and several in one", %{pairs: pairs} do
    port =
      Port.open({:spawn_executable, elem(Causeway.Postgres.Program.path(), 1)}, [
        :binary,
        :exit_status
      ])

    requests = [Protocol.request(1, 5000, Protocol.connect(pairs))]

    bytes =
      IO.iodata_to_binary(
        for r <- requests, r = IO.iodata_to_binary(r), do: [<<byte_size(r)::32>>, r]
      )

    for <<byte <- bytes>>, do: Port.command(port, <<byte>>)
    assert_receive {^port, {:data, <<_::32, 131, _::binary>>}}, 10_000

    one = fn id ->
      (r = IO.iodata_to_binary(Protocol.request(id, 0, Protocol.run([{:simple, "select #{id}"}])))) &&
        <<byte_size(r)::32, r::binary>>
    end

    Port.command(port, one.(7))
    assert_receive {^port, {:data, <<_::32, "A", ?I, _::binary>>}}, 10_000
    Port.close(port)
  end

  test "nothing is answered beyond the credit", %{pairs: pairs} do
    port = connected(pairs)
    ask(port, 2, Protocol.run([{:query, "select generate_series(1, 45)", "", "", "", 1}], 2, 10))
    assert {:more, [{:columns, _}, {:rows, 10, _}]} = next(port)
    assert {:more, [{:rows, 10, _}]} = next(port)
    assert :nothing = next(port, 100)
    ask(port, 2, Protocol.credit(2))
    assert {:more, [{:rows, 10, _}]} = next(port)
    assert {:more, [{:rows, 10, _}]} = next(port)
    assert :nothing = next(port, 100)
    ask(port, 2, Protocol.credit(1))
    assert {:last, ?I, [{:end, 5, _, "SELECT 45"}]} = next(port)
  end

  # Between the program and this VM is somebody who can be stopped.
  defp gated(pairs) do
    {:ok, path} = Causeway.Postgres.Program.path()
    file = Path.join(System.tmp_dir!(), "causeway-gate-#{System.unique_integer([:positive])}")
    on_exit(fn -> for end_ <- ~w(program reader), do: File.rm("#{file}.#{end_}") end)

    script = """
    sh -c 'echo $$ >"$1.program"; exec "$0"' "$0" "$1" | sh -c 'echo $$ >"$0.reader"; exec cat' "$1"
    """

    args = ["-c", script, path, file]

    port =
      Port.open({:spawn_executable, "/bin/sh"}, [:binary, :exit_status, packet: 4, args: args])

    ask(port, 1, Protocol.connect(pairs))
    assert {:connected, 1, _} = next(port)

    [program, reader] =
      for end_ <- ~w(program reader),
          do: "#{file}.#{end_}" |> File.read!() |> String.trim() |> String.to_integer()

    {port, program, reader}
  end

  defp most_rss(os_pid, times) do
    Enum.max(
      for _ <- 1..times do
        Process.sleep(20)
        [_, kb] = Regex.run(~r/VmRSS:\s+(\d+)/, File.read!("/proc/#{os_pid}/status"))
        String.to_integer(kb)
      end
    )
  end

  defp assert_small(program) do
    if File.exists?("/proc/self/status") and System.get_env("CAUSEWAY_PORT") == nil,
      do: assert(most_rss(program, 50) < 40_000)
  end

  test "a VM that does not read stops it from reading", %{pairs: pairs} do
    {port, program, reader} = gated(pairs)
    PostgresServer.signal(reader, "STOP")
    sql = "select repeat('x', 1000) from generate_series(1, 200000)"
    ask(port, 2, 60_000, Protocol.run([{:query, sql, "", "", "", 1}]))
    assert_small(program)
    PostgresServer.signal(reader, "CONT")
    assert {200_000, values} = values(port)
    assert byte_size(values) == 200_000 * 1_004
    Port.close(port)
    eventually(fn -> not alive?(program) end)
  end

  test "nor does it when nothing runs", %{pairs: pairs} do
    {port, program, reader} = gated(pairs)
    ask(port, 2, Protocol.run([{:simple, "listen flood"}]))
    assert {:last, ?I, [{:end, 0, _, "LISTEN"}]} = next(port)
    PostgresServer.signal(reader, "STOP")
    other = connected(pairs)
    n = 10_000

    sql =
      "select pg_notify('flood', i || ' ' || repeat('x', 7900)) from generate_series(1, #{n}) i"

    ask(other, 2, 60_000, Protocol.run([{:query, sql, "", "", "", 1}]))
    assert {:last, ?I, _} = last(other)

    # 79 MB.
    assert_small(program)
    PostgresServer.signal(reader, "CONT")

    for i <- 1..n do
      assert {:notification, _, "flood", payload} = next(port)
      assert String.starts_with?(payload, "#{i} x")
    end

    Port.close(port)
    eventually(fn -> not alive?(program) end)
  end

  defp last(port) do
    case next(port, 60_000) do
      {:more, _} -> last(port)
      other -> other
    end
  end

  # The values of an answer in as many frames as it takes, and how many rows they are.
  defp values(port, rows \\ 0, values \\ []) do
    {which, records} =
      case next(port) do
        {:more, records} -> {:more, records}
        {:last, ?I, records} -> {:last, records}
      end

    more =
      for record <- records,
          elem(record, 0) in [:rows, :end],
          do: {elem(record, 1), elem(record, 2)}

    rows = rows + Enum.sum(for {n, _} <- more, do: n)
    values = [values | for({_, bytes} <- more, do: bytes)]
    if which == :more, do: values(port, rows, values), else: {rows, IO.iodata_to_binary(values)}
  end

  test "answers and requests of sizes around its buffers", %{pairs: pairs} do
    port = connected(pairs)
    around = fn sizes -> Enum.flat_map(sizes, &Enum.to_list((&1 - 12)..(&1 + 4))) end

    for {n, rows} <-
          for(n <- around.([65_536, 131_072]), do: {n, 1}) ++
            for(n <- around.([21_845, 32_768]), do: {n, 7}) do
      sql = "select repeat('x', #{n}) from generate_series(1, #{rows})"
      ask(port, 2, Protocol.run([{:query, sql, "", "", "", 1}]))
      value = <<n::32, String.duplicate("x", n)::binary>>
      assert {n, values(port)} == {n, {rows, String.duplicate(value, rows)}}
    end

    for n <- around.([16_384, 32_768, 65_536, 131_072, 1_048_576]) do
      sql = "select length('#{String.duplicate("x", n - 20)}')"
      ask(port, 2, Protocol.run([{:simple, sql}]))
      length = "#{n - 20}"
      assert values(port) == {1, <<byte_size(length)::32, length::binary>>}
    end
  end

  test "what is done waits for its cancel, until its deadline", %{pairs: pairs} do
    {_, number} = List.keyfind(pairs, "port", 0)
    {:ok, proxy} = StallProxy.start_link(String.to_integer(number))
    port = connected(pairs ++ [{"port", "#{StallProxy.port(proxy)}"}])
    StallProxy.hold(proxy)

    # COPY is refused, and so cancelled; it has ended when the cancel is still trying to reach the server.
    ask(port, 2, 1_000, Protocol.run([{:simple, "copy (select 1) to stdout"}]))
    assert {:more, [{:error, :refused, _}]} = next(port)
    assert {:closed, :lost, message} = next(port)
    assert message =~ "cancel took too long"
    assert {:exit, 0} = next(port)
  end

  test "a pipeline longer than what sockets hold, with its results, and one that is cancelled", %{
    pairs: pairs
  } do
    port = connected(pairs)
    value = String.duplicate("v", 200_000)
    params = <<byte_size(value)::32, value::binary>>
    step = {:query, "select $1::text", <<25::32>>, params, <<0>>, 1}

    # While it sends, libpq takes in what it cannot leave: at the end it may have all that is to come, with no more to be
    # read. Some rounds, as that is a matter of who is faster.
    for _ <- 1..10, sync <- [[], [{:sync}]] do
      ask(port, 2, 60_000, Protocol.run(List.duplicate(step, 200) ++ sync))
      assert values(port) == {200, String.duplicate(params, 200)}
    end

    # Its steps are answered all the same, those that were not yet sent, too.
    sleep = {:query, "select pg_sleep(60)", "", "", "", 1}
    ask(port, 3, 300, Protocol.run([sleep | List.duplicate(step, 200)]))
    assert [{:error, :timeout, _} | aborted] = ends(port)
    assert aborted == List.duplicate({:aborted}, 200)
    ask(port, 4, Protocol.run([{:simple, "select 1"}]))
    assert {:last, ?I, _} = next(port)
  end

  defp ends(port) do
    case next(port) do
      {:more, records} -> Enum.filter(records, &(elem(&1, 0) in [:error, :aborted])) ++ ends(port)
      {:last, ?I, records} -> Enum.filter(records, &(elem(&1, 0) in [:error, :aborted]))
    end
  end

  test "ends with its input, whatever it does", %{pairs: pairs} do
    jobs = [
      nil,
      Protocol.run([{:simple, "select pg_sleep(100)"}]),
      Protocol.run([{:query, "select generate_series(1, 100000000)", "", "", "", 1}], 1, 10),
      Protocol.run([{:query, "select generate_series(1, 1000000)", "", "", "", 1}]),
      Protocol.copy_in("copy pg_temp.t from stdin"),
      Protocol.copy_out("copy (select generate_series(1, 100000000)) to stdout", 1)
    ]

    for job <- jobs do
      port = connected(pairs)
      {:os_pid, pid} = Port.info(port, :os_pid)
      ask(port, 2, Protocol.run([{:simple, "create temp table t (a int)"}]))
      assert {:last, ?I, _} = next(port)
      if job, do: ask(port, 3, job)
      Process.sleep(20)
      Port.close(port)
      eventually(fn -> not alive?(pid) end)
    end

    # While connecting to somebody who does not answer.
    {:ok, listener} = :gen_tcp.listen(0, ip: {127, 0, 0, 1})
    {:ok, number} = :inet.port(listener)
    port = open()
    {:os_pid, pid} = Port.info(port, :os_pid)
    ask(port, 1, 60_000, Protocol.connect([{"host", "127.0.0.1"}, {"port", "#{number}"}]))
    Process.sleep(100)
    assert alive?(pid)
    Port.close(port)
    eventually(fn -> not alive?(pid) end)
  end

  test "says what is wrong with options without saying it", %{pairs: pairs} do
    for {pairs, why} <- [
          {[{"nonsense", "1"}], :options},
          {[{"dbname", "host=x pass word"}], :options},
          {[{"dbname", "postgresql://x?y=z"}], :options},
          {[{"sslmode", "nonsense"}], :refused},
          {pairs ++ [{"port", "0x"}], :refused},
          {pairs ++ [{"dbname", "nowhere"}], :refused}
        ] do
      port = open()
      ask(port, 1, Protocol.connect(pairs))
      assert {:failed, 1, ^why, _} = next(port)
      assert {:exit, 0} = next(port)
    end
  end
end
