/* Sums of 64-bit amounts that may exceed 64 bits: 128-bit two's complement. */
#ifndef CW_WIDE_H
#define CW_WIDE_H

#include <stdbool.h>
#include <stdint.h>

struct cw_wide {
    uint64_t lo;
    uint64_t hi;
};

static inline struct cw_wide cw_wide_add(struct cw_wide a, uint64_t b) {
    uint64_t lo = a.lo + b;
    return (struct cw_wide){lo, a.hi + (lo < b)};
}

static inline struct cw_wide cw_wide_sub(struct cw_wide a, uint64_t b) {
    return (struct cw_wide){a.lo - b, a.hi - (a.lo < b)};
}

static inline struct cw_wide cw_wide_sum(struct cw_wide a, struct cw_wide b) {
    struct cw_wide s = cw_wide_add(a, b.lo);
    s.hi += b.hi;
    return s;
}

static inline bool cw_wide_negative(struct cw_wide a) {
    return a.hi >> 63;
}

static inline struct cw_wide cw_wide_negate(struct cw_wide a) {
    return cw_wide_add((struct cw_wide){~a.lo, ~a.hi}, 1);
}

/* Not below 0, not above the greatest uint64_t. */
static inline uint64_t cw_wide_clamp(struct cw_wide a) {
    if (cw_wide_negative(a))
        return 0;
    return a.hi ? UINT64_MAX : a.lo;
}

#endif
