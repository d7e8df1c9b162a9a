/* The NIF's allocator: the VM's, behind a small cache a thread.
 *
 * An update allocates about eight blocks, and the drop of the version before it frees as many of
 * the same sizes. enif_alloc and enif_free take about 100 ns for each pair; the cache takes 10.
 * What it holds is bounded a thread and given back when the library is unloaded. */
#ifndef NIF_MEM_H
#define NIF_MEM_H

#include "../core/cw_mem.h"

extern const struct cw_mem nif_mem;

/* Gives back all caches; no other thread may be in the library any more. */
void nif_mem_stop(void);

#endif
