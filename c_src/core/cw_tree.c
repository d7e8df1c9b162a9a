/* Reading one version: by key, in order, by range. */
#include "cw_tree.h"

#include "cw_forest.h"

uint64_t cw_tree_count(const struct cw_tree *tree) {
    return tree->root ? tree->root->count : 0;
}

struct cw_hash cw_tree_hash(const struct cw_tree *tree) {
    return tree->root ? tree->root->hash : (struct cw_hash){0, 0};
}

static size_t node_bytes(const struct cw_node *nd) {
    size_t sum = nd->size;
    for (uint32_t i = 0; nd->height && i < nd->n; i++)
        sum += node_bytes(cw_node_children(nd)[i]);
    for (uint32_t i = 0; nd->boxes && i < nd->n; i++) {
        const struct cw_box *box = cw_node_box(nd, i);
        if (box)
            sum += sizeof *box + box->klen + box->vlen;
    }
    return sum;
}

size_t cw_tree_bytes(const struct cw_tree *tree) {
    return tree->root ? node_bytes(tree->root) : 0;
}

/* ---- by key ---- */

static bool begins_with(const struct cw_node *nd, uint32_t i, struct cw_bytes want) {
    uint8_t key[CW_KEY_MAX];
    uint32_t n = cw_node_key_len(nd, i);
    if (n < want.n)
        return false;
    cw_node_key(nd, i, key);
    return memcmp(key, want.p, want.n) == 0;
}

bool cw_tree_probe(const struct cw_tree *tree, struct cw_bytes key, size_t shared,
                   struct cw_bytes *payload, bool *near) {
    const struct cw_node *nd = tree->root;
    *near = false;
    if (!nd)
        return false;
    while (nd->height)
        nd = cw_node_children(nd)[cw_node_route(nd, key)];
    bool found;
    uint32_t i = cw_node_search(nd, key, &found);
    if (found) {
        *payload = cw_node_payload(nd, i);
        return true;
    }
    struct cw_bytes want = cw_bytes(key.p, shared);
    if (nd->n > 1 && shared <= nd->plen) /* the prefix decides for every entry at once */
        *near = cw_bytes_has_prefix(cw_bytes(cw_node_prefix(nd), nd->plen), want);
    else
        *near = (i > 0 && begins_with(nd, i - 1, want)) || (i < nd->n && begins_with(nd, i, want));
    return false;
}

bool cw_tree_get(const struct cw_tree *tree, struct cw_bytes key, struct cw_bytes *payload) {
    const struct cw_node *nd = tree->root;
    if (!nd)
        return false;
    while (nd->height)
        nd = cw_node_children(nd)[cw_node_route(nd, key)];
    bool found;
    uint32_t i = cw_node_search(nd, key, &found);
    if (found)
        *payload = cw_node_payload(nd, i);
    return found;
}

/* ---- in order ---- */

static void load(struct cw_cursor *cur) {
    const struct cw_node *leaf = cur->path[cur->depth].node;
    uint32_t i = cur->path[cur->depth].i;
    cur->key_len = cw_node_key_len(leaf, i);
    cw_node_key(leaf, i, cur->key);
    cur->payload = cw_node_payload(leaf, i);
}

/* From a position that may be past its leaf's end to the next cell. */
static bool settle(struct cw_cursor *cur) {
    while (cur->path[cur->depth].i == cur->path[cur->depth].node->n) {
        if (cur->depth-- == 0)
            return false;
        cur->path[cur->depth].i++;
    }
    while (cur->path[cur->depth].node->height) {
        const struct cw_node *nd = cur->path[cur->depth].node;
        const struct cw_node *child = cw_node_children(nd)[cur->path[cur->depth].i];
        cur->path[++cur->depth].node = child;
        cur->path[cur->depth].i = 0;
    }
    load(cur);
    return true;
}

bool cw_cursor_seek(struct cw_cursor *cur, const struct cw_tree *tree, struct cw_bytes from) {
    const struct cw_node *nd = tree->root;
    cur->tree = tree;
    cur->depth = -1;
    if (!nd)
        return false;
    while (nd->height) {
        uint32_t i = cw_node_route(nd, from);
        cur->path[++cur->depth].node = nd;
        cur->path[cur->depth].i = i;
        nd = cw_node_children(nd)[i];
    }
    bool found;
    cur->path[++cur->depth].node = nd;
    cur->path[cur->depth].i = cw_node_search(nd, from, &found);
    return settle(cur);
}

bool cw_cursor_next(struct cw_cursor *cur) {
    if (cur->depth < 0)
        return false;
    cur->path[cur->depth].i++;
    return settle(cur);
}

/* ---- ranges ---- */

static void range_add(struct cw_range *sum, const struct cw_node *nd) {
    sum->hash = cw_hash_add(sum->hash, nd->hash);
    sum->count += nd->count;
}

/* Of the cells below `key`. */
static struct cw_range below(const struct cw_node *nd, struct cw_bytes key) {
    struct cw_range sum = {{0, 0}, 0};
    while (nd && nd->height) {
        uint32_t at = cw_node_route(nd, key);
        for (uint32_t i = 0; i < at; i++)
            range_add(&sum, cw_node_children(nd)[i]);
        nd = cw_node_children(nd)[at];
    }
    uint8_t scratch[CW_KEY_MAX];
    bool found;
    uint32_t n = nd ? cw_node_search(nd, key, &found) : 0;
    for (uint32_t i = 0; i < n; i++)
        sum.hash = cw_hash_add(sum.hash, cw_node_entry_hash(nd, i, scratch));
    sum.count += n;
    return sum;
}

struct cw_range cw_tree_range(const struct cw_tree *tree, struct cw_bytes lo,
                              const struct cw_bytes *hi) {
    struct cw_range a = below(tree->root, lo);
    struct cw_range b = {cw_tree_hash(tree), cw_tree_count(tree)};
    if (hi)
        b = cw_bytes_cmp(*hi, lo) > 0 ? below(tree->root, *hi) : a;
    return (struct cw_range){cw_hash_sub(b.hash, a.hash), b.count - a.count};
}
