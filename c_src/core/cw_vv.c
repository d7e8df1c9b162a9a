#include "cw_vv.h"

#include "cw_hash.h"

/* ---- names ---- */

uint64_t cw_name_id(struct cw_bytes name) {
    uint64_t id = cw_hash_name(name);
    return id < CW_ID_MIN ? id + CW_ID_MIN : id;
}

struct cw_name *cw_name_new(const struct cw_mem *mem, struct cw_bytes bytes) {
    struct cw_name *name = cw_alloc(mem, sizeof *name + bytes.n);
    if (!name)
        return NULL;
    name->mem = mem;
    atomic_init(&name->refs, 1);
    name->len = (uint32_t)bytes.n;
    name->id = cw_name_id(bytes);
    memcpy(name->bytes, bytes.p, bytes.n);
    return name;
}

struct cw_name *cw_name_retain(struct cw_name *name) {
    atomic_fetch_add_explicit(&name->refs, 1, memory_order_relaxed);
    return name;
}

void cw_name_release(struct cw_name *name) {
    if (name && atomic_fetch_sub(&name->refs, 1) == 1)
        cw_free(name->mem, name);
}

/* ---- vectors ---- */

struct cw_vv *cw_vv_new(const struct cw_mem *mem, uint32_t n) {
    struct cw_vv *vv = cw_alloc(mem, sizeof *vv + n * sizeof vv->at[0]);
    if (!vv)
        return NULL;
    vv->mem = mem;
    atomic_init(&vv->refs, 1);
    vv->n = 0;
    return vv;
}

struct cw_vv *cw_vv_retain(struct cw_vv *vv) {
    atomic_fetch_add_explicit(&vv->refs, 1, memory_order_relaxed);
    return vv;
}

void cw_vv_release(struct cw_vv *vv) {
    if (!vv || atomic_fetch_sub(&vv->refs, 1) != 1)
        return;
    for (uint32_t i = 0; i < vv->n; i++)
        cw_name_release(vv->at[i].name);
    cw_free(vv->mem, vv);
}

uint32_t cw_vv_find(const struct cw_vv *vv, uint64_t id) {
    uint32_t lo = 0, hi = vv->n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (vv->at[mid].id < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < vv->n && vv->at[lo].id == id ? lo : vv->n;
}

static void append(struct cw_vv *vv, struct cw_name *name, uint64_t counter) {
    vv->at[vv->n++] = (struct cw_vv_entry){name->id, counter, cw_name_retain(name)};
}

/* Two vectors side by side: the next replica and its counters. */
struct walk {
    const struct cw_vv *a, *b;
    uint32_t i, j;
    struct cw_name *name, *other; /* `other` only when both have the replica */
    uint64_t ca, cb;
};

static bool walk_next(struct walk *w) {
    bool ha = w->i < w->a->n, hb = w->j < w->b->n;
    if (!ha && !hb)
        return false;
    const struct cw_vv_entry *x = ha ? &w->a->at[w->i] : NULL, *y = hb ? &w->b->at[w->j] : NULL;
    bool take_a = ha && (!hb || x->id <= y->id), take_b = hb && (!ha || y->id <= x->id);
    w->name = take_a ? x->name : y->name;
    w->other = take_a && take_b ? y->name : NULL;
    w->ca = take_a ? x->counter : 0;
    w->cb = take_b ? y->counter : 0;
    w->i += take_a;
    w->j += take_b;
    return true;
}

enum cw_order cw_vv_compare(const struct cw_vv *a, const struct cw_vv *b) {
    struct walk w = {.a = a, .b = b};
    bool less = false, more = false;
    while (walk_next(&w)) {
        less |= w.ca < w.cb;
        more |= w.ca > w.cb;
    }
    return less ? (more ? CW_CONCURRENT : CW_BEFORE) : (more ? CW_AFTER : CW_EQUAL);
}

static uint32_t count_both(const struct cw_vv *a, const struct cw_vv *b) {
    struct walk w = {.a = a, .b = b};
    uint32_t n = 0;
    while (walk_next(&w))
        n++;
    return n;
}

enum cw_err cw_vv_merge(struct cw_vv *a, struct cw_vv *b, struct cw_vv **out) {
    struct cw_vv *vv = cw_vv_new(a->mem, count_both(a, b));
    if (!vv)
        return CW_ENOMEM;
    struct walk w = {.a = a, .b = b};
    while (walk_next(&w)) {
        if (w.other && w.other != w.name &&
            !cw_bytes_eq(cw_name_bytes(w.name), cw_name_bytes(w.other))) {
            cw_vv_release(vv);
            return CW_EREPLICA;
        }
        append(vv, w.name, w.ca > w.cb ? w.ca : w.cb);
    }
    *out = vv;
    return CW_OK;
}

struct cw_vv *cw_vv_common(const struct cw_vv *a, const struct cw_vv *b) {
    struct cw_vv *vv = cw_vv_new(a->mem, a->n);
    for (uint32_t i = 0; vv && i < a->n; i++) {
        uint64_t ours = a->at[i].counter, theirs = cw_vv_get(b, a->at[i].id);
        if (ours && theirs)
            append(vv, a->at[i].name, ours < theirs ? ours : theirs);
    }
    return vv;
}

enum cw_err cw_vv_raise(struct cw_vv *vv, struct cw_name *name, uint64_t counter,
                        struct cw_vv **out) {
    struct cw_vv *to = cw_vv_new(vv->mem, vv->n + 1);
    if (!to)
        return CW_ENOMEM;
    uint32_t i = 0;
    for (; i < vv->n && vv->at[i].id < name->id; i++)
        append(to, vv->at[i].name, vv->at[i].counter);
    if (i < vv->n && vv->at[i].id == name->id) {
        if (!cw_bytes_eq(cw_name_bytes(vv->at[i].name), cw_name_bytes(name))) {
            cw_vv_release(to);
            return CW_EREPLICA;
        }
        if (counter < vv->at[i].counter)
            counter = vv->at[i].counter;
        i++;
    }
    if (counter)
        append(to, name, counter);
    for (; i < vv->n; i++)
        append(to, vv->at[i].name, vv->at[i].counter);
    *out = to;
    return CW_OK;
}

bool cw_vv_disjoint(const struct cw_vv *a, const struct cw_vv *b) {
    struct walk w = {.a = a, .b = b};
    while (walk_next(&w))
        if (w.ca && w.cb)
            return false;
    return true;
}
