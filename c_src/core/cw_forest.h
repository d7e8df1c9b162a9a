/* Which nodes may be freed: the versions of one forest, and the reclamation of what none needs.
 *
 * Counting references to nodes would cost two atomic operations for each sibling of each node that
 * an update copies. Instead every node carries its birth, the sequence number of the version that
 * made it, and every version lists the nodes that it replaced (`retired`): those are in its parent
 * and not in it. Along a line of descent a node is in an unbroken run of versions, from its birth
 * to its retirement, hence, as in the file systems that keep snapshots this way:
 *
 *     parent P  <-  version V, released  <-  its only child C
 *
 *     a node retired at C and born after P was needed by V alone: freed; one born before is still
 *     in P: it joins the nodes that are retired between P and C. Then V is forgotten.
 *
 * A released version without children frees the nodes born after its parent; one with several
 * waits until one is left. An update costs nothing for it but the list of the nodes it copied.
 *
 * All this happens under a lock nobody waits for: a request is pushed on a list, and whoever
 * finds the lock free serves what is there. */
#ifndef CW_FOREST_H
#define CW_FOREST_H

#include <stdatomic.h>

#include "cw_node.h"

#define CW_BOX_BIT ((uintptr_t)1)

/* What a version retired: node pointers, or box pointers with the low bit set. It is made in one
 * block with its version, and may have to outlive it. */
struct cw_retired {
    struct cw_retired *next;
    struct cw_tree *tree; /* the version in whose block this is; NULL once that is forgotten */
    void *block;
    uint32_t n;
    uintptr_t at[];
};

#define CW_FOREST_LOOKS 16u

/* A request: `tree` was made from its parent, or has lost its last reference. */
struct cw_request {
    struct cw_request *next;
    struct cw_tree *tree;
    bool release;
};

struct cw_tree {
    struct cw_forest *forest;
    struct cw_node *root; /* NULL when empty */
    uint64_t seq;
    atomic_uint refs;
    /* guarded by the forest's lock from here on */
    bool released;
    uint32_t children;
    struct cw_tree *parent;
    struct cw_tree *first_child;
    struct cw_tree *next; /* among the parent's children */
    struct cw_tree *prev;
    struct cw_retired *own_retired; /* in this block, or NULL */
    struct cw_retired *retired;
    struct cw_retired *retired_last;
    struct cw_request link;
    struct cw_request unlink;
};

struct cw_forest {
    const struct cw_mem *mem;
    atomic_ullong next_seq;
    atomic_size_t versions; /* alive, plus tokens handed out; the last one frees the forest */
    atomic_flag busy;
    _Atomic(struct cw_request *) requests; /* newest first */
    /* guarded by `busy` from here on */
    struct cw_request *queue; /* taken from `requests`, oldest first */
    struct cw_request **queue_end;
    struct cw_tree *ripe;    /* released, with at most one child: next to be forgotten */
    struct cw_retired **at;  /* of its child's lists, the one at hand; NULL: not begun */
    uint32_t looked;         /* at entries of that list; */
    uint32_t kept;           /* these, now at its beginning, stay */
    struct cw_node *garbage; /* linked through `hash.lo`; freed before anything else is done */
};

/* A version of `parent` (NULL for the first of the forest) with the given root, which owns all
 * nodes born at `seq`. The `n` nodes in `retired` stay for as long as the parent needs them. NULL
 * without memory. */
struct cw_tree *cw_forest_add(struct cw_forest *forest, struct cw_tree *parent, uint64_t seq,
                              struct cw_node *root, const uintptr_t *retired, uint32_t n);

/* Serves waiting requests and frees at most `budget` nodes (looking at CW_FOREST_LOOKS retired ones
 * costs as much as freeing one); true when some are left. The caller
 * holds a version or a token, so that the forest outlives the call. */
bool cw_forest_serve(struct cw_forest *forest, size_t budget);

/* Consumes a token of cw_tree_release_some: frees all that is free to go. */
void cw_forest_drain(struct cw_forest *forest);

/* Consumes a token whose work another token's holder will do. */
void cw_forest_drop_token(struct cw_forest *forest);

#endif
