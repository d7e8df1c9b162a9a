/* Terms as bytes, in two encodings (docs/FORMAT.md, "Terms").
 *
 *   CW_KEY    order-preserving: memcmp of two encodings is the order of the terms: nil < false
 *             < true < integers < floats < other atoms < binaries < tuples < lists < maps; within
 *             a type by value, compound ones element by element. Self-delimiting, and none is a
 *             prefix of another.
 *   CW_VALUE  compact: lengths in front, bytes as they are.
 *
 * Both are canonical: one term, one encoding. Not encodable: pids, ports, references, functions,
 * bitstrings of no whole number of bytes, improper lists. */
#ifndef CW_TERM_H
#define CW_TERM_H

#include "cw_buf.h"
#include "cw_reader.h"

#define CW_TERM_DEPTH 64       /* compound terms inside one another */
#define CW_ATOM_MAX 255        /* characters, as in the BEAM */
#define CW_BIG_MAX (64u << 10) /* bytes of an integer */

enum cw_encoding { CW_KEY, CW_VALUE };

enum cw_term_type {
    CW_T_NIL,
    CW_T_FALSE,
    CW_T_TRUE,
    CW_T_INT, /* fits int64_t */
    CW_T_BIG, /* does not */
    CW_T_FLOAT,
    CW_T_ATOM,
    CW_T_BINARY,
    CW_T_TUPLE,
    CW_T_LIST,
    CW_T_MAP,
    CW_T_END /* of a compound term */
};

/* ---- writing ---- */

void cw_put_simple(struct cw_buf *buf, enum cw_encoding enc, enum cw_term_type type); /* NIL.. */
void cw_put_int(struct cw_buf *buf, enum cw_encoding enc, int64_t v);
/* Sign and big-endian magnitude; any magnitude, leading zeros allowed. */
void cw_put_big(struct cw_buf *buf, enum cw_encoding enc, bool negative, struct cw_bytes magnitude);
void cw_put_float(struct cw_buf *buf, enum cw_encoding enc, double v);
/* Of the types CW_T_ATOM (the name, UTF-8) and CW_T_BINARY. */
void cw_put_string(struct cw_buf *buf, enum cw_encoding enc, enum cw_term_type type,
                   struct cw_bytes s);

/* A compound term of `n` elements (pairs for a map) is its opening, the elements and its close. */
void cw_put_open(struct cw_buf *buf, enum cw_encoding enc, enum cw_term_type type, uint64_t n);
void cw_put_close(struct cw_buf *buf, enum cw_encoding enc);

/* Brings the pairs of a map, written in any order from offset `from` to the buffer's end, into
 * canonical order. `pairs` tells where each begins and how long its key is. */
struct cw_pair {
    size_t at;
    size_t key_len;
    size_t len;
};
void cw_sort_pairs(struct cw_buf *buf, size_t from, struct cw_pair *pairs, size_t n);

/* ---- reading ---- */

struct cw_token {
    enum cw_term_type type;
    int64_t i;         /* INT */
    double f;          /* FLOAT */
    bool negative;     /* BIG */
    struct cw_bytes s; /* BIG: magnitude, ATOM, BINARY: contents (see `escaped`, `inverted`) */
    bool escaped;      /* `s` is to be read with cw_unescape */
    bool inverted;     /* each byte of `s` is to be complemented */
    uint64_t n;        /* TUPLE, LIST, MAP in CW_VALUE: elements or pairs */
};

/* The next token. In CW_KEY a compound term ends with a CW_T_END token, in CW_VALUE after `n`
 * elements. Failures stick to the reader; canonical form is checked as far as a token shows it. */
struct cw_token cw_read_token(struct cw_reader *r, enum cw_encoding enc);

/* Copies `s` of an escaped token to `dst`, which has room for `s.n` bytes; returns the length. */
size_t cw_unescape(uint8_t *dst, struct cw_bytes s);

/* Reads past one whole term and checks that it is canonical; failures stick to the reader. */
void cw_check_term(struct cw_reader *r, enum cw_encoding enc);

/* Reads past one whole key-encoded term of trusted bytes. */
void cw_skip_key_term(struct cw_reader *r);

#endif
