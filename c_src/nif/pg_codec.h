/* Codecs: what the columns or the parameters of one statement, or the columns of one relation, are;
 * terms from the server's values, and the server's values from terms.
 *
 * A codec is compiled once from specs, which Causeway.Postgres.Types makes of the catalogue, and is
 * never changed. Its nodes stand in the resource itself:
 *
 *     [struct pg_codec | column 0 | column 1 | ... | known types | what they point to ...]
 *
 * Values are in the binary form of the server's send functions, which the receive functions read.
 * A decoder believes no byte: each length is checked against what is there, nesting has an end. */
#ifndef PG_CODEC_H
#define PG_CODEC_H

#include "../core/cw_bytes.h"
#include "nif_env.h"
#include "pg_lib.h"

/* Raise the number when struct pg_codec or struct pg_node change, or what they mean: see nif_env.h.
 */
#define PG_CODEC_TYPE "causeway_pg_codec_2"

#define PG_COLUMNS_MOST 65535u /* the protocol's; the server has 1664 */
#define PG_DEPTH_MOST 64u      /* of arrays in composites in ranges ... */

struct pg_node {
    enum pg_kind kind;
    int precision;             /* of the seconds' fraction that a column holds */
    uint32_t oid;              /* as an element, a field or a known type */
    uint32_t n;                /* fields of a composite */
    const struct pg_node *sub; /* element, subtype, fields */
};

struct pg_codec {
    uint32_t n;     /* columns */
    uint32_t known; /* types that records may hold, by oid */
    uint64_t work;  /* of a row, as far as its columns' kinds tell */
    bool reference; /* text values are parts of the frame, not copies */
    bool ours;      /* structs are Causeway's, not Postgrex's */
    bool numeric;   /* numbers are Causeway.Postgres.Numeric, not Decimal */
    bool duration;  /* intervals are Duration */
    bool lenient;   /* composites and arrays that are not as the codec has it are read by the types
                       that they say they hold */
    struct pg_node nodes[];
};

/* False for any other term. The codec lives as long as the term does. */
bool pg_get_codec(ErlNifEnv *env, ERL_NIF_TERM term, const struct pg_codec **codec);

/* ---- decoding ---- */

/* For the time of one call of the NIF. Values of many codecs may be decoded with it. */
struct pg_decode {
    ErlNifEnv *env;
    const struct pg_lib *lib;
    ERL_NIF_TERM frame;  /* the binary that the values are in */
    const uint8_t *base; /* its first byte */
    size_t work;         /* done so far, of what may be done: in values, about 25 ns each */
    size_t limit;
    const struct pg_codec *codec; /* of the value at hand */
    ERL_NIF_TERM zone[2];         /* "Etc/UTC" and "UTC", once there was use for them */
    /* The last timestamp, as those of one transaction or batch are mostly the same one. */
    struct {
        ERL_NIF_TERM term; /* 0: there was none */
        int64_t us;
        int kind;
        int precision;
    } stamp;
    uint32_t unknown; /* the oid that CW_EKIND is about */
};

/* `bytes` are those of the binary `frame`. Sets the limit of the scheduler at hand. */
struct pg_decode pg_decode_begin(ErlNifEnv *env, ERL_NIF_TERM frame, struct cw_bytes bytes);

/* The term of a value, not NULL, in the server's binary form; `value` is within the frame. A column
 * of json gives its text; within arrays and composites json comes as {causeway_json, Text}, for
 * Causeway.Postgres.Json to replace.
 *
 * CW_EMALFORMED: not a value of this type. CW_ELIMIT: nested too deeply, or a query too large.
 * CW_EKIND: holds a type
 * (`unknown`) that the codec was not told of. CW_EBUDGET: go dirty, and begin anew. CW_ENOMEM. */
enum cw_err pg_decode_value(struct pg_decode *d, const struct pg_codec *codec, uint32_t column,
                            struct cw_bytes value, ERL_NIF_TERM *term);

/* The server's text as a binary: part of the frame, or a copy, as the codec says. */
ERL_NIF_TERM pg_decode_text(struct pg_decode *d, const struct pg_codec *codec,
                            struct cw_bytes value);

/* {error, malformed} and the like; of CW_EKIND {error, {unknown_type, Oid}}. */
ERL_NIF_TERM pg_decode_error(const struct pg_decode *d, enum cw_err err);

/* ---- calls ---- */

/* (Columns, Known, Options): [{Typmod, Spec}], [{Oid, Spec}] for records, a list of atoms. */
nif_fn nif_pg_codec_compile;

/* (Codec, Params): for each its length and bytes, in one binary. */
nif_fn nif_pg_encode;

/* (Codec, Rows): the same for each row, after its number of fields in 16 bits, as COPY has it. */
nif_fn nif_pg_encode_rows;

/* (Codec, Bytes, N, Tail): the terms of N rows, in front of a list. */
nif_fn nif_pg_decode_rows;

/* pg_uuid_text(Uuid): 16 bytes as hexadecimal digits, 8-4-4-4-12. In pg_scalar.c. */
nif_fn nif_pg_uuid_text;

#endif
