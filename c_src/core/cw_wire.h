/* One cell's payload between memory and the wire (docs/FORMAT.md, "Payloads"): replicas are indexes
 * into the fragment's list of names, numbers are varints. */
#ifndef CW_WIRE_H
#define CW_WIRE_H

#include "cw_cell.h"
#include "cw_reader.h"

/* Every dot in `payload` is in `vv`. */
void cw_wire_put(struct cw_buf *out, const struct cw_key_parts *key, struct cw_bytes payload,
                 const struct cw_vv *vv);

/* Reads one payload and appends its form in memory to `out`; raises `*hlc` to the greatest stamp.
 * Refuses what is not canonical, and dots `vv` does not contain. Failures stick to the reader. */
void cw_wire_read(struct cw_reader *r, const struct cw_key_parts *key, const struct cw_vv *vv,
                  struct cw_buf *out, uint64_t *hlc);

#endif
