/* {packet, 4} frames on file descriptors that do not block: four bytes of length, big endian, then
 * so many bytes. */
#ifndef PORT_FRAME_H
#define PORT_FRAME_H

#include "../core/cw_buf.h"

static inline uint32_t port_load32(const void *src) {
    const uint8_t *b = src;
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static inline void port_store32(void *dst, uint32_t v) {
    uint8_t *b = dst;
    b[0] = (uint8_t)(v >> 24);
    b[1] = (uint8_t)(v >> 16);
    b[2] = (uint8_t)(v >> 8);
    b[3] = (uint8_t)v;
}

/* ---- coming in ---- */

/*   p      begin           end      cap
 *   | taken | frame | frame | fra... |    */
struct port_in {
    uint8_t *p;
    size_t begin;
    size_t end;
    size_t cap;
    size_t limit; /* of one frame */
};

enum port_read { PORT_READ, PORT_READ_NOTHING, PORT_READ_END };

void port_in_init(struct port_in *in, size_t limit);
void port_in_free(struct port_in *in);

/* Reads once what is there. PORT_READ_END at the end of the file, and after any error but a
 * temporary one. */
enum port_read port_in_fill(struct port_in *in, int fd);

enum port_frame { PORT_FRAME, PORT_FRAME_PART, PORT_FRAME_TOO_LONG };

/* The next whole frame, without its length; it may be written to, and stays until port_in_fill. */
enum port_frame port_in_next(struct port_in *in, struct cw_bytes *frame);

/* Hands over the memory that the frame is in which was taken last, so that it stays; what came
 * after it moves to another place. To be freed with port_free. */
uint8_t *port_in_keep(struct port_in *in);

/* Forgets what was taken by overwriting it with zeros: for frames with secrets. */
void port_in_wipe(struct port_in *in);

/* ---- going out ---- */

/*   p     sent    whole          n
 *   | sent | frame | open frame | |    */
struct port_out {
    struct cw_buf buf;
    size_t sent;
    size_t whole; /* where the last whole frame ends, and the open one begins */
    bool open;
};

void port_out_init(struct port_out *out);
void port_out_free(struct port_out *out);

/* Opens a frame; none may be open. Its bytes are then put into out->buf. */
void port_out_begin(struct port_out *out);
/* Closes it. */
void port_out_end(struct port_out *out);

/* Bytes in the open frame. */
static inline size_t port_out_size(const struct port_out *out) {
    return out->buf.n - out->whole - 4;
}

/* Bytes in whole frames that have not been written. */
static inline size_t port_out_pending(const struct port_out *out) {
    return out->whole - out->sent;
}

/* Writes as much of the whole frames as goes without waiting. False when nobody reads any more. */
bool port_out_flush(struct port_out *out, int fd);

#endif
