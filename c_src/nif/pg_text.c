/* Text, names and documents, bytes and bits. */
#include "pg_type.h"

#define NAME_MOST 63u

/* ---- UTF-8 ---- */

#define HIGH_BITS 0x8080808080808080u
#define LOW_BITS 0x0101010101010101u

/* How many of the first bytes are ASCII, but not zero; eight at a time. */
static size_t plain_bytes(const uint8_t *p, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t v;
        memcpy(&v, p + i, 8);
        if ((v | (v - LOW_BITS)) & HIGH_BITS)
            break;
    }
    while (i < n && p[i] - 1u < 0x7f)
        i++;
    return i;
}

static bool is_tail(uint8_t c) {
    return (c & 0xc0) == 0x80;
}

/* The length of the sequence that begins here, 0 when it is not one: too long for its character, a
 * surrogate, beyond the last. */
static size_t sequence(const uint8_t *p, size_t n) {
    if (p[0] < 0xc2)
        return 0;
    if (p[0] < 0xe0)
        return n > 1 && is_tail(p[1]) ? 2 : 0;
    if (p[0] < 0xf0)
        return n > 2 && is_tail(p[1]) && is_tail(p[2]) && (p[0] != 0xe0 || p[1] >= 0xa0) &&
                       (p[0] != 0xed || p[1] < 0xa0)
                   ? 3
                   : 0;
    return p[0] < 0xf5 && n > 3 && is_tail(p[1]) && is_tail(p[2]) && is_tail(p[3]) &&
                   (p[0] != 0xf0 || p[1] >= 0x90) && (p[0] != 0xf4 || p[1] < 0x90)
               ? 4
               : 0;
}

/* Where the first bytes are that the server would not take for text; `n` for nowhere. */
static size_t check_utf8(const uint8_t *p, size_t n) {
    size_t i = 0;
    while (i < n) {
        i += plain_bytes(p + i, n - i);
        if (i == n)
            break;
        size_t more = p[i] ? sequence(p + i, n - i) : 0;
        if (!more)
            break;
        i += more;
    }
    return i;
}

/* ---- text ---- */

enum cw_err pg_get_text(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                        unsigned depth, ERL_NIF_TERM *term) {
    (void)node, (void)depth;
    *term = pg_make_text(d, s);
    return CW_OK;
}

bool pg_put_utf8(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term, size_t most) {
    ErlNifBinary bin;
    if (!enif_inspect_binary(e->env, term, &bin))
        return PG_REFUSE(e, node, wrong, term);
    if (bin.size > most)
        return PG_REFUSE(e, node, too_large, term);
    if (!pg_reserve(e, bin.size))
        return false;
    size_t at = check_utf8(bin.data, bin.size);
    if (at < bin.size)
        return bin.data[at] ? PG_REFUSE(e, node, bad_utf8, term)
                            : PG_REFUSE(e, node, zero_byte, term);
    return pg_put_bytes(e, bin.data, bin.size);
}

bool pg_put_text(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    return pg_put_utf8(e, node, term, PG_VALUE_MOST);
}

enum cw_err pg_get_name(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                        unsigned depth, ERL_NIF_TERM *term) {
    return pg_get_text(d, node, s, depth, term);
}

bool pg_put_name(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    return pg_put_utf8(e, node, term, NAME_MOST);
}

/* The type "char", of one byte, which need not be of UTF-8. */
enum cw_err pg_get_char(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                        unsigned depth, ERL_NIF_TERM *term) {
    return s.n == 1 ? pg_get_text(d, node, s, depth, term) : CW_EMALFORMED;
}

bool pg_put_char(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    ErlNifBinary bin;
    if (!enif_inspect_binary(e->env, term, &bin) || bin.size != 1)
        return PG_REFUSE(e, node, wrong, term);
    return pg_put8(e, bin.data[0]);
}

/* What no function here knows: the text, when it is sent; whatever came, when it is received. */
enum cw_err pg_get_literal(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                           unsigned depth, ERL_NIF_TERM *term) {
    return pg_get_text(d, node, s, depth, term);
}

bool pg_put_literal(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    return pg_put_utf8(e, node, term, PG_VALUE_MOST);
}

/* Text behind a byte that says which version of a format it has, and has always said 1: ltree,
 * lquery, ltxtquery, jsonpath. */
enum cw_err pg_get_versioned(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                             unsigned depth, ERL_NIF_TERM *term) {
    if (s.n < 1 || s.p[0] != 1)
        return CW_EMALFORMED;
    return pg_get_text(d, node, cw_bytes(s.p + 1, s.n - 1), depth, term);
}

bool pg_put_versioned(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    return pg_put8(e, 1) && pg_put_utf8(e, node, term, PG_VALUE_MOST);
}

/* ---- json: the text, which Elixir decodes, and has encoded before ---- */

enum cw_err pg_get_json(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                        unsigned depth, ERL_NIF_TERM *term) {
    (void)node;
    *term = pg_make_text(d, s);
    if (depth)
        *term = enif_make_tuple2(d->env, d->lib->a_causeway_json, *term);
    return CW_OK;
}

bool pg_put_json(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    return pg_put_utf8(e, node, term, PG_VALUE_MOST);
}

enum cw_err pg_get_jsonb(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                         unsigned depth, ERL_NIF_TERM *term) {
    if (s.n < 1 || s.p[0] != 1)
        return CW_EMALFORMED;
    return pg_get_json(d, node, cw_bytes(s.p + 1, s.n - 1), depth, term);
}

bool pg_put_jsonb(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    return pg_put_versioned(e, node, term);
}

/* ---- bytes and bits ---- */

enum cw_err pg_get_bytea(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                         unsigned depth, ERL_NIF_TERM *term) {
    return pg_get_text(d, node, s, depth, term);
}

bool pg_put_bytea(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    ErlNifBinary bin;
    if (!enif_inspect_binary(e->env, term, &bin))
        return PG_REFUSE(e, node, wrong, term);
    return pg_put_bytes(e, bin.data, bin.size);
}

/* The NIF API knows no bits beyond the last whole byte, the external term format does:
 *
 *     | 131 | 77 | bytes, 32 bits | bits used of the last byte, 1 to 8 | bytes ... |            */
#define BITS_WORK 8u /* beside what any value takes */
enum { ETF_VERSION = 131, ETF_BITS = 77, ETF_BITS_HEAD = 7 };

static ERL_NIF_TERM make_bits(struct pg_decode *d, struct cw_bytes s, uint32_t bits) {
    ERL_NIF_TERM term = 0;
    d->work += BITS_WORK;
    uint8_t *etf = enif_alloc(ETF_BITS_HEAD + s.n);
    if (!etf)
        return 0;
    etf[0] = ETF_VERSION;
    etf[1] = ETF_BITS;
    for (int i = 0; i < 4; i++)
        etf[2 + i] = (uint8_t)(s.n >> (24 - 8 * i));
    etf[6] = (uint8_t)(bits % 8);
    memcpy(etf + ETF_BITS_HEAD, s.p, s.n);
    if (!enif_binary_to_term(d->env, etf, ETF_BITS_HEAD + s.n, &term, 0))
        term = 0;
    enif_free(etf);
    return term;
}

enum cw_err pg_get_bit(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                       unsigned depth, ERL_NIF_TERM *term) {
    uint32_t bits;
    (void)node, (void)depth;
    if (!pg_take32(&s, &bits) || s.n != (size_t)bits / 8 + (bits % 8 != 0))
        return CW_EMALFORMED;
    *term = bits % 8 ? make_bits(d, s, bits) : pg_make_text(d, s);
    return *term ? CW_OK : CW_ENOMEM;
}

static bool put_odd_bits(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    ErlNifBinary etf;
    /* How long it is shows only once it is copied. */
    if (!pg_may_spend(e, PG_ANY_TIME))
        return false;
    if (!enif_term_to_binary(e->env, term, &etf))
        return PG_REFUSE(e, node, wrong, term);
    size_t n = etf.size - ETF_BITS_HEAD;
    bool ok = etf.size > ETF_BITS_HEAD && etf.data[1] == ETF_BITS && n <= UINT32_MAX / 8
                  ? pg_put32(e, (uint32_t)(8 * (n - 1) + etf.data[6])) &&
                        pg_put_bytes(e, etf.data + ETF_BITS_HEAD, n)
                  : PG_REFUSE(e, node, wrong, term);
    enif_release_binary(&etf);
    return ok;
}

bool pg_put_bit(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    ErlNifBinary bin;
    if (enif_term_type(e->env, term) != ERL_NIF_TERM_TYPE_BITSTRING)
        return PG_REFUSE(e, node, wrong, term);
    if (!enif_inspect_binary(e->env, term, &bin))
        return put_odd_bits(e, node, term);
    if (bin.size > INT32_MAX / 8)
        return PG_REFUSE(e, node, too_large, term);
    return pg_put32(e, (uint32_t)(8 * bin.size)) && pg_put_bytes(e, bin.data, bin.size);
}
