defmodule Causeway.PostgresValues do
  @moduledoc false
  # Values that a server stores, sends and prints, by way of psql and COPY: what our own codec is compared with,
  # without the program that talks to the server for us.
  #
  # | "PGCOPY\n\377\r\n\0" | flags, 32 bits | length, 32 bits | row ... | -1, 16 bits |

  alias Causeway.PostgresServer

  @header <<"PGCOPY\n", 255, "\r\n", 0, 0::64>>

  @doc """
  Stores values of a type, given as literals and as rows in the binary form of COPY, each of one field. Gives the
  binary form and the text of each.
  """
  def stored(database, type, literals, rows) do
    into = file()
    File.write!(into, [@header, rows, <<-1::16>>])

    inserts =
      for literal <- literals,
          do: "insert into stored (v) values (#{quote_literal(literal)}::#{type})"

    psql(database, [
      ["create temp table stored (i serial, v #{column_type(type)})"],
      inserts,
      ["\\copy stored (v) from '#{into}' with (format binary)"],
      [copy("select v, format('%s', v) from stored order by i")]
    ])
  end

  @doc "What a query gives, a row as a list of binary values."
  def selected(database, query), do: psql(database, [[copy(query)]])

  @doc "A query's rows as text, for Causeway.Postgres.Types; of names without tabs and the like."
  def texts(database, query) do
    query = "copy (#{query}) to stdout"
    lines = PostgresServer.psql!(PostgresServer.shared(), query, database[:database])
    {:ok, for(line <- String.split(lines, "\n", trim: true), do: fields(line))}
  end

  defp fields(line) do
    for field <- String.split(line, "\t"), do: if(field == "\\N", do: nil, else: field)
  end

  # No column can be of these types, which take part in calls of functions only.
  defp column_type("cstring"), do: "text"
  defp column_type(type), do: type

  defp copy(query), do: {:copy, String.replace(query, "\n", " ")}

  # A file, as an argument may have 128 kB.
  defp psql(database, commands) do
    {script, out} = {file(), file()}
    File.write!(script, for(command <- List.flatten(commands), do: line(command, out)))
    PostgresServer.psql!(PostgresServer.shared(), "\\i '#{script}'", database[:database])
    @header <> rows = File.read!(out)
    parse(rows)
  end

  defp line({:copy, query}, out), do: "\\copy (#{query}) to '#{out}' with (format binary)\n"
  defp line("\\" <> _ = command, _out), do: command <> "\n"
  defp line(sql, _out), do: sql <> ";\n"

  defp quote_literal(text), do: "'#{String.replace(text, "'", "''")}'"

  defp file do
    path = Path.join(System.tmp_dir!(), "causeway-values-#{System.unique_integer([:positive])}")
    ExUnit.Callbacks.on_exit(fn -> File.rm(path) end)
    path
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
