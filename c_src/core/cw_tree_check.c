/* The invariants of cw_tree.h and cw_node.h, walked. */
#include "cw_forest.h"

struct check {
    struct cw_bytes last; /* the key before, in `space` */
    bool any;
    uint8_t space[CW_KEY_MAX];
    const char *fault;
};

static void fault(struct check *ck, const char *what) {
    if (!ck->fault)
        ck->fault = what;
}

static void check_key(struct check *ck, const struct cw_node *nd, uint32_t i, bool is_first) {
    uint8_t key[CW_KEY_MAX];
    struct cw_bytes k = cw_bytes(key, cw_node_key_len(nd, i));
    cw_node_key(nd, i, key);
    if (ck->any && cw_bytes_cmp(ck->last, k) >= 0)
        fault(ck, "keys are not ascending");
    if (!is_first && cw_key_level(k) > 0)
        fault(ck, "a leaf goes on past a key that begins one");
    bool found;
    if (cw_node_search(nd, k, &found) != i || !found)
        fault(ck, "a key is not found in its leaf");
    memcpy(ck->space, key, k.n);
    ck->last = cw_bytes(ck->space, k.n);
    ck->any = true;
}

static struct cw_range check_leaf(struct check *ck, const struct cw_node *nd) {
    struct cw_range sum = {{0, 0}, nd->n};
    uint8_t scratch[CW_KEY_MAX];
    for (uint32_t i = 0; i < nd->n; i++) {
        check_key(ck, nd, i, i == 0);
        cw_node_key(nd, i, scratch);
        struct cw_hash h =
            cw_hash_cell(cw_bytes(scratch, cw_node_key_len(nd, i)), cw_node_payload(nd, i));
        sum.hash = cw_hash_add(sum.hash, h);
        const struct cw_box *box = cw_node_box(nd, i);
        if (box && (!cw_hash_eq(box->hash, h) || box->birth > nd->birth))
            fault(ck, "a box is stale");
    }
    return sum;
}

static void check_node(struct check *ck, const struct cw_node *nd, bool leftmost);

static struct cw_range check_inner(struct check *ck, const struct cw_node *nd, bool leftmost) {
    struct cw_range sum = {{0, 0}, 0};
    uint8_t sep[CW_KEY_MAX], first[CW_KEY_MAX];
    for (uint32_t i = 0; i < nd->n && !ck->fault; i++) {
        const struct cw_node *child = cw_node_children(nd)[i];
        if (child->height != nd->height - 1)
            fault(ck, "a child is of the wrong height");
        if (child->birth > nd->birth)
            fault(ck, "a child is younger than its parent");
        struct cw_bytes a = cw_bytes(sep, cw_node_key_len(nd, i));
        struct cw_bytes b = cw_bytes(first, cw_node_key_len(child, 0));
        cw_node_key(nd, i, sep);
        cw_node_key(child, 0, first);
        if (!cw_bytes_eq(a, b))
            fault(ck, "a separator is not its child's first key");
        if (i > 0 && cw_key_level(a) != nd->height)
            fault(ck, "a key begins nodes at other heights than its level says");
        check_node(ck, child, leftmost && i == 0);
        sum.hash = cw_hash_add(sum.hash, child->hash);
        sum.count += child->count;
    }
    return sum;
}

static void check_node(struct check *ck, const struct cw_node *nd, bool leftmost) {
    if (nd->n == 0) {
        fault(ck, "a node is empty");
        return;
    }
    uint8_t key[CW_KEY_MAX];
    cw_node_key(nd, 0, key);
    if (!leftmost && cw_key_level(cw_bytes(key, cw_node_key_len(nd, 0))) <= nd->height)
        fault(ck, "a node begins with a key of too low a level");
    struct cw_range sum = nd->height ? check_inner(ck, nd, leftmost) : check_leaf(ck, nd);
    if (!cw_hash_eq(sum.hash, nd->hash))
        fault(ck, "a hash is not the sum of its cells'");
    if (sum.count != nd->count)
        fault(ck, "a count is wrong");
}

const char *cw_tree_check(const struct cw_tree *tree) {
    if (!tree->root)
        return NULL;
    if (tree->root->height && tree->root->n == 1)
        return "the root has one child";
    static _Thread_local struct check ck;
    ck = (struct check){0};
    check_node(&ck, tree->root, true);
    return ck.fault;
}
