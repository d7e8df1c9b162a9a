/* Points and what is made of them. All are floats of 64 bits, one after the other. */
#include <math.h>

#include "pg_type.h"

#define POINT_BYTES 16u

/* ---- figures of a fixed number of floats ---- */

static ERL_NIF_TERM make_point(struct pg_decode *d, const uint8_t *p) {
    const ERL_NIF_TERM fields[] = {pg_make_double_at(d, p), pg_make_double_at(d, p + 8)};
    return pg_make(d, PG_POINT_, fields);
}

static bool put_point(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    ERL_NIF_TERM f[2];
    return pg_fields(e, node, PG_POINT_, term, f) && pg_put_double(e, node, f[0]) &&
           pg_put_double(e, node, f[1]);
}

enum cw_err pg_get_point(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                         unsigned depth, ERL_NIF_TERM *term) {
    (void)node, (void)depth;
    if (s.n != POINT_BYTES)
        return CW_EMALFORMED;
    *term = make_point(d, s.p);
    return CW_OK;
}

bool pg_put_point(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    return put_point(e, node, term);
}

enum cw_err pg_get_line(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                        unsigned depth, ERL_NIF_TERM *term) {
    (void)node, (void)depth;
    if (s.n != 24)
        return CW_EMALFORMED;
    const ERL_NIF_TERM fields[] = {pg_make_double_at(d, s.p), pg_make_double_at(d, s.p + 8),
                                   pg_make_double_at(d, s.p + 16)};
    *term = pg_make(d, PG_LINE_, fields);
    return CW_OK;
}

bool pg_put_line(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    ERL_NIF_TERM f[3];
    return pg_fields(e, node, PG_LINE_, term, f) && pg_put_double(e, node, f[0]) &&
           pg_put_double(e, node, f[1]) && pg_put_double(e, node, f[2]);
}

static enum cw_err get_two(struct pg_decode *d, enum pg_struct which, struct cw_bytes s,
                           ERL_NIF_TERM *term) {
    if (s.n != 2 * POINT_BYTES)
        return CW_EMALFORMED;
    const ERL_NIF_TERM fields[] = {make_point(d, s.p), make_point(d, s.p + POINT_BYTES)};
    *term = pg_make(d, which, fields);
    return CW_OK;
}

static bool put_two(struct pg_encode *e, const struct pg_node *node, enum pg_struct which,
                    ERL_NIF_TERM term) {
    ERL_NIF_TERM f[2];
    return pg_fields(e, node, which, term, f) && put_point(e, node, f[0]) &&
           put_point(e, node, f[1]);
}

enum cw_err pg_get_lseg(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                        unsigned depth, ERL_NIF_TERM *term) {
    (void)node, (void)depth;
    return get_two(d, PG_LSEG_, s, term);
}

bool pg_put_lseg(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    return put_two(e, node, PG_LSEG_, term);
}

enum cw_err pg_get_box(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                       unsigned depth, ERL_NIF_TERM *term) {
    (void)node, (void)depth;
    return get_two(d, PG_BOX_, s, term);
}

bool pg_put_box(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    return put_two(e, node, PG_BOX_, term);
}

enum cw_err pg_get_circle(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                          unsigned depth, ERL_NIF_TERM *term) {
    (void)node, (void)depth;
    if (s.n != POINT_BYTES + 8)
        return CW_EMALFORMED;
    const ERL_NIF_TERM fields[] = {make_point(d, s.p), pg_make_double_at(d, s.p + POINT_BYTES)};
    *term = pg_make(d, PG_CIRCLE_, fields);
    return CW_OK;
}

bool pg_put_circle(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    ERL_NIF_TERM f[2];
    double radius;
    if (!pg_fields(e, node, PG_CIRCLE_, term, f) || !put_point(e, node, f[0]) ||
        !pg_get_double(e, node, f[1], &radius))
        return false;
    if (radius < 0)
        return PG_REFUSE(e, node, out_of_range, term);
    return pg_put_double(e, node, f[1]);
}

/* ---- figures of any number of points: | how many, 32 bits | point ... | ---- */

static enum cw_err get_points(struct pg_decode *d, struct cw_bytes s, ERL_NIF_TERM *list) {
    uint32_t n;
    if (!pg_take32(&s, &n) || s.n != (uint64_t)n * POINT_BYTES)
        return CW_EMALFORMED;
    if (!pg_more_work(d, 4 * (size_t)n))
        return CW_EBUDGET;
    *list = enif_make_list(d->env, 0);
    while (n-- > 0)
        *list = enif_make_list_cell(d->env, make_point(d, s.p + (size_t)n * POINT_BYTES), *list);
    return CW_OK;
}

static bool put_points(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM list,
                       ERL_NIF_TERM term) {
    ERL_NIF_TERM point;
    size_t at = e->n;
    uint32_t n = 0;
    if (!pg_put32(e, 0))
        return false;
    for (; enif_get_list_cell(e->env, list, &point, &list); n++)
        if (!put_point(e, node, point))
            return false;
    if (!enif_is_empty_list(e->env, list))
        return PG_REFUSE(e, node, wrong, term);
    pg_patch32(e, at, n);
    return true;
}

enum cw_err pg_get_polygon(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                           unsigned depth, ERL_NIF_TERM *term) {
    ERL_NIF_TERM fields[1];
    (void)node, (void)depth;
    enum cw_err err = get_points(d, s, &fields[0]);
    if (!err)
        *term = pg_make(d, PG_POLYGON_, fields);
    return err;
}

bool pg_put_polygon(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    ERL_NIF_TERM f[1];
    return pg_fields(e, node, PG_POLYGON_, term, f) && put_points(e, node, f[0], term);
}

/* A path has a byte in front: whether it is closed. */
enum cw_err pg_get_path(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                        unsigned depth, ERL_NIF_TERM *term) {
    ERL_NIF_TERM fields[2];
    struct cw_bytes closed;
    (void)node, (void)depth;
    if (!pg_take(&s, 1, &closed))
        return CW_EMALFORMED;
    enum cw_err err = get_points(d, s, &fields[0]);
    fields[1] = closed.p[0] ? d->lib->a_false : d->lib->a_true;
    if (!err)
        *term = pg_make(d, PG_PATH_, fields);
    return err;
}

bool pg_put_path(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    ERL_NIF_TERM f[2];
    if (!pg_fields(e, node, PG_PATH_, term, f))
        return false;
    if (f[1] != e->lib->a_true && f[1] != e->lib->a_false)
        return PG_REFUSE(e, node, wrong, term);
    return pg_put8(e, f[1] == e->lib->a_false) && put_points(e, node, f[0], term);
}
