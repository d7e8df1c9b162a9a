#include "port_mem.h"

#include <stdlib.h>
#include <unistd.h>

#include "port_protocol.h"

/* Read by jemalloc: there is one thread that matters, and what it has freed goes back to the system
 * soon. */
__attribute__((visibility("default"))) extern const char *malloc_conf;
const char *malloc_conf = "narenas:1,dirty_decay_ms:500,muzzy_decay_ms:0";

void port_out_of_memory(void) {
    _exit(PORT_EXIT_MEMORY);
}

void *port_alloc(size_t size) {
    void *p = malloc(size ? size : 1);
    if (!p)
        port_out_of_memory();
    return p;
}

void *port_resize(void *p, size_t size) {
    void *q = realloc(p, size ? size : 1);
    if (!q)
        port_out_of_memory();
    return q;
}

void port_free(void *p) {
    free(p);
}

void port_wipe(void *p, size_t n) {
    volatile unsigned char *b = p;
    while (n--)
        *b++ = 0;
}

static void *mem_alloc(void *ctx, size_t size) {
    (void)ctx;
    return port_alloc(size);
}

static void mem_free(void *ctx, void *p) {
    (void)ctx;
    port_free(p);
}

const struct cw_mem port_mem = {mem_alloc, mem_free, NULL};
