/* Operations and paths, from terms to the core's structures. */
#ifndef NIF_OPS_H
#define NIF_OPS_H

#include "../core/cw_arena.h"
#include "nif_env.h"

/* The kind of an atom; CW_KIND_NONE for any other term. */
enum cw_kind nif_get_kind(ErlNifEnv *env, ERL_NIF_TERM term);
ERL_NIF_TERM nif_make_kind(ErlNifEnv *env, enum cw_kind kind);

/* A list of terms as key-encoded fields, in the arena. */
struct nif_path {
    struct cw_bytes fields[CW_PATH_MAX];
    size_t n;
};
/* CW_EPATH when it is no list or too long; for a field that cannot be encoded CW_EMALFORMED and
 * `bad`. */
enum cw_err nif_get_path(ErlNifEnv *env, struct cw_arena *arena, ERL_NIF_TERM list,
                         struct nif_path *path, ERL_NIF_TERM *bad);

struct nif_ops {
    ErlNifEnv *env;
    struct cw_arena *arena;
    size_t limit;      /* bytes of terms */
    struct cw_op *ops; /* in the arena */
    size_t n;
    size_t cap;
    ERL_NIF_TERM bad; /* CW_EOP: the operation, CW_EMALFORMED: the term in it */
};

/* Reads one operation (a tuple) or a list of them. */
enum cw_err nif_get_ops(struct nif_ops *ops, ERL_NIF_TERM term);

#endif
