/* cw_term against terms as trees in memory (terms.h). */
#include "random_terms.h"

static const enum cw_encoding encodings[] = {CW_KEY, CW_VALUE};

#define EACH_ENCODING(enc) for (int e_ = 0, enc = CW_KEY; e_ < 2; enc = encodings[++e_ % 2])

/* The encoding of a term, owned by the caller. */
static struct cw_buf encode(enum cw_encoding enc, const struct term *t) {
    struct cw_buf buf;
    cw_buf_init(&buf, &check_mem, NULL, 0);
    term_put(&buf, enc, t);
    CHECK_OK(buf.err);
    return buf;
}

/* Of one term that fills all bytes. */
static enum cw_err check_whole(struct cw_bytes s, enum cw_encoding enc) {
    struct cw_reader r = cw_reader(s);
    cw_check_term(&r, enc);
    return r.err ? r.err : cw_reader_left(&r) ? CW_EMALFORMED : CW_OK;
}

/* What is accepted encodes to the bytes it was read from. */
static void is_canonical(struct cw_bytes s, enum cw_encoding enc) {
    struct cw_reader r = cw_reader(s);
    cw_check_term(&r, enc);
    if (r.err)
        return;
    struct cw_bytes used = cw_bytes(s.p, (size_t)(r.p - s.p));
    r = cw_reader(used);
    struct cw_buf again = encode(enc, term_read(&r, enc));
    CHECK(!r.err && cw_reader_left(&r) == 0);
    CHECK(cw_bytes_eq(used, cw_buf_slice(&again, 0)));
    cw_buf_free(&again);
}

/* ---- there and back ---- */

static void test_round_trip(void) {
    for (int i = 0; i < check_rounds(20000); i++) {
        struct term *t = random_term(4);
        EACH_ENCODING(enc) {
            struct cw_buf buf = encode(enc, t);
            struct cw_bytes s = cw_buf_slice(&buf, 0);
            CHECK_OK(check_whole(s, enc));
            struct cw_reader r = cw_reader(s);
            CHECK(term_cmp(term_read(&r, enc), t) == 0 && cw_reader_left(&r) == 0);
            is_canonical(s, enc);
            if (enc == CW_KEY) {
                r = cw_reader(s);
                cw_skip_key_term(&r);
                CHECK(!r.err && cw_reader_left(&r) == 0);
            }
            cw_buf_free(&buf);
        }
        terms_reset();
    }
}

/* ---- order ---- */

static int sign(int c) {
    return (c > 0) - (c < 0);
}

static void same_order(const struct term *a, const struct term *b) {
    struct cw_buf x = encode(CW_KEY, a), y = encode(CW_KEY, b);
    struct cw_bytes sx = cw_buf_slice(&x, 0), sy = cw_buf_slice(&y, 0);
    int c = sign(term_cmp(a, b));
    CHECK(sign(cw_bytes_cmp(sx, sy)) == c);
    if (c != 0)
        CHECK(!cw_bytes_has_prefix(sx, sy) && !cw_bytes_has_prefix(sy, sx));
    cw_buf_free(&x);
    cw_buf_free(&y);
}

static void test_order_of_random_terms(void) {
    for (int i = 0; i < check_rounds(60000); i++) {
        int depth = i % 4;
        same_order(random_term(depth), random_term(depth));
        same_order(random_integer(), random_integer());
        same_order(term_float(random_double()), term_float(random_double()));
        same_order(random_binary(), random_binary());
        same_order(random_atom(), random_atom());
        terms_reset();
    }
}

/* All powers of 256 up to 2^96 and what is next to them, both signs: each pair. */
static void test_order_of_integers(void) {
    struct term *all[200];
    size_t n = 0;
    for (size_t len = 1; len <= 12; len++)
        for (int d = 0; d < 4; d++)
            for (int negative = 0; negative < 2; negative++) {
                uint8_t m[12] = {0};
                memset(m, d < 2 ? 0xff : 0, len);
                m[0] = d < 2 ? 0xff : 0x01;
                m[len - 1] -= d == 0 ? 1 : 0;
                m[len - 1] += d == 3 ? 1 : 0;
                all[n++] = term_big(negative, m, len);
            }
    all[n++] = term_int(0);
    all[n++] = term_int(INT64_MIN);
    all[n++] = term_int(INT64_MAX);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < n; k++)
            same_order(all[i], all[k]);
    terms_reset();
}

/* An integer has one encoding, whichever function wrote it. */
static void test_one_form_of_integers(void) {
    for (int i = 0; i < check_rounds(20000); i++) {
        int64_t v = (int64_t)check_random() >> check_below(64);
        uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
        uint8_t be[20] = {0};
        cw_store64be(be + 12, u);
        size_t zeros = check_below(12 + 1);
        EACH_ENCODING(enc) {
            struct cw_buf a, b;
            cw_buf_init(&a, &check_mem, NULL, 0);
            cw_buf_init(&b, &check_mem, NULL, 0);
            cw_put_int(&a, enc, v);
            cw_put_big(&b, enc, v < 0, cw_bytes(be + zeros, 20 - zeros));
            CHECK(cw_bytes_eq(cw_buf_slice(&a, 0), cw_buf_slice(&b, 0)));
            struct cw_reader r = cw_reader(cw_buf_slice(&a, 0));
            struct cw_token t = cw_read_token(&r, enc);
            CHECK(!r.err && t.type == CW_T_INT && t.i == v);
            cw_buf_free(&a);
            cw_buf_free(&b);
        }
    }
}

/* ---- what is not canonical ---- */

static void mutate(struct cw_buf *buf, enum cw_encoding enc) {
    for (size_t i = 0; i < buf->n; i++) {
        uint8_t was = buf->p[i];
        for (int b = 0; b < 256; b++) {
            buf->p[i] = (uint8_t)b;
            is_canonical(cw_buf_slice(buf, 0), enc);
        }
        buf->p[i] = was;
        terms_reset();
    }
}

static void test_mutations(void) {
    for (int i = 0; i < check_rounds(60); i++)
        EACH_ENCODING(enc) {
            struct cw_buf buf;
            do {
                terms_reset();
                buf = encode(enc, random_term(3));
                if (buf.n > 80)
                    cw_buf_free(&buf);
            } while (buf.n == 0);
            mutate(&buf, enc);
            cw_buf_free(&buf);
        }
}

static void test_truncations(void) {
    for (int i = 0; i < check_rounds(3000); i++)
        EACH_ENCODING(enc) {
            struct cw_buf buf = encode(enc, random_term(3));
            for (size_t n = 0; n < buf.n; n++)
                CHECK(check_whole(cw_bytes(buf.p, n), enc) != CW_OK);
            cw_buf_free(&buf);
            terms_reset();
        }
}

#define REFUSED(enc, err, bytes) CHECK(check_whole(cw_bytes(bytes, sizeof bytes - 1), enc) == err)

static void test_refused(void) {
    REFUSED(CW_KEY, CW_ETRUNCATED, "");
    REFUSED(CW_KEY, CW_EMALFORMED, "\x00");         /* an end of nothing */
    REFUSED(CW_KEY, CW_EMALFORMED, "\x04");         /* no such tag */
    REFUSED(CW_KEY, CW_EMALFORMED, "\x22\x00\x01"); /* leading zero */
    REFUSED(CW_KEY, CW_EMALFORMED, "\x1e\xff\xfe"); /* the same, negative */
    REFUSED(CW_KEY, CW_EMALFORMED, "\x29\x00\x00\x00\x08\x01\x01\x01\x01\x01\x01\x01\x01");
    REFUSED(CW_KEY, CW_ELIMIT, "\x29\x00\x01\x00\x01");
    REFUSED(CW_KEY, CW_EMALFORMED, "\x30\xff\xf0\x00\x00\x00\x00\x00\x00"); /* infinity */
    REFUSED(CW_KEY, CW_EMALFORMED, "\x30\xff\xf8\x00\x00\x00\x00\x00\x00"); /* not a number */
    REFUSED(CW_KEY, CW_EMALFORMED, "\x50\x01\x03\x00");                     /* no such escape */
    REFUSED(CW_KEY, CW_EMALFORMED, "\x50\x61\x01\x00"); /* an escape of nothing */
    REFUSED(CW_KEY, CW_EMALFORMED, "\x40nil\x00");
    REFUSED(CW_KEY, CW_EMALFORMED, "\x40\xc0\x80\x00");         /* overlong UTF-8 */
    REFUSED(CW_KEY, CW_EMALFORMED, "\x40\xed\xa0\x80\x00");     /* a surrogate */
    REFUSED(CW_KEY, CW_EMALFORMED, "\x80\x05\x05\x05\x05\x00"); /* a key twice */
    REFUSED(CW_KEY, CW_EMALFORMED, "\x80\x06\x05\x05\x05\x00"); /* keys out of order */
    REFUSED(CW_KEY, CW_EMALFORMED, "\x80\x06\x00");             /* no value */
    REFUSED(CW_KEY, CW_ETRUNCATED, "\x70\x05");
    REFUSED(CW_KEY, CW_EMALFORMED, "\x05\x05"); /* two terms */
    REFUSED(CW_VALUE, CW_ETRUNCATED, "");
    REFUSED(CW_VALUE, CW_EMALFORMED, "\x0b");
    REFUSED(CW_VALUE, CW_EMALFORMED, "\x03\x80\x00"); /* a varint too long */
    REFUSED(CW_VALUE, CW_EMALFORMED, "\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02");
    REFUSED(CW_VALUE, CW_EMALFORMED, "\x04\x01\x01");                             /* small */
    REFUSED(CW_VALUE, CW_EMALFORMED, "\x10\x08\x80\x00\x00\x00\x00\x00\x00\x00"); /* INT64_MIN */
    REFUSED(CW_VALUE, CW_EMALFORMED, "\x04\x00");
    REFUSED(CW_VALUE, CW_ELIMIT, "\x04\x81\x80\x04");
    REFUSED(CW_VALUE, CW_EMALFORMED, "\x05\x00\x00\x00\x00\x00\x00\xf0\x7f");
    REFUSED(CW_VALUE, CW_EMALFORMED, "\x06\x04true");
    REFUSED(CW_VALUE, CW_EMALFORMED, "\x06\x01\x80");
    REFUSED(CW_VALUE, CW_ETRUNCATED, "\x07\x02\x61");
    REFUSED(CW_VALUE, CW_ETRUNCATED, "\x09\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    REFUSED(CW_VALUE, CW_ETRUNCATED, "\x0a\x02\x00\x00");
    REFUSED(CW_VALUE, CW_EMALFORMED, "\x0a\x02\x00\x00\x00\x00");
}

/* ---- limits ---- */

static struct term *nested(enum cw_term_type type, int depth) {
    struct term *t = term_int(7);
    for (int i = 0; i < depth; i++) {
        struct term *out = term_open(type, type == CW_T_MAP ? 2 : 1);
        out->at[0] = t;
        if (type == CW_T_MAP)
            out->at[i % 2 ? 1 : 0] = t, out->at[i % 2 ? 0 : 1] = term_int(1);
        t = out;
    }
    return t;
}

static void limited(const struct term *t, enum cw_err err) {
    EACH_ENCODING(enc) {
        struct cw_buf buf = encode(enc, t);
        CHECK(check_whole(cw_buf_slice(&buf, 0), enc) == err);
        if (!err)
            is_canonical(cw_buf_slice(&buf, 0), enc);
        cw_buf_free(&buf);
    }
}

static void test_limits(void) {
    for (enum cw_term_type type = CW_T_TUPLE; type <= CW_T_MAP; type++) {
        limited(nested(type, CW_TERM_DEPTH), CW_OK);
        limited(nested(type, CW_TERM_DEPTH + 1), CW_ELIMIT);
        limited(nested(type, 2000), CW_ELIMIT);
    }
    uint8_t *m = malloc(CW_BIG_MAX + 1);
    memset(m, 0xab, CW_BIG_MAX + 1);
    for (int negative = 0; negative < 2; negative++) {
        limited(term_big(negative, m, CW_BIG_MAX), CW_OK);
        limited(term_big(negative, m, CW_BIG_MAX + 1), CW_ELIMIT);
    }
    free(m);
    static const char *const chars[] = {"a", "\x01", "\xf0\x9f\x8c\x8a"};
    char s[4 * (CW_ATOM_MAX + 1)];
    for (size_t c = 0; c < 3; c++) {
        size_t len = strlen(chars[c]);
        for (size_t i = 0; i <= CW_ATOM_MAX; i++)
            memcpy(s + i * len, chars[c], len);
        limited(term_string(CW_T_ATOM, s, CW_ATOM_MAX * len), CW_OK);
        limited(term_string(CW_T_ATOM, s, (CW_ATOM_MAX + 1) * len), CW_ELIMIT);
    }
    memset(s, 0, sizeof s);
    limited(term_string(CW_T_ATOM, s, CW_ATOM_MAX), CW_OK);
    limited(term_string(CW_T_ATOM, s, sizeof s), CW_ELIMIT);
    terms_reset();
}

/* ---- memory ---- */

static void test_no_memory(void) {
    for (int i = 0; i < check_rounds(100); i++) {
        struct term *t = term_open(CW_T_LIST, 40);
        for (size_t k = 0; k < t->count; k++)
            t->at[k] = random_term(2);
        EACH_ENCODING(enc) {
            bool failed = true;
            for (long k = 0; failed; k++) {
                struct cw_buf buf;
                cw_buf_init(&buf, &check_mem, NULL, 0);
                check_mem_fail_after(k);
                term_put(&buf, enc, t);
                check_mem_fail_after(-1);
                failed = buf.err != CW_OK;
                CHECK(!failed || buf.err == CW_ENOMEM);
                cw_buf_free(&buf);
            }
        }
        terms_reset();
    }
}

int main(int argc, char **argv) {
    static const struct check_test tests[] = {
        {"round_trip", test_round_trip},
        {"order_of_random_terms", test_order_of_random_terms},
        {"order_of_integers", test_order_of_integers},
        {"one_form_of_integers", test_one_form_of_integers},
        {"mutations", test_mutations},
        {"truncations", test_truncations},
        {"refused", test_refused},
        {"limits", test_limits},
        {"no_memory", test_no_memory},
    };
    return check_main(argc, argv, "term", tests, sizeof tests / sizeof tests[0]);
}
