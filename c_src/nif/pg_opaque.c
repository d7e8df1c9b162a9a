/* Values in the log whose type is not in the catalogue, as it was dropped before they were read, or
 * has a binary form that nobody here knows. Arrays and composites say themselves what they are made
 * of; all else is handed over as {undecoded, Bytes}, which no value of a type is. */
#include "pg_type.h"

#define DIMS_MOST 6
#define FIELDS_MOST 1664u /* the server's */

static bool skip_item(struct cw_bytes *s) {
    uint32_t len;
    struct cw_bytes value;
    return pg_take32(s, &len) && (len == UINT32_MAX || pg_take(s, len, &value));
}

/* Neither text nor an array begins like that, nor is anything else likely to go on so to its end.
 */
static bool is_composite(struct cw_bytes s) {
    uint32_t n, oid;
    if (!pg_take32(&s, &n) || !n || n > FIELDS_MOST)
        return false;
    while (n--)
        if (!pg_take32(&s, &oid) || oid < 2 || !skip_item(&s))
            return false;
    return !s.n;
}

static bool is_array(struct cw_bytes s) {
    uint32_t dims, nulls, oid;
    struct cw_bytes lengths;
    if (!pg_take32(&s, &dims) || !pg_take32(&s, &nulls) || !pg_take32(&s, &oid) ||
        dims > DIMS_MOST || nulls > 1 || !oid || !pg_take(&s, 8 * (size_t)dims, &lengths))
        return false;
    while (s.n)
        if (!skip_item(&s))
            return false;
    return true;
}

ERL_NIF_TERM pg_make_undecoded(struct pg_decode *d, struct cw_bytes s) {
    return enif_make_tuple2(d->env, d->lib->a_undecoded, pg_make_text(d, s));
}

enum cw_err pg_get_opaque(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                          unsigned depth, ERL_NIF_TERM *term) {
    static const struct pg_node any = {.precision = 6};
    enum cw_err err = is_array(s)       ? pg_get_array(d, &any, s, depth, term)
                      : is_composite(s) ? pg_get_record(d, &any, s, depth, term)
                                        : CW_EMALFORMED;
    (void)node;
    if (err != CW_EMALFORMED && err != CW_ELIMIT)
        return err;
    *term = pg_make_undecoded(d, s);
    return CW_OK;
}

bool pg_put_opaque(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    return PG_REFUSE(e, node, unsupported, term);
}
