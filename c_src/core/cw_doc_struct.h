/* What a document is made of. Private to the cw_doc files. */
#ifndef CW_DOC_STRUCT_H
#define CW_DOC_STRUCT_H

#include "cw_doc.h"
#include "cw_journal.h"
#include "cw_pending.h"

struct cw_doc {
    const struct cw_mem *mem;
    /* What the document holds is `tree` with `pending` applied; after cw_doc_settle, `tree` alone.
     * That may happen under readers: `base` keeps alive what they may have seen. */
    struct cw_tree *_Atomic tree;
    struct cw_tree *base;
    struct cw_pending pending;
    struct cw_name *self;
    struct cw_vv *vv;  /* may lag behind `own` in its entry for `self` */
    uint64_t own;      /* counter of the last own write */
    uint64_t hlc;      /* the greatest stamp seen */
    uint64_t receipts; /* cells under CW_RECEIPT_TAG */
    struct cw_journal journal;
};

static inline struct cw_context cw_doc_context(const struct cw_doc *doc) {
    return (struct cw_context){doc->vv, NULL, doc->self->id, doc->own};
}

/* A shallow copy that holds its own references. NULL without memory. */
struct cw_doc *cw_doc_copy(const struct cw_doc *doc);

/* Brings all edits into `doc->tree`; what reads more than one cell calls this first. */
enum cw_err cw_doc_settle(const struct cw_doc *doc);

/* The edits that `doc->tree` lacks. */
static inline struct cw_pending cw_doc_pending(const struct cw_doc *doc) {
    return doc->tree == doc->base ? doc->pending : (struct cw_pending){NULL, 0, 0, false};
}

/* Replaces the references held to tree and edits; takes over the new tree. */
void cw_doc_set_tree(struct cw_doc *doc, struct cw_tree *tree);
void cw_doc_set_vv(struct cw_doc *doc, struct cw_vv *vv);

/* Counts the receipts anew, after a change that may have brought or taken any. */
void cw_doc_count_receipts(struct cw_doc *doc);

#endif
