/* Terms as a tree in memory: the obvious model beside the two encodings. For tests and fuzz
 * targets; terms live in one pool until terms_reset(). */
#ifndef CW_TEST_TERMS_H
#define CW_TEST_TERMS_H

#include <stdlib.h>
#include <string.h>

#include "../../c_src/core/cw_term.h"

struct term {
    enum cw_term_type type; /* an integer is always CW_T_BIG here: sign and magnitude */
    bool negative;
    double f;
    uint8_t *s; /* minimal big-endian magnitude, or the bytes of an atom or binary */
    size_t n;
    struct term **at; /* elements; of a map key, value, key, value... */
    size_t count;
};

/* ---- pool ---- */

static void **terms_pool;
static size_t terms_pool_n, terms_pool_cap;

static inline void *terms_alloc(size_t size) {
    if (terms_pool_n == terms_pool_cap) {
        terms_pool_cap = terms_pool_cap ? 2 * terms_pool_cap : 64;
        terms_pool = realloc(terms_pool, terms_pool_cap * sizeof *terms_pool);
    }
    return terms_pool[terms_pool_n++] = calloc(1, size + 1);
}

static inline void terms_reset(void) {
    while (terms_pool_n)
        free(terms_pool[--terms_pool_n]);
    free(terms_pool);
    terms_pool = NULL;
    terms_pool_cap = 0;
}

static inline struct term *term_new(enum cw_term_type type) {
    struct term *t = terms_alloc(sizeof *t);
    t->type = type;
    return t;
}

static inline struct term *term_string(enum cw_term_type type, const void *s, size_t n) {
    struct term *t = term_new(type);
    t->s = terms_alloc(n);
    if (n)
        memcpy(t->s, s, n);
    t->n = n;
    return t;
}

static inline struct term *term_big(bool negative, const uint8_t *m, size_t n) {
    while (n && *m == 0)
        m++, n--;
    struct term *t = term_string(CW_T_BIG, m, n);
    t->negative = negative && n;
    return t;
}

static inline struct term *term_int(int64_t v) {
    uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    uint8_t be[8];
    for (int i = 0; i < 8; i++)
        be[i] = (uint8_t)(u >> (56 - 8 * i));
    return term_big(v < 0, be, 8);
}

static inline struct term *term_float(double f) {
    struct term *t = term_new(CW_T_FLOAT);
    t->f = f;
    return t;
}

static inline struct term *term_open(enum cw_term_type type, size_t count) {
    struct term *t = term_new(type);
    t->count = count;
    t->at = terms_alloc((count + 1) * sizeof *t->at);
    return t;
}

/* ---- order ---- */

static inline int cmp_magnitudes(const struct term *a, const struct term *b) {
    if (a->n != b->n)
        return a->n < b->n ? -1 : 1;
    return a->n ? memcmp(a->s, b->s, a->n) : 0;
}

static inline int cmp_floats(double a, double b) {
    if (a != b)
        return a < b ? -1 : 1;
    uint64_t x, y; /* only -0.0 and 0.0 are equal and differ */
    memcpy(&x, &a, 8);
    memcpy(&y, &b, 8);
    return (int)(y >> 63) - (int)(x >> 63);
}

static inline int term_cmp(const struct term *a, const struct term *b) {
    if (a->type != b->type)
        return a->type < b->type ? -1 : 1;
    if (a->type == CW_T_BIG) {
        if (a->negative != b->negative)
            return a->negative ? -1 : 1;
        return a->negative ? cmp_magnitudes(b, a) : cmp_magnitudes(a, b);
    }
    if (a->type == CW_T_FLOAT)
        return cmp_floats(a->f, b->f);
    if (a->type == CW_T_ATOM || a->type == CW_T_BINARY)
        return cw_bytes_cmp(cw_bytes(a->s, a->n), cw_bytes(b->s, b->n));
    for (size_t i = 0; i < a->count && i < b->count; i++) {
        int c = term_cmp(a->at[i], b->at[i]);
        if (c)
            return c;
    }
    return (a->count > b->count) - (a->count < b->count);
}

/* Pairs into the order of their keys; of two with one key the later stays. */
static inline void term_tidy_map(struct term *t) {
    size_t kept = 0;
    for (size_t i = 0; i < t->count; i += 2) {
        struct term *key = t->at[i], *value = t->at[i + 1];
        size_t at = 0;
        while (at < kept && term_cmp(t->at[at], key) < 0)
            at += 2;
        if (at == kept || term_cmp(t->at[at], key) != 0) {
            memmove(t->at + at + 2, t->at + at, (kept - at) * sizeof *t->at);
            kept += 2;
        }
        t->at[at] = key;
        t->at[at + 1] = value;
    }
    t->count = kept;
}

/* ---- encoding ---- */

static inline void term_put(struct cw_buf *buf, enum cw_encoding enc, const struct term *t);

static inline void term_put_pairs(struct cw_buf *buf, enum cw_encoding enc, const struct term *t) {
    size_t n = t->count / 2, from = buf->n;
    struct cw_pair *pairs = malloc((n + 1) * sizeof *pairs);
    for (size_t i = 0; i < n; i++) { /* backwards: sorting has something to do */
        size_t at = buf->n, k = 2 * (n - 1 - i);
        term_put(buf, enc, t->at[k]);
        pairs[i] = (struct cw_pair){at, buf->n - at, 0};
        term_put(buf, enc, t->at[k + 1]);
        pairs[i].len = buf->n - at;
    }
    cw_sort_pairs(buf, from, pairs, n);
    free(pairs);
}

static inline void term_put(struct cw_buf *buf, enum cw_encoding enc, const struct term *t) {
    switch (t->type) {
    case CW_T_BIG:
        cw_put_big(buf, enc, t->negative, cw_bytes(t->s, t->n));
        return;
    case CW_T_FLOAT:
        cw_put_float(buf, enc, t->f);
        return;
    case CW_T_ATOM:
    case CW_T_BINARY:
        cw_put_string(buf, enc, t->type, cw_bytes(t->s, t->n));
        return;
    case CW_T_TUPLE:
    case CW_T_LIST:
        cw_put_open(buf, enc, t->type, t->count);
        for (size_t i = 0; i < t->count; i++)
            term_put(buf, enc, t->at[i]);
        cw_put_close(buf, enc);
        return;
    case CW_T_MAP:
        cw_put_open(buf, enc, t->type, t->count / 2);
        term_put_pairs(buf, enc, t);
        cw_put_close(buf, enc);
        return;
    default:
        cw_put_simple(buf, enc, t->type);
    }
}

/* ---- decoding ---- */

static inline struct term *term_read(struct cw_reader *r, enum cw_encoding enc);

static inline struct term *term_of_string(const struct cw_token *tok) {
    struct term *t = term_string(tok->type, tok->s.p, tok->s.n);
    if (tok->escaped)
        t->n = cw_unescape(t->s, tok->s);
    return t;
}

static inline struct term *term_of_big(const struct cw_token *tok) {
    uint8_t *m = terms_alloc(tok->s.n);
    for (size_t i = 0; i < tok->s.n; i++)
        m[i] = tok->s.p[i] ^ (tok->inverted ? 0xff : 0);
    return term_big(tok->negative, m, tok->s.n);
}

static inline struct term *term_of_elements(struct cw_reader *r, enum cw_encoding enc,
                                            const struct cw_token *tok) {
    size_t cap = 4, n = 0,
           want = enc == CW_KEY ? SIZE_MAX : tok->n * (tok->type == CW_T_MAP ? 2 : 1);
    struct term *t = term_open(tok->type, cap), *e;
    while (n < want && !r->err && (e = term_read(r, enc))) {
        if (n == cap) {
            struct term **at = terms_alloc(2 * cap * sizeof *at);
            memcpy(at, t->at, n * sizeof *at);
            t->at = at;
            cap *= 2;
        }
        t->at[n++] = e;
    }
    t->count = n;
    if (t->type == CW_T_MAP)
        term_tidy_map(t);
    return t;
}

/* Of bytes that cw_check_term accepts. NULL at the end of a compound term and on failure. */
static inline struct term *term_read(struct cw_reader *r, enum cw_encoding enc) {
    struct cw_token tok = cw_read_token(r, enc);
    if (r->err)
        return NULL;
    switch (tok.type) {
    case CW_T_END:
        return NULL;
    case CW_T_INT:
        return term_int(tok.i);
    case CW_T_BIG:
        return term_of_big(&tok);
    case CW_T_FLOAT:
        return term_float(tok.f);
    case CW_T_ATOM:
    case CW_T_BINARY:
        return term_of_string(&tok);
    case CW_T_TUPLE:
    case CW_T_LIST:
    case CW_T_MAP:
        return term_of_elements(r, enc, &tok);
    default:
        return term_new(tok.type);
    }
}

#endif
