/* Arrays, of up to six dimensions:
 *
 *     | dimensions | has nulls | oid | { length | lower bound } for each | element ... |
 *
 * all of 32 bits; elements are items, the last dimension runs fastest. They are lists of lists;
 * lower bounds are not kept. */
#include "pg_type.h"

#define DIMS_MOST 6
#define ON_STACK 32u

/* ---- to terms ---- */

struct shape {
    int dims;
    uint32_t length[DIMS_MOST];
    size_t elements;
};

static bool read_shape(struct cw_bytes *s, struct shape *shape, uint32_t *oid) {
    uint32_t dims, nulls, lower;
    if (!pg_take32(s, &dims) || !pg_take32(s, &nulls) || !pg_take32(s, oid) || dims > DIMS_MOST)
        return false;
    *shape = (struct shape){.dims = (int)dims, .elements = dims > 0};
    for (uint32_t i = 0; i < dims; i++) {
        if (!pg_take32(s, &shape->length[i]) || !pg_take32(s, &lower))
            return false;
        uint64_t product = (uint64_t)shape->elements * shape->length[i];
        if (product > s->n / 4) /* each has a length of four bytes */
            return false;
        shape->elements = (size_t)product;
    }
    return true;
}

static enum cw_err get_elements(struct pg_decode *d, const struct pg_node *sub, struct cw_bytes s,
                                unsigned depth, size_t n, ERL_NIF_TERM *at) {
    for (size_t i = 0; i < n; i++) {
        enum cw_err err = pg_get_item(d, sub, &s, depth + 1, &at[i]);
        if (err)
            return err;
    }
    return s.n ? CW_EMALFORMED : CW_OK;
}

/* Makes lists of elements, then lists of those, in the same place: there are ever fewer. */
static ERL_NIF_TERM nest(ErlNifEnv *env, const struct shape *shape, ERL_NIF_TERM *at) {
    size_t n = shape->elements;
    for (int i = shape->dims; i-- > 0;) {
        uint32_t length = shape->length[i];
        n /= length;
        for (size_t j = 0; j < n; j++)
            at[j] = enif_make_list_from_array(env, at + j * length, length);
    }
    return at[0];
}

static enum cw_err get_array(struct pg_decode *d, const struct pg_node *sub, struct cw_bytes s,
                             unsigned depth, const struct shape *shape, ERL_NIF_TERM *term) {
    ERL_NIF_TERM space[ON_STACK], *at = space;
    if (!shape->elements) {
        *term = enif_make_list(d->env, 0);
        return s.n ? CW_EMALFORMED : CW_OK;
    }
    if (shape->elements > ON_STACK && !(at = enif_alloc(shape->elements * sizeof *at)))
        return CW_ENOMEM;
    enum cw_err err = get_elements(d, sub, s, depth, shape->elements, at);
    if (!err)
        *term = nest(d->env, shape, at);
    if (at != space)
        enif_free(at);
    return err;
}

/* Of anyarray only the value knows what it has in it. */
enum cw_err pg_get_array(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                         unsigned depth, ERL_NIF_TERM *term) {
    struct shape shape;
    uint32_t oid;
    if (!read_shape(&s, &shape, &oid))
        return CW_EMALFORMED;
    const struct pg_node *sub = node->sub;
    if (!sub || (sub->oid != oid && d->codec->lenient))
        sub = pg_known(d, oid);
    if (!sub)
        return CW_EKIND;
    return sub->oid == oid ? get_array(d, sub, s, depth, &shape, term) : CW_EMALFORMED;
}

enum cw_err pg_get_vector(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                          unsigned depth, ERL_NIF_TERM *term) {
    return pg_get_array(d, node, s, depth, term);
}

/* ---- from terms ---- */

static bool is_list(struct pg_encode *e, ERL_NIF_TERM term) {
    return enif_is_list(e->env, term);
}

/* Whether a list that is in a list is an element, not a dimension: some types have lists as their
 * values. These have neither lists nor nil in them. */
static bool is_element(struct pg_encode *e, const struct pg_node *sub, ERL_NIF_TERM list) {
    ERL_NIF_TERM head;
    if (sub->kind == PG_ARRAY)
        return true; /* of a domain over arrays */
    if (sub->kind != PG_TSVECTOR && sub->kind != PG_VECTOR)
        return false;
    bool empty = enif_is_empty_list(e->env, list);
    while (enif_get_list_cell(e->env, list, &head, &list))
        if (head != e->lib->a_nil)
            return !is_list(e, head);
    return empty;
}

/* By the first element, its first one, and so on. */
static bool measure(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM list,
                    struct shape *shape, ERL_NIF_TERM term) {
    ERL_NIF_TERM head = list, tail;
    unsigned n;
    *shape = (struct shape){.elements = 1};
    do {
        list = head;
        if (shape->dims == DIMS_MOST)
            return PG_REFUSE(e, node, too_deep, term);
        if (!pg_get_length(e, node, list, &n))
            return false;
        shape->length[shape->dims++] = n;
        shape->elements = n && shape->elements; /* whether there are any */
    } while (enif_get_list_cell(e->env, list, &head, &tail) && is_list(e, head) &&
             !is_element(e, node->sub, head));
    return true;
}

static bool put_shape(struct pg_encode *e, const struct pg_node *node, const struct shape *shape) {
    int dims = shape->elements ? shape->dims : 0;
    if (!pg_put32(e, (uint32_t)dims) || !pg_put32(e, 0) || !pg_put32(e, node->sub->oid))
        return false;
    for (int i = 0; i < dims; i++)
        if (!pg_put32(e, shape->length[i]) || !pg_put32(e, 1))
            return false;
    return true;
}

static bool put_level(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM list,
                      const struct shape *shape, int dim, bool *nulls, ERL_NIF_TERM term) {
    ERL_NIF_TERM head;
    uint32_t n = 0;
    for (; n < shape->length[dim] && enif_get_list_cell(e->env, list, &head, &list); n++) {
        if (dim + 1 < shape->dims) {
            if (!is_list(e, head))
                return PG_REFUSE(e, node, uneven, term);
            if (!put_level(e, node, head, shape, dim + 1, nulls, term))
                return false;
        } else {
            if (is_list(e, head) && !is_element(e, node->sub, head))
                return PG_REFUSE(e, node, uneven, term);
            *nulls |= head == e->lib->a_nil;
            if (!pg_put_item(e, node->sub, head))
                return false;
        }
    }
    if (n < shape->length[dim] || !enif_is_empty_list(e->env, list))
        return PG_REFUSE(e, node, uneven, term);
    return true;
}

bool pg_put_array(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    struct shape shape;
    bool nulls = false;
    size_t at = e->n;
    if (!node->sub)
        return PG_REFUSE(e, node, unsupported, term);
    if (!is_list(e, term))
        return PG_REFUSE(e, node, wrong, term);
    if (!measure(e, node, term, &shape, term) || !put_shape(e, node, &shape) ||
        !put_level(e, node, term, &shape, 0, &nulls, term))
        return false;
    pg_patch32(e, at + 4, nulls);
    return true;
}

/* int2vector and oidvector: one dimension, always, that begins at 0, and no nulls. An empty one has
 * no binary form that the server would take. */
bool pg_put_vector(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    ERL_NIF_TERM head, list = term;
    unsigned n;
    if (!pg_get_length(e, node, term, &n))
        return false;
    if (!n)
        return PG_REFUSE(e, node, unsupported, term);
    if (!pg_put32(e, 1) || !pg_put32(e, 0) || !pg_put32(e, node->sub->oid) || !pg_put32(e, n) ||
        !pg_put32(e, 0))
        return false;
    while (enif_get_list_cell(e->env, list, &head, &list)) {
        if (head == e->lib->a_nil)
            return PG_REFUSE(e, node, wrong, term);
        if (!pg_put_item(e, node->sub, head))
            return false;
    }
    return true;
}
