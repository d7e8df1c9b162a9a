/* How two replicas find out what one lacks when the other does not remember its edits so far back.
 *
 * Cells that are new to the peer are known by their dots. What has been removed is known to nobody:
 * it is found by comparing sums of hashes over ranges of keys, less the keys that either side knows
 * to be new, and splitting the ranges that differ (docs/store.md, "Catching up"). */
#ifndef CW_RECONCILE_H
#define CW_RECONCILE_H

#include "cw_doc.h"
#include "cw_fragment.h"

/* A net fragment from what `since` and the document share to all the document has: the cells with a
 * write that is not in `since`, and the `n` keys in `more` (sorted), with what there is of them.
 * Without `bodies` a fragment of the same keys that says nothing of their cells: a list. O(cells).
 */
enum cw_err cw_doc_news(const struct cw_doc *doc, const struct cw_vv *since,
                        const struct cw_bytes *more, size_t n, bool bodies, struct cw_buf *out);

/* Hash and count of the cells in [lo, hi), `hi` NULL for no end, less those at the keys of the two
 * fragments. O(log cells + keys of the fragments in the range). */
struct cw_range cw_doc_sum(const struct cw_doc *doc, struct cw_bytes lo, const struct cw_bytes *hi,
                           const struct cw_fragment *a, const struct cw_fragment *b);

#endif
