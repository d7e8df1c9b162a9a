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
    uint32_t cap;
};

struct list {
    uintptr_t *at;
    uint32_t n;
    uint32_t cap;
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

#define BOX_BIT ((uintptr_t)1)

/* ---- lists in the arena ---- */

static bool list_add(struct apply *ap, struct list *list, uintptr_t v) {
    if (list->n == list->cap) {
        uint32_t cap = list->cap ? list->cap * 2 : 16;
        uintptr_t *at = cw_arena_alloc(&ap->arena, cap * sizeof *at);
        if (!at) {
            ap->err = CW_ENOMEM;
            return false;
        }
        if (list->n)
            memcpy(at, list->at, list->n * sizeof *at);
        list->at = at;
        list->cap = cap;
    }
    list->at[list->n++] = v;
    return true;
}

static void rows_add(struct apply *ap, struct rows *rows, struct row row) {
    if (ap->err)
        return;
    if (rows->n == rows->cap) {
        uint32_t cap = rows->cap ? rows->cap * 2 : 4;
        struct row *at = cw_arena_alloc(&ap->arena, cap * sizeof *at);
        if (!at) {
            ap->err = CW_ENOMEM;
            return;
        }
        if (rows->n)
            memcpy(at, rows->at, rows->n * sizeof *at);
        rows->at = at;
        rows->cap = cap;
    }
    rows->at[rows->n++] = row;
}

/* ---- nodes made and replaced ---- */

static void free_made(const struct cw_mem *mem, uintptr_t v) {
    cw_free(mem, (void *)(v & ~BOX_BIT));
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
    uint64_t birth = *(const uint64_t *)(v & ~BOX_BIT);
    list_add(ap, birth == ap->seq ? &ap->scrapped : &ap->retired, v);
}

static void replaced_node(struct apply *ap, const struct cw_node *nd) {
    replaced(ap, (uintptr_t)nd);
}

static void replaced_box(struct apply *ap, const struct cw_box *box) {
    if (box)
        replaced(ap, (uintptr_t)box | BOX_BIT);
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
        it.box = made(ap, cw_box_new(ap->mem, ap->seq, e->key, e->payload), BOX_BIT);
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

/* ---- the common case: one edit, by copying bytes ----
 *
 * A node changed in one place is copied with its prefix, its order and its encoding as they are:
 * entries [from, to) of it, with one entry put in, replaced or left out. */

struct patch {
    uint32_t from, to;       /* the entries taken */
    uint32_t pos;            /* where the change is: from <= pos <= to */
    uint32_t drop, add;      /* entries there that go, that come: 0 or 1 */
    struct cw_bytes suffix;  /* of the one that comes */
    struct cw_bytes payload; /* leaf */
    struct cw_node *child;   /* inner */
};

static void shift_offs(uint32_t *dst, const uint32_t *src, uint32_t n, uint32_t by) {
    for (uint32_t i = 0; i < n; i++)
        dst[i] = src[i] + by;
}

/* Arrays of `size`-byte elements: heads, children. */
static void patch_array(void *dst, const void *src, const struct patch *p, size_t size) {
    uint32_t before = p->pos - p->from, after = p->to - p->pos - p->drop;
    memcpy(dst, (const uint8_t *)src + p->from * size, before * size);
    memcpy((uint8_t *)dst + (before + p->add) * size,
           (const uint8_t *)src + (p->pos + p->drop) * size, after * size);
}

static void patch_entry(struct cw_node *to, uint32_t at, uint8_t *data, const struct patch *p,
                        uint32_t rest) {
    to->heads[at] = cw_head(p->suffix.p, p->suffix.n);
    if (to->height)
        cw_node_children(to)[at] = p->child;
    *data++ = (uint8_t)p->suffix.n;
    *data++ = (uint8_t)(p->suffix.n >> 8);
    memcpy(data, p->suffix.p + (p->suffix.n - rest), rest);
    if (p->payload.n)
        memcpy(data + rest, p->payload.p, p->payload.n);
}

static struct cw_node *copy_node(struct apply *ap, const struct cw_node *nd) {
    struct cw_node *to = made(ap, cw_alloc(ap->mem, nd->size), 0);
    if (!to)
        return NULL;
    memcpy(to, nd, nd->size);
    to->birth = ap->seq;
    return to;
}

/* Leaves hash and count as they are in `nd`. */
static struct cw_node *patch_node(struct apply *ap, const struct cw_node *nd,
                                  const struct patch *p) {
    if (p->to - p->from == nd->n && p->drop + p->add == 0)
        return copy_node(ap, nd);
    const uint32_t *offs = cw_node_offs(nd);
    uint32_t rest = p->suffix.n > 8 ? (uint32_t)p->suffix.n - 8 : 0;
    uint32_t len = p->add ? 2 + rest + (uint32_t)p->payload.n : 0;
    uint32_t start = offs[p->from], a = offs[p->pos] - start, b = offs[p->pos + p->drop] - start;
    uint32_t n = p->to - p->from - p->drop + p->add, at = p->pos - p->from;
    uint32_t data_len = offs[p->to] - start - (b - a) + len;
    size_t size = cw_node_size(n, nd->height > 0, nd->plen, data_len);
    struct cw_node *to = made(ap, cw_alloc(ap->mem, size), 0);
    if (!to)
        return NULL;
    *to = *nd;
    to->birth = ap->seq;
    to->size = (uint32_t)size;
    to->n = n;
    to->data_len = data_len;
    patch_array(to->heads, nd->heads, p, 8);
    if (nd->height)
        patch_array(cw_node_children(to), cw_node_children(nd), p, sizeof(void *));
    uint32_t *o = cw_node_offs(to);
    shift_offs(o, offs + p->from, at + 1, 0 - start);
    shift_offs(o + at + p->add, offs + p->pos + p->drop, n - at - p->add + 1,
               a + len - b - start);
    memcpy(cw_node_prefix(to), cw_node_prefix(nd), nd->plen);
    uint8_t *data = cw_node_data(to);
    memcpy(data, cw_node_data(nd) + start, a);
    memcpy(data + a + len, cw_node_data(nd) + start + b, data_len - a - len);
    if (p->add)
        patch_entry(to, at, data + a, p, rest);
    return to;
}

static bool shares_prefix(const struct cw_node *nd, struct cw_bytes key) {
    return cw_bytes_has_prefix(key, cw_bytes(cw_node_prefix(nd), nd->plen));
}

static struct cw_bytes suffix_of(const struct cw_node *nd, struct cw_bytes key) {
    return cw_bytes(key.p + nd->plen, key.n - nd->plen);
}

/* Whether the edit at `pos` keeps the leaf's boxes, its prefix and its first key. */
static bool is_simple(const struct cw_node *nd, const struct cw_edit *e, uint32_t pos, bool found) {
    if (found && cw_node_box(nd, pos))
        return false;
    if (e->del)
        return pos > 0 && nd->n > 1;
    if (e->key.n + e->payload.n > CW_INLINE_MAX)
        return false;
    return found || (pos > 0 && shares_prefix(nd, e->key));
}

/* What a node became: itself, another in its place, or two, the second beginning at the key of the
 * edit, which begins nodes up to its level. */
struct outcome {
    struct cw_node *left;
    struct cw_node *right; /* or NULL */
    int level;
};

/* The sum of the hashes of some entries of a leaf. */
static struct cw_hash sum_entries(const struct cw_node *nd, uint32_t from, uint32_t to) {
    uint8_t scratch[CW_KEY_MAX];
    struct cw_hash sum = {0, 0};
    for (uint32_t i = from; i < to; i++)
        sum = cw_hash_add(sum, cw_node_entry_hash(nd, i, scratch));
    return sum;
}

static void split_leaf(struct apply *ap, const struct cw_node *nd, uint32_t pos,
                       struct patch *p, struct cw_hash hash, struct outcome *to) {
    struct patch left = {.from = 0, .to = pos, .pos = pos};
    p->from = pos;
    to->left = patch_node(ap, nd, &left);
    to->right = patch_node(ap, nd, p);
    if (ap->err)
        return;
    bool left_smaller = pos < nd->n / 2;
    struct cw_hash part = left_smaller ? sum_entries(nd, 0, pos)
                                       : sum_entries(to->right, 0, to->right->n);
    struct cw_hash other = cw_hash_sub(hash, part);
    to->left->hash = left_smaller ? part : other;
    to->right->hash = left_smaller ? other : part;
    to->left->count = to->left->n;
    to->right->count = to->right->n;
}

/* True when it did the edit. */
static bool simple_edit(struct apply *ap, struct cw_node *nd, const struct cw_edit *e,
                        struct outcome *to) {
    bool found;
    uint32_t pos = cw_node_search(nd, e->key, &found);
    *to = (struct outcome){.left = nd};
    if (!found && e->del)
        return true;
    if (!is_simple(nd, e, pos, found))
        return false;
    struct cw_hash hash = nd->hash;
    if (found)
        hash = cw_hash_sub(hash, cw_hash_cell(e->key, cw_node_payload(nd, pos)));
    if (!e->del)
        hash = cw_hash_add(hash, cw_hash_cell(e->key, e->payload));
    struct patch p = {.to = nd->n, .pos = pos, .drop = found, .add = !e->del};
    if (p.add) {
        p.suffix = suffix_of(nd, e->key);
        p.payload = e->payload;
    }
    to->level = found || e->del ? 0 : cw_key_level(e->key);
    replaced_node(ap, nd);
    if (to->level > 0) {
        split_leaf(ap, nd, pos, &p, hash, to);
        return true;
    }
    to->left = patch_node(ap, nd, &p);
    if (to->left) {
        to->left->hash = hash;
        to->left->count = to->left->n;
    }
    return true;
}

static void apply_leaf(struct apply *ap, struct cw_node *nd, const struct cw_edit *edits, size_t n,
                       struct rows *out) {
    struct outcome to;
    if (n == 1 && simple_edit(ap, nd, edits, &to)) {
        /* the first key is the old one, and the parent has it */
        rows_add(ap, out, (struct row){to.left, cw_bytes(NULL, 0), false});
        if (to.right)
            rows_add(ap, out, (struct row){to.right, edits->key, true});
        return;
    }
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

/* The number of leading edits that fall into child `i`. */
static size_t edits_of_child(const struct cw_node *nd, uint32_t i, const struct cw_edit *edits,
                             size_t n) {
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (cw_node_route(nd, edits[mid].key) <= i)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* A copy of `nd` with other children at `at`. */
static struct cw_node *patch_inner(struct apply *ap, const struct cw_node *nd, const uint32_t *at,
                                   struct cw_node *const *children, uint32_t n) {
    struct cw_node *to = copy_node(ap, nd);
    for (uint32_t k = 0; to && k < n; k++) {
        struct cw_node *old = cw_node_children(nd)[at[k]];
        struct cw_node *child = children[k];
        to->hash = cw_hash_add(cw_hash_sub(to->hash, old->hash), child->hash);
        to->count += child->count - old->count;
        cw_node_children(to)[at[k]] = child;
    }
    return to;
}

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

/* A row whose first key did not change comes without the key: the parent's copy of it is used. */
static bool keeps_place(struct apply *ap, const struct cw_node *nd, uint32_t i, struct rows *got) {
    if (got->n && !got->at[0].fresh && !got->at[0].key.p)
        return got->n == 1;
    if (got->n == 0)
        return false;
    struct cw_bytes was = copy_key(ap, nd, i);
    if (ap->err || !cw_bytes_eq(was, got->at[0].key))
        return false;
    return got->n == 1;
}

static void name_row(struct apply *ap, const struct cw_node *nd, uint32_t i, struct rows *got) {
    if (got->n && !got->at[0].key.p)
        got->at[0].key = copy_key(ap, nd, i);
}

static void apply_inner(struct apply *ap, struct cw_node *nd, const struct cw_edit *edits, size_t n,
                        struct rows *out) {
    uint32_t room = n < nd->n ? (uint32_t)n : nd->n;
    uint32_t *at = cw_arena_alloc(&ap->arena, room * sizeof *at);
    struct rows *got = cw_arena_alloc(&ap->arena, room * sizeof *got);
    struct cw_node **children = cw_arena_alloc(&ap->arena, room * sizeof *children);
    if (!at || !got || !children) {
        ap->err = CW_ENOMEM;
        return;
    }
    uint32_t m = 0;
    bool same_shape = true, same = true;
    for (size_t k = 0; k < n && !ap->err; m++) {
        uint32_t i = cw_node_route(nd, edits[k].key);
        size_t take = n == 1 ? 1 : edits_of_child(nd, i, edits + k, n - k);
        at[m] = i;
        got[m] = (struct rows){0};
        apply_node(ap, cw_node_children(nd)[i], edits + k, take, &got[m]);
        same_shape = same_shape && !ap->err && keeps_place(ap, nd, i, &got[m]);
        children[m] = same_shape ? got[m].at[0].node : NULL;
        same = same && children[m] == cw_node_children(nd)[i];
        k += take;
    }
    if (ap->err)
        return;
    if (same) {
        rows_add(ap, out, (struct row){nd, cw_bytes(NULL, 0), false});
        return;
    }
    if (same_shape) {
        struct cw_node *to = patch_inner(ap, nd, at, children, m);
        rows_add(ap, out, (struct row){to, cw_bytes(NULL, 0), false});
    } else {
        for (uint32_t k = 0; k < m; k++)
            name_row(ap, nd, at[k], &got[k]);
        rebuild_inner(ap, nd, at, got, m, out);
    }
    if (!ap->err)
        replaced_node(ap, nd);
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

/* One child of `nd` became `to`; `nd` becomes `*to` in turn. */
static void lift(struct apply *ap, struct cw_node *nd, uint32_t i, struct cw_bytes key,
                 struct outcome *to) {
    struct cw_node *old = cw_node_children(nd)[i], *left = to->left, *right = to->right;
    struct cw_hash hash = cw_hash_sub(nd->hash, old->hash);
    uint64_t count = nd->count - old->count;
    struct patch p = {.to = nd->n, .pos = i + 1};
    struct cw_node *upper = NULL;
    if (right) {
        p.add = 1;
        p.suffix = suffix_of(nd, key);
        p.child = right;
        if (to->level > nd->height) { /* `key` begins a node here too */
            struct patch rest = p;
            rest.from = p.to = i + 1;
            p.add = 0;
            p.suffix.n = 0;
            upper = patch_node(ap, nd, &rest);
        }
    }
    struct cw_node *lower = patch_node(ap, nd, &p);
    replaced_node(ap, nd);
    *to = (struct outcome){lower, upper, to->level};
    if (ap->err)
        return;
    cw_node_children(lower)[i] = left;
    lower->hash = cw_hash_add(hash, left->hash);
    lower->count = count + left->count;
    if (right && !upper) {
        lower->hash = cw_hash_add(lower->hash, right->hash);
        lower->count += right->count;
    }
    if (!upper)
        return;
    upper->hash = right->hash;
    upper->count = right->count;
    for (uint32_t k = i + 1; k < nd->n; k++) {
        upper->hash = cw_hash_add(upper->hash, cw_node_children(nd)[k]->hash);
        upper->count += cw_node_children(nd)[k]->count;
    }
    lower->hash = cw_hash_sub(lower->hash, cw_hash_sub(upper->hash, right->hash));
    lower->count -= upper->count - right->count;
}

/* The common case from end to end: one edit that copies of the nodes on its path absorb. False when
 * it does not fit them, and the general way must be gone. */
static bool apply_simple(struct apply *ap, struct cw_node *root, const struct cw_edit *e,
                         struct outcome *to) {
    struct cw_node *path[CW_TREE_HEIGHT_MAX];
    uint32_t at[CW_TREE_HEIGHT_MAX];
    struct cw_node *nd = root;
    int depth = 0;
    while (nd->height) {
        if (!e->del && !shares_prefix(nd, e->key))
            return false;
        path[depth] = nd;
        at[depth] = cw_node_route(nd, e->key);
        nd = cw_node_children(nd)[at[depth++]];
    }
    if (!simple_edit(ap, nd, e, to))
        return false;
    if (to->left == nd) {
        to->left = root;
        return true;
    }
    while (depth-- > 0 && !ap->err)
        lift(ap, path[depth], at[depth], e->key, to);
    return true;
}

static struct cw_node *apply_root(struct apply *ap, struct cw_node *root,
                                  const struct cw_edit *edits, size_t n) {
    struct rows rows = {0};
    struct outcome to;
    if (n == 1 && root && apply_simple(ap, root, edits, &to)) {
        if (ap->err || !to.right)
            return ap->err ? NULL : to.left;
        rows_add(ap, &rows, (struct row){to.left, copy_key(ap, root, 0), true});
        rows_add(ap, &rows, (struct row){to.right, edits->key, true});
    } else if (root) {
        apply_node(ap, root, edits, n, &rows);
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
