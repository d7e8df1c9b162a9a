/* What every file of the NIF shares: atoms, resources, and how a call ends.
 *
 * Each call has three layers: terms become C values (nif_term, nif_ops), the core does the work,
 * the result becomes terms (nif_term, nif_value). The core never sees an ErlNifEnv. */
#ifndef NIF_ENV_H
#define NIF_ENV_H

#include <erl_nif.h>

#include "../core/cw_doc.h"
#include "nif_mem.h"

/* One list declares and fills the atoms. */
/* clang-format off */
#define NIF_ATOMS(X) \
    X(ok) X(error) X(nil) X(absent) X(in) X(equal) X(after) X(concurrent) X(before) X(put) \
    X(increment) X(decrement) X(transfer) X(add) X(remove) X(enable) X(disable) X(reset) \
    X(delete) X(map) X(map_grow) X(set) X(set_grow) X(set_remove_wins) X(counter) \
    X(counter_bounded) X(register) X(register_multi) X(flag) X(flag_disable_wins) X(bad_op) \
    X(bad_path) X(bad_term) X(bad_replica) X(bad_entry) X(unknown_atom) X(insert) \
    X(update) X(relation) X(type) X(done) X(more) X(schema) X(unchanged_toast) \
    X(unknown_relation) X(wrong_columns)
/* clang-format on */

struct nif_atoms {
#define X(name) ERL_NIF_TERM a_##name;
    NIF_ATOMS(X)
#undef X
    ERL_NIF_TERM a_true;
    ERL_NIF_TERM a_false;
};

/* The library's state: made anew by every load and upgrade. */
struct nif_lib {
    struct nif_atoms atoms;
    ErlNifResourceType *doc_type;
    ErlNifResourceType *lock_type;
    ErlNifEnv *constants; /* holds these two: the integers nearest to zero that are too large */
    ERL_NIF_TERM too_large;
    ERL_NIF_TERM too_small;
    struct pg_lib *pg; /* of PostgreSQL's types: pg_lib.h */
};

static inline const struct nif_lib *nif_lib(ErlNifEnv *env) {
    return (const struct nif_lib *)enif_priv_data(env);
}

#define ATOM(env, name) (nif_lib(env)->atoms.a_##name)

/* ---- documents as resources ----
 *
 * An upgraded library takes over the resources of the one before by their types' names, and reads
 * what that wrote. So the layout's number is a part of the name: raise it in every release that
 * changes struct nif_doc or anything reachable from it (struct cw_doc, cw_tree, cw_forest, cw_node,
 * cw_pending, cw_vv, cw_name, cw_journal, cw_mem, and nif_mem's headers), what its bytes mean
 * included. Then documents of before are strangers to the new library, which refuses them, and the
 * old one stays to free them. */
#define NIF_DOC_TYPE "causeway_doc_1"
#define NIF_LOCK_TYPE "causeway_lock_1" /* of struct nif_lock */

/* A handle is small, but what it keeps alive is not: each operation leaves about a kilobyte of
 * nodes that only the old version needs. The VM collects a process's garbage by the bytes it sees,
 * so the handle is padded to bring some of that into the count. The padding is never touched. */
#define NIF_DOC_WEIGHT 768
#define NIF_OP_WEIGHT 256
#define NIF_WEIGHT_OPS 256 /* more do not make it heavier */

struct nif_doc {
    struct cw_doc *doc;
};

bool nif_get_doc(ErlNifEnv *env, ERL_NIF_TERM term, const struct cw_doc **doc);

/* Takes over `doc`, which so many operations have made. */
ERL_NIF_TERM nif_make_doc(ErlNifEnv *env, struct cw_doc *doc, size_t ops);

/* ---- work and time ---- */

/* What a call may look at on a normal scheduler before it goes on a dirty one, in cells; in
 * operations, each cell removed counting as one; in bytes of terms and fragments. Each stands for
 * about 300 us. */
#define NIF_CELLS 1500
#define NIF_OPS 300
#define NIF_BYTES (32u << 10)

/* How many replicas a call may go through there, which many do several times. */
#define NIF_REPLICAS 1500

static inline bool nif_is_dirty(void) {
    return enif_thread_type() == ERL_NIF_THR_DIRTY_CPU_SCHEDULER;
}

static inline size_t nif_cells(void) {
    return nif_is_dirty() ? SIZE_MAX : NIF_CELLS;
}

static inline size_t nif_bytes(void) {
    return nif_is_dirty() ? SIZE_MAX : NIF_BYTES;
}

/* Starts the call again on a dirty scheduler, without limits. */
typedef ERL_NIF_TERM nif_fn(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM nif_go_dirty(ErlNifEnv *env, const char *name, nif_fn *fn, int argc,
                          const ERL_NIF_TERM argv[]);

/* Every call whose cost varies tells the scheduler what it cost, so that a process that makes many
 * in a row gives way in time. The clock is not read, as that would take a good part of the call's
 * own time, before it shows that there is much to do. What is less than the scheduler counts is
 * kept for the next time. */
void nif_spend(ErlNifEnv *env, uint64_t ns);

static inline ErlNifTime nif_now(void) {
    return enif_monotonic_time(ERL_NIF_NSEC);
}

/* The time, of a call on so many bytes, or cells at NIF_CELL bytes each; 0 when they are few. */
#define NIF_SMALL 2048u
#define NIF_CELL 16u
static inline ErlNifTime nif_begin(size_t size) {
    return size < NIF_SMALL ? 0 : nif_now();
}

/* What has passed since `began`, unless that is 0. */
static inline void nif_report(ErlNifEnv *env, ErlNifTime began) {
    if (began)
        nif_spend(env, (uint64_t)(nif_now() - began));
}

/* ---- failures ---- */

/* {error, Name}, with the code's name in lower case: {error, egap}. */
ERL_NIF_TERM nif_error(ErlNifEnv *env, enum cw_err err);
/* {error, {Name, Detail}}. */
ERL_NIF_TERM nif_error_with(ErlNifEnv *env, enum cw_err err, ERL_NIF_TERM detail);
ERL_NIF_TERM nif_error_atom(ErlNifEnv *env, ERL_NIF_TERM name, ERL_NIF_TERM detail);

/* What is in a binary, for the time of the call. False for any other term. */
static inline bool nif_get_bytes(ErlNifEnv *env, ERL_NIF_TERM term, struct cw_bytes *s) {
    ErlNifBinary bin;
    if (!enif_inspect_binary(env, term, &bin))
        return false;
    *s = cw_bytes(bin.data, bin.size);
    return true;
}

/* A binary of what is in a buffer. */
ERL_NIF_TERM nif_make_binary(ErlNifEnv *env, struct cw_bytes s);

#endif
