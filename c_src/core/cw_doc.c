#include "cw_doc_struct.h"

struct cw_doc *cw_doc_new(const struct cw_mem *mem, struct cw_bytes name) {
    struct cw_doc *doc = cw_alloc(mem, sizeof *doc);
    if (!doc)
        return NULL;
    *doc = (struct cw_doc){.mem = mem};
    doc->tree = doc->base = cw_tree_new(mem);
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
    struct cw_pending pending = cw_doc_pending(doc); /* then the tree that lacks them */
    struct cw_tree *tree = cw_tree_retain(pending.n ? doc->base : doc->tree);
    copy->mem = doc->mem;
    copy->tree = copy->base = tree;
    copy->pending = cw_pending_retain(&pending);
    copy->self = cw_name_retain(doc->self);
    copy->vv = cw_vv_retain(doc->vv);
    copy->own = doc->own;
    copy->hlc = doc->hlc;
    copy->receipts = doc->receipts;
    copy->journal = cw_journal_retain(&doc->journal);
    return copy;
}

/* Both trees, which are often one. */
static struct cw_forest *release_trees(struct cw_doc *doc, size_t budget) {
    struct cw_forest *rest = NULL;
    if (doc->tree != doc->base)
        rest = cw_tree_release_some(doc->tree, budget);
    struct cw_forest *more = cw_tree_release_some(doc->base, budget);
    if (rest && more)
        cw_forest_drop_token(more);
    return rest ? rest : more;
}

struct cw_forest *cw_doc_free_some(struct cw_doc *doc, size_t budget) {
    if (!doc)
        return NULL;
    struct cw_forest *rest = release_trees(doc, budget);
    cw_pending_release(&doc->pending);
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
    uint32_t at = cw_vv_find(clock, cw_name_id(name));
    if (at < clock->n && !cw_bytes_eq(cw_name_bytes(clock->at[at].name), name)) {
        cw_vv_release(clock);
        return CW_EREPLICA;
    }
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

static enum cw_err settle(struct cw_doc *doc) {
    struct cw_edit edits[CW_PENDING_MAX];
    struct cw_tree *tree, *base = doc->base;
    enum cw_err err = cw_tree_apply(base, edits, cw_pending_edits(&doc->pending, edits), &tree);
    if (err)
        return err;
    if (tree == base || !atomic_compare_exchange_strong(&doc->tree, &base, tree))
        cw_tree_release(tree); /* somebody else was as quick */
    return CW_OK;
}

/* The only change there is to a document once it is made: nobody can tell it from the outside. */
enum cw_err cw_doc_settle(const struct cw_doc *doc) {
    return cw_doc_pending(doc).n ? settle((struct cw_doc *)doc) : CW_OK;
}

const struct cw_tree *cw_doc_tree(const struct cw_doc *doc) {
    return cw_doc_settle(doc) ? NULL : doc->tree;
}

uint64_t cw_doc_count(const struct cw_doc *doc) {
    uint64_t pending = cw_doc_pending(doc).n; /* first: they may go into the tree at any time */
    return cw_tree_count(doc->tree) + pending;
}

uint32_t cw_doc_replicas(const struct cw_doc *doc) {
    return doc->vv->n;
}

const struct cw_name *cw_doc_replica(const struct cw_doc *doc) {
    return doc->self;
}

struct cw_hash cw_doc_hash(const struct cw_doc *doc) {
    if (!cw_doc_settle(doc))
        return cw_tree_hash(doc->tree);
    struct cw_edit edits[CW_PENDING_MAX]; /* no memory to settle: a sum needs none */
    struct cw_hash hash = cw_tree_hash(doc->base);
    size_t n = cw_pending_edits(&doc->pending, edits);
    for (size_t i = 0; i < n; i++) {
        struct cw_bytes old;
        if (cw_tree_get(doc->base, edits[i].key, &old))
            hash = cw_hash_sub(hash, cw_hash_cell(edits[i].key, old));
        if (!edits[i].del)
            hash = cw_hash_add(hash, cw_hash_cell(edits[i].key, edits[i].payload));
    }
    return hash;
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
           cw_pending_bytes(&doc->pending) + sizeof *doc->vv + doc->vv->n * sizeof doc->vv->at[0];
}

void cw_doc_set_tree(struct cw_doc *doc, struct cw_tree *tree) {
    if (doc->tree != doc->base)
        cw_tree_release(doc->tree);
    cw_tree_release(doc->base);
    cw_pending_release(&doc->pending);
    doc->tree = doc->base = tree;
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
