/* What changed between two documents, as a user sees it: objects, and within sets elements. */
#ifndef CW_CHANGES_H
#define CW_CHANGES_H

#include "cw_arena.h"
#include "cw_doc.h"

struct cw_change {
    struct cw_bytes object; /* its key up to and with the kind's tag */
    enum cw_kind kind;
    struct cw_bytes element; /* of a set: one entry an element; else empty */
};

struct cw_changes {
    struct cw_change *at; /* by object, then element, without repetition */
    size_t n;
    struct cw_arena arena; /* holds them */
};

/* Cells that differ, so an entry need not mean that the value does. On success the caller owns
 * `changes`. `budget` as in cw_tree_diff. */
enum cw_err cw_doc_changes(const struct cw_doc *a, const struct cw_doc *b, size_t budget,
                           struct cw_changes *changes);
void cw_changes_free(struct cw_changes *changes);

#endif
