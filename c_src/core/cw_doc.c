#include "cw_doc_struct.h"

struct cw_doc *cw_doc_new(const struct cw_mem *mem, struct cw_bytes name) {
    struct cw_doc *doc = cw_alloc(mem, sizeof *doc);
    if (!doc)
        return NULL;
    *doc = (struct cw_doc){.mem = mem};
    doc->tree = cw_tree_new(mem);
    doc->self = cw_name_new(mem, name);
    doc->vv = cw_vv_new(mem, 0);
    if (doc->tree && doc->self && doc->vv)
        return doc;
    cw_doc_free(doc);
    return NULL;
}

struct cw_doc *cw_doc_copy(const struct cw_doc *doc) {
    struct cw_doc *copy = cw_alloc(doc->mem, sizeof *copy);
    if (!copy)
        return NULL;
    *copy = *doc;
    cw_tree_retain(copy->tree);
    cw_name_retain(copy->self);
    cw_vv_retain(copy->vv);
    copy->journal = cw_journal_retain(&doc->journal);
    return copy;
}

struct cw_forest *cw_doc_free_some(struct cw_doc *doc, size_t budget) {
    if (!doc)
        return NULL;
    struct cw_forest *rest = cw_tree_release_some(doc->tree, budget);
    cw_name_release(doc->self);
    cw_vv_release(doc->vv);
    cw_journal_release(&doc->journal);
    cw_free(doc->mem, doc);
    return rest;
}

void cw_doc_free(struct cw_doc *doc) {
    struct cw_forest *rest = cw_doc_free_some(doc, SIZE_MAX);
    if (rest)
        cw_forest_drain(rest);
}

enum cw_err cw_doc_fork(const struct cw_doc *doc, struct cw_bytes name, struct cw_doc **out) {
    struct cw_vv *clock;
    enum cw_err err = cw_doc_clock(doc, &clock);
    if (err)
        return err;
    struct cw_name *self = cw_name_new(doc->mem, name);
    struct cw_doc *fork = self ? cw_doc_copy(doc) : NULL;
    if (!fork) {
        cw_name_release(self);
        cw_vv_release(clock);
        return CW_ENOMEM;
    }
    cw_doc_set_vv(fork, clock);
    cw_name_release(fork->self);
    fork->self = self;
    fork->own = cw_vv_get(clock, self->id);
    *out = fork;
    return CW_OK;
}

const struct cw_tree *cw_doc_tree(const struct cw_doc *doc) {
    return doc->tree;
}

const struct cw_name *cw_doc_replica(const struct cw_doc *doc) {
    return doc->self;
}

struct cw_hash cw_doc_hash(const struct cw_doc *doc) {
    return cw_tree_hash(doc->tree);
}

enum cw_err cw_doc_clock(const struct cw_doc *doc, struct cw_vv **out) {
    if (doc->own <= cw_vv_get(doc->vv, doc->self->id)) {
        *out = cw_vv_retain(doc->vv);
        return CW_OK;
    }
    return cw_vv_raise(doc->vv, doc->self, doc->own, out);
}

size_t cw_doc_bytes(const struct cw_doc *doc) {
    return sizeof *doc + cw_tree_bytes(doc->tree) + cw_journal_bytes(&doc->journal) +
           sizeof *doc->vv + doc->vv->n * sizeof doc->vv->at[0];
}

void cw_doc_set_tree(struct cw_doc *doc, struct cw_tree *tree) {
    cw_tree_release(doc->tree);
    doc->tree = tree;
}

void cw_doc_set_vv(struct cw_doc *doc, struct cw_vv *vv) {
    cw_vv_release(doc->vv);
    doc->vv = vv;
}

void cw_doc_count_receipts(struct cw_doc *doc) {
    static const uint8_t tag[] = {CW_RECEIPT_TAG}, next[] = {CW_RECEIPT_TAG + 1};
    struct cw_bytes hi = cw_bytes(next, 1);
    doc->receipts = cw_tree_range(doc->tree, cw_bytes(tag, 1), &hi).count;
}
