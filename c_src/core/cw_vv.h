/* Version vectors: replica -> highest counter seen. As a replica's writes reach others in order and
 * without gaps, that is also the causal context: the set of all dots seen.
 *
 * In dots, cells and vectors a replica is its 64-bit id, the hash of its name; the vector knows the
 * names. Vectors are immutable and counted. */
#ifndef CW_VV_H
#define CW_VV_H

#include <stdatomic.h>

#include "cw_bytes.h"
#include "cw_err.h"
#include "cw_mem.h"

#define CW_NAME_MAX 1024u                /* bytes of an encoded replica name */
#define CW_ID_MIN 16u                    /* smaller numbers mean other things (cw_cell.h) */
#define CW_REPLICAS_MAX (1u << 24)       /* of one vector */
#define CW_COUNTER_MAX (UINT64_MAX >> 2) /* of a dot; cells keep a mark beside it */

/* A dot: one write, the `counter`-th of its replica, from 1. */
struct cw_dot {
    uint64_t id;
    uint64_t counter;
};

static inline int cw_dot_cmp(struct cw_dot a, struct cw_dot b) {
    if (a.id != b.id)
        return a.id < b.id ? -1 : 1;
    return (a.counter > b.counter) - (a.counter < b.counter);
}

/* A replica's name: a key-encoded term (cw_term.h). Counted. */
struct cw_name {
    const struct cw_mem *mem;
    atomic_uint refs;
    uint32_t len;
    uint64_t id;
    uint8_t bytes[];
};

/* The caller owns one reference. NULL without memory. */
struct cw_name *cw_name_new(const struct cw_mem *mem, struct cw_bytes name);
struct cw_name *cw_name_retain(struct cw_name *name);
void cw_name_release(struct cw_name *name);
uint64_t cw_name_id(struct cw_bytes name);

static inline struct cw_bytes cw_name_bytes(const struct cw_name *name) {
    return cw_bytes(name->bytes, name->len);
}

struct cw_vv_entry {
    uint64_t id;
    uint64_t counter; /* > 0 */
    struct cw_name *name;
};

struct cw_vv {
    const struct cw_mem *mem;
    atomic_uint refs;
    uint32_t n;
    struct cw_vv_entry at[]; /* by id, ascending */
};

/* Room for `n` entries, to be filled in order with names that the vector then owns. */
struct cw_vv *cw_vv_new(const struct cw_mem *mem, uint32_t n);
struct cw_vv *cw_vv_retain(struct cw_vv *vv);
void cw_vv_release(struct cw_vv *vv);

/* The index of a replica; `vv->n` when it is not there. */
uint32_t cw_vv_find(const struct cw_vv *vv, uint64_t id);

static inline uint64_t cw_vv_get(const struct cw_vv *vv, uint64_t id) {
    uint32_t i = cw_vv_find(vv, id);
    return i < vv->n ? vv->at[i].counter : 0;
}

enum cw_order { CW_EQUAL, CW_BEFORE, CW_AFTER, CW_CONCURRENT };

/* How `a` stands to `b`. */
enum cw_order cw_vv_compare(const struct cw_vv *a, const struct cw_vv *b);

/* The least vector that contains both. CW_EREPLICA when two names share an id. */
enum cw_err cw_vv_merge(struct cw_vv *a, struct cw_vv *b, struct cw_vv **out);

/* `vv` with `name` raised to `counter` (never lowered). */
enum cw_err cw_vv_raise(struct cw_vv *vv, struct cw_name *name, uint64_t counter,
                        struct cw_vv **out);

/* The greatest vector that both contain. NULL without memory. */
struct cw_vv *cw_vv_common(const struct cw_vv *a, const struct cw_vv *b);

/* Whether the two have no replica in common. */
bool cw_vv_disjoint(const struct cw_vv *a, const struct cw_vv *b);

#endif
