/* A small document with a cell of every kind, and one edit of each: what a fragment is thrown at. */
#ifndef CW_FUZZ_SMALL_H
#define CW_FUZZ_SMALL_H

#include "fuzz.h"

static inline struct cw_bytes small_term(struct cw_buf *buf, const char *s, size_t n) {
    cw_buf_init(buf, &check_mem, buf->p, buf->cap);
    cw_put_string(buf, CW_KEY, CW_T_BINARY, cw_bytes(s, n));
    return cw_buf_slice(buf, 0);
}

/* One operation at fields of one letter each. */
static inline struct cw_doc *small_op(const struct cw_doc *doc, enum cw_verb verb, enum cw_kind kind,
                                      const char *path, const char *arg, uint64_t amount) {
    uint8_t space[8][16], arg_space[16];
    struct cw_step steps[8];
    struct cw_op op = {.verb = verb, .kind = kind, .path = steps, .amount = amount};
    for (; path[op.path_len]; op.path_len++) {
        struct cw_buf buf = {.p = space[op.path_len], .cap = 16};
        steps[op.path_len] = (struct cw_step){small_term(&buf, path + op.path_len, 1), CW_KIND_NONE};
    }
    struct cw_buf buf = {.p = arg_space, .cap = 16};
    cw_buf_init(&buf, &check_mem, arg_space, 16);
    if (arg)
        cw_put_string(&buf, verb == CW_PUT ? CW_VALUE : CW_KEY, CW_T_BINARY,
                      cw_bytes(arg, strlen(arg)));
    op.arg = cw_buf_slice(&buf, 0);
    struct cw_doc *to = NULL;
    struct cw_fault fault = {.op = 0};
    enum cw_err err = cw_doc_update(doc, &op, 1, 1700000000000, &to, &fault);
    CHECK((err == CW_OK) == (to != NULL));
    return to;
}

struct small_row {
    enum cw_verb verb;
    enum cw_kind kind;
    const char *path;
    const char *arg;
};

static const struct small_row small_rows[] = {
    {CW_PUT, CW_REGISTER, "r", "one"},
    {CW_PUT, CW_REGISTER_MULTI, "m", "two"},
    {CW_INCREMENT, CW_COUNTER, "c", NULL},
    {CW_INCREMENT, CW_COUNTER_BOUNDED, "b", NULL},
    {CW_TRANSFER, CW_COUNTER_BOUNDED, "b", "n"},
    {CW_DECREMENT, CW_COUNTER_BOUNDED, "b", NULL},
    {CW_ADD, CW_SET, "s", "x"},
    {CW_ADD, CW_SET_GROW, "g", "x"},
    {CW_ADD, CW_SET_REMOVE_WINS, "w", "x"},
    {CW_REMOVE, CW_SET_REMOVE_WINS, "w", "y"},
    {CW_ENABLE, CW_FLAG, "f", NULL},
    {CW_DISABLE, CW_FLAG_DISABLE_WINS, "d", NULL},
    {CW_PUT, CW_REGISTER, "ar", "three"},
    {CW_ADD, CW_SET, "aas", "x"},
    {CW_INCREMENT, CW_COUNTER, "ac", NULL},
};

static const struct small_row small_removals[] = {
    {CW_RESET, CW_COUNTER, "c", NULL},     {CW_DELETE, CW_KIND_NONE, "a", NULL},
    {CW_DELETE, CW_REGISTER, "r", NULL},   {CW_REMOVE, CW_SET, "s", "x"},
    {CW_DELETE, CW_KIND_NONE, "b", NULL},  {CW_DISABLE, CW_FLAG, "f", NULL},
};

/* By the replicas "m" and "n", whose first writes fragments may speak of. */
static inline struct cw_doc *small_doc(void) {
    struct cw_doc *doc = fuzz_doc("m"), *next;
    for (size_t i = 0; i < sizeof small_rows / sizeof small_rows[0]; i++) {
        const struct small_row *row = &small_rows[i];
        if (i == 8) { /* the rest by "n" */
            CHECK_OK(cw_doc_fork(doc, cw_bytes("\x50n", 3), &next));
            cw_doc_free(doc);
            doc = next;
        }
        next = small_op(doc, row->verb, row->kind, row->path, row->arg, 3);
        CHECK(next);
        cw_doc_free(doc);
        doc = next;
    }
    return doc;
}

/* Every edit, where there is room for it: the document must stay sound. */
static inline void small_edit(const struct cw_doc *doc) {
    struct cw_buf state = fuzz_buf();
    const size_t adds = sizeof small_rows / sizeof small_rows[0];
    for (size_t i = 0; i < adds + sizeof small_removals / sizeof small_removals[0]; i++) {
        const struct small_row *row = i < adds ? &small_rows[i] : &small_removals[i - adds];
        struct cw_doc *to = small_op(doc, row->verb, row->kind, row->path, row->arg, 1);
        if (to)
            fuzz_doc_check(to, &state);
        cw_doc_free(to);
    }
    cw_buf_free(&state);
}

#endif
