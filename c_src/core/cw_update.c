/* Operations become cells: cw_doc_update. */
#include "cw_counter.h"
#include "cw_doc_struct.h"
#include "cw_hlc.h"
#include "cw_view.h"

#define NOTED_EDITS 8 /* a write with more goes into the tree at once */

struct update {
    const struct cw_doc *doc;
    const struct cw_doc *seen; /* NULL: the writer has seen all of `doc` */
    struct cw_context context; /* of `seen` */
    struct cw_tree *before; /* with `seen`, when something may be removed: before all operations */
    struct cw_arena arena;
    struct cw_view view;
    struct cw_buf touches;
    struct cw_buf key;     /* of the object or cell at hand */
    struct cw_buf payload; /* being made */
    struct cw_dot dot;     /* of this write */
    uint64_t now_ms;
    uint64_t hlc; /* ticked when `stamped` */
    bool stamped;
    bool wrote;
    struct cw_fault *fault;
};

/* ---- which kind ---- */

struct verb {
    enum cw_kind usual;
    bool (*fits)(enum cw_kind kind);
};

static bool is_register(enum cw_kind kind) {
    return kind == CW_REGISTER || kind == CW_REGISTER_MULTI;
}

static bool is_bounded(enum cw_kind kind) {
    return kind == CW_COUNTER_BOUNDED;
}

static bool is_flag(enum cw_kind kind) {
    return kind == CW_FLAG || kind == CW_FLAG_DISABLE_WINS;
}

static bool is_any(enum cw_kind kind) {
    (void)kind;
    return true;
}

static const struct verb verbs[] = {
    [CW_PUT] = {CW_REGISTER, is_register},
    [CW_INCREMENT] = {CW_COUNTER, cw_kind_is_counter},
    [CW_DECREMENT] = {CW_COUNTER, cw_kind_is_counter},
    [CW_TRANSFER] = {CW_COUNTER_BOUNDED, is_bounded},
    [CW_ADD] = {CW_SET, cw_kind_is_set},
    [CW_REMOVE] = {CW_SET, cw_kind_is_set},
    [CW_ENABLE] = {CW_FLAG, is_flag},
    [CW_DISABLE] = {CW_FLAG, is_flag},
    [CW_RESET] = {CW_COUNTER, cw_kind_is_counter},
    [CW_DELETE] = {CW_KIND_NONE, is_any},
};

static const enum cw_kind all_kinds[] = {
#define X(NAME, tag, name, class) CW_##NAME,
    CW_KIND_LIST(X)
#undef X
};

/* The kind of the first cell under the fields in `prefix`; CW_KIND_NONE when there is none. */
static enum cw_kind first_kind(struct update *u, struct cw_bytes prefix) {
    uint8_t key[CW_KEY_MAX];
    size_t n;
    struct cw_bytes payload;
    if (!cw_view_next(&u->view, prefix, key, &n, &payload) ||
        !cw_bytes_has_prefix(cw_bytes(key, n), prefix) || n == prefix.n)
        return CW_KIND_NONE;
    return (enum cw_kind)key[prefix.n];
}

static bool has_kind(struct update *u, struct cw_bytes prefix, enum cw_kind kind) {
    uint8_t from[CW_KEY_MAX + 1], key[CW_KEY_MAX];
    size_t n;
    struct cw_bytes payload;
    memcpy(from, prefix.p, prefix.n);
    from[prefix.n] = (uint8_t)kind;
    struct cw_bytes want = cw_bytes(from, prefix.n + 1);
    return cw_view_next(&u->view, want, key, &n, &payload) &&
           cw_bytes_has_prefix(cw_bytes(key, n), want);
}

/* What is meant by `want` (0: not said) at the fields in `u->key`: a kind that is there and fits,
 * or, when nothing is there, `want` or else `usual`. */
static enum cw_err choose_kind(struct update *u, enum cw_kind want, enum cw_kind usual,
                               bool (*fits)(enum cw_kind), enum cw_kind *kind) {
    struct cw_bytes prefix = cw_buf_slice(&u->key, 0);
    enum cw_kind have = first_kind(u, prefix);
    if (have == CW_KIND_NONE || have == want) {
        *kind = want ? want : usual;
        return CW_OK;
    }
    for (size_t i = 0; i < sizeof all_kinds / sizeof all_kinds[0]; i++) {
        enum cw_kind k = all_kinds[i];
        if ((want ? k == want : fits(k)) && (k == have || has_kind(u, prefix, k))) {
            *kind = k;
            return CW_OK;
        }
    }
    u->fault->have = have;
    u->fault->want = want ? want : usual;
    return CW_EKIND;
}

/* ---- keys ---- */

static enum cw_err key_error(const struct update *u) {
    if (u->key.err)
        return u->key.err;
    return u->key.n > CW_CONTENT_KEY_MAX ? CW_ELIMIT : CW_OK;
}

/* Fields with the maps they are in, as said or usual, no questions asked. */
static enum cw_err put_path(struct update *u, const struct cw_op *op) {
    u->key.n = 0;
    if (op->path_len == 0 || op->path_len > CW_PATH_MAX)
        return CW_EPATH;
    for (size_t i = 0; i < op->path_len; i++) {
        enum cw_kind map = op->path[i].map;
        if (map && (!cw_kind_is_map(map) || (i == 0 && map != CW_MAP))) {
            u->fault->field = i;
            return CW_EPATH;
        }
        cw_buf_byte(&u->key, map ? (uint8_t)map : CW_MAP);
        cw_buf_bytes(&u->key, op->path[i].field);
    }
    return key_error(u);
}

/* The same, with the maps that are there. */
static enum cw_err put_known_path(struct update *u, const struct cw_op *op) {
    enum cw_err err = CW_OK;
    u->key.n = 0;
    for (size_t i = 0; i < op->path_len && !err; i++) {
        enum cw_kind map = CW_MAP;
        if (i > 0)
            err = choose_kind(u, op->path[i].map, CW_MAP, cw_kind_is_map, &map);
        u->fault->field = i;
        cw_buf_byte(&u->key, (uint8_t)map);
        cw_buf_bytes(&u->key, op->path[i].field);
        if (!err)
            err = key_error(u);
    }
    return err;
}

/* What follows the kind's tag in the key of the cell that the operation is about. */
static void put_suffix(struct update *u, enum cw_kind kind, const struct cw_op *op) {
    if (cw_kind_is_set(kind))
        cw_buf_bytes(&u->key, op->arg);
    else if (cw_kind_is_counter(kind))
        cw_buf_u64be(&u->key, u->dot.id);
}

/* The cell an operation is about: its key in `u->key`, the object's part of it `object` bytes. */
struct target {
    enum cw_kind kind;
    size_t object;
    bool found;
    struct cw_bytes payload;
};

/* Tries the usual kinds first: when the cell or a neighbour in the same object exists, they are
 * right, and one search was enough. Else asks the tree at each step. */
static enum cw_err find_target(struct update *u, const struct cw_op *op, struct target *t) {
    const struct verb *verb = &verbs[op->verb];
    bool near;
    t->kind = op->kind ? op->kind : verb->usual;
    enum cw_err err = put_path(u, op);
    if (err)
        return err;
    if (!verb->fits(t->kind)) {
        u->fault->want = t->kind;
        return CW_EOP;
    }
    cw_buf_byte(&u->key, (uint8_t)t->kind);
    t->object = u->key.n;
    put_suffix(u, t->kind, op);
    err = key_error(u);
    if (err)
        return err;
    t->found = cw_view_probe(&u->view, cw_buf_slice(&u->key, 0), t->object, &t->payload, &near);
    if (t->found || near)
        return CW_OK;
    err = put_known_path(u, op);
    if (err)
        return err;
    u->fault->field = op->path_len;
    err = choose_kind(u, op->kind, verb->usual, verb->fits, &t->kind);
    if (err)
        return err;
    cw_buf_byte(&u->key, (uint8_t)t->kind);
    t->object = u->key.n;
    put_suffix(u, t->kind, op);
    err = key_error(u);
    if (!err)
        t->found = cw_view_get(&u->view, cw_buf_slice(&u->key, 0), &t->payload);
    return err;
}

/* ---- cells ---- */

static enum cw_err set_cell(struct update *u, struct cw_bytes key, const struct cw_bytes *payload) {
    u->wrote = true;
    cw_touch(&u->touches, key, false);
    return cw_view_set(&u->view, key, payload);
}

static enum cw_err set_target(struct update *u) {
    struct cw_bytes payload = cw_buf_slice(&u->payload, 0);
    return u->payload.err ? u->payload.err : set_cell(u, cw_buf_slice(&u->key, 0), &payload);
}

/* ---- as of an earlier state ----
 *
 * Who writes as of an earlier state replaces and removes what was there, and nothing that came
 * since. */

static bool has_seen(const struct update *u, struct cw_dot dot) {
    bool mine = dot.id == u->dot.id && dot.counter == u->dot.counter;
    return !u->seen || mine || cw_context_contains(&u->context, dot);
}

/* Appends the entries that were not seen, with `mine`, which may be empty, in its place. */
static void put_unseen(const struct update *u, enum cw_class class, struct cw_bytes payload,
                       struct cw_bytes mine, struct cw_buf *out) {
    struct cw_entry e;
    while (cw_entry_next(class, &payload, &e)) {
        if (has_seen(u, e.dot))
            continue;
        if (mine.n && cw_dot_cmp(u->dot, e.dot) < 0) {
            cw_buf_put(out, mine.p, mine.n);
            mine.n = 0;
        }
        cw_buf_put(out, e.bytes.p, e.bytes.n);
    }
    if (mine.n)
        cw_buf_put(out, mine.p, mine.n);
}

/* Sets the cell to what was not seen of it and `mine`; without either it goes. */
static enum cw_err replace_seen(struct update *u, enum cw_class class, struct cw_bytes key,
                                struct cw_bytes payload, struct cw_bytes mine) {
    struct cw_buf rest;
    uint8_t space[256];
    cw_buf_init(&rest, u->doc->mem, space, sizeof space);
    put_unseen(u, class, payload, mine, &rest);
    struct cw_bytes kept = cw_buf_slice(&rest, 0);
    enum cw_err err = rest.err;
    if (!err && !cw_bytes_eq(kept, payload))
        err = set_cell(u, key, kept.n ? &kept : NULL);
    cw_buf_free(&rest);
    return err;
}

/* Puts the entry in `u->payload`, or nothing when that is empty, in the place of what was seen. */
static enum cw_err replace_target(struct update *u, const struct target *t) {
    struct cw_bytes key = cw_buf_slice(&u->key, 0), mine = cw_buf_slice(&u->payload, 0);
    if (u->payload.err)
        return u->payload.err;
    if (u->seen && t->found)
        return replace_seen(u, cw_kind_class(t->kind), key, t->payload, mine);
    return set_cell(u, key, mine.n ? &mine : NULL);
}

static enum cw_err put_one_dot(struct update *u, const struct target *t, bool mark) {
    cw_put_dot(&u->payload, u->dot, mark);
    return replace_target(u, t);
}

/* Removing is dropping the cell, or writing a mark where removes win. */
static enum cw_err drop_target(struct update *u, const struct target *t) {
    if (cw_kind_has_marks(t->kind))
        return put_one_dot(u, t, true);
    return t->found ? replace_target(u, t) : CW_OK;
}

static enum cw_err put_register(struct update *u, const struct target *t, struct cw_bytes value) {
    enum cw_err err = CW_OK;
    if (value.n > CW_VALUE_MAX)
        return CW_ELIMIT;
    if (!u->stamped)
        err = cw_hlc_tick(u->doc->hlc, u->now_ms, &u->hlc);
    if (err)
        return err;
    u->stamped = true;
    cw_put_value(&u->payload, u->dot, u->hlc, value);
    return replace_target(u, t);
}

/* ---- counters ---- */

/* The own tally with `amount` more in a slot. */
static enum cw_err count(struct update *u, const struct target *t, uint64_t slot, uint64_t amount) {
    struct cw_tally tally = {.since = u->dot.counter};
    if (t->found)
        tally = cw_tally(t->payload);
    uint64_t had = cw_slots_get(tally.slots, slot);
    if (amount > CW_AMOUNT_MAX || had > CW_AMOUNT_MAX - amount)
        return CW_ERANGE;
    struct cw_buf slots;
    uint8_t space[256];
    cw_buf_init(&slots, u->doc->mem, space, sizeof space);
    if (had + amount)
        cw_slots_put(&slots, tally.slots, slot, had + amount);
    else
        cw_buf_bytes(&slots, tally.slots);
    tally.counter = u->dot.counter;
    tally.slots = cw_buf_slice(&slots, 0);
    cw_put_tally(&u->payload, &tally);
    enum cw_err err = slots.err ? slots.err : set_target(u);
    cw_buf_free(&slots);
    return err;
}

/* The rights held here and elsewhere. A debt, left by a removal that crossed a spending, is
 * forgiven before anything else is counted: `*debt` is what to add for that. */
static enum cw_err read_rights(struct update *u, struct target *t, struct cw_rights *rights,
                               uint64_t *debt) {
    enum cw_err err = cw_view_flush(&u->view);
    if (!err && t->found) /* its payload may have been in the tree before */
        t->found = cw_view_get(&u->view, cw_buf_slice(&u->key, 0), &t->payload);
    if (!err)
        err = cw_counter_rights(u->doc->mem, u->view.tree, cw_bytes(u->key.p, t->object),
                                u->doc->receipts > 0, u->dot.id, rights);
    *debt = 0;
    if (!err && cw_wide_negative(rights->here)) {
        *debt = cw_wide_clamp(cw_wide_negate(rights->here));
        rights->here = (struct cw_wide){0, 0};
    }
    return err;
}

static enum cw_err forgive(struct update *u, struct target *t, uint64_t debt) {
    enum cw_err err = debt ? count(u, t, CW_SLOT_ADDED, debt) : CW_OK;
    u->payload.n = 0;
    if (!err)
        t->found = cw_view_get(&u->view, cw_buf_slice(&u->key, 0), &t->payload);
    return err;
}

static enum cw_err count_bounded(struct update *u, struct target *t, const struct cw_op *op) {
    struct cw_rights rights;
    uint64_t debt;
    enum cw_err err = read_rights(u, t, &rights, &debt);
    if (err)
        return err;
    uint64_t here = cw_wide_clamp(rights.here);
    if (op->verb != CW_INCREMENT && op->amount > here) {
        u->fault->here = here;
        u->fault->elsewhere = cw_wide_clamp(rights.elsewhere);
        return CW_ERIGHTS;
    }
    uint64_t slot = op->verb == CW_INCREMENT ? CW_SLOT_ADDED : CW_SLOT_TAKEN;
    if (op->verb == CW_TRANSFER)
        slot = cw_name_id(op->arg);
    err = forgive(u, t, debt);
    if (err || slot == u->dot.id)
        return err;
    return count(u, t, slot, op->amount);
}

static enum cw_err count_op(struct update *u, struct target *t, const struct cw_op *op) {
    if (t->kind == CW_COUNTER_BOUNDED)
        return count_bounded(u, t, op);
    return count(u, t, op->verb == CW_INCREMENT ? CW_SLOT_ADDED : CW_SLOT_TAKEN, op->amount);
}

/* ---- removal of whatever there is ---- */

/* What remains for the owner of a tally that is dropped: see "Receipts" in cw_cell.h. The own tally
 * needs none; a receipt for an older one is settled with it. */
static enum cw_err leave_receipt(struct update *u, const struct cw_key_parts *parts,
                                 struct cw_bytes payload) {
    struct cw_buf key, receipt;
    uint8_t key_space[256], space[256];
    cw_buf_init(&key, u->doc->mem, key_space, sizeof key_space);
    cw_buf_init(&receipt, u->doc->mem, space, sizeof space);
    cw_put_receipt_key(&key, parts->owner, parts->object);
    struct cw_tally tally = cw_tally(payload);
    cw_put_receipt(&receipt, u->dot, tally.counter, tally.slots);
    struct cw_bytes k = cw_buf_slice(&key, 0), p = cw_buf_slice(&receipt, 0), old;
    enum cw_err err = key.err ? key.err : receipt.err;
    bool own = parts->owner == u->dot.id;
    bool there = cw_view_get(&u->view, k, &old);
    if (!err && !own && there && u->seen) /* those unseen may be of more */
        err = replace_seen(u, CW_RECEIPT, k, old, p);
    else if (!err && (!own || there))
        err = set_cell(u, k, own ? NULL : &p);
    cw_buf_free(&key);
    cw_buf_free(&receipt);
    return err;
}

/* Moves these amounts of the own tally to those removed. */
static enum cw_err remove_own(struct update *u, struct cw_bytes key, struct cw_tally tally,
                              struct cw_bytes amounts) {
    struct cw_buf slots;
    uint8_t space[512];
    cw_buf_init(&slots, u->doc->mem, space, sizeof space);
    cw_slots_max(&slots, amounts, tally.removed);
    size_t n = slots.n;
    cw_buf_reserve(&slots, n);
    cw_slots_min(&slots, tally.slots, cw_bytes(slots.p, n)); /* whatever they say */
    tally.removed = cw_buf_slice(&slots, n);
    u->payload.n = 0;
    cw_put_tally(&u->payload, &tally);
    struct cw_bytes payload = cw_buf_slice(&u->payload, 0);
    enum cw_err err = slots.err ? slots.err : u->payload.err;
    if (!err)
        err = set_cell(u, key, &payload);
    cw_buf_free(&slots);
    return err;
}

static struct cw_tally tally_at(const struct cw_tree *tree, struct cw_bytes key, uint64_t since) {
    struct cw_tally none = {0}, tally;
    struct cw_bytes payload;
    if (!cw_tree_get(tree, key, &payload))
        return none;
    tally = cw_tally(payload);
    return tally.since == since ? tally : none; /* else of another life */
}

/* A tally that counted on unseen stays, less what was seen of it. The own one is what it was before
 * this write: amounts removed must be the earlier ones, or they could not be joined with what
 * others removed. */
static enum cw_err drop_seen_of_tally(struct update *u, struct cw_bytes key,
                                      const struct cw_key_parts *parts,
                                      const struct cw_tally *now) {
    const struct cw_tree *tree = cw_doc_tree(u->seen);
    if (!tree)
        return CW_ENOMEM;
    struct cw_tally old = tally_at(tree, key, now->since);
    struct cw_bytes payload;
    if (parts->owner == u->dot.id)
        return remove_own(u, key, tally_at(u->before, key, now->since), old.slots);
    return old.counter && cw_tree_get(tree, key, &payload) ? leave_receipt(u, parts, payload)
                                                           : CW_OK;
}

/* Whether nothing was counted that the writer has not seen, or done. */
static bool has_seen_tally(const struct update *u, struct cw_bytes key,
                           const struct cw_key_parts *parts, const struct cw_tally *now) {
    if (!u->seen)
        return true;
    uint64_t counter = now->counter;
    if (parts->owner == u->dot.id)
        counter = tally_at(u->before, key, now->since).counter;
    return cw_context_contains(&u->context, (struct cw_dot){parts->owner, counter});
}

static enum cw_err drop_cell(struct update *u, struct cw_bytes key, struct cw_bytes payload) {
    struct cw_key_parts parts = cw_key_parts(key);
    enum cw_err err = CW_OK;
    if (parts.class == CW_TALLY) {
        struct cw_tally tally = cw_tally(payload);
        if (!has_seen_tally(u, key, &parts, &tally))
            return drop_seen_of_tally(u, key, &parts, &tally);
        err = leave_receipt(u, &parts, payload);
    } else if (u->seen) {
        return replace_seen(u, parts.class, key, payload, cw_bytes(NULL, 0));
    }
    return err ? err : cw_view_set(&u->view, key, NULL);
}

/* Drops what was seen of all cells with a prefix. */
static enum cw_err drop_below(struct update *u, struct cw_bytes prefix) {
    uint8_t from[CW_KEY_MAX + 1], key[CW_KEY_MAX];
    size_t n, from_len = prefix.n;
    struct cw_bytes payload;
    enum cw_err err = CW_OK;
    bool any = false;
    memcpy(from, prefix.p, prefix.n);
    while (!err && cw_view_next(&u->view, cw_bytes(from, from_len), key, &n, &payload)) {
        struct cw_bytes k = cw_bytes(key, n);
        if (!cw_bytes_has_prefix(k, prefix))
            break;
        any = true;
        err = drop_cell(u, k, payload);
        memcpy(from, key, n);
        from[n] = 0; /* the key after this one */
        from_len = n + 1;
    }
    if (any) {
        u->wrote = true;
        cw_touch(&u->touches, prefix, true);
    }
    return err;
}

static enum cw_err delete_op(struct update *u, const struct cw_op *op) {
    enum cw_err err = put_path(u, op);
    if (!err)
        err = put_known_path(u, op);
    if (err)
        return err;
    size_t last = u->key.n - op->path[op->path_len - 1].field.n - 1;
    if (u->key.p[last] == CW_MAP_GROW) {
        u->fault->want = CW_MAP_GROW;
        return CW_EOP;
    }
    if (op->kind)
        cw_buf_byte(&u->key, (uint8_t)op->kind);
    return u->key.err ? u->key.err : drop_below(u, cw_buf_slice(&u->key, 0));
}

/* ---- receipts for the own tallies ---- */

/* Moves what a receipt says is removed into the own tally, and drops the receipt. */
static enum cw_err settle(struct update *u, struct cw_bytes receipt_key, struct cw_bytes receipt) {
    struct cw_key_parts parts = cw_key_parts(receipt_key);
    struct cw_bytes payload;
    struct cw_buf slots;
    uint8_t space[512];
    enum cw_err err = CW_OK;
    cw_buf_init(&slots, u->doc->mem, space, sizeof space);
    u->key.n = 0;
    cw_buf_put(&u->key, parts.object.p + parts.path_at, parts.object.n - parts.path_at);
    cw_buf_u64be(&u->key, u->dot.id);
    if (cw_view_get(&u->view, cw_buf_slice(&u->key, 0), &payload)) {
        struct cw_tally tally = cw_tally(payload);
        cw_receipt_slots(&slots, receipt, tally.since);
        err = slots.err ? slots.err
                        : remove_own(u, cw_buf_slice(&u->key, 0), tally, cw_buf_slice(&slots, 0));
    }
    cw_buf_free(&slots);
    return err ? err : set_cell(u, receipt_key, NULL);
}

static enum cw_err settle_receipts(struct update *u) {
    uint8_t prefix[9], key[CW_KEY_MAX];
    size_t n;
    struct cw_bytes payload, own = cw_bytes(prefix, sizeof prefix);
    enum cw_err err = CW_OK;
    prefix[0] = CW_RECEIPT_TAG;
    cw_store64be(prefix + 1, u->dot.id);
    while (!err && cw_view_next(&u->view, own, key, &n, &payload) &&
           cw_bytes_has_prefix(cw_bytes(key, n), own))
        err = settle(u, cw_bytes(key, n), payload);
    return err;
}

/* ---- one write ---- */

static enum cw_err run_op(struct update *u, const struct cw_op *op) {
    struct target t = {.kind = CW_KIND_NONE};
    u->payload.n = 0;
    if (op->verb == CW_DELETE)
        return delete_op(u, op);
    enum cw_err err = find_target(u, op, &t);
    if (err)
        return err;
    switch (op->verb) {
    case CW_PUT:
        return put_register(u, &t, op->arg);
    case CW_INCREMENT:
    case CW_DECREMENT:
    case CW_TRANSFER:
        return count_op(u, &t, op);
    case CW_ADD:
    case CW_ENABLE:
        return put_one_dot(u, &t, false);
    case CW_REMOVE:
        if (t.kind == CW_SET_GROW) {
            u->fault->want = CW_SET_GROW;
            return CW_EOP;
        }
        return drop_target(u, &t);
    case CW_DISABLE:
        return drop_target(u, &t);
    case CW_RESET:
        return drop_below(u, cw_bytes(u->key.p, t.object));
    default:
        return CW_EOP;
    }
}

static bool may_remove(const struct cw_op *ops, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (ops[i].verb == CW_DELETE || ops[i].verb == CW_RESET)
            return true;
    return false;
}

static enum cw_err keep_before(struct update *u) {
    enum cw_err err = cw_view_flush(&u->view);
    if (!err)
        u->before = cw_tree_retain(u->view.tree);
    return err;
}

static enum cw_err run_ops(struct update *u, const struct cw_op *ops, size_t n) {
    enum cw_err err = u->doc->receipts ? settle_receipts(u) : CW_OK;
    if (!err && u->seen && may_remove(ops, n))
        err = keep_before(u);
    u->wrote = false; /* settling alone is no reason to write */
    for (size_t i = 0; i < n && !err; i++) {
        u->fault->op = i;
        err = run_op(u, &ops[i]);
    }
    if (u->view.err)
        return u->view.err;
    return err ? err : u->touches.err;
}

static bool has_cell(const struct cw_doc *doc, struct cw_bytes key) {
    struct cw_pending pending = cw_doc_pending(doc);
    struct cw_edit last;
    struct cw_bytes payload;
    if (cw_pending_find(&pending, key, &last))
        return !last.del;
    return cw_tree_get(doc->tree, key, &payload);
}

/* Leaves out deletions of what is not there. */
static size_t drop_idle(const struct update *u, const struct cw_doc *doc, struct cw_edit *edits) {
    size_t n = 0;
    for (size_t i = 0; i < u->view.n; i++)
        if (!u->view.at[i].del || has_cell(doc, u->view.at[i].key))
            edits[n++] = u->view.at[i];
    return n;
}

/* Few edits are noted in `to`, more go into its tree. `*changed` tells whether anything did. */
static enum cw_err take_edits(struct update *u, struct cw_doc *to, bool settled, bool *changed) {
    struct cw_edit edits[NOTED_EDITS];
    if (!settled && !u->view.flushed && u->view.n <= NOTED_EDITS) {
        size_t n = drop_idle(u, to, edits);
        *changed = n > 0;
        if (cw_pending_add(&to->pending, u->doc->mem, edits, n))
            return CW_OK;
    }
    enum cw_err err = cw_doc_settle(u->doc);
    if (!err)
        err = cw_view_flush(&u->view);
    if (err)
        return err;
    struct cw_tree *tree = u->view.tree, *was = u->doc->tree;
    *changed = !cw_hash_eq(cw_tree_hash(tree), cw_tree_hash(was)) ||
               cw_tree_count(tree) != cw_tree_count(was);
    if (*changed)
        cw_doc_set_tree(to, cw_tree_retain(tree));
    return CW_OK;
}

/* The document after the write. `settled`: its tree must have all edits. */
static enum cw_err finish(struct update *u, bool settled, struct cw_doc **out) {
    const struct cw_doc *doc = u->doc;
    struct cw_doc *to = cw_doc_copy(doc);
    bool changed = false;
    if (!to)
        return CW_ENOMEM;
    enum cw_err err = u->wrote ? take_edits(u, to, settled, &changed) : CW_OK;
    if (err) {
        cw_doc_free(to);
        return err;
    }
    *out = to;
    if (!changed)
        return CW_OK;
    to->own = u->dot.counter;
    if (u->stamped)
        to->hlc = u->hlc;
    struct cw_context before = cw_doc_context(doc);
    struct cw_span span = {u->dot.id, doc->own, to->own};
    cw_journal_add(&to->journal, doc->mem, cw_journal_limit(cw_doc_count(doc)), &before, &span, 1,
                   cw_buf_slice(&u->touches, 0), false);
    if (settled)
        cw_doc_count_receipts(to);
    return CW_OK;
}

static enum cw_err update(const struct cw_doc *doc, const struct cw_doc *seen,
                          const struct cw_op *ops, size_t n, uint64_t now_ms, struct cw_doc **out,
                          struct cw_fault *fault) {
    uint64_t space[128];
    uint8_t touch_space[256], key_space[256], payload_space[256];
    struct update u; /* field by field: the view is too large to be cleared each time */
    if (doc->own >= CW_COUNTER_MAX)
        return CW_ERANGE;
    u.doc = doc;
    u.seen = seen;
    u.before = NULL;
    if (seen)
        u.context = cw_doc_context(seen);
    u.now_ms = now_ms;
    u.stamped = u.wrote = false;
    u.fault = fault;
    u.dot = (struct cw_dot){doc->self->id, doc->own + 1};
    cw_arena_init(&u.arena, doc->mem, space, sizeof space);
    cw_buf_init(&u.touches, doc->mem, touch_space, sizeof touch_space);
    cw_buf_init(&u.key, doc->mem, key_space, sizeof key_space);
    cw_buf_init(&u.payload, doc->mem, payload_space, sizeof payload_space);
    cw_view_open(&u.view, &u.arena, doc);
    struct cw_doc *to;
    enum cw_err err = run_ops(&u, ops, n);
    if (!err)
        err = finish(&u, doc->receipts || may_remove(ops, n), &to);
    cw_view_close(&u.view);
    cw_tree_release(u.before);
    cw_buf_free(&u.payload);
    cw_buf_free(&u.key);
    cw_buf_free(&u.touches);
    cw_arena_free(&u.arena);
    if (!err)
        *out = to;
    return err;
}

enum cw_err cw_doc_update(const struct cw_doc *doc, const struct cw_op *ops, size_t n,
                          uint64_t now_ms, struct cw_doc **out, struct cw_fault *fault) {
    return update(doc, NULL, ops, n, now_ms, out, fault);
}

/* CW_ECLOCK unless all that `seen` has is in `doc` too, under the same replica. */
static enum cw_err check_seen(const struct cw_doc *doc, const struct cw_doc *seen) {
    struct cw_vv *now, *then;
    if (doc->self->id != seen->self->id || seen->own > doc->own)
        return CW_ECLOCK;
    if (doc->vv == seen->vv) /* nothing came from elsewhere */
        return CW_OK;
    enum cw_err err = cw_doc_clock(doc, &now);
    if (err)
        return err;
    err = cw_doc_clock(seen, &then);
    if (!err) {
        enum cw_order order = cw_vv_compare(then, now);
        err = order == CW_EQUAL || order == CW_BEFORE ? CW_OK : CW_ECLOCK;
        cw_vv_release(then);
    }
    cw_vv_release(now);
    return err;
}

enum cw_err cw_doc_update_as_of(const struct cw_doc *doc, const struct cw_doc *seen,
                                const struct cw_op *ops, size_t n, uint64_t now_ms,
                                struct cw_doc **out, struct cw_fault *fault) {
    if (seen->own == doc->own && seen->vv == doc->vv)
        return update(doc, NULL, ops, n, now_ms, out, fault);
    enum cw_err err = check_seen(doc, seen);
    return err ? err : update(doc, seen, ops, n, now_ms, out, fault);
}
