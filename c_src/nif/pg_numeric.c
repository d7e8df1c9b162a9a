/* numeric. The server's form is in base 10,000, aligned at the decimal point:
 *
 *     | groups, 16 bits | weight of the first one | sign | digits after the point | group ... |
 *
 * so that 12345.678 is | 3 | 1 | 0 | 3 | 1 | 2345 | 6780 |. Here it is a struct of a sign, an
 * integer coefficient and a power of ten. Coefficients of up to 18 digits, which is nearly all of
 * them, are one machine word; larger ones are converted between bases piece by piece, in time that
 * grows with the square of their length, and can have 147,455 digits. */
#include "pg_type.h"

#define HEAD 8u
#define BASE 10000u
#define DIGITS_BEFORE 131072 /* the point, at most */
#define SCALE_MOST 16383
#define SMALL_DIGITS 18

enum { POSITIVE = 0x0000, NEGATIVE = 0x4000, NAN_SIGN = 0xc000, INF = 0xd000, MINUS_INF = 0xf000 };

static uint64_t power_of_ten(unsigned n) {
    uint64_t v = 1;
    while (n--)
        v *= 10;
    return v;
}

/* ---- large integers: the external term format ----
 *
 *     | 131 | 110 | bytes, 8 bits  | sign | least significant byte first ... |
 *     | 131 | 111 | bytes, 32 bits | sign | ... |                              */
enum {
    ETF_VERSION = 131,
    ETF_SMALL = 110,
    ETF_LARGE = 111,
    ETF_SMALL_HEAD = 4,
    ETF_LARGE_HEAD = 7
};

/* Limbs of 32 bits, the least significant first. */
struct limbs {
    uint32_t *at;
    size_t n;
};

static bool make_large(ErlNifEnv *env, const struct limbs *v, bool negative, ERL_NIF_TERM *term) {
    size_t n = 4 * v->n;
    uint8_t *etf = enif_alloc(ETF_LARGE_HEAD + n);
    if (!etf)
        return false;
    etf[0] = ETF_VERSION;
    etf[1] = ETF_LARGE;
    for (int i = 0; i < 4; i++)
        etf[2 + i] = (uint8_t)(n >> (24 - 8 * i));
    etf[6] = negative;
    for (size_t i = 0; i < v->n; i++)
        cw_store32le(etf + ETF_LARGE_HEAD + 4 * i, v->at[i]);
    bool ok = enif_binary_to_term(env, etf, ETF_LARGE_HEAD + n, term, 0) != 0;
    enif_free(etf);
    return ok;
}

/* v = v * mul + add; there is room for the carry. */
static void mul_add(struct limbs *v, uint32_t mul, uint32_t add) {
    uint64_t carry = add;
    for (size_t i = 0; i < v->n; i++) {
        carry += (uint64_t)v->at[i] * mul;
        v->at[i] = (uint32_t)carry;
        carry >>= 32;
    }
    if (carry)
        v->at[v->n++] = (uint32_t)carry;
}

/* v = v / div; returns the rest. */
static uint32_t div_rest(struct limbs *v, uint32_t div) {
    uint64_t rest = 0;
    for (size_t i = v->n; i-- > 0;) {
        rest = rest << 32 | v->at[i];
        v->at[i] = (uint32_t)(rest / div);
        rest %= div;
    }
    while (v->n && !v->at[v->n - 1])
        v->n--;
    return (uint32_t)rest;
}

/* ---- to terms ---- */

struct number {
    const uint8_t *groups;
    int n;      /* of them */
    int weight; /* of the first: its power of 10,000 */
    int scale;  /* digits after the point */
};

static unsigned group(const struct number *v, int i) {
    return pg_load16(v->groups + 2 * i);
}

static bool read_number(struct cw_bytes s, struct number *v, unsigned *sign) {
    if (s.n < HEAD)
        return false;
    *v = (struct number){s.p + HEAD, pg_load16(s.p), (int16_t)pg_load16(s.p + 2),
                         pg_load16(s.p + 6)};
    *sign = pg_load16(s.p + 4);
    if (s.n != HEAD + 2 * (size_t)v->n || v->scale > SCALE_MOST)
        return false;
    for (int i = 0; i < v->n; i++)
        if (group(v, i) >= BASE)
            return false;
    return true;
}

/* The coefficient is what stands before the point once that is moved to the right by the scale. In
 * groups: `whole` of them, zeros where the value has none, and the first `part` digits of one more.
 * What comes after that is dropped; the server sends nothing there but zeros. */
struct extent {
    int whole;
    int part;
};

static struct extent extent_of(const struct number *v) {
    int groups = v->scale / 4;
    int whole = v->weight + 1 + groups;
    return whole < 0 ? (struct extent){0, 0} : (struct extent){whole, v->scale % 4};
}

static unsigned group_or_zero(const struct number *v, int i) {
    return i >= 0 && i < v->n ? group(v, i) : 0;
}

static unsigned first_digits(unsigned group, int n) {
    for (; n < 4; n++)
        group /= 10;
    return group;
}

static int64_t small_coefficient(const struct number *v, struct extent x) {
    uint64_t coef = 0;
    for (int i = 0; i < x.whole; i++)
        coef = coef * BASE + group_or_zero(v, i);
    return (int64_t)(coef * power_of_ten((unsigned)x.part) +
                     first_digits(group_or_zero(v, x.whole), x.part));
}

/* Two groups at a time. */
static enum cw_err large_coefficient(struct pg_decode *d, const struct number *v, struct extent x,
                                     ERL_NIF_TERM *term) {
    size_t n = (size_t)x.whole / 2 + 4; /* a limb holds more than two groups */
    if (!pg_more_work(d, n * n / 32))
        return CW_EBUDGET;
    struct limbs coef = {enif_alloc(n * sizeof *coef.at), 0};
    if (!coef.at)
        return CW_ENOMEM;
    int i = 0;
    for (; i + 2 <= x.whole; i += 2)
        mul_add(&coef, BASE * BASE, group_or_zero(v, i) * BASE + group_or_zero(v, i + 1));
    for (; i < x.whole; i++)
        mul_add(&coef, BASE, group_or_zero(v, i));
    mul_add(&coef, (uint32_t)power_of_ten((unsigned)x.part),
            first_digits(group_or_zero(v, x.whole), x.part));
    bool ok = make_large(d->env, &coef, false, term);
    enif_free(coef.at);
    return ok ? CW_OK : CW_ENOMEM;
}

/* Without the zeros in front, which a value from the server does not have. */
static void strip(struct number *v) {
    while (v->n && !group(v, 0)) {
        v->groups += 2;
        v->n--;
        v->weight--;
    }
}

static enum cw_err coefficient(struct pg_decode *d, struct number *v, ERL_NIF_TERM *term) {
    strip(v);
    struct extent x = v->n ? extent_of(v) : (struct extent){0, 0};
    if (4 * x.whole + x.part > SMALL_DIGITS)
        return large_coefficient(d, v, x, term);
    *term = enif_make_int64(d->env, v->n ? small_coefficient(v, x) : 0);
    return CW_OK;
}

static ERL_NIF_TERM make_decimal(struct pg_decode *d, int sign, ERL_NIF_TERM coef, int exp) {
    const ERL_NIF_TERM fields[] = {enif_make_int(d->env, sign), coef, enif_make_int(d->env, exp)};
    d->work += PG_STRUCT_WORK + 1;
    return pg_make_struct(d->env, &d->lib->shapes[PG_DECIMAL], d->codec->numeric, fields);
}

enum cw_err pg_get_numeric(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                           unsigned depth, ERL_NIF_TERM *term) {
    struct number v;
    unsigned sign;
    ERL_NIF_TERM coef;
    (void)node, (void)depth;
    if (!read_number(s, &v, &sign))
        return CW_EMALFORMED;
    if (sign == POSITIVE || sign == NEGATIVE) {
        enum cw_err err = coefficient(d, &v, &coef);
        if (!err)
            *term = make_decimal(d, sign == NEGATIVE ? -1 : 1, coef, -v.scale);
        return err;
    }
    if (v.n || (sign != NAN_SIGN && sign != INF && sign != MINUS_INF))
        return CW_EMALFORMED;
    *term = make_decimal(d, sign == MINUS_INF ? -1 : 1,
                         sign == NAN_SIGN ? d->lib->a_NaN : d->lib->a_inf, 0);
    return CW_OK;
}

/* ---- from terms ----
 *
 * First the coefficient's decimal digits, as values, not characters; then groups of four of them.
 */

#define DIGITS_ON_STACK 64u
#define COEF_BYTES_MOST 61500u /* of 147,455 digits, and a little more */

struct decimal {
    bool negative;
    const uint8_t *digits; /* the first is not 0 */
    size_t n;
    int64_t before; /* digits before the point; negative: so many zeros come first after it */
    int64_t exp;
};

/* Writes digits in front of `end`; returns the first. */
static uint8_t *write_digits(uint8_t *end, uint64_t v) {
    for (; v; v /= 10)
        *--end = (uint8_t)(v % 10);
    return end;
}

/* Nine at a time, which leaves the limbs empty. */
static uint8_t *write_large(uint8_t *end, struct limbs *v) {
    while (v->n) {
        uint8_t *full = end - 9;
        end = write_digits(end, div_rest(v, 1000000000));
        while (v->n && end > full)
            *--end = 0;
    }
    return end;
}

/* Groups begin at the point: the first one has one to four digits. */
static bool put_groups(struct pg_encode *e, const struct decimal *v) {
    int64_t weight = v->before > 0 ? (v->before - 1) / 4 : (v->before - 4) / 4;
    size_t first = (size_t)(v->before - 4 * weight);
    size_t groups = v->n ? 1 + (v->n > first ? (v->n - first + 3) / 4 : 0) : 0;
    if (!pg_put16(e, (uint16_t)groups) || !pg_put16(e, (uint16_t)(groups ? weight : 0)) ||
        !pg_put16(e, groups && v->negative ? NEGATIVE : POSITIVE) ||
        !pg_put16(e, (uint16_t)(v->exp < 0 ? -v->exp : 0)))
        return false;
    size_t at = 0;
    for (size_t i = 0; i < groups; i++) {
        unsigned group = 0;
        for (size_t end = at + (i ? 4 : first); at < end; at++)
            group = group * 10 + (at < v->n ? v->digits[at] : 0);
        if (!pg_put16(e, (uint16_t)group))
            return false;
    }
    return true;
}

static bool put_digits(struct pg_encode *e, const struct pg_node *node, struct decimal v,
                       ERL_NIF_TERM term) {
    v.before = v.exp + (int64_t)v.n;
    if (v.exp < -SCALE_MOST || (v.n && v.before > DIGITS_BEFORE))
        return PG_REFUSE(e, node, out_of_range, term);
    while (v.n && !v.digits[v.n - 1])
        v.n--;
    return put_groups(e, &v);
}

static bool put_small(struct pg_encode *e, const struct pg_node *node, uint64_t coef, bool negative,
                      int64_t exp, ERL_NIF_TERM term) {
    uint8_t space[DIGITS_ON_STACK], *end = space + sizeof space;
    uint8_t *digits = write_digits(end, coef);
    return put_digits(e, node, (struct decimal){negative, digits, (size_t)(end - digits), 0, exp},
                      term);
}

/* How many digits bytes stand for at the least; the first of them, which comes last, is not 0. */
static int64_t least_digits(size_t bytes) {
    return bytes ? (int64_t)(8 * (bytes - 1)) * 30102 / 100000 + 1 : 0;
}

/* What is out of range is known to be, nearly always, before there are digits. */
static bool put_magnitude(struct pg_encode *e, const struct pg_node *node,
                          struct cw_bytes magnitude, bool negative, int64_t exp,
                          ERL_NIF_TERM term) {
    if (magnitude.n > COEF_BYTES_MOST || least_digits(magnitude.n) + exp > DIGITS_BEFORE)
        return PG_REFUSE(e, node, out_of_range, term);
    size_t limbs = magnitude.n / 4 + 1, room = magnitude.n * 5 / 2 + 16;
    if (!pg_may_spend(e, limbs * limbs / 8))
        return false; /* as what it takes grows faster than what it writes */
    struct limbs v = {enif_alloc(limbs * sizeof *v.at), limbs};
    uint8_t *space = enif_alloc(room);
    if (v.at && space) {
        memset(v.at, 0, limbs * sizeof *v.at);
        for (size_t i = 0; i < magnitude.n; i++)
            v.at[i / 4] |= (uint32_t)magnitude.p[i] << (8 * (i % 4));
        uint8_t *end = space + room, *digits = write_large(end, &v);
        put_digits(e, node, (struct decimal){negative, digits, (size_t)(end - digits), 0, exp},
                   term);
    } else {
        e->err = CW_ENOMEM;
    }
    enif_free(space);
    enif_free(v.at);
    return e->err == CW_OK;
}

static bool put_large(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM coef, int sign,
                      int64_t exp, ERL_NIF_TERM term) {
    ErlNifBinary etf;
    if (!enif_term_to_binary(e->env, coef, &etf)) {
        e->err = CW_ENOMEM;
        return false;
    }
    size_t head = etf.size > 1 && etf.data[1] == ETF_SMALL ? ETF_SMALL_HEAD : ETF_LARGE_HEAD;
    bool known = etf.size > head && (etf.data[1] == ETF_SMALL || etf.data[1] == ETF_LARGE);
    bool negative = known && etf.data[head - 1];
    bool ok = known && !(sign && negative)
                  ? put_magnitude(e, node, cw_bytes(etf.data + head, etf.size - head),
                                  sign ? sign < 0 : negative, exp, term)
                  : PG_REFUSE(e, node, wrong, term);
    enif_release_binary(&etf);
    return ok;
}

/* `sign` is 0 for an integer that has its own. */
static bool put_integer(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM coef,
                        int sign, int64_t exp, ERL_NIF_TERM term) {
    ErlNifSInt64 v;
    if (enif_term_type(e->env, coef) != ERL_NIF_TERM_TYPE_INTEGER)
        return PG_REFUSE(e, node, wrong, term);
    if (!enif_get_int64(e->env, coef, &v))
        return put_large(e, node, coef, sign, exp, term);
    if (sign && v < 0)
        return PG_REFUSE(e, node, wrong, term);
    return put_small(e, node, v < 0 ? 0 - (uint64_t)v : (uint64_t)v, sign ? sign < 0 : v < 0, exp,
                     term);
}

static bool put_special(struct pg_encode *e, unsigned sign) {
    return pg_put32(e, 0) && pg_put16(e, (uint16_t)sign) && pg_put16(e, 0);
}

static bool put_struct(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    ERL_NIF_TERM f[3];
    ErlNifSInt64 exp;
    int sign;
    if (!pg_fields(e, node, PG_DECIMAL, term, f))
        return false;
    if (!enif_get_int(e->env, f[0], &sign) || (sign != 1 && sign != -1))
        return PG_REFUSE(e, node, wrong, term);
    if (f[1] == e->lib->a_NaN)
        return put_special(e, NAN_SIGN);
    if (f[1] == e->lib->a_inf)
        return put_special(e, sign < 0 ? MINUS_INF : INF);
    if (!enif_get_int64(e->env, f[2], &exp) || exp < -SCALE_MOST || exp > DIGITS_BEFORE)
        return enif_term_type(e->env, f[2]) == ERL_NIF_TERM_TYPE_INTEGER
                   ? PG_REFUSE(e, node, out_of_range, term)
                   : PG_REFUSE(e, node, wrong, term);
    return put_integer(e, node, f[1], sign, exp, term);
}

/* What the decimal digits of a float are is for Elixir to say. */
bool pg_put_numeric(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    switch (enif_term_type(e->env, term)) {
    case ERL_NIF_TERM_TYPE_INTEGER:
        return put_integer(e, node, term, 0, 0, term);
    case ERL_NIF_TERM_TYPE_FLOAT:
        return PG_REFUSE(e, node, convert, term);
    default:
        return put_struct(e, node, term);
    }
}
