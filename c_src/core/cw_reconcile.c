#include "cw_reconcile.h"

#include "cw_doc_struct.h"

/* ---- news ---- */

static bool is_new(const struct cw_key_parts *parts, struct cw_bytes payload,
                   const struct cw_vv *since) {
    struct cw_entry e;
    if (parts->class == CW_TALLY)
        return cw_tally(payload).counter > cw_vv_get(since, parts->owner);
    while (cw_entry_next(parts->class, &payload, &e))
        if (e.dot.counter > cw_vv_get(since, e.dot.id))
            return true;
    return false;
}

/* The keys in `more` below `key` (NULL: all that are left). */
static void write_more(struct cw_fragment_writer *w, const struct cw_tree *tree,
                       const struct cw_bytes **more, const struct cw_bytes *end,
                       const struct cw_bytes *key, bool bodies) {
    for (; *more < end && (!key || cw_bytes_cmp(**more, *key) < 0); ++*more) {
        struct cw_bytes payload;
        bool found = bodies && cw_tree_get(tree, **more, &payload);
        cw_fragment_key(w, **more, found ? &payload : NULL);
    }
}

static void write_news(struct cw_fragment_writer *w, const struct cw_tree *tree,
                       const struct cw_vv *since, const struct cw_bytes *more, size_t n,
                       bool bodies) {
    const struct cw_bytes *end = more + n;
    struct cw_cursor cur;
    for (bool left = cw_cursor_seek(&cur, tree, cw_bytes("", 0)); left;
         left = cw_cursor_next(&cur)) {
        struct cw_bytes key = cw_cursor_key(&cur);
        struct cw_key_parts parts = cw_key_parts(key);
        if (!is_new(&parts, cur.payload, since))
            continue;
        write_more(w, tree, &more, end, &key, bodies);
        if (more < end && cw_bytes_eq(*more, key))
            more++;
        cw_fragment_key(w, key, bodies ? &cur.payload : NULL);
    }
    write_more(w, tree, &more, end, NULL, bodies);
}

enum cw_err cw_doc_news(const struct cw_doc *doc, const struct cw_vv *since,
                        const struct cw_bytes *more, size_t n, bool bodies, struct cw_buf *out) {
    struct cw_vv *clock;
    struct cw_fragment_writer w;
    const struct cw_tree *tree = cw_doc_tree(doc);
    if (!tree)
        return CW_ENOMEM;
    enum cw_err err = cw_doc_clock(doc, &clock);
    if (err)
        return err;
    struct cw_vv *from = cw_vv_common(clock, since);
    if (from) {
        cw_fragment_begin(&w, out, from, clock, true);
        write_news(&w, tree, since, more, n, bodies);
        err = cw_fragment_end(&w);
        cw_vv_release(from);
    } else {
        err = CW_ENOMEM;
    }
    cw_vv_release(clock);
    return err;
}

/* ---- sketches ---- */

/* Walks through a fragment's areas beside the cells, both in the order of their keys. */
struct beside {
    const struct cw_fragment *f;
    size_t at;
};

static bool has_key(struct beside *b, struct cw_bytes key) {
    int cmp = 1;
    while (b->at < b->f->n && (cmp = cw_bytes_cmp(b->f->areas[b->at].key, key)) < 0)
        b->at++;
    return b->at < b->f->n && cmp == 0;
}

enum cw_err cw_doc_symbols(const struct cw_doc *doc, const struct cw_fragment *a,
                           const struct cw_fragment *b, uint64_t from, size_t n,
                           struct cw_symbol *symbols) {
    const struct cw_tree *tree = cw_doc_tree(doc);
    struct beside in_a = {a, 0}, in_b = {b, 0};
    struct cw_cursor cur;
    if (!tree)
        return CW_ENOMEM;
    for (bool left = cw_cursor_seek(&cur, tree, cw_bytes("", 0)); left;
         left = cw_cursor_next(&cur)) {
        struct cw_bytes key = cw_cursor_key(&cur);
        if (!has_key(&in_a, key) && !has_key(&in_b, key))
            cw_sketch_add(symbols, from, n, cw_hash_cell(key, cur.payload).lo, 1);
    }
    return CW_OK;
}

static bool among(const uint64_t *hashes, size_t n, uint64_t hash) {
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (hashes[mid] < hash)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < n && hashes[lo] == hash;
}

enum cw_err cw_doc_keys_of(const struct cw_doc *doc, const uint64_t *hashes, size_t n,
                           void (*found)(void *ctx, struct cw_bytes key), void *ctx) {
    const struct cw_tree *tree = cw_doc_tree(doc);
    struct cw_cursor cur;
    if (!tree)
        return CW_ENOMEM;
    for (bool left = cw_cursor_seek(&cur, tree, cw_bytes("", 0)); left;
         left = cw_cursor_next(&cur)) {
        struct cw_bytes key = cw_cursor_key(&cur);
        if (among(hashes, n, cw_hash_cell(key, cur.payload).lo))
            found(ctx, key);
    }
    return CW_OK;
}
