/* The calls by which two replicas find out what one lacks; all on dirty schedulers, as they look at
 * every cell, or at as many symbols. */
#ifndef NIF_RECONCILE_H
#define NIF_RECONCILE_H

#include "nif_env.h"

nif_fn nif_doc_news, nif_doc_symbols, nif_symbols_peel, nif_doc_find;

#endif
