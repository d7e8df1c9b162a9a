#include "port_frame.h"

#include <errno.h>
#include <unistd.h>

#include "port_mem.h"

#define READ_BYTES (64u << 10) /* what a pipe holds */
#define KEPT_BYTES (1u << 20)  /* larger buffers are given back when they are empty */

/* ---- coming in ---- */

void port_in_init(struct port_in *in, size_t limit) {
    *in = (struct port_in){.p = port_alloc(READ_BYTES), .cap = READ_BYTES, .limit = limit};
}

void port_in_free(struct port_in *in) {
    port_free(in->p);
    in->p = NULL;
}

/* What is not taken yet moves to the front, and there is room to read into: as much as what is
 * there already, so that a length that was announced is believed only as its bytes come. */
static void make_room(struct port_in *in) {
    size_t left = in->end - in->begin;
    if (in->begin && left < in->begin) {
        memcpy(in->p, in->p + in->begin, left);
        in->begin = 0;
        in->end = left;
    }
    if (left == 0 && in->cap > KEPT_BYTES) {
        port_free(in->p);
        in->p = port_alloc(in->cap = READ_BYTES);
    }
    if (in->cap - in->end < READ_BYTES / 2) {
        in->cap = in->cap < left ? in->cap + left : in->cap * 2;
        in->p = port_resize(in->p, in->cap);
    }
}

enum port_read port_in_fill(struct port_in *in, int fd) {
    make_room(in);
    ssize_t n = read(fd, in->p + in->end, in->cap - in->end);
    if (n > 0) {
        in->end += (size_t)n;
        return PORT_READ;
    }
    return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) ? PORT_READ_NOTHING
                                                                                : PORT_READ_END;
}

enum port_frame port_in_next(struct port_in *in, struct cw_bytes *frame) {
    size_t left = in->end - in->begin;
    if (left < 4)
        return PORT_FRAME_PART;
    size_t n = port_load32(in->p + in->begin);
    if (n > in->limit)
        return PORT_FRAME_TOO_LONG;
    if (left - 4 < n)
        return PORT_FRAME_PART;
    *frame = cw_bytes(in->p + in->begin + 4, n);
    in->begin += 4 + n;
    return PORT_FRAME;
}

uint8_t *port_in_keep(struct port_in *in) {
    uint8_t *kept = in->p;
    size_t left = in->end - in->begin;
    in->cap = left < READ_BYTES ? READ_BYTES : left;
    in->p = port_alloc(in->cap);
    memcpy(in->p, kept + in->begin, left);
    in->begin = 0;
    in->end = left;
    return kept;
}

void port_in_wipe(struct port_in *in) {
    port_wipe(in->p, in->begin);
}

/* ---- going out ---- */

void port_out_init(struct port_out *out) {
    *out = (struct port_out){.sent = 0};
    cw_buf_init(&out->buf, &port_mem, NULL, 0);
}

void port_out_free(struct port_out *out) {
    cw_buf_free(&out->buf);
}

void port_out_begin(struct port_out *out) {
    cw_buf_put(&out->buf, "\0\0\0\0", 4);
    out->open = true;
}

void port_out_end(struct port_out *out) {
    port_store32(out->buf.p + out->whole, (uint32_t)port_out_size(out));
    out->whole = out->buf.n;
    out->open = false;
}

/* Gives back the room of what has been written, once it is more than what is left: so nothing is
 * moved twice. */
static void close_up(struct port_out *out) {
    size_t left = out->buf.n - out->sent;
    if (left > out->sent)
        return;
    if (left)
        memmove(out->buf.p, out->buf.p + out->sent, left);
    else if (out->buf.cap > KEPT_BYTES)
        cw_buf_free(&out->buf);
    out->buf.n = left;
    out->whole -= out->sent;
    out->sent = 0;
}

bool port_out_flush(struct port_out *out, int fd) {
    while (out->sent < out->whole) {
        ssize_t n = write(fd, out->buf.p + out->sent, out->whole - out->sent);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
            return false;
        if (n < 0)
            break;
        out->sent += (size_t)n;
    }
    if (out->sent)
        close_up(out);
    return true;
}
