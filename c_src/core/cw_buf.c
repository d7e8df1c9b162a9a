#include "cw_buf.h"

/* Never NULL, so that slices may be cut from an empty buffer; never written to either. */
static uint8_t nothing[1];

void cw_buf_init(struct cw_buf *buf, const struct cw_mem *mem, void *space, size_t cap) {
    *buf = (struct cw_buf){.mem = mem, .p = space ? space : nothing, .cap = cap, .borrowed = true};
}

void cw_buf_free(struct cw_buf *buf) {
    if (!buf->borrowed)
        cw_free(buf->mem, buf->p);
    cw_buf_init(buf, buf->mem, NULL, 0);
}

bool cw_buf_reserve(struct cw_buf *buf, size_t n) {
    if (buf->err)
        return false;
    if (n <= buf->cap - buf->n)
        return true;
    size_t cap = buf->cap < 128 ? 256 : buf->cap * 2;
    if (cap - buf->n < n)
        cap = buf->n + n;
    uint8_t *p = cap < buf->n ? NULL : cw_alloc(buf->mem, cap);
    if (!p) {
        buf->err = CW_ENOMEM;
        return false;
    }
    if (buf->n)
        memcpy(p, buf->p, buf->n);
    if (!buf->borrowed)
        cw_free(buf->mem, buf->p);
    buf->p = p;
    buf->cap = cap;
    buf->borrowed = false;
    return true;
}

void cw_buf_put(struct cw_buf *buf, const void *p, size_t n) {
    if (n == 0 || !cw_buf_reserve(buf, n))
        return;
    memcpy(buf->p + buf->n, p, n);
    buf->n += n;
}

void cw_buf_varint(struct cw_buf *buf, uint64_t v) {
    uint8_t b[10];
    size_t n = 0;
    while (v >= 0x80) {
        b[n++] = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    b[n++] = (uint8_t)v;
    cw_buf_put(buf, b, n);
}
