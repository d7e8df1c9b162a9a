#include "cw_forest.h"

/* ---- versions ---- */

static void push_request(struct cw_forest *forest, struct cw_request *rq) {
    rq->next = atomic_load_explicit(&forest->requests, memory_order_relaxed);
    while (!atomic_compare_exchange_weak(&forest->requests, &rq->next, rq))
        ;
}

struct cw_tree *cw_forest_add(struct cw_forest *forest, struct cw_tree *parent, uint64_t seq,
                              struct cw_node *root, const uintptr_t *retired, uint32_t n) {
    struct cw_retired *list;
    struct cw_tree *tree = cw_alloc(forest->mem, sizeof *tree + sizeof *list + n * sizeof *retired);
    if (!tree)
        return NULL;
    *tree = (struct cw_tree){.forest = forest, .root = root, .seq = seq, .parent = parent};
    atomic_init(&tree->refs, 1);
    tree->link.tree = tree;
    tree->unlink = (struct cw_request){.tree = tree, .release = true};
    if (n) {
        list = (struct cw_retired *)(tree + 1);
        *list = (struct cw_retired){.tree = tree, .block = tree, .n = n};
        memcpy(list->at, retired, n * sizeof *retired);
        tree->own_retired = tree->retired = tree->retired_last = list;
    }
    atomic_fetch_add(&forest->versions, 1);
    if (parent)
        push_request(forest, &tree->link);
    return tree;
}

struct cw_tree *cw_tree_new(const struct cw_mem *mem) {
    struct cw_forest *forest = cw_alloc(mem, sizeof *forest);
    if (!forest)
        return NULL;
    forest->mem = mem;
    atomic_init(&forest->next_seq, 2);
    atomic_init(&forest->versions, 0);
    atomic_flag_clear(&forest->busy);
    atomic_init(&forest->requests, NULL);
    forest->queue = NULL;
    forest->queue_end = &forest->queue;
    forest->ripe = NULL;
    forest->at = NULL;
    forest->looked = forest->kept = 0;
    forest->garbage = NULL;
    struct cw_tree *tree = cw_forest_add(forest, NULL, 1, NULL, NULL, 0);
    if (!tree)
        cw_free(mem, forest);
    return tree;
}

struct cw_tree *cw_tree_retain(struct cw_tree *tree) {
    atomic_fetch_add_explicit(&tree->refs, 1, memory_order_relaxed);
    return tree;
}

void cw_forest_drop_token(struct cw_forest *forest) {
    if (atomic_fetch_sub(&forest->versions, 1) == 1)
        cw_free(forest->mem, forest);
}

/* ---- garbage ----
 *
 * Nodes waiting to be freed are a list through `hash.lo`, so that freeing needs no memory; `count`
 * holds the birth after which the nodes below one are doomed with it. A doomed node's other
 * children belong to other versions; their births are read when it is freed, which is why no
 * version is forgotten while there is garbage of the one before. */

#define ALONE UINT64_MAX /* as `count`: nothing below it is doomed */

static void doom(struct cw_forest *forest, struct cw_node *nd, uint64_t after) {
    nd->count = after;
    nd->hash.lo = (uint64_t)(uintptr_t)forest->garbage;
    forest->garbage = nd;
}

static void doom_below(struct cw_forest *forest, const struct cw_node *nd) {
    uint64_t after = nd->count;
    for (uint32_t i = 0; nd->height && i < nd->n; i++) {
        struct cw_node *child = cw_node_children(nd)[i];
        if (child->birth > after)
            doom(forest, child, after);
    }
    for (uint32_t i = 0; nd->boxes && i < nd->n; i++) {
        struct cw_box *box = cw_node_box(nd, i);
        if (box && box->birth > after)
            cw_free(forest->mem, box);
    }
}

/* True when garbage remains. */
static bool sweep(struct cw_forest *forest, size_t *budget) {
    while (forest->garbage && *budget) {
        --*budget;
        struct cw_node *nd = forest->garbage;
        forest->garbage = (struct cw_node *)(uintptr_t)nd->hash.lo;
        if (nd->count != ALONE)
            doom_below(forest, nd);
        cw_free(forest->mem, nd);
    }
    return forest->garbage != NULL;
}

/* ---- reclamation ---- */

static uint64_t retired_birth(uintptr_t at) {
    return *(const uint64_t *)(at & ~CW_BOX_BIT);
}

static void free_retired(struct cw_forest *forest, uintptr_t at) {
    if (at & CW_BOX_BIT)
        cw_free(forest->mem, (void *)(at & ~CW_BOX_BIT));
    else
        doom(forest, (struct cw_node *)at, ALONE);
}

/* The list is in no chain any more. */
static void drop_list(struct cw_forest *forest, struct cw_retired *list) {
    if (list->tree)
        list->n = 0; /* its version frees the block */
    else
        cw_free(forest->mem, list->block);
}

static bool spend(size_t *budget) {
    return *budget && (*budget)--;
}

/* True when all are dropped. */
static bool drop_lists(struct cw_forest *forest, struct cw_tree *tree, size_t *budget) {
    while (tree->retired) {
        if (!spend(budget))
            return false;
        struct cw_retired *next = tree->retired->next;
        drop_list(forest, tree->retired);
        tree->retired = next;
    }
    return true;
}

/* Frees the version, or leaves that to its own list if that is still needed. */
static void free_version(struct cw_forest *forest, struct cw_tree *tree, struct cw_retired *own) {
    if (own && own->n)
        own->tree = NULL;
    else
        cw_free(forest->mem, tree);
    atomic_fetch_sub(&forest->versions, 1);
}

/* Looks at the next few entries of a list. */
static void filter_some(struct cw_forest *forest, struct cw_retired *list, uint64_t after) {
    uint32_t from = forest->looked, n = list->n - from;
    if (n > CW_FOREST_LOOKS)
        n = CW_FOREST_LOOKS;
    for (uint32_t i = from; i < from + n; i++) /* they have not been looked at for a while */
        __builtin_prefetch((const void *)(list->at[i] & ~CW_BOX_BIT), 1);
    for (uint32_t i = from; i < from + n; i++) {
        if (retired_birth(list->at[i]) > after)
            free_retired(forest, list->at[i]);
        else
            list->at[forest->kept++] = list->at[i];
    }
    forest->looked += n;
}

/* All of the list at hand was looked at: it is dropped if it is empty now. */
static void filtered(struct cw_forest *forest, struct cw_tree *tree) {
    struct cw_retired *list = *forest->at;
    list->n = forest->kept;
    if (list->n) {
        tree->retired_last = list;
        forest->at = &list->next;
    } else {
        *forest->at = list->next;
        drop_list(forest, list);
    }
    forest->looked = forest->kept = 0;
}

/* Frees from `tree`'s retired nodes those born after `after`; drops lists that become empty. True
 * when that is done; else it goes on with the next call. */
static bool filter_retired(struct cw_forest *forest, struct cw_tree *tree, uint64_t after,
                           size_t *budget) {
    if (!forest->at) {
        forest->at = &tree->retired;
        tree->retired_last = NULL;
    }
    while (*forest->at) {
        struct cw_retired *list = *forest->at;
        while (forest->looked < list->n) {
            if (!spend(budget))
                return false;
            filter_some(forest, list, after);
        }
        filtered(forest, tree);
    }
    forest->at = NULL;
    return true;
}

static void append_retired(struct cw_tree *to, struct cw_tree *from) {
    if (!from->retired)
        return;
    if (to->retired)
        to->retired_last->next = from->retired;
    else
        to->retired = from->retired;
    to->retired_last = from->retired_last;
}

static void adopt(struct cw_tree *parent, struct cw_tree *child) {
    child->parent = parent;
    child->prev = NULL;
    child->next = NULL;
    if (!parent)
        return;
    child->next = parent->first_child;
    if (child->next)
        child->next->prev = child;
    parent->first_child = child;
    parent->children++;
}

static void disown(struct cw_tree *child) {
    struct cw_tree *parent = child->parent;
    if (!parent)
        return;
    if (child->prev)
        child->prev->next = child->next;
    else
        parent->first_child = child->next;
    if (child->next)
        child->next->prev = child->prev;
    parent->children--;
}

static bool is_ripe(const struct cw_tree *tree) {
    return tree && tree->released && tree->children < 2;
}

/* Forgets a ripe version; its parent may be ripe then. False when the budget did not suffice: then
 * everything is as it was, but for the entries looked at. */
static bool forget(struct cw_tree *tree, size_t *budget) {
    struct cw_forest *forest = tree->forest;
    struct cw_tree *parent = tree->parent, *child = tree->children ? tree->first_child : NULL;
    struct cw_retired *own = tree->own_retired;
    uint64_t after = parent ? parent->seq : 0;
    if (!(child ? filter_retired(forest, child, after, budget) : drop_lists(forest, tree, budget)))
        return false;
    disown(tree);
    if (child) {
        append_retired(child, tree);
        adopt(parent, child);
    } else if (tree->root && tree->root->birth > after) {
        doom(forest, tree->root, after);
    }
    free_version(forest, tree, own);
    forest->ripe = is_ripe(parent) ? parent : NULL;
    return true;
}

/* ---- requests ---- */

static void take_requests(struct cw_forest *forest) {
    struct cw_request *rq = atomic_exchange(&forest->requests, NULL), *fifo = NULL;
    struct cw_request **end = rq ? &rq->next : forest->queue_end;
    while (rq) {
        struct cw_request *next = rq->next;
        rq->next = fifo;
        fifo = rq;
        rq = next;
    }
    *forest->queue_end = fifo;
    forest->queue_end = end;
}

static struct cw_request *next_request(struct cw_forest *forest) {
    struct cw_request *rq = forest->queue;
    if (!rq)
        return NULL;
    forest->queue = rq->next;
    if (!forest->queue)
        forest->queue_end = &forest->queue;
    return rq;
}

static void serve_request(const struct cw_request *rq) {
    struct cw_tree *tree = rq->tree;
    if (!rq->release) {
        adopt(tree->parent, tree);
        return;
    }
    tree->released = true;
    if (is_ripe(tree))
        tree->forest->ripe = tree;
}

/* True when there is more to do than the budget allows. */
static bool work(struct cw_forest *forest, size_t *budget) {
    take_requests(forest);
    while (!sweep(forest, budget)) {
        if (forest->ripe) {
            if (!forget(forest->ripe, budget))
                return true;
            continue;
        }
        const struct cw_request *rq = next_request(forest);
        if (!rq)
            return false;
        serve_request(rq);
    }
    return true;
}

bool cw_forest_serve(struct cw_forest *forest, size_t budget) {
    bool more = false;
    do {
        if (atomic_flag_test_and_set(&forest->busy))
            return false; /* its holder looks again after letting go, or has a token to */
        more = work(forest, &budget);
        atomic_flag_clear(&forest->busy);
    } while (!more && atomic_load(&forest->requests));
    return more;
}

struct cw_forest *cw_tree_release_some(struct cw_tree *tree, size_t budget) {
    if (!tree || atomic_fetch_sub(&tree->refs, 1) != 1)
        return NULL;
    struct cw_forest *forest = tree->forest;
    atomic_fetch_add(&forest->versions, 1);
    push_request(forest, &tree->unlink);
    if (cw_forest_serve(forest, budget))
        return forest;
    cw_forest_drop_token(forest);
    return NULL;
}

void cw_forest_drain(struct cw_forest *forest) {
    while (cw_forest_serve(forest, SIZE_MAX))
        ;
    cw_forest_drop_token(forest);
}

void cw_tree_release(struct cw_tree *tree) {
    struct cw_forest *forest = cw_tree_release_some(tree, SIZE_MAX);
    if (forest)
        cw_forest_drain(forest);
}
