/* Values, from documents to terms: {Kind, Value}, with maps of field => {Kind, Value}, sets and
 * multi-value registers as lists. The caller's language gives them their final form. */
#ifndef NIF_VALUE_H
#define NIF_VALUE_H

#include "nif_term.h"

/* The object with this key. CW_EMALFORMED for an unknown atom in it, CW_EBUDGET (nif_term.h). */
enum cw_err nif_make_object(struct nif_read *read, const struct cw_doc *doc, struct cw_bytes object,
                            enum cw_kind kind, ERL_NIF_TERM *term);

/* The path of an object's key, as a list; likewise. */
enum cw_err nif_make_path(struct nif_read *read, struct cw_bytes object, ERL_NIF_TERM *term);

#endif
