defmodule Demo.Records do
  @moduledoc """
  A real data set: Debian's package index, as apt has it. Where there is none, all files of this machine.

  A record is `%{name: binary, registers: [{path, value}], sets: [{path, elements}]}`.
  """

  @enough 50_000
  @at_most 64_000
  @roots ~w(/usr /opt /etc /var/lib /Library /System/Library /Applications)

  @doc "The records, and a sentence on where they come from."
  def load do
    case packages() || updated_packages() do
      nil ->
        {files(),
         "files of this machine (it has no package index), from #{Enum.join(@roots, ", ")}"}

      packages ->
        {packages, "packages of Debian's index, from apt-cache dumpavail"}
    end
  end

  # ---- packages ----

  defp packages do
    with apt when apt != nil <- System.find_executable("apt-cache"),
         {text, 0} <-
           System.cmd(apt, ["dumpavail"], env: [{"LC_ALL", "C"}], stderr_to_stdout: true),
         records when length(records) >= @enough <- parse(text) do
      records
    else
      _ -> nil
    end
  end

  # Container images come without the index, and root may fetch it.
  defp updated_packages do
    with apt when apt != nil <- System.find_executable("apt-get"),
         {"0\n", 0} <- System.cmd("id", ["-u"]) do
      IO.puts("apt has no package index here: apt-get update")
      System.cmd(apt, ["update"], stderr_to_stdout: true)
      packages()
    else
      _ -> nil
    end
  end

  defp parse(text) do
    text
    |> String.split("\n\n", trim: true)
    |> Enum.map(&stanza/1)
    |> Map.new(&{&1["Package"], &1})
    |> Map.delete(nil)
    |> Enum.map(fn {_name, fields} -> package(fields) end)
  end

  # Lines of `Field: value`; a line that begins with a space goes on with the one before.
  defp stanza(text) do
    text
    |> String.replace("\n ", " ")
    |> String.split("\n", trim: true)
    |> Map.new(fn line ->
      [field | value] = String.split(line, ": ", parts: 2)
      {field, Enum.join(value)}
    end)
  end

  defp package(fields) do
    %{
      name: fields["Package"],
      registers: [
        {["version"], fields["Version"]},
        {["section"], fields["Section"]},
        {["maintainer"], fields["Maintainer"]},
        {["about", "summary"], fields["Description"]},
        {["about", "homepage"], fields["Homepage"]}
      ],
      sets: [
        {["tags"], String.split(fields["Tag"] || "", ", ", trim: true)},
        {["depends"], depends(fields["Depends"] || "")}
      ]
    }
  end

  # The names in "libc6 (>= 2.34), default-mta | mail-transport-agent".
  defp depends(text) do
    for package <- String.split(text, [", ", " | "], trim: true), uniq: true do
      package |> String.split([" ", ":"], parts: 2) |> hd()
    end
  end

  # ---- files, in the same fields ----

  defp files do
    @roots |> Stream.flat_map(&walk/1) |> Stream.map(&file/1) |> Enum.take(@at_most)
  end

  # Lazily: no more is looked at than is taken.
  defp walk(path) do
    with {:ok, info} <- :file.read_link_info(path, [:raw, time: :posix]),
         %{type: type} = stat when type in [:regular, :directory] <- File.Stat.from_record(info),
         {:ok, found} <- below(path, stat) do
      found
    else
      _ -> []
    end
  end

  defp below(path, %{type: :regular} = stat), do: {:ok, [{path, stat}]}

  defp below(path, %{type: :directory}) do
    with {:ok, names} <- File.ls(path) do
      {:ok, names |> Enum.sort() |> Stream.flat_map(&walk(Path.join(path, &1)))}
    end
  end

  defp file({path, stat}) do
    %{
      name: path,
      registers: [
        {["version"], stat.mtime},
        {["section"], Path.extname(path)},
        {["maintainer"], stat.uid},
        {["about", "size"], stat.size},
        {["about", "mode"], stat.mode}
      ],
      sets: [{["tags"], path |> Path.dirname() |> Path.split() |> tl() |> Enum.uniq()}]
    }
  end
end
