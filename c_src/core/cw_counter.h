/* Reading counters: sums over their tallies, less what receipts say is removed. */
#ifndef CW_COUNTER_H
#define CW_COUNTER_H

#include "cw_cell.h"
#include "cw_tree.h"
#include "cw_wide.h"

/* The tallies of one counter in a tree, one at a time, with only what is not removed. */
struct cw_tallies {
    struct cw_bytes object;
    bool receipts; /* look for them; there may be some */
    struct cw_cursor cur;
    bool more;
    uint64_t owner;
    struct cw_bytes slots;   /* of `owner` */
    struct cw_bytes removed; /* the part of them that is removed */
    struct cw_buf scratch;
};

/* `object` is the key up to and with the kind's tag. */
void cw_tallies_open(struct cw_tallies *t, const struct cw_mem *mem, const struct cw_tree *tree,
                     struct cw_bytes object, bool receipts);
bool cw_tallies_next(struct cw_tallies *t);
/* CW_ENOMEM when a step failed for memory. */
enum cw_err cw_tallies_close(struct cw_tallies *t);

/* What is left of a slot of the current tally. */
uint64_t cw_tallies_amount(const struct cw_tallies *t, uint64_t slot);

/* The value of a plain counter. */
enum cw_err cw_counter_value(const struct cw_mem *mem, const struct cw_tree *tree,
                             struct cw_bytes object, bool receipts, struct cw_wide *out);

/* The rights of `replica`, which may be negative after a removal that crossed a spending, and the
 * sum of all others' that are not. The value of a bounded counter is the sum of all rights that are
 * not negative. */
struct cw_rights {
    struct cw_wide here;
    struct cw_wide elsewhere;
};
enum cw_err cw_counter_rights(const struct cw_mem *mem, const struct cw_tree *tree,
                              struct cw_bytes object, bool receipts, uint64_t replica,
                              struct cw_rights *out);

static inline struct cw_wide cw_rights_value(const struct cw_rights *r) {
    return cw_wide_negative(r->here) ? r->elsewhere : cw_wide_sum(r->elsewhere, r->here);
}

/* The key of the receipt for `owner`'s tally of a counter. */
void cw_put_receipt_key(struct cw_buf *buf, uint64_t owner, struct cw_bytes object);

#endif
