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
/* CW_EPATH when it is no list or has too many fields, CW_ELIMIT when they are longer than any key,
 * before any more are looked at, CW_EMALFORMED for one that cannot be encoded; `bad` is that field,
 * else the list. So a path takes no more than some hundred microseconds. */
enum cw_err nif_get_path(ErlNifEnv *env, struct cw_arena *arena, ERL_NIF_TERM list,
                         struct nif_path *path, ERL_NIF_TERM *bad);

struct nif_ops {
    ErlNifEnv *env;
    struct cw_arena *arena;
    size_t limit;      /* bytes of terms; SIZE_MAX lifts that of operations as well */
    ErlNifTime began;  /* 0 while there is too little to be worth the time it takes */
    size_t seen;       /* operations, with those that hold others */
    struct cw_op *ops; /* in the arena */
    size_t n;
    size_t cap;
    ERL_NIF_TERM first_term; /* the first field of the path read last, and its encoding */
    struct cw_bytes first;
    ERL_NIF_TERM op;  /* the one at hand */
    ERL_NIF_TERM bad; /* CW_EMALFORMED: a term in it, else the operation itself */
};

/* Reads one operation (a tuple) or a list of them. CW_EOP for what is none, CW_EPATH, CW_ERANGE,
 * CW_ELIMIT, CW_EREPLICA for what is in it, CW_EMALFORMED for a term that cannot be encoded,
 * CW_EBUDGET. */
enum cw_err nif_get_ops(struct nif_ops *ops, ERL_NIF_TERM term);

#endif
