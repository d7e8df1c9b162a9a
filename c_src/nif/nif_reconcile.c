#include "nif_reconcile.h"

#include <string.h>

#include "../core/cw_arena.h"
#include "../core/cw_clock.h"
#include "../core/cw_reconcile.h"
#include "../core/cw_sort.h"

/* ---- news ---- */

/* A list of binaries, in the arena; CW_EMALFORMED for any other term, or a key too long. */
static enum cw_err get_keys(ErlNifEnv *env, ERL_NIF_TERM list, struct cw_arena *arena,
                            struct cw_bytes **keys, unsigned *n) {
    ERL_NIF_TERM head;
    if (!enif_get_list_length(env, list, n))
        return CW_EMALFORMED;
    *keys = cw_arena_alloc(arena, (*n + 1) * sizeof **keys);
    if (!*keys)
        return CW_ENOMEM;
    for (unsigned i = 0; i < *n; i++) {
        enif_get_list_cell(env, list, &head, &list);
        if (!nif_get_bytes(env, head, &(*keys)[i]) || (*keys)[i].n > CW_KEY_MAX)
            return CW_EMALFORMED;
    }
    return CW_OK;
}

/* (Doc, Clock, Keys, Bodies): Keys sorted. */
ERL_NIF_TERM nif_doc_news(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    const struct cw_doc *doc;
    struct cw_bytes clock, *keys;
    struct cw_vv *since = NULL;
    struct cw_arena arena;
    struct cw_buf out;
    unsigned n;
    (void)argc;
    if (!nif_get_doc(env, argv[0], &doc) || !nif_get_bytes(env, argv[1], &clock))
        return enif_make_badarg(env);
    cw_arena_init(&arena, &nif_mem, NULL, 0);
    cw_buf_init(&out, &nif_mem, NULL, 0);
    enum cw_err err = get_keys(env, argv[2], &arena, &keys, &n);
    if (!err)
        err = cw_clock_read(&nif_mem, clock, &since);
    if (!err)
        err = cw_doc_news(doc, since, keys, n, argv[3] == ATOM(env, true), &out);
    ERL_NIF_TERM term = err ? nif_error(env, err) : nif_make_binary(env, cw_buf_slice(&out, 0));
    cw_vv_release(since);
    cw_buf_free(&out);
    cw_arena_free(&arena);
    return term;
}

/* ---- sketches: binaries of symbols, each sum u64 | check u32 | count i32 ---- */

#define SYMBOL 16
#define MOST (1u << 20)   /* symbols a call */
#define LAST (1ull << 40) /* where they may begin */

/* Zeroed; to be freed with cw_free. */
static void *array(size_t n, size_t size) {
    void *p = cw_alloc(&nif_mem, n ? n * size : 1);
    return p ? memset(p, 0, n * size) : NULL;
}

/* A binary of symbols in memory to be freed; NULL with `err` set. */
static struct cw_symbol *get_symbols(struct cw_bytes bytes, size_t *n, enum cw_err *err) {
    *n = bytes.n / SYMBOL;
    struct cw_symbol *symbols = bytes.n % SYMBOL ? NULL : array(*n, sizeof *symbols);
    *err = symbols ? CW_OK : bytes.n % SYMBOL ? CW_EMALFORMED : CW_ENOMEM;
    for (size_t i = 0; symbols && i < *n; i++) {
        const uint8_t *p = bytes.p + i * SYMBOL;
        symbols[i].sum = cw_load64be(p);
        uint64_t rest = cw_load64be(p + 8);
        symbols[i].check = (uint32_t)(rest >> 32);
        symbols[i].count = (int32_t)(uint32_t)rest;
    }
    return symbols;
}

static ERL_NIF_TERM make_symbols(ErlNifEnv *env, const struct cw_symbol *symbols, size_t n) {
    ERL_NIF_TERM term;
    uint8_t *p = enif_make_new_binary(env, n * SYMBOL, &term);
    for (size_t i = 0; p && i < n; i++, p += SYMBOL) {
        cw_store64be(p, symbols[i].sum);
        cw_store64be(p + 8, (uint64_t)symbols[i].check << 32 | (uint32_t)symbols[i].count);
    }
    return p ? term : nif_error(env, CW_ENOMEM);
}

/* (Doc, KeysA, KeysB, From, N): symbols From to From + N - 1 of the cells that are at no key of the
 * two fragments. */
ERL_NIF_TERM nif_doc_symbols(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    const struct cw_doc *doc;
    struct cw_bytes bytes_a, bytes_b;
    struct cw_fragment a, b;
    ErlNifUInt64 from, n;
    (void)argc;
    if (!nif_get_doc(env, argv[0], &doc) || !nif_get_bytes(env, argv[1], &bytes_a) ||
        !nif_get_bytes(env, argv[2], &bytes_b) || !enif_get_uint64(env, argv[3], &from) ||
        !enif_get_uint64(env, argv[4], &n) || n > MOST || from > LAST)
        return enif_make_badarg(env);
    struct cw_symbol *symbols = array(n, sizeof *symbols);
    if (!symbols)
        return nif_error(env, CW_ENOMEM);
    enum cw_err err = cw_fragment_read(&a, &nif_mem, SIZE_MAX, bytes_a);
    if (!err) {
        err = cw_fragment_read(&b, &nif_mem, SIZE_MAX, bytes_b);
        if (!err) {
            err = cw_doc_symbols(doc, &a, &b, from, n, symbols);
            cw_fragment_free(&b);
        }
        cw_fragment_free(&a);
    }
    ERL_NIF_TERM term = err ? nif_error(env, err) : make_symbols(env, symbols, n);
    cw_free(&nif_mem, symbols);
    return term;
}

static ERL_NIF_TERM peel(ErlNifEnv *env, struct cw_symbol *theirs, size_t n) {
    ERL_NIF_TERM term;
    size_t plus;
    uint64_t estimate = cw_sketch_estimate(theirs, n);
    uint64_t *items = array(n, sizeof *items);
    if (!items)
        return nif_error(env, CW_ENOMEM);
    if (cw_sketch_peel(theirs, n, items, &plus)) {
        uint8_t *p = enif_make_new_binary(env, plus * 8, &term);
        for (size_t i = 0; p && i < plus; i++)
            cw_store64be(p + i * 8, items[i]);
        if (!p)
            term = nif_error(env, CW_ENOMEM);
    } else {
        term = enif_make_uint64(env, estimate);
    }
    cw_free(&nif_mem, items);
    return term;
}

/* (Theirs, Ours): the first symbols of both. The items that only they have, 8 bytes each; or an
 * estimate of how many there are on either side, when so few symbols do not tell which. */
ERL_NIF_TERM nif_symbols_peel(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    struct cw_bytes bytes_t, bytes_o;
    size_t n, m;
    enum cw_err err;
    (void)argc;
    if (!nif_get_bytes(env, argv[0], &bytes_t) || !nif_get_bytes(env, argv[1], &bytes_o))
        return enif_make_badarg(env);
    struct cw_symbol *theirs = get_symbols(bytes_t, &n, &err), *ours = NULL;
    if (theirs)
        ours = get_symbols(bytes_o, &m, &err);
    if (ours && n != m)
        err = CW_EMALFORMED;
    ERL_NIF_TERM term;
    if (err) {
        term = nif_error(env, err);
    } else {
        cw_sketch_subtract(theirs, ours, n);
        term = peel(env, theirs, n);
    }
    cw_free(&nif_mem, theirs);
    cw_free(&nif_mem, ours);
    return term;
}

/* ---- keys by hashes ---- */

static int compare(const void *ctx, const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    (void)ctx;
    return (x > y) - (x < y);
}

struct found {
    ErlNifEnv *env;
    ERL_NIF_TERM reversed;
};

static void add_found(void *ctx, struct cw_bytes key) {
    struct found *f = ctx;
    f->reversed = enif_make_list_cell(f->env, nif_make_binary(f->env, key), f->reversed);
}

/* (Doc, Hashes): the keys, sorted, of the cells with these hashes, 8 bytes each. */
ERL_NIF_TERM nif_doc_find(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    const struct cw_doc *doc;
    struct cw_bytes bytes;
    struct found found = {env, enif_make_list(env, 0)};
    ERL_NIF_TERM keys;
    (void)argc;
    if (!nif_get_doc(env, argv[0], &doc) || !nif_get_bytes(env, argv[1], &bytes))
        return enif_make_badarg(env);
    size_t n = bytes.n / 8;
    uint64_t *hashes = array(n, sizeof *hashes);
    if (!hashes)
        return nif_error(env, CW_ENOMEM);
    for (size_t i = 0; i < n; i++)
        hashes[i] = cw_load64be(bytes.p + i * 8);
    cw_sort(hashes, n, sizeof *hashes, compare, NULL);
    enum cw_err err = cw_doc_keys_of(doc, hashes, n, add_found, &found);
    cw_free(&nif_mem, hashes);
    if (err)
        return nif_error(env, err);
    enif_make_reverse_list(env, found.reversed, &keys);
    return keys;
}
