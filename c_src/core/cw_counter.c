#include "cw_counter.h"

#include "cw_sort.h"

void cw_put_receipt_key(struct cw_buf *buf, uint64_t owner, struct cw_bytes object) {
    cw_buf_byte(buf, CW_RECEIPT_TAG);
    cw_buf_u64be(buf, owner);
    cw_buf_bytes(buf, object);
}

void cw_tallies_open(struct cw_tallies *t, const struct cw_mem *mem, const struct cw_tree *tree,
                     struct cw_bytes object, bool receipts) {
    t->object = object;
    t->receipts = receipts;
    cw_buf_init(&t->scratch, mem, NULL, 0);
    t->more = cw_cursor_seek(&t->cur, tree, object);
}

/* The greater of what the tally and what a receipt says is removed. */
static void find_removed(struct cw_tallies *t, const struct cw_tally *tally) {
    struct cw_buf *buf = &t->scratch;
    struct cw_bytes receipt;
    t->removed = tally->removed;
    if (!t->receipts)
        return;
    buf->n = 0;
    cw_put_receipt_key(buf, t->owner, t->object);
    if (buf->err || !cw_tree_get(t->cur.tree, cw_buf_slice(buf, 0), &receipt))
        return;
    buf->n = 0;
    cw_receipt_slots(buf, receipt, tally->since);
    size_t n = buf->n;
    if (!cw_buf_reserve(buf, n + tally->removed.n))
        return;
    cw_slots_max(buf, tally->removed, cw_bytes(buf->p, n));
    t->removed = cw_buf_slice(buf, n);
}

bool cw_tallies_next(struct cw_tallies *t) {
    struct cw_bytes key = cw_cursor_key(&t->cur);
    if (!t->more || t->scratch.err || !cw_bytes_has_prefix(key, t->object) ||
        key.n != t->object.n + 8)
        return false;
    struct cw_tally tally = cw_tally(t->cur.payload);
    t->owner = cw_load64be(key.p + t->object.n);
    t->slots = tally.slots;
    find_removed(t, &tally);
    t->more = cw_cursor_next(&t->cur); /* the payload stays where it is, in the tree */
    return true;
}

enum cw_err cw_tallies_close(struct cw_tallies *t) {
    enum cw_err err = t->scratch.err;
    cw_buf_free(&t->scratch);
    return err;
}

static uint64_t less(uint64_t a, uint64_t b) {
    return a > b ? a - b : 0;
}

uint64_t cw_tallies_amount(const struct cw_tallies *t, uint64_t slot) {
    return less(cw_slots_get(t->slots, slot), cw_slots_get(t->removed, slot));
}

enum cw_err cw_counter_value(const struct cw_mem *mem, const struct cw_tree *tree,
                             struct cw_bytes object, bool receipts, struct cw_wide *out) {
    struct cw_tallies t;
    struct cw_wide sum = {0, 0};
    cw_tallies_open(&t, mem, tree, object, receipts);
    while (cw_tallies_next(&t)) {
        sum = cw_wide_add(sum, cw_tallies_amount(&t, CW_SLOT_ADDED));
        sum = cw_wide_sub(sum, cw_tallies_amount(&t, CW_SLOT_TAKEN));
    }
    enum cw_err err = cw_tallies_close(&t);
    if (!err)
        *out = sum;
    return err;
}

/* ---- rights ---- */

/* What a tally adds to the rights of somebody, or takes from them. */
struct part {
    uint64_t id;
    struct cw_wide amount;
};

static void put_part(struct cw_buf *parts, uint64_t id, struct cw_wide amount) {
    struct part part = {id, amount};
    cw_buf_put(parts, &part, sizeof part);
}

/* The owner has what it added, less what it spent or gave; others have what they were given. */
static void put_parts(struct cw_buf *parts, const struct cw_tallies *t) {
    struct cw_wide own = {0, 0};
    for (size_t i = 0; i < t->slots.n / 16; i++) {
        uint64_t slot = cw_slot_name(t->slots, i), amount = cw_tallies_amount(t, slot);
        own = slot == CW_SLOT_ADDED ? cw_wide_add(own, amount) : cw_wide_sub(own, amount);
        if (slot > CW_SLOT_TAKEN)
            put_part(parts, slot, (struct cw_wide){amount, 0});
    }
    put_part(parts, t->owner, own);
}

static int cmp_parts(const void *ctx, const void *x, const void *y) {
    const struct part *a = x, *b = y;
    (void)ctx;
    return (a->id > b->id) - (a->id < b->id);
}

static struct cw_rights sum_parts(struct part *at, size_t n, uint64_t replica) {
    struct cw_rights r = {{0, 0}, {0, 0}};
    cw_sort(at, n, sizeof *at, cmp_parts, NULL);
    for (size_t i = 0; i < n;) {
        uint64_t id = at[i].id;
        struct cw_wide one = {0, 0};
        for (; i < n && at[i].id == id; i++)
            one = cw_wide_sum(one, at[i].amount);
        if (id == replica)
            r.here = one;
        else if (!cw_wide_negative(one))
            r.elsewhere = cw_wide_sum(r.elsewhere, one);
    }
    return r;
}

enum cw_err cw_counter_rights(const struct cw_mem *mem, const struct cw_tree *tree,
                              struct cw_bytes object, bool receipts, uint64_t replica,
                              struct cw_rights *out) {
    struct cw_tallies t;
    struct cw_buf parts;
    struct part space[16];
    cw_buf_init(&parts, mem, space, sizeof space);
    cw_tallies_open(&t, mem, tree, object, receipts);
    while (cw_tallies_next(&t))
        put_parts(&parts, &t);
    enum cw_err err = cw_tallies_close(&t);
    if (!err)
        err = parts.err;
    if (!err)
        *out = sum_parts((struct part *)parts.p, parts.n / sizeof(struct part), replica);
    cw_buf_free(&parts);
    return err;
}
