#include "nif_ops.h"

#include "nif_term.h"

/* ---- kinds ---- */

enum cw_kind nif_get_kind(ErlNifEnv *env, ERL_NIF_TERM term) {
    const struct nif_atoms *a = &nif_lib(env)->atoms;
#define X(NAME, tag, name, class)                                                                  \
    if (term == a->a_##name)                                                                       \
        return CW_##NAME;
    CW_KIND_LIST(X)
#undef X
    return CW_KIND_NONE;
}

ERL_NIF_TERM nif_make_kind(ErlNifEnv *env, enum cw_kind kind) {
    const struct nif_atoms *a = &nif_lib(env)->atoms;
    switch (kind) {
#define X(NAME, tag, name, class)                                                                  \
    case CW_##NAME:                                                                                \
        return a->a_##name;
        CW_KIND_LIST(X)
#undef X
    default:
        return a->a_nil;
    }
}

/* ---- parts of operations ---- */

/* Encodes a term into the arena, through a buffer on the stack. What is longer than it may be at
 * `most` is not worth a larger budget; and parts that are shared make short terms very long. */
static enum cw_err encode(struct nif_ops *ops, ERL_NIF_TERM term, enum cw_encoding enc, size_t most,
                          struct cw_bytes *out) {
    struct cw_buf buf;
    uint8_t space[256];
    bool final = most <= ops->limit;
    cw_buf_init(&buf, ops->arena->mem, space, sizeof space);
    struct nif_put put = {.env = ops->env,
                          .buf = &buf,
                          .enc = enc,
                          .limit = final ? most : ops->limit,
                          .bad = term,
                          .began = ops->began,
                          .firm = final};
    enum cw_err err = nif_put_term(&put, term);
    if (!err) {
        *out = cw_arena_copy(ops->arena, cw_buf_slice(&buf, 0));
        if (!out->p)
            err = CW_ENOMEM;
    } else if (err == CW_EBUDGET && final) {
        err = CW_ELIMIT;
    }
    if (err == CW_EMALFORMED)
        ops->bad = put.bad;
    ops->began = put.began;
    if (ops->limit != SIZE_MAX)
        ops->limit -= buf.n < ops->limit ? buf.n : ops->limit;
    cw_buf_free(&buf);
    return err;
}

enum cw_err nif_get_path(ErlNifEnv *env, struct cw_arena *arena, ERL_NIF_TERM list,
                         struct nif_path *path, ERL_NIF_TERM *bad) {
    struct nif_ops ops = {.env = env, .arena = arena, .limit = SIZE_MAX, .bad = list};
    ERL_NIF_TERM head;
    enum cw_err err = CW_OK;
    size_t left = CW_KEY_MAX;
    path->n = 0;
    while (!err && enif_get_list_cell(env, list, &head, &list)) {
        if (path->n == CW_PATH_MAX)
            err = CW_EPATH;
        else
            err = encode(&ops, head, CW_KEY, left, &path->fields[path->n]);
        if (!err)
            left -= path->fields[path->n++].n;
    }
    nif_report(env, ops.began);
    *bad = ops.bad;
    return err ? err : enif_is_empty_list(env, list) ? CW_OK : CW_EPATH;
}

/* A path's first field: in a list of operations mostly the very term it was in the last one. */
static enum cw_err encode_first(struct nif_ops *ops, ERL_NIF_TERM term, size_t most,
                                struct cw_bytes *out) {
    if (ops->first.p && ops->first_term == term) {
        *out = ops->first;
        return ops->first.n > most ? CW_ELIMIT : CW_OK;
    }
    enum cw_err err = encode(ops, term, CW_KEY, most, out);
    if (!err) {
        ops->first_term = term;
        ops->first = *out;
    }
    return err;
}

/* The steps an operation's path begins with: those of the `in`s around it. */
struct base {
    const struct cw_step *at;
    size_t n;
    enum cw_kind map; /* what the next field is in */
};

/* Of a proper list of at most CW_PATH_MAX terms. */
static bool path_length(ErlNifEnv *env, ERL_NIF_TERM list, size_t *n) {
    ERL_NIF_TERM head;
    *n = 0;
    while (*n <= CW_PATH_MAX && enif_get_list_cell(env, list, &head, &list))
        ++*n;
    return *n <= CW_PATH_MAX && enif_is_empty_list(env, list);
}

/* Inside an `in` a path goes on from it: a field at least. */
static enum cw_err get_steps(struct nif_ops *ops, const struct base *base, ERL_NIF_TERM list,
                             struct cw_op *op) {
    size_t n;
    ERL_NIF_TERM head;
    if (!path_length(ops->env, list, &n) || base->n + n > CW_PATH_MAX || (base->n && n == 0))
        return CW_EPATH;
    struct cw_step *steps = cw_arena_alloc(ops->arena, (base->n + n + 1) * sizeof *steps);
    if (!steps)
        return CW_ENOMEM;
    if (base->n)
        memcpy(steps, base->at, base->n * sizeof *steps);
    enum cw_err err = CW_OK;
    size_t left = CW_KEY_MAX;
    for (size_t i = 0; i < base->n; i++)
        left -= steps[i].field.n;
    for (size_t i = 0; i < n && !err; i++) {
        struct cw_step *step = &steps[base->n + i];
        enif_get_list_cell(ops->env, list, &head, &list);
        step->map = i == 0 ? base->map : CW_KIND_NONE;
        err = i == 0 ? encode_first(ops, head, left, &step->field)
                     : encode(ops, head, CW_KEY, left, &step->field);
        if (!err)
            left -= step->field.n;
    }
    op->path = steps;
    op->path_len = base->n + n;
    return err;
}

/* As many are read and done faster than the clock is worth. */
#define FEW_OPS 4

static enum cw_err add_op(struct nif_ops *ops, const struct cw_op *op) {
    if (ops->n == ops->cap) {
        size_t cap = ops->cap ? ops->cap * 2 : 4;
        struct cw_op *at = cw_arena_alloc(ops->arena, cap * sizeof *at);
        if (!at)
            return CW_ENOMEM;
        if (ops->n)
            memcpy(at, ops->ops, ops->n * sizeof *at);
        ops->ops = at;
        ops->cap = cap;
    }
    ops->ops[ops->n++] = *op;
    if (ops->n > FEW_OPS && !ops->began)
        ops->began = nif_now();
    return CW_OK;
}

/* What stands after verb and path, by verb. */
enum shape { SHAPE_NONE, SHAPE_VALUE, SHAPE_ELEMENT, SHAPE_AMOUNT, SHAPE_TRANSFER };

struct form {
    enum cw_verb verb;
    enum shape shape;
};

static bool find_form(ErlNifEnv *env, ERL_NIF_TERM name, struct form *form) {
    const struct nif_atoms *a = &nif_lib(env)->atoms;
#define FORM(NAME, VERB, SHAPE)                                                                    \
    if (name == a->a_##NAME) {                                                                     \
        *form = (struct form){CW_##VERB, SHAPE_##SHAPE};                                           \
        return true;                                                                               \
    }
    FORM(add, ADD, ELEMENT)
    FORM(put, PUT, VALUE)
    FORM(increment, INCREMENT, AMOUNT)
    FORM(decrement, DECREMENT, AMOUNT)
    FORM(remove, REMOVE, ELEMENT)
    FORM(delete, DELETE, NONE)
    FORM(enable, ENABLE, NONE)
    FORM(disable, DISABLE, NONE)
    FORM(reset, RESET, NONE)
    FORM(transfer, TRANSFER, TRANSFER)
#undef FORM
    return false;
}

/* A negative amount turns an increment into a decrement and back. */
static enum cw_err get_amount(struct nif_ops *ops, ERL_NIF_TERM term, struct cw_op *op) {
    ErlNifSInt64 n;
    if (enif_term_type(ops->env, term) != ERL_NIF_TERM_TYPE_INTEGER)
        return CW_EOP;
    if (!enif_get_int64(ops->env, term, &n) || (n < 0 && op->verb == CW_TRANSFER))
        return CW_ERANGE;
    if (n < 0)
        op->verb = op->verb == CW_INCREMENT ? CW_DECREMENT : CW_INCREMENT;
    op->amount = n < 0 ? 0 - (uint64_t)n : (uint64_t)n;
    return CW_OK;
}

static enum cw_err get_name(struct nif_ops *ops, ERL_NIF_TERM term, struct cw_op *op) {
    struct cw_buf buf;
    uint8_t space[256];
    cw_buf_init(&buf, ops->arena->mem, space, sizeof space);
    enum cw_err err = nif_put_name(ops->env, &buf, term);
    if (err == CW_EMALFORMED || err == CW_ELIMIT)
        err = CW_EREPLICA;
    if (!err) {
        op->arg = cw_arena_copy(ops->arena, cw_buf_slice(&buf, 0));
        if (!op->arg.p)
            err = CW_ENOMEM;
    }
    cw_buf_free(&buf);
    return err;
}

/* How many elements of the tuple the shape takes, after verb and path. */
static int shape_args(enum shape shape) {
    return shape == SHAPE_NONE ? 0 : shape == SHAPE_TRANSFER ? 2 : 1;
}

static enum cw_err get_args(struct nif_ops *ops, enum shape shape, const ERL_NIF_TERM *at,
                            struct cw_op *op) {
    enum cw_err err;
    switch (shape) {
    case SHAPE_VALUE:
        return encode(ops, at[0], CW_VALUE, CW_VALUE_MAX, &op->arg);
    case SHAPE_ELEMENT:
        return encode(ops, at[0], CW_KEY, CW_KEY_MAX, &op->arg);
    case SHAPE_AMOUNT:
        return get_amount(ops, at[0], op);
    case SHAPE_TRANSFER:
        err = get_amount(ops, at[0], op);
        return err ? err : get_name(ops, at[1], op);
    default:
        return CW_OK;
    }
}

static enum cw_err get_ops(struct nif_ops *ops, const struct base *base, ERL_NIF_TERM term,
                           int depth);

/* {in, Path, Kind, Ops}: operations below a map that is of this kind. */
static enum cw_err get_in(struct nif_ops *ops, const struct base *base, ERL_NIF_TERM term,
                          const ERL_NIF_TERM *at, int depth) {
    struct cw_op op = {.verb = CW_DELETE};
    enum cw_kind kind = nif_get_kind(ops->env, at[2]);
    if (!cw_kind_is_map(kind) || depth >= CW_PATH_MAX) {
        ops->bad = term;
        return CW_EOP;
    }
    enum cw_err err = get_steps(ops, base, at[1], &op);
    if (err)
        return err;
    struct base inner = {op.path, op.path_len, kind};
    return get_ops(ops, &inner, at[3], depth + 1);
}

static enum cw_err get_op(struct nif_ops *ops, const struct base *base, ERL_NIF_TERM term,
                          int depth) {
    int n;
    const ERL_NIF_TERM *at;
    struct form form;
    ops->op = ops->bad = term;
    if (!enif_get_tuple(ops->env, term, &n, &at) || n < 2)
        return CW_EOP;
    if (at[0] == ATOM(ops->env, in) && n == 4)
        return get_in(ops, base, term, at, depth);
    if (!find_form(ops->env, at[0], &form))
        return CW_EOP;
    struct cw_op op = {.verb = form.verb, .amount = 1};
    int args = shape_args(form.shape), have = n - 2;
    if (form.shape == SHAPE_AMOUNT && have == 0)
        args = 0; /* by one */
    if (have == args + 1)
        op.kind = nif_get_kind(ops->env, at[n - 1]);
    if (have < args || have > args + 1 || (have == args + 1 && !op.kind))
        return CW_EOP;
    enum cw_err err = get_steps(ops, base, at[1], &op);
    if (!err && args)
        err = get_args(ops, form.shape, at + 2, &op);
    return err ? err : add_op(ops, &op);
}

static enum cw_err get_ops(struct nif_ops *ops, const struct base *base, ERL_NIF_TERM term,
                           int depth) {
    ERL_NIF_TERM head;
    enum cw_err err = CW_OK;
    if (!enif_is_list(ops->env, term))
        return get_op(ops, base, term, depth);
    while (!err && enif_get_list_cell(ops->env, term, &head, &term)) {
        err = get_op(ops, base, head, depth);
        if (!err && ops->limit != SIZE_MAX && ++ops->seen > NIF_OPS)
            err = CW_EBUDGET;
    }
    if (!err && !enif_is_empty_list(ops->env, term)) {
        ops->bad = term;
        err = CW_EOP;
    }
    return err;
}

enum cw_err nif_get_ops(struct nif_ops *ops, ERL_NIF_TERM term) {
    struct base none = {NULL, 0, CW_KIND_NONE};
    return get_ops(ops, &none, term, 0);
}
