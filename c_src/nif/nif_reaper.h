/* A thread that frees what is too much to free at once: a scheduler that drops the last handle of a
 * large document must not stand still for it. */
#ifndef NIF_REAPER_H
#define NIF_REAPER_H

#include "nif_env.h"

struct nif_reaper;

/* NULL when the thread cannot be started. */
struct nif_reaper *nif_reaper_start(void);

/* Takes over a token of cw_doc_free_some. */
void nif_reaper_give(struct nif_reaper *reaper, struct cw_forest *rest);

#endif
