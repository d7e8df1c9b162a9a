/* The calls on documents; docs stand with the stubs in src/causeway_nif.erl. */
#ifndef NIF_DOC_H
#define NIF_DOC_H

#include "nif_env.h"

nif_fn nif_doc_new, nif_doc_fork, nif_doc_update, nif_doc_merge, nif_doc_get, nif_doc_member,
    nif_doc_rights, nif_doc_diff, nif_doc_encode, nif_doc_delta, nif_doc_remembers,
    nif_doc_delta_between, nif_doc_apply, nif_doc_clock, nif_doc_hash, nif_doc_hash_at,
    nif_doc_about, nif_doc_info, nif_fragment_join;

#endif
