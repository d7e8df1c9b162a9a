#include "cw_view.h"

void cw_view_open(struct cw_view *view, struct cw_arena *arena, const struct cw_doc *doc) {
    view->doc = doc;
    view->arena = arena;
    view->pending = cw_doc_pending(doc);
    view->tree = cw_tree_retain(view->pending.n ? doc->base : doc->tree);
    view->flushed = false;
    view->err = CW_OK;
    view->n = 0;
}

void cw_view_close(struct cw_view *view) {
    cw_tree_release(view->tree);
    view->tree = NULL;
}

/* The index of the first change with a key >= `key`. */
static size_t lower(const struct cw_view *view, struct cw_bytes key, bool *found) {
    size_t lo = 0, hi = view->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (cw_bytes_cmp(view->at[mid].key, key) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    *found = lo < view->n && cw_bytes_eq(view->at[lo].key, key);
    return lo;
}

bool cw_view_probe(const struct cw_view *view, struct cw_bytes key, size_t shared,
                   struct cw_bytes *payload, bool *near) {
    bool found;
    size_t i = lower(view, key, &found);
    *near = found && !view->at[i].del; /* a deleted cell says nothing about its object */
    if (found) {
        *payload = view->at[i].payload;
        return *near;
    }
    struct cw_edit e;
    if (cw_pending_find(&view->pending, key, &e)) {
        *near = !e.del;
        *payload = e.payload;
        return !e.del;
    }
    if (cw_tree_probe(view->tree, key, shared, payload, near))
        return true;
    struct cw_bytes want = cw_bytes(key.p, shared);
    if (view->n || view->pending.dels)
        *near = false; /* the neighbour may be deleted since */
    if (!*near && view->n == 0)
        *near = cw_pending_puts_below(&view->pending, want);
    if (!*near && i > 0 && !view->at[i - 1].del)
        *near = cw_bytes_has_prefix(view->at[i - 1].key, want);
    if (!*near && i < view->n && !view->at[i].del)
        *near = cw_bytes_has_prefix(view->at[i].key, want);
    return false;
}

bool cw_view_get(const struct cw_view *view, struct cw_bytes key, struct cw_bytes *payload) {
    bool found;
    size_t i = lower(view, key, &found);
    if (found) {
        *payload = view->at[i].payload;
        return !view->at[i].del;
    }
    struct cw_edit e;
    if (!cw_pending_find(&view->pending, key, &e))
        return cw_tree_get(view->tree, key, payload);
    *payload = e.payload;
    return !e.del;
}

/* Goes over to the document's tree with all of its edits. */
static enum cw_err settle(struct cw_view *view) {
    if (!view->pending.n)
        return CW_OK;
    enum cw_err err = cw_doc_settle(view->doc);
    if (err)
        return err;
    cw_tree_release(view->tree);
    view->tree = cw_tree_retain(view->doc->tree);
    view->pending = (struct cw_pending){NULL, 0, 0, false};
    return CW_OK;
}

enum cw_err cw_view_flush(struct cw_view *view) {
    struct cw_tree *next;
    enum cw_err err = settle(view);
    if (!err)
        err = cw_tree_apply(view->tree, view->at, view->n, &next);
    if (err)
        return err;
    cw_tree_release(view->tree);
    view->tree = next;
    view->flushed = true;
    view->n = 0;
    return CW_OK;
}

enum cw_err cw_view_set(struct cw_view *view, struct cw_bytes key, const struct cw_bytes *payload) {
    if (key.n > CW_KEY_MAX || (payload && payload->n > CW_PAYLOAD_MAX))
        return CW_ELIMIT;
    bool found;
    size_t i = lower(view, key, &found);
    struct cw_edit e = {.del = !payload};
    e.key = found ? view->at[i].key : cw_arena_copy(view->arena, key);
    if (payload)
        e.payload = cw_arena_copy(view->arena, *payload);
    if (!e.key.p || (payload && !e.payload.p))
        return CW_ENOMEM;
    if (!found && view->n == CW_VIEW_EDITS) {
        enum cw_err err = cw_view_flush(view);
        if (err)
            return err;
        i = 0;
    }
    if (!found)
        memmove(view->at + i + 1, view->at + i, (view->n++ - i) * sizeof view->at[0]);
    view->at[i] = e;
    return CW_OK;
}

bool cw_view_next(struct cw_view *view, struct cw_bytes from, uint8_t *key, size_t *key_len,
                  struct cw_bytes *payload) {
    bool found;
    if (!view->err)
        view->err = settle(view);
    if (view->err)
        return false;
    size_t i = lower(view, from, &found);
    struct cw_cursor cur;
    bool more = cw_cursor_seek(&cur, view->tree, from);
    while (i < view->n && view->at[i].del) { /* past what is deleted, in both */
        int c = more ? cw_bytes_cmp(cw_cursor_key(&cur), view->at[i].key) : 1;
        if (c < 0)
            break;
        if (c == 0)
            more = cw_cursor_next(&cur);
        i++;
    }
    bool changed = i < view->n && !view->at[i].del &&
                   (!more || cw_bytes_cmp(view->at[i].key, cw_cursor_key(&cur)) <= 0);
    if (!changed && !more)
        return false;
    struct cw_bytes k = changed ? view->at[i].key : cw_cursor_key(&cur);
    *payload = changed ? view->at[i].payload : cur.payload;
    *key_len = k.n;
    memcpy(key, k.p, k.n);
    return true;
}
