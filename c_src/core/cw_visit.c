#include "cw_visit.h"

#include "cw_counter.h"
#include "cw_doc_struct.h"
#include "cw_term.h"

/* ---- finding ---- */

/* The kind of the first cell below the fields in `key`, or of the first one from `want` on. */
static enum cw_kind kind_below(const struct cw_doc *doc, struct cw_buf *key, enum cw_kind want) {
    struct cw_cursor cur;
    size_t n = key->n;
    if (want)
        cw_buf_byte(key, (uint8_t)want);
    bool more = !key->err && cw_cursor_seek(&cur, doc->tree, cw_buf_slice(key, 0));
    key->n = n;
    struct cw_bytes at = cw_cursor_key(&cur);
    if (!more || at.n <= n || !cw_bytes_has_prefix(at, cw_bytes(key->p, n)))
        return CW_KIND_NONE;
    enum cw_kind kind = (enum cw_kind)at.p[n];
    return want && kind != want ? CW_KIND_NONE : kind;
}

bool cw_doc_find(const struct cw_doc *doc, const struct cw_bytes *fields, size_t n,
                 enum cw_kind want, struct cw_buf *key, enum cw_kind *kind) {
    key->n = 0;
    key->err = key->err ? key->err : cw_doc_settle(doc);
    enum cw_kind map = CW_MAP;
    for (size_t i = 0; i < n; i++) {
        cw_buf_byte(key, (uint8_t)map);
        cw_buf_bytes(key, fields[i]);
        if (key->err || key->n >= CW_KEY_MAX)
            return false;
        if (i + 1 == n)
            break;
        map = kind_below(doc, key, CW_KIND_NONE);
        if (!cw_kind_is_map(map))
            return false;
    }
    *kind = n ? kind_below(doc, key, want) : CW_MAP;
    if (*kind)
        cw_buf_byte(key, (uint8_t)*kind);
    return *kind && !key->err;
}

/* ---- walking ---- */

struct walk {
    const struct cw_doc *doc;
    const struct cw_visitor *v;
    void *ctx;
    struct cw_cursor cur;
    bool more;
    uint8_t path[CW_KEY_MAX + 1]; /* the object key at hand; its ancestors' are prefixes of it */
};

static bool is_in(const struct walk *w, struct cw_bytes prefix) {
    return w->more && cw_bytes_has_prefix(cw_cursor_key(&w->cur), prefix);
}

/* An element is in while some add and no remove keeps it; a flag is on likewise. Where no kind of
 * mark exists, any dot will do. */
static bool is_on(struct cw_bytes payload) {
    struct cw_entry e;
    bool on = false;
    while (cw_entry_next(CW_DOTS, &payload, &e)) {
        if (e.mark)
            return false;
        on = true;
    }
    return on;
}

static enum cw_err visit_set(struct walk *w, struct cw_bytes object, enum cw_kind kind) {
    enum cw_err err = w->v->begin(w->ctx, kind);
    for (; !err && is_in(w, object); w->more = cw_cursor_next(&w->cur)) {
        struct cw_bytes key = cw_cursor_key(&w->cur);
        if (is_on(w->cur.payload))
            err = w->v->element(w->ctx, cw_bytes(key.p + object.n, key.n - object.n));
    }
    return err ? err : w->v->end(w->ctx, kind);
}

/* The last writer's value, by stamp, then replica. */
static enum cw_err visit_register(struct walk *w) {
    struct cw_bytes rest = w->cur.payload;
    struct cw_entry e, last = {.hlc = 0};
    while (cw_entry_next(CW_VALUES, &rest, &e))
        if (!last.bytes.n || e.hlc > last.hlc ||
            (e.hlc == last.hlc && cw_dot_cmp(e.dot, last.dot) > 0))
            last = e;
    return w->v->value(w->ctx, last.body);
}

static enum cw_err visit_values(struct walk *w, enum cw_kind kind) {
    struct cw_bytes rest = w->cur.payload;
    struct cw_entry e;
    enum cw_err err = w->v->begin(w->ctx, kind);
    while (!err && cw_entry_next(CW_VALUES, &rest, &e))
        err = w->v->value(w->ctx, e.body);
    return err ? err : w->v->end(w->ctx, kind);
}

static enum cw_err visit_counter(struct walk *w, struct cw_bytes object, enum cw_kind kind) {
    const struct cw_doc *doc = w->doc;
    struct cw_wide value;
    struct cw_rights rights;
    enum cw_err err;
    if (kind == CW_COUNTER) {
        err = cw_counter_value(doc->mem, doc->tree, object, doc->receipts > 0, &value);
    } else {
        err = cw_counter_rights(doc->mem, doc->tree, object, doc->receipts > 0, doc->self->id,
                                &rights);
        if (!err)
            value = cw_rights_value(&rights);
    }
    return err ? err : w->v->counter(w->ctx, value);
}

static enum cw_err visit_object(struct walk *w, struct cw_bytes object, enum cw_kind kind);

/* One field: its first kind is shown, the others passed over. The map's object key is the first
 * `len` bytes of the path. */
static enum cw_err visit_field(struct walk *w, size_t len) {
    struct cw_bytes key = cw_cursor_key(&w->cur);
    struct cw_reader r = cw_reader(cw_bytes(key.p + len, key.n - len));
    cw_skip_key_term(&r);
    size_t n = (size_t)(r.p - key.p);
    if (r.err || n >= key.n)
        return CW_EMALFORMED;
    memcpy(w->path + len, key.p + len, n + 1 - len);
    enum cw_err err = w->v->field(w->ctx, cw_bytes(w->path + len, n - len));
    if (!err)
        err = visit_object(w, cw_bytes(w->path, n + 1), (enum cw_kind)w->path[n]);
    if (!err && is_in(w, cw_bytes(w->path, n))) {
        w->path[n] = CW_PREFIX_END;
        w->more = cw_cursor_seek(&w->cur, w->doc->tree, cw_bytes(w->path, n + 1));
    }
    return err;
}

static enum cw_err visit_map(struct walk *w, struct cw_bytes object, enum cw_kind kind) {
    enum cw_err err = w->v->begin(w->ctx, kind);
    while (!err && is_in(w, object))
        err = visit_field(w, object.n);
    return err ? err : w->v->end(w->ctx, kind);
}

/* Leaves the cursor at or before the end of the object. */
static enum cw_err visit_object(struct walk *w, struct cw_bytes object, enum cw_kind kind) {
    if (cw_kind_is_map(kind))
        return visit_map(w, object, kind);
    if (cw_kind_is_set(kind))
        return visit_set(w, object, kind);
    if (!is_in(w, object))
        return CW_EKIND;
    switch (kind) {
    case CW_COUNTER:
    case CW_COUNTER_BOUNDED:
        return visit_counter(w, object, kind);
    case CW_REGISTER:
        return visit_register(w);
    case CW_REGISTER_MULTI:
        return visit_values(w, kind);
    default:
        return w->v->flag(w->ctx, is_on(w->cur.payload));
    }
}

enum cw_err cw_doc_visit(const struct cw_doc *doc, struct cw_bytes object, enum cw_kind kind,
                         const struct cw_visitor *visitor, void *ctx) {
    struct walk w;
    if (object.n > CW_KEY_MAX)
        return CW_ELIMIT;
    w.doc = doc;
    w.v = visitor;
    w.ctx = ctx;
    enum cw_err err = cw_doc_settle(doc);
    if (err)
        return err;
    memcpy(w.path, object.p, object.n);
    w.more = cw_cursor_seek(&w.cur, doc->tree, object);
    return visit_object(&w, cw_bytes(w.path, object.n), kind);
}

struct cw_range cw_doc_range(const struct cw_doc *doc, struct cw_bytes prefix) {
    uint8_t end[CW_KEY_MAX];
    size_t n = prefix.n;
    if (n > CW_KEY_MAX)
        return (struct cw_range){{0, 0}, 0};
    memcpy(end, prefix.p, n);
    (void)cw_doc_settle(doc); /* without memory, what is in the tree is near enough */
    bool bounded = cw_prefix_after(end, &n);
    struct cw_bytes hi = cw_bytes(end, n);
    return cw_tree_range(doc->tree, prefix, bounded ? &hi : NULL);
}

uint64_t cw_doc_cells(const struct cw_doc *doc, struct cw_bytes object) {
    return cw_doc_range(doc, object).count;
}

bool cw_doc_has_element(const struct cw_doc *doc, struct cw_bytes object, enum cw_kind kind,
                        struct cw_bytes element) {
    uint8_t space[CW_KEY_MAX];
    struct cw_pending pending = cw_doc_pending(doc);
    struct cw_edit last;
    struct cw_bytes payload, key = cw_bytes(space, object.n + element.n);
    if (!cw_kind_is_set(kind) || key.n > CW_KEY_MAX)
        return false;
    memcpy(space, object.p, object.n);
    memcpy(space + object.n, element.p, element.n);
    if (cw_pending_find(&pending, key, &last))
        return !last.del && is_on(last.payload);
    return cw_tree_get(doc->tree, key, &payload) && is_on(payload);
}

enum cw_err cw_doc_rights(const struct cw_doc *doc, struct cw_bytes object, uint64_t *here,
                          uint64_t *elsewhere) {
    struct cw_rights r;
    enum cw_err err = cw_doc_settle(doc);
    if (!err)
        err = cw_counter_rights(doc->mem, doc->tree, object, doc->receipts > 0, doc->self->id, &r);
    if (err)
        return err;
    *here = cw_wide_clamp(r.here);
    *elsewhere = cw_wide_clamp(r.elsewhere);
    return CW_OK;
}
