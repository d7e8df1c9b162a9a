/* Heapsort: in place, no recursion, no memory, and a context for the comparison, none of which the
 * C library's qsort promises. */
#ifndef CW_SORT_H
#define CW_SORT_H

#include <stddef.h>

typedef int (*cw_cmp_fn)(const void *ctx, const void *a, const void *b);

/* Sorts `n` elements of `size` <= 64 bytes. */
void cw_sort(void *base, size_t n, size_t size, cw_cmp_fn cmp, const void *ctx);

#endif
