/* Applying sorted edits to a tree: the one way in which trees change.
 *
 * The edits go down to the leaves they fall into. A changed leaf comes back as a list of nodes
 * (`struct row`s), usually one; its parent puts the list in the place of the child. Two things can
 * change the shape. A key of a level above the height splits a node, which is seen when the
 * list is cut into nodes. And when the key that began a node is gone, what is left of the node, an
 * orphan, belongs to the node before it; at whatever height that one is found, the two are joined
 * down to the leaves:
 *
 *     delete F:  [a  C] [F     H]      ->  [a  C        H ]
 *                [a b][C d e] [g][H i]     [a b][C d e g][H i]
 */
#include "cw_arena.h"
#include "cw_forest.h"

/* A node under way up to its parent. */
struct row {
    struct cw_node *node;
    struct cw_bytes key;
    bool fresh; /* its first key, or that key's place, is new: look at its level */
};

struct rows {
    struct row *at;
    uint32_t n;
    size_t cap;
};

struct list {
    uintptr_t *at;
    uint32_t n;
    size_t cap;
};

struct apply {
    const struct cw_mem *mem;
    struct cw_arena arena;
    uint64_t seq;
    struct list made;     /* nodes and boxes of this version */
    struct list scrapped; /* of those, the ones replaced again */
    struct list retired;  /* of earlier versions */
    enum cw_err err;
};

/* ---- lists in the arena ---- */

static bool list_add(struct apply *ap, struct list *list, uintptr_t v) {
    if (list->n == list->cap) {
        void *at = cw_arena_grow(&ap->arena, list->at, &list->cap, sizeof *list->at, 16);
        if (!at) {
            ap->err = CW_ENOMEM;
            return false;
        }
        list->at = at;
    }
    list->at[list->n++] = v;
    return true;
}

static void rows_add(struct apply *ap, struct rows *rows, struct row row) {
    if (ap->err)
        return;
    if (rows->n == rows->cap) {
        void *at = cw_arena_grow(&ap->arena, rows->at, &rows->cap, sizeof *rows->at, 4);
        if (!at) {
            ap->err = CW_ENOMEM;
            return;
        }
        rows->at = at;
    }
    rows->at[rows->n++] = row;
}

/* ---- nodes made and replaced ---- */

static void free_made(const struct cw_mem *mem, uintptr_t v) {
    cw_free(mem, (void *)(v & ~CW_BOX_BIT));
}

static void *made(struct apply *ap, void *p, uintptr_t bit) {
    if (!p) {
        ap->err = CW_ENOMEM;
        return NULL;
    }
    if (list_add(ap, &ap->made, (uintptr_t)p | bit))
        return p;
    cw_free(ap->mem, p);
    return NULL;
}

static void replaced(struct apply *ap, uintptr_t v) {
    uint64_t birth = *(const uint64_t *)(v & ~CW_BOX_BIT);
    list_add(ap, birth == ap->seq ? &ap->scrapped : &ap->retired, v);
}

static void replaced_node(struct apply *ap, const struct cw_node *nd) {
    replaced(ap, (uintptr_t)nd);
}

static void replaced_box(struct apply *ap, const struct cw_box *box) {
    if (box)
        replaced(ap, (uintptr_t)box | CW_BOX_BIT);
}

static struct cw_bytes copy_key(struct apply *ap, const struct cw_node *nd, uint32_t i) {
    uint32_t n = cw_node_key_len(nd, i);
    uint8_t *p = cw_arena_alloc(&ap->arena, n ? n : 1);
    if (!p) {
        ap->err = CW_ENOMEM;
        return cw_bytes("", 0);
    }
    cw_node_key(nd, i, p);
    return cw_bytes(p, n);
}

/* ---- leaves ---- */

/* The pairs of a leaf with edits merged in, before they are cut into nodes. */
struct pairs {
    struct cw_item *at;
    bool *fresh; /* the pair is new in this leaf, or was its first */
    uint32_t n;
    struct cw_hash hash;
};

static struct cw_item pair_of_edit(struct apply *ap, const struct cw_edit *e) {
    struct cw_item it = {.key = e->key, .payload = e->payload};
    if (e->key.n + e->payload.n > CW_INLINE_MAX)
        it.box = made(ap, cw_box_new(ap->mem, ap->seq, e->key, e->payload), CW_BOX_BIT);
    return it;
}

static struct cw_item pair_of_node(struct apply *ap, const struct cw_node *nd, uint32_t i) {
    struct cw_item it = {.key = copy_key(ap, nd, i), .box = cw_node_box(nd, i)};
    it.payload = cw_node_payload(nd, i);
    return it;
}

static struct cw_hash item_hash(const struct cw_item *it) {
    return it->box ? it->box->hash : cw_hash_cell(it->key, it->payload);
}

static void pairs_add(struct pairs *pairs, struct cw_item it, bool fresh) {
    pairs->fresh[pairs->n] = fresh;
    pairs->at[pairs->n++] = it;
}

static void merge_edit(struct apply *ap, struct pairs *pairs, const struct cw_edit *e,
                       const struct cw_item *old, struct cw_box *old_box, bool old_first) {
    if (old) {
        pairs->hash = cw_hash_sub(pairs->hash, item_hash(old));
        replaced_box(ap, old_box);
    }
    if (e->del)
        return;
    struct cw_item it = pair_of_edit(ap, e);
    if (ap->err)
        return;
    pairs->hash = cw_hash_add(pairs->hash, item_hash(&it));
    pairs_add(pairs, it, old ? old_first : true);
}

/* `nd` may be NULL for an empty leaf. */
static struct pairs merge_leaf(struct apply *ap, const struct cw_node *nd,
                               const struct cw_edit *edits, size_t n) {
    uint32_t have = nd ? nd->n : 0;
    struct pairs pairs = {.hash = nd ? nd->hash : (struct cw_hash){0, 0}};
    pairs.at = cw_arena_alloc(&ap->arena, (have + n) * sizeof *pairs.at);
    pairs.fresh = cw_arena_alloc(&ap->arena, have + n);
    if (!pairs.at || !pairs.fresh)
        ap->err = CW_ENOMEM;
    size_t k = 0;
    for (uint32_t i = 0; i < have && !ap->err; i++) {
        struct cw_item old = pair_of_node(ap, nd, i);
        int c = -1;
        while (k < n && (c = cw_bytes_cmp(edits[k].key, old.key)) < 0 && !ap->err)
            merge_edit(ap, &pairs, &edits[k++], NULL, NULL, false);
        if (k < n && c == 0)
            merge_edit(ap, &pairs, &edits[k++], &old, old.box, i == 0);
        else
            pairs_add(&pairs, old, i == 0);
    }
    while (k < n && !ap->err)
        merge_edit(ap, &pairs, &edits[k++], NULL, NULL, false);
    return pairs;
}

static void emit_leaf(struct apply *ap, const struct pairs *pairs, uint32_t from, uint32_t to,
                      struct rows *out) {
    struct cw_node *nd =
        made(ap, cw_node_build(ap->mem, ap->seq, 0, pairs->at + from, to - from), 0);
    if (!nd)
        return;
    nd->hash = pairs->hash;
    if (to - from < pairs->n) {
        nd->hash = (struct cw_hash){0, 0};
        for (uint32_t i = from; i < to; i++)
            nd->hash = cw_hash_add(nd->hash, item_hash(&pairs->at[i]));
    }
    rows_add(ap, out, (struct row){nd, pairs->at[from].key, true});
}

/* Cuts before each pair of a level above 0. */
static void cut_leaves(struct apply *ap, const struct pairs *pairs, struct rows *out) {
    uint32_t from = 0;
    for (uint32_t i = 1; i < pairs->n && !ap->err; i++) {
        if (pairs->fresh[i] && cw_key_level(pairs->at[i].key) > 0) {
            emit_leaf(ap, pairs, from, i, out);
            from = i;
        }
    }
    if (from < pairs->n && !ap->err)
        emit_leaf(ap, pairs, from, pairs->n, out);
}

/* ---- the common case: copying bytes ----
 *
 * As long as the first key of a node stays and new keys share its prefix, a changed node is made of
 * runs of the old one's entries, encoded as they are, with changes in between. A new key that
 * begins a node here begins the next copy. */

struct change {
    uint32_t pos; /* before this entry of the old node, or this entry */
    bool drop;    /* the entry goes */
    bool add;     /* one comes: */
    struct cw_bytes key;
    struct cw_bytes payload; /* leaf */
    struct cw_box *box;      /* leaf, for a long pair */
    struct cw_node *child;   /* inner; also, without `add`, in the place of the one at `pos` */
    int level;               /* of a new key, where that matters */
};

/* Entries [from, to) of an old node, with changes in ascending order. */
struct cut {
    uint32_t from, to;
    const struct change *at;
    uint32_t n;
};

struct writer {
    const struct cw_node *nd;
    struct cw_node *to;
    uint32_t i;
    uint8_t *data;
    uint8_t *p;
};

static uint32_t change_len(const struct cw_node *nd, const struct change *c) {
    if (c->box)
        return 2 + sizeof c->box;
    size_t n = c->key.n - nd->plen;
    return 2 + (n > 8 ? (uint32_t)n - 8 : 0) + (uint32_t)c->payload.n;
}

/* For the compiler to make one loop of vector instructions of. */
static void shift_offs(uint32_t *restrict dst, const uint32_t *restrict src, uint32_t n,
                       uint32_t by) {
    for (uint32_t i = 0; i < n; i++)
        dst[i] = src[i] + by;
}

static void copy_run(struct writer *w, uint32_t from, uint32_t to) {
    const uint32_t *offs = cw_node_offs(w->nd);
    uint32_t n = to - from, by = (uint32_t)(w->p - w->data) - offs[from];
    memcpy(w->to->heads + w->i, w->nd->heads + from, n * sizeof w->to->heads[0]);
    if (w->nd->height)
        memcpy(cw_node_children(w->to) + w->i, cw_node_children(w->nd) + from,
               n * sizeof(struct cw_node *));
    shift_offs(cw_node_offs(w->to) + w->i, offs + from, n, by);
    memcpy(w->p, cw_node_data(w->nd) + offs[from], offs[to] - offs[from]);
    w->p += offs[to] - offs[from];
    w->i += n;
}

static void write_added(struct writer *w, const struct change *c) {
    struct cw_bytes suffix = cw_bytes(c->key.p + w->nd->plen, c->key.n - w->nd->plen);
    struct cw_item it = {.key = c->key, .payload = c->payload, .box = c->box};
    w->to->heads[w->i] = cw_head(suffix.p, suffix.n);
    cw_node_offs(w->to)[w->i] = (uint32_t)(w->p - w->data);
    if (w->nd->height)
        cw_node_children(w->to)[w->i] = c->child;
    w->p = cw_node_put_item(w->p, &it, w->nd->plen);
    w->to->boxes |= c->box != NULL;
    w->i++;
}

static void write_cut(struct writer *w, const struct cut *cut) {
    uint32_t at = cut->from;
    for (uint32_t k = 0; k < cut->n; k++) {
        const struct change *c = &cut->at[k];
        bool swap = !c->add && !c->drop; /* only the child is another */
        copy_run(w, at, c->pos + swap);
        if (swap)
            cw_node_children(w->to)[w->i - 1] = c->child;
        if (c->add)
            write_added(w, c);
        at = c->pos + swap + c->drop;
    }
    copy_run(w, at, cut->to);
    cw_node_offs(w->to)[w->i] = (uint32_t)(w->p - w->data);
}

/* Leaves hash and count of an inner node as they are in `nd`, those of a leaf but the count. */
static struct cw_node *make_cut(struct apply *ap, const struct cw_node *nd, const struct cut *cut) {
    const uint32_t *offs = cw_node_offs(nd);
    uint32_t n = cut->to - cut->from, len = offs[cut->to] - offs[cut->from];
    for (uint32_t k = 0; k < cut->n; k++) {
        const struct change *c = &cut->at[k];
        n += c->add - c->drop;
        len += (c->add ? change_len(nd, c) : 0) - (c->drop ? offs[c->pos + 1] - offs[c->pos] : 0);
    }
    size_t size = cw_node_size(n, nd->height > 0, nd->plen, len);
    struct cw_node *to = size > UINT32_MAX ? NULL : cw_alloc(ap->mem, size);
    to = made(ap, to, 0);
    if (!to)
        return NULL;
    *to = *nd;
    to->birth = ap->seq;
    to->size = (uint32_t)size;
    to->n = n;
    to->data_len = len;
    if (!nd->height)
        to->count = n;
    memcpy(cw_node_prefix(to), cw_node_prefix(nd), nd->plen);
    struct writer w = {.nd = nd, .to = to, .data = cw_node_data(to), .p = cw_node_data(to)};
    write_cut(&w, cut);
    return to;
}

/* The next cut of `nd` from `*from` on and the changes from `*k` on: up to the next new key that
 * begins a node at this height. */
static struct cut next_cut(const struct cw_node *nd, const struct change *at, uint32_t n,
                           uint32_t *from, uint32_t *k) {
    struct cut cut = {.from = *from, .to = nd->n, .at = at + *k};
    uint32_t i = *k + (*from > 0); /* the first of a later cut is the key that begins it */
    while (i < n && !(at[i].add && !at[i].drop && at[i].level > nd->height))
        i++;
    if (i < n)
        cut.to = at[i].pos;
    cut.n = i - *k;
    *from = cut.to;
    *k = i;
    return cut;
}

static bool shares_prefix(const struct cw_node *nd, struct cw_bytes key) {
    return cw_bytes_has_prefix(key, cw_bytes(cw_node_prefix(nd), nd->plen));
}

/* ---- leaves, by copying ---- */

/* Whether the edits leave the leaf its first key, and its prefix to all. Positions go to `at`. */
static bool plan_leaf(const struct cw_node *nd, const struct cw_edit *edits, size_t n,
                      struct change *at, uint32_t *count) {
    *count = 0;
    for (size_t k = 0; k < n; k++) {
        const struct cw_edit *e = &edits[k];
        bool found;
        uint32_t pos = cw_node_search(nd, e->key, &found);
        if (!found && e->del)
            continue;
        if (pos == 0 ? !found || e->del : !found && !shares_prefix(nd, e->key))
            return false;
        at[(*count)++] = (struct change){
            .pos = pos, .drop = found, .add = !e->del, .key = e->key, .payload = e->payload};
    }
    return true;
}

/* Makes the boxes, finds the levels, retires what is replaced; returns the new sum of hashes. */
static struct cw_hash work_leaf(struct apply *ap, const struct cw_node *nd, struct change *at,
                                uint32_t n) {
    struct cw_hash hash = nd->hash;
    for (uint32_t k = 0; k < n && !ap->err; k++) {
        struct change *c = &at[k];
        if (c->drop) {
            struct cw_box *box = cw_node_box(nd, c->pos);
            hash = cw_hash_sub(hash,
                               box ? box->hash : cw_hash_cell(c->key, cw_node_payload(nd, c->pos)));
            replaced_box(ap, box);
        }
        if (!c->add)
            continue;
        if (c->key.n + c->payload.n > CW_INLINE_MAX)
            c->box = made(ap, cw_box_new(ap->mem, ap->seq, c->key, c->payload), CW_BOX_BIT);
        if (!ap->err)
            hash = cw_hash_add(hash, c->box ? c->box->hash : cw_hash_cell(c->key, c->payload));
        c->level = c->drop ? 0 : cw_key_level(c->key);
    }
    return hash;
}

static struct cw_hash sum_entries(const struct cw_node *nd) {
    uint8_t scratch[CW_KEY_MAX];
    struct cw_hash sum = {0, 0};
    for (uint32_t i = 0; i < nd->n; i++)
        sum = cw_hash_add(sum, cw_node_entry_hash(nd, i, scratch));
    return sum;
}

/* True when it did the edits. */
static bool copy_leaf(struct apply *ap, struct cw_node *nd, const struct cw_edit *edits, size_t n,
                      struct rows *out) {
    struct change *at = cw_arena_alloc(&ap->arena, n * sizeof *at);
    uint32_t m;
    if (!at) {
        ap->err = CW_ENOMEM;
        return true;
    }
    if (!plan_leaf(nd, edits, n, at, &m))
        return false;
    if (m == 0) {
        rows_add(ap, out, (struct row){nd, cw_bytes(NULL, 0), false});
        return true;
    }
    struct cw_hash rest = work_leaf(ap, nd, at, m);
    replaced_node(ap, nd);
    uint32_t from = 0, k = 0, first = out->n;
    do {
        bool begins = from > 0;
        struct cw_bytes key = begins ? at[k].key : cw_bytes(NULL, 0);
        struct cut cut = next_cut(nd, at, m, &from, &k);
        struct cw_node *to = ap->err ? NULL : make_cut(ap, nd, &cut);
        if (!to)
            return true;
        if (begins) {
            to->hash = sum_entries(to);
            rest = cw_hash_sub(rest, to->hash);
        }
        rows_add(ap, out, (struct row){to, key, begins});
    } while (k < m);
    if (!ap->err)
        out->at[first].node->hash = rest;
    return true;
}

static void apply_leaf(struct apply *ap, struct cw_node *nd, const struct cw_edit *edits, size_t n,
                       struct rows *out) {
    if (copy_leaf(ap, nd, edits, n, out))
        return;
    struct pairs pairs = merge_leaf(ap, nd, edits, n);
    if (ap->err)
        return;
    replaced_node(ap, nd);
    cut_leaves(ap, &pairs, out);
}

/* ---- inner nodes ---- */

/* Cuts rows, nodes of one height, into parents of them, before each of a level above the parents'
 * height. `hash_of_all` and counts are sums. */
static void emit_inner(struct apply *ap, const struct row *at, uint32_t n, int height,
                       struct rows *out, bool fresh) {
    struct cw_item *items = cw_arena_alloc(&ap->arena, n * sizeof *items);
    if (!items) {
        ap->err = CW_ENOMEM;
        return;
    }
    struct cw_hash hash = {0, 0};
    for (uint32_t i = 0; i < n; i++) {
        items[i] = (struct cw_item){.key = at[i].key, .child = at[i].node};
        hash = cw_hash_add(hash, at[i].node->hash);
    }
    struct cw_node *nd = made(ap, cw_node_build(ap->mem, ap->seq, height, items, n), 0);
    if (!nd)
        return;
    nd->hash = hash;
    rows_add(ap, out, (struct row){nd, at[0].key, fresh});
}

static void cut_inner(struct apply *ap, const struct rows *rows, int height, struct rows *out) {
    uint32_t from = 0;
    for (uint32_t i = 1; i < rows->n && !ap->err; i++) {
        if (rows->at[i].fresh && cw_key_level(rows->at[i].key) > height) {
            emit_inner(ap, rows->at + from, i - from, height, out, true);
            from = i;
        }
    }
    if (from < rows->n && !ap->err)
        emit_inner(ap, rows->at + from, rows->n - from, height, out, true);
}

static struct cw_node *join(struct apply *ap, struct cw_node *a, struct cw_node *b, int level);

static struct cw_node *join_leaves(struct apply *ap, struct cw_node *a, struct cw_node *b) {
    struct cw_item *items = cw_arena_alloc(&ap->arena, (a->n + b->n) * sizeof *items);
    if (!items) {
        ap->err = CW_ENOMEM;
        return NULL;
    }
    for (uint32_t i = 0; i < a->n; i++)
        items[i] = pair_of_node(ap, a, i);
    for (uint32_t i = 0; i < b->n; i++)
        items[a->n + i] = pair_of_node(ap, b, i);
    if (ap->err)
        return NULL;
    return made(ap, cw_node_build(ap->mem, ap->seq, 0, items, a->n + b->n), 0);
}

static struct cw_node *join_inner(struct apply *ap, struct cw_node *a, struct cw_node *b,
                                  int level) {
    struct cw_node *seam = NULL;
    if (level < a->height) /* b's first child is an orphan too */
        seam = join(ap, cw_node_children(a)[a->n - 1], cw_node_children(b)[0], level);
    struct cw_item *items = cw_arena_alloc(&ap->arena, (a->n + b->n) * sizeof *items);
    if (!items)
        ap->err = CW_ENOMEM;
    uint32_t n = 0;
    for (uint32_t i = 0; i < a->n && !ap->err; i++)
        items[n++] = (struct cw_item){.key = copy_key(ap, a, i), .child = cw_node_children(a)[i]};
    if (seam && !ap->err)
        items[n - 1].child = seam;
    for (uint32_t i = seam ? 1 : 0; i < b->n && !ap->err; i++)
        items[n++] = (struct cw_item){.key = copy_key(ap, b, i), .child = cw_node_children(b)[i]};
    if (ap->err)
        return NULL;
    return made(ap, cw_node_build(ap->mem, ap->seq, a->height, items, n), 0);
}

/* One node of all that `a` and the orphan after it hold; `level` is that of `b`'s first key. */
static struct cw_node *join(struct apply *ap, struct cw_node *a, struct cw_node *b, int level) {
    struct cw_node *nd = a->height ? join_inner(ap, a, b, level) : join_leaves(ap, a, b);
    if (!nd || ap->err)
        return NULL;
    nd->hash = cw_hash_add(a->hash, b->hash);
    replaced_node(ap, a);
    replaced_node(ap, b);
    return nd;
}

/* Adds what child `i` became to the row of children, joining an orphan to the one before it. */
static void add_child_rows(struct apply *ap, struct rows *seq, const struct rows *got,
                           int child_height) {
    for (uint32_t k = 0; k < got->n && !ap->err; k++) {
        struct row row = got->at[k];
        int level = k == 0 && seq->n && row.fresh ? cw_key_level(row.key) : INT32_MAX;
        if (level > child_height) {
            rows_add(ap, seq, row);
            continue;
        }
        struct row *last = &seq->at[seq->n - 1];
        struct cw_node *nd = join(ap, last->node, row.node, level);
        if (nd)
            last->node = nd;
    }
}

static void apply_node(struct apply *ap, struct cw_node *nd, const struct cw_edit *edits, size_t n,
                       struct rows *out);

/* Rebuilds `nd` around the children at `at`, which became the lists in `got`. */
static void rebuild_inner(struct apply *ap, const struct cw_node *nd, const uint32_t *at,
                          const struct rows *got, uint32_t n, struct rows *out) {
    struct rows seq = {0};
    uint32_t k = 0;
    for (uint32_t i = 0; i < nd->n && !ap->err; i++) {
        if (k < n && at[k] == i) {
            add_child_rows(ap, &seq, &got[k++], nd->height - 1);
            continue;
        }
        rows_add(ap, &seq, (struct row){cw_node_children(nd)[i], copy_key(ap, nd, i), i == 0});
    }
    if (!ap->err)
        cut_inner(ap, &seq, nd->height, out);
}

/* A row whose first key did not change may come without the key: the parent has it. */
static void name_row(struct apply *ap, const struct cw_node *nd, uint32_t i, struct rows *got) {
    if (got->n && !got->at[0].key.p)
        got->at[0].key = copy_key(ap, nd, i);
}

static bool keeps_first(struct apply *ap, const struct cw_node *nd, uint32_t i,
                        const struct rows *got) {
    if (got->n == 0)
        return false;
    return !got->at[0].key.p || cw_bytes_eq(copy_key(ap, nd, i), got->at[0].key);
}

/* Whether all children begin as before, and new ones share the prefix. The changes go to `at`,
 * which has room for all rows. */
static bool plan_inner(struct apply *ap, const struct cw_node *nd, const uint32_t *child,
                       const struct rows *got, uint32_t n, struct change *at, uint32_t *count) {
    *count = 0;
    for (uint32_t k = 0; k < n; k++) {
        const struct row *rows = got[k].at;
        if (!keeps_first(ap, nd, child[k], &got[k]) || ap->err)
            return false;
        if (rows[0].node != cw_node_children(nd)[child[k]])
            at[(*count)++] = (struct change){.pos = child[k], .child = rows[0].node};
        for (uint32_t j = 1; j < got[k].n; j++) {
            if (!shares_prefix(nd, rows[j].key))
                return false;
            at[(*count)++] = (struct change){.pos = child[k] + 1,
                                             .add = true,
                                             .key = rows[j].key,
                                             .child = rows[j].node,
                                             .level = cw_key_level(rows[j].key)};
        }
    }
    return true;
}

static struct cw_range sum_children(const struct cw_node *nd) {
    struct cw_range sum = {{0, 0}, 0};
    for (uint32_t i = 0; i < nd->n; i++) {
        sum.hash = cw_hash_add(sum.hash, cw_node_children(nd)[i]->hash);
        sum.count += cw_node_children(nd)[i]->count;
    }
    return sum;
}

/* Hash and count of all that the node becomes. */
static struct cw_range sum_changed(const struct cw_node *nd, const struct change *at, uint32_t n) {
    struct cw_range sum = {nd->hash, nd->count};
    for (uint32_t k = 0; k < n; k++) {
        sum.hash = cw_hash_add(sum.hash, at[k].child->hash);
        sum.count += at[k].child->count;
        if (at[k].add)
            continue;
        const struct cw_node *old = cw_node_children(nd)[at[k].pos];
        sum.hash = cw_hash_sub(sum.hash, old->hash);
        sum.count -= old->count;
    }
    return sum;
}

static void set_sums(struct cw_node *nd, struct cw_range sum) {
    nd->hash = sum.hash;
    nd->count = sum.count;
}

static void copy_inner(struct apply *ap, struct cw_node *nd, const struct change *at, uint32_t n,
                       struct rows *out) {
    struct cw_range rest = sum_changed(nd, at, n);
    uint32_t from = 0, k = 0, first = out->n;
    replaced_node(ap, nd);
    do {
        bool begins = from > 0;
        struct cw_bytes key = begins ? at[k].key : cw_bytes(NULL, 0);
        struct cut cut = next_cut(nd, at, n, &from, &k);
        struct cw_node *to = make_cut(ap, nd, &cut);
        if (!to)
            return;
        if (begins) {
            set_sums(to, sum_children(to));
            rest.hash = cw_hash_sub(rest.hash, to->hash);
            rest.count -= to->count;
        }
        rows_add(ap, out, (struct row){to, key, begins});
    } while (k < n);
    if (!ap->err)
        set_sums(out->at[first].node, rest);
}

/* The children's rows are known: makes the node, or nodes, that hold them. */
static void finish_inner(struct apply *ap, struct cw_node *nd, const uint32_t *child,
                         struct rows *got, uint32_t n, struct rows *out) {
    uint32_t rows = 0, m;
    for (uint32_t k = 0; k < n; k++)
        rows += got[k].n;
    struct change *at = cw_arena_alloc(&ap->arena, (rows + 1) * sizeof *at);
    if (!at) {
        ap->err = CW_ENOMEM;
    } else if (plan_inner(ap, nd, child, got, n, at, &m)) {
        if (m)
            copy_inner(ap, nd, at, m, out);
        else
            rows_add(ap, out, (struct row){nd, cw_bytes(NULL, 0), false});
    } else {
        for (uint32_t k = 0; k < n; k++)
            name_row(ap, nd, child[k], &got[k]);
        rebuild_inner(ap, nd, child, got, n, out);
        if (!ap->err)
            replaced_node(ap, nd);
    }
}

static void apply_inner(struct apply *ap, struct cw_node *nd, const struct cw_edit *edits, size_t n,
                        struct rows *out) {
    uint32_t room = n < nd->n ? (uint32_t)n : nd->n;
    uint32_t *child = cw_arena_alloc(&ap->arena, room * sizeof *child);
    struct rows *got = cw_arena_alloc(&ap->arena, room * sizeof *got);
    if (!child || !got) {
        ap->err = CW_ENOMEM;
        return;
    }
    uint32_t m = 0, next = cw_node_route(nd, edits[0].key);
    for (size_t k = 0, end; k < n && !ap->err; k = end, m++) {
        uint32_t i = next;
        for (end = k + 1; end < n; end++)
            if ((next = cw_node_route(nd, edits[end].key)) != i)
                break;
        child[m] = i;
        got[m] = (struct rows){0};
        apply_node(ap, cw_node_children(nd)[i], edits + k, end - k, &got[m]);
    }
    if (!ap->err)
        finish_inner(ap, nd, child, got, m, out);
}

static void apply_node(struct apply *ap, struct cw_node *nd, const struct cw_edit *edits, size_t n,
                       struct rows *out) {
    if (nd->height)
        apply_inner(ap, nd, edits, n, out);
    else
        apply_leaf(ap, nd, edits, n, out);
}

/* ---- the root ---- */

/* One node over all rows: parents of parents until there is one, without single children on top. */
static struct cw_node *make_root(struct apply *ap, struct rows *rows) {
    while (rows->n > 1 && !ap->err) {
        struct rows up = {0};
        cut_inner(ap, rows, rows->at[0].node->height + 1, &up);
        *rows = up;
    }
    if (ap->err || rows->n == 0)
        return NULL;
    struct cw_node *root = rows->at[0].node;
    while (root->height && root->n == 1) {
        replaced_node(ap, root);
        root = cw_node_children(root)[0];
    }
    return root;
}

static struct cw_node *apply_root(struct apply *ap, struct cw_node *root,
                                  const struct cw_edit *edits, size_t n) {
    struct rows rows = {0};
    if (root) {
        apply_node(ap, root, edits, n, &rows);
        if (rows.n > 1)
            name_row(ap, root, 0, &rows);
    } else {
        struct pairs pairs = merge_leaf(ap, NULL, edits, n);
        if (!ap->err)
            cut_leaves(ap, &pairs, &rows);
    }
    return ap->err ? NULL : make_root(ap, &rows);
}

/* Publishes the new root as a version, or on failure takes everything back. */
static enum cw_err finish(struct apply *ap, struct cw_tree *tree, struct cw_node *root,
                          struct cw_tree **out) {
    struct cw_tree *version = NULL;
    if (!ap->err)
        version = cw_forest_add(tree->forest, tree, ap->seq, root, ap->retired.at, ap->retired.n);
    const struct list *unused = version ? &ap->scrapped : &ap->made;
    for (uint32_t i = 0; i < unused->n; i++)
        free_made(ap->mem, unused->at[i]);
    if (!version)
        return CW_ENOMEM;
    *out = version;
    return CW_OK;
}

static bool too_long(const struct cw_edit *edits, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (edits[i].key.n > CW_KEY_MAX || edits[i].payload.n > CW_PAYLOAD_MAX)
            return true;
    return false;
}

enum cw_err cw_tree_apply(struct cw_tree *tree, const struct cw_edit *edits, size_t n,
                          struct cw_tree **out) {
    if (too_long(edits, n))
        return CW_ELIMIT;
    uint64_t space[256];
    struct apply ap = {.mem = tree->forest->mem};
    cw_arena_init(&ap.arena, ap.mem, space, sizeof space);
    ap.seq = atomic_fetch_add(&tree->forest->next_seq, 1);
    struct cw_node *root = n ? apply_root(&ap, tree->root, edits, n) : tree->root;
    enum cw_err err = CW_OK;
    if (!ap.err && root == tree->root)
        *out = cw_tree_retain(tree);
    else
        err = finish(&ap, tree, root, out);
    cw_arena_free(&ap.arena);
    return err;
}
