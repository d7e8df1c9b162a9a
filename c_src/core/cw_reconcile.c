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

/* ---- sums ---- */

/* The first of the fragment's areas with a key >= `key`. */
static size_t lower(const struct cw_fragment *f, struct cw_bytes key) {
    size_t lo = 0, hi = f->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (cw_bytes_cmp(f->areas[mid].key, key) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static bool has_key(const struct cw_fragment *f, struct cw_bytes key) {
    size_t i = lower(f, key);
    return i < f->n && cw_bytes_eq(f->areas[i].key, key);
}

/* Takes off the cells at the keys of `f`, but those that `less` has too. */
static void take_off(struct cw_range *sum, const struct cw_tree *tree, struct cw_bytes lo,
                     const struct cw_bytes *hi, const struct cw_fragment *f,
                     const struct cw_fragment *less) {
    for (size_t i = lower(f, lo); i < f->n; i++) {
        struct cw_bytes key = f->areas[i].key, payload;
        if (hi && cw_bytes_cmp(key, *hi) >= 0)
            return;
        if ((less && has_key(less, key)) || !cw_tree_get(tree, key, &payload))
            continue;
        sum->hash = cw_hash_sub(sum->hash, cw_hash_cell(key, payload));
        sum->count--;
    }
}

struct cw_range cw_doc_sum(const struct cw_doc *doc, struct cw_bytes lo, const struct cw_bytes *hi,
                           const struct cw_fragment *a, const struct cw_fragment *b) {
    const struct cw_tree *tree = cw_doc_tree(doc);
    if (!tree)
        return (struct cw_range){{0, 0}, 0};
    struct cw_range sum = cw_tree_range(tree, lo, hi);
    take_off(&sum, tree, lo, hi, a, NULL);
    take_off(&sum, tree, lo, hi, b, a);
    return sum;
}
