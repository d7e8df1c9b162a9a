/* Byte slices, and fixed-width integers in byte strings. Little-endian in payloads and on the
 * wire, big-endian in keys, where the order of bytes must be the order of numbers. */
#ifndef CW_BYTES_H
#define CW_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct cw_bytes {
    const uint8_t *p;
    size_t n;
};

static inline struct cw_bytes cw_bytes(const void *p, size_t n) {
    return (struct cw_bytes){(const uint8_t *)p, n};
}

/* Compilers turn these into one instruction, or two. */
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define CW_LE64(v) __builtin_bswap64(v)
#define CW_LE32(v) __builtin_bswap32(v)
#define CW_BE64(v) (v)
#define CW_BE32(v) (v)
#else
#define CW_LE64(v) (v)
#define CW_LE32(v) (v)
#define CW_BE64(v) __builtin_bswap64(v)
#define CW_BE32(v) __builtin_bswap32(v)
#endif

static inline uint64_t cw_load64le(const void *src) {
    uint64_t v;
    memcpy(&v, src, 8);
    return CW_LE64(v);
}

static inline void cw_store64le(void *dst, uint64_t v) {
    v = CW_LE64(v);
    memcpy(dst, &v, 8);
}

static inline uint32_t cw_load32le(const void *src) {
    uint32_t v;
    memcpy(&v, src, 4);
    return CW_LE32(v);
}

static inline void cw_store32le(void *dst, uint32_t v) {
    v = CW_LE32(v);
    memcpy(dst, &v, 4);
}

static inline uint32_t cw_load32be(const void *src) {
    uint32_t v;
    memcpy(&v, src, 4);
    return CW_BE32(v);
}

static inline void cw_store32be(void *dst, uint32_t v) {
    v = CW_BE32(v);
    memcpy(dst, &v, 4);
}

static inline uint64_t cw_load64be(const void *src) {
    uint64_t v;
    memcpy(&v, src, 8);
    return CW_BE64(v);
}

static inline void cw_store64be(void *dst, uint64_t v) {
    v = CW_BE64(v);
    memcpy(dst, &v, 8);
}

/* For what has large arrays and is called by what calls itself: inlined, they would be in each of
 * its frames. */
#define CW_NOINLINE __attribute__((noinline))

/* memcmp, for the short strings that keys are made of: no call, and few branches. */
static inline int cw_memcmp(const uint8_t *a, const uint8_t *b, size_t n) {
    if (n > 64)
        return memcmp(a, b, n);
    for (; n >= 8; a += 8, b += 8, n -= 8) {
        uint64_t x = cw_load64be(a), y = cw_load64be(b);
        if (x != y)
            return x < y ? -1 : 1;
    }
    for (; n; a++, b++, n--)
        if (*a != *b)
            return *a - *b;
    return 0;
}

/* memcmp order; a prefix sorts before what it is a prefix of. */
static inline int cw_bytes_cmp(struct cw_bytes a, struct cw_bytes b) {
    size_t n = a.n < b.n ? a.n : b.n;
    int c = cw_memcmp(a.p, b.p, n);
    return c ? c : (a.n > b.n) - (a.n < b.n);
}

static inline bool cw_bytes_eq(struct cw_bytes a, struct cw_bytes b) {
    return a.n == b.n && cw_memcmp(a.p, b.p, a.n) == 0;
}

static inline bool cw_bytes_has_prefix(struct cw_bytes s, struct cw_bytes prefix) {
    return s.n >= prefix.n && cw_memcmp(s.p, prefix.p, prefix.n) == 0;
}

#endif
