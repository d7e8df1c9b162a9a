defmodule Causeway.Postgres.BuiltinTypes do
  @moduledoc false
  # The types whose OIDs are the same on every server, so that no connection has to ask for them. What is not here
  # is looked up in the catalogue: Causeway.Postgres.Types.

  # {oid, oid of the array, name, spec}; the specs are those of :causeway_nif.pg_codec_compile/3.
  @scalars [
    {16, 1000, "bool", :bool},
    {17, 1001, "bytea", :bytea},
    {18, 1002, "char", :char},
    {19, 1003, "name", :name},
    {20, 1016, "int8", :int8},
    {21, 1005, "int2", :int2},
    {22, 1006, "int2vector", {:vector, 21, :int2}},
    {23, 1007, "int4", :int4},
    {24, 1008, "regproc", :oid},
    {25, 1009, "text", :text},
    {26, 1028, "oid", :oid},
    {27, 1010, "tid", :tid},
    {28, 1011, "xid", :oid},
    {29, 1012, "cid", :oid},
    {30, 1013, "oidvector", {:vector, 26, :oid}},
    {114, 199, "json", :json},
    {142, 143, "xml", :text},
    {194, nil, "pg_node_tree", :text},
    {600, 1017, "point", :point},
    {601, 1018, "lseg", :lseg},
    {602, 1019, "path", :path},
    {603, 1020, "box", :box},
    {604, 1027, "polygon", :polygon},
    {628, 629, "line", :line},
    {650, 651, "cidr", :inet},
    {700, 1021, "float4", :float4},
    {701, 1022, "float8", :float8},
    {705, nil, "unknown", :text},
    {718, 719, "circle", :circle},
    {774, 775, "macaddr8", :macaddr8},
    {790, 791, "money", :int8},
    {829, 1040, "macaddr", :macaddr},
    {869, 1041, "inet", :inet},
    {1033, 1034, "aclitem", :literal},
    {1042, 1014, "bpchar", :text},
    {1043, 1015, "varchar", :text},
    {1082, 1182, "date", :date},
    {1083, 1183, "time", :time},
    {1114, 1115, "timestamp", :timestamp},
    {1184, 1185, "timestamptz", :timestamptz},
    {1186, 1187, "interval", :interval},
    {1266, 1270, "timetz", :timetz},
    {1560, 1561, "bit", :bit},
    {1562, 1563, "varbit", :bit},
    {1700, 1231, "numeric", :numeric},
    {1790, 2201, "refcursor", :text},
    {2202, 2207, "regprocedure", :oid},
    {2203, 2208, "regoper", :oid},
    {2204, 2209, "regoperator", :oid},
    {2205, 2210, "regclass", :oid},
    {2206, 2211, "regtype", :oid},
    {2249, 2287, "record", :record},
    {2275, 1263, "cstring", :text},
    {2277, nil, "anyarray", :anyarray},
    {2278, nil, "void", :void},
    {2950, 2951, "uuid", :uuid},
    {2970, 2949, "txid_snapshot", :snapshot},
    {3220, 3221, "pg_lsn", :int8},
    {3361, nil, "pg_ndistinct", :bytea},
    {3402, nil, "pg_dependencies", :bytea},
    {3614, 3643, "tsvector", :tsvector},
    {3615, 3645, "tsquery", :tsquery},
    {3642, 3644, "gtsvector", :literal},
    {3734, 3735, "regconfig", :oid},
    {3769, 3770, "regdictionary", :oid},
    {3802, 3807, "jsonb", :jsonb},
    {3904, 3905, "int4range", {:range, :int4}},
    {3906, 3907, "numrange", {:range, :numeric}},
    {3908, 3909, "tsrange", {:range, :timestamp}},
    {3910, 3911, "tstzrange", {:range, :timestamptz}},
    {3912, 3913, "daterange", {:range, :date}},
    {3926, 3927, "int8range", {:range, :int8}},
    {4072, 4073, "jsonpath", :versioned},
    {4089, 4090, "regnamespace", :oid},
    {4096, 4097, "regrole", :oid},
    {4191, 4192, "regcollation", :oid},
    {4451, 6150, "int4multirange", {:multirange, :int4}},
    {4532, 6151, "nummultirange", {:multirange, :numeric}},
    {4533, 6152, "tsmultirange", {:multirange, :timestamp}},
    {4534, 6153, "tstzmultirange", {:multirange, :timestamptz}},
    {4535, 6155, "datemultirange", {:multirange, :date}},
    {4536, 6157, "int8multirange", {:multirange, :int8}},
    {5017, nil, "pg_mcv_list", :bytea},
    {5038, 5039, "pg_snapshot", :snapshot},
    {5069, 271, "xid8", :xid8}
  ]

  @arrays for {oid, array, name, spec} <- @scalars,
              array,
              do: {array, {"_" <> name, {:array, oid, spec}}}

  @types Map.new(for({oid, _, name, spec} <- @scalars, do: {oid, {name, spec}}) ++ @arrays)

  # What records and anyarray may hold, in the order that the codec wants.
  @known @types |> Enum.map(fn {oid, {_name, spec}} -> {oid, spec} end) |> Enum.sort()

  @doc "The type's name and spec, or nil."
  @spec get(non_neg_integer) :: {String.t(), :causeway_nif.pg_spec()} | nil
  def get(oid), do: Map.get(@types, oid)

  @doc "All of them, sorted: `[{oid, spec}]`."
  def known, do: @known

  @doc "All OIDs with their names, for the test that compares them with a server's."
  def names, do: Map.new(@types, fn {oid, {name, _spec}} -> {oid, name} end)
end
