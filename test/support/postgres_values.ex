defmodule Causeway.PostgresValues do
  @moduledoc false
  # Values that a server stores, sends and prints, by way of psql and COPY: what our own codec is compared with,
  # without the program that talks to the server for us.
  #
  # | "PGCOPY\n\377\r\n\0" | flags, 32 bits | length, 32 bits | row ... | -1, 16 bits |

  alias Causeway.PostgresServer

  @header <<"PGCOPY\n", 255, "\r\n", 0, 0::64>>

  @doc """
  Stores values of types, given as literals and as rows in the binary form of COPY, each of one field. Gives for each
  type the binary form and the text of each value. All in one session, as to start psql takes longer than the rest.
  """
  def stored(database, list) do
    {scripts, files} = list |> Enum.with_index() |> Enum.map(&store/1) |> Enum.unzip()
    psql(database, scripts)
    Enum.map(files, &read/1)
  end

  defp store({{type, literals, rows}, i}) do
    {into, out} = {file(), file()}
    File.write!(into, [@header, rows, <<-1::16>>])

    {[
       "create temp table stored#{i} (i serial, v #{type});\n",
       for(
         literal <- literals,
         do: "insert into stored#{i} (v) values (#{quote_literal(literal)});\n"
       ),
       "\\copy stored#{i} (v) from '#{into}' with (format binary)\n",
       copy("select v, format('%s', v) from stored#{i} order by i", out)
     ], out}
  end

  @doc "Stores rows in the binary form of COPY, and gives what the server then sends."
  def round_trip(database, types, rows) do
    {into, out} = {file(), file()}
    File.write!(into, [@header, rows, <<-1::16>>])
    columns = for {type, i} <- Enum.with_index(types), do: ", c#{i} #{type}"
    "," <> names = for {_type, i} <- Enum.with_index(types), into: "", do: ", c#{i}"

    psql(database, [
      "create temp table stored (i serial#{columns});\n",
      "\\copy stored (#{names}) from '#{into}' with (format binary)\n",
      copy("select #{names} from stored order by i", out)
    ])

    read(out)
  end

  @doc "What a query gives, a row as a list of binary values."
  def selected(database, query) do
    out = file()
    psql(database, copy(query, out))
    read(out)
  end

  @doc "A query's rows as text, for Causeway.Postgres.Types; of names without tabs and the like."
  def texts(database, query) do
    query = "copy (#{query}) to stdout"
    lines = PostgresServer.psql!(PostgresServer.shared(), query, database[:database])
    {:ok, for(line <- String.split(lines, "\n", trim: true), do: text_fields(line))}
  end

  defp text_fields(line) do
    for field <- String.split(line, "\t"), do: if(field == "\\N", do: nil, else: field)
  end

  def oid(database, type) do
    {:ok, [[oid]]} = texts(database, "select to_regtype('#{type}')::oid")
    String.to_integer(oid)
  end

  # ---- psql ----

  # The script is a file, as an argument may have 128 kB.
  defp psql(database, script) do
    path = file()
    File.write!(path, script)
    PostgresServer.psql!(PostgresServer.shared(), "\\i '#{path}'", database[:database])
  end

  defp copy(query, out),
    do: "\\copy (#{String.replace(query, "\n", " ")}) to '#{out}' with (format binary)\n"

  defp quote_literal(text), do: "'#{String.replace(text, "'", "''")}'"

  defp file do
    path =
      Path.join(
        System.tmp_dir!(),
        "causeway-values-#{System.pid()}-#{System.unique_integer([:positive])}"
      )

    ExUnit.Callbacks.on_exit(fn -> File.rm(path) end)
    path
  end

  # ---- COPY ----

  defp read(file) do
    @header <> rows = File.read!(file)
    parse(rows)
  end

  defp parse(<<-1::signed-16>>), do: []

  defp parse(<<n::16, rest::binary>>) do
    {row, rest} = fields(n, rest, [])
    [row | parse(rest)]
  end

  defp fields(0, rest, row), do: {Enum.reverse(row), rest}
  defp fields(n, <<-1::signed-32, rest::binary>>, row), do: fields(n - 1, rest, [nil | row])

  defp fields(n, <<len::32, value::binary-size(len), rest::binary>>, row),
    do: fields(n - 1, rest, [value | row])
end
