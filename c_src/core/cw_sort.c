#include "cw_sort.h"

#include <string.h>

static void swap(unsigned char *a, unsigned char *b, size_t size) {
    unsigned char t[64];
    memcpy(t, a, size);
    memcpy(a, b, size);
    memcpy(b, t, size);
}

static void sift(unsigned char *p, size_t i, size_t n, size_t size, cw_cmp_fn cmp,
                 const void *ctx) {
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && cmp(ctx, p + child * size, p + (child + 1) * size) < 0)
            child++;
        if (cmp(ctx, p + i * size, p + child * size) >= 0)
            return;
        swap(p + i * size, p + child * size, size);
    }
}

void cw_sort(void *base, size_t n, size_t size, cw_cmp_fn cmp, const void *ctx) {
    unsigned char *p = base;
    for (size_t i = n / 2; i-- > 0;)
        sift(p, i, n, size, cmp, ctx);
    while (n > 1) {
        swap(p, p + --n * size, size);
        sift(p, 0, n, size, cmp, ctx);
    }
}
