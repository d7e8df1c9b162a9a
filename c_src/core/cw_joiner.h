/* Collects what the join of two sides changes: edits to the one, and which keys they touch. */
#ifndef CW_JOINER_H
#define CW_JOINER_H

#include "cw_arena.h"
#include "cw_doc_struct.h"

struct cw_joiner {
    struct cw_context x; /* the side the edits are for */
    struct cw_context y;
    bool apart; /* neither context has a dot of the other's side: nothing can be dropped */
    struct cw_arena arena;
    struct cw_buf payload;
    struct cw_edit *edits; /* ascending, as the keys come; in the arena */
    size_t n;
    size_t cap;
    size_t differs_y;      /* results other than y's */
    struct cw_buf touches; /* keys whose result is not x's, or not y's */
    bool touch_y;
};

void cw_joiner_open(struct cw_joiner *j, const struct cw_mem *mem, struct cw_context x,
                    struct cw_context y);
void cw_joiner_close(struct cw_joiner *j);

/* Joins one cell; NULL for absent. Keys must ascend; the payloads must outlive the joiner. */
enum cw_err cw_joiner_cell(struct cw_joiner *j, struct cw_bytes key, const struct cw_bytes *x,
                           const struct cw_bytes *y);

#endif
