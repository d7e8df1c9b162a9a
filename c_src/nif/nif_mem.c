#include "nif_mem.h"

#include <erl_nif.h>
#include <stdatomic.h>
#include <stdint.h>

#define STEP 64u /* sizes are rounded up to a multiple */
#ifdef __SANITIZE_ADDRESS__
#define CLASSES 0u /* or it would not see the end of a block, nor its use after the free */
#else
#define CLASSES 64u /* up to 4 kB; larger blocks are not cached */
#endif
#define CACHE_BYTES (512u << 10) /* held by one thread at most */

/* In front of each block. Its size keeps what follows aligned for any type. */
union header {
    uint32_t class; /* 0: not cached */
    union header *next;
    char align[16];
};

struct cache {
    struct cache *next; /* of all threads' */
    unsigned epoch;
    size_t held;
    union header *free[CLASSES + 1];
};

/* A thread's cache, valid for one load of the library: a thread that lives on sees that its cache
 * is of an earlier one by the epoch. */
static _Thread_local struct cache *own;
static _Thread_local unsigned own_epoch;
static atomic_uint epoch;
static _Atomic(struct cache *) caches;

static struct cache *new_cache(void) {
    struct cache *cache = enif_alloc(sizeof *cache);
    if (!cache)
        return NULL;
    *cache = (struct cache){.epoch = atomic_load(&epoch)};
    cache->next = atomic_load(&caches);
    while (!atomic_compare_exchange_weak(&caches, &cache->next, cache))
        ;
    own = cache;
    own_epoch = cache->epoch;
    return cache;
}

static struct cache *cache_of_thread(void) {
    if (own && own_epoch == atomic_load_explicit(&epoch, memory_order_relaxed))
        return own;
    return new_cache();
}

static void *mem_alloc(void *ctx, size_t size) {
    (void)ctx;
    if (size > SIZE_MAX - sizeof(union header) - STEP)
        return NULL;
    size_t class = (size + STEP - 1) / STEP;
    struct cache *cache = class <= CLASSES ? cache_of_thread() : NULL;
    union header *h;
    if (cache && cache->free[class]) {
        h = cache->free[class];
        cache->free[class] = h->next;
        cache->held -= class * STEP;
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
    struct cache *cache = class ? cache_of_thread() : NULL;
    if (!cache || cache->held + class * STEP > CACHE_BYTES) {
        enif_free(h);
        return;
    }
    h->next = cache->free[class];
    cache->free[class] = h;
    cache->held += class * STEP;
}

const struct cw_mem nif_mem = {mem_alloc, mem_free, NULL};

void nif_mem_stop(void) {
    struct cache *cache = atomic_exchange(&caches, NULL);
    atomic_fetch_add(&epoch, 1);
    while (cache) {
        struct cache *next = cache->next;
        for (size_t class = 1; class <= CLASSES; class ++)
            for (union header *h = cache->free[class], *up; h; h = up) {
                up = h->next;
                enif_free(h);
            }
        enif_free(cache);
        cache = next;
    }
}
