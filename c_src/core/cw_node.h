/* The layout of tree nodes. Private to the cw_tree files.
 *
 * One allocation, immutable once its version is published:
 *
 *     header | heads[n] | child[n]          | offs[n + 1] | prefix | data
 *              8 bytes    8, inner only       4             plen     offs[n]
 *
 * `prefix` is common to all keys of the node. What follows it in a key is the suffix, whose first 8
 * bytes, zero-padded and big-endian, are the entry's head: searching is a binary search over an
 * array of integers that touches `data` only between equal heads. In `data` an entry is
 *
 *     klen u16 | suffix bytes past the 8th | payload                 leaf
 *     0xffff   | struct cw_box *                                     leaf, boxed
 *     klen u16 | suffix bytes past the 8th                           inner: the child's first key
 *
 * A pair too long to be copied with its neighbours at every change lives in a box of its own. */
#ifndef CW_NODE_H
#define CW_NODE_H

#include "cw_tree.h"

#define CW_INLINE_MAX 256u /* a longer key and payload are boxed */
#define CW_KLEN_BOXED 0xffffu

struct cw_node {
    uint64_t birth; /* sequence number of the version that made it; must stay first */
    struct cw_hash hash;
    uint64_t count; /* cells below */
    uint32_t size;  /* of the allocation */
    uint32_t n;
    uint16_t plen;
    uint8_t height; /* 0 for a leaf */
    uint8_t boxes;  /* some entry is boxed */
    uint32_t data_len;
    uint64_t heads[];
};

struct cw_box {
    uint64_t birth; /* must stay first */
    struct cw_hash hash;
    uint32_t klen;
    uint32_t vlen;
    uint8_t bytes[]; /* the whole key, then the payload */
};

/* One pair or child, as given to cw_node_build. */
struct cw_item {
    struct cw_bytes key;     /* whole */
    struct cw_bytes payload; /* leaf, when not boxed */
    struct cw_box *box;      /* leaf; already made */
    struct cw_node *child;   /* inner */
};

static inline struct cw_node **cw_node_children(const struct cw_node *nd) {
    return (struct cw_node **)(nd->heads + nd->n);
}

static inline uint32_t *cw_node_offs(const struct cw_node *nd) {
    return (uint32_t *)(nd->heads + (nd->height ? 2 * (size_t)nd->n : nd->n));
}

static inline uint8_t *cw_node_prefix(const struct cw_node *nd) {
    return (uint8_t *)(cw_node_offs(nd) + nd->n + 1);
}

static inline uint8_t *cw_node_data(const struct cw_node *nd) {
    return cw_node_prefix(nd) + nd->plen;
}

static inline size_t cw_node_size(uint32_t n, bool inner, size_t plen, size_t data_len) {
    return sizeof(struct cw_node) + (size_t)n * (inner ? 16 : 8) + ((size_t)n + 1) * 4 + plen +
           data_len;
}

static inline struct cw_bytes cw_box_key(const struct cw_box *box) {
    return cw_bytes(box->bytes, box->klen);
}

static inline struct cw_bytes cw_box_payload(const struct cw_box *box) {
    return cw_bytes(box->bytes + box->klen, box->vlen);
}

/* The first 8 bytes of a suffix as an integer that orders like them. */
static inline uint64_t cw_head(const uint8_t *p, size_t n) {
    if (n >= 8)
        return cw_load64be(p);
    uint64_t h = 0;
    for (size_t i = 0; i < n; i++)
        h |= (uint64_t)p[i] << (56 - 8 * i);
    return h;
}

/* The level of a key: how many heights it begins a node at. */
int cw_key_level(struct cw_bytes key);

/* The box of entry `i` of a leaf, or NULL when the pair is inline. */
struct cw_box *cw_node_box(const struct cw_node *nd, uint32_t i);

/* The payload of entry `i` of a leaf. */
struct cw_bytes cw_node_payload(const struct cw_node *nd, uint32_t i);

/* The length of the whole key of entry `i`, and the key written to `dst`. */
uint32_t cw_node_key_len(const struct cw_node *nd, uint32_t i);
void cw_node_key(const struct cw_node *nd, uint32_t i, uint8_t *dst);

/* The number of entries smaller than `key`; `*found` tells whether the next one equals it. */
uint32_t cw_node_search(const struct cw_node *nd, struct cw_bytes key, bool *found);

/* The child of an inner node in whose range `key` falls. */
uint32_t cw_node_route(const struct cw_node *nd, struct cw_bytes key);

/* A node of `n` >= 1 items, sorted. Counts; leaves the hash zero. NULL without memory. */
struct cw_node *cw_node_build(const struct cw_mem *mem, uint64_t birth, int height,
                              const struct cw_item *items, uint32_t n);

/* Writes a leaf's pair or an inner node's key as they stand in `data`; returns the end. */
uint8_t *cw_node_put_item(uint8_t *p, const struct cw_item *it, size_t plen);

struct cw_box *cw_box_new(const struct cw_mem *mem, uint64_t birth, struct cw_bytes key,
                          struct cw_bytes payload);

/* The content hash of entry `i` of a leaf. `scratch` has room for its key. */
struct cw_hash cw_node_entry_hash(const struct cw_node *nd, uint32_t i, uint8_t *scratch);

#endif
