/* Version vectors, clocks as bytes and hybrid logical clocks against an array of counters. */
#include <stdlib.h>
#include <string.h>

#include "../../c_src/core/cw_clock.h"
#include "../../c_src/core/cw_fragment.h"
#include "../../c_src/core/cw_hlc.h"
#include "../../c_src/core/cw_term.h"
#include "check.h"

/* ---- the model: counters of the replicas 0 to REPLICAS - 1, 0 for not seen ---- */

#define REPLICAS 300

struct model {
    uint64_t at[REPLICAS];
};

static struct cw_name *name_of(size_t i) {
    char s[CW_NAME_MAX];
    struct cw_buf buf;
    int n = sprintf(s, "replica %zu", i);
    cw_buf_init(&buf, &check_mem, NULL, 0);
    cw_put_string(&buf, CW_KEY, i % 3 ? CW_T_BINARY : CW_T_ATOM, cw_bytes(s, (size_t)n));
    struct cw_name *name = cw_name_new(&check_mem, cw_buf_slice(&buf, 0));
    cw_buf_free(&buf);
    return name;
}

/* The id of each replica, found once. */
static uint64_t id_of(size_t i) {
    static uint64_t ids[REPLICAS];
    if (!ids[i]) {
        struct cw_name *name = name_of(i);
        ids[i] = name->id;
        cw_name_release(name);
    }
    return ids[i];
}

static struct cw_vv *vv_of(const struct model *m) {
    struct cw_vv *vv = cw_vv_new(&check_mem, 0), *next;
    for (size_t i = 0; i < REPLICAS; i++) {
        if (!m->at[i])
            continue;
        struct cw_name *name = name_of(i);
        CHECK_OK(cw_vv_raise(vv, name, m->at[i], &next));
        cw_name_release(name);
        cw_vv_release(vv);
        vv = next;
    }
    return vv;
}

static void same(const struct cw_vv *vv, const struct model *m) {
    uint32_t n = 0;
    for (size_t i = 0; i < REPLICAS; i++) {
        n += m->at[i] > 0;
        CHECK(cw_vv_get(vv, id_of(i)) == m->at[i]);
        CHECK((cw_vv_find(vv, id_of(i)) < vv->n) == (m->at[i] > 0));
    }
    CHECK(vv->n == n);
    for (uint32_t i = 0; i < vv->n; i++) {
        CHECK(vv->at[i].counter > 0 && vv->at[i].id == vv->at[i].name->id);
        CHECK(i == 0 || vv->at[i - 1].id < vv->at[i].id);
    }
}

static struct model model_max(const struct model *a, const struct model *b) {
    struct model m;
    for (size_t i = 0; i < REPLICAS; i++)
        m.at[i] = a->at[i] > b->at[i] ? a->at[i] : b->at[i];
    return m;
}

static enum cw_order model_compare(const struct model *a, const struct model *b) {
    bool less = false, more = false;
    for (size_t i = 0; i < REPLICAS; i++) {
        less |= a->at[i] < b->at[i];
        more |= a->at[i] > b->at[i];
    }
    return less && more ? CW_CONCURRENT : less ? CW_BEFORE : more ? CW_AFTER : CW_EQUAL;
}

/* Counters at the borders of what 1, 2, 4 and 8 bytes hold. */
static uint64_t random_counter(void) {
    static const uint64_t borders[] = {
        1,      2,       0xfe,       0xff,        0x100,           0xfffe,
        0xffff, 0x10000, 0xffffffff, 0x100000000, 0xfffffffffffff, CW_COUNTER_MAX};
    return check_below(2)
               ? borders[check_below(sizeof borders / sizeof borders[0])]
               : 1 + (check_random() & CW_COUNTER_MAX >> check_below(62)) % CW_COUNTER_MAX;
}

static uint64_t small_counter(void) {
    return 1 + check_below(3);
}

/* `among` the first replicas, about one in `sparse`. */
static struct model random_model(size_t among, uint64_t sparse, uint64_t (*counter)(void)) {
    struct model m = {{0}};
    for (size_t i = 0; i < among; i++)
        if (check_below(sparse) == 0)
            m.at[i] = counter();
    return m;
}

/* Another one: equal, or of the same replicas, or raised here and there, or of any. */
static struct model other_model(const struct model *m, size_t among, uint64_t (*counter)(void)) {
    struct model o = *m;
    uint64_t way = check_below(4);
    if (way == 3)
        return random_model(among, 1 + check_below(3), counter);
    for (size_t i = 0; i < among; i++)
        if (o.at[i] && way > 0 && check_below(way == 1 ? 1 : among) == 0)
            o.at[i] = counter();
    if (way == 2)
        o.at[check_below(among)] = counter();
    return o;
}

static const size_t sizes[] = {1, 2, 3, 16, 40, REPLICAS};
#define SIZES (sizeof sizes / sizeof sizes[0])

/* ---- vectors ---- */

static bool equal(const struct cw_vv *a, const struct cw_vv *b) {
    bool same_all = a->n == b->n;
    for (uint32_t i = 0; same_all && i < a->n; i++)
        same_all = a->at[i].id == b->at[i].id && a->at[i].counter == b->at[i].counter;
    return same_all;
}

static struct cw_vv *merge(struct cw_vv *a, struct cw_vv *b) {
    struct cw_vv *out;
    CHECK_OK(cw_vv_merge(a, b, &out));
    return out;
}

static void laws(const struct model *ma, const struct model *mb, const struct model *mc) {
    struct cw_vv *a = vv_of(ma), *b = vv_of(mb), *c = vv_of(mc);
    struct cw_vv *ab = merge(a, b), *ba = merge(b, a), *bc = merge(b, c), *aa = merge(a, a);
    struct cw_vv *ab_c = merge(ab, c), *a_bc = merge(a, bc);
    struct model mab = model_max(ma, mb);
    same(a, ma);
    same(ab, &mab);
    CHECK(equal(ab, ba) && equal(ab_c, a_bc) && equal(aa, a));
    CHECK(cw_vv_compare(a, b) == model_compare(ma, mb));
    enum cw_order up = cw_vv_compare(a, ab);
    CHECK(up == CW_BEFORE || up == CW_EQUAL);
    CHECK((up == CW_EQUAL) ==
          (model_compare(mb, ma) == CW_EQUAL || model_compare(mb, ma) == CW_BEFORE));
    bool disjoint = true;
    for (size_t i = 0; i < REPLICAS; i++)
        disjoint &= !ma->at[i] || !mb->at[i];
    CHECK(cw_vv_disjoint(a, b) == disjoint);
    for (int k = 0; k < 20; k++) {
        size_t i = check_below(REPLICAS);
        CHECK(cw_vv_get(a, id_of(i)) == ma->at[i]);
    }
    struct cw_vv *all[] = {a, b, c, ab, ba, bc, aa, ab_c, a_bc};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        cw_vv_release(all[i]);
}

static void test_laws(void) {
    for (int i = 0; i < check_rounds(120); i++) {
        size_t among = sizes[(size_t)i % SIZES];
        uint64_t (*counter)(void) = i % 2 ? small_counter : random_counter;
        struct model a = random_model(among, 1 + check_below(3), counter);
        struct model b = other_model(&a, among, counter), c = other_model(&b, among, counter);
        laws(&a, &b, &c);
    }
}

static void test_raise(void) {
    struct model m = {{0}};
    struct cw_vv *vv = cw_vv_new(&check_mem, 0), *next;
    for (int i = 0; i < check_rounds(2000); i++) {
        size_t r = check_below(40);
        uint64_t counter = check_below(50);
        struct cw_name *name = name_of(r);
        CHECK_OK(cw_vv_raise(vv, name, counter, &next));
        same(vv, &m);
        if (counter > m.at[r])
            m.at[r] = counter;
        cw_name_release(name);
        cw_vv_release(vv);
        vv = next;
    }
    same(vv, &m);
    cw_vv_release(vv);
}

/* Short names with one id are not at hand: the id is changed. */
static void test_two_names_of_one_id(void) {
    struct cw_name *x = name_of(1), *y = name_of(2);
    struct cw_vv *empty = cw_vv_new(&check_mem, 0), *a, *b, *out = NULL;
    y->id = x->id;
    CHECK_OK(cw_vv_raise(empty, x, 3, &a));
    CHECK_OK(cw_vv_raise(empty, y, 4, &b));
    CHECK(cw_vv_merge(a, b, &out) == CW_EREPLICA);
    CHECK(cw_vv_raise(a, y, 4, &out) == CW_EREPLICA);
    CHECK(!out);
    cw_name_release(x);
    cw_name_release(y);
    cw_vv_release(empty);
    cw_vv_release(a);
    cw_vv_release(b);
}

static void test_ids(void) {
    for (size_t i = 0; i < REPLICAS; i++) {
        CHECK(id_of(i) >= CW_ID_MIN);
        for (size_t k = 0; k < i; k++)
            CHECK(id_of(i) != id_of(k));
    }
}

/* ---- clocks ---- */

static struct cw_buf clock_of(const struct model *m) {
    struct cw_vv *vv = vv_of(m);
    struct cw_buf buf;
    cw_buf_init(&buf, &check_mem, NULL, 0);
    cw_clock_put(&buf, vv);
    CHECK_OK(buf.err);
    cw_vv_release(vv);
    return buf;
}

static void clock_is(struct cw_bytes clock, const struct model *m) {
    struct cw_buf want = clock_of(m);
    CHECK(cw_bytes_eq(clock, cw_buf_slice(&want, 0)));
    struct cw_vv *vv;
    CHECK_OK(cw_clock_read(&check_mem, clock, &vv));
    same(vv, m);
    cw_vv_release(vv);
    cw_buf_free(&want);
}

static void clock_laws(const struct model *ma, const struct model *mb) {
    struct cw_buf a = clock_of(ma), b = clock_of(mb), ab;
    enum cw_order order;
    struct model m = model_max(ma, mb);
    clock_is(cw_buf_slice(&a, 0), ma);
    cw_buf_init(&ab, &check_mem, NULL, 0);
    CHECK_OK(cw_clock_merge(&check_mem, cw_buf_slice(&a, 0), cw_buf_slice(&b, 0), &ab));
    clock_is(cw_buf_slice(&ab, 0), &m);
    CHECK_OK(cw_clock_compare(&check_mem, cw_buf_slice(&a, 0), cw_buf_slice(&b, 0), &order));
    CHECK(order == model_compare(ma, mb));
    cw_buf_free(&a);
    cw_buf_free(&b);
    cw_buf_free(&ab);
}

static void test_clocks(void) {
    struct model none = {{0}};
    clock_laws(&none, &none);
    for (int i = 0; i < check_rounds(300); i++) {
        size_t among = sizes[(size_t)i % SIZES];
        uint64_t (*counter)(void) = i % 3 ? random_counter : small_counter;
        struct model a = random_model(among, 1 + check_below(3), counter);
        struct model b = other_model(&a, among, counter);
        clock_laws(&a, &b);
        clock_laws(&a, &none);
    }
}

/* Each pair of widths, with equal and with different sets of names. */
static void test_clock_widths(void) {
    static const uint64_t tops[] = {0xff,       0x100,       0xffff,        0x10000,
                                    0xffffffff, 0x100000000, CW_COUNTER_MAX};
    size_t n = sizeof tops / sizeof tops[0];
    for (size_t i = 0; i < n * n; i++)
        for (size_t extra = 0; extra < 2; extra++) {
            struct model a = {{1, 5, 3}}, b = {{4, 2, 3}};
            a.at[3] = tops[i / n];
            b.at[3 + extra] = tops[i % n];
            clock_laws(&a, &b);
        }
}

static enum cw_err read_clock(struct cw_bytes s) {
    struct cw_vv *vv = NULL;
    enum cw_err err = cw_clock_read(&check_mem, s, &vv);
    if (err) {
        CHECK(!vv);
        return err;
    }
    struct cw_buf again;
    cw_buf_init(&again, &check_mem, NULL, 0);
    cw_clock_put(&again, vv);
    CHECK(cw_bytes_eq(s, cw_buf_slice(&again, 0)));
    cw_buf_free(&again);
    cw_vv_release(vv);
    return CW_OK;
}

/* Merging and comparing trust the names when they are equal, but must not crash on any bytes. */
static void use_clock(struct cw_bytes s, struct cw_bytes other) {
    struct cw_buf out;
    enum cw_order order;
    cw_buf_init(&out, &check_mem, NULL, 0);
    enum cw_err err = read_clock(s), merged = cw_clock_merge(&check_mem, s, other, &out);
    enum cw_err compared = cw_clock_compare(&check_mem, s, other, &order);
    CHECK(err || (!merged && !compared));
    cw_buf_free(&out);
}

static void test_clock_mutations(void) {
    for (int i = 0; i < check_rounds(30); i++) {
        struct model m = random_model(6, 2, i % 2 ? random_counter : small_counter);
        struct cw_buf buf = clock_of(&m), good = clock_of(&m);
        for (size_t n = 0; n < buf.n; n++)
            CHECK(read_clock(cw_bytes(buf.p, n)) != CW_OK);
        for (size_t k = 0; k < buf.n; k++)
            for (int b = 1; b < 256; b++) {
                buf.p[k] ^= (uint8_t)b;
                use_clock(cw_buf_slice(&buf, 0), cw_buf_slice(&good, 0));
                buf.p[k] ^= (uint8_t)b;
            }
        cw_buf_byte(&buf, 0);
        CHECK(read_clock(cw_buf_slice(&buf, 0)) == CW_EMALFORMED);
        cw_buf_free(&buf);
        cw_buf_free(&good);
    }
}

#define REFUSED(err, bytes) CHECK(read_clock(cw_bytes(bytes, sizeof bytes - 1)) == err)

static void test_clock_refused(void) {
    REFUSED(CW_OK, "\xca\x13\x00\x01");
    REFUSED(CW_ETRUNCATED, "");
    REFUSED(CW_ETRUNCATED, "\xca");
    REFUSED(CW_EMALFORMED, "\xcb\x13\x00\x01");
    REFUSED(CW_EVERSION, "\xca\x23\x00\x01");
    REFUSED(CW_EVERSION, "\xca\x2f\x00\x01");
    REFUSED(CW_EMALFORMED, "\xca\x11\x00\x01");
    REFUSED(CW_EMALFORMED, "\xca\x13\x00\x02");
    REFUSED(CW_EMALFORMED, "\xca\x13\x00\x03");
    REFUSED(CW_OK, "\xca\x13\x01\x01\x07\x03\x50\x61\x00");
    REFUSED(CW_EMALFORMED, "\xca\x13\x01\x01\x00\x03\x50\x61\x00");     /* counter 0 */
    REFUSED(CW_EMALFORMED, "\xca\x13\x01\x02\x07\x00\x03\x50\x61\x00"); /* too wide */
    REFUSED(CW_EMALFORMED, "\xca\x13\x01\x01\x07\x01\x05\x00\x00");     /* a name of nil */
    REFUSED(CW_EMALFORMED, "\xca\x13\x01\x01\x07\x03\x50\x61\x00\x00"); /* more follows */
    REFUSED(CW_EMALFORMED, "\xca\x13\x02\x01\x07\x07\x03\x50\x61\x00\x03\x50\x61\x00");
    REFUSED(CW_ERANGE, "\xca\x13\x01\x08\x00\x00\x00\x00\x00\x00\x00\x40\x03\x50\x61\x00");
    REFUSED(CW_ETRUNCATED, "\xca\x13\xff\xff\xff\xff\x0f\x01\x07\x03\x50\x61\x00");
}

static void long_name(size_t len, enum cw_err err) {
    struct cw_buf buf;
    uint8_t s[2 * CW_NAME_MAX];
    memset(s, 'x', sizeof s);
    cw_buf_init(&buf, &check_mem, NULL, 0);
    cw_buf_put(&buf, "\xca\x13\x01\x01\x01", 5);
    cw_buf_varint(&buf, len);
    cw_put_string(&buf, CW_KEY, CW_T_BINARY, cw_bytes(s, len - 2));
    CHECK(read_clock(cw_buf_slice(&buf, 0)) == err);
    cw_buf_free(&buf);
}

static void test_clock_limits(void) {
    long_name(CW_NAME_MAX, CW_OK);
    long_name(CW_NAME_MAX + 1, CW_ELIMIT);
}

/* ---- memory ---- */

/* Each allocation fails once: an error, nothing kept, and then it works. */
#define WITHOUT_MEMORY(call)                                                                       \
    do {                                                                                           \
        enum cw_err err_ = CW_ENOMEM;                                                              \
        for (long k_ = 0; err_; k_++) {                                                            \
            size_t live_ = check_mem_live();                                                       \
            check_mem_fail_after(k_);                                                              \
            err_ = (call);                                                                         \
            check_mem_fail_after(-1);                                                              \
            CHECK(!err_ || (err_ == CW_ENOMEM && check_mem_live() == live_));                      \
        }                                                                                          \
    } while (0)

static enum cw_err merge_into(struct cw_bytes a, struct cw_bytes b) {
    struct cw_buf out;
    cw_buf_init(&out, &check_mem, NULL, 0);
    enum cw_err err = cw_clock_merge(&check_mem, a, b, &out);
    cw_buf_free(&out);
    return err;
}

static void test_no_memory(void) {
    struct model m = random_model(40, 2, random_counter), o = random_model(40, 2, random_counter);
    struct cw_buf a = clock_of(&m), b = clock_of(&o);
    struct cw_vv *x, *y, *out;
    struct cw_name *name = name_of(7);
    enum cw_order order;
    WITHOUT_MEMORY(cw_clock_read(&check_mem, cw_buf_slice(&a, 0), &x));
    WITHOUT_MEMORY(cw_clock_read(&check_mem, cw_buf_slice(&b, 0), &y));
    WITHOUT_MEMORY(cw_vv_merge(x, y, &out));
    cw_vv_release(out);
    WITHOUT_MEMORY(cw_vv_raise(x, name, 9, &out));
    cw_vv_release(out);
    WITHOUT_MEMORY(merge_into(cw_buf_slice(&a, 0), cw_buf_slice(&b, 0)));
    WITHOUT_MEMORY(merge_into(cw_buf_slice(&a, 0), cw_buf_slice(&a, 0)));
    WITHOUT_MEMORY(cw_clock_compare(&check_mem, cw_buf_slice(&a, 0), cw_buf_slice(&b, 0), &order));
    cw_name_release(name);
    cw_vv_release(x);
    cw_vv_release(y);
    cw_buf_free(&a);
    cw_buf_free(&b);
}

/* ---- hybrid logical clocks ---- */

static void test_hlc(void) {
    uint64_t last = 0, now = 1000, next;
    for (int i = 0; i < check_rounds(100000); i++) {
        if (check_below(3) == 0)
            now += check_below(5);
        if (check_below(100) == 0)
            now -= check_below(900); /* the wall clock set back */
        if (check_below(50) == 0 && last < UINT64_C(1) << 40)
            last += check_below(100000); /* a stamp received from a clock ahead */
        CHECK_OK(cw_hlc_tick(last, now, &next));
        CHECK(next > last && next >> 16 >= now);
        CHECK(next == last + 1 || next == now << 16);
        last = next;
        if (now < 1000)
            now = 1000;
    }
}

static void test_hlc_overflow(void) {
    uint64_t next = 77, top = CW_HLC_MAX >> 16;
    CHECK_OK(cw_hlc_tick(5 << 16 | 0xffff, 5, &next)); /* the counter runs into the milliseconds */
    CHECK(next == 6 << 16);
    CHECK_OK(cw_hlc_tick(0, top, &next));
    CHECK(next == top << 16);
    CHECK_OK(cw_hlc_tick(CW_HLC_MAX - 1, 5, &next));
    CHECK(next == CW_HLC_MAX);
    CHECK_OK(cw_hlc_tick(CW_HLC_MAX, 5, &next)); /* it stays there */
    CHECK(next == CW_HLC_MAX);
    next = 77;
    CHECK(cw_hlc_tick(0, top + 1, &next) == CW_ERANGE);
    CHECK(cw_hlc_tick(0, UINT64_MAX, &next) == CW_ERANGE);
    CHECK(cw_hlc_tick(CW_HLC_MAX + 1, 5, &next) == CW_ERANGE);
    CHECK(cw_hlc_tick(UINT64_MAX, 5, &next) == CW_ERANGE);
    CHECK(next == 77);
}

int main(int argc, char **argv) {
    static const struct check_test tests[] = {
        {"laws", test_laws},
        {"raise", test_raise},
        {"two_names_of_one_id", test_two_names_of_one_id},
        {"ids", test_ids},
        {"clocks", test_clocks},
        {"clock_widths", test_clock_widths},
        {"clock_mutations", test_clock_mutations},
        {"clock_refused", test_clock_refused},
        {"clock_limits", test_clock_limits},
        {"no_memory", test_no_memory},
        {"hlc", test_hlc},
        {"hlc_overflow", test_hlc_overflow},
    };
    return check_main(argc, argv, "vv", tests, sizeof tests / sizeof tests[0]);
}
