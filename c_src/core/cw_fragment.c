#include "cw_fragment.h"

#include "cw_term.h"
#include "cw_tree.h"

enum { TAG_END, TAG_CELL, TAG_ABSENT, TAG_BELOW };

/* ---- writing ---- */

void cw_fragment_begin(struct cw_fragment_writer *w, struct cw_buf *out, const struct cw_vv *from,
                       const struct cw_vv *to, bool net) {
    w->out = out;
    w->to = to;
    cw_buf_init(&w->last, out->mem, NULL, 0);
    cw_buf_byte(out, CW_FORMAT_MAGIC);
    cw_buf_byte(out, CW_FORMAT_VERSION | (net ? CW_FORMAT_NET : CW_FORMAT_EXACT));
    cw_buf_varint(out, to->n);
    for (uint32_t i = 0; i < to->n; i++) {
        cw_buf_varint(out, to->at[i].name->len);
        cw_buf_bytes(out, cw_name_bytes(to->at[i].name));
    }
    for (uint32_t i = 0; i < to->n; i++) {
        uint64_t seen = cw_vv_get(from, to->at[i].id);
        cw_buf_varint(out, seen);
        cw_buf_varint(out, to->at[i].counter - seen);
    }
}

/* A key as what it shares with the one before and the rest. */
static void put_key(struct cw_fragment_writer *w, struct cw_bytes key) {
    size_t n = key.n < w->last.n ? key.n : w->last.n, shared = 0;
    while (shared < n && key.p[shared] == w->last.p[shared])
        shared++;
    cw_buf_varint(w->out, shared);
    cw_buf_varint(w->out, key.n - shared);
    cw_buf_put(w->out, key.p + shared, key.n - shared);
    w->last.n = shared;
    cw_buf_put(&w->last, key.p + shared, key.n - shared);
}

void cw_fragment_cell(struct cw_fragment_writer *w, struct cw_bytes key, struct cw_bytes payload) {
    struct cw_key_parts parts = cw_key_parts(key);
    put_key(w, key);
    cw_wire_put(w->out, &parts, payload, w->to);
}

void cw_fragment_key(struct cw_fragment_writer *w, struct cw_bytes key,
                     const struct cw_bytes *payload) {
    cw_buf_byte(w->out, payload ? TAG_CELL : TAG_ABSENT);
    if (payload)
        cw_fragment_cell(w, key, *payload);
    else
        put_key(w, key);
}

void cw_fragment_below(struct cw_fragment_writer *w, struct cw_bytes prefix, uint64_t n) {
    cw_buf_byte(w->out, TAG_BELOW);
    put_key(w, prefix);
    cw_buf_varint(w->out, n);
}

enum cw_err cw_fragment_end(struct cw_fragment_writer *w) {
    enum cw_err err = w->last.err;
    cw_buf_byte(w->out, TAG_END);
    cw_buf_free(&w->last);
    return err ? err : w->out->err;
}

enum cw_err cw_fragment_write(const struct cw_fragment *f, struct cw_buf *out) {
    struct cw_fragment_writer w;
    cw_fragment_begin(&w, out, f->from, f->to, f->net);
    for (size_t i = 0; i < f->n; i++) {
        const struct cw_area *area = &f->areas[i];
        const struct cw_piece *p = f->pieces + area->first;
        if (!area->below) {
            cw_fragment_key(&w, area->key, area->n ? &p->payload : NULL);
            continue;
        }
        cw_fragment_below(&w, area->key, area->n);
        for (size_t k = 0; k < area->n; k++)
            cw_fragment_cell(&w, p[k].key, p[k].payload);
    }
    return cw_fragment_end(&w);
}

/* ---- reading ---- */

struct decode {
    struct cw_reader r;
    struct cw_fragment *f;
    struct cw_buf key; /* the key before */
    struct cw_buf payload;
    size_t keys; /* bytes of keys that may still be kept */
    size_t areas_cap;
    size_t pieces_n;
    size_t pieces_cap;
};

static void fail(struct decode *d, enum cw_err err) {
    cw_reader_fail(&d->r, err);
}

/* Room for one more than `n` in an array of `*cap`. */
static bool grow(struct decode *d, void **at, size_t n, size_t *cap, size_t size) {
    if (n < *cap)
        return true;
    void *p = cw_arena_grow(&d->f->arena, *at, cap, size, 4);
    if (!p) {
        fail(d, CW_ENOMEM);
        return false;
    }
    *at = p;
    return true;
}

static struct cw_bytes keep(struct decode *d, const struct cw_buf *buf) {
    struct cw_bytes s =
        buf->err ? cw_bytes(NULL, 0) : cw_arena_copy(&d->f->arena, cw_buf_slice(buf, 0));
    if (!s.p) {
        fail(d, CW_ENOMEM);
        return cw_bytes("", 0);
    }
    return s;
}

static struct cw_bytes keep_key(struct decode *d) {
    if (d->key.n > d->keys) {
        fail(d, CW_EBUDGET);
        return cw_bytes("", 0);
    }
    if (d->keys != SIZE_MAX)
        d->keys -= d->key.n;
    return keep(d, &d->key);
}

struct cw_name *cw_read_name(struct cw_reader *r, const struct cw_mem *mem) {
    uint64_t n = cw_read_varint(r);
    if (n > CW_NAME_MAX)
        cw_reader_fail(r, CW_ELIMIT);
    struct cw_bytes s = cw_read_bytes(r, r->err ? 0 : n);
    struct cw_reader inner = cw_reader(s), again = inner;
    enum cw_term_type type = cw_read_token(&again, CW_KEY).type;
    cw_check_term(&inner, CW_KEY);
    enum cw_err err = cw_reader_whole(&inner);
    if (err || (type != CW_T_ATOM && type != CW_T_BINARY))
        cw_reader_fail(r, err ? err : CW_EMALFORMED);
    struct cw_name *name = r->err ? NULL : cw_name_new(mem, s);
    if (!name)
        cw_reader_fail(r, CW_ENOMEM);
    return name;
}

static void read_names(struct decode *d) {
    const struct cw_mem *mem = d->f->arena.mem;
    uint64_t n = cw_read_count(&d->r, 4);
    if (n > CW_REPLICAS_MAX) {
        fail(d, CW_ELIMIT);
        return;
    }
    struct cw_vv *to = cw_vv_new(mem, (uint32_t)n), *from = cw_vv_new(mem, (uint32_t)n);
    d->f->to = to;
    d->f->from = from;
    if (!to || !from) {
        fail(d, CW_ENOMEM);
        return;
    }
    for (uint64_t i = 0; i < n; i++) {
        struct cw_name *name = cw_read_name(&d->r, mem);
        if (!name)
            return;
        to->at[to->n++] = (struct cw_vv_entry){name->id, 0, name};
        if (i > 0 && to->at[i - 1].id >= name->id)
            fail(d, CW_EMALFORMED);
    }
}

static void read_clocks(struct decode *d) {
    struct cw_vv *to = d->f->to, *from = d->f->from;
    for (uint32_t i = 0; i < to->n && !d->r.err; i++) {
        uint64_t seen = cw_read_varint(&d->r), more = cw_read_varint(&d->r);
        if (seen > CW_COUNTER_MAX || more > CW_COUNTER_MAX - seen)
            fail(d, CW_ERANGE);
        if (seen + more == 0)
            fail(d, CW_EMALFORMED);
        to->at[i].counter = seen + more;
        if (seen)
            from->at[from->n++] =
                (struct cw_vv_entry){to->at[i].id, seen, cw_name_retain(to->at[i].name)};
    }
}

/* The next key, in `d->key`; it must be above the one before, or may `repeat` it. */
static void read_key(struct decode *d, bool repeat) {
    uint64_t shared = cw_read_varint(&d->r), n = cw_read_varint(&d->r);
    if (shared > d->key.n || n > CW_KEY_MAX || shared + n > CW_KEY_MAX) {
        fail(d, shared > d->key.n ? CW_EMALFORMED : CW_ELIMIT);
        return;
    }
    struct cw_bytes rest = cw_read_bytes(&d->r, n);
    bool above = shared == d->key.n ? n > 0 || repeat : rest.n && rest.p[0] > d->key.p[shared];
    if (!d->r.err && !above)
        fail(d, CW_EMALFORMED);
    d->key.n = (size_t)shared;
    cw_buf_bytes(&d->key, rest);
    if (d->key.err)
        fail(d, d->key.err);
}

/* The cell of the key just read, which was kept already if `kept`. */
static void read_piece(struct decode *d, const struct cw_bytes *kept) {
    struct cw_key_parts parts;
    enum cw_err err = cw_key_check(cw_buf_slice(&d->key, 0), &parts);
    if (d->r.err || err) {
        fail(d, err);
        return;
    }
    d->payload.n = 0;
    cw_wire_read(&d->r, &parts, d->f->to, &d->payload, &d->f->hlc);
    if (d->payload.err || d->r.err) {
        fail(d, d->payload.err);
        return;
    }
    if (d->payload.n > CW_PAYLOAD_MAX)
        fail(d, CW_ELIMIT);
    if (!grow(d, (void **)&d->f->pieces, d->pieces_n, &d->pieces_cap, sizeof *d->f->pieces))
        return;
    struct cw_bytes key = kept ? *kept : keep_key(d);
    d->f->pieces[d->pieces_n++] = (struct cw_piece){key, keep(d, &d->payload)};
}

static struct cw_area *add_area(struct decode *d, bool below) {
    struct cw_fragment *f = d->f;
    if (d->r.err || !grow(d, (void **)&f->areas, f->n, &d->areas_cap, sizeof *f->areas))
        return NULL;
    struct cw_area *area = &f->areas[f->n++];
    *area = (struct cw_area){keep_key(d), below, 0, d->pieces_n};
    return area;
}

static void read_below(struct decode *d) {
    enum cw_err err = cw_prefix_check(cw_buf_slice(&d->key, 0));
    if (err)
        fail(d, err);
    struct cw_area *area = add_area(d, true);
    if (!area)
        return;
    uint64_t n = cw_read_count(&d->r, 4);
    for (uint64_t i = 0; i < n && !d->r.err; i++) {
        read_key(d, i == 0);
        if (!cw_bytes_has_prefix(cw_buf_slice(&d->key, 0), area->key))
            fail(d, CW_EMALFORMED);
        read_piece(d, NULL);
        area->n++;
    }
}

/* A key must not be in the area before. */
static void read_area_key(struct decode *d) {
    const struct cw_area *last = d->f->n ? &d->f->areas[d->f->n - 1] : NULL;
    read_key(d, !last);
    if (last && last->below && cw_bytes_has_prefix(cw_buf_slice(&d->key, 0), last->key))
        fail(d, CW_EMALFORMED);
}

static void read_areas(struct decode *d) {
    struct cw_fragment *f = d->f;
    grow(d, (void **)&f->areas, 0, &d->areas_cap, sizeof *f->areas); /* none is not NULL */
    grow(d, (void **)&f->pieces, 0, &d->pieces_cap, sizeof *f->pieces);
    while (!d->r.err) {
        uint8_t tag = cw_read_byte(&d->r);
        struct cw_area *area;
        struct cw_key_parts parts;
        enum cw_err err;
        switch (tag) {
        case TAG_END:
            if (cw_reader_left(&d->r))
                fail(d, CW_EMALFORMED);
            return;
        case TAG_CELL:
            read_area_key(d);
            area = add_area(d, false);
            if (!area)
                return;
            area->n = 1;
            read_piece(d, &area->key);
            break;
        case TAG_ABSENT:
            read_area_key(d);
            err = cw_key_check(cw_buf_slice(&d->key, 0), &parts);
            if (err)
                fail(d, err);
            add_area(d, false);
            break;
        case TAG_BELOW:
            read_area_key(d);
            read_below(d);
            break;
        default:
            fail(d, CW_EMALFORMED);
        }
    }
}

static void read_head(struct decode *d) {
    uint8_t magic = cw_read_byte(&d->r), word = cw_read_byte(&d->r), type = word & 0x0f;
    if (d->r.err)
        return;
    if (magic != CW_FORMAT_MAGIC)
        fail(d, CW_EMALFORMED);
    else if ((word & 0xf0) != CW_FORMAT_VERSION)
        fail(d, CW_EVERSION);
    else if (type != CW_FORMAT_EXACT && type != CW_FORMAT_NET)
        fail(d, CW_EMALFORMED);
    d->f->net = type == CW_FORMAT_NET;
}

enum cw_err cw_fragment_read(struct cw_fragment *f, const struct cw_mem *mem, size_t budget,
                             struct cw_bytes s) {
    struct decode d = {.r = cw_reader(s), .f = f};
    d.keys = budget < SIZE_MAX / CW_CELL_KEY ? budget * CW_CELL_KEY : SIZE_MAX;
    *f = (struct cw_fragment){.hlc = 0};
    cw_arena_init(&f->arena, mem, NULL, 0);
    cw_buf_init(&d.key, mem, NULL, 0);
    cw_buf_init(&d.payload, mem, NULL, 0);
    read_head(&d);
    if (!d.r.err)
        read_names(&d);
    if (!d.r.err)
        read_clocks(&d);
    if (!d.r.err)
        read_areas(&d);
    cw_buf_free(&d.key);
    cw_buf_free(&d.payload);
    if (d.r.err)
        cw_fragment_free(f);
    return d.r.err;
}

void cw_fragment_free(struct cw_fragment *f) {
    cw_vv_release(f->from);
    cw_vv_release(f->to);
    cw_arena_free(&f->arena);
    *f = (struct cw_fragment){.hlc = 0};
}
