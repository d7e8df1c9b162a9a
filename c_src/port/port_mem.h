/* The port program's memory: jemalloc's, where it is linked. There is one answer to running out of
 * it, which is that the process ends with PORT_EXIT_MEMORY: it holds one connection, its owner is
 * told by the exit status, and connects again. So nothing here returns NULL. */
#ifndef PORT_MEM_H
#define PORT_MEM_H

#include <stddef.h>

#include "../core/cw_mem.h"

extern const struct cw_mem port_mem;

void *port_alloc(size_t size);
/* As realloc. */
void *port_resize(void *p, size_t size);
void port_free(void *p);

/* Overwrites secrets, which the compiler does not leave out. */
void port_wipe(void *p, size_t n);

/* Ends the process as running out of memory does; for libpq's and ei's failures of that kind. */
_Noreturn void port_out_of_memory(void);

#endif
