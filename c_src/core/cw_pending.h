/* The last few edits of a document, not yet in its tree.
 *
 * An update by itself would copy the path to one leaf, some kilobytes that are garbage after the
 * next one. So single edits are noted here, and go into the tree together when there are enough, or
 * when somebody asks for more than one cell. Successive versions share one log; each knows how much
 * of it is its own, and the newest appends in place. Edits are absolute: applying them twice does
 * no harm. */
#ifndef CW_PENDING_H
#define CW_PENDING_H

#include "cw_tree.h"

#define CW_PENDING_MAX 32u     /* edits */
#define CW_PENDING_BYTES 4096u /* of keys and payloads */

struct cw_pending_log;

/* Zeroed, it is empty and needs no release. */
struct cw_pending {
    struct cw_pending_log *log;
    uint32_t n;
    uint32_t bytes;
    bool dels; /* some edit is a deletion */
};

struct cw_pending cw_pending_retain(const struct cw_pending *pending);
void cw_pending_release(struct cw_pending *pending);
size_t cw_pending_bytes(const struct cw_pending *pending);

/* The last edit of a key; its bytes live in the log. */
bool cw_pending_find(const struct cw_pending *pending, struct cw_bytes key, struct cw_edit *edit);

/* Whether some edit puts a cell whose key has this prefix, and none after it deletes it. */
bool cw_pending_puts_below(const struct cw_pending *pending, struct cw_bytes prefix);

/* The last edit of each key, sorted; `edits` has room for CW_PENDING_MAX. Returns how many. */
size_t cw_pending_edits(const struct cw_pending *pending, struct cw_edit *edits);

/* Appends edits; false, having done nothing, when they do not fit or the log has gone on for
 * another version. */
bool cw_pending_add(struct cw_pending *pending, const struct cw_mem *mem,
                    const struct cw_edit *edits, size_t n);

#endif
