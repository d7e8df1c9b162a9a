#include "cw_term.h"

#include "cw_sort.h"

/* Tags of CW_KEY, in the order of types. Integers: zero is INT_ZERO, a magnitude of n <= 8 bytes
 * INT_ZERO + n or - n, a longer one KEY_BIG or KEY_NEG_BIG with a length. All are above 0x00, which
 * ends strings and compound terms.
 *
 * No encoding is the beginning of another one: what begins with the bytes of a field is that field,
 * and all that is below it can be found, counted and dropped by its prefix. Hence the two escapes
 * in strings: a 0x00 is nothing but the end. (With FoundationDB's 0x00 0xff for a zero byte "a"
 * would be the beginning of "a\0b".) */
enum {
    KEY_END = 0x00,
    KEY_NIL = 0x05,
    KEY_FALSE = 0x06,
    KEY_TRUE = 0x07,
    KEY_NEG_BIG = 0x17,
    KEY_INT_ZERO = 0x20,
    KEY_BIG = 0x29,
    KEY_FLOAT = 0x30,
    KEY_ATOM = 0x40,
    KEY_BINARY = 0x50,
    KEY_TUPLE = 0x60,
    KEY_LIST = 0x70,
    KEY_MAP = 0x80,
    ESCAPE = 0x01, /* in strings: 0x00 is 0x01 0x01, 0x01 is 0x01 0x02 */
};

/* In CW_VALUE a tag is the type itself, but that BIG splits by sign. */
enum { VALUE_NEG_BIG = 0x10 };

/* ---- numbers ---- */

static void put_key_big(struct cw_buf *buf, bool negative, struct cw_bytes m) {
    uint8_t flip = negative ? 0xff : 0;
    if (m.n <= 8) {
        cw_buf_byte(buf, (uint8_t)(KEY_INT_ZERO + (negative ? -(int)m.n : (int)m.n)));
    } else {
        cw_buf_byte(buf, negative ? KEY_NEG_BIG : KEY_BIG);
        for (int shift = 24; shift >= 0; shift -= 8)
            cw_buf_byte(buf, (uint8_t)(m.n >> shift) ^ flip);
    }
    if (!cw_buf_reserve(buf, m.n))
        return;
    for (size_t i = 0; i < m.n; i++)
        buf->p[buf->n++] = m.p[i] ^ flip;
}

static struct cw_bytes minimal(struct cw_bytes m) {
    while (m.n && m.p[0] == 0)
        m = cw_bytes(m.p + 1, m.n - 1);
    return m;
}

static uint64_t magnitude_of(int64_t v) {
    return v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
}

/* Whether a minimal magnitude is that of an int64_t. */
static bool fits_int(bool negative, struct cw_bytes m, int64_t *out) {
    if (m.n > 8)
        return false;
    uint64_t u = 0;
    for (size_t i = 0; i < m.n; i++)
        u = u << 8 | m.p[i];
    if (u > (uint64_t)INT64_MAX + negative)
        return false;
    *out = negative ? (int64_t)(0 - u) : (int64_t)u;
    return true;
}

void cw_put_int(struct cw_buf *buf, enum cw_encoding enc, int64_t v) {
    if (enc == CW_VALUE) {
        cw_buf_byte(buf, CW_T_INT);
        cw_buf_varint(buf, (uint64_t)v << 1 ^ (v < 0 ? UINT64_MAX : 0));
        return;
    }
    uint8_t be[8];
    cw_store64be(be, magnitude_of(v));
    put_key_big(buf, v < 0, minimal(cw_bytes(be, 8)));
}

void cw_put_big(struct cw_buf *buf, enum cw_encoding enc, bool negative, struct cw_bytes m) {
    int64_t v;
    m = minimal(m);
    if (fits_int(negative, m, &v)) {
        cw_put_int(buf, enc, v);
    } else if (enc == CW_KEY) {
        put_key_big(buf, negative, m);
    } else {
        cw_buf_byte(buf, negative ? VALUE_NEG_BIG : CW_T_BIG);
        cw_buf_varint(buf, m.n);
        cw_buf_bytes(buf, m);
    }
}

/* IEEE 754 bits in the order of the numbers: positive ones with the sign set, negative ones
 * complemented. */
static uint64_t float_to_key(double v) {
    uint64_t bits;
    memcpy(&bits, &v, 8);
    return bits >> 63 ? ~bits : bits | UINT64_C(1) << 63;
}

static double float_of_bits(uint64_t bits) {
    double v;
    memcpy(&v, &bits, 8);
    return v;
}

static double float_of_key(uint64_t k) {
    return float_of_bits(k >> 63 ? k & ~(UINT64_C(1) << 63) : ~k);
}

static bool is_finite(double v) {
    return v - v == 0;
}

void cw_put_float(struct cw_buf *buf, enum cw_encoding enc, double v) {
    uint64_t bits;
    memcpy(&bits, &v, 8);
    cw_buf_byte(buf, enc == CW_KEY ? KEY_FLOAT : CW_T_FLOAT);
    if (enc == CW_KEY)
        cw_buf_u64be(buf, float_to_key(v));
    else
        cw_buf_u64le(buf, bits);
}

/* ---- strings and the rest ---- */

/* The index of the first byte that needs an escape, 0x00 or 0x01; `n` when none does. */
static size_t first_low(const uint8_t *p, size_t n) {
    const uint64_t ones = UINT64_C(0x0101010101010101);
    size_t i = 0;
    for (; n - i >= 8; i += 8) {
        uint64_t v = cw_load64le(p + i);
        if ((v - 2 * ones) & ~v & 0x80 * ones)
            break;
    }
    while (i < n && p[i] > 0x01)
        i++;
    return i;
}

static void put_escaped(struct cw_buf *buf, struct cw_bytes s) {
    while (s.n) {
        size_t n = first_low(s.p, s.n);
        cw_buf_put(buf, s.p, n);
        if (n == s.n)
            break;
        cw_buf_byte(buf, ESCAPE);
        cw_buf_byte(buf, s.p[n] + 1);
        s = cw_bytes(s.p + n + 1, s.n - n - 1);
    }
    cw_buf_byte(buf, KEY_END);
}

void cw_put_string(struct cw_buf *buf, enum cw_encoding enc, enum cw_term_type type,
                   struct cw_bytes s) {
    if (enc == CW_KEY) {
        cw_buf_byte(buf, type == CW_T_ATOM ? KEY_ATOM : KEY_BINARY);
        put_escaped(buf, s);
        return;
    }
    cw_buf_byte(buf, (uint8_t)type);
    cw_buf_varint(buf, s.n);
    cw_buf_bytes(buf, s);
}

void cw_put_simple(struct cw_buf *buf, enum cw_encoding enc, enum cw_term_type type) {
    cw_buf_byte(buf, enc == CW_KEY ? (uint8_t)(KEY_NIL + (type - CW_T_NIL)) : (uint8_t)type);
}

void cw_put_open(struct cw_buf *buf, enum cw_encoding enc, enum cw_term_type type, uint64_t n) {
    if (enc == CW_KEY) {
        cw_buf_byte(buf, type == CW_T_TUPLE ? KEY_TUPLE : type == CW_T_LIST ? KEY_LIST : KEY_MAP);
    } else {
        cw_buf_byte(buf, (uint8_t)type);
        cw_buf_varint(buf, n);
    }
}

void cw_put_close(struct cw_buf *buf, enum cw_encoding enc) {
    if (enc == CW_KEY)
        cw_buf_byte(buf, KEY_END);
}

/* ---- maps ---- */

static int cmp_pairs(const void *ctx, const void *x, const void *y) {
    const uint8_t *base = ctx;
    const struct cw_pair *a = x, *b = y;
    return cw_bytes_cmp(cw_bytes(base + a->at, a->key_len), cw_bytes(base + b->at, b->key_len));
}

void cw_sort_pairs(struct cw_buf *buf, size_t from, struct cw_pair *pairs, size_t n) {
    size_t len = buf->n - from;
    if (buf->err || n < 2 || !cw_buf_reserve(buf, len))
        return;
    cw_sort(pairs, n, sizeof *pairs, cmp_pairs, buf->p);
    uint8_t *to = buf->p + buf->n; /* behind the end, then back */
    for (size_t i = 0; i < n; i++) {
        memcpy(to, buf->p + pairs[i].at, pairs[i].len);
        to += pairs[i].len;
    }
    memmove(buf->p + from, buf->p + buf->n, len);
}

/* ---- reading ---- */

/* Each ESCAPE in `s` stands before 0x01 or 0x02. */
static bool good_escapes(struct cw_bytes s) {
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] != ESCAPE)
            continue;
        if (++i == s.n || s.p[i] == 0x00 || s.p[i] > 0x02)
            return false;
    }
    return true;
}

static struct cw_bytes read_escaped(struct cw_reader *r, bool *escaped) {
    size_t left = cw_reader_left(r);
    const uint8_t *end = left ? memchr(r->p, KEY_END, left) : NULL;
    if (!end) {
        cw_reader_fail(r, CW_ETRUNCATED);
        return cw_bytes(r->end, 0);
    }
    struct cw_bytes s = cw_bytes(r->p, (size_t)(end - r->p));
    r->p = end + 1;
    *escaped = s.n && memchr(s.p, ESCAPE, s.n);
    if (*escaped && !good_escapes(s))
        cw_reader_fail(r, CW_EMALFORMED);
    return s;
}

size_t cw_unescape(uint8_t *dst, struct cw_bytes s) {
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        bool escape = s.p[i] == ESCAPE && i + 1 < s.n;
        dst[n++] = escape ? (uint8_t)(s.p[++i] - 1) : s.p[i];
    }
    return n;
}

static void int_token(struct cw_reader *r, struct cw_token *t, bool negative, struct cw_bytes m) {
    uint8_t flip = negative ? 0xff : 0, plain[8];
    for (size_t i = 0; i < m.n && i < 8; i++)
        plain[i] = m.p[i] ^ flip;
    if (m.n && plain[0] == 0)
        cw_reader_fail(r, CW_EMALFORMED);
    t->type = CW_T_BIG;
    t->negative = negative;
    t->inverted = negative;
    t->s = m;
    if (m.n <= 8 && fits_int(negative, cw_bytes(plain, m.n), &t->i))
        t->type = CW_T_INT;
}

static void key_int(struct cw_reader *r, struct cw_token *t, uint8_t tag) {
    bool negative = tag < KEY_INT_ZERO;
    uint64_t n = negative ? (uint64_t)(KEY_INT_ZERO - tag) : (uint64_t)(tag - KEY_INT_ZERO);
    if (n > 8) {
        n = 0;
        for (int i = 0; i < 4; i++)
            n = n << 8 | (uint8_t)(cw_read_byte(r) ^ (negative ? 0xff : 0));
        if (n <= 8 || n > CW_BIG_MAX)
            cw_reader_fail(r, n <= 8 ? CW_EMALFORMED : CW_ELIMIT);
    }
    int_token(r, t, negative, cw_read_bytes(r, r->err ? 0 : n));
}

static void float_token(struct cw_reader *r, struct cw_token *t, double v) {
    t->type = CW_T_FLOAT;
    t->f = v;
    if (!is_finite(v))
        cw_reader_fail(r, CW_EMALFORMED);
}

static uint64_t read_u64be(struct cw_reader *r) {
    struct cw_bytes s = cw_read_bytes(r, 8);
    return s.n ? cw_load64be(s.p) : 0;
}

static struct cw_token read_key_token(struct cw_reader *r) {
    struct cw_token t = {.type = CW_T_END};
    uint8_t tag = cw_read_byte(r);
    if (tag >= KEY_NEG_BIG && tag <= KEY_BIG) {
        key_int(r, &t, tag);
        return t;
    }
    switch (tag) {
    case KEY_END:
        break;
    case KEY_NIL:
    case KEY_FALSE:
    case KEY_TRUE:
        t.type = (enum cw_term_type)(CW_T_NIL + (tag - KEY_NIL));
        break;
    case KEY_FLOAT:
        float_token(r, &t, float_of_key(read_u64be(r)));
        break;
    case KEY_ATOM:
    case KEY_BINARY:
        t.type = tag == KEY_ATOM ? CW_T_ATOM : CW_T_BINARY;
        t.s = read_escaped(r, &t.escaped);
        break;
    case KEY_TUPLE:
        t.type = CW_T_TUPLE;
        break;
    case KEY_LIST:
        t.type = CW_T_LIST;
        break;
    case KEY_MAP:
        t.type = CW_T_MAP;
        break;
    default:
        cw_reader_fail(r, CW_EMALFORMED);
    }
    return t;
}

static void value_big(struct cw_reader *r, struct cw_token *t, bool negative) {
    uint64_t n = cw_read_varint(r);
    if (n > CW_BIG_MAX)
        cw_reader_fail(r, CW_ELIMIT);
    struct cw_bytes m = cw_read_bytes(r, r->err ? 0 : n);
    t->type = CW_T_BIG;
    t->negative = negative;
    t->s = m;
    if (!m.n || m.p[0] == 0 || fits_int(negative, m, &t->i))
        cw_reader_fail(r, CW_EMALFORMED);
}

static struct cw_token read_value_token(struct cw_reader *r) {
    uint8_t tag = cw_read_byte(r);
    struct cw_token t = {.type = (enum cw_term_type)tag};
    switch (tag) {
    case CW_T_NIL:
    case CW_T_FALSE:
    case CW_T_TRUE:
        break;
    case CW_T_INT: {
        uint64_t z = cw_read_varint(r);
        t.i = (int64_t)(z >> 1 ^ (z & 1 ? UINT64_MAX : 0));
        break;
    }
    case CW_T_BIG:
    case VALUE_NEG_BIG:
        value_big(r, &t, tag == VALUE_NEG_BIG);
        break;
    case CW_T_FLOAT:
        float_token(r, &t, float_of_bits(cw_read_u64le(r)));
        break;
    case CW_T_ATOM:
    case CW_T_BINARY:
        t.s = cw_read_bytes(r, cw_read_varint(r));
        break;
    case CW_T_TUPLE:
    case CW_T_LIST:
        t.n = cw_read_count(r, 1);
        break;
    case CW_T_MAP:
        t.n = cw_read_count(r, 2);
        break;
    default:
        cw_reader_fail(r, CW_EMALFORMED);
    }
    return t;
}

struct cw_token cw_read_token(struct cw_reader *r, enum cw_encoding enc) {
    return enc == CW_KEY ? read_key_token(r) : read_value_token(r);
}

/* ---- checking ---- */

/* The length of the UTF-8 character at `p`, 0 when there is none. */
static size_t utf8_char(const uint8_t *p, size_t n) {
    if (p[0] < 0x80)
        return 1;
    size_t len = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4 || n < len)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    bool overlong = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xf0 && p[1] < 0x90);
    bool surrogate = p[0] == 0xed && p[1] > 0x9f;
    return overlong || surrogate || (p[0] == 0xf4 && p[1] > 0x8f) ? 0 : len;
}

static bool is_simple_atom(struct cw_bytes s) {
    return cw_bytes_eq(s, cw_bytes("nil", 3)) || cw_bytes_eq(s, cw_bytes("true", 4)) ||
           cw_bytes_eq(s, cw_bytes("false", 5));
}

static CW_NOINLINE void check_atom(struct cw_reader *r, const struct cw_token *t) {
    uint8_t plain[4 * CW_ATOM_MAX + 1];
    struct cw_bytes s = t->s;
    if (s.n > 2 * 4 * CW_ATOM_MAX) {
        cw_reader_fail(r, CW_ELIMIT);
        return;
    }
    if (t->escaped) {
        uint8_t wide[2 * 4 * CW_ATOM_MAX];
        s = cw_bytes(plain, cw_unescape(wide, s));
        if (s.n > sizeof plain) {
            cw_reader_fail(r, CW_ELIMIT);
            return;
        }
        memcpy(plain, wide, s.n);
    }
    size_t chars = 0;
    for (size_t i = 0, len; i < s.n; i += len, chars++) {
        len = utf8_char(s.p + i, s.n - i);
        if (!len) {
            cw_reader_fail(r, CW_EMALFORMED);
            return;
        }
    }
    if (chars > CW_ATOM_MAX)
        cw_reader_fail(r, CW_ELIMIT);
    if (is_simple_atom(s))
        cw_reader_fail(r, CW_EMALFORMED);
}

static void check_nested(struct cw_reader *r, enum cw_encoding enc, int depth);

/* Elements of an open compound term; a map's keys must ascend. */
static void check_elements(struct cw_reader *r, enum cw_encoding enc, const struct cw_token *t,
                           int depth) {
    struct cw_bytes last = {NULL, 0};
    for (uint64_t i = 0; !r->err && (enc == CW_KEY || i < t->n); i++) {
        if (enc == CW_KEY && r->p < r->end && *r->p == KEY_END) {
            r->p++;
            return;
        }
        const uint8_t *at = r->p;
        check_nested(r, enc, depth + 1);
        if (t->type != CW_T_MAP || r->err)
            continue;
        struct cw_bytes key = cw_bytes(at, (size_t)(r->p - at));
        if (last.p && cw_bytes_cmp(last, key) >= 0)
            cw_reader_fail(r, CW_EMALFORMED);
        last = key;
        check_nested(r, enc, depth + 1);
    }
}

static void check_nested(struct cw_reader *r, enum cw_encoding enc, int depth) {
    struct cw_token t = cw_read_token(r, enc);
    if (r->err)
        return;
    if (t.type == CW_T_END) {
        cw_reader_fail(r, CW_EMALFORMED);
    } else if (t.type == CW_T_ATOM) {
        check_atom(r, &t);
    } else if (t.type >= CW_T_TUPLE) {
        if (depth >= CW_TERM_DEPTH)
            cw_reader_fail(r, CW_ELIMIT);
        else
            check_elements(r, enc, &t, depth);
    }
}

void cw_check_term(struct cw_reader *r, enum cw_encoding enc) {
    check_nested(r, enc, 0);
}

void cw_skip_key_term(struct cw_reader *r) {
    int depth = 0;
    do {
        struct cw_token t = cw_read_token(r, CW_KEY);
        if (t.type == CW_T_END)
            depth--;
        else if (t.type >= CW_T_TUPLE)
            depth++;
    } while (depth > 0 && !r->err);
}
