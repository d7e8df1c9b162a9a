#include "cw_arena.h"

#define FIRST_BLOCK 4096u
#define LARGEST_BLOCK (1u << 20)

void cw_arena_init(struct cw_arena *arena, const struct cw_mem *mem, void *space, size_t n) {
    *arena = (struct cw_arena){.mem = mem, .p = space, .left = n, .block = FIRST_BLOCK};
}

void cw_arena_free(struct cw_arena *arena) {
    struct cw_arena_block *block = arena->blocks;
    while (block) {
        struct cw_arena_block *next = block->next;
        cw_free(arena->mem, block);
        block = next;
    }
    arena->blocks = NULL;
    arena->left = 0;
}

static bool grow(struct cw_arena *arena, size_t n) {
    size_t size = arena->block > n ? arena->block : n;
    if (size > SIZE_MAX - 16)
        return false;
    struct cw_arena_block *block = cw_alloc(arena->mem, 16 + size);
    if (!block)
        return false;
    block->next = arena->blocks;
    arena->blocks = block;
    arena->p = (uint8_t *)block + 16;
    arena->left = size;
    if (arena->block < LARGEST_BLOCK)
        arena->block *= 2;
    return true;
}

void *cw_arena_alloc(struct cw_arena *arena, size_t n) {
    if (n > SIZE_MAX - 7)
        return NULL;
    n = (n + 7) & ~(size_t)7;
    if (n > arena->left && !grow(arena, n))
        return NULL;
    void *p = arena->p;
    arena->p += n;
    arena->left -= n;
    return p;
}

void *cw_arena_grow(struct cw_arena *arena, const void *array, size_t *cap, size_t size,
                    size_t first) {
    size_t to = *cap ? 2 * *cap : first;
    void *p = cw_arena_alloc(arena, to * size);
    if (!p)
        return NULL;
    if (*cap)
        memcpy(p, array, *cap * size);
    *cap = to;
    return p;
}

struct cw_bytes cw_arena_copy(struct cw_arena *arena, struct cw_bytes s) {
    uint8_t *p = cw_arena_alloc(arena, s.n ? s.n : 1);
    if (p && s.n)
        memcpy(p, s.p, s.n);
    return cw_bytes(p, s.n);
}
