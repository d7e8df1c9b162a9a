/* hstore: a map of text to text or NULL:
 *
 *     | pairs, 32 bits | key, an item | value, an item | ... |  */
#include "pg_type.h"

static enum cw_err get_text(struct pg_decode *d, struct cw_bytes *s, bool nullable,
                            ERL_NIF_TERM *term) {
    static const struct pg_node text = {.kind = PG_TEXT};
    enum cw_err err = pg_get_item(d, &text, s, 1, term);
    return !err && !nullable && *term == d->lib->a_nil ? CW_EMALFORMED : err;
}

static enum cw_err get_pairs(struct pg_decode *d, struct cw_bytes s, uint32_t n, ERL_NIF_TERM *keys,
                             ERL_NIF_TERM *values) {
    for (uint32_t i = 0; i < n; i++) {
        enum cw_err err = get_text(d, &s, false, &keys[i]);
        if (!err)
            err = get_text(d, &s, true, &values[i]);
        if (err)
            return err;
    }
    return s.n ? CW_EMALFORMED : CW_OK;
}

/* No key is there twice. */
enum cw_err pg_get_hstore(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                          unsigned depth, ERL_NIF_TERM *term) {
    uint32_t n;
    (void)node, (void)depth;
    if (!pg_take32(&s, &n) || n > s.n / 8)
        return CW_EMALFORMED;
    ERL_NIF_TERM *keys = enif_alloc((2 * (size_t)n + 1) * sizeof *keys), *values = keys + n;
    if (!keys)
        return CW_ENOMEM;
    enum cw_err err = get_pairs(d, s, n, keys, values);
    if (!err && !enif_make_map_from_arrays(d->env, keys, values, n, term))
        err = CW_EMALFORMED;
    enif_free(keys);
    return err;
}

static bool put_text(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    size_t at = e->n;
    if (!pg_put32(e, 0) || !pg_put_utf8(e, node, term, PG_VALUE_MOST))
        return false;
    pg_patch32(e, at, (uint32_t)(e->n - at - 4));
    return true;
}

static bool put_pair(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM key,
                     ERL_NIF_TERM value) {
    if (!put_text(e, node, key))
        return false;
    return value == e->lib->a_nil ? pg_put32(e, UINT32_MAX) : put_text(e, node, value);
}

bool pg_put_hstore(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    ErlNifMapIterator it;
    ERL_NIF_TERM key, value;
    size_t n;
    bool ok = true;
    if (!enif_get_map_size(e->env, term, &n))
        return PG_REFUSE(e, node, wrong, term);
    if (!pg_put32(e, (uint32_t)n))
        return false;
    if (!enif_map_iterator_create(e->env, term, &it, ERL_NIF_MAP_ITERATOR_FIRST)) {
        e->err = CW_ENOMEM;
        return false;
    }
    while (ok && enif_map_iterator_get_pair(e->env, &it, &key, &value)) {
        ok = put_pair(e, node, key, value);
        enif_map_iterator_next(e->env, &it);
    }
    enif_map_iterator_destroy(e->env, &it);
    return ok;
}
