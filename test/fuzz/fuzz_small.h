/* What is done to a document after a fragment was applied to it. */
#ifndef CW_FUZZ_SMALL_H
#define CW_FUZZ_SMALL_H

#include "../c/small_doc.h"
#include "fuzz.h"

static const struct small_row small_removals[] = {
    {CW_RESET, CW_COUNTER, "c", NULL, 0},
    {CW_DELETE, CW_KIND_NONE, "a", NULL, 0},
    {CW_DELETE, CW_REGISTER, "r", NULL, 0},
    {CW_REMOVE, CW_SET, "s", "x", 0},
    {CW_DELETE, CW_KIND_NONE, "b", NULL, 0},
    {CW_DISABLE, CW_FLAG, "f", NULL, 0},
    {CW_DECREMENT, CW_COUNTER, "c", NULL, 1},
    {CW_PUT, CW_REGISTER, "r", "four", 0},
    {CW_DECREMENT, CW_COUNTER_BOUNDED, "b", NULL, 1},
};

/* Every edit, where there is room for it: the document must stay sound. */
static inline void small_edit(const struct cw_doc *doc) {
    struct cw_buf state = fuzz_buf();
    const size_t adds = sizeof small_rows / sizeof small_rows[0];
    for (size_t i = 0; i < adds + sizeof small_removals / sizeof small_removals[0]; i++) {
        const struct small_row *row = i < adds ? &small_rows[i] : &small_removals[i - adds];
        struct cw_doc *to = small_op(doc, row->verb, row->kind, row->path, row->arg, row->amount);
        if (to)
            fuzz_doc_check(to, &state);
        cw_doc_free(to);
    }
    cw_buf_free(&state);
}

#endif
