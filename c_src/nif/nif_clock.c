#include "nif_clock.h"

#include "../core/cw_clock.h"
#include "../core/cw_hlc.h"
#include "nif_term.h"

static bool get_bytes(ErlNifEnv *env, ERL_NIF_TERM term, struct cw_bytes *s) {
    ErlNifBinary bin;
    if (!enif_inspect_binary(env, term, &bin))
        return false;
    *s = cw_bytes(bin.data, bin.size);
    return true;
}

ERL_NIF_TERM nif_clock_merge(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    struct cw_bytes a, b;
    struct cw_buf out;
    uint8_t space[4096];
    (void)argc;
    if (!get_bytes(env, argv[0], &a) || !get_bytes(env, argv[1], &b))
        return enif_make_badarg(env);
    cw_buf_init(&out, &nif_mem, space, sizeof space);
    enum cw_err err = cw_clock_merge(&nif_mem, a, b, &out);
    ERL_NIF_TERM term = err ? nif_error(env, err) : nif_make_binary(env, cw_buf_slice(&out, 0));
    cw_buf_free(&out);
    return term;
}

ERL_NIF_TERM nif_clock_compare(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    const struct nif_atoms *a = &nif_lib(env)->atoms;
    const ERL_NIF_TERM names[] = {[CW_EQUAL] = a->a_equal,
                                  [CW_BEFORE] = a->a_before,
                                  [CW_AFTER] = a->a_after,
                                  [CW_CONCURRENT] = a->a_concurrent};
    struct cw_bytes x, y;
    enum cw_order order;
    (void)argc;
    if (!get_bytes(env, argv[0], &x) || !get_bytes(env, argv[1], &y))
        return enif_make_badarg(env);
    enum cw_err err = cw_clock_compare(&nif_mem, x, y, &order);
    return err ? nif_error(env, err) : names[order];
}

/* [{Replica, Counter}], by replica id. */
ERL_NIF_TERM nif_clock_to_list(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    struct cw_bytes s;
    struct cw_vv *vv;
    (void)argc;
    if (!get_bytes(env, argv[0], &s))
        return enif_make_badarg(env);
    enum cw_err err = cw_clock_read(&nif_mem, s, &vv);
    if (err)
        return nif_error(env, err);
    ERL_NIF_TERM list = enif_make_list(env, 0), name, unknown;
    for (uint32_t i = vv->n; i-- > 0;) {
        if (!nif_make_term(env, cw_name_bytes(vv->at[i].name), CW_KEY, false, &name, &unknown)) {
            cw_vv_release(vv);
            return nif_error_atom(env, ATOM(env, unknown_atom), unknown);
        }
        ERL_NIF_TERM pair = enif_make_tuple2(env, name, enif_make_uint64(env, vv->at[i].counter));
        list = enif_make_list_cell(env, pair, list);
    }
    cw_vv_release(vv);
    return list;
}

static enum cw_err raise_one(ErlNifEnv *env, ERL_NIF_TERM pair, struct cw_vv **vv) {
    int n;
    const ERL_NIF_TERM *at;
    ErlNifUInt64 counter;
    struct cw_buf buf;
    struct cw_vv *to;
    uint8_t space[256];
    if (!enif_get_tuple(env, pair, &n, &at) || n != 2 || !enif_get_uint64(env, at[1], &counter) ||
        counter > UINT64_MAX >> 2)
        return CW_EMALFORMED;
    cw_buf_init(&buf, &nif_mem, space, sizeof space);
    enum cw_err err = nif_put_name(env, &buf, at[0]);
    struct cw_name *name = err ? NULL : cw_name_new(&nif_mem, cw_buf_slice(&buf, 0));
    if (!err)
        err = name ? cw_vv_raise(*vv, name, counter, &to) : CW_ENOMEM;
    cw_name_release(name);
    cw_buf_free(&buf);
    if (err)
        return err;
    cw_vv_release(*vv);
    *vv = to;
    return CW_OK;
}

ERL_NIF_TERM nif_clock_from_list(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    struct cw_vv *vv = cw_vv_new(&nif_mem, 0);
    ERL_NIF_TERM list = argv[0], pair = list;
    enum cw_err err = vv ? CW_OK : CW_ENOMEM;
    (void)argc;
    while (!err && enif_get_list_cell(env, list, &pair, &list))
        err = raise_one(env, pair, &vv);
    if (!err && !enif_is_empty_list(env, list))
        err = CW_EMALFORMED;
    struct cw_buf out;
    uint8_t space[512];
    cw_buf_init(&out, &nif_mem, space, sizeof space);
    if (!err)
        cw_clock_put(&out, vv);
    if (!err)
        err = out.err;
    ERL_NIF_TERM term = err == CW_EMALFORMED ? nif_error_atom(env, ATOM(env, bad_term), pair)
                        : err                ? nif_error(env, err)
                                             : nif_make_binary(env, cw_buf_slice(&out, 0));
    cw_buf_free(&out);
    cw_vv_release(vv);
    return term;
}

ERL_NIF_TERM nif_hlc_tick(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    ErlNifUInt64 last, now;
    uint64_t next;
    (void)argc;
    if (!enif_get_uint64(env, argv[0], &last) || !enif_get_uint64(env, argv[1], &now))
        return enif_make_badarg(env);
    enum cw_err err = cw_hlc_tick(last, now, &next);
    return err ? nif_error(env, err) : enif_make_uint64(env, next);
}
