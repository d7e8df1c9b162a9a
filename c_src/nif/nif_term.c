#include "nif_term.h"

#include "../core/cw_wide.h"

/* Tags of the external term format, for what the NIF API cannot read or make by itself: integers
 * over 64 bits, and on OTP 25 atoms outside Latin-1. */
enum {
    ETF_VERSION = 131,
    ETF_SMALL_BIG = 110,
    ETF_LARGE_BIG = 111,
    ETF_ATOM_UTF8 = 118,
    ETF_SMALL_ATOM_UTF8 = 119,
};

/* ---- to bytes ---- */

#define PAIR_BYTES 8u /* what sorting a pair takes, in bytes of other terms */

static enum cw_err put_nested(struct nif_put *put, ERL_NIF_TERM term, int depth);

static enum cw_err unencodable(struct nif_put *put, ERL_NIF_TERM term) {
    put->bad = term;
    return CW_EMALFORMED;
}

/* Latin-1 to UTF-8; `dst` has room for twice as much. */
static size_t widen(uint8_t *dst, const char *src, size_t n) {
    size_t m = 0;
    for (size_t i = 0; i < n; i++) {
        uint8_t c = (uint8_t)src[i];
        if (c >= 0x80)
            dst[m++] = (uint8_t)(0xc0 | c >> 6);
        dst[m++] = c < 0x80 ? c : (uint8_t)(0x80 | (c & 0x3f));
    }
    return m;
}

static enum cw_err put_wide_atom(struct nif_put *put, ERL_NIF_TERM term) {
    ErlNifBinary bin;
    if (!enif_term_to_binary(put->env, term, &bin))
        return CW_ENOMEM;
    size_t head = bin.size > 1 && bin.data[1] == ETF_SMALL_ATOM_UTF8 ? 3 : 4;
    enum cw_err err = CW_OK;
    if (bin.size >= head)
        cw_put_string(put->buf, put->enc, CW_T_ATOM, cw_bytes(bin.data + head, bin.size - head));
    else
        err = unencodable(put, term);
    enif_release_binary(&bin);
    return err;
}

static enum cw_err put_atom(struct nif_put *put, ERL_NIF_TERM term) {
    char name[256];
    uint8_t utf8[512];
    int n = enif_get_atom(put->env, term, name, sizeof name, ERL_NIF_LATIN1);
    if (term == ATOM(put->env, nil))
        cw_put_simple(put->buf, put->enc, CW_T_NIL);
    else if (term == ATOM(put->env, true))
        cw_put_simple(put->buf, put->enc, CW_T_TRUE);
    else if (term == ATOM(put->env, false))
        cw_put_simple(put->buf, put->enc, CW_T_FALSE);
    else if (n > 0)
        cw_put_string(put->buf, put->enc, CW_T_ATOM,
                      cw_bytes(utf8, widen(utf8, name, (size_t)n - 1)));
    else
        return put_wide_atom(put, term);
    return CW_OK;
}

/* Little-endian magnitude with its sign in front, as in SMALL_BIG and LARGE_BIG. */
static enum cw_err put_etf_big(struct nif_put *put, ERL_NIF_TERM term, struct cw_bytes etf) {
    size_t head = etf.n > 1 && etf.p[1] == ETF_SMALL_BIG ? 4 : 7;
    if (etf.n <= head)
        return unencodable(put, term);
    size_t n = etf.n - head;
    if (n > CW_BIG_MAX)
        return CW_ELIMIT;
    uint8_t *be = enif_alloc(n);
    if (!be)
        return CW_ENOMEM;
    for (size_t i = 0; i < n; i++)
        be[i] = etf.p[etf.n - 1 - i];
    cw_put_big(put->buf, put->enc, etf.p[head - 1] != 0, cw_bytes(be, n));
    enif_free(be);
    return CW_OK;
}

static enum cw_err put_integer(struct nif_put *put, ERL_NIF_TERM term) {
    ErlNifSInt64 v;
    ErlNifBinary bin;
    if (enif_get_int64(put->env, term, &v)) {
        cw_put_int(put->buf, put->enc, v);
        return CW_OK;
    }
    const struct nif_lib *lib =
        nif_lib(put->env); /* to compare costs nothing, to convert it does */
    if (enif_compare(term, lib->too_large) >= 0 || enif_compare(term, lib->too_small) <= 0)
        return CW_ELIMIT;
    if (!enif_term_to_binary(put->env, term, &bin))
        return CW_ENOMEM;
    enum cw_err err = put_etf_big(put, term, cw_bytes(bin.data, bin.size));
    enif_release_binary(&bin);
    return err;
}

static enum cw_err put_binary(struct nif_put *put, ERL_NIF_TERM term) {
    ErlNifBinary bin;
    if (!enif_inspect_binary(put->env, term, &bin))
        return unencodable(put, term); /* a bitstring */
    if (bin.size > put->limit)
        return CW_EBUDGET; /* before it is copied */
    cw_put_string(put->buf, put->enc, CW_T_BINARY, cw_bytes(bin.data, bin.size));
    return CW_OK;
}

/* No further than the limit, with the lists and maps around it and before. */
static enum cw_err list_length(struct nif_put *put, ERL_NIF_TERM term, size_t *n) {
    ERL_NIF_TERM head, rest = term;
    for (*n = 0; enif_get_list_cell(put->env, rest, &head, &rest); ++*n)
        if (put->counted++ == put->limit)
            return CW_EBUDGET;
    return enif_is_empty_list(put->env, rest) ? CW_OK : unencodable(put, term);
}

static enum cw_err put_list(struct nif_put *put, ERL_NIF_TERM term, int depth) {
    size_t n;
    ERL_NIF_TERM head;
    enum cw_err err = list_length(put, term, &n);
    if (err)
        return err;
    cw_put_open(put->buf, put->enc, CW_T_LIST, n);
    while (!err && enif_get_list_cell(put->env, term, &head, &term))
        err = put_nested(put, head, depth + 1);
    cw_put_close(put->buf, put->enc);
    return err;
}

static enum cw_err put_tuple(struct nif_put *put, ERL_NIF_TERM term, int depth) {
    int n;
    const ERL_NIF_TERM *at;
    enum cw_err err = CW_OK;
    enif_get_tuple(put->env, term, &n, &at);
    cw_put_open(put->buf, put->enc, CW_T_TUPLE, (uint64_t)n);
    for (int i = 0; i < n && !err; i++)
        err = put_nested(put, at[i], depth + 1);
    cw_put_close(put->buf, put->enc);
    return err;
}

static enum cw_err put_pairs(struct nif_put *put, ErlNifMapIterator *it, struct cw_pair *pairs,
                             int depth) {
    ERL_NIF_TERM key, value;
    enum cw_err err = CW_OK;
    for (size_t i = 0; !err && enif_map_iterator_get_pair(put->env, it, &key, &value); i++) {
        size_t at = put->buf->n;
        err = put_nested(put, key, depth + 1);
        pairs[i] = (struct cw_pair){at, put->buf->n - at, 0};
        if (!err)
            err = put_nested(put, value, depth + 1);
        pairs[i].len = put->buf->n - at;
        enif_map_iterator_next(put->env, it);
    }
    return err;
}

static enum cw_err put_map(struct nif_put *put, ERL_NIF_TERM term, int depth) {
    size_t n;
    ErlNifMapIterator it;
    enif_get_map_size(put->env, term, &n);
    if (n > put->limit - put->counted)
        return CW_EBUDGET;
    put->counted += n;
    put->sorted += n;
    struct cw_pair *pairs = enif_alloc((n + 1) * sizeof *pairs);
    if (!pairs)
        return CW_ENOMEM;
    if (!enif_map_iterator_create(put->env, term, &it, ERL_NIF_MAP_ITERATOR_FIRST)) {
        enif_free(pairs);
        return CW_ENOMEM;
    }
    cw_put_open(put->buf, put->enc, CW_T_MAP, n);
    size_t from = put->buf->n;
    enum cw_err err = put_pairs(put, &it, pairs, depth);
    if (!err)
        cw_sort_pairs(put->buf, from, pairs, n);
    cw_put_close(put->buf, put->enc);
    enif_map_iterator_destroy(put->env, &it);
    enif_free(pairs);
    return err;
}

static enum cw_err put_any(struct nif_put *put, ERL_NIF_TERM term, int depth) {
    double f;
    switch (enif_term_type(put->env, term)) {
    case ERL_NIF_TERM_TYPE_ATOM:
        return put_atom(put, term);
    case ERL_NIF_TERM_TYPE_BITSTRING:
        return put_binary(put, term);
    case ERL_NIF_TERM_TYPE_FLOAT:
        enif_get_double(put->env, term, &f);
        cw_put_float(put->buf, put->enc, f);
        return CW_OK;
    case ERL_NIF_TERM_TYPE_INTEGER:
        return put_integer(put, term);
    case ERL_NIF_TERM_TYPE_LIST:
        return put_list(put, term, depth);
    case ERL_NIF_TERM_TYPE_MAP:
        return put_map(put, term, depth);
    case ERL_NIF_TERM_TYPE_TUPLE:
        return put_tuple(put, term, depth);
    default:
        return unencodable(put, term);
    }
}

static enum cw_err put_nested(struct nif_put *put, ERL_NIF_TERM term, int depth) {
    if (depth > CW_TERM_DEPTH)
        return CW_ELIMIT;
    enum cw_err err = put_any(put, term, depth);
    if (!put->began)
        put->began = nif_begin(put->buf->n);
    if (err)
        return err;
    size_t spent = put->buf->n + (put->firm ? 0 : put->sorted * PAIR_BYTES);
    return put->buf->err ? put->buf->err : spent > put->limit ? CW_EBUDGET : CW_OK;
}

enum cw_err nif_put_term(struct nif_put *put, ERL_NIF_TERM term) {
    return put_nested(put, term, 0);
}

enum cw_err nif_put_name(ErlNifEnv *env, struct cw_buf *buf, ERL_NIF_TERM term) {
    struct nif_put put = {env, buf, CW_KEY, CW_NAME_MAX, term, 0, 0, true, 0};
    if (!enif_is_atom(env, term) && !enif_is_binary(env, term))
        return CW_EMALFORMED;
    if (term == ATOM(env, nil) || term == ATOM(env, true) || term == ATOM(env, false))
        return CW_EMALFORMED;
    enum cw_err err = nif_put_term(&put, term);
    return err == CW_EBUDGET ? CW_ELIMIT : err;
}

/* ---- to terms ---- */

struct make {
    ErlNifEnv *env;
    struct nif_read *read;
    struct cw_reader *r;
    enum cw_encoding enc;
};

static bool make_nested(struct make *mk, ERL_NIF_TERM *term);
static bool make_token(struct make *mk, const struct cw_token *t, ERL_NIF_TERM *term);

ERL_NIF_TERM nif_make_binary(ErlNifEnv *env, struct cw_bytes s) {
    ERL_NIF_TERM term;
    unsigned char *p = enif_make_new_binary(env, s.n, &term);
    if (s.n)
        memcpy(p, s.p, s.n);
    return term;
}

static bool make_binary(struct make *mk, const struct cw_token *t, ERL_NIF_TERM *term) {
    if (!t->escaped) {
        *term = nif_make_binary(mk->env, t->s);
        return true;
    }
    uint8_t *p = enif_alloc(t->s.n);
    if (!p)
        return false;
    *term = nif_make_binary(mk->env, cw_bytes(p, cw_unescape(p, t->s)));
    enif_free(p);
    return true;
}

static bool from_etf(ErlNifEnv *env, const uint8_t *p, size_t n, bool safe, ERL_NIF_TERM *term) {
    return enif_binary_to_term(env, p, n, term, safe ? ERL_NIF_BIN2TERM_SAFE : 0) == n;
}

static bool is_ascii(struct cw_bytes s) {
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] >= 0x80)
            return false;
    return true;
}

static bool make_atom(struct make *mk, const struct cw_token *t, ERL_NIF_TERM *term) {
    uint8_t etf[4 + 2 * 4 * CW_ATOM_MAX] = {ETF_VERSION, ETF_ATOM_UTF8};
    uint8_t *name = etf + 4;
    size_t n = t->s.n;
    if (n > sizeof etf - 4)
        return false;
    if (t->escaped)
        n = cw_unescape(name, t->s);
    else if (n)
        memcpy(name, t->s.p, n);
    if (is_ascii(cw_bytes(name, n)) &&
        enif_make_existing_atom_len(mk->env, (char *)name, n, term, ERL_NIF_LATIN1))
        return true;
    etf[2] = (uint8_t)(n >> 8);
    etf[3] = (uint8_t)n;
    if (from_etf(mk->env, etf, 4 + n, !mk->read->new_atoms, term))
        return true;
    mk->read->unknown = nif_make_binary(mk->env, cw_bytes(name, n));
    return false;
}

/* `be` is a magnitude, most significant byte first, each byte to be xored with `flip`. */
static bool make_big(ErlNifEnv *env, bool negative, struct cw_bytes be, uint8_t flip,
                     ERL_NIF_TERM *term) {
    size_t head = be.n < 256 ? 4 : 7;
    uint8_t *etf = enif_alloc(head + be.n);
    if (!etf)
        return false;
    etf[0] = ETF_VERSION;
    etf[1] = be.n < 256 ? ETF_SMALL_BIG : ETF_LARGE_BIG;
    for (size_t i = 2; i < head - 1; i++)
        etf[i] = (uint8_t)(be.n >> (8 * (head - 2 - i)));
    etf[head - 1] = negative;
    for (size_t i = 0; i < be.n; i++)
        etf[head + i] = be.p[be.n - 1 - i] ^ flip;
    bool ok = from_etf(env, etf, head + be.n, true, term);
    enif_free(etf);
    return ok;
}

ERL_NIF_TERM nif_make_too_large(ErlNifEnv *env, bool negative) {
    ERL_NIF_TERM term;
    uint8_t *be = enif_alloc(CW_BIG_MAX + 1);
    if (!be)
        return 0;
    memset(be, 0, CW_BIG_MAX + 1);
    be[0] = 1;
    bool ok = make_big(env, negative, cw_bytes(be, CW_BIG_MAX + 1), 0, &term);
    enif_free(be);
    return ok ? term : 0;
}

ERL_NIF_TERM nif_make_wide(ErlNifEnv *env, const struct cw_wide *v) {
    bool negative = cw_wide_negative(*v);
    struct cw_wide m = negative ? cw_wide_negate(*v) : *v;
    if (m.hi == 0 && m.lo <= INT64_MAX)
        return enif_make_int64(env, negative ? -(int64_t)m.lo : (int64_t)m.lo);
    uint8_t be[16];
    ERL_NIF_TERM term;
    cw_store64be(be, m.hi);
    cw_store64be(be + 8, m.lo);
    size_t skip = 0;
    while (be[skip] == 0)
        skip++;
    if (!make_big(env, negative, cw_bytes(be + skip, 16 - skip), 0, &term))
        return enif_make_badarg(env);
    return term;
}

/* The elements of a compound term, on the heap. */
struct terms {
    ERL_NIF_TERM *at;
    size_t n;
    size_t cap;
};

static bool terms_add(struct terms *ts, ERL_NIF_TERM term) {
    if (ts->n == ts->cap) {
        size_t cap = ts->cap ? ts->cap * 2 : 16;
        ERL_NIF_TERM *at = enif_realloc(ts->at, cap * sizeof *at);
        if (!at)
            return false;
        ts->at = at;
        ts->cap = cap;
    }
    ts->at[ts->n++] = term;
    return true;
}

/* Until the closing token, or for as many as were announced. */
static bool make_elements(struct make *mk, uint64_t n, struct terms *ts) {
    for (uint64_t i = 0; mk->enc == CW_KEY || i < n; i++) {
        struct cw_token t = cw_read_token(mk->r, mk->enc);
        ERL_NIF_TERM term;
        if (mk->r->err)
            return false;
        if (t.type == CW_T_END)
            return true;
        if (!make_token(mk, &t, &term) || !terms_add(ts, term))
            return false;
    }
    return true;
}

bool nif_make_map(ErlNifEnv *env, const ERL_NIF_TERM *at, size_t n, ERL_NIF_TERM *term) {
    ERL_NIF_TERM *keys = enif_alloc((2 * n + 1) * sizeof *keys), *values = keys + n;
    if (!keys)
        return false;
    for (size_t i = 0; i < n; i++) {
        keys[i] = at[2 * i];
        values[i] = at[2 * i + 1];
    }
    bool ok = enif_make_map_from_arrays(env, keys, values, n, term);
    enif_free(keys);
    if (ok)
        return true;
    /* Before OTP 27, 0.0 and -0.0 are one key: the later one, 0.0, stays. */
    *term = enif_make_new_map(env);
    for (size_t i = 0; i < n; i++)
        if (!enif_make_map_put(env, *term, at[2 * i], at[2 * i + 1], term))
            return false;
    return true;
}

static bool make_compound(struct make *mk, const struct cw_token *t, ERL_NIF_TERM *term) {
    struct terms ts = {NULL, 0, 0};
    bool ok = make_elements(mk, t->type == CW_T_MAP ? 2 * t->n : t->n, &ts);
    if (ok && t->type == CW_T_TUPLE)
        *term = enif_make_tuple_from_array(mk->env, ts.at, (unsigned)ts.n);
    else if (ok && t->type == CW_T_LIST)
        *term = enif_make_list_from_array(mk->env, ts.at, (unsigned)ts.n);
    else if (ok)
        ok = nif_make_map(mk->env, ts.at, ts.n / 2, term);
    enif_free(ts.at);
    return ok;
}

static bool make_token(struct make *mk, const struct cw_token *t, ERL_NIF_TERM *term) {
    switch (t->type) {
    case CW_T_NIL:
        *term = ATOM(mk->env, nil);
        return true;
    case CW_T_FALSE:
        *term = ATOM(mk->env, false);
        return true;
    case CW_T_TRUE:
        *term = ATOM(mk->env, true);
        return true;
    case CW_T_INT:
        *term = enif_make_int64(mk->env, t->i);
        return true;
    case CW_T_BIG:
        return make_big(mk->env, t->negative, t->s, t->inverted ? 0xff : 0, term);
    case CW_T_FLOAT:
        *term = enif_make_double(mk->env, t->f);
        return true;
    case CW_T_ATOM:
        return make_atom(mk, t, term);
    case CW_T_BINARY:
        return make_binary(mk, t, term);
    case CW_T_END:
        return false;
    default:
        return make_compound(mk, t, term);
    }
}

static bool make_nested(struct make *mk, ERL_NIF_TERM *term) {
    struct cw_token t = cw_read_token(mk->r, mk->enc);
    return !mk->r->err && make_token(mk, &t, term);
}

struct nif_read nif_read(ErlNifEnv *env, ERL_NIF_TERM new_atoms) {
    return (struct nif_read){env, new_atoms == ATOM(env, true), nif_bytes(), ATOM(env, nil), 0};
}

static enum cw_err make_first(struct nif_read *read, struct cw_reader *r, enum cw_encoding enc,
                              ERL_NIF_TERM *term) {
    struct make mk = {read->env, read, r, enc};
    if (make_nested(&mk, term))
        return CW_OK;
    return read->unknown == ATOM(read->env, nil) ? CW_ENOMEM : CW_EMALFORMED;
}

static bool spend(struct nif_read *read, size_t n) {
    if (read->limit == SIZE_MAX)
        return true;
    if (read->limit < n)
        return false;
    read->limit -= n;
    return true;
}

enum cw_err nif_make_term(struct nif_read *read, struct cw_bytes s, enum cw_encoding enc,
                          ERL_NIF_TERM *term) {
    struct cw_reader r = cw_reader(s);
    if (!read->began)
        read->began = nif_begin(s.n);
    return spend(read, enc == CW_VALUE ? 4 * s.n : s.n) ? make_first(read, &r, enc, term)
                                                        : CW_EBUDGET;
}

enum cw_err nif_make_first(struct nif_read *read, struct cw_reader *r, ERL_NIF_TERM *term) {
    const uint8_t *from = r->p;
    enum cw_err err = make_first(read, r, CW_KEY, term);
    return err ? err : spend(read, (size_t)(r->p - from)) ? CW_OK : CW_EBUDGET;
}

ERL_NIF_TERM nif_make_name(ErlNifEnv *env, const struct cw_name *name) {
    struct nif_read read = {env, false, SIZE_MAX, ATOM(env, nil), 0};
    ERL_NIF_TERM term;
    return nif_make_term(&read, cw_name_bytes(name), CW_KEY, &term) ? read.unknown : term;
}
