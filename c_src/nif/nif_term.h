/* Erlang terms to and from the core's two encodings. */
#ifndef NIF_TERM_H
#define NIF_TERM_H

#include "../core/cw_term.h"
#include "../core/cw_vv.h"
#include "nif_env.h"

struct nif_put {
    ErlNifEnv *env;
    struct cw_buf *buf;
    enum cw_encoding enc;
    size_t limit;     /* bytes; CW_EBUDGET beyond */
    ERL_NIF_TERM bad; /* CW_EMALFORMED: the part that cannot be encoded */
    ErlNifTime began; /* 0 while it is small */
    size_t counted;   /* elements, of which each takes a byte at least */
    bool firm;        /* the limit is of what the term may be; else of what there is time for */
    size_t sorted;    /* pairs of maps, which take longer than their bytes do */
};

/* Appends a term. CW_EMALFORMED for a pid, a function, an improper list ... inside it (`bad`),
 * CW_ELIMIT for one nested too deeply, CW_EBUDGET. */
enum cw_err nif_put_term(struct nif_put *put, ERL_NIF_TERM term);

struct nif_read {
    ErlNifEnv *env;
    bool new_atoms; /* may be made; otherwise one that this VM does not have is an error, so that
                     * strangers cannot fill its table */
    size_t limit;   /* bytes, those of values count four times; CW_EBUDGET beyond */
    ERL_NIF_TERM unknown; /* CW_EMALFORMED: the atom's name */
    ErlNifTime began;     /* 0 while nothing was read that is worth reporting */
};

/* With the limit of the scheduler at hand; `new_atoms` is true or something else. */
struct nif_read nif_read(ErlNifEnv *env, ERL_NIF_TERM new_atoms);

/* The term of trusted bytes. CW_EMALFORMED for an unknown atom, CW_EBUDGET. */
enum cw_err nif_make_term(struct nif_read *read, struct cw_bytes s, enum cw_encoding enc,
                          ERL_NIF_TERM *term);

/* The first key-encoded term of `r`, likewise. */
enum cw_err nif_make_first(struct nif_read *read, struct cw_reader *r, ERL_NIF_TERM *term);

/* A replica's name; as a binary if it is an atom that this VM does not have. */
ERL_NIF_TERM nif_make_name(ErlNifEnv *env, const struct cw_name *name);

/* A map of `n` keys and values by turns. False without memory. */
bool nif_make_map(ErlNifEnv *env, const ERL_NIF_TERM *at, size_t n, ERL_NIF_TERM *term);

/* An integer of 128 bits, two's complement. */
struct cw_wide;
ERL_NIF_TERM nif_make_wide(ErlNifEnv *env, const struct cw_wide *v);

/* The integer of the least magnitude that nif_put_term refuses; 0 without memory. */
ERL_NIF_TERM nif_make_too_large(ErlNifEnv *env, bool negative);

/* A replica's name, an atom or a binary, encoded, to an empty buffer. CW_EMALFORMED for other
 * terms. */
enum cw_err nif_put_name(ErlNifEnv *env, struct cw_buf *buf, ERL_NIF_TERM term);

#endif
