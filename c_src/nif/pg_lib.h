/* What the calls on PostgreSQL's types share: atoms, the layouts of structs, the kinds of values.
 * Made anew by every load and upgrade, as a part of struct nif_lib. */
#ifndef PG_LIB_H
#define PG_LIB_H

#include <erl_nif.h>
#include <stdbool.h>

/* X(name, the atom in specs and errors). A kind is a binary form; several types may have the same:
 * varchar, xml and enums are `text`, oid and regclass `oid`, money and pg_lsn `int8`. */
/* clang-format off */
#define PG_KINDS(X) \
    X(BOOL, bool) X(INT2, int2) X(INT4, int4) X(INT8, int8) X(OID, oid) X(XID8, xid8) \
    X(FLOAT4, float4) X(FLOAT8, float8) X(NUMERIC, numeric) \
    X(TEXT, text) X(NAME, name) X(CHAR, char) X(BYTEA, bytea) X(LITERAL, literal) \
    X(VERSIONED, versioned) X(JSON, json) X(JSONB, jsonb) X(UUID, uuid) X(BIT, bit) \
    X(DATE, date) X(TIME, time) X(TIMETZ, timetz) X(TIMESTAMP, timestamp) \
    X(TIMESTAMPTZ, timestamptz) X(INTERVAL, interval) \
    X(INET, inet) X(MACADDR, macaddr) X(MACADDR8, macaddr8) X(TID, tid) X(VOID, void) \
    X(SNAPSHOT, snapshot) X(POINT, point) X(LINE, line) X(LSEG, lseg) X(BOX, box) X(PATH, path) \
    X(POLYGON, polygon) X(CIRCLE, circle) X(TSVECTOR, tsvector) X(TSQUERY, tsquery) \
    X(HSTORE, hstore) X(ARRAY, array) X(VECTOR, vector) X(RANGE, range) \
    X(MULTIRANGE, multirange) X(COMPOSITE, composite) X(RECORD, record) X(OPAQUE, opaque)

/* X(identifier, module of the struct, ours where the module of that name is not loaded, fields) */
#define PG_STRUCTS(X) \
    X(DATE_, "Date", "Date", "calendar day month year") \
    X(TIME_, "Time", "Time", "calendar hour microsecond minute second") \
    X(NAIVE, "NaiveDateTime", "NaiveDateTime", \
      "calendar day hour microsecond minute month second year") \
    X(DATETIME, "DateTime", "DateTime", \
      "calendar day hour microsecond minute month second year std_offset time_zone utc_offset" \
      " zone_abbr") \
    X(DURATION, "Duration", "Duration", \
      "year month week day hour minute second microsecond") \
    X(DECIMAL, "Decimal", "Causeway.Postgres.Numeric", "sign coef exp") \
    X(INTERVAL_, "Postgrex.Interval", "Causeway.Postgres.Interval", \
      "months days secs microsecs") \
    X(RANGE_, "Postgrex.Range", "Causeway.Postgres.Range", \
      "lower upper lower_inclusive upper_inclusive") \
    X(MULTIRANGE_, "Postgrex.Multirange", "Causeway.Postgres.Multirange", "ranges") \
    X(INET_, "Postgrex.INET", "Causeway.Postgres.INET", "address netmask") \
    X(MACADDR_, "Postgrex.MACADDR", "Causeway.Postgres.MACADDR", "address") \
    X(POINT_, "Postgrex.Point", "Causeway.Postgres.Point", "x y") \
    X(LINE_, "Postgrex.Line", "Causeway.Postgres.Line", "a b c") \
    X(LSEG_, "Postgrex.LineSegment", "Causeway.Postgres.LineSegment", "point1 point2") \
    X(BOX_, "Postgrex.Box", "Causeway.Postgres.Box", "upper_right bottom_left") \
    X(PATH_, "Postgrex.Path", "Causeway.Postgres.Path", "points open") \
    X(POLYGON_, "Postgrex.Polygon", "Causeway.Postgres.Polygon", "vertices") \
    X(CIRCLE_, "Postgrex.Circle", "Causeway.Postgres.Circle", "center radius") \
    X(LEXEME, "Postgrex.Lexeme", "Causeway.Postgres.Lexeme", "word positions") \
    X(WAL_CHANGE, "Causeway.Postgres.WAL.Change", "Causeway.Postgres.WAL.Change", \
      "op relation new old key") \
    X(WAL_TRUNCATE, "Causeway.Postgres.WAL.Truncate", "Causeway.Postgres.WAL.Truncate", \
      "relations cascade restart_identity") \
    X(WAL_MESSAGE, "Causeway.Postgres.WAL.Message", "Causeway.Postgres.WAL.Message", \
      "transactional lsn prefix content")

#define PG_ATOMS(X) \
    X(nil) X(true) X(false) X(ok) X(error) X(NaN) X(copy) X(reference) X(postgrex) X(causeway) X(decimal) X(numeric) X(duration) X(inf) \
    X(unbound) X(empty) X(anyarray) X(A) X(B) X(C) X(count) X(list) X(row) X(wrong) X(out_of_range) \
    X(bad_utf8) X(zero_byte) X(too_large) X(uneven) X(fields) X(not_utc) X(calendar) X(convert) \
    X(too_deep) X(unsupported) X(unknown_type) X(json) X(lenient) X(undecoded)
/* clang-format on */

enum pg_kind {
#define X(name, atom) PG_##name,
    PG_KINDS(X)
#undef X
        PG_KIND_COUNT
};

enum pg_struct {
#define X(name, module, ours, fields) PG_##name,
    PG_STRUCTS(X)
#undef X
        PG_STRUCT_COUNT
};

#define PG_FIELDS_MOST 12

/* The keys of a struct as the VM keeps them, which saves it sorting them each time, and where each
 * field of the list above stands among them. */
struct pg_shape {
    unsigned n;              /* fields, without __struct__ */
    ERL_NIF_TERM modules[2]; /* as in the list above; the second is ours */
    ERL_NIF_TERM fields[PG_FIELDS_MOST + 1];
    ERL_NIF_TERM keys[PG_FIELDS_MOST + 1];
    unsigned char at[PG_FIELDS_MOST];
    unsigned char module_at;
};

struct pg_lib {
    ErlNifResourceType *codec_type;
#define X(name) ERL_NIF_TERM a_##name;
    PG_ATOMS(X)
#undef X
    ERL_NIF_TERM a_minus_inf, a_struct, a_iso, a_causeway_json;
    ERL_NIF_TERM kinds[PG_KIND_COUNT];
    struct pg_shape shapes[PG_STRUCT_COUNT];
};

/* Makes all of it, and opens the resource type. NULL without memory. Freed with enif_free. */
struct pg_lib *pg_lib_new(ErlNifEnv *env);

/* A struct with these fields, in the order of the list above; `ours` chooses its module. */
ERL_NIF_TERM pg_make_struct(ErlNifEnv *env, const struct pg_shape *shape, bool ours,
                            const ERL_NIF_TERM *fields);

/* The fields of a struct of either module, in the order of the list above. False for any other
 * term. */
bool pg_get_struct(ErlNifEnv *env, const struct pg_lib *lib, const struct pg_shape *shape,
                   ERL_NIF_TERM term, ERL_NIF_TERM *fields);

#endif
