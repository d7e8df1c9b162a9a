/* The content hash: every cell has a 128-bit hash of its key and payload (XXH3-128), and any set of
 * cells has the sum of theirs modulo 2^128.
 *
 * Because a sum does not depend on order or grouping, the hash of a subtree, of a whole tree or of
 * any key range is a function of its content alone, and one changed cell changes it by one
 * subtraction and one addition. It guards against accident, not against a writer who chooses
 * content in order to collide; docs/hashing.md says what that means. */
#ifndef CW_HASH_H
#define CW_HASH_H

#include "cw_bytes.h"

struct cw_hash {
    uint64_t lo;
    uint64_t hi;
};

static inline struct cw_hash cw_hash_add(struct cw_hash a, struct cw_hash b) {
    struct cw_hash s = {a.lo + b.lo, a.hi + b.hi};
    s.hi += s.lo < a.lo;
    return s;
}

static inline struct cw_hash cw_hash_sub(struct cw_hash a, struct cw_hash b) {
    struct cw_hash d = {a.lo - b.lo, a.hi - b.hi};
    d.hi -= a.lo < b.lo;
    return d;
}

static inline bool cw_hash_eq(struct cw_hash a, struct cw_hash b) {
    return a.lo == b.lo && a.hi == b.hi;
}

/* Of one cell. */
struct cw_hash cw_hash_cell(struct cw_bytes key, struct cw_bytes payload);

/* Of a replica's name: the id that stands for it in every dot. */
uint64_t cw_hash_name(struct cw_bytes name);

uint64_t cw_hash_key(struct cw_bytes key);

/* Decides where tree nodes end; seeded with a secret of this process (cw_tree.h). */
uint64_t cw_hash_shape(struct cw_bytes key, uint64_t secret);

#endif
