#include "cw_kind.h"

#include "cw_term.h"
#include "cw_tree.h"

const char *cw_kind_name(enum cw_kind kind) {
    switch ((int)kind) {
#define X(NAME, tag, name, class)                                                                  \
    case tag:                                                                                      \
        return #name;
        CW_KIND_LIST(X)
#undef X
    }
    return NULL;
}

enum cw_class cw_kind_class(enum cw_kind kind) {
    switch ((int)kind) {
#define X(NAME, tag, name, class)                                                                  \
    case tag:                                                                                      \
        return class;
        CW_KIND_LIST(X)
#undef X
    }
    return CW_NO_CELLS;
}

static enum cw_class class_of(enum cw_kind kind, bool receipt) {
    return receipt ? CW_RECEIPT : cw_kind_class(kind);
}

/* Reads steps until the kind's tag; the terms through `read_term`. */
static struct cw_key_parts parse(struct cw_reader *r, struct cw_bytes key,
                                 void (*read_term)(struct cw_reader *)) {
    struct cw_key_parts parts = {0};
    bool receipt = key.n && key.p[0] == CW_RECEIPT_TAG;
    if (receipt) {
        cw_read_byte(r);
        struct cw_bytes owner = cw_read_bytes(r, 8);
        parts.owner = owner.n ? cw_load64be(owner.p) : 0;
        parts.path_at = 9;
    }
    int fields = 0;
    while (!r->err) {
        uint8_t tag = cw_read_byte(r);
        if (fields == 0 && tag != CW_MAP)
            cw_reader_fail(r, CW_EMALFORMED);
        parts.kind = (enum cw_kind)tag;
        if (!cw_kind_is_map(parts.kind))
            break;
        if (++fields > CW_PATH_MAX)
            cw_reader_fail(r, CW_ELIMIT);
        read_term(r);
    }
    parts.class = class_of(parts.kind, receipt);
    parts.object = cw_bytes(key.p, (size_t)(r->p - key.p));
    parts.suffix = cw_bytes(r->p, cw_reader_left(r));
    if (parts.class == CW_TALLY && parts.suffix.n == 8)
        parts.owner = cw_load64be(parts.suffix.p);
    return parts;
}

struct cw_key_parts cw_key_parts(struct cw_bytes key) {
    struct cw_reader r = cw_reader(key);
    return parse(&r, key, cw_skip_key_term);
}

static void check_key_term(struct cw_reader *r) {
    cw_check_term(r, CW_KEY);
}

static enum cw_err check_suffix(const struct cw_key_parts *parts) {
    if (parts->class == CW_NO_CELLS)
        return CW_EMALFORMED;
    if (parts->class == CW_RECEIPT)
        return parts->suffix.n == 0 && cw_kind_is_counter(parts->kind) ? CW_OK : CW_EMALFORMED;
    if (parts->class == CW_TALLY)
        return parts->suffix.n == 8 ? CW_OK : CW_EMALFORMED;
    if (!cw_kind_is_set(parts->kind))
        return parts->suffix.n == 0 ? CW_OK : CW_EMALFORMED;
    struct cw_reader r = cw_reader(parts->suffix);
    cw_check_term(&r, CW_KEY);
    return cw_reader_whole(&r);
}

enum cw_err cw_key_check(struct cw_bytes key, struct cw_key_parts *parts) {
    if (key.n > CW_KEY_MAX)
        return CW_ELIMIT;
    struct cw_reader r = cw_reader(key);
    *parts = parse(&r, key, check_key_term);
    if (!r.err && parts->class != CW_RECEIPT && key.n > CW_CONTENT_KEY_MAX)
        return CW_ELIMIT;
    return r.err ? cw_reader_whole(&r) : check_suffix(parts);
}

/* prefix = nothing | (map-kind field)+ | (map-kind field)* kind */
enum cw_err cw_prefix_check(struct cw_bytes prefix) {
    if (prefix.n > CW_KEY_MAX)
        return CW_ELIMIT;
    struct cw_reader r = cw_reader(prefix);
    for (int fields = 0; cw_reader_left(&r); fields++) { /* none are left after a failure */
        enum cw_kind kind = (enum cw_kind)cw_read_byte(&r);
        if (!cw_kind_name(kind) || (fields == 0 && kind != CW_MAP))
            return CW_EMALFORMED;
        if (!cw_reader_left(&r))
            break;
        if (!cw_kind_is_map(kind))
            return CW_EMALFORMED;
        if (fields == CW_PATH_MAX)
            return CW_ELIMIT;
        cw_check_term(&r, CW_KEY);
    }
    return cw_reader_whole(&r);
}

bool cw_prefix_after(uint8_t *prefix, size_t *n) {
    while (*n && prefix[*n - 1] == 0xff)
        --*n;
    if (*n)
        prefix[*n - 1]++;
    return *n > 0;
}
