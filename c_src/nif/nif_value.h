/* Values, from documents to terms: {Kind, Value}, with maps of field => {Kind, Value}, sets and
 * multi-value registers as lists. The caller's language gives them their final form. */
#ifndef NIF_VALUE_H
#define NIF_VALUE_H

#include "nif_env.h"

/* The object with this key. False when an atom in it is unknown to this VM (`*unknown`, its name)
 * or memory ran out (`*unknown` is nil). */
bool nif_make_object(ErlNifEnv *env, const struct cw_doc *doc, struct cw_bytes object,
                     enum cw_kind kind, bool new_atoms, ERL_NIF_TERM *term, ERL_NIF_TERM *unknown);

/* The path of an object's key, as a list. */
bool nif_make_path(ErlNifEnv *env, struct cw_bytes object, bool new_atoms, ERL_NIF_TERM *term,
                   ERL_NIF_TERM *unknown);

#endif
