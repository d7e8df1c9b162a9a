/* What a document is made of. Private to the cw_doc files. */
#ifndef CW_DOC_STRUCT_H
#define CW_DOC_STRUCT_H

#include "cw_doc.h"
#include "cw_journal.h"

struct cw_doc {
    const struct cw_mem *mem;
    struct cw_tree *tree;
    struct cw_name *self;
    struct cw_vv *vv; /* may lag behind `own` in its entry for `self` */
    uint64_t own;     /* counter of the last own write */
    uint64_t hlc;     /* the greatest stamp seen */
    uint64_t receipts; /* cells under CW_RECEIPT_TAG */
    struct cw_journal journal;
};

static inline struct cw_context cw_doc_context(const struct cw_doc *doc) {
    return (struct cw_context){doc->vv, NULL, doc->self->id, doc->own};
}

/* A shallow copy that holds its own references. NULL without memory. */
struct cw_doc *cw_doc_copy(const struct cw_doc *doc);

/* Replaces the reference held; takes over the new one. */
void cw_doc_set_tree(struct cw_doc *doc, struct cw_tree *tree);
void cw_doc_set_vv(struct cw_doc *doc, struct cw_vv *vv);

/* Counts the receipts anew, after a change that may have brought or taken any. */
void cw_doc_count_receipts(struct cw_doc *doc);

#endif
