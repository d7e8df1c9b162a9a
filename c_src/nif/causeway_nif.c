/* The NIF library: its state, its life, its table of calls. */
#define _GNU_SOURCE /* dladdr */
#include <dlfcn.h>
#include <string.h>

#include "../core/cw_tree.h"
#include "nif_clock.h"
#include "nif_doc.h"
#include "nif_lock.h"
#include "nif_reaper.h"
#include "nif_reconcile.h"
#include "nif_term.h"
#include "pg_codec.h"
#include "pg_wal.h"

/* Nodes that the drop of a handle frees at once; more go to the reaper. */
#define RELEASE_NODES 256

/* ---- documents as resources ---- */

static struct nif_reaper *reaper;

static void doc_destroy(ErlNifEnv *env, void *obj) {
    struct nif_doc *handle = obj;
    (void)env;
    struct cw_forest *rest = cw_doc_free_some(handle->doc, RELEASE_NODES);
    if (rest)
        nif_reaper_give(reaper, rest);
}

bool nif_get_doc(ErlNifEnv *env, ERL_NIF_TERM term, const struct cw_doc **doc) {
    void *obj;
    if (!enif_get_resource(env, term, nif_lib(env)->doc_type, &obj))
        return false;
    *doc = ((struct nif_doc *)obj)->doc;
    return true;
}

ERL_NIF_TERM nif_make_doc(ErlNifEnv *env, struct cw_doc *doc, size_t ops) {
    size_t counted = ops < 1 ? 1 : ops < NIF_WEIGHT_OPS ? ops : NIF_WEIGHT_OPS;
    struct nif_doc *handle =
        enif_alloc_resource(nif_lib(env)->doc_type, NIF_DOC_WEIGHT + NIF_OP_WEIGHT * counted);
    if (!handle) {
        cw_doc_free(doc);
        return nif_error(env, CW_ENOMEM);
    }
    handle->doc = doc;
    ERL_NIF_TERM term = enif_make_resource(env, handle);
    enif_release_resource(handle);
    return term;
}

/* ---- work and time ---- */

ERL_NIF_TERM nif_go_dirty(ErlNifEnv *env, const char *name, nif_fn *fn, int argc,
                          const ERL_NIF_TERM argv[]) {
    return enif_schedule_nif(env, name, ERL_NIF_DIRTY_JOB_CPU_BOUND, fn, argc, argv);
}

/* A percent of a timeslice, which is a millisecond. */
#define PERCENT 10000u

void nif_spend(ErlNifEnv *env, uint64_t ns) {
    static _Thread_local uint64_t spent; /* of the scheduler, whichever process it was for */
    if (nif_is_dirty())
        return;
    spent += ns;
    if (spent < PERCENT)
        return;
    enif_consume_timeslice(env, spent > 100 * PERCENT ? 100 : (int)(spent / PERCENT));
    spent %= PERCENT;
}

/* ---- failures ---- */

static ERL_NIF_TERM err_atom(ErlNifEnv *env, enum cw_err err) {
    char name[32];
    const char *s = cw_err_name(err);
    size_t n = 0;
    for (; s[n] && n < sizeof name; n++)
        name[n] = (char)(s[n] >= 'A' && s[n] <= 'Z' ? s[n] - 'A' + 'a' : s[n]);
    return enif_make_atom_len(env, name, n);
}

ERL_NIF_TERM nif_error(ErlNifEnv *env, enum cw_err err) {
    return enif_make_tuple2(env, ATOM(env, error), err_atom(env, err));
}

ERL_NIF_TERM nif_error_atom(ErlNifEnv *env, ERL_NIF_TERM name, ERL_NIF_TERM detail) {
    return enif_make_tuple2(env, ATOM(env, error), enif_make_tuple2(env, name, detail));
}

ERL_NIF_TERM nif_error_with(ErlNifEnv *env, enum cw_err err, ERL_NIF_TERM detail) {
    return nif_error_atom(env, err_atom(env, err), detail);
}

/* ---- life ---- */

static void fill_atoms(ErlNifEnv *env, struct nif_atoms *atoms) {
#define X(name) atoms->a_##name = enif_make_atom(env, #name);
    NIF_ATOMS(X)
#undef X
    atoms->a_true = enif_make_atom(env, "true");
    atoms->a_false = enif_make_atom(env, "false");
}

/* Documents know their allocator, which is in this library, and outlive it: those made before an
 * upgrade are taken over by the next one. So it stays in memory when the VM closes it, with its
 * reaper, and when it is loaded again it is all still there. */
static bool stay(void) {
    Dl_info info;
    return dladdr(&reaper, &info) &&
           dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
}

/* The argument of load and upgrade is the secret of the tree's shape, which trees keep for life. */
static bool set_secret(ErlNifEnv *env, ERL_NIF_TERM info) {
    ErlNifUInt64 secret;
    if (!enif_get_uint64(env, info, &secret))
        return false;
    cw_tree_secret(secret);
    return true;
}

static bool make_constants(struct nif_lib *lib) {
    lib->constants = enif_alloc_env();
    if (!lib->constants)
        return false;
    lib->too_large = nif_make_too_large(lib->constants, false);
    lib->too_small = nif_make_too_large(lib->constants, true);
    return lib->too_large && lib->too_small;
}

static void free_lib(struct nif_lib *lib) {
    if (lib->constants)
        enif_free_env(lib->constants);
    if (lib->pg)
        enif_free(lib->pg);
    enif_free(lib);
}

static int load(ErlNifEnv *env, void **priv, ERL_NIF_TERM info) {
    ErlNifResourceFlags flags = ERL_NIF_RT_CREATE | ERL_NIF_RT_TAKEOVER;
    if (!set_secret(env, info))
        return 1;
    if (!reaper && (!stay() || !(reaper = nif_reaper_start())))
        return 2;
    struct nif_lib *lib = enif_alloc(sizeof *lib);
    if (!lib)
        return 3;
    *lib = (struct nif_lib){.constants = NULL};
    fill_atoms(env, &lib->atoms);
    lib->doc_type = enif_open_resource_type(env, NULL, NIF_DOC_TYPE, doc_destroy, flags, NULL);
    lib->lock_type =
        enif_open_resource_type(env, NULL, NIF_LOCK_TYPE, nif_lock_destroy, flags, NULL);
    lib->pg = pg_lib_new(env);
    if (!lib->doc_type || !lib->lock_type || !lib->pg || !make_constants(lib)) {
        free_lib(lib);
        return 4;
    }
    *priv = lib;
    return 0;
}

/* New code takes over the documents of the old, whose own state `unload` will free. */
static int upgrade(ErlNifEnv *env, void **priv, void **old_priv, ERL_NIF_TERM info) {
    (void)old_priv;
    return load(env, priv, info);
}

static void unload(ErlNifEnv *env, void *priv) {
    (void)env;
    free_lib(priv);
}

static ErlNifFunc calls[] = {
    {"doc_new", 1, nif_doc_new, 0},
    {"doc_fork", 2, nif_doc_fork, 0},
    {"doc_update", 2, nif_doc_update, 0},
    {"doc_update", 3, nif_doc_update, 0},
    {"doc_merge", 2, nif_doc_merge, 0},
    {"doc_get", 4, nif_doc_get, 0},
    {"doc_member", 4, nif_doc_member, 0},
    {"doc_rights", 2, nif_doc_rights, 0},
    {"doc_diff", 3, nif_doc_diff, 0},
    {"doc_encode", 1, nif_doc_encode, 0},
    {"doc_delta", 2, nif_doc_delta, 0},
    {"doc_remembers", 2, nif_doc_remembers, 0},
    {"doc_delta_between", 2, nif_doc_delta_between, 0},
    {"doc_apply", 2, nif_doc_apply, 0},
    {"doc_clock", 1, nif_doc_clock, 0},
    {"doc_hash", 1, nif_doc_hash, 0},
    {"doc_hash", 2, nif_doc_hash_at, 0},
    {"doc_about", 1, nif_doc_about, 0},
    {"doc_info", 1, nif_doc_info, 0},
    {"fragment_join", 2, nif_fragment_join, 0},
    {"clock_merge", 2, nif_clock_merge, 0},
    {"clock_compare", 2, nif_clock_compare, 0},
    {"clock_get", 2, nif_clock_get, 0},
    {"clock_to_list", 2, nif_clock_to_list, 0},
    {"clock_from_list", 1, nif_clock_from_list, 0},
    {"hlc_tick", 2, nif_hlc_tick, 0},
    {"doc_news", 4, nif_doc_news, ERL_NIF_DIRTY_JOB_CPU_BOUND},
    {"doc_symbols", 5, nif_doc_symbols, ERL_NIF_DIRTY_JOB_CPU_BOUND},
    {"symbols_peel", 2, nif_symbols_peel, ERL_NIF_DIRTY_JOB_CPU_BOUND},
    {"doc_find", 2, nif_doc_find, ERL_NIF_DIRTY_JOB_CPU_BOUND},
    {"pg_codec_compile", 3, nif_pg_codec_compile, 0},
    {"pg_encode", 2, nif_pg_encode, 0},
    {"pg_encode_rows", 2, nif_pg_encode_rows, 0},
    {"pg_decode_rows", 4, nif_pg_decode_rows, 0},
    {"pg_wal_decode", 6, nif_pg_wal_decode, 0},
    {"pg_uuid_text", 1, nif_pg_uuid_text, 0},
    {"file_lock", 1, nif_file_lock, ERL_NIF_DIRTY_JOB_IO_BOUND},
};

ERL_NIF_INIT(causeway_nif, calls, load, NULL, upgrade, unload)
