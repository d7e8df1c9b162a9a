#include "pg_type.h"

/* Values on a normal scheduler, and rows of no columns in one call. */
#define VALUES_MOST 12000u
#define EMPTY_MOST (1u << 20)

/* Bytes that are copied in the time of one value. */
#define VALUE_BYTES 128u

#define COLUMNS_ON_STACK 64u

static pg_get_fn *const get[PG_KIND_COUNT] = {
#define X(name, atom) [PG_##name] = pg_get_##atom,
    PG_KINDS(X)
#undef X
};

/* ---- one value ---- */

enum cw_err pg_get(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                   unsigned depth, ERL_NIF_TERM *term) {
    if (depth > PG_DEPTH_MOST)
        return CW_ELIMIT;
    if (!pg_more_work(d, 1 + s.n / VALUE_BYTES))
        return CW_EBUDGET;
    return get[node->kind](d, node, s, depth, term);
}

enum cw_err pg_get_item(struct pg_decode *d, const struct pg_node *node, struct cw_bytes *s,
                        unsigned depth, ERL_NIF_TERM *term) {
    uint32_t len;
    struct cw_bytes value;
    if (!pg_take32(s, &len))
        return CW_EMALFORMED;
    if (len == UINT32_MAX) {
        *term = d->lib->a_nil;
        return pg_more_work(d, 1) ? CW_OK : CW_EBUDGET;
    }
    if (!pg_take(s, len, &value))
        return CW_EMALFORMED;
    return pg_get(d, node, value, depth, term);
}

const struct pg_node *pg_known(struct pg_decode *d, uint32_t oid) {
    const struct pg_node *known = d->codec->nodes + d->codec->n;
    uint32_t lo = 0, hi = d->codec->known;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (known[mid].oid == oid)
            return &known[mid];
        if (known[mid].oid < oid)
            lo = mid + 1;
        else
            hi = mid;
    }
    d->unknown = oid;
    return NULL;
}

ERL_NIF_TERM pg_make_text(struct pg_decode *d, struct cw_bytes s) {
    return d->codec->reference
               ? enif_make_sub_binary(d->env, d->frame, (size_t)(s.p - d->base), s.n)
               : nif_make_binary(d->env, s);
}

struct pg_decode pg_decode_begin(ErlNifEnv *env, ERL_NIF_TERM frame, struct cw_bytes bytes) {
    return (struct pg_decode){.env = env,
                              .lib = nif_lib(env)->pg,
                              .frame = frame,
                              .base = bytes.p,
                              .limit = nif_is_dirty() ? SIZE_MAX : VALUES_MOST};
}

enum cw_err pg_decode_value(struct pg_decode *d, const struct pg_codec *codec, uint32_t column,
                            struct cw_bytes value, ERL_NIF_TERM *term) {
    d->codec = codec;
    return column < codec->n ? pg_get(d, &codec->nodes[column], value, 0, term) : CW_EMALFORMED;
}

ERL_NIF_TERM pg_decode_text(struct pg_decode *d, const struct pg_codec *codec,
                            struct cw_bytes value) {
    d->codec = codec;
    d->work += value.n / VALUE_BYTES;
    return pg_make_text(d, value);
}

ERL_NIF_TERM pg_decode_error(const struct pg_decode *d, enum cw_err err) {
    if (err == CW_EKIND)
        return nif_error_atom(d->env, d->lib->a_unknown_type, enif_make_uint(d->env, d->unknown));
    return nif_error(d->env, err);
}

/* ---- rows ---- */

static enum cw_err get_row(struct pg_decode *d, struct cw_bytes *s, ERL_NIF_TERM *values,
                           ERL_NIF_TERM *row) {
    for (uint32_t i = 0; i < d->codec->n; i++) {
        enum cw_err err = pg_get_item(d, &d->codec->nodes[i], s, 0, &values[i]);
        if (err)
            return err;
    }
    *row = enif_make_list_from_array(d->env, values, d->codec->n);
    return CW_OK;
}

static enum cw_err get_rows(struct pg_decode *d, struct cw_bytes s, uint32_t n, ERL_NIF_TERM *rows,
                            ERL_NIF_TERM *values) {
    for (uint32_t i = 0; i < n; i++) {
        enum cw_err err = get_row(d, &s, values, &rows[i]);
        if (err)
            return err;
    }
    return s.n ? CW_EMALFORMED : CW_OK;
}

/* Each value has a length of four bytes, so that many rows cannot be announced and not be there. */
static bool plausible(const struct pg_codec *codec, struct cw_bytes s, uint32_t n) {
    return codec->n ? n <= s.n / 4 / codec->n : n <= EMPTY_MOST;
}

static enum cw_err make_rows(struct pg_decode *d, struct cw_bytes s, uint32_t n,
                             ERL_NIF_TERM *list) {
    ERL_NIF_TERM space[COLUMNS_ON_STACK], *values = space;
    ERL_NIF_TERM *rows = enif_alloc((n + 1) * sizeof *rows);
    if (d->codec->n > COLUMNS_ON_STACK)
        values = enif_alloc(d->codec->n * sizeof *values);
    enum cw_err err = rows && values ? get_rows(d, s, n, rows, values) : CW_ENOMEM;
    if (!err)
        for (uint32_t i = n; i-- > 0;)
            *list = enif_make_list_cell(d->env, rows[i], *list);
    if (values != space)
        enif_free(values);
    enif_free(rows);
    return err;
}

ERL_NIF_TERM nif_pg_decode_rows(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    const struct pg_codec *codec;
    struct cw_bytes s;
    unsigned n;
    ERL_NIF_TERM list = argv[3];
    if (!pg_get_codec(env, argv[0], &codec) || !nif_get_bytes(env, argv[1], &s) ||
        !enif_get_uint(env, argv[2], &n) || !enif_is_list(env, list))
        return enif_make_badarg(env);
    struct pg_decode d = pg_decode_begin(env, argv[1], s);
    d.codec = codec;
    if (!plausible(codec, s, n))
        return pg_decode_error(&d, CW_EMALFORMED);
    ErlNifTime began = nif_begin(s.n);
    bool much = n * codec->work + s.n / VALUE_BYTES > d.limit;
    enum cw_err err = much ? CW_EBUDGET : make_rows(&d, s, n, &list);
    nif_report(env, began);
    if (err == CW_EBUDGET)
        return nif_go_dirty(env, "pg_decode_rows", nif_pg_decode_rows, argc, argv);
    return err ? pg_decode_error(&d, err) : list;
}
