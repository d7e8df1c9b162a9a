/* cw_fragment and cw_wire: random fragments of every kind of cell, there and back; what is refused.
 */
#include "random_terms.h"

#include "../../c_src/core/cw_doc.h"
#include "../../c_src/core/cw_fragment.h"
#include "../../c_src/core/cw_hlc.h"
#include "../../c_src/core/cw_tree.h"

/* ---- random content ---- */

#define REPLICAS 5
#define CELLS 24

static struct cw_bytes kept(struct cw_buf *buf) {
    CHECK_OK(buf->err);
    uint8_t *p = terms_alloc(buf->n);
    if (buf->n)
        memcpy(p, buf->p, buf->n);
    struct cw_bytes s = cw_bytes(p, buf->n);
    cw_buf_free(buf);
    return s;
}

static struct cw_buf new_buf(void) {
    struct cw_buf buf;
    cw_buf_init(&buf, &check_mem, NULL, 0);
    return buf;
}

static struct cw_bytes name_bytes(int i) {
    struct cw_buf buf = new_buf();
    char s[16];
    int n = sprintf(s, "r%d", i);
    cw_put_string(&buf, CW_KEY, i % 2 ? CW_T_ATOM : CW_T_BINARY, cw_bytes(s, (size_t)n));
    return kept(&buf);
}

/* Replicas with counters up to `most`. */
static struct cw_vv *random_vv(uint64_t most) {
    struct cw_vv *vv = cw_vv_new(&check_mem, 0), *next;
    for (int i = 0; i < REPLICAS; i++) {
        if (vv->n && check_below(3) == 0)
            continue;
        struct cw_name *name = cw_name_new(&check_mem, name_bytes(i));
        CHECK_OK(cw_vv_raise(vv, name, 1 + check_below(most), &next));
        cw_name_release(name);
        cw_vv_release(vv);
        vv = next;
    }
    return vv;
}

static struct cw_vv *random_part(const struct cw_vv *to) {
    struct cw_vv *vv = cw_vv_new(&check_mem, to->n);
    for (uint32_t i = 0; i < to->n; i++) {
        struct cw_vv_entry e = to->at[i];
        e.counter = check_below(2) ? check_below(e.counter + 1) : e.counter;
        if (!e.counter)
            continue;
        cw_name_retain(e.name);
        vv->at[vv->n++] = e;
    }
    return vv;
}

static const enum cw_kind kinds[] = {
#define X(NAME, tag, name, class) CW_##NAME,
    CW_KIND_LIST(X)
#undef X
};

static void put_random_field(struct cw_buf *key) {
    static const char *const few[] = {"a", "ab", "a\x01", "b"};
    if (check_below(5) == 0) {
        term_put(key, CW_KEY, random_term(2));
        return;
    }
    const char *s = few[check_below(4)];
    cw_put_string(key, CW_KEY, CW_T_BINARY, cw_bytes(s, strlen(s) + check_below(2)));
}

static enum cw_kind random_kind(bool counter) {
    enum cw_kind kind;
    do
        kind = kinds[check_below(sizeof kinds / sizeof kinds[0])];
    while (counter ? !cw_kind_is_counter(kind) : cw_kind_is_map(kind));
    return kind;
}

static uint64_t some_id(const struct cw_vv *vv) {
    return vv->at[check_below(vv->n)].id;
}

static struct cw_bytes random_key(const struct cw_vv *vv) {
    struct cw_buf key = new_buf();
    bool receipt = check_below(8) == 0;
    if (receipt) {
        cw_buf_byte(&key, CW_RECEIPT_TAG);
        cw_buf_u64be(&key, some_id(vv));
    }
    for (uint64_t i = 0, fields = 1 + check_below(3); i < fields; i++) {
        cw_buf_byte(&key, i && check_below(4) == 0 ? CW_MAP_GROW : CW_MAP);
        put_random_field(&key);
    }
    enum cw_kind kind = random_kind(receipt);
    cw_buf_byte(&key, (uint8_t)kind);
    if (cw_kind_is_set(kind))
        put_random_field(&key);
    if (cw_kind_is_counter(kind) && !receipt)
        cw_buf_u64be(&key, some_id(vv));
    return kept(&key);
}

static struct cw_bytes random_slots(enum cw_kind kind, const struct cw_vv *vv, struct cw_bytes of) {
    struct cw_buf buf = new_buf();
    uint64_t names[2 + REPLICAS], n = 0;
    names[n++] = CW_SLOT_ADDED;
    names[n++] = CW_SLOT_TAKEN;
    for (uint32_t i = 0; i < vv->n && kind == CW_COUNTER_BOUNDED; i++)
        names[n++] = vv->at[i].id;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t most = of.p ? cw_slots_get(of, names[i]) : CW_AMOUNT_MAX >> check_below(62);
        if (!most || check_below(2))
            continue;
        cw_buf_u64le(&buf, names[i]);
        cw_buf_u64le(&buf, 1 + check_below(most));
    }
    return kept(&buf);
}

static void put_random_tally(struct cw_buf *buf, const struct cw_key_parts *key,
                             const struct cw_vv *vv) {
    struct cw_tally t;
    t.counter = 1 + check_below(cw_vv_get(vv, key->owner));
    t.since = 1 + check_below(t.counter);
    t.slots = random_slots(key->kind, vv, cw_bytes(NULL, 0));
    t.removed = random_slots(key->kind, vv, t.slots);
    cw_put_tally(buf, &t);
}

static void put_random_entry(struct cw_buf *buf, const struct cw_key_parts *key,
                             const struct cw_vv *vv, struct cw_dot dot) {
    static const uint64_t stamps[] = {0, 1, 0xffff, 0x10000, CW_HLC_MAX};
    struct cw_buf value;
    switch (key->class) {
    case CW_DOTS:
        cw_put_dot(buf, dot, cw_kind_has_marks(key->kind) && check_below(2));
        return;
    case CW_VALUES:
        value = new_buf();
        term_put(&value, CW_VALUE, random_term(3));
        cw_put_value(buf, dot,
                     check_below(2) ? stamps[check_below(5)] : check_random() & CW_HLC_MAX,
                     cw_buf_slice(&value, 0));
        cw_buf_free(&value);
        return;
    default:
        cw_put_receipt(buf, dot, 1 + check_below(cw_vv_get(vv, key->owner)),
                       random_slots(key->kind, vv, cw_bytes(NULL, 0)));
    }
}

static struct cw_bytes random_payload(struct cw_bytes of, const struct cw_vv *vv) {
    struct cw_key_parts key;
    struct cw_buf buf = new_buf();
    CHECK_OK(cw_key_check(of, &key));
    if (key.class == CW_TALLY) {
        put_random_tally(&buf, &key, vv);
        return kept(&buf);
    }
    while (!buf.n)
        for (uint32_t i = 0; i < vv->n; i++)
            for (uint64_t c = 0; check_below(3) == 0;) {
                c += 1 + check_below(vv->at[i].counter);
                if (c > vv->at[i].counter)
                    break;
                put_random_entry(&buf, &key, vv, (struct cw_dot){vv->at[i].id, c});
            }
    return kept(&buf);
}

/* ---- a random fragment, not from bytes; arrays in the caller's hands ---- */

struct made {
    struct cw_fragment f;
    struct cw_area areas[CELLS];
    struct cw_piece pieces[CELLS];
};

static size_t random_cells(struct cw_piece *at, size_t n, const struct cw_vv *vv) {
    size_t kept_n = 0;
    for (size_t k = 0; k < n; k++) {
        struct cw_bytes key = random_key(vv);
        size_t i = kept_n;
        while (i > 0 && cw_bytes_cmp(at[i - 1].key, key) > 0)
            i--;
        if (i > 0 && cw_bytes_eq(at[i - 1].key, key))
            continue;
        memmove(at + i + 1, at + i, (kept_n++ - i) * sizeof *at);
        at[i] = (struct cw_piece){key, random_payload(key, vv)};
    }
    return kept_n;
}

/* A prefix of `key` for an area: after one of its fields or tags. */
static struct cw_bytes random_prefix(struct cw_bytes key) {
    size_t ends[8], n = 0;
    struct cw_reader r = cw_reader(key);
    while (cw_kind_is_map((enum cw_kind)cw_read_byte(&r))) {
        ends[n++] = (size_t)(r.p - key.p);
        cw_skip_key_term(&r);
        ends[n++] = (size_t)(r.p - key.p);
    }
    ends[n++] = (size_t)(r.p - key.p);
    return cw_bytes(key.p, ends[check_below(n)]);
}

static void make_areas(struct made *m, size_t cells) {
    for (size_t i = 0; i < cells;) {
        const struct cw_area *last = m->f.n ? &m->areas[m->f.n - 1] : NULL;
        struct cw_area *area = &m->areas[m->f.n++];
        struct cw_bytes key = m->pieces[i].key, prefix = key;
        *area = (struct cw_area){key, false, 1, i};
        if (key.p[0] != CW_RECEIPT_TAG && check_below(3) == 0)
            prefix = random_prefix(key);
        if (!last && check_below(6) == 0)
            prefix.n = 0;
        if (prefix.n < key.n && !(last && cw_bytes_has_prefix(last->key, prefix)))
            *area = (struct cw_area){prefix, true, 0, i};
        if (!area->below) {
            i++;
            continue;
        }
        for (; i < cells && cw_bytes_has_prefix(m->pieces[i].key, prefix); i++)
            area->n++;
    }
}

/* Some keys have no cell, though they are listed; some prefixes have none below. */
static void empty_some(struct made *m, size_t cells) {
    size_t to = 0;
    for (size_t i = 0; i < m->f.n; i++) {
        struct cw_area *area = &m->areas[i];
        if (check_below(4) == 0)
            area->n = 0;
        memmove(m->pieces + to, m->pieces + area->first, area->n * sizeof *m->pieces);
        area->first = to;
        to += area->n;
    }
    CHECK(to <= cells);
}

static void make(struct made *m, size_t most_cells, uint64_t most) {
    m->f = (struct cw_fragment){.net = check_below(2)};
    m->f.to = random_vv(most);
    m->f.from = random_part(m->f.to);
    m->f.areas = m->areas;
    m->f.pieces = m->pieces;
    size_t cells = random_cells(m->pieces, check_below(most_cells + 1), m->f.to);
    make_areas(m, cells);
    empty_some(m, cells);
}

static void unmake(struct made *m) {
    cw_vv_release(m->f.from);
    cw_vv_release(m->f.to);
    terms_reset();
}

/* ---- comparing ---- */

static void same_vv(const struct cw_vv *a, const struct cw_vv *b) {
    CHECK(a->n == b->n && cw_vv_compare(a, b) == CW_EQUAL);
    for (uint32_t i = 0; i < a->n; i++)
        CHECK(cw_bytes_eq(cw_name_bytes(a->at[i].name), cw_name_bytes(b->at[i].name)));
}

static uint64_t greatest_stamp(const struct cw_fragment *f) {
    uint64_t hlc = 0;
    for (size_t i = 0; i < f->n; i++)
        for (size_t k = 0; k < f->areas[i].n; k++) {
            const struct cw_piece *p = &f->pieces[f->areas[i].first + k];
            struct cw_bytes rest = p->payload;
            struct cw_entry e;
            if (cw_key_parts(p->key).class != CW_VALUES)
                continue;
            while (cw_entry_next(CW_VALUES, &rest, &e))
                hlc = e.hlc > hlc ? e.hlc : hlc;
        }
    return hlc;
}

static void same_fragment(const struct cw_fragment *a, const struct cw_fragment *b) {
    CHECK(a->net == b->net && a->n == b->n);
    same_vv(a->from, b->from);
    same_vv(a->to, b->to);
    for (size_t i = 0; i < a->n; i++) {
        const struct cw_area *x = &a->areas[i], *y = &b->areas[i];
        CHECK(x->below == y->below && x->n == y->n && x->first == y->first);
        CHECK(cw_bytes_eq(x->key, y->key));
        for (size_t k = x->first; k < x->first + x->n; k++) {
            CHECK(cw_bytes_eq(a->pieces[k].key, b->pieces[k].key));
            CHECK(cw_bytes_eq(a->pieces[k].payload, b->pieces[k].payload));
        }
    }
}

static enum cw_err read_bytes(struct cw_bytes s) {
    struct cw_fragment f;
    enum cw_err err = cw_fragment_read(&f, &check_mem, SIZE_MAX, s);
    if (err)
        return err;
    struct cw_buf again = new_buf();
    CHECK_OK(cw_fragment_write(&f, &again));
    CHECK(cw_bytes_eq(s, cw_buf_slice(&again, 0)));
    cw_buf_free(&again);
    cw_fragment_free(&f);
    return CW_OK;
}

/* ---- tests ---- */

static void test_round_trip(void) {
    static struct made m;
    for (int i = 0; i < check_rounds(3000); i++) {
        struct cw_fragment f;
        struct cw_buf buf = new_buf();
        make(&m, CELLS, i % 5 ? 20 : CW_COUNTER_MAX);
        CHECK_OK(cw_fragment_write(&m.f, &buf));
        CHECK_OK(cw_fragment_read(&f, &check_mem, SIZE_MAX, cw_buf_slice(&buf, 0)));
        same_fragment(&m.f, &f);
        CHECK(f.hlc == greatest_stamp(&m.f));
        CHECK_OK(read_bytes(cw_buf_slice(&buf, 0)));
        cw_fragment_free(&f);
        cw_buf_free(&buf);
        unmake(&m);
    }
}

/* At the border of a page of its own, where a sanitizer sees a read too far. */
static enum cw_err read_copy(struct cw_bytes s, size_t n) {
    uint8_t *copy = malloc(n ? n : 1);
    if (n)
        memcpy(copy, s.p, n);
    enum cw_err err = read_bytes(cw_bytes(copy, n));
    free(copy);
    return err;
}

static void test_truncations(void) {
    static struct made m;
    for (int i = 0; i < check_rounds(60); i++) {
        struct cw_buf buf = new_buf();
        make(&m, 12, 20);
        CHECK_OK(cw_fragment_write(&m.f, &buf));
        for (size_t n = 0; n < buf.n; n++)
            CHECK(read_copy(cw_buf_slice(&buf, 0), n) != CW_OK);
        cw_buf_byte(&buf, 0);
        CHECK(read_bytes(cw_buf_slice(&buf, 0)) == CW_EMALFORMED);
        cw_buf_free(&buf);
        unmake(&m);
    }
}

/* What is accepted is canonical, and can be applied. */
static void use_fragment(struct cw_bytes s) {
    if (read_bytes(s))
        return;
    struct cw_doc *doc = cw_doc_new(&check_mem, name_bytes(9)), *to = NULL;
    struct cw_fault fault = {.op = 0};
    enum cw_err err = cw_doc_apply(doc, s, SIZE_MAX, &to, &fault);
    CHECK(err == CW_OK || err == CW_EGAP);
    if (!err) {
        struct cw_buf out = new_buf();
        CHECK(!cw_tree_check(cw_doc_tree(to)));
        CHECK_OK(cw_doc_encode(to, &out));
        CHECK_OK(read_bytes(cw_buf_slice(&out, 0)));
        cw_buf_free(&out);
    }
    cw_name_release(fault.replica);
    cw_doc_free(to);
    cw_doc_free(doc);
}

static void test_mutations(void) {
    static struct made m;
    for (int i = 0; i < check_rounds(40); i++) {
        struct cw_buf buf = new_buf();
        make(&m, 4, 20);
        CHECK_OK(cw_fragment_write(&m.f, &buf));
        for (size_t k = 0; k < buf.n && k < 300; k++) {
            uint8_t was = buf.p[k];
            for (int b = 0; b < 8; b++) {
                buf.p[k] = was ^ (uint8_t)(1 << b);
                use_fragment(cw_buf_slice(&buf, 0));
            }
            for (int b = 0; b < 256; b += i % 8 ? 37 : 1) {
                buf.p[k] = (uint8_t)b;
                read_bytes(cw_buf_slice(&buf, 0));
            }
            buf.p[k] = was;
        }
        cw_buf_free(&buf);
        unmake(&m);
    }
}

static enum cw_err read_only(struct cw_bytes s) {
    struct cw_fragment f;
    enum cw_err err = cw_fragment_read(&f, &check_mem, SIZE_MAX, s);
    if (!err)
        cw_fragment_free(&f);
    return err;
}

static enum cw_err write_again(struct cw_bytes s) {
    struct cw_fragment f;
    struct cw_buf out = new_buf();
    CHECK_OK(cw_fragment_read(&f, &cw_mem_std, SIZE_MAX, s)); /* whose memory never fails */
    enum cw_err err = cw_fragment_write(&f, &out);
    CHECK(err || cw_bytes_eq(cw_buf_slice(&out, 0), s));
    cw_buf_free(&out);
    cw_fragment_free(&f);
    return err;
}

static enum cw_err join_itself(struct cw_bytes s) {
    struct cw_buf out = new_buf();
    enum cw_err err = cw_fragment_join(&check_mem, s, s, SIZE_MAX, &out);
    CHECK(err || cw_bytes_eq(cw_buf_slice(&out, 0), s));
    cw_buf_free(&out);
    return err;
}

/* Each allocation fails once: an error, nothing kept, and then it works. */
static void without_memory(enum cw_err (*call)(struct cw_bytes), struct cw_bytes s) {
    enum cw_err err = CW_ENOMEM;
    for (long k = 0; err; k++) {
        size_t live = check_mem_live();
        check_mem_fail_after(k);
        err = call(s);
        check_mem_fail_after(-1);
        CHECK(!err || err == CW_ENOMEM);
        CHECK(check_mem_live() == live);
    }
}

static void test_no_memory(void) {
    static struct made m;
    for (int i = 0; i < check_rounds(20); i++) {
        struct cw_buf buf = new_buf();
        make(&m, CELLS, 20);
        CHECK_OK(cw_fragment_write(&m.f, &buf));
        without_memory(read_only, cw_buf_slice(&buf, 0));
        without_memory(write_again, cw_buf_slice(&buf, 0));
        without_memory(join_itself, cw_buf_slice(&buf, 0));
        cw_buf_free(&buf);
        unmake(&m);
    }
}

/* ---- by hand ---- */

/* The head of an exact fragment of one replica "r" that has written 5 times, from nothing. */
#define HEAD "\xca\x11\x01\x03\x50r\x00\x00\x05"
#define F_A "\x10\x50\x61\x00" /* the field "a" */
#define REFUSED(err, bytes)                                                                        \
    CHECK(read_copy(cw_bytes(bytes, sizeof bytes - 1), sizeof bytes - 1) == err)

static void test_refused_heads(void) {
    REFUSED(CW_OK, HEAD "\x00");
    REFUSED(CW_OK, "\xca\x12\x00\x00");
    REFUSED(CW_EMALFORMED, "\xcb\x11\x00\x00");
    REFUSED(CW_EVERSION, "\xca\x21\x00\x00");
    REFUSED(CW_EVERSION, "\xca\x0f\x00\x00");
    REFUSED(CW_EMALFORMED, "\xca\x13\x00\x00"); /* a clock */
    REFUSED(CW_EMALFORMED, "\xca\x10\x00\x00");
    REFUSED(CW_EMALFORMED, "\xca\x14\x00\x00");
    REFUSED(CW_EMALFORMED, "\xca\x11\x01\x03\x50r\x00\x00\x00\x00");     /* no write at all */
    REFUSED(CW_EMALFORMED, "\xca\x11\x01\x04\x50r\x00\x00\x00\x05\x00"); /* a name and more */
    REFUSED(CW_EMALFORMED, "\xca\x11\x01\x02\x20\x05\x00\x05\x00");      /* a name of 0 */
    REFUSED(CW_EMALFORMED, "\xca\x11\x02\x03\x50r\x00\x03\x50r\x00\x00\x05\x00\x05\x00");
    REFUSED(CW_ERANGE, "\xca\x11\x01\x03\x50r\x00\x80\x80\x80\x80\x80\x80\x80\x80\x40\x00\x00");
    REFUSED(CW_ERANGE, "\xca\x11\x01\x03\x50r\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff\x3f\x00");
    REFUSED(CW_OK, "\xca\x11\x01\x03\x50r\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\x3f\x00");
    REFUSED(CW_ETRUNCATED, "\xca\x11\xff\xff\xff\xff\xff\xff\xff\xff\x7f");
    REFUSED(CW_EMALFORMED, "\xca\x11\x80\x00\x00"); /* a long varint */
}

static void test_refused_areas(void) {
    REFUSED(CW_EMALFORMED, HEAD "\x04");
    REFUSED(CW_EMALFORMED, HEAD "\x00\x00");
    REFUSED(CW_OK, HEAD "\x02\x00\x05" F_A "\x40\x00");
    REFUSED(CW_OK, HEAD "\x01\x00\x05" F_A "\x50\x00\x05\x00");         /* a flag */
    REFUSED(CW_EMALFORMED, HEAD "\x01\x01\x05" F_A "\x50\x00\x05\x00"); /* shares with nothing */
    REFUSED(CW_EMALFORMED, HEAD "\x01\x00\x05" F_A "\x50\x00\x06\x00"); /* the 6th write */
    REFUSED(CW_EMALFORMED, HEAD "\x01\x00\x05" F_A "\x50\x00\x00\x00"); /* the 0th */
    REFUSED(CW_EMALFORMED, HEAD "\x01\x00\x05" F_A "\x50\x02\x05\x00"); /* of another replica */
    REFUSED(CW_OK, HEAD "\x01\x00\x05" F_A "\x50\x01\x04\x00\x05\x00");
    REFUSED(CW_EMALFORMED, HEAD "\x01\x00\x05" F_A "\x50\x01\x05\x00\x05\x00"); /* a dot twice */
    REFUSED(CW_EMALFORMED, HEAD "\x01\x00\x05" F_A "\x50\x01\x05\x00\x04\x00"); /* not ascending */
    /* A counter whose upper bits do not fit beside a mark. */
    REFUSED(CW_EMALFORMED,
            HEAD "\x01\x00\x05" F_A "\x50\x00\x85\x80\x80\x80\x80\x80\x80\x80\x80\x01\x00");
    REFUSED(CW_EMALFORMED, HEAD "\x01\x00\x05" F_A "\x10\x00\x05\x00"); /* a map has no cell */
    REFUSED(CW_EMALFORMED, HEAD "\x01\x00\x05" F_A "\x60\x00\x05\x00"); /* no such kind */
    REFUSED(CW_EMALFORMED,
            HEAD "\x01\x00\x06" F_A "\x50\x00\x00\x05\x00"); /* more than a flag's key */
    REFUSED(CW_EMALFORMED, HEAD
            "\x01\x00\x05\x11\x50\x61\x00\x50\x00\x05\x00"); /* the document is no grow-only map */
    REFUSED(CW_EMALFORMED, HEAD "\x02\x00\x04" F_A "\x00");  /* half a key */
    REFUSED(CW_EMALFORMED, HEAD "\x02\x00\x05" F_A "\x50\x02\x05\x00\x00"); /* a key twice */
    REFUSED(CW_EMALFORMED, HEAD "\x02\x00\x05" F_A "\x50\x02\x04\x01\x40\x00");
    REFUSED(CW_EMALFORMED,
            HEAD "\x02\x00\x05" F_A "\x40\x02\x03\x02\x00\x50\x00"); /* shares more */
    REFUSED(CW_OK, HEAD "\x02\x00\x05" F_A "\x40\x02\x04\x01\x50\x00");
}

static void test_refused_prefixes(void) {
    REFUSED(CW_OK, HEAD "\x03\x00\x00\x00\x00");
    REFUSED(CW_OK, HEAD "\x03\x00\x04" F_A "\x00\x00");
    REFUSED(CW_OK, HEAD "\x03\x00\x05" F_A "\x50\x00\x00");
    REFUSED(CW_OK,
            HEAD "\x03\x00\x05" F_A "\x50\x01\x05\x00\x00\x05\x00"); /* the prefix is the key */
    REFUSED(CW_EMALFORMED, HEAD "\x03\x00\x05" F_A "\x50\x02\x05\x00\x00\x05\x05\x00\x00\x05\x00");
    REFUSED(CW_EMALFORMED, HEAD "\x03\x00\x03\x10\x50\x61\x00\x00"); /* half a field */
    REFUSED(CW_EMALFORMED,
            HEAD "\x03\x00\x05" F_A "\x51\x01\x04\x01\x50\x00\x05\x00");        /* not below */
    REFUSED(CW_EMALFORMED, HEAD "\x03\x00\x00\x00\x02\x00\x05" F_A "\x50\x00"); /* one in another */
    REFUSED(CW_EMALFORMED, HEAD "\x03\x00\x04" F_A "\x00\x02\x04\x01\x50\x00");
    REFUSED(CW_EMALFORMED, HEAD "\x03\x00\x01\x01\x00\x00"); /* receipts are no object */
    REFUSED(CW_EMALFORMED, HEAD "\x03\x00\x05" F_A "\x60\x00\x00");
    REFUSED(CW_ETRUNCATED, HEAD "\x03\x00\x00\x7f\x00");
}

#define STAMP "\x01\x00\x00\x00\x00\x00\x00\x00"
#define OWNER "\xc7\xdd\x2a\xd0\x9d\x33\x5f\x14" /* patched below */

/* Bytes with the id of "r" put where `at` says. */
static enum cw_err read_owned(const char *s, size_t n, size_t at) {
    uint8_t copy[128];
    CHECK(n <= sizeof copy && at + 8 <= n);
    memcpy(copy, s, n);
    cw_store64be(copy + at, cw_name_id(cw_bytes("\x50r", 3)));
    return read_copy(cw_bytes(copy, n), n);
}

#define TALLY_KEY(tag) "\x01\x00\x0d" F_A tag "12345678"
#define REFUSED_TALLY(err, tag, bytes)                                                             \
    CHECK(read_owned(HEAD TALLY_KEY(tag) bytes, sizeof(HEAD TALLY_KEY(tag) bytes) - 1,             \
                     sizeof(HEAD) - 1 + 8) == err)
#define RECEIPT_KEY                                                                                \
    "\x01\x00\x0e\x01"                                                                             \
    "12345678" F_A "\x30"
#define REFUSED_RECEIPT(err, bytes)                                                                \
    CHECK(read_owned(HEAD RECEIPT_KEY bytes, sizeof(HEAD RECEIPT_KEY bytes) - 1,                   \
                     sizeof(HEAD) - 1 + 4) == err)

static void test_refused_payloads(void) {
    REFUSED(CW_OK, HEAD "\x01\x00\x05" F_A "\x40\x00\x05" STAMP "\x01\x00\x00");
    REFUSED(CW_EMALFORMED, HEAD "\x01\x00\x05" F_A "\x40\x00\x05" STAMP "\x02\x00\x00\x00");
    REFUSED(CW_EMALFORMED, HEAD "\x01\x00\x05" F_A "\x40\x00\x05" STAMP "\x00\x00");
    REFUSED(CW_ETRUNCATED, HEAD "\x01\x00\x05" F_A "\x40\x00\x05" STAMP "\x7f\x00\x00");
    REFUSED(CW_ELIMIT, HEAD "\x01\x00\x05" F_A "\x40\x00\x05" STAMP "\x81\x80\x80\x20\x00");
    REFUSED(CW_ERANGE,
            HEAD "\x01\x00\x05" F_A "\x40\x00\x05\x00\x00\x00\x00\x00\x00\x00\x40\x01\x00\x00");
    REFUSED_TALLY(CW_OK, "\x30", "\x05\x04\x01\x00\x07\x00\x00");
    REFUSED_TALLY(CW_OK, "\x30", "\x05\x00\x02\x00\x07\x01\x09\x01\x01\x09\x00");
    REFUSED_TALLY(CW_EMALFORMED, "\x30", "\x05\x05\x01\x00\x07\x00\x00"); /* since 0 */
    REFUSED_TALLY(CW_EMALFORMED, "\x30", "\x06\x00\x01\x00\x07\x00\x00");
    REFUSED_TALLY(CW_EMALFORMED, "\x30", "\x05\x00\x01\x00\x00\x00\x00"); /* amount 0 */
    REFUSED_TALLY(CW_EMALFORMED, "\x30", "\x05\x00\x02\x01\x07\x00\x07\x00\x00");
    REFUSED_TALLY(CW_EMALFORMED, "\x30", "\x05\x00\x01\x00\x07\x01\x00\x08\x00"); /* removed more */
    REFUSED_TALLY(CW_EMALFORMED, "\x30", "\x05\x00\x01\x00\x07\x01\x01\x01\x00");
    REFUSED_TALLY(CW_EMALFORMED, "\x30",
                  "\x05\x00\x01\x02"
                  "ABCDEFGH"
                  "\x07\x00\x00");
    REFUSED_TALLY(CW_OK, "\x31",
                  "\x05\x00\x01\x02"
                  "ABCDEFGH"
                  "\x07\x00\x00");
    REFUSED_TALLY(CW_EMALFORMED, "\x31",
                  "\x05\x00\x01\x02\x0f\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00");
    REFUSED_TALLY(CW_EMALFORMED, "\x31",
                  "\x05\x00\x01\x03"
                  "ABCDEFGH"
                  "\x07\x00\x00");
    REFUSED_TALLY(CW_ERANGE, "\x30",
                  "\x05\x00\x01\x00\x80\x80\x80\x80\x80\x80\x80\x80\x40\x00\x00");
    REFUSED_RECEIPT(CW_OK, "\x00\x05\x05\x01\x00\x07\x00");
    REFUSED_RECEIPT(CW_EMALFORMED, "\x00\x05\x06\x01\x00\x07\x00"); /* of a write not seen */
    REFUSED_RECEIPT(CW_EMALFORMED, "\x00\x05\x00\x01\x00\x07\x00");
    REFUSED(CW_EMALFORMED, HEAD "\x01\x00\x0e\x01"
                                "12345678" F_A "\x30\x00\x05\x05\x01\x00\x07\x00");
    REFUSED(CW_EMALFORMED, HEAD "\x02\x00\x0e\x01"
                                "12345678" F_A "\x40\x00"); /* of a register */
}

/* ---- limits ---- */

static enum cw_err read_key_of(struct cw_bytes key, bool below) {
    struct cw_buf buf = new_buf();
    cw_buf_put(&buf, HEAD, sizeof HEAD - 1);
    cw_buf_byte(&buf, below ? 3 : 2);
    cw_buf_byte(&buf, 0);
    cw_buf_varint(&buf, key.n);
    cw_buf_bytes(&buf, key);
    if (below)
        cw_buf_byte(&buf, 0);
    cw_buf_byte(&buf, 0);
    enum cw_err err = read_bytes(cw_buf_slice(&buf, 0));
    cw_buf_free(&buf);
    return err;
}

static struct cw_buf path_key(size_t fields, enum cw_kind kind) {
    struct cw_buf key = new_buf();
    for (size_t i = 0; i < fields; i++) {
        cw_buf_byte(&key, CW_MAP);
        cw_put_int(&key, CW_KEY, 1);
    }
    if (kind)
        cw_buf_byte(&key, (uint8_t)kind);
    return key;
}

static void test_path_limit(void) {
    static const struct {
        size_t fields;
        enum cw_kind kind;
        bool below;
        bool good;
    } cases[] = {
        {CW_PATH_MAX, CW_FLAG, false, true}, {CW_PATH_MAX + 1, CW_FLAG, false, false},
        {CW_PATH_MAX, CW_FLAG, true, true},  {CW_PATH_MAX + 1, CW_FLAG, true, false},
        {CW_PATH_MAX, 0, true, true},        {CW_PATH_MAX + 1, 0, true, false},
        {CW_PATH_MAX, CW_MAP, true, true},   {1000, CW_MAP, true, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cw_buf key = path_key(cases[i].fields, cases[i].kind);
        enum cw_err err = read_key_of(cw_buf_slice(&key, 0), cases[i].below);
        CHECK((err == CW_OK) == cases[i].good);
        cw_buf_free(&key);
    }
}

/* A key of `n` bytes: one field as long as it takes. */
static struct cw_buf long_key(enum cw_kind kind, bool receipt, size_t n) {
    static uint8_t s[2 * CW_KEY_MAX];
    struct cw_buf key = new_buf();
    size_t rest = n - (receipt ? 9 : 0) - 4 - (kind == CW_COUNTER && !receipt ? 8 : 0);
    memset(s, 'k', sizeof s);
    if (receipt) {
        cw_buf_byte(&key, CW_RECEIPT_TAG);
        cw_buf_u64be(&key, cw_name_id(cw_bytes("\x50r", 3)));
    }
    cw_buf_byte(&key, CW_MAP);
    cw_put_string(&key, CW_KEY, CW_T_BINARY, cw_bytes(s, rest));
    cw_buf_byte(&key, (uint8_t)kind);
    if (kind == CW_COUNTER && !receipt)
        cw_buf_u64be(&key, cw_name_id(cw_bytes("\x50r", 3)));
    CHECK(key.n == n);
    return key;
}

static void test_key_limit(void) {
    static const struct {
        enum cw_kind kind;
        bool receipt;
        size_t most;
    } cases[] = {{CW_FLAG, false, CW_CONTENT_KEY_MAX},
                 {CW_COUNTER, false, CW_CONTENT_KEY_MAX},
                 {CW_COUNTER, true, CW_KEY_MAX}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t over = 0; over < 3; over++) {
            struct cw_buf key = long_key(cases[i].kind, cases[i].receipt, cases[i].most + over);
            struct cw_key_parts parts;
            CHECK(cw_key_check(cw_buf_slice(&key, 0), &parts) == (over ? CW_ELIMIT : CW_OK));
            CHECK((read_key_of(cw_buf_slice(&key, 0), false) == CW_OK) == !over);
            cw_buf_free(&key);
        }
}

/* `n` elements of a set, each of which is 8000 bytes and shares all but the last two. */
static struct cw_buf long_keys(int n) {
    struct cw_buf out = new_buf(), key = long_key(CW_SET, false, 8000);
    struct cw_vv *nothing = cw_vv_new(&check_mem, 0);
    struct cw_fragment_writer w;
    size_t object = key.n;
    cw_fragment_begin(&w, &out, nothing, nothing, false);
    for (int i = 0; i < n; i++) {
        key.n = object;
        cw_put_int(&key, CW_KEY, 0x8000 + i);
        cw_fragment_key(&w, cw_buf_slice(&key, 0), NULL);
    }
    CHECK_OK(cw_fragment_end(&w));
    cw_vv_release(nothing);
    cw_buf_free(&key);
    return out;
}

/* What few bytes grow to is limited by the budget, wherever they go. */
static void test_budget_of_keys(void) {
    struct cw_buf buf = long_keys(1000), out = new_buf();
    struct cw_bytes s = cw_buf_slice(&buf, 0);
    struct cw_doc *doc = cw_doc_new(&check_mem, name_bytes(9)), *to = NULL;
    struct cw_fault fault;
    CHECK(s.n < 16000);
    CHECK(cw_doc_apply(doc, s, 30000, &to, &fault) == CW_EBUDGET && !to);
    CHECK(cw_fragment_join(&check_mem, s, s, 30000, &out) == CW_EBUDGET);
    CHECK_OK(cw_doc_apply(doc, s, 32000, &to, &fault));
    CHECK_OK(cw_fragment_join(&check_mem, s, s, 32000, &out));
    cw_doc_free(to);
    cw_doc_free(doc);
    cw_buf_free(&buf);
    cw_buf_free(&out);
}

/* What begins with a whole field, or with an object's key, is below it, and nothing else is. */
static void test_prefixes(void) {
    struct cw_vv *vv = random_vv(20);
    for (int i = 0; i < check_rounds(5000); i++) {
        struct cw_bytes a = random_key(vv), b = random_key(vv);
        if (a.p[0] == CW_RECEIPT_TAG)
            continue;
        struct cw_bytes p = random_prefix(a);
        CHECK_OK(cw_prefix_check(p));
        uint8_t after[512];
        size_t n = p.n;
        CHECK(n < sizeof after);
        memcpy(after, p.p, n);
        CHECK(cw_prefix_after(after, &n));
        bool in = cw_bytes_cmp(b, p) >= 0 && cw_bytes_cmp(b, cw_bytes(after, n)) < 0;
        CHECK(cw_bytes_has_prefix(b, p) == in);
        for (size_t k = 0; k < p.n; k++) /* a part of a prefix is one only where a field ends */
            if (cw_prefix_check(cw_bytes(p.p, k)) == CW_OK && k)
                CHECK(cw_prefix_check(cw_bytes(a.p, k)) == CW_OK);
        if (i % 64 == 0) {
            cw_vv_release(vv);
            terms_reset();
            vv = random_vv(20);
        }
    }
    cw_vv_release(vv);
    terms_reset();
    uint8_t all[] = {0xff, 0xff};
    size_t n = 2;
    CHECK(!cw_prefix_after(all, &n) && n == 0);
}

int main(int argc, char **argv) {
    static const struct check_test tests[] = {
        {"round_trip", test_round_trip},
        {"truncations", test_truncations},
        {"mutations", test_mutations},
        {"no_memory", test_no_memory},
        {"refused_heads", test_refused_heads},
        {"refused_areas", test_refused_areas},
        {"refused_prefixes", test_refused_prefixes},
        {"refused_payloads", test_refused_payloads},
        {"path_limit", test_path_limit},
        {"key_limit", test_key_limit},
        {"budget_of_keys", test_budget_of_keys},
        {"prefixes", test_prefixes},
    };
    return check_main(argc, argv, "fragment", tests, sizeof tests / sizeof tests[0]);
}
