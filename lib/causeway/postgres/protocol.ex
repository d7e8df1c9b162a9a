defmodule Causeway.Postgres.Protocol do
  @moduledoc false
  # What is said to the port program and by it; docs/port.md has it in prose. Pure, but for `open/0`: to be used by any
  # process that owns a port.
  #
  #     {:ok, port} = Protocol.open()
  #     Port.command(port, Protocol.request(1, 5_000, Protocol.connect(pairs)))
  #     receive do {^port, {:data, frame}} -> Protocol.frame(frame) end

  alias Causeway.Postgres.Program

  # The same names, in the same order, as in c_src/port/port_protocol.h.
  @names %{
    requests: ~w(connect run copy_in copy_out copy_done copy_fail credit cancel info
                replicate confirm)a,
    steps: ~w(prepare describe execute query simple close sync)a,
    replies:
      ~w(connected failed closed notification notice parameters described columns error uncommitted aborted copying taken
         replicating wal)a,
    reasons: ~w(server timeout cancelled lost protocol refused options spill wal)a,
    fields:
      ~w(severity code message detail hint position internal_position internal_query where schema table column
         data_type constraint file line routine)a
  }

  @doc "The names that stand in the program's header, for the test that compares them."
  def names, do: @names

  @typedoc "A request but for its header."
  @type body :: iodata

  @typedoc "A value of each parameter: its length in 32 bits, -1 for NULL, and its bytes."
  @type values :: binary

  @typedoc "A byte for each parameter: 0 text, 1 binary."
  @type formats :: binary

  @type step ::
          {:prepare, name :: binary, sql :: binary, oids :: binary}
          | {:describe, name :: binary}
          | {:execute, name :: binary, values, formats, 0 | 1}
          | {:query, sql :: binary, oids :: binary, values, formats, 0 | 1}
          | {:simple, sql :: binary}
          | {:close, name :: binary}
          | {:sync}

  @type column ::
          {name :: binary, oid :: non_neg_integer, typmod :: integer, table :: non_neg_integer,
           0 | 1}

  @type answer_record ::
          {:rows, non_neg_integer, values}
          | {:end, non_neg_integer, values, tag :: binary}
          | {:copy, binary}
          | {:columns, [column]}
          | {:described, [non_neg_integer], [column]}
          | {:error, why :: atom, [{atom, binary}]}
          | {:uncommitted, why :: atom, [{atom, binary}]}
          | {:aborted}
          | {:copying, 0 | 1, [0 | 1], pos_integer}
          | {:taken, pos_integer}
          | {:parameters, [{binary, binary}]}

  # ---- the program ----

  @doc "Starts the program; its owner is the caller. A patient one sleeps whenever it waits: c_src/port/port_wait.h."
  @spec open([:patient]) :: {:ok, port} | {:error, String.t()}
  def open(how \\ []) do
    with {:ok, path} <- Program.path() do
      args = for word <- how, do: "--#{word}"
      opts = [:binary, :exit_status, :hide, packet: 4, args: args]
      {:ok, Port.open({:spawn_executable, path}, opts)}
    end
  end

  @doc "What an exit status means, in a sentence."
  def exit_reason(0), do: "the port program has ended"
  def exit_reason(70), do: "the port program ran out of memory"

  def exit_reason(71),
    do: "the deadline passed while a host's name was being resolved"

  def exit_reason(72), do: "the port program ended, as nobody read what it had to say"

  def exit_reason(status) when status > 128,
    do: "the port program was ended by signal #{status - 128}"

  def exit_reason(status), do: "the port program ended with status #{status}"

  # ---- requests ----

  @doc "A request as it is sent. A timeout of 0 is none."
  @spec request(non_neg_integer, non_neg_integer, body) :: iodata
  def request(id, timeout, body), do: [<<id::32, timeout::32>> | body]

  @doc "Connects; pairs are libpq's parameters."
  @spec connect([{binary, binary}]) :: body
  def connect(pairs), do: term({:connect, pairs})

  @doc """
  Runs steps, in one round trip. With credit, no more frames are answered than that, and a frame has `max_rows` rows at
  most, of 0 any number.
  """
  @spec run([step], non_neg_integer, non_neg_integer) :: body
  def run(steps, credit \\ 0, max_rows \\ 0), do: term({:run, credit, max_rows, steps})

  @spec copy_in(binary) :: body
  def copy_in(sql), do: term({:copy_in, sql})

  @spec copy_out(binary, pos_integer) :: body
  def copy_out(sql, credit), do: term({:copy_out, sql, credit})

  @spec info() :: body
  def info, do: term({:info})

  # To what is under way.

  @spec credit(pos_integer) :: body
  def credit(n), do: term({:credit, n})

  @spec cancel() :: body
  def cancel, do: term({:cancel})

  @spec copy_data(iodata) :: body
  def copy_data(data), do: ["C" | data]

  @spec copy_done() :: body
  def copy_done, do: term({:copy_done})

  @spec copy_fail(binary) :: body
  def copy_fail(why), do: term({:copy_fail, why})

  @doc """
  Starts logical replication: the statement, where it starts, how many bytes of frames may be sent before more is given,
  the memory for streamed transactions, the milliseconds between two words to the server and those that it may be silent,
  0 for any number, the folder for files.
  """
  @spec replicate(map) :: body
  def replicate(%{sql: sql, start: start} = r) do
    term({:replicate, sql, <<start::64>>, r.credit, r.spool, r.interval, r.patience, r.dir})
  end

  @doc "So many bytes more may be sent; up to a position, 0 for none, all is done."
  @spec confirm(non_neg_integer, non_neg_integer) :: body
  def confirm(credit, lsn), do: term({:confirm, credit, <<lsn::64>>})

  @doc "OIDs as a step has them."
  @spec oids([non_neg_integer]) :: binary
  def oids(oids), do: for(oid <- oids, into: <<>>, do: <<oid::32>>)

  # Large binaries are not copied into the term.
  defp term(term) do
    if large?(term),
      do: term |> :erlang.term_to_iovec() |> within_limit(),
      else: [:erlang.term_to_binary(term)]
  end

  # What is longer the program would not read.
  @longest 0x7FFFFF00
  defp within_limit(body) do
    if :erlang.iolist_size(body) > @longest,
      do: raise(ArgumentError, "what one request sends to the server must be less than 2 GB"),
      else: body
  end

  @large 32_768
  defp large?({:run, _, _, [step]}), do: step_size(step) > @large
  defp large?({:run, _, _, steps}), do: Enum.any?(steps, &(step_size(&1) > @large))
  defp large?(_), do: false

  defp step_size({:execute, _, values, _, _}), do: byte_size(values)
  defp step_size({:query, sql, _, values, _, _}), do: byte_size(sql) + byte_size(values)
  defp step_size({:simple, sql}), do: byte_size(sql)
  defp step_size(_), do: 0

  # ---- frames ----

  @doc """
  What a frame is: a part of an answer, its last part with the transaction's state, or an event. What is in an answer
  `records/1` tells.
  """
  @spec frame(binary) ::
          {:more, binary} | {:last, state :: byte, binary} | {:event, tuple} | {:wal, binary}
  def frame(<<?A, 0, records::binary>>), do: {:more, records}
  def frame(<<?A, state, records::binary>>), do: {:last, state, records}
  def frame(<<?T, _::binary>> = transactions), do: {:wal, transactions}
  def frame(<<131, _::binary>> = term), do: {:event, :erlang.binary_to_term(term)}

  @doc "The records of a part of an answer."
  @spec records(binary) :: [answer_record]
  def records(<<>>), do: []

  def records(<<size::32, record::binary-size(size), rest::binary>>),
    do: [record(record) | records(rest)]

  defp record(<<?E, n::32, rest::binary>>) do
    tag_size = :binary.last(rest)
    size = byte_size(rest) - 1 - tag_size
    {:end, n, binary_part(rest, 0, size), binary_part(rest, size, tag_size)}
  end

  defp record(<<?R, n::32, values::binary>>), do: {:rows, n, values}
  defp record(<<?C, data::binary>>), do: {:copy, data}
  defp record(<<131, _::binary>> = term), do: :erlang.binary_to_term(term)

  @doc "So many rows of so many values each, which are texts."
  @spec text_rows(values, non_neg_integer, non_neg_integer) :: [[String.t() | nil]]
  def text_rows(_values, 0, _width), do: []

  def text_rows(values, n, width) do
    {row, values} = Enum.map_reduce(1..width//1, values, fn _, values -> text(values) end)
    [row | text_rows(values, n - 1, width)]
  end

  defp text(<<-1::signed-32, rest::binary>>), do: {nil, rest}
  defp text(<<n::32, text::binary-size(n), rest::binary>>), do: {:binary.copy(text), rest}

  @doc "A name as SQL has it."
  @spec quoted(String.t()) :: String.t()
  def quoted(name), do: ~s("#{String.replace(name, "\"", "\"\"")}")

  # ---- tags ----

  @doc "What a command tag says: the command's name and the number of rows."
  @spec tag(binary) :: {atom, non_neg_integer}
  def tag(<<"SELECT ", n::binary>>), do: {:select, String.to_integer(n)}
  def tag(<<"INSERT 0 ", n::binary>>), do: {:insert, String.to_integer(n)}
  def tag(<<"UPDATE ", n::binary>>), do: {:update, String.to_integer(n)}
  def tag(<<"DELETE ", n::binary>>), do: {:delete, String.to_integer(n)}
  def tag(<<>>), do: {:none, 0}

  def tag(tag) do
    {words, numbers} = tag |> String.split() |> Enum.split_while(&(&1 =~ ~r/^[^\d]/))
    rows = if numbers == [], do: 0, else: numbers |> List.last() |> String.to_integer()
    # There are some two hundred, all of the server's making.
    {words |> Enum.join("_") |> String.downcase() |> String.to_atom(), rows}
  end
end
