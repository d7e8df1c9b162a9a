/* The allocator every part of the core is given; nothing here calls malloc by itself.
 *
 * `alloc` returns memory aligned for any type, or NULL. `free` accepts NULL. Both may be called
 * from any thread at any time. `cw_mem_std` is the C library's. */
#ifndef CW_MEM_H
#define CW_MEM_H

#include <stddef.h>

struct cw_mem {
    void *(*alloc)(void *ctx, size_t size);
    void (*free)(void *ctx, void *ptr);
    void *ctx;
};

extern const struct cw_mem cw_mem_std;

static inline void *cw_alloc(const struct cw_mem *mem, size_t size) {
    return mem->alloc(mem->ctx, size);
}

static inline void cw_free(const struct cw_mem *mem, void *ptr) {
    mem->free(mem->ctx, ptr);
}

#endif
