/* Cells: what stands under a key, and how two replicas' cells join.
 *
 * One rule joins: what both sides have is kept; what one side has is kept unless the other side's
 * context has seen its dot, because then it was removed there. So nothing that is gone leaves
 * anything behind.
 *
 * Payloads (all integers little-endian; entries ascending by dot; no payload is empty):
 *
 *   CW_DOTS     sets' elements and flags: the writes that keep it
 *               (id u64, counter << 1 | mark u64)+          mark: a remove or a disable
 *   CW_VALUES   registers: every value written concurrently, with its stamp
 *               (id u64, counter u64, hlc u64, len u32, value)+
 *   CW_TALLY    counters: one cell a replica, written by that replica alone; the later one wins
 *               counter u64, since u64, n u32, m u32, (slot u64, amount u64) * (n + m)
 *   CW_RECEIPT  (id u64, counter u64, upto u64, n u32, 0 u32, (slot u64, amount u64) * n)+
 *
 * Tallies. The n amounts only grow; slot 0 counts what was added, 1 what was taken away (of a
 * bounded counter: spent), a replica's id the rights given to it. The m amounts are the part of
 * them that has been removed since. `counter` is the dot of the last write that counted, `since`
 * that of the first one in the cell's life.
 *
 * Receipts. Whoever removes a counter drops the tallies it sees, but their owners may be counting
 * on at that moment, from totals that include what is now removed. So the remover leaves a receipt
 * for each owner but itself: "of your cell, as it was at your dot `upto`, these amounts are
 * removed". Everyone subtracts it from a tally that is as old as that; the owner's next write, of
 * whatever kind, moves it into the tally and removes the receipt. That leaves the tally's dot as it
 * is: it is no counting, and who removed all that was counted must not find the counter back
 * because of it. */
#ifndef CW_CELL_H
#define CW_CELL_H

#include "cw_buf.h"
#include "cw_kind.h"
#include "cw_vv.h"

/* A causal context: a set of dots. The vector's, with the own counter of a document that writes,
 * less those in `from`, if there is one. */
struct cw_context {
    const struct cw_vv *vv;
    const struct cw_vv *from;
    uint64_t self;
    uint64_t own; /* at least the vector's entry for `self` */
};

static inline bool cw_context_contains(const struct cw_context *cx, struct cw_dot dot) {
    uint64_t upto = dot.id == cx->self ? cx->own : cw_vv_get(cx->vv, dot.id);
    return dot.counter <= upto && (!cx->from || dot.counter > cw_vv_get(cx->from, dot.id));
}

/* ---- entries of CW_DOTS, CW_VALUES, CW_RECEIPT ---- */

/* Bytes of one value. It is no limit on a cell: values that were written apart must be able to
 * meet, or those who hold them could never merge again. */
#define CW_VALUE_MAX (64u << 20)

struct cw_entry {
    struct cw_dot dot;
    bool mark;             /* CW_DOTS */
    uint64_t hlc;          /* CW_VALUES */
    uint64_t upto;         /* CW_RECEIPT */
    struct cw_bytes body;  /* CW_VALUES: the value; CW_RECEIPT: the slots */
    struct cw_bytes bytes; /* the whole entry */
};

/* Takes the first entry off `rest`; false at the end. */
bool cw_entry_next(enum cw_class class, struct cw_bytes *rest, struct cw_entry *entry);

void cw_put_dot(struct cw_buf *buf, struct cw_dot dot, bool mark);
void cw_put_value(struct cw_buf *buf, struct cw_dot dot, uint64_t hlc, struct cw_bytes value);
void cw_put_receipt(struct cw_buf *buf, struct cw_dot dot, uint64_t upto, struct cw_bytes slots);

/* ---- slots: 16 bytes each, ascending, amounts > 0 ---- */

#define CW_SLOT_ADDED 0u
#define CW_SLOT_TAKEN 1u
#define CW_AMOUNT_MAX (UINT64_MAX >> 2)

static inline uint64_t cw_slot_name(struct cw_bytes slots, size_t i) {
    return cw_load64le(slots.p + 16 * i);
}

static inline uint64_t cw_slot_amount(struct cw_bytes slots, size_t i) {
    return cw_load64le(slots.p + 16 * i + 8);
}

/* 0 when there is no such slot. */
uint64_t cw_slots_get(struct cw_bytes slots, uint64_t name);

/* Appends `slots` with one amount set to `amount` (> 0). */
void cw_slots_put(struct cw_buf *buf, struct cw_bytes slots, uint64_t name, uint64_t amount);

/* Appends the greater amount of each slot. */
void cw_slots_max(struct cw_buf *buf, struct cw_bytes a, struct cw_bytes b);

/* Appends the lesser amount of each slot that is in both. */
void cw_slots_min(struct cw_buf *buf, struct cw_bytes a, struct cw_bytes b);

/* Whether each amount in `b` is at most that in `a`. */
bool cw_slots_cover(struct cw_bytes a, struct cw_bytes b);

/* ---- tallies ---- */

struct cw_tally {
    uint64_t counter;
    uint64_t since;
    struct cw_bytes slots;
    struct cw_bytes removed;
};

struct cw_tally cw_tally(struct cw_bytes payload);
void cw_put_tally(struct cw_buf *buf, const struct cw_tally *tally);

/* The slots of a receipt that hold for a tally begun at `since`: appends the greatest. */
void cw_receipt_slots(struct cw_buf *buf, struct cw_bytes receipt, uint64_t since);

/* ---- join ---- */

enum cw_pick {
    CW_PICK_NONE, /* no cell */
    CW_PICK_X,    /* x's payload; y's is the same or has nothing that stays */
    CW_PICK_Y,
    CW_PICK_NEW /* in the buffer */
};

/* Joins `x`, seen in context `cx`, with `y`, seen in `cy`; NULL for absent, not both. `id` is the
 * owner of a tally. A new payload is appended to `out`. CW_EDUPLICATE when one dot has two
 * contents. */
enum cw_err cw_cell_join(const struct cw_key_parts *key, const struct cw_bytes *x,
                         const struct cw_context *cx, const struct cw_bytes *y,
                         const struct cw_context *cy, struct cw_buf *out, enum cw_pick *pick);

#endif
