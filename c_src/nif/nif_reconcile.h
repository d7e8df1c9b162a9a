/* The calls by which two replicas find out what one lacks; all on dirty schedulers, as they look at
 * every cell or at many ranges. */
#ifndef NIF_RECONCILE_H
#define NIF_RECONCILE_H

#include "nif_env.h"

nif_fn nif_doc_news, nif_doc_sums, nif_doc_split, nif_doc_keys;

#endif
