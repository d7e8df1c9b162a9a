/* Writing what a document holds: all of it, or what changed. */
#include "cw_fragment.h"
#include "cw_joiner.h"
#include "cw_sort.h"

/* ---- the whole state ---- */

static enum cw_err write_state(const struct cw_doc *doc, const struct cw_vv *clock,
                               struct cw_buf *out) {
    struct cw_fragment_writer w;
    struct cw_cursor cur;
    struct cw_vv *nothing = cw_vv_new(doc->mem, 0);
    if (!nothing)
        return CW_ENOMEM;
    cw_fragment_begin(&w, out, nothing, clock, false);
    cw_fragment_below(&w, cw_bytes("", 0), cw_tree_count(doc->tree));
    for (bool more = cw_cursor_seek(&cur, doc->tree, cw_bytes("", 0)); more;
         more = cw_cursor_next(&cur))
        cw_fragment_cell(&w, cw_cursor_key(&cur), cur.payload);
    cw_vv_release(nothing);
    return cw_fragment_end(&w);
}

enum cw_err cw_doc_encode(const struct cw_doc *doc, struct cw_buf *out) {
    struct cw_vv *clock;
    enum cw_err err = cw_doc_settle(doc);
    if (!err)
        err = cw_doc_clock(doc, &clock);
    if (err)
        return err;
    err = write_state(doc, clock, out);
    cw_vv_release(clock);
    return err;
}

/* ---- since a clock ---- */

struct touched {
    struct cw_bytes key;
    bool below;
};

/* Prefixes before the keys that begin with them. */
static int cmp_touched(const void *ctx, const void *x, const void *y) {
    const struct touched *a = x, *b = y;
    (void)ctx;
    int c = cw_bytes_cmp(a->key, b->key);
    return c ? c : (int)b->below - (int)a->below;
}

/* Sorts, and drops what an earlier entry covers; returns how many stay. */
static size_t tidy(struct touched *at, size_t n) {
    size_t kept = 0;
    cw_sort(at, n, sizeof *at, cmp_touched, NULL);
    for (size_t i = 0; i < n; i++) {
        const struct touched *last = kept ? &at[kept - 1] : NULL;
        if (last && (last->below ? cw_bytes_has_prefix(at[i].key, last->key)
                                 : cw_bytes_eq(at[i].key, last->key)))
            continue;
        at[kept++] = at[i];
    }
    return kept;
}

static enum cw_err list_touched(struct cw_arena *arena, struct cw_bytes touches,
                                struct touched **out, size_t *n) {
    struct cw_reader r = cw_reader(touches);
    struct touched t;
    size_t count = 0;
    while (cw_touch_next(&r, &t.key, &t.below))
        count++;
    struct touched *at = cw_arena_alloc(arena, (count + 1) * sizeof *at);
    if (!at)
        return CW_ENOMEM;
    r = cw_reader(touches);
    for (size_t i = 0; i < count; i++)
        cw_touch_next(&r, &at[i].key, &at[i].below);
    *out = at;
    *n = tidy(at, count);
    return CW_OK;
}

static enum cw_err write_below(struct cw_fragment_writer *w, const struct cw_tree *tree,
                               struct cw_bytes prefix, size_t *budget) {
    struct cw_cursor cur;
    size_t n = 0;
    bool more = cw_cursor_seek(&cur, tree, prefix);
    for (; more && cw_bytes_has_prefix(cw_cursor_key(&cur), prefix); more = cw_cursor_next(&cur))
        if (n++ == *budget)
            return CW_EBUDGET;
    *budget -= n;
    cw_fragment_below(w, prefix, n);
    cw_cursor_seek(&cur, tree, prefix);
    for (; n > 0; n--, cw_cursor_next(&cur))
        cw_fragment_cell(w, cw_cursor_key(&cur), cur.payload);
    return CW_OK;
}

static enum cw_err write_touched(struct cw_fragment_writer *w, const struct cw_tree *tree,
                                 const struct touched *at, size_t n, size_t budget) {
    enum cw_err err = CW_OK;
    for (size_t i = 0; i < n && !err; i++) {
        struct cw_bytes payload;
        if (at[i].below) {
            err = write_below(w, tree, at[i].key, &budget);
        } else if (budget-- == 0) {
            err = CW_EBUDGET;
        } else {
            bool found = cw_tree_get(tree, at[i].key, &payload);
            cw_fragment_key(w, at[i].key, found ? &payload : NULL);
        }
    }
    return err;
}

/* How many writes of `clock` are not in `since`: no sum, but a sign, when there are too many to be
 * counted. */
static uint64_t count_news(const struct cw_vv *since, const struct cw_vv *clock) {
    uint64_t news = 0;
    for (uint32_t i = 0; i < clock->n; i++) {
        uint64_t seen = cw_vv_get(since, clock->at[i].id), have = clock->at[i].counter;
        uint64_t more = seen < have ? have - seen : 0;
        news += more < UINT64_MAX - news ? more : UINT64_MAX - news;
    }
    return news;
}

/* The part of `since` that is in `clock`, and how many writes of `clock` are not in `since`. */
static enum cw_err common_part(const struct cw_vv *since, const struct cw_vv *clock,
                               struct cw_vv **out, uint64_t *news) {
    *out = cw_vv_common(clock, since);
    *news = count_news(since, clock);
    return *out ? CW_OK : CW_ENOMEM;
}

static enum cw_err write_since(const struct cw_doc *doc, const struct cw_vv *from,
                               const struct cw_vv *clock, struct cw_bytes touches, bool net,
                               size_t budget, struct cw_buf *out) {
    struct cw_arena arena;
    struct touched *at;
    size_t n;
    uint64_t space[128];
    cw_arena_init(&arena, doc->mem, space, sizeof space);
    enum cw_err err = list_touched(&arena, touches, &at, &n);
    if (!err) {
        struct cw_fragment_writer w;
        cw_fragment_begin(&w, out, from, clock, net);
        err = write_touched(&w, doc->tree, at, n, budget);
        enum cw_err end = cw_fragment_end(&w);
        if (!err)
            err = end;
    }
    cw_arena_free(&arena);
    return err;
}

/* What was touched since; `*known` tells whether the document remembers. */
static enum cw_err remember(const struct cw_doc *doc, const struct cw_vv *from, uint64_t news,
                            size_t budget, struct cw_buf *touches, bool *known, bool *net) {
    *net = false;
    *known = news < UINT64_MAX;
    if (!news || !*known)
        return CW_OK;
    enum cw_err err = cw_journal_since(&doc->journal, from, news, budget, touches, net);
    *known = !err;
    return err == CW_EGAP ? CW_OK : err;
}

enum cw_err cw_doc_delta(const struct cw_doc *doc, const struct cw_vv *since, size_t budget,
                         struct cw_buf *out) {
    struct cw_vv *clock = NULL, *from = NULL;
    struct cw_buf touches;
    uint64_t news;
    bool known, net;
    uint8_t space[512];
    cw_buf_init(&touches, doc->mem, space, sizeof space);
    enum cw_err err = cw_doc_settle(doc);
    if (!err)
        err = cw_doc_clock(doc, &clock);
    if (!err)
        err = common_part(since, clock, &from, &news);
    if (!err)
        err = remember(doc, from, news, budget, &touches, &known, &net);
    if (!err && !known && cw_tree_count(doc->tree) > budget)
        err = CW_EBUDGET;
    if (!err)
        err = known ? write_since(doc, from, clock, cw_buf_slice(&touches, 0), net, budget, out)
                    : write_state(doc, clock, out);
    cw_buf_free(&touches);
    cw_vv_release(clock);
    cw_vv_release(from);
    return err;
}

enum cw_err cw_doc_remembers(const struct cw_doc *doc, const struct cw_vv *since, bool *yes) {
    struct cw_vv *clock, *from;
    struct cw_buf touches;
    uint64_t news;
    bool net;
    enum cw_err err = cw_doc_clock(doc, &clock);
    if (err)
        return err;
    err = common_part(since, clock, &from, &news);
    cw_vv_release(clock);
    if (err)
        return err;
    cw_buf_init(&touches, doc->mem, NULL, 0);
    err = remember(doc, from, news, SIZE_MAX, &touches, yes, &net);
    cw_buf_free(&touches);
    cw_vv_release(from);
    return err;
}

/* ---- between two versions ---- */

static enum cw_err write_change(void *ctx, struct cw_bytes key, const struct cw_bytes *x,
                                const struct cw_bytes *y) {
    struct cw_fragment_writer *w = ctx;
    (void)x;
    cw_fragment_key(w, key, y);
    return w->out->err;
}

enum cw_err cw_doc_delta_between(const struct cw_doc *old, const struct cw_doc *doc, size_t budget,
                                 struct cw_buf *out) {
    struct cw_vv *from = NULL, *to = NULL;
    enum cw_err err = cw_doc_settle(old);
    if (!err)
        err = cw_doc_settle(doc);
    if (!err)
        err = cw_doc_clock(old, &from);
    if (!err)
        err = cw_doc_clock(doc, &to);
    if (!err) {
        enum cw_order order = cw_vv_compare(from, to);
        if (order != CW_BEFORE && order != CW_EQUAL)
            err = CW_ECLOCK;
    }
    if (!err) {
        struct cw_fragment_writer w;
        cw_fragment_begin(&w, out, from, to, true);
        err = cw_tree_diff(old->tree, doc->tree, budget, write_change, &w);
        enum cw_err end = cw_fragment_end(&w);
        if (!err)
            err = end;
    }
    cw_vv_release(from);
    cw_vv_release(to);
    return err;
}
