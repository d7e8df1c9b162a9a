#include "cw_wal_frame.h"

/* A buffer that a large row has made larger than this is given back. */
#define KEEP (1u << 20)

/* Offsets in a block. */
#define AT_FLAGS 4
#define AT_XID 5
#define AT_COMMIT_LSN 9
#define AT_END_LSN 17
#define AT_COMMIT_TIME 25
#define AT_ORIGIN_LSN 33
#define AT_ORIGIN_SIZE 41
#define AT_MESSAGES 43

/* ---- writing ---- */

void cw_frame_init(struct cw_frame *frame, const struct cw_mem *mem) {
    *frame = (struct cw_frame){.closed = 1};
    cw_buf_init(&frame->buf, mem, NULL, 0);
    cw_buf_byte(&frame->buf, CW_FRAME_TAG);
}

void cw_frame_free(struct cw_frame *frame) {
    cw_buf_free(&frame->buf);
}

void cw_frame_open(struct cw_frame *frame, const struct cw_block *block) {
    struct cw_buf *buf = &frame->buf;
    if (!cw_buf_reserve(buf, CW_BLOCK_HEAD + block->origin.n))
        return;
    uint8_t *p = buf->p + buf->n;
    frame->open = buf->n;
    frame->count = 0;
    p[AT_FLAGS] = block->flags;
    cw_store32be(p + AT_XID, block->xid);
    cw_store64be(p + AT_COMMIT_LSN, block->commit_lsn);
    cw_store64be(p + AT_COMMIT_TIME, (uint64_t)block->commit_time);
    cw_store64be(p + AT_ORIGIN_LSN, block->origin_lsn);
    p[AT_ORIGIN_SIZE] = (uint8_t)(block->origin.n >> 8);
    p[AT_ORIGIN_SIZE + 1] = (uint8_t)block->origin.n;
    buf->n += CW_BLOCK_HEAD;
    cw_buf_bytes(buf, block->origin);
}

void cw_frame_add(struct cw_frame *frame, struct cw_bytes head, struct cw_bytes rest) {
    struct cw_buf *buf = &frame->buf;
    if (!cw_buf_reserve(buf, 4 + head.n + rest.n))
        return;
    cw_store32be(buf->p + buf->n, (uint32_t)(head.n + rest.n));
    buf->n += 4;
    cw_buf_bytes(buf, head);
    cw_buf_bytes(buf, rest);
    frame->count++;
}

void cw_frame_close(struct cw_frame *frame, uint8_t flags, uint64_t end_lsn) {
    if (frame->buf.err || !frame->open)
        return;
    uint8_t *p = frame->buf.p + frame->open;
    cw_store32be(p, (uint32_t)(frame->buf.n - frame->open - 4));
    p[AT_FLAGS] |= flags;
    cw_store64be(p + AT_END_LSN, end_lsn);
    cw_store32be(p + AT_MESSAGES, frame->count);
    frame->open = 0;
    frame->closed = frame->buf.n;
}

/* Before: T closed... [open...], after: T [open...]. */
void cw_frame_shift(struct cw_frame *frame) {
    struct cw_buf *buf = &frame->buf;
    if (buf->err)
        return;
    size_t left = buf->n - frame->closed;
    if (left == 0 && buf->cap > KEEP) {
        const struct cw_mem *mem = buf->mem;
        cw_buf_free(buf);
        cw_frame_init(frame, mem);
        return;
    }
    memmove(buf->p + 1, buf->p + frame->closed, left);
    buf->n = 1 + left;
    frame->closed = 1;
    if (frame->open)
        frame->open = 1;
}

/* ---- reading ---- */

bool cw_block_next(struct cw_reader *r, struct cw_block *block, struct cw_reader *messages) {
    struct cw_bytes size = cw_read_bytes(r, cw_reader_left(r) ? 4 : 0);
    if (!size.n)
        return false;
    struct cw_bytes s = cw_read_bytes(r, cw_load32be(size.p));
    const uint8_t *p = s.p - 4; /* offsets count from the size */
    size_t head = CW_BLOCK_HEAD - 4;
    if (!r->err && s.n < head)
        cw_reader_fail(r, CW_EMALFORMED);
    if (r->err)
        return false;
    size_t origin = (size_t)p[AT_ORIGIN_SIZE] << 8 | p[AT_ORIGIN_SIZE + 1];
    if (origin > s.n - head || p[AT_FLAGS] & ~CW_BLOCK_FLAGS) {
        cw_reader_fail(r, CW_EMALFORMED);
        return false;
    }
    *block = (struct cw_block){p[AT_FLAGS],
                               cw_load32be(p + AT_XID),
                               cw_load64be(p + AT_COMMIT_LSN),
                               cw_load64be(p + AT_END_LSN),
                               (int64_t)cw_load64be(p + AT_COMMIT_TIME),
                               cw_load64be(p + AT_ORIGIN_LSN),
                               cw_bytes(s.p + head, origin),
                               cw_load32be(p + AT_MESSAGES)};
    *messages = cw_reader(cw_bytes(s.p + head + origin, s.n - head - origin));
    return true;
}

struct cw_bytes cw_block_message(struct cw_reader *messages) {
    struct cw_bytes size = cw_read_bytes(messages, 4);
    return cw_read_bytes(messages, size.n ? cw_load32be(size.p) : 0);
}
