/* Comparing two trees, of one forest or of two, in time proportional to their differences.
 *
 * Two rows of nodes of one height that cover the same key range are walked side by side. Nodes
 * with the same hash hold the same cells and are skipped. Else each row is extended until both end
 * at the same key again, and their children are walked as two rows one height lower:
 *
 *     x  [a..][f..][k..]        [a..] = [a..]            skipped
 *     y  [a..][f..    h..][k..]   [f..] against [f..][h..]   down, one height
 *
 * The shapes agree wherever the keys do (cw_tree.h), so a row is extended by few nodes. */
#include "cw_arena.h"
#include "cw_forest.h"

struct side {
    const struct cw_node **at;
    uint32_t n;
};

struct diff {
    struct cw_arena arena;
    cw_diff_fn fn;
    void *ctx;
    size_t budget;
};

static bool spend(struct diff *df, size_t n) {
    if (df->budget < n)
        return false;
    df->budget -= n;
    return true;
}

/* ---- leaves: two streams of pairs ---- */

struct stream {
    struct side side;
    uint32_t node, i;
    struct cw_bytes key; /* in `space`; n is 0 past the end, when `done` */
    struct cw_bytes payload;
    bool done;
    uint8_t space[CW_KEY_MAX];
};

static void stream_load(struct stream *s) {
    while (s->node < s->side.n && s->i == s->side.at[s->node]->n) {
        s->node++;
        s->i = 0;
    }
    s->done = s->node == s->side.n;
    if (s->done)
        return;
    const struct cw_node *nd = s->side.at[s->node];
    s->key = cw_bytes(s->space, cw_node_key_len(nd, s->i));
    cw_node_key(nd, s->i, s->space);
    s->payload = cw_node_payload(nd, s->i);
}

static void stream_next(struct stream *s) {
    s->i++;
    stream_load(s);
}

static void stream_open(struct stream *s, struct side side) {
    s->side = side;
    s->node = 0;
    s->i = 0;
    stream_load(s);
}

static enum cw_err diff_pairs(struct diff *df, struct side a, struct side b) {
    struct stream x, y;
    stream_open(&x, a);
    stream_open(&y, b);
    enum cw_err err = CW_OK;
    while (!err && !(x.done && y.done)) {
        int c = x.done ? 1 : y.done ? -1 : cw_bytes_cmp(x.key, y.key);
        if (!spend(df, 1))
            return CW_EBUDGET;
        if (c || !cw_bytes_eq(x.payload, y.payload))
            err = df->fn(df->ctx, c > 0 ? y.key : x.key, c > 0 ? NULL : &x.payload,
                         c < 0 ? NULL : &y.payload);
        if (c <= 0)
            stream_next(&x);
        if (c >= 0)
            stream_next(&y);
    }
    return err;
}

/* ---- rows of nodes ---- */

static CW_NOINLINE int cmp_first_keys(const struct cw_node *a, const struct cw_node *b) {
    uint8_t ka[CW_KEY_MAX], kb[CW_KEY_MAX];
    cw_node_key(a, 0, ka);
    cw_node_key(b, 0, kb);
    return cw_bytes_cmp(cw_bytes(ka, cw_node_key_len(a, 0)), cw_bytes(kb, cw_node_key_len(b, 0)));
}

/* The 8 bytes of the first key from `at` on, which is within the prefix or at its end; zeroes after
 * the key. */
static uint64_t first_head(const struct cw_node *nd, size_t at) {
    const uint8_t *p = cw_node_prefix(nd) + at;
    size_t n = nd->plen - at;
    return n >= 8 ? cw_head(p, n) : cw_head(p, n) | nd->heads[0] >> (8 * n);
}

/* Order of the first keys of two nodes. Prefixes and heads decide nearly always. */
static int cmp_first(const struct cw_node *a, const struct cw_node *b) {
    size_t n = a->plen < b->plen ? a->plen : b->plen;
    int c = cw_memcmp(cw_node_prefix(a), cw_node_prefix(b), n);
    if (c)
        return c;
    uint64_t x = first_head(a, n), y = first_head(b, n);
    if (x != y)
        return x < y ? -1 : 1;
    return cmp_first_keys(a, b);
}

/* Below a leaf nothing is lower: it stands for itself in every row above its height. */
static uint32_t width(const struct cw_node *nd, int height) {
    return nd->height > height ? nd->n : 1;
}

static enum cw_err children_of(struct diff *df, struct side row, int height, struct side *out) {
    size_t n = 0;
    for (uint32_t i = 0; i < row.n; i++)
        n += width(row.at[i], height);
    if (!spend(df, n / 4)) /* a pointer is copied faster than a cell is looked at */
        return CW_EBUDGET;
    out->at = cw_arena_alloc(&df->arena, (n ? n : 1) * sizeof *out->at);
    if (!out->at)
        return CW_ENOMEM;
    out->n = 0;
    for (uint32_t i = 0; i < row.n; i++) {
        const struct cw_node *nd = row.at[i];
        if (nd->height <= height) {
            out->at[out->n++] = nd;
            continue;
        }
        memcpy(out->at + out->n, cw_node_children(nd), nd->n * sizeof *out->at);
        out->n += nd->n;
    }
    return CW_OK;
}

static enum cw_err diff_rows(struct diff *df, struct side a, struct side b, int height);

/* The rows cover the same range and nothing in them is known to be equal. */
static enum cw_err diff_below(struct diff *df, struct side a, struct side b, int height) {
    struct side ca, cb;
    if (height == 0)
        return diff_pairs(df, a, b);
    uint8_t *mark = df->arena.p; /* rows below live only as long as this call */
    size_t left = df->arena.left;
    struct cw_arena_block *blocks = df->arena.blocks;
    enum cw_err err = children_of(df, a, height - 1, &ca);
    if (!err)
        err = children_of(df, b, height - 1, &cb);
    if (!err)
        err = diff_rows(df, ca, cb, height - 1);
    if (df->arena.blocks == blocks) {
        df->arena.p = mark;
        df->arena.left = left;
    }
    return err;
}

/* How many nodes of each row, from `i` and `j` on, until both end at one key. */
static enum cw_err align(struct diff *df, struct side a, uint32_t i, struct side b, uint32_t j,
                         uint32_t *ni, uint32_t *nj) {
    uint32_t ei = i + 1, ej = j + 1;
    while (ei < a.n || ej < b.n) {
        if (!spend(df, 1))
            return CW_EBUDGET;
        int c = ei == a.n ? 1 : ej == b.n ? -1 : cmp_first(a.at[ei], b.at[ej]);
        if (c == 0)
            break;
        if (c < 0)
            ei++;
        else
            ej++;
    }
    *ni = ei - i;
    *nj = ej - j;
    return CW_OK;
}

static enum cw_err diff_rows(struct diff *df, struct side a, struct side b, int height) {
    uint32_t i = 0, j = 0;
    enum cw_err err = CW_OK;
    while (!err && (i < a.n || j < b.n)) {
        if (!spend(df, 1))
            return CW_EBUDGET;
        if (i < a.n && j < b.n &&
            (a.at[i] == b.at[j] || cw_hash_eq(a.at[i]->hash, b.at[j]->hash))) {
            i++;
            j++;
            continue;
        }
        uint32_t ni = a.n - i, nj = b.n - j;
        if (ni && nj)
            err = align(df, a, i, b, j, &ni, &nj);
        if (!err)
            err = diff_below(df, (struct side){a.at + i, ni}, (struct side){b.at + j, nj}, height);
        i += ni;
        j += nj;
    }
    return err;
}

enum cw_err cw_tree_diff(const struct cw_tree *x, const struct cw_tree *y, size_t budget,
                         cw_diff_fn fn, void *ctx) {
    const struct cw_node *a = x->root, *b = y->root;
    if (a == b || cw_hash_eq(cw_tree_hash(x), cw_tree_hash(y)))
        return CW_OK;
    uint64_t space[256];
    struct diff df = {.fn = fn, .ctx = ctx, .budget = budget};
    cw_arena_init(&df.arena, x->forest->mem, space, sizeof space);
    int ha = a ? a->height : 0, hb = b ? b->height : 0;
    enum cw_err err = diff_rows(&df, (struct side){&a, a != NULL}, (struct side){&b, b != NULL},
                                ha > hb ? ha : hb);
    cw_arena_free(&df.arena);
    return err;
}
