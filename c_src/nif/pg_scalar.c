/* Booleans, integers and floats, identifiers and positions: values of a fixed length. */
#include <float.h>
#include <math.h>

#include "pg_type.h"

/* ---- booleans ---- */

enum cw_err pg_get_bool(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                        unsigned depth, ERL_NIF_TERM *term) {
    (void)node, (void)depth;
    if (s.n != 1 || s.p[0] > 1)
        return CW_EMALFORMED;
    *term = s.p[0] ? d->lib->a_true : d->lib->a_false;
    return CW_OK;
}

bool pg_put_bool(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    if (term != e->lib->a_true && term != e->lib->a_false)
        return PG_REFUSE(e, node, wrong, term);
    return pg_put8(e, term == e->lib->a_true);
}

enum cw_err pg_get_void(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                        unsigned depth, ERL_NIF_TERM *term) {
    (void)node, (void)depth;
    *term = d->lib->kinds[PG_VOID];
    return s.n ? CW_EMALFORMED : CW_OK;
}

bool pg_put_void(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    return term == e->lib->kinds[PG_VOID] || PG_REFUSE(e, node, wrong, term);
}

/* ---- integers ---- */

enum cw_err pg_get_int2(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                        unsigned depth, ERL_NIF_TERM *term) {
    (void)node, (void)depth;
    if (s.n != 2)
        return CW_EMALFORMED;
    *term = enif_make_int(d->env, (int16_t)pg_load16(s.p));
    return CW_OK;
}

enum cw_err pg_get_int4(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                        unsigned depth, ERL_NIF_TERM *term) {
    (void)node, (void)depth;
    if (s.n != 4)
        return CW_EMALFORMED;
    *term = enif_make_int(d->env, (int32_t)pg_load32(s.p));
    return CW_OK;
}

enum cw_err pg_get_int8(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                        unsigned depth, ERL_NIF_TERM *term) {
    (void)node, (void)depth;
    if (s.n != 8)
        return CW_EMALFORMED;
    *term = enif_make_int64(d->env, (ErlNifSInt64)cw_load64be(s.p));
    return CW_OK;
}

enum cw_err pg_get_oid(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                       unsigned depth, ERL_NIF_TERM *term) {
    (void)node, (void)depth;
    if (s.n != 4)
        return CW_EMALFORMED;
    *term = enif_make_uint(d->env, pg_load32(s.p));
    return CW_OK;
}

enum cw_err pg_get_xid8(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                        unsigned depth, ERL_NIF_TERM *term) {
    (void)node, (void)depth;
    if (s.n != 8)
        return CW_EMALFORMED;
    *term = enif_make_uint64(d->env, cw_load64be(s.p));
    return CW_OK;
}

static bool is_integer(ErlNifEnv *env, ERL_NIF_TERM term) {
    return enif_term_type(env, term) == ERL_NIF_TERM_TYPE_INTEGER;
}

static bool refuse_integer(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    return is_integer(e->env, term) ? PG_REFUSE(e, node, out_of_range, term)
                                    : PG_REFUSE(e, node, wrong, term);
}

static bool get_integer(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term,
                        int64_t least, int64_t most, int64_t *v) {
    ErlNifSInt64 got;
    if (!enif_get_int64(e->env, term, &got) || got < least || got > most)
        return refuse_integer(e, node, term);
    *v = got;
    return true;
}

bool pg_put_int2(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    int64_t v;
    return get_integer(e, node, term, INT16_MIN, INT16_MAX, &v) && pg_put16(e, (uint16_t)v);
}

bool pg_put_int4(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    int64_t v;
    return get_integer(e, node, term, INT32_MIN, INT32_MAX, &v) && pg_put32(e, (uint32_t)v);
}

bool pg_put_int8(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    int64_t v;
    return get_integer(e, node, term, INT64_MIN, INT64_MAX, &v) && pg_put64(e, (uint64_t)v);
}

bool pg_put_oid(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    int64_t v;
    return get_integer(e, node, term, 0, UINT32_MAX, &v) && pg_put32(e, (uint32_t)v);
}

bool pg_put_xid8(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    ErlNifUInt64 v;
    return enif_get_uint64(e->env, term, &v) ? pg_put64(e, v) : refuse_integer(e, node, term);
}

/* ---- floats ---- */

ERL_NIF_TERM pg_make_double(struct pg_decode *d, double v) {
    if (isfinite(v))
        return enif_make_double(d->env, v);
    return isnan(v) ? d->lib->a_NaN : v > 0 ? d->lib->a_inf : d->lib->a_minus_inf;
}

ERL_NIF_TERM pg_make_double_at(struct pg_decode *d, const uint8_t *p) {
    uint64_t bits = cw_load64be(p);
    double v;
    memcpy(&v, &bits, 8);
    return pg_make_double(d, v);
}

enum cw_err pg_get_float8(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                          unsigned depth, ERL_NIF_TERM *term) {
    (void)node, (void)depth;
    if (s.n != 8)
        return CW_EMALFORMED;
    *term = pg_make_double_at(d, s.p);
    return CW_OK;
}

enum cw_err pg_get_float4(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                          unsigned depth, ERL_NIF_TERM *term) {
    (void)node, (void)depth;
    if (s.n != 4)
        return CW_EMALFORMED;
    uint32_t bits = pg_load32(s.p);
    float v;
    memcpy(&v, &bits, 4);
    *term = pg_make_double(d, v);
    return CW_OK;
}

/* Integers that a double has no room for without rounding are for Elixir to round. */
bool pg_get_double(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term, double *v) {
    ErlNifSInt64 i;
    if (enif_get_double(e->env, term, v))
        return true;
    if (enif_get_int64(e->env, term, &i))
        *v = (double)i;
    else if (term == e->lib->a_NaN)
        *v = NAN;
    else if (term == e->lib->a_inf)
        *v = INFINITY;
    else if (term == e->lib->a_minus_inf)
        *v = -INFINITY;
    else
        return is_integer(e->env, term) ? PG_REFUSE(e, node, convert, term)
                                        : PG_REFUSE(e, node, wrong, term);
    return true;
}

bool pg_put_double(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    double v;
    uint64_t bits;
    if (!pg_get_double(e, node, term, &v))
        return false;
    memcpy(&bits, &v, 8);
    return pg_put64(e, bits);
}

bool pg_put_float8(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    return pg_put_double(e, node, term);
}

bool pg_put_float4(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    double v;
    uint32_t bits;
    if (!pg_get_double(e, node, term, &v))
        return false;
    float f = (float)v;
    if (isinf(f) && !isinf(v))
        return PG_REFUSE(e, node, out_of_range, term);
    memcpy(&bits, &f, 4);
    return pg_put32(e, bits);
}

/* ---- identifiers, positions ---- */

enum cw_err pg_get_uuid(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                        unsigned depth, ERL_NIF_TERM *term) {
    (void)node, (void)depth;
    *term = pg_make_text(d, s);
    return s.n == 16 ? CW_OK : CW_EMALFORMED;
}

ERL_NIF_TERM nif_pg_uuid_text(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc;
    static const char digits[] = "0123456789abcdef";
    ErlNifBinary uuid;
    ERL_NIF_TERM text;
    if (!enif_inspect_binary(env, argv[0], &uuid) || uuid.size != 16)
        return enif_make_badarg(env);
    unsigned char *at = enif_make_new_binary(env, 36, &text);
    for (size_t i = 0; i < 16; i++) {
        if (i >= 4 && i <= 10 && i % 2 == 0)
            *at++ = '-';
        *at++ = (unsigned char)digits[uuid.data[i] >> 4];
        *at++ = (unsigned char)digits[uuid.data[i] & 15];
    }
    return text;
}

bool pg_put_uuid(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    ErlNifBinary bin;
    if (!enif_inspect_binary(e->env, term, &bin) || bin.size != 16)
        return PG_REFUSE(e, node, wrong, term);
    return pg_put_bytes(e, bin.data, 16);
}

enum cw_err pg_get_tid(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                       unsigned depth, ERL_NIF_TERM *term) {
    (void)node, (void)depth;
    if (s.n != 6)
        return CW_EMALFORMED;
    *term = enif_make_tuple2(d->env, enif_make_uint(d->env, pg_load32(s.p)),
                             enif_make_uint(d->env, pg_load16(s.p + 4)));
    return CW_OK;
}

bool pg_put_tid(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    int n;
    unsigned block, item;
    const ERL_NIF_TERM *at;
    if (!enif_get_tuple(e->env, term, &n, &at) || n != 2 || !enif_get_uint(e->env, at[0], &block) ||
        !enif_get_uint(e->env, at[1], &item) || item > UINT16_MAX)
        return PG_REFUSE(e, node, wrong, term);
    return pg_put32(e, block) && pg_put16(e, (uint16_t)item);
}
