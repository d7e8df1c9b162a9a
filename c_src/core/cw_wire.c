#include "cw_wire.h"

#include "cw_hlc.h"
#include "cw_term.h"
#include "cw_tree.h"

/* ---- writing ---- */

static void put_slots(struct cw_buf *out, struct cw_bytes slots) {
    cw_buf_varint(out, slots.n / 16);
    for (size_t i = 0; i < slots.n / 16; i++) {
        uint64_t name = cw_slot_name(slots, i);
        cw_buf_byte(out, name <= CW_SLOT_TAKEN ? (uint8_t)name : 2);
        if (name > CW_SLOT_TAKEN)
            cw_buf_u64le(out, name);
        cw_buf_varint(out, cw_slot_amount(slots, i));
    }
}

static void put_tally(struct cw_buf *out, struct cw_bytes payload) {
    struct cw_tally t = cw_tally(payload);
    cw_buf_varint(out, t.counter);
    cw_buf_varint(out, t.counter - t.since);
    put_slots(out, t.slots);
    put_slots(out, t.removed);
}

static void put_body(struct cw_buf *out, const struct cw_key_parts *key, const struct cw_entry *e) {
    switch (key->class) {
    case CW_DOTS:
        cw_buf_varint(out, cw_kind_has_marks(key->kind) ? e->dot.counter << 1 | e->mark
                                                        : e->dot.counter);
        return;
    case CW_VALUES:
        cw_buf_varint(out, e->dot.counter);
        cw_buf_u64le(out, e->hlc);
        cw_buf_varint(out, e->body.n);
        cw_buf_bytes(out, e->body);
        return;
    default:
        cw_buf_varint(out, e->dot.counter);
        cw_buf_varint(out, e->upto);
        put_slots(out, e->body);
    }
}

void cw_wire_put(struct cw_buf *out, const struct cw_key_parts *key, struct cw_bytes payload,
                 const struct cw_vv *vv) {
    if (key->class == CW_TALLY) {
        put_tally(out, payload);
        return;
    }
    struct cw_entry e;
    while (cw_entry_next(key->class, &payload, &e)) {
        cw_buf_varint(out, (uint64_t)cw_vv_find(vv, e.dot.id) << 1 | (payload.n > 0));
        put_body(out, key, &e);
    }
}

/* ---- reading ---- */

/* Only bounded counters have slots named by replicas. */
static uint64_t read_slot_name(struct cw_reader *r, enum cw_kind kind) {
    uint64_t name = cw_read_byte(r);
    if (name <= CW_SLOT_TAKEN)
        return name;
    bool bounded = name == 2 && kind == CW_COUNTER_BOUNDED;
    name = cw_read_u64le(r);
    if (!bounded || name < CW_ID_MIN)
        cw_reader_fail(r, CW_EMALFORMED);
    return name;
}

/* Appends slots in memory form; returns them. */
static struct cw_bytes read_slots(struct cw_reader *r, enum cw_kind kind, struct cw_buf *out) {
    size_t from = out->n;
    uint64_t n = cw_read_count(r, 2), last = 0;
    for (uint64_t i = 0; i < n && !r->err; i++) {
        uint64_t name = read_slot_name(r, kind), amount = cw_read_varint(r);
        if (amount > CW_AMOUNT_MAX)
            cw_reader_fail(r, CW_ERANGE);
        if (amount == 0 || (i > 0 && name <= last))
            cw_reader_fail(r, CW_EMALFORMED);
        last = name;
        cw_buf_u64le(out, name);
        cw_buf_u64le(out, amount);
    }
    return out->err ? cw_bytes(NULL, 0) : cw_buf_slice(out, from);
}

static void check_counter(struct cw_reader *r, const struct cw_vv *vv, uint64_t id, uint64_t c) {
    if (c == 0 || c > cw_vv_get(vv, id))
        cw_reader_fail(r, CW_EMALFORMED);
}

static void read_tally(struct cw_reader *r, const struct cw_key_parts *key, const struct cw_vv *vv,
                       struct cw_buf *out) {
    struct cw_buf slots;
    uint8_t space[512];
    cw_buf_init(&slots, out->mem, space, sizeof space);
    struct cw_tally t = {.counter = cw_read_varint(r)};
    uint64_t age = cw_read_varint(r);
    check_counter(r, vv, key->owner, t.counter);
    if (age >= t.counter)
        cw_reader_fail(r, CW_EMALFORMED);
    t.since = t.counter - age;
    size_t n = read_slots(r, key->kind, &slots).n;
    read_slots(r, key->kind, &slots);
    if (slots.err) {
        out->err = slots.err;
    } else {
        t.slots = cw_bytes(slots.p, n);
        t.removed = cw_buf_slice(&slots, n);
        if (!cw_slots_cover(t.slots, t.removed))
            cw_reader_fail(r, CW_EMALFORMED);
        cw_put_tally(out, &t);
    }
    cw_buf_free(&slots);
}

static void read_dot(struct cw_reader *r, const struct cw_key_parts *key, struct cw_dot dot,
                     struct cw_buf *out) {
    bool marks = cw_kind_has_marks(key->kind);
    uint64_t word = cw_read_varint(r);
    dot.counter = marks ? word >> 1 : word;
    if (dot.counter > CW_COUNTER_MAX) /* before a bit of it is lost */
        cw_reader_fail(r, CW_EMALFORMED);
    cw_put_dot(out, dot, marks && (word & 1));
}

static void read_value(struct cw_reader *r, struct cw_dot dot, struct cw_buf *out, uint64_t *hlc) {
    dot.counter = cw_read_varint(r);
    uint64_t stamp = cw_read_u64le(r);
    if (stamp > CW_HLC_MAX)
        cw_reader_fail(r, CW_ERANGE);
    if (stamp > *hlc)
        *hlc = stamp;
    uint64_t n = cw_read_varint(r);
    if (n > CW_VALUE_MAX)
        cw_reader_fail(r, CW_ELIMIT);
    struct cw_bytes value = cw_read_bytes(r, r->err ? 0 : n);
    struct cw_reader inner = cw_reader(value);
    cw_check_term(&inner, CW_VALUE);
    enum cw_err err = cw_reader_whole(&inner);
    if (err)
        cw_reader_fail(r, err);
    cw_put_value(out, dot, stamp, value);
}

static void read_receipt(struct cw_reader *r, const struct cw_key_parts *key,
                         const struct cw_vv *vv, struct cw_dot dot, struct cw_buf *out) {
    struct cw_buf slots;
    uint8_t space[512];
    cw_buf_init(&slots, out->mem, space, sizeof space);
    dot.counter = cw_read_varint(r);
    uint64_t upto = cw_read_varint(r);
    check_counter(r, vv, key->owner, upto);
    struct cw_bytes s = read_slots(r, key->kind, &slots);
    if (slots.err)
        out->err = slots.err;
    cw_put_receipt(out, dot, upto, s);
    cw_buf_free(&slots);
}

/* A dot just appended at `from`: in the vector, and above the one before. */
static void check_dot(struct cw_reader *r, const struct cw_vv *vv, enum cw_class class,
                      const struct cw_buf *out, size_t from, struct cw_dot *last) {
    struct cw_bytes at = cw_buf_slice(out, from);
    struct cw_entry e;
    if (r->err || out->err || !cw_entry_next(class, &at, &e))
        return;
    check_counter(r, vv, e.dot.id, e.dot.counter);
    if (last->counter && cw_dot_cmp(*last, e.dot) >= 0)
        cw_reader_fail(r, CW_EMALFORMED);
    *last = e.dot;
}

void cw_wire_read(struct cw_reader *r, const struct cw_key_parts *key, const struct cw_vv *vv,
                  struct cw_buf *out, uint64_t *hlc) {
    if (key->class == CW_TALLY) {
        read_tally(r, key, vv, out);
        return;
    }
    struct cw_dot last = {0, 0};
    bool more = true;
    while (more && !r->err && !out->err) {
        uint64_t head = cw_read_varint(r);
        size_t from = out->n;
        more = head & 1;
        if (head >> 1 >= vv->n) {
            cw_reader_fail(r, CW_EMALFORMED);
            return;
        }
        struct cw_dot dot = {vv->at[head >> 1].id, 0};
        if (key->class == CW_DOTS)
            read_dot(r, key, dot, out);
        else if (key->class == CW_VALUES)
            read_value(r, dot, out, hlc);
        else
            read_receipt(r, key, vv, dot, out);
        check_dot(r, vv, key->class, out, from, &last);
    }
}
