#include "doc_dump.h"

void dump_kind(struct cw_buf *out, char tag, enum cw_kind kind) {
    cw_buf_byte(out, (uint8_t)tag);
    cw_buf_byte(out, (uint8_t)kind);
}

void dump_bytes(struct cw_buf *out, char tag, struct cw_bytes s) {
    cw_buf_byte(out, (uint8_t)tag);
    cw_buf_varint(out, s.n);
    cw_buf_bytes(out, s);
}

void dump_counter(struct cw_buf *out, struct cw_wide value) {
    cw_buf_byte(out, 'c');
    cw_buf_u64be(out, value.hi);
    cw_buf_u64be(out, value.lo);
}

void dump_flag(struct cw_buf *out, bool on) {
    cw_buf_byte(out, 'f');
    cw_buf_byte(out, on);
}

/* ---- the visitor ---- */

static enum cw_err on_begin(void *ctx, enum cw_kind kind) {
    dump_kind(ctx, 'B', kind);
    return CW_OK;
}

static enum cw_err on_end(void *ctx, enum cw_kind kind) {
    dump_kind(ctx, 'E', kind);
    return CW_OK;
}

static enum cw_err on_field(void *ctx, struct cw_bytes field) {
    dump_bytes(ctx, 'F', field);
    return CW_OK;
}

static enum cw_err on_element(void *ctx, struct cw_bytes element) {
    dump_bytes(ctx, 'e', element);
    return CW_OK;
}

static enum cw_err on_value(void *ctx, struct cw_bytes value) {
    dump_bytes(ctx, 'v', value);
    return CW_OK;
}

static enum cw_err on_counter(void *ctx, struct cw_wide value) {
    dump_counter(ctx, value);
    return CW_OK;
}

static enum cw_err on_flag(void *ctx, bool on) {
    dump_flag(ctx, on);
    return CW_OK;
}

enum cw_err dump_object(const struct cw_doc *doc, struct cw_bytes object, enum cw_kind kind,
                        struct cw_buf *out) {
    static const struct cw_visitor visitor = {on_begin, on_end,     on_field, on_element,
                                              on_value, on_counter, on_flag};
    return cw_doc_visit(doc, object, kind, &visitor, out);
}
