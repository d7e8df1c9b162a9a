#include "pg_codec.h"

#include "pg_type.h"

/* What the specs of one codec may come to: a thousand columns of large composites. */
#define NODES_MOST (1u << 17)
#define NODES_SOON 2000u /* on a normal scheduler */

bool pg_get_codec(ErlNifEnv *env, ERL_NIF_TERM term, const struct pg_codec **codec) {
    void *obj;
    if (!enif_get_resource(env, term, nif_lib(env)->pg->codec_type, &obj))
        return false;
    *codec = obj;
    return true;
}

/* ---- specs ----
 *
 *     Spec = Kind                          a scalar
 *          | record | anyarray             whose types stand in the value
 *          | {array | vector, Oid, Spec}
 *          | {range | multirange, Spec}
 *          | {composite, [{Oid, Spec}]}
 *
 * The first pass counts nodes, the second one, when their place is known, fills them in. */

struct build {
    ErlNifEnv *env;
    const struct pg_lib *lib;
    struct pg_node *next; /* NULL in the first pass */
    size_t count;
    size_t most;
    bool too_many;
};

static bool visit(struct build *b, ERL_NIF_TERM spec, int precision, unsigned depth,
                  struct pg_node *node);

/* A block of so many nodes; they are counted only in the first pass, where `at` is a place for
 * one. */
static bool reserve(struct build *b, uint32_t n, struct pg_node **at) {
    if (b->next) {
        *at = b->next;
        b->next += n;
        return true;
    }
    b->count += n;
    b->too_many |= n > b->most || b->count > b->most;
    return !b->too_many;
}

static bool find_kind(const struct pg_lib *lib, ERL_NIF_TERM atom, enum pg_kind *kind) {
    for (unsigned i = 0; i < PG_KIND_COUNT; i++)
        if (lib->kinds[i] == atom) {
            *kind = (enum pg_kind)i;
            return true;
        }
    return false;
}

static bool get_oid(ErlNifEnv *env, ERL_NIF_TERM term, uint32_t *oid) {
    unsigned v;
    if (!enif_get_uint(env, term, &v))
        return false;
    *oid = v;
    return true;
}

static bool is_scalar(enum pg_kind kind) {
    return kind < PG_ARRAY || kind == PG_RECORD || kind == PG_OPAQUE;
}

static bool visit_scalar(struct build *b, ERL_NIF_TERM spec, struct pg_node *node) {
    if (spec == b->lib->a_anyarray) {
        node->kind = PG_ARRAY;
        return true;
    }
    return find_kind(b->lib, spec, &node->kind) && is_scalar(node->kind);
}

/* Of an array's elements the seconds have the array's precision, all others have 6 digits, as with
 * Postgrex. */
static bool visit_sub(struct build *b, ERL_NIF_TERM oid, ERL_NIF_TERM spec, int precision,
                      unsigned depth, struct pg_node *node) {
    struct pg_node space, *sub = &space;
    if (!reserve(b, 1, &sub) || !visit(b, spec, precision, depth, sub) ||
        !get_oid(b->env, oid, &sub->oid))
        return false;
    node->sub = sub;
    return true;
}

static bool visit_fields(struct build *b, ERL_NIF_TERM list, unsigned depth, struct pg_node *node) {
    unsigned n;
    int arity;
    ERL_NIF_TERM head;
    const ERL_NIF_TERM *field;
    struct pg_node space, *sub = &space;
    if (!enif_get_list_length(b->env, list, &n) || !reserve(b, n, &sub))
        return false;
    node->sub = sub;
    node->n = n;
    while (enif_get_list_cell(b->env, list, &head, &list)) {
        if (!enif_get_tuple(b->env, head, &arity, &field) || arity != 2 ||
            !visit(b, field[1], 6, depth, sub) || !get_oid(b->env, field[0], &sub->oid))
            return false;
        if (b->next)
            sub++;
    }
    return true;
}

static bool visit(struct build *b, ERL_NIF_TERM spec, int precision, unsigned depth,
                  struct pg_node *node) {
    int arity;
    const ERL_NIF_TERM *at;
    *node = (struct pg_node){.precision = precision};
    if (enif_is_atom(b->env, spec))
        return visit_scalar(b, spec, node);
    if (depth >= PG_DEPTH_MOST || !enif_get_tuple(b->env, spec, &arity, &at) || arity < 2 ||
        !find_kind(b->lib, at[0], &node->kind))
        return false;
    switch (node->kind) {
    case PG_ARRAY:
    case PG_VECTOR:
        return arity == 3 && visit_sub(b, at[1], at[2], precision, depth + 1, node);
    case PG_RANGE:
    case PG_MULTIRANGE:
        return arity == 2 && visit_sub(b, enif_make_uint(b->env, 0), at[1], 6, depth + 1, node);
    case PG_COMPOSITE:
        return arity == 2 && visit_fields(b, at[1], depth + 1, node);
    default:
        return false;
    }
}

/* ---- columns and known types ---- */

/* The precision is the type modifier itself; of an interval it is the lower half, with 0xffff for
 * none. */
static bool get_precision(ErlNifEnv *env, ERL_NIF_TERM typmod, int *precision) {
    if (!enif_get_int(env, typmod, precision))
        return false;
    *precision &= 0xffff;
    if (*precision > 6)
        *precision = 6;
    return true;
}

/* [{Typmod, Spec}] */
static bool visit_columns(struct build *b, ERL_NIF_TERM list, struct pg_node *node) {
    int arity, precision;
    ERL_NIF_TERM head;
    const ERL_NIF_TERM *column;
    struct pg_node space;
    while (enif_get_list_cell(b->env, list, &head, &list))
        if (!enif_get_tuple(b->env, head, &arity, &column) || arity != 2 ||
            !get_precision(b->env, column[0], &precision) ||
            !visit(b, column[1], precision, 0, node ? node++ : &space))
            return false;
    return enif_is_empty_list(b->env, list);
}

/* [{Oid, Spec}], sorted by oid. */
static bool visit_known(struct build *b, ERL_NIF_TERM list, struct pg_node *node) {
    int arity;
    uint32_t last = 0;
    ERL_NIF_TERM head;
    const ERL_NIF_TERM *type;
    struct pg_node space;
    while (enif_get_list_cell(b->env, list, &head, &list)) {
        struct pg_node *at = node ? node++ : &space;
        if (!enif_get_tuple(b->env, head, &arity, &type) || arity != 2 ||
            !visit(b, type[1], 6, 0, at) || !get_oid(b->env, type[0], &at->oid) || at->oid <= last)
            return false;
        last = at->oid;
    }
    return enif_is_empty_list(b->env, list);
}

static bool set_options(ErlNifEnv *env, const struct pg_lib *lib, ERL_NIF_TERM list,
                        struct pg_codec *codec) {
    ERL_NIF_TERM option;
    while (enif_get_list_cell(env, list, &option, &list)) {
        codec->reference |= option == lib->a_reference;
        codec->ours |= option == lib->a_causeway;
        codec->numeric |= option == lib->a_numeric;
        codec->duration |= option == lib->a_duration;
        codec->lenient |= option == lib->a_lenient;
    }
    return enif_is_empty_list(env, list);
}

/* What pg_get and those that it calls will count of a row without nested values. */
static uint64_t row_work(const struct pg_codec *codec) {
    uint64_t work = 1;
    for (uint32_t i = 0; i < codec->n; i++) {
        enum pg_kind kind = codec->nodes[i].kind;
        bool plain = kind < PG_DATE && kind != PG_NUMERIC;
        work += plain ? 1 : 1 + PG_STRUCT_WORK;
    }
    return work;
}

/* The first pass, of a codec of `n` columns and `known` types. */
static bool measure(struct build *b, const ERL_NIF_TERM argv[], unsigned *n, unsigned *known,
                    struct pg_codec *head) {
    struct pg_node *nodes = NULL;
    return enif_get_list_length(b->env, argv[0], n) && *n <= PG_COLUMNS_MOST &&
           enif_get_list_length(b->env, argv[1], known) && *known <= NODES_MOST &&
           set_options(b->env, b->lib, argv[2], head) && reserve(b, *n, &nodes) &&
           reserve(b, *known, &nodes) && visit_columns(b, argv[0], NULL) &&
           visit_known(b, argv[1], NULL);
}

ERL_NIF_TERM nif_pg_codec_compile(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    struct build b = {
        .env = env, .lib = nif_lib(env)->pg, .most = nif_is_dirty() ? NODES_MOST : NODES_SOON};
    struct pg_codec head = {0};
    if (!measure(&b, argv, &head.n, &head.known, &head))
        return b.too_many && !nif_is_dirty()
                   ? nif_go_dirty(env, "pg_codec_compile", nif_pg_codec_compile, argc, argv)
                   : enif_make_badarg(env);
    struct pg_codec *codec =
        enif_alloc_resource(b.lib->codec_type, sizeof *codec + b.count * sizeof codec->nodes[0]);
    if (!codec)
        return nif_error(env, CW_ENOMEM);
    *codec = head;
    b.next = codec->nodes + head.n + head.known;
    visit_columns(&b, argv[0], codec->nodes);
    visit_known(&b, argv[1], codec->nodes + head.n);
    codec->work = row_work(codec);
    ERL_NIF_TERM term = enif_make_resource(env, codec);
    enif_release_resource(codec);
    return term;
}
