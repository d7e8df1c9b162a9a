/* Version vectors as bytes (docs/FORMAT.md, "Clocks"): what applications hold, compare and store.
 *
 *     magic, version and type | n varint | width byte | counters: n * width | names: n * name
 *
 * Replicas ascend by id; `width` is the least of 1, 2, 4, 8 that holds the greatest counter. Where
 * two clocks name the same replicas, as they nearly always do, their names are equal byte for byte,
 * and merging and comparing is one pass over two arrays of integers. */
#ifndef CW_CLOCK_H
#define CW_CLOCK_H

#include "cw_buf.h"
#include "cw_vv.h"

#define CW_FORMAT_CLOCK 0x13

/* Appends the clock of a vector. */
void cw_clock_put(struct cw_buf *out, const struct cw_vv *vv);

/* Decodes foreign bytes into a vector owned by the caller. */
enum cw_err cw_clock_read(const struct cw_mem *mem, struct cw_bytes clock, struct cw_vv **out);

/* The counter of the replica with this name, 0 when it is not there. No further checks are made. */
enum cw_err cw_clock_get(struct cw_bytes clock, struct cw_bytes name, uint64_t *counter);

/* Where two clocks name the same replicas, byte for byte, cw_clock_merge and cw_clock_compare do
 * not look at the names: they are safe on any bytes, but bytes from outside go through
 * cw_clock_read first. */

/* Appends the join of two clocks; on failure what was appended is of no use. */
enum cw_err cw_clock_merge(const struct cw_mem *mem, struct cw_bytes a, struct cw_bytes b,
                           struct cw_buf *out);

/* How `a` stands to `b`. */
enum cw_err cw_clock_compare(const struct cw_mem *mem, struct cw_bytes a, struct cw_bytes b,
                             enum cw_order *order);

#endif
