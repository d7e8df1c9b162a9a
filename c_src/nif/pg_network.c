/* Addresses: inet and cidr, of both families, and those of network cards. */
#include "pg_type.h"

/* | family | bits of the mask | is a cidr | bytes | address ... | */
#define HEAD 4u
enum { IPV4 = 2, IPV6 = 3 };

/* A tuple of `n` parts of `size` bytes. */
static ERL_NIF_TERM make_parts(ErlNifEnv *env, const uint8_t *p, unsigned n, unsigned size) {
    ERL_NIF_TERM parts[8];
    for (unsigned i = 0; i < n; i++)
        parts[i] = enif_make_uint(env, size == 1 ? p[i] : pg_load16(p + 2 * i));
    return enif_make_tuple_from_array(env, parts, n);
}

/* Writes what make_parts makes. Refuses other terms. */
static bool put_parts(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM parts,
                      int count, unsigned size, ERL_NIF_TERM term) {
    int n;
    unsigned v;
    const ERL_NIF_TERM *at;
    if (!enif_get_tuple(e->env, parts, &n, &at) || n != count)
        return PG_REFUSE(e, node, wrong, term);
    for (int i = 0; i < n; i++) {
        if (!enif_get_uint(e->env, at[i], &v) || v >= 1u << (8 * size))
            return PG_REFUSE(e, node, out_of_range, term);
        if (!(size == 1 ? pg_put8(e, (uint8_t)v) : pg_put16(e, (uint16_t)v)))
            return false;
    }
    return true;
}

/* The mask of a single host is nil, unless it is a network's. */
enum cw_err pg_get_inet(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                        unsigned depth, ERL_NIF_TERM *term) {
    (void)node, (void)depth;
    if (s.n < HEAD || s.n != HEAD + (size_t)s.p[3])
        return CW_EMALFORMED;
    unsigned bytes = s.p[0] == IPV4 ? 4 : s.p[0] == IPV6 ? 16 : 0;
    if (!bytes || s.p[3] != bytes || s.p[1] > 8 * bytes)
        return CW_EMALFORMED;
    bool host = s.p[1] == 8 * bytes && s.p[2] != 1;
    const ERL_NIF_TERM fields[] = {
        make_parts(d->env, s.p + HEAD, bytes == 4 ? 4 : 8, bytes == 4 ? 1 : 2),
        host ? d->lib->a_nil : enif_make_uint(d->env, s.p[1])};
    *term = pg_make(d, PG_INET_, fields);
    return CW_OK;
}

bool pg_put_inet(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    ERL_NIF_TERM f[2];
    int n;
    unsigned mask;
    const ERL_NIF_TERM *at;
    if (!pg_fields(e, node, PG_INET_, term, f))
        return false;
    if (!enif_get_tuple(e->env, f[0], &n, &at) || (n != 4 && n != 8))
        return PG_REFUSE(e, node, wrong, term);
    unsigned bytes = n == 4 ? 4 : 16;
    bool host = f[1] == e->lib->a_nil;
    if (host)
        mask = 8 * bytes;
    else if (!enif_get_uint(e->env, f[1], &mask) || mask > 8 * bytes)
        return PG_REFUSE(e, node, out_of_range, term);
    const uint8_t head[HEAD] = {n == 4 ? IPV4 : IPV6, (uint8_t)mask, !host, (uint8_t)bytes};
    return pg_put_bytes(e, head, HEAD) && put_parts(e, node, f[0], n, n == 4 ? 1 : 2, term);
}

static enum cw_err get_card(struct pg_decode *d, struct cw_bytes s, unsigned n,
                            ERL_NIF_TERM *term) {
    if (s.n != n)
        return CW_EMALFORMED;
    const ERL_NIF_TERM fields[] = {make_parts(d->env, s.p, n, 1)};
    *term = pg_make(d, PG_MACADDR_, fields);
    return CW_OK;
}

static bool put_card(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term, int n) {
    ERL_NIF_TERM f[1];
    return pg_fields(e, node, PG_MACADDR_, term, f) && put_parts(e, node, f[0], n, 1, term);
}

enum cw_err pg_get_macaddr(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                           unsigned depth, ERL_NIF_TERM *term) {
    (void)node, (void)depth;
    return get_card(d, s, 6, term);
}

bool pg_put_macaddr(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    return put_card(e, node, term, 6);
}

enum cw_err pg_get_macaddr8(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                            unsigned depth, ERL_NIF_TERM *term) {
    (void)node, (void)depth;
    return get_card(d, s, 8, term);
}

bool pg_put_macaddr8(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    return put_card(e, node, term, 8);
}
