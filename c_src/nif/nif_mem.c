#include "nif_mem.h"

#include <erl_nif.h>
#include <stdint.h>

#define STEP 64u /* sizes are rounded up to a multiple */
#ifdef __SANITIZE_ADDRESS__
#define CLASSES 0u /* or it would not see the end of a block, nor its use after the free */
#else
#define CLASSES 64u /* up to 4 kB; larger blocks are not cached */
#endif
#define CACHE_BYTES (2u << 20) /* held by one thread at most */

/* In front of each block. Its size keeps what follows aligned for any type. */
union header {
    uint32_t class; /* 0: not cached */
    union header *next;
    char align[16];
};

/* A scheduler's, and the reaper's; these threads live as long as the VM. */
static _Thread_local struct cache {
    size_t held;
    union header *free[CLASSES + 1];
} cache;

static void *mem_alloc(void *ctx, size_t size) {
    (void)ctx;
    if (size > SIZE_MAX - sizeof(union header) - STEP)
        return NULL;
    size_t class = (size + STEP - 1) / STEP;
    union header *h = class <= CLASSES ? cache.free[class] : NULL;
    if (h) {
        cache.free[class] = h->next;
        cache.held -= class * STEP;
    } else {
        h = enif_alloc(sizeof *h + (class <= CLASSES ? class * STEP : size));
        if (!h)
            return NULL;
    }
    h->class = class <= CLASSES ? (uint32_t) class : 0;
    return h + 1;
}

static void mem_free(void *ctx, void *p) {
    (void)ctx;
    if (!p)
        return;
    union header *h = (union header *)p - 1;
    size_t class = h->class;
    if (!class || cache.held + class * STEP > CACHE_BYTES) {
        enif_free(h);
        return;
    }
    h->next = cache.free[class];
    cache.free[class] = h;
    cache.held += class * STEP;
}

const struct cw_mem nif_mem = {mem_alloc, mem_free, NULL};
