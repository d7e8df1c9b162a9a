/* The persistent Merkle search tree that holds every cell of a document or bucket.
 *
 * A `struct cw_tree` is one immutable version: a sorted set of (key, payload) pairs. Changing it
 * makes a new version that shares all nodes off the changed paths; the old one stays as it was.
 *
 * Shape. Leaves hold the pairs, inner nodes the leaves. Each key has a level, the number of
 * trailing zero groups of its mixed hash; a key of level > h begins a new node at height h, so
 * the shape is a function of the content and of this process's secret alone, whatever the history:
 *
 *     keys      a  b  C  d  e  F  g  H  i       level(C) = level(H) = 1, level(F) = 2
 *     leaves   [a  b][C  d  e][F  g][H  i]
 *     height 1 [a     C      ][F     H   ]
 *     height 2 [a              F         ]      the root: one node, never with one child
 *
 * Hash. A node's hash is the sum of its cells' (cw_hash.h): a function of the content only, equal
 * in every process, for every subtree and every key range.
 *
 * Memory. Versions made from one another form a forest that shares nodes without counting
 * references; forest reclamation is explained in cw_forest.h.
 *
 * Threads. A version may be read from any number of threads, and new versions may be made from it
 * concurrently. */
#ifndef CW_TREE_H
#define CW_TREE_H

#include "cw_bytes.h"
#include "cw_err.h"
#include "cw_hash.h"
#include "cw_mem.h"

#define CW_KEY_MAX 8192u          /* bytes of one key */
#define CW_PAYLOAD_MAX UINT32_MAX /* bytes of one payload */
#define CW_TREE_HEIGHT_MAX 16     /* a key's level is capped one below */

struct cw_tree;
struct cw_node;

/* The secret that hides from strangers which keys end a node, so that nobody can send keys that
 * all fall into one. Set once, before the first tree; every tree of a process uses the same. */
void cw_tree_secret(uint64_t secret);

/* An empty tree, the root of a new forest. The caller owns one reference. NULL without memory. */
struct cw_tree *cw_tree_new(const struct cw_mem *mem);

/* One more reference; returns `tree`. */
struct cw_tree *cw_tree_retain(struct cw_tree *tree);

/* Gives one reference back; NULL is ignored. What no version needs any more is freed before it
 * returns, unless another thread is at that already. */
void cw_tree_release(struct cw_tree *tree);

/* cw_tree_release, then reclaims what no version needs any more, at most about `budget` nodes now
 * (SIZE_MAX for all). When more remains, returns a token that the caller owns, to be passed to
 * cw_forest_drain (cw_forest.h) in some other thread; else NULL. */
struct cw_forest;
struct cw_forest *cw_tree_release_some(struct cw_tree *tree, size_t budget);

uint64_t cw_tree_count(const struct cw_tree *tree);
struct cw_hash cw_tree_hash(const struct cw_tree *tree);

/* Bytes of all nodes and boxes reachable from this version: O(nodes). */
size_t cw_tree_bytes(const struct cw_tree *tree);

/* The payload under `key`, in the tree's memory: valid while the version is retained. */
bool cw_tree_get(const struct cw_tree *tree, struct cw_bytes key, struct cw_bytes *payload);

/* cw_tree_get that also tells, for a key that is absent, whether one of its neighbours in the leaf
 * begins with the first `shared` bytes of it. (False when that is not known without more work.) */
bool cw_tree_probe(const struct cw_tree *tree, struct cw_bytes key, size_t shared,
                   struct cw_bytes *payload, bool *near);

/* ---- changing ---- */

struct cw_edit {
    struct cw_bytes key;
    struct cw_bytes payload; /* ignored when `del` */
    bool del;                /* deleting an absent key changes nothing */
};

/* A new version of `tree` with `n` edits applied, which must be sorted by key without repetition.
 * The bytes are copied. On success `*out` is owned by the caller; when nothing changed it is `tree`
 * itself, retained. On CW_ENOMEM and CW_ELIMIT (key or payload too long) nothing happened. */
enum cw_err cw_tree_apply(struct cw_tree *tree, const struct cw_edit *edits, size_t n,
                          struct cw_tree **out);

/* ---- reading in order ---- */

struct cw_cursor {
    const struct cw_tree *tree;
    int depth; /* of the leaf in `path`; -1 past the end */
    struct {
        const struct cw_node *node;
        uint32_t i;
    } path[CW_TREE_HEIGHT_MAX];
    struct cw_bytes payload; /* of the current cell */
    uint32_t key_len;
    uint8_t key[CW_KEY_MAX];
};

/* At the first cell with a key >= `from`; false when there is none. The tree must stay retained. */
bool cw_cursor_seek(struct cw_cursor *cur, const struct cw_tree *tree, struct cw_bytes from);
bool cw_cursor_next(struct cw_cursor *cur);

static inline struct cw_bytes cw_cursor_key(const struct cw_cursor *cur) {
    return cw_bytes(cur->key, cur->key_len);
}

/* Hash and count of the cells in [lo, hi); `hi` NULL for no upper bound. O(log n). */
struct cw_range {
    struct cw_hash hash;
    uint64_t count;
};
struct cw_range cw_tree_range(const struct cw_tree *tree, struct cw_bytes lo,
                              const struct cw_bytes *hi);

/* ---- comparing two versions, of any forests ---- */

/* Called in key order for each key whose payload differs or that only one side has (the other
 * pointer is then NULL). The bytes live in the trees, the key until the callback returns. A code
 * other than CW_OK ends the walk and is returned. */
typedef enum cw_err (*cw_diff_fn)(void *ctx, struct cw_bytes key, const struct cw_bytes *x,
                                  const struct cw_bytes *y);

/* Skips equal subtrees by their hashes: O(differences). `budget` counts cells and nodes looked at
 * (SIZE_MAX for no limit); CW_EBUDGET when it runs out. */
enum cw_err cw_tree_diff(const struct cw_tree *x, const struct cw_tree *y, size_t budget,
                         cw_diff_fn fn, void *ctx);

/* ---- tests ---- */

/* Walks every invariant; NULL when all hold, else a static description of the first that does not.
 */
const char *cw_tree_check(const struct cw_tree *tree);

#endif
