#include "cw_changes.h"

#include "cw_doc_struct.h"
#include "cw_sort.h"

struct collect {
    struct cw_changes *to;
    size_t cap;
};

static enum cw_err add(struct collect *c, struct cw_change change) {
    struct cw_changes *to = c->to;
    if (to->n == c->cap) {
        void *at = cw_arena_grow(&to->arena, to->at, &c->cap, sizeof *to->at, 16);
        if (!at)
            return CW_ENOMEM;
        to->at = at;
    }
    change.object = cw_arena_copy(&to->arena, change.object);
    change.element = cw_arena_copy(&to->arena, change.element);
    if (!change.object.p || !change.element.p)
        return CW_ENOMEM;
    to->at[to->n++] = change;
    return CW_OK;
}

/* A receipt changes the counter that it is about. */
static enum cw_err collect(void *ctx, struct cw_bytes key, const struct cw_bytes *x,
                           const struct cw_bytes *y) {
    struct cw_key_parts parts = cw_key_parts(key);
    struct cw_change change = {.kind = parts.kind};
    (void)x, (void)y;
    change.object = cw_bytes(parts.object.p + parts.path_at, parts.object.n - parts.path_at);
    if (cw_kind_is_set(parts.kind))
        change.element = parts.suffix;
    return add(ctx, change);
}

static int cmp(const void *ctx, const void *x, const void *y) {
    const struct cw_change *a = x, *b = y;
    (void)ctx;
    int c = cw_bytes_cmp(a->object, b->object);
    return c ? c : cw_bytes_cmp(a->element, b->element);
}

/* Receipts come first in the tree, and every tally of a counter on its own. */
static void tidy(struct cw_changes *ch) {
    size_t kept = 0;
    cw_sort(ch->at, ch->n, sizeof *ch->at, cmp, NULL);
    for (size_t i = 0; i < ch->n; i++)
        if (kept == 0 || cmp(NULL, &ch->at[kept - 1], &ch->at[i]) != 0)
            ch->at[kept++] = ch->at[i];
    ch->n = kept;
}

enum cw_err cw_doc_changes(const struct cw_doc *a, const struct cw_doc *b, size_t budget,
                           struct cw_changes *changes) {
    struct collect c = {.to = changes};
    *changes = (struct cw_changes){.n = 0};
    cw_arena_init(&changes->arena, a->mem, NULL, 0);
    enum cw_err err = cw_doc_settle(a);
    if (!err)
        err = cw_doc_settle(b);
    if (!err)
        err = cw_tree_diff(a->tree, b->tree, budget, collect, &c);
    if (err)
        cw_changes_free(changes);
    else
        tidy(changes);
    return err;
}

void cw_changes_free(struct cw_changes *changes) {
    cw_arena_free(&changes->arena);
    *changes = (struct cw_changes){.n = 0};
}
