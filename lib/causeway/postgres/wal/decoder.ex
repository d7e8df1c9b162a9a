defmodule Causeway.Postgres.WAL.Decoder do
  @moduledoc false
  # Frames of the port program to blocks of terms: transactions, or parts of them. The work is done in C
  # (c_src/nif/pg_wal.h), which comes back for each description of a table, to have a codec for it.
  #
  # What the server has said of a table counts until it says something else, so a decoder is for one connection. A
  # streamed transaction comes when it has committed, with tables as they were when its changes were sent: its
  # descriptions count within it, and afterwards if nothing newer has come.

  alias Causeway.Postgres.{Codec, Json, Types}
  alias Causeway.Postgres.WAL.{Change, Relation}

  import Bitwise

  @enforce_keys [:text, :codec]
  defstruct [
    :text,
    :codec,
    # %{oid => {codec, relation, names, layout}}, for C; of the connection, and of the streamed transaction
    session: %{},
    stream: %{},
    # %{oid => {arrival, plan}} of the same
    known: %{},
    streamed: %{},
    # %{oid => plan} of tables with json, of both
    plans: %{},
    # Types that records were found to hold and that were looked up; nil, or which of them are not there (see renew/2)
    asked: [],
    lenient: nil,
    # Entries and plans by description, as each streamed transaction brings all of its own.
    made: %{}
  ]

  # The flags of cw_wal_frame.h.
  @first 1
  @last 2
  @streamed 4
  @message 8

  @made_most 1_000

  @typedoc """
  A codec for a relation's columns. With an OID, a record was found to hold that type, which was not known; with `:forget`,
  a value was not of the type that it was thought to be. The last argument is that of `Types.relation/4`.
  """
  @type codec ::
          ([Types.column()],
           nil
           | :forget
           | {:unknown_type, non_neg_integer},
           [non_neg_integer]
           | nil ->
             {:ok, Codec.t() | nil} | {:error, term})

  @type block :: %{
          first: boolean,
          last: boolean,
          message: boolean,
          xid: non_neg_integer,
          commit_lsn: non_neg_integer,
          end_lsn: non_neg_integer,
          commit_time: DateTime.t() | nil,
          origin: {String.t(), non_neg_integer} | nil,
          bytes: non_neg_integer,
          changes: list
        }

  @doc """
  A decoder for a new connection. `codec` is asked for each new table; without one, values are the server's texts.
  """
  @spec new(codec | nil, :copy | :reference) :: %__MODULE__{}
  def new(codec, binaries) do
    text = :causeway_nif.pg_codec_compile([], [], [binaries])
    %__MODULE__{text: text, codec: codec || fn _, _, _ -> {:ok, nil} end}
  end

  @doc """
  The blocks of a frame.
  """
  @spec decode(%__MODULE__{}, binary) ::
          {:ok, [block], %__MODULE__{}} | {:error, term}
  def decode(decoder, frame) do
    with {:error, reason} <- decode(decoder, frame, {1, 0}, []),
         {:ok, decoder} <- renew(decoder, reason),
         do: decode(decoder, frame)
  end

  defp decode(decoder, frame, {block, message}, blocks) do
    case :causeway_nif.pg_wal_decode(
           decoder.text,
           decoder.session,
           decoder.stream,
           frame,
           block,
           message
         ) do
      {:done, more} ->
        {:ok, join(blocks, more, decoder), decoder}

      {:more, more, block, message} ->
        blocks = [take(more, decoder) | blocks]
        decode(end_stream(decoder, more), frame, {block, message}, blocks)

      {:schema, more, schema, block, message} ->
        blocks = [take(more, decoder) | blocks]

        with {:ok, decoder} <- learn(decoder, schema, streamed?(more)),
             do: decode(decoder, frame, {block, message}, blocks)

      {:error, reason} ->
        {:error, reason}
    end
  end

  defp join([], more, decoder), do: take(more, decoder)
  defp join(blocks, more, decoder), do: Enum.concat(Enum.reverse([take(more, decoder) | blocks]))

  # ---- blocks ----

  defp take(blocks, decoder), do: for(block <- blocks, do: block(block, decoder))

  defp block({flags, xid, commit_lsn, end_lsn, time, origin, bytes, changes}, decoder) do
    %{
      first: (flags &&& @first) != 0,
      last: (flags &&& @last) != 0,
      message: (flags &&& @message) != 0,
      xid: xid,
      commit_lsn: commit_lsn,
      end_lsn: end_lsn,
      commit_time: time,
      origin: origin,
      bytes: bytes,
      changes: documents(changes, decoder)
    }
  end

  defp streamed?(blocks), do: (elem(List.last(blocks), 0) &&& @streamed) != 0

  # ---- json ----

  # The decoder in C knows its text only.
  defp documents(changes, %{plans: plans}) when plans == %{}, do: changes
  defp documents(changes, decoder), do: Enum.map(changes, &document(&1, decoder))

  defp document(%Change{relation: %{oid: oid}} = change, %{plans: plans})
       when is_map_key(plans, oid) do
    {plan, json} = plans[oid]
    [new, old, key] = for row <- [change.new, change.old, change.key], do: row(row, plan, json)
    %{change | new: new, old: old, key: key}
  end

  defp document(change, _decoder), do: change

  defp row(nil, _plan, _json), do: nil

  defp row(row, plan, json) do
    Enum.reduce(plan, row, fn {name, place}, row ->
      case row do
        %{^name => value} when value != :unchanged_toast ->
          [value] = Json.decode_row([value], [place], json)
          %{row | name => value}

        _ ->
          row
      end
    end)
  end

  # ---- tables ----

  defp learn(decoder, {:type, _oid, _schema, _name}, _streamed?), do: {:ok, decoder}

  defp learn(decoder, schema, streamed?) do
    arrival = elem(schema, 1)
    oid = elem(schema, 2)
    description = put_elem(schema, 1, 0)

    with {:ok, {entry, plan}, decoder} <- entry(decoder, description) do
      {tables_key, known_key} = if streamed?, do: {:stream, :streamed}, else: {:session, :known}

      decoder =
        decoder
        |> Map.update!(tables_key, &Map.put(&1, oid, entry))
        |> Map.update!(known_key, &Map.put(&1, oid, {arrival, plan}))

      {:ok, with_plans(decoder)}
    end
  end

  # After the end of a streamed transaction, of which C tells at once.
  defp end_stream(%{streamed: none} = decoder, _blocks) when none == %{}, do: decoder

  defp end_stream(decoder, blocks) do
    flags = elem(List.last(blocks), 0)

    if (flags &&& (@streamed ||| @last)) == (@streamed ||| @last),
      do: merge_stream(decoder),
      else: decoder
  end

  defp merge_stream(decoder) do
    newer =
      for {oid, {arrival, _}} <- decoder.streamed,
          not match?(%{^oid => {later, _}} when later > arrival, decoder.known),
          do: oid

    with_plans(%{
      decoder
      | session: Map.merge(decoder.session, Map.take(decoder.stream, newer)),
        known: Map.merge(decoder.known, Map.take(decoder.streamed, newer)),
        stream: %{},
        streamed: %{}
    })
  end

  defp with_plans(decoder) do
    all = Map.merge(decoder.known, decoder.streamed)
    %{decoder | plans: for({oid, {_, plan}} when plan != nil <- all, into: %{}, do: {oid, plan})}
  end

  defp entry(%{made: made} = decoder, description) when is_map_key(made, description),
    do: {:ok, made[description], decoder}

  defp entry(decoder, description) do
    with {:ok, {entry, plan}} <- make(decoder, Relation.new(description), nil) do
      kept = if map_size(decoder.made) < @made_most, do: decoder.made, else: %{}
      {:ok, {entry, plan}, %{decoder | made: Map.put(kept, description, {entry, plan})}}
    end
  end

  defp make(decoder, relation, why) do
    columns = for c <- relation.columns, do: {c.type, c.modifier}

    with {:ok, codec} <- decoder.codec.(columns, why, decoder.lenient) do
      {names, layout} = layout(relation)
      ref = if codec, do: codec.ref, else: decoder.text
      {:ok, {{ref, relation, names, layout}, plan(relation, codec)}}
    end
  end

  # Types may be altered, made and dropped behind our back, or between the writing of the log and its reading. Each step is
  # taken once: a type is looked up, it is not there; types are looked up again, and what does not fit even so is decoded
  # by what it says itself.
  defp renew(%{asked: asked, lenient: lenient} = decoder, {:unknown_type, oid} = reason) do
    decoder = %{decoder | made: %{}}

    cond do
      oid not in asked -> renew_all(%{decoder | asked: [oid | asked]}, reason)
      oid not in (lenient || []) -> renew_all(%{decoder | lenient: [oid | lenient || []]}, nil)
      true -> {:error, reason}
    end
  end

  defp renew(%{lenient: nil} = decoder, :emalformed),
    do: renew_all(%{decoder | made: %{}, lenient: []}, :forget)

  defp renew(_decoder, reason), do: {:error, reason}

  # Those that came with this frame are not known yet; asking for no columns is for them.
  defp renew_all(decoder, why) do
    with {:ok, _} <- decoder.codec.([], why, decoder.lenient),
         {:ok, session, known} <- renew(decoder, decoder.session, decoder.known, why),
         {:ok, stream, streamed} <- renew(decoder, decoder.stream, decoder.streamed, why) do
      {:ok,
       with_plans(%{decoder | session: session, known: known, stream: stream, streamed: streamed})}
    end
  end

  defp renew(decoder, entries, known, why) do
    Enum.reduce_while(entries, {:ok, entries, known}, fn {oid, entry}, {:ok, entries, known} ->
      case make(decoder, elem(entry, 1), why) do
        {:ok, {entry, plan}} ->
          {arrival, _} = known[oid]
          {:cont, {:ok, Map.put(entries, oid, entry), Map.put(known, oid, {arrival, plan})}}

        error ->
          {:halt, error}
      end
    end)
  end

  # Names in the order in which the VM wants them, and for each column its place among them.
  defp layout(relation) do
    names = relation.columns |> Enum.map(& &1.name) |> Enum.sort()
    places = names |> Enum.with_index() |> Map.new()

    layout =
      for column <- relation.columns, into: <<>> do
        <<places[column.name]::16, if(column.key, do: 1, else: 0)>>
      end

    {List.to_tuple(names), layout}
  end

  defp plan(_relation, nil), do: nil
  defp plan(_relation, %{json: nil}), do: nil

  defp plan(relation, %{json: places, options: %{json: library}}) do
    plan =
      for {column, place} when place != nil <- Enum.zip(relation.columns, places),
          do: {column.name, place}

    {plan, library}
  end
end
