/* A growing byte buffer with a sticky error: after a failed growth every further write is dropped
 * and `err` stays CW_ENOMEM, so a writer checks once, at its end. */
#ifndef CW_BUF_H
#define CW_BUF_H

#include "cw_bytes.h"
#include "cw_err.h"
#include "cw_mem.h"

struct cw_buf {
    const struct cw_mem *mem;
    uint8_t *p;
    size_t n;
    size_t cap;
    enum cw_err err;
    bool borrowed; /* `p` is the caller's memory, not ours to free */
};

/* Starts empty in the caller's `space` of `cap` bytes (NULL and 0 for none), which must live as
 * long as the buffer; moves to the heap when that is full. */
void cw_buf_init(struct cw_buf *buf, const struct cw_mem *mem, void *space, size_t cap);
void cw_buf_free(struct cw_buf *buf);

/* Room for `n` more bytes at `p + n`; false, with the error set, when there is no memory. */
bool cw_buf_reserve(struct cw_buf *buf, size_t n);

void cw_buf_put(struct cw_buf *buf, const void *p, size_t n);
void cw_buf_varint(struct cw_buf *buf, uint64_t v);

static inline void cw_buf_bytes(struct cw_buf *buf, struct cw_bytes s) {
    cw_buf_put(buf, s.p, s.n);
}

static inline void cw_buf_byte(struct cw_buf *buf, uint8_t b) {
    if (buf->n < buf->cap)
        buf->p[buf->n++] = b;
    else
        cw_buf_put(buf, &b, 1);
}

static inline void cw_buf_u64le(struct cw_buf *buf, uint64_t v) {
    uint8_t b[8];
    cw_store64le(b, v);
    cw_buf_put(buf, b, 8);
}

static inline void cw_buf_u64be(struct cw_buf *buf, uint64_t v) {
    uint8_t b[8];
    cw_store64be(b, v);
    cw_buf_put(buf, b, 8);
}

static inline struct cw_bytes cw_buf_slice(const struct cw_buf *buf, size_t from) {
    return cw_bytes(buf->p + from, buf->n - from);
}

#endif
