#include "cw_cell.h"

/* ---- entries ---- */

#define VALUE_HEAD 28u
#define RECEIPT_HEAD 32u

static size_t entry_len(enum cw_class class, const uint8_t *p) {
    switch (class) {
    case CW_VALUES:
        return VALUE_HEAD + (size_t)cw_load32le(p + 24);
    case CW_RECEIPT:
        return RECEIPT_HEAD + 16 * (size_t)cw_load32le(p + 24);
    default:
        return 16;
    }
}

bool cw_entry_next(enum cw_class class, struct cw_bytes *rest, struct cw_entry *e) {
    if (!rest->n)
        return false;
    const uint8_t *p = rest->p;
    size_t n = entry_len(class, p);
    *e = (struct cw_entry){.dot = {cw_load64le(p), cw_load64le(p + 8)}, .bytes = cw_bytes(p, n)};
    if (class == CW_DOTS) {
        e->mark = e->dot.counter & 1;
        e->dot.counter >>= 1;
    } else if (class == CW_VALUES) {
        e->hlc = cw_load64le(p + 16);
        e->body = cw_bytes(p + VALUE_HEAD, n - VALUE_HEAD);
    } else {
        e->upto = cw_load64le(p + 16);
        e->body = cw_bytes(p + RECEIPT_HEAD, n - RECEIPT_HEAD);
    }
    *rest = cw_bytes(p + n, rest->n - n);
    return true;
}

void cw_put_dot(struct cw_buf *buf, struct cw_dot dot, bool mark) {
    cw_buf_u64le(buf, dot.id);
    cw_buf_u64le(buf, dot.counter << 1 | mark);
}

static void put_u32le(struct cw_buf *buf, uint32_t v) {
    uint8_t b[4];
    cw_store32le(b, v);
    cw_buf_put(buf, b, 4);
}

void cw_put_value(struct cw_buf *buf, struct cw_dot dot, uint64_t hlc, struct cw_bytes value) {
    cw_buf_u64le(buf, dot.id);
    cw_buf_u64le(buf, dot.counter);
    cw_buf_u64le(buf, hlc);
    put_u32le(buf, (uint32_t)value.n);
    cw_buf_bytes(buf, value);
}

void cw_put_receipt(struct cw_buf *buf, struct cw_dot dot, uint64_t upto, struct cw_bytes slots) {
    cw_buf_u64le(buf, dot.id);
    cw_buf_u64le(buf, dot.counter);
    cw_buf_u64le(buf, upto);
    put_u32le(buf, (uint32_t)(slots.n / 16));
    put_u32le(buf, 0);
    cw_buf_bytes(buf, slots);
}

/* ---- slots ---- */

uint64_t cw_slots_get(struct cw_bytes slots, uint64_t name) {
    size_t lo = 0, hi = slots.n / 16;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (cw_slot_name(slots, mid) < name)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < slots.n / 16 && cw_slot_name(slots, lo) == name ? cw_slot_amount(slots, lo) : 0;
}

static void put_slot(struct cw_buf *buf, uint64_t name, uint64_t amount) {
    cw_buf_u64le(buf, name);
    cw_buf_u64le(buf, amount);
}

void cw_slots_put(struct cw_buf *buf, struct cw_bytes slots, uint64_t name, uint64_t amount) {
    size_t i = 0, n = slots.n / 16;
    while (i < n && cw_slot_name(slots, i) < name)
        i++;
    cw_buf_put(buf, slots.p, 16 * i);
    put_slot(buf, name, amount);
    if (i < n && cw_slot_name(slots, i) == name)
        i++;
    if (i < n)
        cw_buf_put(buf, slots.p + 16 * i, 16 * (n - i));
}

void cw_slots_max(struct cw_buf *buf, struct cw_bytes a, struct cw_bytes b) {
    size_t i = 0, j = 0, na = a.n / 16, nb = b.n / 16;
    while (i < na || j < nb) {
        uint64_t x = i < na ? cw_slot_name(a, i) : UINT64_MAX;
        uint64_t y = j < nb ? cw_slot_name(b, j) : UINT64_MAX;
        bool take_a = i < na && (j == nb || x <= y), take_b = j < nb && (i == na || y <= x);
        uint64_t va = take_a ? cw_slot_amount(a, i) : 0, vb = take_b ? cw_slot_amount(b, j) : 0;
        put_slot(buf, take_a ? x : y, va > vb ? va : vb);
        i += take_a;
        j += take_b;
    }
}

/* The amount in the slot of that name at or after `*at`, which moves there. */
static uint64_t amount_at(struct cw_bytes slots, size_t *at, uint64_t name) {
    while (*at < slots.n / 16 && cw_slot_name(slots, *at) < name)
        ++*at;
    return *at < slots.n / 16 && cw_slot_name(slots, *at) == name ? cw_slot_amount(slots, *at) : 0;
}

void cw_slots_min(struct cw_buf *buf, struct cw_bytes a, struct cw_bytes b) {
    size_t at = 0;
    for (size_t i = 0; i < b.n / 16; i++) {
        uint64_t va = amount_at(a, &at, cw_slot_name(b, i)), vb = cw_slot_amount(b, i);
        if (va)
            put_slot(buf, cw_slot_name(b, i), va < vb ? va : vb);
    }
}

bool cw_slots_cover(struct cw_bytes a, struct cw_bytes b) {
    size_t at = 0;
    for (size_t i = 0; i < b.n / 16; i++)
        if (cw_slot_amount(b, i) > amount_at(a, &at, cw_slot_name(b, i)))
            return false;
    return true;
}

/* ---- tallies and receipts ---- */

#define TALLY_HEAD 24u

struct cw_tally cw_tally(struct cw_bytes p) {
    size_t n = 16 * (size_t)cw_load32le(p.p + 16);
    return (struct cw_tally){cw_load64le(p.p), cw_load64le(p.p + 8), cw_bytes(p.p + TALLY_HEAD, n),
                             cw_bytes(p.p + TALLY_HEAD + n, p.n - TALLY_HEAD - n)};
}

void cw_put_tally(struct cw_buf *buf, const struct cw_tally *tally) {
    cw_buf_u64le(buf, tally->counter);
    cw_buf_u64le(buf, tally->since);
    put_u32le(buf, (uint32_t)(tally->slots.n / 16));
    put_u32le(buf, (uint32_t)(tally->removed.n / 16));
    cw_buf_bytes(buf, tally->slots);
    cw_buf_bytes(buf, tally->removed);
}

/* Within one life of a tally amounts grow with the dot, so the latest receipt has the greatest. */
void cw_receipt_slots(struct cw_buf *buf, struct cw_bytes receipt, uint64_t since) {
    struct cw_entry e, last = {.upto = 0};
    while (cw_entry_next(CW_RECEIPT, &receipt, &e))
        if (e.upto >= since && e.upto >= last.upto)
            last = e;
    cw_buf_bytes(buf, last.body);
}

/* ---- join ---- */

struct join {
    const struct cw_context *cx, *cy;
    struct cw_buf *out;
    bool lost_x, lost_y; /* an entry of that side did not stay */
    bool only_x, only_y; /* an entry stayed that the other side does not have */
};

static enum cw_pick pick_of(const struct join *j, bool any) {
    if (!any)
        return CW_PICK_NONE;
    if (!j->lost_x && !j->only_y)
        return CW_PICK_X;
    return !j->lost_y && !j->only_x ? CW_PICK_Y : CW_PICK_NEW;
}

static bool keep_one(struct join *j, const struct cw_entry *e, bool of_x) {
    bool stays = !cw_context_contains(of_x ? j->cy : j->cx, e->dot);
    *(of_x ? &j->lost_x : &j->lost_y) |= !stays;
    *(of_x ? &j->only_x : &j->only_y) |= stays;
    if (stays)
        cw_buf_bytes(j->out, e->bytes);
    return stays;
}

static enum cw_err join_entries(struct join *j, enum cw_class class, struct cw_bytes x,
                                struct cw_bytes y, enum cw_pick *pick) {
    struct cw_entry ex, ey;
    bool hx = cw_entry_next(class, &x, &ex), hy = cw_entry_next(class, &y, &ey), any = false;
    while (hx || hy) {
        int c = !hx ? 1 : !hy ? -1 : cw_dot_cmp(ex.dot, ey.dot);
        if (c == 0) {
            if (!cw_bytes_eq(ex.bytes, ey.bytes))
                return CW_EDUPLICATE;
            cw_buf_bytes(j->out, ex.bytes);
            any = true;
        } else if (c < 0) {
            any |= keep_one(j, &ex, true);
        } else {
            any |= keep_one(j, &ey, false);
        }
        if (c <= 0)
            hx = cw_entry_next(class, &x, &ex);
        if (c >= 0)
            hy = cw_entry_next(class, &y, &ey);
    }
    *pick = pick_of(j, any);
    return CW_OK;
}

/* Two tallies of one dot count the same. One may have settled more receipts: its owner's doing, so
 * what it says is removed includes what the other says. */
static enum cw_err join_settled(struct cw_bytes x, struct cw_bytes y, enum cw_pick *pick) {
    struct cw_tally tx = cw_tally(x), ty = cw_tally(y);
    if (tx.since != ty.since || !cw_bytes_eq(tx.slots, ty.slots))
        return CW_EDUPLICATE;
    if (cw_slots_cover(tx.removed, ty.removed))
        *pick = CW_PICK_X;
    else if (cw_slots_cover(ty.removed, tx.removed))
        *pick = CW_PICK_Y;
    else
        return CW_EDUPLICATE;
    return CW_OK;
}

static enum cw_err join_tallies(const struct join *j, uint64_t owner, const struct cw_bytes *x,
                                const struct cw_bytes *y, enum cw_pick *pick) {
    uint64_t nx = x ? cw_load64le(x->p) : 0, ny = y ? cw_load64le(y->p) : 0;
    if (x && y && nx == ny)
        return join_settled(*x, *y, pick);
    bool of_x = x && (!y || nx > ny);
    struct cw_dot dot = {owner, of_x ? nx : ny};
    bool stays = (x && y) || !cw_context_contains(of_x ? j->cy : j->cx, dot);
    *pick = !stays ? CW_PICK_NONE : of_x ? CW_PICK_X : CW_PICK_Y;
    return CW_OK;
}

enum cw_err cw_cell_join(const struct cw_key_parts *key, const struct cw_bytes *x,
                         const struct cw_context *cx, const struct cw_bytes *y,
                         const struct cw_context *cy, struct cw_buf *out, enum cw_pick *pick) {
    struct join j = {.cx = cx, .cy = cy, .out = out};
    if (key->class == CW_TALLY)
        return join_tallies(&j, key->owner, x, y, pick);
    size_t from = out->n;
    struct cw_bytes none = {NULL, 0};
    enum cw_err err = join_entries(&j, key->class, x ? *x : none, y ? *y : none, pick);
    if (err || *pick != CW_PICK_NEW)
        out->n = from;
    return err ? err : out->err;
}
