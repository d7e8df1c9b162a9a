/* Ranges and multiranges:
 *
 *     range:      | flags, 8 bits | lower bound, an item, if there is one | upper bound, likewise |
 *     multirange: | how many, 32 bits | length, range | ...                                       |
 */
#include "pg_type.h"

enum {
    EMPTY = 0x01,
    LOWER_INCLUSIVE = 0x02,
    UPPER_INCLUSIVE = 0x04,
    NO_LOWER = 0x08,
    NO_UPPER = 0x10
};

/* ---- to terms ---- */

static enum cw_err get_bound(struct pg_decode *d, const struct pg_node *node, struct cw_bytes *s,
                             unsigned depth, bool none, ERL_NIF_TERM *term) {
    *term = d->lib->a_unbound;
    return none ? CW_OK : pg_get_item(d, node->sub, s, depth + 1, term);
}

static ERL_NIF_TERM boolean(struct pg_decode *d, bool b) {
    return b ? d->lib->a_true : d->lib->a_false;
}

enum cw_err pg_get_range(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                         unsigned depth, ERL_NIF_TERM *term) {
    struct cw_bytes byte;
    if (!pg_take(&s, 1, &byte))
        return CW_EMALFORMED;
    uint8_t flags = byte.p[0];
    ERL_NIF_TERM f[4] = {d->lib->a_empty, d->lib->a_empty, boolean(d, flags & LOWER_INCLUSIVE),
                         boolean(d, flags & UPPER_INCLUSIVE)};
    if (flags & EMPTY) {
        f[2] = f[3] = d->lib->a_false;
    } else {
        enum cw_err err = get_bound(d, node, &s, depth, flags & NO_LOWER, &f[0]);
        if (!err)
            err = get_bound(d, node, &s, depth, flags & NO_UPPER, &f[1]);
        if (err)
            return err;
    }
    *term = pg_make(d, PG_RANGE_, f);
    return s.n ? CW_EMALFORMED : CW_OK;
}

enum cw_err pg_get_multirange(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                              unsigned depth, ERL_NIF_TERM *term) {
    uint32_t n, len;
    struct cw_bytes range;
    ERL_NIF_TERM one, list = enif_make_list(d->env, 0);
    if (!pg_take32(&s, &n))
        return CW_EMALFORMED;
    for (; n > 0; n--) {
        if (!pg_take32(&s, &len) || !pg_take(&s, len, &range))
            return CW_EMALFORMED;
        if (!pg_more_work(d, 1))
            return CW_EBUDGET;
        enum cw_err err = pg_get_range(d, node, range, depth, &one);
        if (err)
            return err;
        list = enif_make_list_cell(d->env, one, list);
    }
    if (s.n || !enif_make_reverse_list(d->env, list, &list))
        return CW_EMALFORMED;
    *term = pg_make(d, PG_MULTIRANGE_, &list);
    return CW_OK;
}

/* ---- from terms ---- */

static bool is_bound(struct pg_encode *e, ERL_NIF_TERM term) {
    return term != e->lib->a_nil && term != e->lib->a_unbound;
}

bool pg_put_range(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    ERL_NIF_TERM f[4];
    if (!pg_fields(e, node, PG_RANGE_, term, f))
        return false;
    if (f[0] == e->lib->a_empty && f[1] == e->lib->a_empty)
        return pg_put8(e, EMPTY);
    bool lower = is_bound(e, f[0]), upper = is_bound(e, f[1]);
    for (int i = 2; i < 4; i++)
        if (f[i] != e->lib->a_true && f[i] != e->lib->a_false)
            return PG_REFUSE(e, node, wrong, term);
    unsigned flags = lower ? (f[2] == e->lib->a_true ? LOWER_INCLUSIVE : 0) : NO_LOWER;
    flags |= upper ? (f[3] == e->lib->a_true ? UPPER_INCLUSIVE : 0) : NO_UPPER;
    return pg_put8(e, (uint8_t)flags) && (!lower || pg_put_item(e, node->sub, f[0])) &&
           (!upper || pg_put_item(e, node->sub, f[1]));
}

bool pg_put_multirange(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    ERL_NIF_TERM f[1], range, list;
    size_t at = e->n;
    uint32_t n = 0;
    if (!pg_fields(e, node, PG_MULTIRANGE_, term, f) || !pg_put32(e, 0))
        return false;
    for (list = f[0]; enif_get_list_cell(e->env, list, &range, &list); n++) {
        size_t from = e->n;
        if (!pg_put32(e, 0) || !pg_put_range(e, node, range))
            return false;
        pg_patch32(e, from, (uint32_t)(e->n - from - 4));
    }
    if (!enif_is_empty_list(e->env, list))
        return PG_REFUSE(e, node, wrong, term);
    pg_patch32(e, at, n);
    return true;
}
