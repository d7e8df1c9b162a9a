defmodule Causeway.Postgres.Types do
  @moduledoc false
  # Which types a connection's database has: OIDs to specs for the codec. Those that every server has are known; others
  # are looked up in the catalogue when they are first met, those that they are made of with them, and kept for all
  # connections to the database. So types that are created after connecting are found.
  #
  # To look up is to run a query on the connection, which is the caller's to do: `fetch`.

  alias Causeway.Postgres.{BuiltinTypes, Codec, Json, TypeCache, TypeWalk}

  @enforce_keys [:id, :owner, :options]
  defstruct [:id, :owner, :options]

  @opaque t :: %__MODULE__{id: reference, owner: pid, options: Codec.options()}

  @typedoc "Runs a query and gives its rows, as text."
  @type fetch :: (String.t() -> {:ok, [[String.t() | nil]]} | {:error, term})

  @type column :: {oid :: non_neg_integer, typmod :: integer}

  # How deep types may be nested; the server has no such limit, but stops well before it.
  @depth 32

  @schema [
    decode_binary:
      "`:copy` or `:reference`: whether texts are copies, or parts of what was received, which costs less and keeps all of that alive.",
    json:
      "a module with `decode!/1` and `encode_to_iodata!/1`, or nil for the text. Default: the configured one, Jason, JSON, or Erlang's json, whichever is here.",
    interval_decode_type: "`Duration`: intervals are Elixir's durations (1.17 and later)."
  ]

  @doc "The options of `new/1`, with what they mean."
  def schema, do: @schema

  @doc """
  For a connection that the calling process has just made. What it finds out is kept as long as that process lives.
  """
  @spec new(keyword) :: t
  def new(opts \\ []),
    do: %__MODULE__{id: make_ref(), owner: self(), options: codec_options(opts)}

  defp codec_options(opts) do
    binary = Keyword.get(opts, :decode_binary, :copy)
    interval = Keyword.get(opts, :interval_decode_type)

    structs =
      Keyword.get_lazy(opts, :structs, fn -> here?(Postgrex.Range, :postgrex, :causeway) end)

    numbers = Keyword.get_lazy(opts, :numbers, fn -> here?(Decimal, :decimal, :numeric) end)

    flags = [binary, structs, numbers, if(interval == Duration, do: :duration, else: :interval)]
    %{flags: flags, json: Keyword.get_lazy(opts, :json, &Json.library/0)}
  end

  defp here?(module, yes, no), do: if(Code.ensure_loaded?(module), do: yes, else: no)

  # ---- codecs ----

  @doc "A codec for a statement's parameters."
  @spec params(t, [non_neg_integer], fetch) :: {:ok, Codec.t()} | {:error, term}
  def params(types, oids, fetch) do
    with {:ok, found} <- lookup(types, oids, fetch) do
      # Those without a binary form, or one that is known here, are sent as text.
      specs = for {_name, spec} <- found, do: if(sendable?(spec), do: spec, else: :literal)
      {:ok, parameters(types, oids, found, specs)}
    end
  end

  @doc """
  A codec for so many parameters whose types are not known: all are sent as text, and the server finds out. Terms have
  to say by themselves what they are: lists are arrays, tuples composites, maps documents.
  """
  @spec inferred(t, non_neg_integer) :: Codec.t()
  def inferred(types, n) do
    unknown = List.duplicate({"unknown", :literal}, n)
    codec = parameters(types, List.duplicate(0, n), unknown, List.duplicate(:literal, n))
    %{codec | prepare: :infer}
  end

  defp parameters(types, oids, found, specs) do
    codec = compile(types, for(oid <- oids, do: {oid, -1}), found, specs)

    %{
      codec
      | param_formats: for(spec <- specs, into: <<>>, do: <<format(spec)>>),
        prepare: if(codec.json != nil or :literal in specs, do: :all)
    }
  end

  defp format(:literal), do: 0
  defp format(_), do: 1

  defp sendable?(spec),
    do: not TypeWalk.any?(spec, &(&1 in [:literal, :tsquery, :snapshot, :anyarray]))

  @doc """
  A codec for a statement's columns, given as the server describes them. libpq has one format for all columns: when
  one has no binary form, or one that is not known here, all are asked for as text.
  """
  @spec columns(t, [column], fetch) :: {:ok, Codec.t()} | {:error, term}
  def columns(types, columns, fetch) do
    with {:ok, found} <- lookup(types, for({oid, _} <- columns, do: oid), fetch) do
      specs = for {_name, spec} <- found, do: spec

      if Enum.all?(specs, &receivable?/1),
        do: {:ok, compile(types, columns, found, specs)},
        else: {:ok, text_columns(types, columns, found, specs)}
    end
  end

  defp receivable?(spec), do: not TypeWalk.any?(spec, &(&1 == :literal))

  defp text_columns(types, columns, found, specs),
    do: text_columns(compile(types, columns, found, specs))

  @doc "The same codec for values that were asked for as text."
  @spec text_columns(Codec.t()) :: Codec.t()
  def text_columns(%Codec{result_format: 0} = codec), do: codec

  def text_columns(%Codec{} = codec) do
    literals = for {_, mod} <- codec.columns, do: {mod, :literal}
    ref = :causeway_nif.pg_codec_compile(literals, [], codec.options.flags)
    %{codec | ref: ref, result_format: 0}
  end

  @doc """
  A codec for a relation's columns, whose values come in binary form where there is one, else as text. Of a type that is
  not known here, arrays and composites are decoded by the types that they say they hold; other values come as
  `{:undecoded, bytes}`.

  With `lenient`, a list of types that were looked up and are not there, so do values that are not of the type that the
  catalogue has for them: rows in the log may be older than it.
  """
  @spec relation(t, [column], fetch, [non_neg_integer] | nil) ::
          {:ok, Codec.t()} | {:error, term}
  def relation(types, columns, fetch, lenient \\ nil) do
    with {:ok, found} <- lookup(types, for({oid, _} <- columns, do: oid), fetch) do
      specs = for {_name, spec} <- found, do: opaque(spec)

      if lenient,
        do: {:ok, lenient(types, columns, found, specs, lenient)},
        else: {:ok, compile(types, columns, found, specs)}
    end
  end

  defp lenient(types, columns, found, specs, gone) do
    types = put_in(types.options.flags, [:lenient | types.options.flags])
    codec = compile(types, columns, found, specs, known(types, [:opaque], gone))
    %{codec | json: Json.plan(for spec <- specs, do: if(is_atom(spec), do: spec, else: :record))}
  end

  # What is not known by name may say what it is.
  defp opaque(:literal), do: :opaque
  defp opaque({kind, oid, spec}), do: {kind, oid, opaque(spec)}

  defp opaque({:composite, fields}),
    do: {:composite, for({oid, s} <- fields, do: {oid, opaque(s)})}

  defp opaque({kind, spec}), do: {kind, opaque(spec)}
  defp opaque(spec), do: spec

  defp compile(types, columns, found, specs, known \\ nil) do
    mods = for {_oid, mod} <- columns, do: mod

    ref =
      :causeway_nif.pg_codec_compile(
        Enum.zip(mods, specs),
        known || known(types, specs, []),
        types.options.flags
      )

    %Codec{
      ref: ref,
      columns: columns,
      specs: specs,
      names: for({name, _spec} <- found, do: name),
      options: types.options,
      json: Json.plan(specs)
    }
  end

  # What records may hold; nothing else makes use of it.
  defp known(types, specs, gone) do
    if Enum.any?(specs, fn spec -> TypeWalk.any?(spec, &(&1 in [:record, :anyarray, :opaque])) end) do
      met = for {oid, {_name, spec}} <- TypeCache.types(TypeCache.key(types.id)), do: {oid, spec}
      gone = for oid <- gone, do: {oid, :opaque}

      BuiltinTypes.known()
      |> then(&:lists.ukeymerge(1, &1, Enum.sort(met)))
      |> then(&:lists.ukeymerge(1, &1, Enum.sort(gone)))
    else
      []
    end
  end

  @doc """
  The rows of all frames of a result, the last frame first; of some they may be there already. When a record holds a type that was not met before, or a
  type has been changed since the codec was made, it looks the types up, and gives the codec to go on with.
  """
  @spec decode(t, Codec.t(), [Codec.frame()], fetch) ::
          {:ok, [[term]], Codec.t()} | {:error, term}
  def decode(types, codec, frames, fetch), do: decode(types, codec, frames, fetch, [])

  # `tried` has what was looked up already, which does not help a second time.
  defp decode(types, codec, frames, fetch, tried) do
    with {:error, reason} <- decode_frames(codec, frames, []),
         frames = Enum.map(frames, &Codec.undecoded/1),
         true <- reason not in tried and helps?(reason),
         {:ok, codec} <- refresh(types, codec, reason, fetch) do
      decode(types, codec, frames, fetch, [reason | tried])
    else
      {:ok, rows} -> {:ok, rows, codec}
      false -> {:error, :emalformed}
      {:error, error} -> {:error, error}
    end
  end

  defp helps?(:emalformed), do: true
  defp helps?({:unknown_type, _oid}), do: true
  defp helps?(_), do: false

  defp decode_frames(_codec, [], rows), do: {:ok, rows}

  defp decode_frames(codec, [{_bytes, _n, first} | frames], rows),
    do: decode_frames(codec, frames, first ++ rows)

  defp decode_frames(codec, [{bytes, n} | frames], rows) do
    with {:ok, rows} <- Codec.decode_rows(codec, bytes, n, rows),
         do: decode_frames(codec, frames, rows)
  end

  defp refresh(types, codec, {:unknown_type, oid}, fetch) do
    with {:ok, _} <- lookup(types, [oid], fetch), do: columns(types, codec.columns, fetch)
  end

  defp refresh(types, codec, :emalformed, fetch) do
    forget(types)
    columns(types, codec.columns, fetch)
  end

  @doc "Forgets what was looked up: types have been changed."
  @spec forget(t) :: :ok
  def forget(%__MODULE__{id: id}), do: TypeCache.forget(id)

  # ---- types ----

  @doc "Names and specs, in the order of the OIDs."
  @spec lookup(t, [non_neg_integer], fetch) ::
          {:ok, [{String.t(), TypeWalk.spec()}]} | {:error, term}
  def lookup(types, oids, fetch) do
    key = TypeCache.key(types.id)

    with {:ok, fresh} <- load(types, key, Enum.uniq(oids), fetch) do
      {:ok, for(oid <- oids, do: find(key, oid) || Map.get(fresh, oid, {"oid #{oid}", :literal}))}
    end
  end

  defp find(key, oid), do: BuiltinTypes.get(oid) || TypeCache.type(key, oid)

  # The types that are not known yet.
  defp load(types, key, oids, fetch) do
    case Enum.reject(oids, &find(key, &1)) do
      [] ->
        {:ok, %{}}

      missing ->
        with {:ok, key, rows} <- fetch_all(missing, %{}, fetch) do
          fresh = Map.new(rows, fn {oid, row} -> {oid, {row.name, spec(oid, rows, 0)}} end)
          if key, do: TypeCache.put(types.id, types.owner, key, Map.to_list(fresh))
          {:ok, fresh}
        end
    end
  end

  # With what they are made of, level by level. `oids` are not in `rows` yet.
  defp fetch_all(oids, rows, fetch, key \\ nil)
  defp fetch_all([], rows, _fetch, key), do: {:ok, key, rows}

  defp fetch_all(oids, rows, fetch, key) do
    with {:ok, found} <- fetch.(query(oids)) do
      key = Enum.find_value(found, key, fn [database, start | _] -> {database, start} end)
      rows = for [_, _ | row] <- found, into: rows, do: parse(row)
      nothing = for oid <- oids, not is_map_key(rows, oid), do: {oid, nil}
      rows = Map.merge(rows, Map.new(nothing))

      rows
      |> Enum.flat_map(fn {_oid, row} -> parts(row) end)
      |> Enum.uniq()
      |> Enum.reject(&(BuiltinTypes.get(&1) || is_map_key(rows, &1)))
      |> fetch_all(rows, fetch, key)
      |> without_nothing()
    end
  end

  defp without_nothing({:ok, key, rows}),
    do: {:ok, key, Map.reject(rows, fn {_, row} -> row == nil end)}

  defp without_nothing(error), do: error

  # Every row says which database it is from. Neither the address nor the cluster's identifier would do: one can be
  # taken over by another server, the other is shared by clones that go separate ways.
  defp query(oids) do
    """
    SELECT (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()),
           extract(epoch FROM pg_catalog.pg_postmaster_start_time()),
           t.oid, t.typname, t.typtype, p.proname, t.typelem, t.typbasetype, r.rngsubtype,
           (SELECT pg_catalog.string_agg(a.atttypid::pg_catalog.text, ' ' ORDER BY a.attnum)
            FROM pg_catalog.pg_attribute a
            WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)
    FROM pg_catalog.pg_type t
    LEFT JOIN pg_catalog.pg_proc p ON p.oid = t.typsend
    LEFT JOIN pg_catalog.pg_range r ON r.rngtypid = t.oid OR r.rngmultitypid = t.oid
    WHERE t.oid IN (#{Enum.map_join(oids, ", ", &Integer.to_string/1)})\
    """
  end

  defp parse([oid, name, type, send, elem, base, subtype, fields]) do
    {String.to_integer(oid),
     %{
       name: :binary.copy(name),
       type: type,
       send: send,
       elem: String.to_integer(elem),
       base: String.to_integer(base),
       subtype: subtype && String.to_integer(subtype),
       fields: fields |> to_string() |> String.split() |> Enum.map(&String.to_integer/1)
     }}
  end

  # ---- specs ----

  # What a type's spec is made of.
  defp parts(nil), do: []
  defp parts(%{type: "d", base: base}), do: [base]
  defp parts(%{send: "array_send", elem: elem}), do: [elem]
  defp parts(%{send: "record_send", fields: fields}), do: fields

  defp parts(%{send: send, subtype: subtype}) when send in ["range_send", "multirange_send"],
    do: [subtype]

  defp parts(_row), do: []

  defp spec(_oid, _rows, @depth), do: :literal

  defp spec(oid, rows, depth) do
    case BuiltinTypes.get(oid) do
      {_name, spec} -> spec
      nil -> row_spec(rows[oid], &spec(&1, rows, depth + 1))
    end
  end

  defp row_spec(nil, _spec), do: :literal
  defp row_spec(%{type: "d", base: base}, spec), do: spec.(base)
  defp row_spec(%{send: "array_send", elem: elem}, spec), do: {:array, elem, spec.(elem)}

  defp row_spec(%{send: "range_send", subtype: sub}, spec) when sub != nil,
    do: {:range, spec.(sub)}

  defp row_spec(%{send: "multirange_send", subtype: sub}, spec) when sub != nil,
    do: {:multirange, spec.(sub)}

  defp row_spec(%{type: "c", send: "record_send", fields: fields}, spec),
    do: {:composite, for(oid <- fields, do: {oid, spec.(oid)})}

  defp row_spec(%{send: send}, _spec), do: send_spec(send)

  # A binary form is known by the function that makes it, whatever schema its extension is in.
  for {kind, functions} <- [
        bool: ~w(boolsend),
        int2: ~w(int2send),
        int4: ~w(int4send),
        int8: ~w(int8send pg_lsn_send cash_send),
        oid:
          ~w(oidsend xidsend cidsend regprocsend regproceduresend regopersend regoperatorsend regclasssend
                regtypesend regconfigsend regdictionarysend regnamespacesend regrolesend regcollationsend
                regdatabasesend),
        xid8: ~w(xid8send),
        float4: ~w(float4send),
        float8: ~w(float8send),
        numeric: ~w(numeric_send),
        text:
          ~w(textsend varcharsend bpcharsend citextsend enum_send unknownsend xml_send cstring_send
                 pg_node_tree_send),
        name: ~w(namesend),
        char: ~w(charsend),
        bytea: ~w(byteasend),
        uuid: ~w(uuid_send),
        bit: ~w(bit_send varbit_send),
        date: ~w(date_send),
        time: ~w(time_send),
        timetz: ~w(timetz_send),
        timestamp: ~w(timestamp_send),
        timestamptz: ~w(timestamptz_send),
        interval: ~w(interval_send),
        json: ~w(json_send),
        jsonb: ~w(jsonb_send),
        versioned: ~w(ltree_send lquery_send ltxtq_send jsonpath_send),
        inet: ~w(inet_send cidr_send),
        macaddr: ~w(macaddr_send),
        macaddr8: ~w(macaddr8_send),
        tid: ~w(tidsend),
        point: ~w(point_send),
        line: ~w(line_send),
        lseg: ~w(lseg_send),
        box: ~w(box_send),
        path: ~w(path_send),
        polygon: ~w(poly_send),
        circle: ~w(circle_send),
        tsvector: ~w(tsvectorsend),
        tsquery: ~w(tsquerysend),
        snapshot: ~w(pg_snapshot_send txid_snapshot_send),
        hstore: ~w(hstore_send)
      ],
      function <- functions do
    defp send_spec(unquote(function)), do: unquote(kind)
  end

  defp send_spec(_function), do: :literal
end
