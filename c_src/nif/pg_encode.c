#include "pg_type.h"

/* Bytes that are written on a normal scheduler: elements take most time, and have eight at least.
 */
#define BYTES_MOST (64u << 10)

#define STACK_BYTES 4096u
#define TOTAL_MOST ((size_t)INT32_MAX) /* the protocol's, for all parameters of a statement */

static pg_put_fn *const put[PG_KIND_COUNT] = {
#define X(name, atom) [PG_##name] = pg_put_##atom,
    PG_KINDS(X)
#undef X
};

/* ---- what is written ---- */

static bool fail(struct pg_encode *e, enum cw_err err) {
    e->err = err;
    return false;
}

static bool grow(struct pg_encode *e, size_t n) {
    size_t cap = e->cap + (e->cap > n ? e->cap : n);
    if (e->in_bin ? !enif_realloc_binary(&e->bin, cap) : !enif_alloc_binary(cap, &e->bin))
        return fail(e, CW_ENOMEM);
    if (!e->in_bin)
        memcpy(e->bin.data, e->p, e->n);
    e->in_bin = true;
    e->p = e->bin.data;
    e->cap = cap;
    return true;
}

bool pg_reserve(struct pg_encode *e, size_t n) {
    if (n > PG_VALUE_MOST || e->n + n > TOTAL_MOST)
        return fail(e, CW_ELIMIT);
    if (e->n + n > e->limit)
        return fail(e, CW_EBUDGET);
    return e->cap - e->n >= n || grow(e, n);
}

bool pg_may_spend(struct pg_encode *e, size_t n) {
    return n <= e->limit - e->n || fail(e, CW_EBUDGET);
}

static bool spend(struct pg_encode *e, size_t n) {
    if (!pg_may_spend(e, n))
        return false;
    e->limit -= n;
    return true;
}

bool pg_put_bytes(struct pg_encode *e, const void *p, size_t n) {
    if (!pg_reserve(e, n))
        return false;
    if (n)
        memcpy(e->p + e->n, p, n);
    e->n += n;
    return true;
}

bool pg_put8(struct pg_encode *e, uint8_t v) {
    return pg_put_bytes(e, &v, 1);
}

bool pg_put16(struct pg_encode *e, uint16_t v) {
    uint8_t b[2] = {(uint8_t)(v >> 8), (uint8_t)v};
    return pg_put_bytes(e, b, 2);
}

static void store32(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

bool pg_put32(struct pg_encode *e, uint32_t v) {
    uint8_t b[4];
    store32(b, v);
    return pg_put_bytes(e, b, 4);
}

bool pg_put64(struct pg_encode *e, uint64_t v) {
    uint8_t b[8];
    cw_store64be(b, v);
    return pg_put_bytes(e, b, 8);
}

void pg_patch32(struct pg_encode *e, size_t at, uint32_t v) {
    store32(e->p + at, v);
}

/* ---- one value ---- */

void pg_refuse(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM reason,
               ERL_NIF_TERM bad) {
    e->kind = node->kind;
    e->reason = reason;
    e->bad = bad;
    e->err = CW_EMALFORMED;
}

bool pg_put(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    if (enif_is_map(e->env, term) && !spend(e, PG_STRUCT_BYTES))
        return false;
    if (e->depth >= PG_DEPTH_MOST)
        return PG_REFUSE(e, node, too_deep, term);
    e->depth++;
    bool ok = put[node->kind](e, node, term);
    e->depth--;
    return ok;
}

bool pg_put_item(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    size_t at = e->n;
    if (term == e->lib->a_nil)
        return pg_put32(e, UINT32_MAX);
    if (!pg_put32(e, 0) || !pg_put(e, node, term))
        return false;
    size_t n = e->n - at - 4;
    if (n > PG_VALUE_MOST)
        return PG_REFUSE(e, node, too_large, term);
    pg_patch32(e, at, (uint32_t)n);
    return true;
}

bool pg_fields(struct pg_encode *e, const struct pg_node *node, enum pg_struct which,
               ERL_NIF_TERM term, ERL_NIF_TERM *fields) {
    return pg_get_struct(e->env, e->lib, &e->lib->shapes[which], term, fields) ||
           PG_REFUSE(e, node, wrong, term);
}

/* Each element will take four bytes at least. */
bool pg_get_length(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM list,
                   unsigned *n) {
    ERL_NIF_TERM head, rest = list;
    for (*n = 0; enif_get_list_cell(e->env, rest, &head, &rest); ++*n)
        if (*n > e->limit / 4)
            return fail(e, CW_EBUDGET);
    return enif_is_empty_list(e->env, rest) || PG_REFUSE(e, node, wrong, list);
}

/* ---- calls ---- */

static struct pg_encode begin(ErlNifEnv *env, uint8_t *space) {
    return (struct pg_encode){.env = env,
                              .lib = nif_lib(env)->pg,
                              .p = space,
                              .cap = STACK_BYTES,
                              .limit = nif_is_dirty() ? SIZE_MAX : BYTES_MOST};
}

/* A value of each element of the list. CW_EMALFORMED without a reason: they are not as many as the
 * columns, or it is no list. `at` counts those that were written. */
static bool put_list(struct pg_encode *e, const struct pg_codec *codec, ERL_NIF_TERM list,
                     unsigned *at) {
    ERL_NIF_TERM head;
    for (*at = 0; *at < codec->n && enif_get_list_cell(e->env, list, &head, &list); ++*at)
        if (!pg_put_item(e, &codec->nodes[*at], head))
            return false;
    return (*at == codec->n && enif_is_empty_list(e->env, list)) || fail(e, CW_EMALFORMED);
}

/* What is wrong with `list`: {At, Kind, Reason, Term}, {count, Columns, Length} or {list, List}. */
static ERL_NIF_TERM detail(struct pg_encode *e, const struct pg_codec *codec, ERL_NIF_TERM list,
                           unsigned at) {
    unsigned n;
    if (e->reason)
        return enif_make_tuple4(e->env, enif_make_uint(e->env, at), e->lib->kinds[e->kind],
                                e->reason, e->bad);
    if (!enif_get_list_length(e->env, list, &n))
        return enif_make_tuple2(e->env, e->lib->a_list, list);
    return enif_make_tuple3(e->env, e->lib->a_count, enif_make_uint(e->env, codec->n),
                            enif_make_uint(e->env, n));
}

static ERL_NIF_TERM failure(struct pg_encode *e, ERL_NIF_TERM about) {
    if (e->in_bin)
        enif_release_binary(&e->bin);
    return e->err == CW_EMALFORMED ? enif_make_tuple2(e->env, e->lib->a_error, about)
                                   : nif_error(e->env, e->err);
}

static ERL_NIF_TERM finish(struct pg_encode *e) {
    if (!e->in_bin)
        return nif_make_binary(e->env, cw_bytes(e->p, e->n));
    if (e->bin.size != e->n && !enif_realloc_binary(&e->bin, e->n)) {
        e->err = CW_ENOMEM;
        return failure(e, 0);
    }
    return enif_make_binary(e->env, &e->bin);
}

static ERL_NIF_TERM go_dirty(struct pg_encode *e, const char *name, nif_fn *fn, int argc,
                             const ERL_NIF_TERM argv[]) {
    if (e->in_bin)
        enif_release_binary(&e->bin);
    return nif_go_dirty(e->env, name, fn, argc, argv);
}

ERL_NIF_TERM nif_pg_encode(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    const struct pg_codec *codec;
    uint8_t space[STACK_BYTES];
    unsigned at;
    if (!pg_get_codec(env, argv[0], &codec))
        return enif_make_badarg(env);
    struct pg_encode e = begin(env, space);
    ErlNifTime began = nif_begin(codec->n * NIF_CELL * 2);
    bool ok = put_list(&e, codec, argv[1], &at);
    nif_report(env, began);
    if (e.err == CW_EBUDGET)
        return go_dirty(&e, "pg_encode", nif_pg_encode, argc, argv);
    return ok ? finish(&e) : failure(&e, detail(&e, codec, argv[1], at));
}

/* One after the other; `row` is the one that failed, `n` how many were written. */
static bool put_rows(struct pg_encode *e, const struct pg_codec *codec, ERL_NIF_TERM rows,
                     ERL_NIF_TERM *row, unsigned *n, unsigned *at) {
    for (*n = 0; enif_get_list_cell(e->env, rows, row, &rows); ++*n)
        if (!pg_put16(e, (uint16_t)codec->n) || !put_list(e, codec, *row, at))
            return false;
    *row = rows;
    return enif_is_empty_list(e->env, rows) || fail(e, CW_EMALFORMED);
}

ERL_NIF_TERM nif_pg_encode_rows(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    const struct pg_codec *codec;
    uint8_t space[STACK_BYTES];
    ERL_NIF_TERM row;
    unsigned n, at = 0;
    if (!pg_get_codec(env, argv[0], &codec))
        return enif_make_badarg(env);
    struct pg_encode e = begin(env, space);
    ErlNifTime began = nif_now();
    bool ok = put_rows(&e, codec, argv[1], &row, &n, &at);
    nif_report(env, began);
    if (e.err == CW_EBUDGET)
        return go_dirty(&e, "pg_encode_rows", nif_pg_encode_rows, argc, argv);
    return ok ? finish(&e)
              : failure(&e, enif_make_tuple3(env, e.lib->a_row, enif_make_uint(env, n),
                                             detail(&e, codec, row, at)));
}
