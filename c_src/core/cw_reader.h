/* A bounds-checked reader over foreign bytes. The first failure sticks in `err`; every later read
 * gives zero or an empty slice, so a decoder may check once a section. */
#ifndef CW_READER_H
#define CW_READER_H

#include "cw_bytes.h"
#include "cw_err.h"

struct cw_reader {
    const uint8_t *p;
    const uint8_t *end;
    enum cw_err err;
};

static inline struct cw_reader cw_reader(struct cw_bytes s) {
    const uint8_t *p = s.n ? s.p : (const uint8_t *)"";
    return (struct cw_reader){p, p + s.n, CW_OK};
}

static inline size_t cw_reader_left(const struct cw_reader *r) {
    return (size_t)(r->end - r->p);
}

static inline void cw_reader_fail(struct cw_reader *r, enum cw_err err) {
    if (!r->err)
        r->err = err;
    r->p = r->end;
}

static inline uint8_t cw_read_byte(struct cw_reader *r) {
    if (r->p == r->end) {
        cw_reader_fail(r, CW_ETRUNCATED);
        return 0;
    }
    return *r->p++;
}

static inline struct cw_bytes cw_read_bytes(struct cw_reader *r, uint64_t n) {
    if (n > cw_reader_left(r)) {
        cw_reader_fail(r, CW_ETRUNCATED);
        return cw_bytes(r->end, 0);
    }
    struct cw_bytes s = cw_bytes(r->p, (size_t)n);
    r->p += n;
    return s;
}

static inline uint64_t cw_read_u64le(struct cw_reader *r) {
    struct cw_bytes s = cw_read_bytes(r, 8);
    return s.n ? cw_load64le(s.p) : 0;
}

/* How reading a part that should hold one thing, no less and no more, ended: when it is too short,
 * the bytes it is a part of are not. */
static inline enum cw_err cw_reader_whole(const struct cw_reader *part) {
    if (part->err)
        return part->err == CW_ETRUNCATED ? CW_EMALFORMED : part->err;
    return part->p == part->end ? CW_OK : CW_EMALFORMED;
}

/* LEB128, at most 10 bytes, shortest form only (FORMAT.md, "Varint"). */
static inline uint64_t cw_read_varint(struct cw_reader *r) {
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t b = cw_read_byte(r);
        uint64_t part = b & 0x7f;
        if (shift == 63 && part > 1)
            break;
        v |= part << shift;
        if (!(b & 0x80)) {
            if (b == 0 && shift)
                break;
            return r->err ? 0 : v;
        }
    }
    cw_reader_fail(r, CW_EMALFORMED);
    return 0;
}

/* A count of things that take at least `min` bytes each: refused when the bytes left cannot hold
 * them, so no allocation follows a foreign length further than the input itself. */
static inline uint64_t cw_read_count(struct cw_reader *r, size_t min) {
    uint64_t n = cw_read_varint(r);
    if (n > cw_reader_left(r) / min) {
        cw_reader_fail(r, CW_ETRUNCATED);
        return 0;
    }
    return n;
}

#endif
