#include "cw_counter.h"

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

/* The rights of `replica` alone: what it added or was given, less what it gave or spent. */
static enum cw_err rights_of(const struct cw_mem *mem, const struct cw_tree *tree,
                             struct cw_bytes object, bool receipts, uint64_t replica,
                             struct cw_wide *out) {
    struct cw_tallies t;
    struct cw_wide sum = {0, 0};
    cw_tallies_open(&t, mem, tree, object, receipts);
    while (cw_tallies_next(&t)) {
        if (t.owner != replica) {
            sum = cw_wide_add(sum, cw_tallies_amount(&t, replica));
            continue;
        }
        for (size_t i = 0; i < t.slots.n / 16; i++) {
            uint64_t slot = cw_slot_name(t.slots, i), amount = cw_tallies_amount(&t, slot);
            sum = slot == CW_SLOT_ADDED ? cw_wide_add(sum, amount) : cw_wide_sub(sum, amount);
        }
    }
    enum cw_err err = cw_tallies_close(&t);
    if (!err)
        *out = sum;
    return err;
}

/* Adds `id` to the ids in `buf` unless it is there. */
static void collect(struct cw_buf *buf, uint64_t id) {
    for (size_t i = 0; i < buf->n; i += 8)
        if (cw_load64le(buf->p + i) == id)
            return;
    cw_buf_u64le(buf, id);
}

/* All who may hold rights: owners of tallies, and whom they gave to. */
static enum cw_err holders(const struct cw_mem *mem, const struct cw_tree *tree,
                           struct cw_bytes object, struct cw_buf *ids) {
    struct cw_tallies t;
    cw_tallies_open(&t, mem, tree, object, false);
    while (cw_tallies_next(&t)) {
        collect(ids, t.owner);
        for (size_t i = 0; i < t.slots.n / 16; i++)
            if (cw_slot_name(t.slots, i) > CW_SLOT_TAKEN)
                collect(ids, cw_slot_name(t.slots, i));
    }
    enum cw_err err = cw_tallies_close(&t);
    return err ? err : ids->err;
}

enum cw_err cw_counter_rights(const struct cw_mem *mem, const struct cw_tree *tree,
                              struct cw_bytes object, bool receipts, uint64_t replica,
                              struct cw_rights *out) {
    struct cw_buf ids;
    struct cw_rights r = {{0, 0}, {0, 0}};
    uint8_t space[256];
    cw_buf_init(&ids, mem, space, sizeof space);
    enum cw_err err = holders(mem, tree, object, &ids);
    for (size_t i = 0; i < ids.n && !err; i += 8) {
        struct cw_wide one;
        uint64_t id = cw_load64le(ids.p + i);
        err = rights_of(mem, tree, object, receipts, id, &one);
        if (!err && id == replica)
            r.here = one;
        else if (!err && !cw_wide_negative(one))
            r.elsewhere = cw_wide_sum(r.elsewhere, one);
    }
    cw_buf_free(&ids);
    if (!err)
        *out = r;
    return err;
}
