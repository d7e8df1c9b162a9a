#include "cw_clock.h"

#include "cw_fragment.h"
#include "cw_term.h"

/* ---- writing ---- */

static uint8_t width_for(uint64_t counter) {
    return counter > UINT32_MAX ? 8 : counter > UINT16_MAX ? 4 : counter > UINT8_MAX ? 2 : 1;
}

static void put_head(struct cw_buf *out, uint64_t n, uint8_t width) {
    cw_buf_byte(out, CW_FORMAT_MAGIC);
    cw_buf_byte(out, CW_FORMAT_CLOCK);
    cw_buf_varint(out, n);
    cw_buf_byte(out, width);
}

void cw_clock_put(struct cw_buf *out, const struct cw_vv *vv) {
    uint64_t greatest = 0;
    for (uint32_t i = 0; i < vv->n; i++)
        if (vv->at[i].counter > greatest)
            greatest = vv->at[i].counter;
    uint8_t width = width_for(greatest), b[8];
    put_head(out, vv->n, width);
    for (uint32_t i = 0; i < vv->n; i++) {
        cw_store64le(b, vv->at[i].counter);
        cw_buf_put(out, b, width);
    }
    for (uint32_t i = 0; i < vv->n; i++) {
        cw_buf_varint(out, vv->at[i].name->len);
        cw_buf_bytes(out, cw_name_bytes(vv->at[i].name));
    }
}

/* ---- reading ---- */

struct flat {
    uint64_t n;
    uint8_t width;
    const uint8_t *counters;
    struct cw_bytes names; /* not looked at yet */
};

static enum cw_err open_flat(struct cw_bytes clock, struct flat *f) {
    struct cw_reader r = cw_reader(clock);
    uint8_t magic = cw_read_byte(&r), type = cw_read_byte(&r);
    if (!r.err && magic != CW_FORMAT_MAGIC)
        return CW_EMALFORMED;
    if (!r.err && (type & 0xf0) != CW_FORMAT_VERSION)
        return CW_EVERSION;
    if (!r.err && type != CW_FORMAT_CLOCK)
        return CW_EMALFORMED;
    f->n = cw_read_count(&r, 4);
    if (f->n > CW_REPLICAS_MAX)
        return CW_ELIMIT;
    f->width = cw_read_byte(&r);
    if (!r.err && f->width != 1 && f->width != 2 && f->width != 4 && f->width != 8)
        return CW_EMALFORMED;
    f->counters = cw_read_bytes(&r, f->n * f->width).p;
    f->names = cw_bytes(r.p, cw_reader_left(&r));
    return r.err;
}

static uint64_t counter_at(const struct flat *f, uint64_t i) {
    const uint8_t *p = f->counters + i * f->width;
    uint64_t v = 0;
    for (uint8_t k = f->width; k-- > 0;)
        v = v << 8 | p[k];
    return v;
}

static enum cw_err read_entries(const struct cw_mem *mem, const struct flat *f, struct cw_vv *vv) {
    struct cw_reader r = cw_reader(f->names);
    uint64_t greatest = 0;
    for (uint64_t i = 0; i < f->n; i++) {
        uint64_t counter = counter_at(f, i);
        struct cw_name *name = cw_read_name(&r, mem);
        if (!name)
            return r.err;
        vv->at[vv->n++] = (struct cw_vv_entry){name->id, counter, name};
        if (counter == 0 || (i > 0 && vv->at[i - 1].id >= name->id))
            return CW_EMALFORMED;
        if (counter > CW_COUNTER_MAX)
            return CW_ERANGE;
        if (counter > greatest)
            greatest = counter;
    }
    return cw_reader_left(&r) || f->width != width_for(greatest) ? CW_EMALFORMED : CW_OK;
}

enum cw_err cw_clock_read(const struct cw_mem *mem, struct cw_bytes clock, struct cw_vv **out) {
    struct flat f;
    enum cw_err err = open_flat(clock, &f);
    if (err)
        return err;
    struct cw_vv *vv = cw_vv_new(mem, (uint32_t)f.n);
    if (!vv)
        return CW_ENOMEM;
    err = read_entries(mem, &f, vv);
    if (err)
        cw_vv_release(vv);
    else
        *out = vv;
    return err;
}

enum cw_err cw_clock_get(struct cw_bytes clock, struct cw_bytes name, uint64_t *counter) {
    struct flat f;
    enum cw_err err = open_flat(clock, &f);
    if (err)
        return err;
    struct cw_reader r = cw_reader(f.names);
    uint64_t found = 0;
    for (uint64_t i = 0; i < f.n && !r.err; i++) {
        struct cw_bytes at = cw_read_bytes(&r, cw_read_varint(&r));
        if (cw_bytes_eq(at, name))
            found = counter_at(&f, i);
    }
    if (cw_reader_whole(&r))
        return r.err ? r.err : CW_EMALFORMED;
    *counter = found;
    return CW_OK;
}

/* ---- side by side ---- */

static bool same_names(const struct flat *a, const struct flat *b) {
    return a->n == b->n && cw_bytes_eq(a->names, b->names);
}

/* The loops below are written for the compiler to turn into vector instructions. */
#define MAX_LOOP(type)                                                                             \
    for (uint64_t i = 0; i < n; i++) {                                                             \
        type x, y;                                                                                 \
        memcpy(&x, a + i * sizeof x, sizeof x);                                                    \
        memcpy(&y, b + i * sizeof y, sizeof y);                                                    \
        x = x > y ? x : y;                                                                         \
        memcpy(to + i * sizeof x, &x, sizeof x);                                                   \
    }

static void max_same_width(uint8_t *restrict to, const uint8_t *a, const uint8_t *b, uint64_t n,
                           uint8_t width) {
    switch (width) {
    case 1:
        MAX_LOOP(uint8_t);
        return;
    case 2:
        MAX_LOOP(uint16_t);
        return;
    case 4:
        MAX_LOOP(uint32_t);
        return;
    default:
        MAX_LOOP(uint64_t);
    }
}

static bool little_endian(void) {
    const uint16_t one = 1;
    uint8_t low;
    memcpy(&low, &one, 1);
    return low == 1;
}

/* The greater counters; as the greatest of all is in one of the two, so is the width. */
static enum cw_err merge_counters(const struct flat *a, const struct flat *b, struct cw_buf *out) {
    uint8_t width = a->width > b->width ? a->width : b->width;
    put_head(out, a->n, width);
    if (!cw_buf_reserve(out, a->n * width + a->names.n))
        return out->err;
    uint8_t *to = out->p + out->n;
    if (a->width == b->width && little_endian()) {
        max_same_width(to, a->counters, b->counters, a->n, width);
    } else {
        for (uint64_t i = 0; i < a->n; i++) {
            uint64_t x = counter_at(a, i), y = counter_at(b, i);
            uint8_t le[8];
            cw_store64le(le, x > y ? x : y);
            memcpy(to + i * width, le, width);
        }
    }
    out->n += a->n * width;
    cw_buf_bytes(out, a->names);
    return out->err;
}

struct two {
    struct cw_vv *a;
    struct cw_vv *b;
};

static enum cw_err read_two(const struct cw_mem *mem, struct cw_bytes a, struct cw_bytes b,
                            struct two *two) {
    *two = (struct two){NULL, NULL};
    enum cw_err err = cw_clock_read(mem, a, &two->a);
    if (!err)
        err = cw_clock_read(mem, b, &two->b);
    if (err)
        cw_vv_release(two->a);
    return err;
}

static void release_two(struct two *two) {
    cw_vv_release(two->a);
    cw_vv_release(two->b);
}

enum cw_err cw_clock_merge(const struct cw_mem *mem, struct cw_bytes a, struct cw_bytes b,
                           struct cw_buf *out) {
    struct flat fa, fb;
    struct two two;
    struct cw_vv *vv;
    enum cw_err err = open_flat(a, &fa);
    if (!err)
        err = open_flat(b, &fb);
    if (err)
        return err;
    if (same_names(&fa, &fb))
        return merge_counters(&fa, &fb, out);
    err = read_two(mem, a, b, &two);
    if (err)
        return err;
    err = cw_vv_merge(two.a, two.b, &vv);
    if (!err) {
        cw_clock_put(out, vv);
        cw_vv_release(vv);
    }
    release_two(&two);
    return err ? err : out->err;
}

enum cw_err cw_clock_compare(const struct cw_mem *mem, struct cw_bytes a, struct cw_bytes b,
                             enum cw_order *order) {
    struct flat fa, fb;
    struct two two;
    enum cw_err err = open_flat(a, &fa);
    if (!err)
        err = open_flat(b, &fb);
    if (err)
        return err;
    if (same_names(&fa, &fb)) {
        bool less = false, more = false;
        for (uint64_t i = 0; i < fa.n; i++) {
            uint64_t x = counter_at(&fa, i), y = counter_at(&fb, i);
            less |= x < y;
            more |= x > y;
        }
        *order = less ? (more ? CW_CONCURRENT : CW_BEFORE) : more ? CW_AFTER : CW_EQUAL;
        return CW_OK;
    }
    err = read_two(mem, a, b, &two);
    if (err)
        return err;
    *order = cw_vv_compare(two.a, two.b);
    release_two(&two);
    return CW_OK;
}
