/* The NIF's allocator: the VM's, behind a small cache a thread.
 *
 * An update allocates about eight blocks, and the drop of the version before it frees as many of
 * the same sizes. enif_alloc and enif_free take about 100 ns for each pair; the cache takes 10.
 * What it holds is bounded a thread, and kept: documents know their allocator, so it has to outlive
 * all of them, whatever library they are taken over by. */
#ifndef NIF_MEM_H
#define NIF_MEM_H

#include "../core/cw_mem.h"

extern const struct cw_mem nif_mem;

#endif
