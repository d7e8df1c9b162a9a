#include "nif_clock.h"

#include "../core/cw_clock.h"
#include "../core/cw_hlc.h"
#include "../core/cw_sort.h"
#include "nif_term.h"

/* Entries of a list that are read on a normal scheduler. */
#define ENTRIES 1000

ERL_NIF_TERM nif_clock_merge(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    struct cw_bytes a, b;
    struct cw_buf out;
    uint8_t space[4096];
    if (!nif_get_bytes(env, argv[0], &a) || !nif_get_bytes(env, argv[1], &b))
        return enif_make_badarg(env);
    if (a.n + b.n > nif_bytes())
        return nif_go_dirty(env, "clock_merge", nif_clock_merge, argc, argv);
    ErlNifTime began = nif_begin(a.n + b.n);
    cw_buf_init(&out, &nif_mem, space, sizeof space);
    enum cw_err err = cw_clock_merge(&nif_mem, a, b, &out);
    ERL_NIF_TERM term = err ? nif_error(env, err) : nif_make_binary(env, cw_buf_slice(&out, 0));
    cw_buf_free(&out);
    nif_report(env, began);
    return term;
}

ERL_NIF_TERM nif_clock_compare(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    const struct nif_atoms *a = &nif_lib(env)->atoms;
    const ERL_NIF_TERM names[] = {[CW_EQUAL] = a->a_equal,
                                  [CW_BEFORE] = a->a_before,
                                  [CW_AFTER] = a->a_after,
                                  [CW_CONCURRENT] = a->a_concurrent};
    struct cw_bytes x, y;
    enum cw_order order;
    if (!nif_get_bytes(env, argv[0], &x) || !nif_get_bytes(env, argv[1], &y))
        return enif_make_badarg(env);
    if (x.n + y.n > nif_bytes())
        return nif_go_dirty(env, "clock_compare", nif_clock_compare, argc, argv);
    ErlNifTime began = nif_begin(x.n + y.n);
    enum cw_err err = cw_clock_compare(&nif_mem, x, y, &order);
    nif_report(env, began);
    return err ? nif_error(env, err) : names[order];
}

/* (Clock, Name): the counter, without a look at names other than to compare them. */
ERL_NIF_TERM nif_clock_get(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    struct cw_bytes s;
    struct cw_buf name;
    uint8_t space[256];
    uint64_t counter;
    if (!nif_get_bytes(env, argv[0], &s))
        return enif_make_badarg(env);
    if (s.n > nif_bytes())
        return nif_go_dirty(env, "clock_get", nif_clock_get, argc, argv);
    ErlNifTime began = nif_begin(s.n);
    cw_buf_init(&name, &nif_mem, space, sizeof space);
    enum cw_err bad = nif_put_name(env, &name, argv[1]);
    enum cw_err err = bad ? bad : cw_clock_get(s, cw_buf_slice(&name, 0), &counter);
    cw_buf_free(&name);
    nif_report(env, began);
    if (bad && bad != CW_ENOMEM)
        return nif_error_atom(env, ATOM(env, bad_replica), argv[1]);
    return err ? nif_error(env, err) : enif_make_uint64(env, counter);
}

/* [{Replica, Counter}], by replica id. */
static enum cw_err make_entries(struct nif_read *read, const struct cw_vv *vv, ERL_NIF_TERM *list) {
    enum cw_err err = CW_OK;
    *list = enif_make_list(read->env, 0);
    for (uint32_t i = vv->n; i-- > 0 && !err;) {
        ERL_NIF_TERM name, counter = enif_make_uint64(read->env, vv->at[i].counter);
        err = nif_make_term(read, cw_name_bytes(vv->at[i].name), CW_KEY, &name);
        if (!err)
            *list =
                enif_make_list_cell(read->env, enif_make_tuple2(read->env, name, counter), *list);
    }
    return err;
}

ERL_NIF_TERM nif_clock_to_list(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    struct nif_read read = nif_read(env, argv[1]);
    struct cw_bytes s;
    struct cw_vv *vv;
    ERL_NIF_TERM list;
    if (!nif_get_bytes(env, argv[0], &s))
        return enif_make_badarg(env);
    if (s.n > nif_bytes())
        return nif_go_dirty(env, "clock_to_list", nif_clock_to_list, argc, argv);
    ErlNifTime began = nif_begin(s.n);
    enum cw_err err = cw_clock_read(&nif_mem, s, &vv);
    if (err)
        return nif_error(env, err);
    err = make_entries(&read, vv, &list);
    cw_vv_release(vv);
    nif_report(env, began);
    return !err                   ? list
           : err == CW_EMALFORMED ? nif_error_atom(env, ATOM(env, unknown_atom), read.unknown)
                                  : nif_error(env, err);
}

/* ---- from a list ---- */

static enum cw_err get_entry(ErlNifEnv *env, ERL_NIF_TERM pair, struct cw_vv_entry *entry) {
    int n;
    const ERL_NIF_TERM *at;
    ErlNifUInt64 counter;
    struct cw_buf buf;
    uint8_t space[256];
    if (!enif_get_tuple(env, pair, &n, &at) || n != 2 || !enif_get_uint64(env, at[1], &counter) ||
        counter > CW_COUNTER_MAX)
        return CW_EMALFORMED;
    cw_buf_init(&buf, &nif_mem, space, sizeof space);
    enum cw_err err = nif_put_name(env, &buf, at[0]);
    struct cw_name *name = err ? NULL : cw_name_new(&nif_mem, cw_buf_slice(&buf, 0));
    cw_buf_free(&buf);
    if (!name)
        return err == CW_ELIMIT ? CW_EMALFORMED : err ? err : CW_ENOMEM;
    *entry = (struct cw_vv_entry){name->id, counter, name};
    return CW_OK;
}

/* By id; of one replica the greatest counter first. */
static int cmp_entries(const void *ctx, const void *x, const void *y) {
    const struct cw_vv_entry *a = x, *b = y;
    (void)ctx;
    int c = (a->id > b->id) - (a->id < b->id);
    return c ? c : (a->counter < b->counter) - (a->counter > b->counter);
}

/* Sorts, and drops zeros and what is there twice. */
static enum cw_err tidy(struct cw_vv *vv) {
    enum cw_err err = CW_OK;
    uint32_t kept = 0;
    cw_sort(vv->at, vv->n, sizeof vv->at[0], cmp_entries, NULL);
    for (uint32_t i = 0; i < vv->n; i++) {
        struct cw_vv_entry e = vv->at[i];
        const struct cw_vv_entry *last = kept ? &vv->at[kept - 1] : NULL;
        bool again = last && last->id == e.id;
        if (again && !cw_bytes_eq(cw_name_bytes(last->name), cw_name_bytes(e.name)))
            err = CW_EREPLICA;
        if (again || e.counter == 0)
            cw_name_release(e.name);
        else
            vv->at[kept++] = e;
    }
    vv->n = kept;
    return err;
}

/* CW_EMALFORMED: `bad` is no entry. CW_EBUDGET: the names are long. */
static enum cw_err get_clock(ErlNifEnv *env, ERL_NIF_TERM list, unsigned n, struct cw_vv **out,
                             ERL_NIF_TERM *bad) {
    struct cw_vv *vv = cw_vv_new(&nif_mem, n);
    enum cw_err err = vv ? CW_OK : CW_ENOMEM;
    size_t bytes = 0;
    while (!err && enif_get_list_cell(env, list, bad, &list)) {
        err = get_entry(env, *bad, &vv->at[vv->n]);
        if (err)
            break;
        bytes += vv->at[vv->n++].name->len;
        if (bytes > nif_bytes())
            err = CW_EBUDGET;
    }
    if (!err)
        err = tidy(vv);
    if (err)
        cw_vv_release(vv);
    else
        *out = vv;
    return err;
}

/* Counts the cells of a list, up to one more than `most`; false when it is none. */
static bool count_cells(ErlNifEnv *env, ERL_NIF_TERM list, unsigned most, unsigned *n) {
    ERL_NIF_TERM head;
    *n = 0;
    while (*n <= most && enif_get_list_cell(env, list, &head, &list))
        ++*n;
    return *n > most || enif_is_empty_list(env, list);
}

ERL_NIF_TERM nif_clock_from_list(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    struct cw_vv *vv;
    ERL_NIF_TERM bad;
    unsigned n, most = nif_is_dirty() ? CW_REPLICAS_MAX : ENTRIES;
    ErlNifTime began = nif_now();
    if (!count_cells(env, argv[0], most, &n) || n > CW_REPLICAS_MAX)
        return enif_make_badarg(env);
    enum cw_err err = n > most ? CW_EBUDGET : get_clock(env, argv[0], n, &vv, &bad);
    nif_report(env, began);
    if (err == CW_EBUDGET)
        return nif_go_dirty(env, "clock_from_list", nif_clock_from_list, argc, argv);
    if (err)
        return err == CW_EMALFORMED ? nif_error_atom(env, ATOM(env, bad_entry), bad)
                                    : nif_error(env, err);
    struct cw_buf out;
    uint8_t space[512];
    cw_buf_init(&out, &nif_mem, space, sizeof space);
    cw_clock_put(&out, vv);
    ERL_NIF_TERM term =
        out.err ? nif_error(env, out.err) : nif_make_binary(env, cw_buf_slice(&out, 0));
    cw_buf_free(&out);
    cw_vv_release(vv);
    return term;
}

ERL_NIF_TERM nif_hlc_tick(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    ErlNifUInt64 last, now;
    uint64_t next;
    (void)argc;
    if (!enif_get_uint64(env, argv[0], &last) || !enif_get_uint64(env, argv[1], &now))
        return enif_make_badarg(env);
    enum cw_err err = cw_hlc_tick(last, now, &next);
    return err ? nif_error(env, err) : enif_make_uint64(env, next);
}
