/* Joining what two replicas know: two documents, or a document and a fragment. */
#include "cw_fragment.h"
#include "cw_joiner.h"

/* ---- the document after a join ---- */

/* The writes in `after` that are not in `before`. `spans` has room for all of `after`. */
static size_t spans_of(const struct cw_vv *before, const struct cw_vv *after,
                       struct cw_span *spans) {
    size_t n = 0;
    for (uint32_t i = 0; i < after->n; i++) {
        uint64_t id = after->at[i].id, from = cw_vv_get(before, id), to = after->at[i].counter;
        if (to > from)
            spans[n++] = (struct cw_span){id, from, to};
    }
    return n;
}

static enum cw_err note(struct cw_doc *to, const struct cw_doc *doc, const struct cw_vv *before,
                        struct cw_bytes touches, bool net) {
    struct cw_span *spans = cw_alloc(doc->mem, (to->vv->n + 1) * sizeof *spans);
    if (!spans)
        return CW_ENOMEM;
    struct cw_context cx = cw_doc_context(doc);
    size_t n = spans_of(before, to->vv, spans);
    if (n)
        cw_journal_add(&to->journal, doc->mem, cw_journal_limit(cw_doc_count(to)), &cx, spans, n,
                       touches, net);
    cw_free(doc->mem, spans);
    return CW_OK;
}

/* `doc` with all of `seen`, the given tree (taken over, also on failure) and stamp. */
static enum cw_err joined(const struct cw_doc *doc, struct cw_tree *tree, struct cw_vv *before,
                          struct cw_vv *seen, uint64_t hlc, struct cw_bytes touches, bool net,
                          struct cw_doc **out) {
    struct cw_vv *vv = NULL;
    enum cw_err err = cw_vv_merge(before, seen, &vv);
    struct cw_doc *to = err ? NULL : cw_doc_copy(doc);
    if (!to) {
        cw_vv_release(vv);
        cw_tree_release(tree);
        return err ? err : CW_ENOMEM;
    }
    cw_doc_set_tree(to, tree);
    cw_doc_set_vv(to, vv);
    to->own = cw_vv_get(vv, to->self->id);
    if (hlc > to->hlc)
        to->hlc = hlc;
    cw_doc_count_receipts(to);
    err = note(to, doc, before, touches, net);
    if (err)
        cw_doc_free(to);
    else
        *out = to;
    return err;
}

/* ---- two documents ---- */

static enum cw_err join_diff(void *ctx, struct cw_bytes key, const struct cw_bytes *x,
                             const struct cw_bytes *y) {
    return cw_joiner_cell(ctx, key, x, y);
}

static struct cw_context context_of(const struct cw_vv *vv) {
    return (struct cw_context){.vv = vv};
}

/* The edits go to the larger tree, and none when one side already is the result. */
static enum cw_err merge_trees(const struct cw_doc *a, const struct cw_doc *b, struct cw_vv *va,
                               struct cw_vv *vb, size_t budget, struct cw_doc **out) {
    enum cw_order order = cw_vv_compare(va, vb);
    bool swap = cw_tree_count(a->tree) < cw_tree_count(b->tree);
    struct cw_tree *x = swap ? b->tree : a->tree, *y = swap ? a->tree : b->tree, *tree = NULL;
    struct cw_joiner j;
    cw_joiner_open(&j, a->mem, context_of(swap ? vb : va), context_of(swap ? va : vb));
    j.apart = cw_vv_disjoint(va, vb);
    j.touch_y = swap;
    enum cw_err err = cw_tree_diff(x, y, budget, join_diff, &j);
    if (!err)
        err = j.touches.err;
    bool new_to_a = swap ? j.differs_y > 0 : j.n > 0, new_to_b = swap ? j.n > 0 : j.differs_y > 0;
    if (!err && ((order == CW_AFTER && new_to_a) || (order == CW_BEFORE && new_to_b)))
        err = CW_EDUPLICATE; /* who has seen all cannot learn from who has not */
    if (!err && j.n && j.differs_y)
        err = cw_tree_apply(x, j.edits, j.n, &tree);
    else if (!err)
        tree = cw_tree_retain(j.n ? y : x);
    if (!err)
        err = joined(a, tree, va, vb, b->hlc, cw_buf_slice(&j.touches, 0), true, out);
    cw_joiner_close(&j);
    return err;
}

static enum cw_err merge_clocked(const struct cw_doc *a, const struct cw_doc *b, struct cw_vv *va,
                                 struct cw_vv *vb, size_t budget, struct cw_doc **out) {
    if (cw_vv_compare(va, vb) != CW_EQUAL)
        return merge_trees(a, b, va, vb, budget, out);
    if (!cw_hash_eq(cw_doc_hash(a), cw_doc_hash(b)))
        return CW_EDUPLICATE;
    *out = cw_doc_copy(a);
    return *out ? CW_OK : CW_ENOMEM;
}

enum cw_err cw_doc_merge(const struct cw_doc *a, const struct cw_doc *b, size_t budget,
                         struct cw_doc **out) {
    struct cw_vv *va = NULL, *vb = NULL;
    enum cw_err err = cw_doc_settle(a);
    if (!err)
        err = cw_doc_settle(b);
    if (!err)
        err = cw_doc_clock(a, &va);
    if (!err)
        err = cw_doc_clock(b, &vb);
    if (!err)
        err = merge_clocked(a, b, va, vb, budget, out);
    cw_vv_release(va);
    cw_vv_release(vb);
    return err;
}

/* ---- a document and a fragment ---- */

struct graft {
    const struct cw_doc *doc;
    const struct cw_fragment *f;
    struct cw_joiner j;
    size_t budget;
    bool sweep; /* look at keys outside the areas as well */
    struct cw_cursor cur;
};

static enum cw_err check_gap(const struct cw_vv *have, const struct cw_vv *from,
                             struct cw_fault *fault) {
    for (uint32_t i = 0; i < from->n; i++) {
        uint64_t seen = cw_vv_get(have, from->at[i].id);
        if (seen >= from->at[i].counter)
            continue;
        fault->replica = cw_name_retain(from->at[i].name);
        fault->seen = seen;
        fault->needed = from->at[i].counter;
        return CW_EGAP;
    }
    return CW_OK;
}

/* Whether the document has seen some, but not all, of the writes a net fragment is about. */
static bool overlaps(const struct cw_vv *have, const struct cw_fragment *f) {
    bool some = false, all = true;
    for (uint32_t i = 0; i < f->to->n; i++) {
        uint64_t id = f->to->at[i].id, to = f->to->at[i].counter, from = cw_vv_get(f->from, id);
        uint64_t seen = cw_vv_get(have, id);
        some |= to > from && seen > from;
        all &= seen >= to;
    }
    return some && !all;
}

static enum cw_err join_key(struct graft *g, struct cw_bytes key, const struct cw_bytes *y) {
    struct cw_bytes x;
    bool have = cw_tree_get(g->doc->tree, key, &x);
    if (!have && !y)
        return CW_OK;
    return cw_joiner_cell(&g->j, key, have ? &x : NULL, y);
}

static bool spend(struct graft *g) {
    return g->budget && g->budget--;
}

/* The document's cells and the fragment's in one area, side by side. */
static enum cw_err join_below(struct graft *g, const struct cw_area *area) {
    const struct cw_piece *p = g->f->pieces + area->first, *end = p + area->n;
    bool more = cw_cursor_seek(&g->cur, g->doc->tree, area->key);
    enum cw_err err = CW_OK;
    while (!err) {
        struct cw_bytes key = cw_cursor_key(&g->cur);
        bool here = more && cw_bytes_has_prefix(key, area->key);
        if (!here && p == end)
            break;
        int c = !here ? 1 : p == end ? -1 : cw_bytes_cmp(key, p->key);
        if (c <= 0 && !spend(g))
            return CW_EBUDGET;
        if (c || !cw_bytes_eq(g->cur.payload, p->payload))
            err = cw_joiner_cell(&g->j, c <= 0 ? key : p->key, c <= 0 ? &g->cur.payload : NULL,
                                 c >= 0 ? &p->payload : NULL);
        if (c <= 0)
            more = cw_cursor_next(&g->cur);
        p += c >= 0;
    }
    return err;
}

/* The cells from `*more`'s position up to an area (NULL: the end): what the fragment's writes wrote
 * there is gone. */
static enum cw_err sweep_to(struct graft *g, const struct cw_bytes *from,
                            const struct cw_area *upto) {
    bool more = cw_cursor_seek(&g->cur, g->doc->tree, *from);
    enum cw_err err = CW_OK;
    while (more && !err && (!upto || cw_bytes_cmp(cw_cursor_key(&g->cur), upto->key) < 0)) {
        if (!spend(g))
            return CW_EBUDGET;
        err = cw_joiner_cell(&g->j, cw_cursor_key(&g->cur), &g->cur.payload, NULL);
        more = cw_cursor_next(&g->cur);
    }
    return err;
}

/* The first key after an area. */
static struct cw_bytes after_area(struct graft *g, const struct cw_area *area) {
    size_t n = area->key.n;
    uint8_t *p = cw_arena_alloc(&g->j.arena, n + 1);
    if (!p)
        return cw_bytes(NULL, 0);
    memcpy(p, area->key.p, n);
    if (!area->below)
        p[n++] = 0;
    else if (!cw_prefix_after(p, &n))
        p[n++] = CW_PREFIX_END; /* everything: above all keys */
    return cw_bytes(p, n);
}

static enum cw_err join_areas(struct graft *g) {
    struct cw_bytes from = cw_bytes("", 0);
    struct cw_context full = g->j.y, span = full;
    span.from = g->f->from;
    enum cw_err err = CW_OK;
    for (size_t i = 0; i < g->f->n && !err; i++) {
        const struct cw_area *area = &g->f->areas[i];
        g->j.y = span;
        if (g->sweep)
            err = sweep_to(g, &from, area);
        g->j.y = full;
        if (!err)
            err = area->below
                      ? join_below(g, area)
                      : join_key(g, area->key, area->n ? &g->f->pieces[area->first].payload : NULL);
        from = after_area(g, area);
        if (!from.p)
            err = CW_ENOMEM;
    }
    g->j.y = span;
    return !err && g->sweep ? sweep_to(g, &from, NULL) : err;
}

static bool is_whole(const struct cw_fragment *f) {
    return f->n == 1 && f->areas[0].below && f->areas[0].key.n == 0;
}

/* What the journal is to remember: all areas, and what else changed. Of a whole state, what it
 * changed here; else the next delta would be everything again. */
static void touch_areas(struct graft *g) {
    if (is_whole(g->f))
        return;
    if (!g->sweep)
        g->j.touches.n = 0;
    for (size_t i = 0; i < g->f->n && g->j.touches.n <= CW_JOURNAL_MAX; i++)
        cw_touch(&g->j.touches, g->f->areas[i].key, g->f->areas[i].below);
}

static enum cw_err graft_fragment(struct graft *g, struct cw_vv *have, struct cw_doc **out) {
    struct cw_tree *tree;
    enum cw_order order = cw_vv_compare(g->f->to, have);
    enum cw_err err = join_areas(g);
    if (!err && g->j.n && (order == CW_BEFORE || order == CW_EQUAL))
        err = CW_EDUPLICATE; /* nothing in it is news */
    if (err)
        return err;
    touch_areas(g);
    if (g->j.touches.err)
        return g->j.touches.err;
    err = cw_tree_apply(g->doc->tree, g->j.edits, g->j.n, &tree);
    if (err)
        return err;
    return joined(g->doc, tree, have, g->f->to, g->f->hlc, cw_buf_slice(&g->j.touches, 0),
                  g->f->net || is_whole(g->f), out);
}

enum cw_err cw_doc_apply(const struct cw_doc *doc, struct cw_bytes fragment, size_t budget,
                         struct cw_doc **out, struct cw_fault *fault) {
    struct cw_fragment f;
    struct cw_vv *have = NULL;
    enum cw_err err = cw_fragment_read(&f, doc->mem, budget, fragment);
    if (err)
        return err;
    err = cw_doc_settle(doc);
    if (!err)
        err = cw_doc_clock(doc, &have);
    if (!err)
        err = check_gap(have, f.from, fault);
    if (!err) {
        struct graft g = {.doc = doc, .f = &f, .budget = budget};
        g.sweep = f.net && overlaps(have, &f);
        cw_joiner_open(&g.j, doc->mem, context_of(have), context_of(f.to));
        g.j.apart = cw_vv_disjoint(have, f.to);
        err = graft_fragment(&g, have, out);
        cw_joiner_close(&g.j);
    }
    cw_vv_release(have);
    cw_fragment_free(&f);
    return err;
}
