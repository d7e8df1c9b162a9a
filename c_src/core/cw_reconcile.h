/* How two replicas find out what one lacks when the other does not remember its edits so far back.
 *
 * Cells that are new to the peer are known by their dots. What has been removed is known to nobody:
 * it is found by comparing sketches of both sides' cells, less those at the keys that either side
 * knows to be new (docs/store.md, "Catching up"). */
#ifndef CW_RECONCILE_H
#define CW_RECONCILE_H

#include "cw_doc.h"
#include "cw_fragment.h"
#include "cw_sketch.h"

/* A net fragment from what `since` and the document share to all the document has: the cells with a
 * write that is not in `since`, and the `n` keys in `more` (sorted), with what there is of them.
 * Without `bodies` a fragment of the same keys that says nothing of their cells: a list. O(cells).
 */
enum cw_err cw_doc_news(const struct cw_doc *doc, const struct cw_vv *since,
                        const struct cw_bytes *more, size_t n, bool bodies, struct cw_buf *out);

/* Adds the cells to the symbols [from, from + n) of a sketch, each by half of its hash, but those
 * at the keys of the two fragments. O(cells log(from + n)). */
enum cw_err cw_doc_symbols(const struct cw_doc *doc, const struct cw_fragment *a,
                           const struct cw_fragment *b, uint64_t from, size_t n,
                           struct cw_symbol *symbols);

/* Calls `found` with the key of each cell whose half of a hash is among `n` (sorted). O(cells log
 * n).
 */
enum cw_err cw_doc_keys_of(const struct cw_doc *doc, const uint64_t *hashes, size_t n,
                           void (*found)(void *ctx, struct cw_bytes key), void *ctx);

#endif
