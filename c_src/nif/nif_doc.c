#include "nif_doc.h"

#include <string.h>

#include "../core/cw_arena.h"
#include "../core/cw_changes.h"
#include "../core/cw_clock.h"
#include "../core/cw_visit.h"
#include "nif_ops.h"
#include "nif_term.h"
#include "nif_value.h"

/* ---- arguments and results ---- */

/* For registers, the only ones that are stamped: reading the clock takes as long as other things
 * here. */
static uint64_t now_ms(const struct nif_ops *ops) {
    size_t i = 0;
    while (i < ops->n && ops->ops[i].verb != CW_PUT)
        i++;
    if (i == ops->n)
        return 0;
    ErlNifTime t = enif_monotonic_time(ERL_NIF_MSEC) + enif_time_offset(ERL_NIF_MSEC);
    return t > 0 ? (uint64_t)t : 0;
}

static ERL_NIF_TERM doc_or_error(ErlNifEnv *env, enum cw_err err, struct cw_doc *doc) {
    return err ? nif_error(env, err) : nif_make_doc(env, doc, 1);
}

static ERL_NIF_TERM buffer_or_error(ErlNifEnv *env, enum cw_err err, struct cw_buf *buf) {
    ERL_NIF_TERM term = err ? nif_error(env, err) : nif_make_binary(env, cw_buf_slice(buf, 0));
    cw_buf_free(buf);
    return term;
}

static ERL_NIF_TERM read_error(ErlNifEnv *env, enum cw_err err, const struct nif_read *read) {
    return err == CW_EMALFORMED ? nif_error_atom(env, ATOM(env, unknown_atom), read->unknown)
                                : nif_error(env, err);
}

/* `where` is what holds the term that cannot be encoded. */
static ERL_NIF_TERM bad_term(ErlNifEnv *env, enum cw_err err, ERL_NIF_TERM bad,
                             ERL_NIF_TERM where) {
    return err == CW_EMALFORMED
               ? nif_error_atom(env, ATOM(env, bad_term), enif_make_tuple2(env, bad, where))
           : err == CW_EPATH ? nif_error_atom(env, ATOM(env, bad_path), bad)
                             : nif_error_with(env, err, bad);
}

static ERL_NIF_TERM bad_replica(ErlNifEnv *env, enum cw_err err, ERL_NIF_TERM name) {
    return err == CW_ENOMEM ? nif_error(env, err)
                            : nif_error_atom(env, ATOM(env, bad_replica), name);
}

/* Whether going through all replicas is too much for a normal scheduler. */
static bool is_crowded(const struct cw_doc *doc) {
    return !nif_is_dirty() && cw_doc_replicas(doc) > NIF_REPLICAS;
}

/* ---- life ---- */

ERL_NIF_TERM nif_doc_new(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    struct cw_buf name;
    uint8_t space[256];
    (void)argc;
    cw_buf_init(&name, &nif_mem, space, sizeof space);
    enum cw_err err = nif_put_name(env, &name, argv[0]);
    struct cw_doc *doc = err ? NULL : cw_doc_new(&nif_mem, cw_buf_slice(&name, 0));
    cw_buf_free(&name);
    if (err)
        return bad_replica(env, err, argv[0]);
    return doc_or_error(env, doc ? CW_OK : CW_ENOMEM, doc);
}

ERL_NIF_TERM nif_doc_fork(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    const struct cw_doc *doc;
    struct cw_doc *fork = NULL;
    struct cw_buf name;
    uint8_t space[256];
    if (!nif_get_doc(env, argv[0], &doc))
        return enif_make_badarg(env);
    if (is_crowded(doc))
        return nif_go_dirty(env, "doc_fork", nif_doc_fork, argc, argv);
    ErlNifTime began = nif_begin(cw_doc_replicas(doc) * NIF_CELL);
    cw_buf_init(&name, &nif_mem, space, sizeof space);
    enum cw_err bad = nif_put_name(env, &name, argv[1]);
    enum cw_err err = bad ? bad : cw_doc_fork(doc, cw_buf_slice(&name, 0), &fork);
    cw_buf_free(&name);
    nif_report(env, began);
    return bad ? bad_replica(env, bad, argv[1]) : doc_or_error(env, err, fork);
}

/* ---- changing ---- */

static ERL_NIF_TERM update_error(ErlNifEnv *env, enum cw_err err, const struct cw_fault *f) {
    ERL_NIF_TERM at = enif_make_uint64(env, f->op);
    switch (err) {
    case CW_EKIND:
        return nif_error_with(env, err,
                              enif_make_tuple4(env, at, enif_make_uint64(env, f->field),
                                               nif_make_kind(env, f->have),
                                               nif_make_kind(env, f->want)));
    case CW_EOP:
        return nif_error_with(env, err, enif_make_tuple2(env, at, nif_make_kind(env, f->want)));
    case CW_EPATH:
        return nif_error_with(env, err, enif_make_tuple2(env, at, enif_make_uint64(env, f->field)));
    case CW_ERIGHTS:
        return nif_error_with(env, err,
                              enif_make_tuple3(env, at, enif_make_uint64(env, f->here),
                                               enif_make_uint64(env, f->elsewhere)));
    case CW_ERANGE:
    case CW_ELIMIT:
        return nif_error_with(env, err, at);
    default:
        return nif_error(env, err);
    }
}

/* What could not be read as an operation. */
static ERL_NIF_TERM ops_error(ErlNifEnv *env, enum cw_err err, const struct nif_ops *ops) {
    switch (err) {
    case CW_EOP:
        return nif_error_atom(env, ATOM(env, bad_op), ops->bad);
    case CW_EREPLICA:
        return nif_error_atom(env, ATOM(env, bad_replica), ops->bad);
    default:
        return bad_term(env, err, ops->bad, ops->op);
    }
}

static bool removes(const struct cw_op *op) {
    return op->verb == CW_DELETE || op->verb == CW_RESET;
}

static bool may_remove(const struct nif_ops *ops) {
    for (size_t i = 0; i < ops->n; i++)
        if (removes(&ops->ops[i]))
            return true;
    return false;
}

/* At most how many cells a removal is of: those of every kind at its path. Which map a path goes
 * through is not asked when the operation names it; then those at the path's beginning count. */
static uint64_t count_removed(const struct cw_doc *doc, const struct cw_op *op) {
    struct cw_bytes fields[CW_PATH_MAX];
    struct cw_buf key;
    uint8_t space[256];
    enum cw_kind kind;
    uint64_t cells = 0;
    size_t n = 0;
    for (; n < op->path_len && (n == 0 || !op->path[n].map); n++)
        fields[n] = op->path[n].field;
    cw_buf_init(&key, &nif_mem, space, sizeof space);
    if (n == 0 || cw_doc_find(doc, fields, n, CW_KIND_NONE, &key, &kind))
        cells = cw_doc_cells(doc, cw_bytes(key.p, key.n ? key.n - 1 : 0)); /* but for the kind */
    else if (key.err)
        cells = UINT64_MAX;
    cw_buf_free(&key);
    return cells;
}

/* A cell removed counts like an operation. */
static bool is_large_update(const struct cw_doc *doc, const struct nif_ops *ops) {
    uint64_t cells = 0;
    if (nif_is_dirty() || cw_doc_count(doc) <= NIF_OPS)
        return false;
    for (size_t i = 0; i < ops->n && cells <= NIF_OPS; i++)
        if (removes(&ops->ops[i]))
            cells += count_removed(doc, &ops->ops[i]);
    return cells > NIF_OPS;
}

/* What the two updates share: `seen` is NULL for who has seen everything. */
static ERL_NIF_TERM run_update(ErlNifEnv *env, const struct cw_doc *doc, const struct cw_doc *seen,
                               struct nif_ops *ops) {
    struct cw_doc *to = NULL;
    struct cw_fault fault = {0};
    if (!ops->began && (seen || may_remove(ops)))
        ops->began = nif_now();
    enum cw_err err =
        seen ? cw_doc_update_as_of(doc, seen, ops->ops, ops->n, now_ms(ops), &to, &fault)
             : cw_doc_update(doc, ops->ops, ops->n, now_ms(ops), &to, &fault);
    nif_report(env, ops->began);
    return err ? update_error(env, err, &fault) : nif_make_doc(env, to, ops->n);
}

/* (Doc, Ops) or (Doc, Seen, Ops) */
ERL_NIF_TERM nif_doc_update(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    const struct cw_doc *doc, *seen = NULL;
    struct cw_arena arena;
    uint64_t space[128];
    if (!nif_get_doc(env, argv[0], &doc) || (argc == 3 && !nif_get_doc(env, argv[1], &seen)))
        return enif_make_badarg(env);
    cw_arena_init(&arena, &nif_mem, space, sizeof space);
    struct nif_ops ops = {.env = env, .arena = &arena, .limit = nif_bytes(), .bad = argv[argc - 1]};
    enum cw_err err = nif_get_ops(&ops, argv[argc - 1]);
    ERL_NIF_TERM term;
    if (err == CW_EBUDGET || (!err && is_large_update(doc, &ops)) || (seen && is_crowded(doc)))
        term = nif_go_dirty(env, "doc_update", nif_doc_update, argc, argv);
    else
        term = err ? ops_error(env, err, &ops) : run_update(env, doc, seen, &ops);
    cw_arena_free(&arena);
    return term;
}

ERL_NIF_TERM nif_doc_merge(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    const struct cw_doc *a, *b;
    struct cw_doc *to = NULL;
    if (!nif_get_doc(env, argv[0], &a) || !nif_get_doc(env, argv[1], &b))
        return enif_make_badarg(env);
    if (is_crowded(a) || is_crowded(b))
        return nif_go_dirty(env, "doc_merge", nif_doc_merge, argc, argv);
    ErlNifTime began = nif_now();
    enum cw_err err = cw_doc_merge(a, b, nif_cells() / 3, &to); /* each may be a cache miss */
    if (err == CW_EBUDGET)
        return nif_go_dirty(env, "doc_merge", nif_doc_merge, argc, argv);
    nif_report(env, began);
    return doc_or_error(env, err, to);
}

/* ---- reading ---- */

/* What is at a path. False with an answer in `*term` when there is nothing to go on with. */
struct found {
    struct cw_arena arena;
    struct nif_path path;
    struct cw_buf key;
    enum cw_kind kind;
    uint64_t space[64];
    uint8_t key_space[256];
};

static bool find(ErlNifEnv *env, const struct cw_doc *doc, ERL_NIF_TERM path, enum cw_kind want,
                 struct found *f, ERL_NIF_TERM *term) {
    ERL_NIF_TERM bad;
    cw_arena_init(&f->arena, &nif_mem, f->space, sizeof f->space);
    cw_buf_init(&f->key, &nif_mem, f->key_space, sizeof f->key_space);
    enum cw_err err = nif_get_path(env, &f->arena, path, &f->path, &bad);
    if (err) { /* what is too large for a field is in no document */
        *term = err == CW_ELIMIT ? ATOM(env, absent) : bad_term(env, err, bad, path);
        return false;
    }
    if (cw_doc_find(doc, f->path.fields, f->path.n, want, &f->key, &f->kind) &&
        (!want || f->kind == want)) /* the document is a map, whatever is wanted */
        return true;
    *term = f->key.err ? nif_error(env, CW_ENOMEM) : ATOM(env, absent);
    return false;
}

static void found_close(struct found *f) {
    cw_buf_free(&f->key);
    cw_arena_free(&f->arena);
}

/* Whether reading the object is too much for a normal scheduler. */
static bool is_large(const struct cw_doc *doc, const struct found *f) {
    struct cw_bytes object = cw_buf_slice(&f->key, 0);
    return !nif_is_dirty() && f->kind != CW_REGISTER && cw_doc_count(doc) > NIF_CELLS &&
           cw_doc_cells(doc, object) > NIF_CELLS;
}

/* CW_EBUDGET when it is. */
static enum cw_err get(ErlNifEnv *env, const struct cw_doc *doc, const struct found *f,
                       ERL_NIF_TERM new_atoms, ERL_NIF_TERM *term) {
    struct nif_read read = nif_read(env, new_atoms);
    if (is_large(doc, f))
        return CW_EBUDGET;
    if (f->kind != CW_REGISTER && f->kind != CW_FLAG)
        read.began = nif_begin(cw_doc_count(doc) * NIF_CELL);
    enum cw_err err = nif_make_object(&read, doc, cw_buf_slice(&f->key, 0), f->kind, term);
    nif_report(env, read.began);
    if (err)
        *term = read_error(env, err, &read);
    return err;
}

ERL_NIF_TERM nif_doc_get(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    const struct cw_doc *doc;
    struct found f;
    ERL_NIF_TERM term;
    enum cw_kind want = nif_get_kind(env, argv[2]);
    if (!nif_get_doc(env, argv[0], &doc) || (!want && argv[2] != ATOM(env, nil)))
        return enif_make_badarg(env);
    if (find(env, doc, argv[1], want, &f, &term) && get(env, doc, &f, argv[3], &term) == CW_EBUDGET)
        term = nif_go_dirty(env, "doc_get", nif_doc_get, argc, argv);
    found_close(&f);
    return term;
}

/* The first set there, which may stand behind a map. */
static void find_set(const struct cw_doc *doc, struct found *f) {
    static const enum cw_kind sets[] = {CW_SET, CW_SET_GROW, CW_SET_REMOVE_WINS};
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++)
        if (cw_doc_find(doc, f->path.fields, f->path.n, sets[i], &f->key, &f->kind) &&
            f->kind == sets[i])
            return;
}

/* What is too large for an element is in no set. */
static ERL_NIF_TERM member(ErlNifEnv *env, const struct cw_doc *doc, const struct found *f,
                           ERL_NIF_TERM term) {
    struct cw_buf elem;
    uint8_t space[256];
    cw_buf_init(&elem, &nif_mem, space, sizeof space);
    struct nif_put put = {env, &elem, CW_KEY, CW_KEY_MAX, term, 0, 0, true, 0};
    enum cw_err err = nif_put_term(&put, term);
    bool has =
        !err && cw_doc_has_element(doc, cw_buf_slice(&f->key, 0), f->kind, cw_buf_slice(&elem, 0));
    nif_report(env, put.began);
    cw_buf_free(&elem);
    if (err && err != CW_EBUDGET && err != CW_ELIMIT)
        return bad_term(env, err, put.bad, term);
    return has ? ATOM(env, true) : ATOM(env, false);
}

ERL_NIF_TERM nif_doc_member(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    const struct cw_doc *doc;
    struct found f;
    ERL_NIF_TERM term;
    enum cw_kind want = nif_get_kind(env, argv[3]);
    (void)argc;
    if (!nif_get_doc(env, argv[0], &doc) || (!want && argv[3] != ATOM(env, nil)))
        return enif_make_badarg(env);
    if (find(env, doc, argv[1], want, &f, &term)) {
        if (!want && cw_kind_is_map(f.kind))
            find_set(doc, &f);
        term = member(env, doc, &f, argv[2]);
    }
    found_close(&f);
    return term;
}

ERL_NIF_TERM nif_doc_rights(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    const struct cw_doc *doc;
    struct found f;
    ERL_NIF_TERM term;
    if (!nif_get_doc(env, argv[0], &doc))
        return enif_make_badarg(env);
    if (find(env, doc, argv[1], CW_COUNTER_BOUNDED, &f, &term)) {
        uint64_t here, elsewhere;
        if (is_large(doc, &f)) {
            found_close(&f);
            return nif_go_dirty(env, "doc_rights", nif_doc_rights, argc, argv);
        }
        ErlNifTime began = nif_begin(cw_doc_count(doc) * NIF_CELL);
        enum cw_err err = cw_doc_rights(doc, cw_buf_slice(&f.key, 0), &here, &elsewhere);
        nif_report(env, began);
        term = err ? nif_error(env, err)
                   : enif_make_tuple2(env, enif_make_uint64(env, here),
                                      enif_make_uint64(env, elsewhere));
    }
    found_close(&f);
    return term;
}

/* ---- what changed ---- */

struct diff {
    struct nif_read read;
    const struct cw_doc *a;
    const struct cw_doc *b;
    ERL_NIF_TERM list;
};

/* An object on one side, or `absent`. */
static enum cw_err one_side(struct diff *d, const struct cw_doc *doc, const struct cw_change *c,
                            ERL_NIF_TERM *term) {
    *term = ATOM(d->read.env, absent);
    return cw_doc_cells(doc, c->object) == 0
               ? CW_OK
               : nif_make_object(&d->read, doc, c->object, c->kind, term);
}

/* Elements of a set, `c` and those after it up to `end`, that only `in` has. */
static enum cw_err only_in(struct diff *d, const struct cw_doc *in, const struct cw_doc *out,
                           const struct cw_change *c, const struct cw_change *end,
                           ERL_NIF_TERM *list) {
    enum cw_err err = CW_OK;
    *list = enif_make_list(d->read.env, 0);
    while (!err && end-- > c) {
        ERL_NIF_TERM term;
        if (!cw_doc_has_element(in, end->object, end->kind, end->element) ||
            cw_doc_has_element(out, end->object, end->kind, end->element))
            continue;
        err = nif_make_term(&d->read, end->element, CW_KEY, &term);
        if (!err)
            *list = enif_make_list_cell(d->read.env, term, *list);
    }
    return err;
}

static enum cw_err add_change(struct diff *d, const struct cw_change *c, ERL_NIF_TERM old,
                              ERL_NIF_TERM new) {
    ErlNifEnv *env = d->read.env;
    ERL_NIF_TERM path;
    if (enif_is_identical(old, new))
        return CW_OK;
    enum cw_err err = nif_make_path(&d->read, c->object, &path);
    if (err)
        return err;
    ERL_NIF_TERM change = enif_make_tuple4(env, path, nif_make_kind(env, c->kind), old, new);
    d->list = enif_make_list_cell(env, change, d->list);
    return CW_OK;
}

/* From the last change to the first, so that the list comes out in order. */
static enum cw_err add_changes(struct diff *d, const struct cw_changes *ch) {
    enum cw_err err = CW_OK;
    for (const struct cw_change *end = ch->at + ch->n, *c; !err && end > ch->at; end = c) {
        ERL_NIF_TERM old, new;
        c = end - 1;
        while (c > ch->at && cw_bytes_eq(c[-1].object, c->object))
            c--;
        bool set = cw_kind_is_set(c->kind);
        err = set ? only_in(d, d->a, d->b, c, end, &old) : one_side(d, d->a, c, &old);
        if (!err)
            err = set ? only_in(d, d->b, d->a, c, end, &new) : one_side(d, d->b, c, &new);
        if (!err)
            err = add_change(d, c, old, new);
    }
    return err;
}

ERL_NIF_TERM nif_doc_diff(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    struct diff d = {.read = nif_read(env, argv[2]), .list = enif_make_list(env, 0)};
    struct cw_changes changes;
    if (!nif_get_doc(env, argv[0], &d.a) || !nif_get_doc(env, argv[1], &d.b))
        return enif_make_badarg(env);
    ErlNifTime began = nif_now();
    enum cw_err err = cw_doc_changes(d.a, d.b, nif_cells() / 4, &changes);
    if (!err) {
        err = add_changes(&d, &changes);
        cw_changes_free(&changes);
    }
    nif_report(env, began);
    if (err == CW_EBUDGET)
        return nif_go_dirty(env, "doc_diff", nif_doc_diff, argc, argv);
    return err ? read_error(env, err, &d.read) : d.list;
}

/* ---- bytes ---- */

/* A limit on the cells is none on their bytes: on a normal scheduler, a buffer that cannot grow
 * beyond this is the sign to go on a dirty one. */
#define SMALL_BUFFER (4 * NIF_BYTES)

static void *small_alloc(void *ctx, size_t size) {
    (void)ctx;
    return size > SMALL_BUFFER ? NULL : cw_alloc(&nif_mem, size);
}

static void small_free(void *ctx, void *p) {
    (void)ctx;
    cw_free(&nif_mem, p);
}

static const struct cw_mem small_mem = {small_alloc, small_free, NULL};

static const struct cw_mem *buffer_mem(void) {
    return nif_is_dirty() ? &nif_mem : &small_mem;
}

static bool is_over(enum cw_err err) {
    return err == CW_EBUDGET || (err == CW_ENOMEM && !nif_is_dirty());
}

ERL_NIF_TERM nif_doc_encode(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    const struct cw_doc *doc;
    struct cw_buf out;
    if (!nif_get_doc(env, argv[0], &doc))
        return enif_make_badarg(env);
    if (cw_doc_count(doc) > nif_cells() || is_crowded(doc))
        return nif_go_dirty(env, "doc_encode", nif_doc_encode, argc, argv);
    ErlNifTime began = nif_now();
    cw_buf_init(&out, buffer_mem(), NULL, 0);
    enum cw_err err = cw_doc_encode(doc, &out);
    nif_report(env, began);
    if (!is_over(err))
        return buffer_or_error(env, err, &out);
    cw_buf_free(&out);
    return nif_go_dirty(env, "doc_encode", nif_doc_encode, argc, argv);
}

ERL_NIF_TERM nif_doc_delta(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    const struct cw_doc *doc;
    struct cw_bytes clock;
    struct cw_vv *since;
    struct cw_buf out;
    uint8_t space[512];
    if (!nif_get_doc(env, argv[0], &doc) || !nif_get_bytes(env, argv[1], &clock))
        return enif_make_badarg(env);
    if (clock.n > nif_bytes() || is_crowded(doc))
        return nif_go_dirty(env, "doc_delta", nif_doc_delta, argc, argv);
    ErlNifTime began = nif_now();
    enum cw_err err = cw_clock_read(&nif_mem, clock, &since);
    if (err)
        return nif_error(env, err);
    cw_buf_init(&out, buffer_mem(), space, sizeof space);
    err = cw_doc_delta(doc, since, nif_cells(), &out);
    cw_vv_release(since);
    nif_report(env, began);
    if (!is_over(err))
        return buffer_or_error(env, err, &out);
    cw_buf_free(&out);
    return nif_go_dirty(env, "doc_delta", nif_doc_delta, argc, argv);
}

/* (Doc, Clock): whether a delta since the clock would be less than the whole state. */
ERL_NIF_TERM nif_doc_remembers(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    const struct cw_doc *doc;
    struct cw_bytes clock;
    struct cw_vv *since;
    bool yes;
    if (!nif_get_doc(env, argv[0], &doc) || !nif_get_bytes(env, argv[1], &clock))
        return enif_make_badarg(env);
    if (clock.n > nif_bytes())
        return nif_go_dirty(env, "doc_remembers", nif_doc_remembers, argc, argv);
    enum cw_err err = cw_clock_read(&nif_mem, clock, &since);
    if (err)
        return nif_error(env, err);
    err = cw_doc_remembers(doc, since, &yes);
    cw_vv_release(since);
    return err ? nif_error(env, err) : yes ? ATOM(env, true) : ATOM(env, false);
}

ERL_NIF_TERM nif_doc_delta_between(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    const struct cw_doc *old, *doc;
    struct cw_buf out;
    uint8_t space[512];
    if (!nif_get_doc(env, argv[0], &old) || !nif_get_doc(env, argv[1], &doc))
        return enif_make_badarg(env);
    if (is_crowded(old) || is_crowded(doc))
        return nif_go_dirty(env, "doc_delta_between", nif_doc_delta_between, argc, argv);
    ErlNifTime began = nif_now();
    cw_buf_init(&out, buffer_mem(), space, sizeof space);
    enum cw_err err = cw_doc_delta_between(old, doc, nif_cells() / 3, &out);
    nif_report(env, began);
    if (!is_over(err))
        return buffer_or_error(env, err, &out);
    cw_buf_free(&out);
    return nif_go_dirty(env, "doc_delta_between", nif_doc_delta_between, argc, argv);
}

static ERL_NIF_TERM apply_error(ErlNifEnv *env, enum cw_err err, struct cw_fault *f) {
    if (err != CW_EGAP)
        return nif_error(env, err);
    ERL_NIF_TERM name = nif_make_name(env, f->replica);
    cw_name_release(f->replica);
    return nif_error_with(env, err,
                          enif_make_tuple3(env, name, enif_make_uint64(env, f->seen),
                                           enif_make_uint64(env, f->needed)));
}

ERL_NIF_TERM nif_doc_apply(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    const struct cw_doc *doc;
    struct cw_bytes fragment;
    struct cw_doc *to = NULL;
    struct cw_fault fault = {0};
    if (!nif_get_doc(env, argv[0], &doc) || !nif_get_bytes(env, argv[1], &fragment))
        return enif_make_badarg(env);
    if (fragment.n > nif_bytes() || is_crowded(doc))
        return nif_go_dirty(env, "doc_apply", nif_doc_apply, argc, argv);
    ErlNifTime began = nif_now();
    enum cw_err err = cw_doc_apply(doc, fragment, nif_cells(), &to, &fault);
    if (err == CW_EBUDGET)
        return nif_go_dirty(env, "doc_apply", nif_doc_apply, argc, argv);
    nif_report(env, began);
    return err ? apply_error(env, err, &fault) : nif_make_doc(env, to, 1);
}

ERL_NIF_TERM nif_fragment_join(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    struct cw_bytes a, b;
    struct cw_buf out;
    uint8_t space[512];
    if (!nif_get_bytes(env, argv[0], &a) || !nif_get_bytes(env, argv[1], &b))
        return enif_make_badarg(env);
    if (a.n + b.n > nif_bytes())
        return nif_go_dirty(env, "fragment_join", nif_fragment_join, argc, argv);
    ErlNifTime began = nif_now();
    cw_buf_init(&out, &nif_mem, space, sizeof space);
    enum cw_err err = cw_fragment_join(&nif_mem, a, b, nif_cells(), &out);
    nif_report(env, began);
    if (err != CW_EBUDGET)
        return buffer_or_error(env, err, &out);
    cw_buf_free(&out);
    return nif_go_dirty(env, "fragment_join", nif_fragment_join, argc, argv);
}

/* ---- about the document ---- */

ERL_NIF_TERM nif_doc_clock(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    const struct cw_doc *doc;
    struct cw_vv *vv;
    struct cw_buf out;
    uint8_t space[512];
    if (!nif_get_doc(env, argv[0], &doc))
        return enif_make_badarg(env);
    if (is_crowded(doc))
        return nif_go_dirty(env, "doc_clock", nif_doc_clock, argc, argv);
    ErlNifTime began = nif_begin(cw_doc_replicas(doc) * NIF_CELL);
    enum cw_err err = cw_doc_clock(doc, &vv);
    if (err)
        return nif_error(env, err);
    cw_buf_init(&out, &nif_mem, space, sizeof space);
    cw_clock_put(&out, vv);
    cw_vv_release(vv);
    nif_report(env, began);
    return buffer_or_error(env, out.err, &out);
}

static ERL_NIF_TERM make_hash(ErlNifEnv *env, struct cw_hash h) {
    uint8_t be[16];
    cw_store64be(be, h.hi);
    cw_store64be(be + 8, h.lo);
    return nif_make_binary(env, cw_bytes(be, 16));
}

ERL_NIF_TERM nif_doc_hash(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    const struct cw_doc *doc;
    (void)argc;
    if (!nif_get_doc(env, argv[0], &doc))
        return enif_make_badarg(env);
    return make_hash(env, cw_doc_hash(doc));
}

/* (Doc, Path): of all that is at the path and below, in maps. */
ERL_NIF_TERM nif_doc_hash_at(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    const struct cw_doc *doc;
    struct cw_arena arena;
    struct cw_buf key;
    struct nif_path path;
    uint64_t space[64];
    uint8_t key_space[256];
    ERL_NIF_TERM bad, term;
    (void)argc;
    if (!nif_get_doc(env, argv[0], &doc))
        return enif_make_badarg(env);
    cw_arena_init(&arena, &nif_mem, space, sizeof space);
    cw_buf_init(&key, &nif_mem, key_space, sizeof key_space);
    enum cw_err err = nif_get_path(env, &arena, argv[1], &path, &bad);
    for (size_t i = 0; i < path.n && !err; i++) {
        cw_buf_byte(&key, CW_MAP);
        cw_buf_bytes(&key, path.fields[i]);
    }
    if (err && err != CW_ELIMIT)
        term = bad_term(env, err, bad, argv[1]);
    else if (key.err)
        term = nif_error(env, key.err);
    else if (err) /* too long for any key: there is nothing */
        term = make_hash(env, (struct cw_hash){0, 0});
    else
        term = make_hash(env, cw_doc_range(doc, cw_buf_slice(&key, 0)).hash);
    cw_buf_free(&key);
    cw_arena_free(&arena);
    return term;
}

/* What nif_doc_info tells, but for what takes a walk. */
ERL_NIF_TERM nif_doc_about(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    const struct cw_doc *doc;
    (void)argc;
    if (!nif_get_doc(env, argv[0], &doc))
        return enif_make_badarg(env);
    return enif_make_tuple2(env, nif_make_name(env, cw_doc_replica(doc)),
                            enif_make_uint64(env, cw_doc_count(doc)));
}

ERL_NIF_TERM nif_doc_info(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    const struct cw_doc *doc;
    if (!nif_get_doc(env, argv[0], &doc))
        return enif_make_badarg(env);
    uint64_t cells = cw_doc_count(doc);
    if (cells > nif_cells() * (nif_is_dirty() ? 1 : 16))
        return nif_go_dirty(env, "doc_info", nif_doc_info, argc, argv);
    ErlNifTime began = nif_begin(cells * NIF_CELL);
    size_t bytes = cw_doc_bytes(doc);
    nif_report(env, began);
    return enif_make_tuple3(env, nif_make_name(env, cw_doc_replica(doc)),
                            enif_make_uint64(env, cells), enif_make_uint64(env, bytes));
}
