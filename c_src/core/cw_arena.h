/* A bump allocator for what lives as long as one call. Nothing is freed before the end. */
#ifndef CW_ARENA_H
#define CW_ARENA_H

#include "cw_bytes.h"
#include "cw_mem.h"

struct cw_arena_block {
    struct cw_arena_block *next;
};

struct cw_arena {
    const struct cw_mem *mem;
    uint8_t *p;
    size_t left;
    size_t block; /* size of the next block */
    struct cw_arena_block *blocks;
};

/* Begins in the caller's `space`, aligned for any type. */
void cw_arena_init(struct cw_arena *arena, const struct cw_mem *mem, void *space, size_t n);
void cw_arena_free(struct cw_arena *arena);

/* Aligned to 8 bytes. NULL without memory. */
void *cw_arena_alloc(struct cw_arena *arena, size_t n);

/* A full array of `*cap` elements of `size` bytes, moved to where there is room for twice as many,
 * or for `first` if there were none; `*cap` says how many. NULL without memory: then it is as it
 * was. */
void *cw_arena_grow(struct cw_arena *arena, const void *array, size_t *cap, size_t size,
                    size_t first);

/* A copy of `s`; its `p` is NULL without memory. */
struct cw_bytes cw_arena_copy(struct cw_arena *arena, struct cw_bytes s);

#endif
