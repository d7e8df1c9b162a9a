#include "cw_mem.h"

#include <stdlib.h>

static void *std_alloc(void *ctx, size_t size) {
    (void)ctx;
    return malloc(size);
}

static void std_free(void *ctx, void *ptr) {
    (void)ctx;
    free(ptr);
}

const struct cw_mem cw_mem_std = {std_alloc, std_free, NULL};
