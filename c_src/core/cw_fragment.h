/* Fragments: a part of a state, with the writes it covers. State and delta are the same thing: what
 * an encoded document, a delta and a joined delta hold (docs/FORMAT.md, "Fragments").
 *
 * A fragment says: "to who has seen `from`: after the writes up to `to`, these areas of the key
 * space held these cells and no others." The whole state is the fragment from nothing with one
 * area, everything. About keys outside its areas an exact fragment says that none of the writes
 * between touched them; a net one only that all of them together left them as they were at `from`,
 * so that what single ones of them wrote there is gone again. */
#ifndef CW_FRAGMENT_H
#define CW_FRAGMENT_H

#include "cw_arena.h"
#include "cw_wire.h"

#define CW_FORMAT_MAGIC 0xca
#define CW_FORMAT_VERSION 0x10 /* in the high half of the second byte; the type is in the low */
#define CW_FORMAT_EXACT 1
#define CW_FORMAT_NET 2

struct cw_piece {
    struct cw_bytes key;
    struct cw_bytes payload;
};

/* One key, with or without a cell, or (`below`) all keys with a prefix. */
struct cw_area {
    struct cw_bytes key;
    bool below;
    size_t n;     /* cells in it, */
    size_t first; /* in `pieces` */
};

struct cw_fragment {
    struct cw_arena arena; /* holds all bytes and arrays */
    bool net;
    struct cw_vv *from;
    struct cw_vv *to;
    struct cw_area *areas; /* sorted, disjoint */
    size_t n;
    struct cw_piece *pieces; /* sorted */
    uint64_t hlc;            /* the greatest stamp inside */
};

/* Decodes foreign bytes. On success the caller owns the fragment, on failure nothing. Keys share
 * their beginnings with those before, so a few bytes may be many when decoded: `budget` is in
 * cells, each of which pays for CW_CELL_KEY bytes of keys; CW_EBUDGET when they are more. */
#define CW_CELL_KEY 256u
enum cw_err cw_fragment_read(struct cw_fragment *f, const struct cw_mem *mem, size_t budget,
                             struct cw_bytes s);
void cw_fragment_free(struct cw_fragment *f);

/* A replica's name, as fragments and clocks have it: a length and a key-encoded atom or binary. The
 * caller owns it; NULL on failure, which sticks to the reader. */
struct cw_name *cw_read_name(struct cw_reader *r, const struct cw_mem *mem);

/* ---- writing: head, areas in order, end ---- */

struct cw_fragment_writer {
    struct cw_buf *out;
    const struct cw_vv *to;
    struct cw_buf last; /* the key before */
};

/* `from` is a part of `to`, both of which must live until the end. */
void cw_fragment_begin(struct cw_fragment_writer *w, struct cw_buf *out, const struct cw_vv *from,
                       const struct cw_vv *to, bool net);
/* An area of one key; `payload` NULL when it has no cell. */
void cw_fragment_key(struct cw_fragment_writer *w, struct cw_bytes key,
                     const struct cw_bytes *payload);
/* An area of all keys with a prefix, to be followed by its `n` cells. */
void cw_fragment_below(struct cw_fragment_writer *w, struct cw_bytes prefix, uint64_t n);
void cw_fragment_cell(struct cw_fragment_writer *w, struct cw_bytes key, struct cw_bytes payload);
/* Also on failure; returns the error of `out`, which then holds nothing of use. */
enum cw_err cw_fragment_end(struct cw_fragment_writer *w);

/* All of that: a whole fragment. */
enum cw_err cw_fragment_write(const struct cw_fragment *f, struct cw_buf *out);

#endif
