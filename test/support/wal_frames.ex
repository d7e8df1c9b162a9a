defmodule Causeway.WalFrames do
  @moduledoc false
  # Frames as the port program sends them (c_src/wal/cw_wal_frame.h), for tests of what reads them.

  @doc "A frame of blocks."
  def frame(blocks), do: IO.iodata_to_binary(["T" | blocks])

  @doc """
  A block of messages. Options: `:flags` (3, a whole transaction), `:xid`, `:commit_lsn`, `:end_lsn`, `:time`, `:origin`
  and `:origin_lsn`.
  """
  def block(messages, opts \\ []) do
    flags = opts[:flags] || 3
    commit_lsn = opts[:commit_lsn] || 100
    end_lsn = opts[:end_lsn] || if(rem(div(flags, 2), 2) == 1, do: commit_lsn + 50, else: 0)
    origin = opts[:origin] || ""

    body =
      IO.iodata_to_binary([
        <<flags, opts[:xid] || 7::32, commit_lsn::64, end_lsn::64, opts[:time] || 0::64>>,
        <<opts[:origin_lsn] || 0::64, byte_size(origin)::16, length(messages)::32>>,
        origin,
        for(message <- messages, do: [<<IO.iodata_length(message)::32>>, message])
      ])

    [<<byte_size(body)::32>>, body]
  end

  @doc "Columns are names, or `{name, type}`, or `{name, type, :key}`; the type is text."
  def relation(oid, name, columns, opts \\ []) do
    [
      <<"r", opts[:arrival] || 1::64, "R", oid::32, "public", 0, name::binary, 0>>,
      <<opts[:identity] || ?d, length(columns)::16>>,
      for column <- columns do
        {column, type, key} = column(column)
        <<key, column::binary, 0, type::32, -1::32>>
      end
    ]
  end

  defp column({name, type, :key}), do: {name, type, 1}
  defp column({name, type}), do: {name, type, 0}
  defp column(name), do: {name, 25, 0}

  def type(oid, name), do: <<"Y", oid::32, "public", 0, name::binary, 0>>
  def insert(oid, row), do: ["I", <<oid::32>>, tuple("N", row)]
  def update(oid, new), do: ["U", <<oid::32>>, tuple("N", new)]
  def update(oid, {kind, old}, new), do: ["U", <<oid::32>>, tuple(kind, old), tuple("N", new)]
  def delete(oid, {kind, old}), do: ["D", <<oid::32>>, tuple(kind, old)]

  def truncate(oids, flags \\ 0),
    do: [<<"T", length(oids)::32, flags>>, for(oid <- oids, do: <<oid::32>>)]

  def message(prefix, content, opts \\ []) do
    [<<"M", opts[:flags] || 1, opts[:lsn] || 9::64, prefix::binary, 0>>] ++
      [<<byte_size(content)::32, content::binary>>]
  end

  # A value is a text, `{:binary, bytes}`, nil, or `:unchanged_toast`.
  defp tuple(tag, row), do: [tag, <<length(row)::16>>, Enum.map(row, &value/1)]

  defp value(nil), do: "n"
  defp value(:unchanged_toast), do: "u"
  defp value({:binary, bytes}), do: <<"b", byte_size(bytes)::32, bytes::binary>>
  defp value(text), do: <<"t", byte_size(text)::32, text::binary>>
end
