/* A small document with a cell of every kind, by two replicas; and the operations that make it. */
#ifndef CW_TEST_SMALL_DOC_H
#define CW_TEST_SMALL_DOC_H

#include <string.h>

#include "../../c_src/core/cw_doc.h"
#include "../../c_src/core/cw_term.h"
#include "check.h"

#define SMALL_NOW 1700000000000u /* always now */

#define SMALL_SPACE 16

static inline struct cw_bytes small_string(uint8_t *space, enum cw_encoding enc, const char *s,
                                           size_t n) {
    struct cw_buf buf;
    cw_buf_init(&buf, &check_mem, space, SMALL_SPACE);
    cw_put_string(&buf, enc, CW_T_BINARY, cw_bytes(s, n));
    CHECK(buf.p == space);
    return cw_buf_slice(&buf, 0);
}

/* One operation at fields of one letter each; a + before a letter: it is in a grow-only map. NULL
 * when the document refuses. */
static inline struct cw_doc *small_op(const struct cw_doc *doc, enum cw_verb verb,
                                      enum cw_kind kind, const char *path, const char *arg,
                                      uint64_t amount) {
    uint8_t fields[4][SMALL_SPACE], space[SMALL_SPACE];
    struct cw_step steps[4];
    struct cw_op op = {.verb = verb, .kind = kind, .path = steps, .amount = amount};
    for (; *path; path++, op.path_len++) {
        enum cw_kind map = *path == '+' ? CW_MAP_GROW : CW_KIND_NONE;
        path += map != CW_KIND_NONE;
        steps[op.path_len] =
            (struct cw_step){small_string(fields[op.path_len], CW_KEY, path, 1), map};
    }
    op.arg = small_string(space, verb == CW_PUT ? CW_VALUE : CW_KEY, arg ? arg : "",
                          arg ? strlen(arg) : 0);
    struct cw_doc *to = NULL;
    struct cw_fault fault = {.op = 0};
    enum cw_err err = cw_doc_update(doc, &op, 1, SMALL_NOW, &to, &fault);
    CHECK((err == CW_OK) == (to != NULL));
    return to;
}

struct small_row {
    enum cw_verb verb;
    enum cw_kind kind;
    const char *path;
    const char *arg;
    uint64_t amount;
};

static const struct small_row small_rows[] = {
    {CW_PUT, CW_REGISTER, "r", "one", 0},
    {CW_PUT, CW_REGISTER_MULTI, "m", "two", 0},
    {CW_INCREMENT, CW_COUNTER, "c", NULL, 3},
    {CW_INCREMENT, CW_COUNTER_BOUNDED, "b", NULL, 9},
    {CW_TRANSFER, CW_COUNTER_BOUNDED, "b", "n", 4},
    {CW_DECREMENT, CW_COUNTER_BOUNDED, "b", NULL, 2},
    {CW_ADD, CW_SET, "s", "x", 0},
    {CW_ADD, CW_SET_GROW, "g", "x", 0},
    {CW_ADD, CW_SET_REMOVE_WINS, "w", "x", 0},
    {CW_REMOVE, CW_SET_REMOVE_WINS, "w", "y", 0},
    {CW_ENABLE, CW_FLAG, "f", NULL, 0},
    {CW_DISABLE, CW_FLAG_DISABLE_WINS, "d", NULL, 0},
    {CW_PUT, CW_REGISTER, "ar", "three", 0},
    {CW_ADD, CW_SET, "aas", "x", 0},
    {CW_INCREMENT, CW_COUNTER, "ac", NULL, 1},
    {CW_INCREMENT, CW_COUNTER, "c", NULL, 1},
};

static inline struct cw_doc *small_doc(void) {
    struct cw_doc *doc = cw_doc_new(&check_mem, cw_bytes("\x50m", 3)), *next;
    CHECK(doc);
    for (size_t i = 0; i < sizeof small_rows / sizeof small_rows[0]; i++) {
        const struct small_row *row = &small_rows[i];
        if (i == 8) { /* the rest by "n" */
            CHECK_OK(cw_doc_fork(doc, cw_bytes("\x50n", 3), &next));
            cw_doc_free(doc);
            doc = next;
        }
        next = small_op(doc, row->verb, row->kind, row->path, row->arg, row->amount);
        CHECK(next);
        cw_doc_free(doc);
        doc = next;
    }
    return doc;
}

#endif
