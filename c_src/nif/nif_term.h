/* Erlang terms to and from the core's two encodings. */
#ifndef NIF_TERM_H
#define NIF_TERM_H

#include "../core/cw_term.h"
#include "nif_env.h"

struct nif_put {
    ErlNifEnv *env;
    struct cw_buf *buf;
    enum cw_encoding enc;
    size_t limit;     /* bytes; CW_EBUDGET beyond */
    ERL_NIF_TERM bad; /* CW_EMALFORMED: the part that cannot be encoded */
};

/* Appends a term. CW_EMALFORMED for a pid, a function, an improper list ... inside it (`bad`),
 * CW_ELIMIT for one nested too deeply, CW_EBUDGET. */
enum cw_err nif_put_term(struct nif_put *put, ERL_NIF_TERM term);

/* The term of trusted bytes. An atom that this VM does not have is an error, so that strangers
 * cannot fill its table, unless `new_atoms`: false, and `*unknown` is its name. */
bool nif_make_term(ErlNifEnv *env, struct cw_bytes s, enum cw_encoding enc, bool new_atoms,
                   ERL_NIF_TERM *term, ERL_NIF_TERM *unknown);

/* The first term of `r`, likewise. */
bool nif_read_term(ErlNifEnv *env, struct cw_reader *r, enum cw_encoding enc, bool new_atoms,
                   ERL_NIF_TERM *term, ERL_NIF_TERM *unknown);

/* An integer of 128 bits, two's complement. */
struct cw_wide;
ERL_NIF_TERM nif_make_wide(ErlNifEnv *env, const struct cw_wide *v);

/* A replica's name, an atom or a binary, encoded. */
enum cw_err nif_put_name(ErlNifEnv *env, struct cw_buf *buf, ERL_NIF_TERM term);

#endif
