/* The join of two fragments, without a document. */
#include "cw_doc.h"
#include "cw_fragment.h"

struct part {
    const struct cw_fragment *f;
    struct cw_context full; /* what a cell in an area was seen in */
    struct cw_context span; /* what is known of keys outside: the fragment's own writes */
    size_t area;            /* the next one */
    size_t end;             /* of the group at hand */
    size_t piece;           /* the next one, and the end of the group's */
    size_t piece_end;
};

struct fuse {
    struct part a;
    struct part b;
    struct cw_arena arena;
    struct cw_buf payload;
    struct cw_fragment to; /* areas and pieces in `arena` */
    size_t pieces_n;
};

/* ---- spans ---- */

static enum cw_err fuse_clock(const struct cw_fragment *a, const struct cw_fragment *b,
                              struct cw_vv *from, const struct cw_vv *to) {
    for (uint32_t i = 0; i < to->n; i++) {
        struct cw_vv_entry e = to->at[i];
        uint64_t fa = cw_vv_get(a->from, e.id), fb = cw_vv_get(b->from, e.id);
        uint64_t ta = cw_vv_get(a->to, e.id), tb = cw_vv_get(b->to, e.id);
        if ((fa > fb ? fa : fb) > (ta < tb ? ta : tb))
            return CW_EGAP;
        e.counter = fa < fb ? fa : fb;
        if (e.counter == 0)
            continue;
        cw_name_retain(e.name);
        from->at[from->n++] = e;
    }
    return CW_OK;
}

/* A net fragment may leave a removal out because the cell was gone already where it begins. Of two
 * that both do, and neither of which begins at or after the other's beginning, the join would begin
 * before the removals and not have them. */
static bool cross(const struct cw_fragment *a, const struct cw_fragment *b) {
    return a->net && b->net && cw_vv_compare(a->from, b->from) == CW_CONCURRENT;
}

static enum cw_err fuse_clocks(struct fuse *fu) {
    if (cross(fu->a.f, fu->b.f))
        return CW_EGAP;
    enum cw_err err = cw_vv_merge(fu->a.f->to, fu->b.f->to, &fu->to.to);
    if (err)
        return err;
    fu->to.from = cw_vv_new(fu->arena.mem, fu->to.to->n);
    if (!fu->to.from)
        return CW_ENOMEM;
    return fuse_clock(fu->a.f, fu->b.f, fu->to.from, fu->to.to);
}

/* ---- groups: an area of one side with all of the other's areas that it covers ---- */

static const struct cw_area *next_area(const struct part *p) {
    return p->area < p->f->n ? &p->f->areas[p->area] : NULL;
}

/* Which of two areas comes first, a prefix before what it covers. */
static int cmp_areas(const struct cw_area *x, const struct cw_area *y) {
    if (!x || !y)
        return !x - !y;
    int c = cw_bytes_cmp(x->key, y->key);
    return c ? c : (int)y->below - (int)x->below;
}

static bool covers(const struct cw_area *area, struct cw_bytes key) {
    return area->below ? cw_bytes_has_prefix(key, area->key) : cw_bytes_eq(key, area->key);
}

static void take_group(struct part *p, const struct cw_area *head) {
    p->end = p->area;
    p->piece_end = p->piece;
    while (p->end < p->f->n && covers(head, p->f->areas[p->end].key))
        p->piece_end += p->f->areas[p->end++].n;
}

/* The context in which this side speaks of `key`: whole where one of its areas covers it. Keys come
 * in ascending order. */
static const struct cw_context *context_at(struct part *p, struct cw_bytes key) {
    while (p->area < p->end && !covers(&p->f->areas[p->area], key) &&
           cw_bytes_cmp(p->f->areas[p->area].key, key) < 0)
        p->area++;
    return p->area < p->end && covers(&p->f->areas[p->area], key) ? &p->full : &p->span;
}

static enum cw_err fuse_cell(struct fuse *fu, struct cw_bytes key, const struct cw_bytes *x,
                             const struct cw_bytes *y) {
    struct cw_key_parts parts = cw_key_parts(key);
    enum cw_pick pick;
    fu->payload.n = 0;
    enum cw_err err = cw_cell_join(&parts, x, context_at(&fu->a, key), y, context_at(&fu->b, key),
                                   &fu->payload, &pick);
    if (err || pick == CW_PICK_NONE)
        return err;
    struct cw_bytes payload;
    if (pick == CW_PICK_NEW)
        payload = cw_arena_copy(&fu->arena, cw_buf_slice(&fu->payload, 0));
    else
        payload = pick == CW_PICK_X ? *x : *y;
    if (!payload.p)
        return CW_ENOMEM;
    fu->to.pieces[fu->pieces_n++] = (struct cw_piece){key, payload};
    return CW_OK;
}

static enum cw_err fuse_pieces(struct fuse *fu) {
    struct part *a = &fu->a, *b = &fu->b;
    enum cw_err err = CW_OK;
    while (!err && (a->piece < a->piece_end || b->piece < b->piece_end)) {
        const struct cw_piece *x = a->piece < a->piece_end ? &a->f->pieces[a->piece] : NULL;
        const struct cw_piece *y = b->piece < b->piece_end ? &b->f->pieces[b->piece] : NULL;
        int c = !x ? 1 : !y ? -1 : cw_bytes_cmp(x->key, y->key);
        err = fuse_cell(fu, c <= 0 ? x->key : y->key, c <= 0 ? &x->payload : NULL,
                        c >= 0 ? &y->payload : NULL);
        a->piece += c <= 0;
        b->piece += c >= 0;
    }
    return err;
}

static enum cw_err fuse_groups(struct fuse *fu) {
    enum cw_err err = CW_OK;
    while (!err && (next_area(&fu->a) || next_area(&fu->b))) {
        const struct cw_area *x = next_area(&fu->a), *y = next_area(&fu->b);
        const struct cw_area *head = cmp_areas(x, y) <= 0 ? x : y;
        struct cw_area *area = &fu->to.areas[fu->to.n++];
        *area = (struct cw_area){head->key, head->below, 0, fu->pieces_n};
        take_group(&fu->a, head);
        take_group(&fu->b, head);
        err = fuse_pieces(fu);
        area->n = fu->pieces_n - area->first;
        fu->a.area = fu->a.end;
        fu->b.area = fu->b.end;
    }
    return err;
}

/* ---- from bytes to bytes ---- */

static size_t count_pieces(const struct cw_fragment *f) {
    return f->n ? f->areas[f->n - 1].first + f->areas[f->n - 1].n : 0;
}

static enum cw_err fuse(struct fuse *fu, struct cw_buf *out) {
    const struct cw_fragment *a = fu->a.f, *b = fu->b.f;
    fu->to.net = a->net || b->net;
    fu->to.areas = cw_arena_alloc(&fu->arena, (a->n + b->n + 1) * sizeof *fu->to.areas);
    fu->to.pieces =
        cw_arena_alloc(&fu->arena, (count_pieces(a) + count_pieces(b) + 1) * sizeof *fu->to.pieces);
    if (!fu->to.areas || !fu->to.pieces)
        return CW_ENOMEM;
    enum cw_err err = fuse_clocks(fu);
    if (!err)
        err = fuse_groups(fu);
    return err ? err : cw_fragment_write(&fu->to, out);
}

/* An exact fragment's writes touched no key outside its areas: it knows no dot there. */
static struct part part_of(const struct cw_fragment *f) {
    struct part p = {.f = f, .full = {.vv = f->to}};
    p.span = (struct cw_context){.vv = f->net ? f->to : f->from, .from = f->from};
    return p;
}

enum cw_err cw_fragment_join(const struct cw_mem *mem, struct cw_bytes a, struct cw_bytes b,
                             size_t budget, struct cw_buf *out) {
    struct cw_fragment fa, fb;
    enum cw_err err = cw_fragment_read(&fa, mem, budget, a);
    if (err)
        return err;
    err = cw_fragment_read(&fb, mem, budget, b);
    if (!err) {
        struct fuse fu = {.a = part_of(&fa), .b = part_of(&fb)};
        cw_arena_init(&fu.arena, mem, NULL, 0);
        cw_buf_init(&fu.payload, mem, NULL, 0);
        err = fuse(&fu, out);
        cw_vv_release(fu.to.from);
        cw_vv_release(fu.to.to);
        cw_buf_free(&fu.payload);
        cw_arena_free(&fu.arena);
        cw_fragment_free(&fb);
    }
    cw_fragment_free(&fa);
    return err;
}
