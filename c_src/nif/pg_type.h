/* What the files on single types share: each kind has a function that makes a term of its bytes,
 * and one that writes the bytes of a term. */
#ifndef PG_TYPE_H
#define PG_TYPE_H

#include "pg_codec.h"

/* ---- terms of bytes ---- */

/* `depth` is how many values this one is in. */
typedef enum cw_err pg_get_fn(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                              unsigned depth, ERL_NIF_TERM *term);

/* Of any kind. Counts the work, and looks at the depth. */
pg_get_fn pg_get;

/* A length and so many bytes, or NULL, as elements and fields are: taken off the front of `s`. */
enum cw_err pg_get_item(struct pg_decode *d, const struct pg_node *node, struct cw_bytes *s,
                        unsigned depth, ERL_NIF_TERM *term);

/* The type that a field of a record says it has. NULL: not known; d->unknown says which. */
const struct pg_node *pg_known(struct pg_decode *d, uint32_t oid);

/* Bytes as a binary, by the codec's option. */
ERL_NIF_TERM pg_make_text(struct pg_decode *d, struct cw_bytes s);

/* The bytes, marked as what could not be decoded. */
ERL_NIF_TERM pg_make_undecoded(struct pg_decode *d, struct cw_bytes s);

/* A float, or one of the atoms NaN, inf and -inf. */
ERL_NIF_TERM pg_make_double(struct pg_decode *d, double v);
ERL_NIF_TERM pg_make_double_at(struct pg_decode *d, const uint8_t *p);

/* A struct takes so much longer than other values, and more with its fields. */
#define PG_STRUCT_WORK 4u

static inline ERL_NIF_TERM pg_make(struct pg_decode *d, enum pg_struct which,
                                   const ERL_NIF_TERM *fields) {
    const struct pg_shape *shape = &d->lib->shapes[which];
    d->work += PG_STRUCT_WORK + shape->n / 2;
    return pg_make_struct(d->env, shape, d->codec->ours, fields);
}

/* False: there is too much to do for this scheduler. */
static inline bool pg_more_work(struct pg_decode *d, size_t n) {
    d->work += n;
    return d->work <= d->limit;
}

/* The first `n` bytes of `s`, taken off it; false when there are not so many. */
static inline bool pg_take(struct cw_bytes *s, size_t n, struct cw_bytes *taken) {
    if (s->n < n)
        return false;
    *taken = cw_bytes(s->p, n);
    *s = cw_bytes(s->p + n, s->n - n);
    return true;
}

static inline uint16_t pg_load16(const uint8_t *p) {
    return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t pg_load32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline bool pg_take32(struct cw_bytes *s, uint32_t *v) {
    struct cw_bytes four;
    if (!pg_take(s, 4, &four))
        return false;
    *v = pg_load32(four.p);
    return true;
}

/* ---- bytes of terms ---- */

#define PG_VALUE_MOST 0x3fffffffu /* the server's largest value */

struct pg_encode {
    ErlNifEnv *env;
    const struct pg_lib *lib;
    uint8_t *p; /* what is written: on the caller's stack at first, in `bin` once that is full */
    size_t n;
    size_t cap;
    size_t limit; /* CW_EBUDGET beyond */
    bool in_bin;
    ErlNifBinary bin;
    unsigned depth;
    /* The first failure: CW_ENOMEM, CW_EBUDGET, or CW_EMALFORMED with what follows. */
    enum cw_err err;
    enum pg_kind kind;   /* that the term was for */
    ERL_NIF_TERM reason; /* an atom */
    ERL_NIF_TERM bad;    /* the term, or the part of it */
};

/* Appends the term's bytes. False: `e` says why; what is written by then is of no use. */
typedef bool pg_put_fn(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term);

/* Of any kind, without a length. */
pg_put_fn pg_put;

/* The length and the bytes; for nil the length that stands for NULL. */
pg_put_fn pg_put_item;

/* Notes what is wrong with which term. As an expression it is false. */
void pg_refuse(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM reason,
               ERL_NIF_TERM bad);

#define PG_REFUSE(e, node, why, bad) (pg_refuse(e, node, (e)->lib->a_##why, bad), false)

/* Room for `n` bytes at p + n, which the caller then counts. */
bool pg_reserve(struct pg_encode *e, size_t n);

/* Before what takes as long as to write `n` bytes. False: too long for this scheduler. */
bool pg_may_spend(struct pg_encode *e, size_t n);
#define PG_ANY_TIME (SIZE_MAX / 2) /* nobody knows how long: for dirty schedulers only */
#define PG_STRUCT_BYTES 24u        /* what it takes to read a struct, beside what is written */

bool pg_put_bytes(struct pg_encode *e, const void *p, size_t n);
bool pg_put8(struct pg_encode *e, uint8_t v);
bool pg_put16(struct pg_encode *e, uint16_t v);
bool pg_put32(struct pg_encode *e, uint32_t v);
bool pg_put64(struct pg_encode *e, uint64_t v);

/* Over what pg_put32 has written `at` so many bytes after the beginning. */
void pg_patch32(struct pg_encode *e, size_t at, uint32_t v);

/* The length of a list. What is none is refused as `wrong`. */
bool pg_get_length(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM list, unsigned *n);

/* A binary that is text: of valid UTF-8, without a zero byte, of `most` bytes at most. */
bool pg_put_utf8(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term, size_t most);

/* A number, or one of the atoms for those that Erlang has none for. */
bool pg_get_double(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term, double *v);
bool pg_put_double(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term);

/* The fields of a struct, or a refusal. */
bool pg_fields(struct pg_encode *e, const struct pg_node *node, enum pg_struct which,
               ERL_NIF_TERM term, ERL_NIF_TERM *fields);

/* ---- kinds ---- */

#define X(name, atom) pg_get_fn pg_get_##atom;
PG_KINDS(X)
#undef X

#define X(name, atom) pg_put_fn pg_put_##atom;
PG_KINDS(X)
#undef X

#endif
