#include "nif_reconcile.h"

#include "../core/cw_arena.h"
#include "../core/cw_clock.h"
#include "../core/cw_reconcile.h"

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

/* ---- ranges ---- */

/* {Lo, Hi}: binaries, or nil for no end. */
struct range {
    struct cw_bytes lo;
    struct cw_bytes hi;
    bool open;
};

static bool get_bounds(ErlNifEnv *env, ERL_NIF_TERM lo, ERL_NIF_TERM hi, struct range *r) {
    r->hi = cw_bytes(NULL, 0);
    r->open = hi == ATOM(env, nil);
    return nif_get_bytes(env, lo, &r->lo) && (r->open || nif_get_bytes(env, hi, &r->hi));
}

static const struct cw_bytes *end_of(const struct range *r) {
    return r->open ? NULL : &r->hi;
}

static ERL_NIF_TERM make_sum(ErlNifEnv *env, struct cw_range sum) {
    uint8_t be[16];
    cw_store64be(be, sum.hash.hi);
    cw_store64be(be + 8, sum.hash.lo);
    return enif_make_tuple2(env, nif_make_binary(env, cw_bytes(be, 16)),
                            enif_make_uint64(env, sum.count));
}

/* False for what is no list of ranges. */
static bool sum_all(ErlNifEnv *env, const struct cw_doc *doc, ERL_NIF_TERM list,
                    const struct cw_fragment *a, const struct cw_fragment *b, ERL_NIF_TERM *sums) {
    ERL_NIF_TERM head, reversed = enif_make_list(env, 0);
    const ERL_NIF_TERM *pair;
    struct range r;
    int n;
    while (enif_get_list_cell(env, list, &head, &list)) {
        if (!enif_get_tuple(env, head, &n, &pair) || n != 2 ||
            !get_bounds(env, pair[0], pair[1], &r))
            return false;
        reversed = enif_make_list_cell(env, make_sum(env, cw_doc_sum(doc, r.lo, end_of(&r), a, b)),
                                       reversed);
    }
    return enif_make_reverse_list(env, reversed, sums);
}

/* (Doc, Ranges, KeysA, KeysB): two fragments whose keys do not count. */
ERL_NIF_TERM nif_doc_sums(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    const struct cw_doc *doc;
    struct cw_bytes bytes_a, bytes_b;
    struct cw_fragment a, b;
    ERL_NIF_TERM sums;
    (void)argc;
    if (!nif_get_doc(env, argv[0], &doc) || !nif_get_bytes(env, argv[2], &bytes_a) ||
        !nif_get_bytes(env, argv[3], &bytes_b))
        return enif_make_badarg(env);
    enum cw_err err = cw_fragment_read(&a, &nif_mem, SIZE_MAX, bytes_a);
    if (err)
        return nif_error(env, err);
    err = cw_fragment_read(&b, &nif_mem, SIZE_MAX, bytes_b);
    if (!err) {
        if (!sum_all(env, doc, argv[1], &a, &b, &sums))
            err = CW_EMALFORMED;
        cw_fragment_free(&b);
    }
    cw_fragment_free(&a);
    return err ? nif_error(env, err) : sums;
}

/* (Doc, Lo, Hi, Parts): the keys at which parts of the range with about equally many cells begin,
 * but the first. */
ERL_NIF_TERM nif_doc_split(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    const struct cw_doc *doc;
    struct range r;
    unsigned parts;
    uint8_t key[CW_KEY_MAX];
    (void)argc;
    if (!nif_get_doc(env, argv[0], &doc) || !get_bounds(env, argv[1], argv[2], &r) ||
        !enif_get_uint(env, argv[3], &parts) || parts == 0)
        return enif_make_badarg(env);
    const struct cw_tree *tree = cw_doc_tree(doc);
    if (!tree)
        return nif_error(env, CW_ENOMEM);
    uint64_t before = cw_tree_range(tree, cw_bytes("", 0), &r.lo).count;
    uint64_t count = cw_tree_range(tree, r.lo, end_of(&r)).count;
    ERL_NIF_TERM list = enif_make_list(env, 0);
    for (uint64_t i = count < parts ? count : parts; i > 1; i--) {
        uint64_t at = (i - 1) * count / (count < parts ? count : parts);
        size_t n = cw_tree_nth(tree, before + at, key);
        list = enif_make_list_cell(env, nif_make_binary(env, cw_bytes(key, n)), list);
    }
    return list;
}

/* (Doc, Lo, Hi): the keys in the range, each with 8 bytes of its cell's hash. */
ERL_NIF_TERM nif_doc_keys(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    const struct cw_doc *doc;
    struct range r;
    struct cw_cursor cur;
    (void)argc;
    if (!nif_get_doc(env, argv[0], &doc) || !get_bounds(env, argv[1], argv[2], &r))
        return enif_make_badarg(env);
    const struct cw_tree *tree = cw_doc_tree(doc);
    if (!tree)
        return nif_error(env, CW_ENOMEM);
    ERL_NIF_TERM list = enif_make_list(env, 0), keys;
    bool more = cw_cursor_seek(&cur, tree, r.lo);
    for (; more && (r.open || cw_bytes_cmp(cw_cursor_key(&cur), r.hi) < 0);
         more = cw_cursor_next(&cur)) {
        struct cw_bytes key = cw_cursor_key(&cur);
        ERL_NIF_TERM hash = enif_make_uint64(env, cw_hash_cell(key, cur.payload).lo);
        list =
            enif_make_list_cell(env, enif_make_tuple2(env, nif_make_binary(env, key), hash), list);
    }
    enif_make_reverse_list(env, list, &keys);
    return keys;
}
