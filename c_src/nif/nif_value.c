#include "nif_value.h"

#include "../core/cw_visit.h"
#include "nif_ops.h"
#include "nif_term.h"

/* Terms made so far, and where the containers still open begin among them. */
struct build {
    ErlNifEnv *env;
    struct nif_read *read;
    ERL_NIF_TERM *at;
    size_t n;
    size_t cap;
    size_t open[CW_PATH_MAX + 2];
    size_t depth;
};

static enum cw_err push(struct build *b, ERL_NIF_TERM term) {
    if (b->n == b->cap) {
        size_t cap = b->cap ? b->cap * 2 : 32;
        ERL_NIF_TERM *at = enif_realloc(b->at, cap * sizeof *at);
        if (!at)
            return CW_ENOMEM;
        b->at = at;
        b->cap = cap;
    }
    b->at[b->n++] = term;
    return CW_OK;
}

static enum cw_err push_bytes(struct build *b, struct cw_bytes s, enum cw_encoding enc) {
    ERL_NIF_TERM term;
    enum cw_err err = nif_make_term(b->read, s, enc, &term);
    return err ? err : push(b, term);
}

static enum cw_err push_object(struct build *b, enum cw_kind kind, ERL_NIF_TERM value) {
    return push(b, enif_make_tuple2(b->env, nif_make_kind(b->env, kind), value));
}

static bool is_list(const struct build *b) { /* of the innermost open container */
    return b->depth && b->open[b->depth - 1] & 1;
}

/* The low bit tells a list of values from a map. */
static enum cw_err begin(void *ctx, enum cw_kind kind) {
    struct build *b = ctx;
    b->open[b->depth++] = b->n << 1 | !cw_kind_is_map(kind);
    return CW_OK;
}

static enum cw_err end(void *ctx, enum cw_kind kind) {
    struct build *b = ctx;
    size_t from = b->open[--b->depth] >> 1;
    ERL_NIF_TERM term;
    if (!cw_kind_is_map(kind))
        term = enif_make_list_from_array(b->env, b->at + from, (unsigned)(b->n - from));
    else if (!nif_make_map(b->env, b->at + from, (b->n - from) / 2, &term))
        return CW_ENOMEM;
    b->n = from;
    return push_object(b, kind, term);
}

static enum cw_err field(void *ctx, struct cw_bytes s) {
    return push_bytes(ctx, s, CW_KEY);
}

static enum cw_err value(void *ctx, struct cw_bytes s) {
    struct build *b = ctx;
    bool element = is_list(b);
    enum cw_err err = push_bytes(b, s, CW_VALUE);
    if (!err && !element)
        err = push_object(b, CW_REGISTER, b->at[--b->n]);
    return err;
}

static enum cw_err counter(void *ctx, struct cw_wide v) {
    struct build *b = ctx;
    return push_object(b, CW_COUNTER, nif_make_wide(b->env, &v));
}

static enum cw_err flag(void *ctx, bool on) {
    struct build *b = ctx;
    return push_object(b, CW_FLAG, on ? ATOM(b->env, true) : ATOM(b->env, false));
}

static const struct cw_visitor builder = {begin, end, field, field, value, counter, flag};

enum cw_err nif_make_object(struct nif_read *read, const struct cw_doc *doc, struct cw_bytes object,
                            enum cw_kind kind, ERL_NIF_TERM *term) {
    struct build b;
    b.env = read->env;
    b.read = read;
    b.at = NULL;
    b.n = b.cap = b.depth = 0;
    enum cw_err err = cw_doc_visit(doc, object, kind, &builder, &b);
    if (!err)
        *term = b.at[0];
    enif_free(b.at);
    return err;
}

enum cw_err nif_make_path(struct nif_read *read, struct cw_bytes object, ERL_NIF_TERM *term) {
    ERL_NIF_TERM fields[CW_PATH_MAX];
    unsigned n = 0;
    struct cw_reader r = cw_reader(object);
    enum cw_err err = CW_OK;
    while (!err && n < CW_PATH_MAX && cw_kind_is_map((enum cw_kind)cw_read_byte(&r)) &&
           cw_reader_left(&r))
        err = nif_make_first(read, &r, &fields[n++]);
    if (!err)
        *term = enif_make_list_from_array(read->env, fields, n);
    return err;
}
