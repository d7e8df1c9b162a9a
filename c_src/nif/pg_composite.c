/* Composites, and records, which are composites of which only the value knows the types:
 *
 *     | fields, 32 bits | oid | item | oid | item | ... |
 *
 * They are tuples. */
#include "pg_type.h"

#define ON_STACK 32u

/* Of a field: what it is, or what it says it is. NULL: the composite has been changed since. */
static enum cw_err get_field(struct pg_decode *d, const struct pg_node *field, struct cw_bytes *s,
                             unsigned depth, ERL_NIF_TERM *term) {
    uint32_t oid;
    if (!pg_take32(s, &oid))
        return CW_EMALFORMED;
    if (field && field->oid != oid && d->codec->lenient)
        field = NULL;
    if (!field) {
        bool null = s->n >= 4 && pg_load32(s->p) == UINT32_MAX;
        field = pg_known(d, oid);
        if (!field && !null)
            return CW_EKIND;
    } else if (field->oid != oid) {
        return CW_EMALFORMED;
    }
    return pg_get_item(d, field, s, depth + 1, term);
}

static enum cw_err get_fields(struct pg_decode *d, const struct pg_node *fields, struct cw_bytes s,
                              unsigned depth, uint32_t n, ERL_NIF_TERM *at) {
    for (uint32_t i = 0; i < n; i++) {
        enum cw_err err = get_field(d, fields ? &fields[i] : NULL, &s, depth, &at[i]);
        if (err)
            return err;
    }
    return s.n ? CW_EMALFORMED : CW_OK;
}

static enum cw_err get_tuple(struct pg_decode *d, const struct pg_node *fields, struct cw_bytes s,
                             unsigned depth, uint32_t n, ERL_NIF_TERM *term) {
    ERL_NIF_TERM space[ON_STACK], *at = space;
    if (n > s.n / 8 || n > PG_COLUMNS_MOST) /* an oid and a length each */
        return CW_EMALFORMED;
    if (n > ON_STACK && !(at = enif_alloc(n * sizeof *at)))
        return CW_ENOMEM;
    enum cw_err err = get_fields(d, fields, s, depth, n, at);
    if (!err)
        *term = enif_make_tuple_from_array(d->env, at, n);
    if (at != space)
        enif_free(at);
    return err;
}

enum cw_err pg_get_composite(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                             unsigned depth, ERL_NIF_TERM *term) {
    uint32_t n;
    if (!pg_take32(&s, &n) || (n != node->n && !d->codec->lenient))
        return CW_EMALFORMED;
    return get_tuple(d, n == node->n ? node->sub : NULL, s, depth, n, term);
}

enum cw_err pg_get_record(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                          unsigned depth, ERL_NIF_TERM *term) {
    uint32_t n;
    (void)node;
    return pg_take32(&s, &n) ? get_tuple(d, NULL, s, depth, n, term) : CW_EMALFORMED;
}

bool pg_put_composite(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    int n;
    const ERL_NIF_TERM *at;
    if (!enif_get_tuple(e->env, term, &n, &at))
        return PG_REFUSE(e, node, wrong, term);
    if ((uint32_t)n != node->n)
        return PG_REFUSE(e, node, fields, term);
    if (!pg_put32(e, node->n))
        return false;
    for (int i = 0; i < n; i++)
        if (!pg_put32(e, node->sub[i].oid) || !pg_put_item(e, &node->sub[i], at[i]))
            return false;
    return true;
}

/* The server takes no records of unknown type. */
bool pg_put_record(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    return PG_REFUSE(e, node, unsupported, term);
}
