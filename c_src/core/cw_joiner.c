#include "cw_joiner.h"

void cw_joiner_open(struct cw_joiner *j, const struct cw_mem *mem, struct cw_context x,
                    struct cw_context y) {
    *j = (struct cw_joiner){.x = x, .y = y};
    cw_arena_init(&j->arena, mem, NULL, 0);
    cw_buf_init(&j->payload, mem, NULL, 0);
    cw_buf_init(&j->touches, mem, NULL, 0);
}

void cw_joiner_close(struct cw_joiner *j) {
    cw_buf_free(&j->touches);
    cw_buf_free(&j->payload);
    cw_arena_free(&j->arena);
}

static enum cw_err add_edit(struct cw_joiner *j, struct cw_bytes key,
                            const struct cw_bytes *payload) {
    if (j->n == j->cap) {
        void *edits = cw_arena_grow(&j->arena, j->edits, &j->cap, sizeof *j->edits, 64);
        if (!edits)
            return CW_ENOMEM;
        j->edits = edits;
    }
    struct cw_edit e = {.key = cw_arena_copy(&j->arena, key), .del = !payload};
    if (payload)
        e.payload = *payload;
    if (!e.key.p)
        return CW_ENOMEM;
    j->edits[j->n++] = e;
    return CW_OK;
}

/* More than the journal takes need not be complete. */
static void touch(struct cw_joiner *j, struct cw_bytes key) {
    if (j->touches.n <= CW_JOURNAL_MAX)
        cw_touch(&j->touches, key, false);
}

static enum cw_err pick_cell(struct cw_joiner *j, struct cw_bytes key, const struct cw_bytes *x,
                             const struct cw_bytes *y, enum cw_pick *pick) {
    if (j->apart && !(x && y)) {
        *pick = x ? CW_PICK_X : CW_PICK_Y;
        return CW_OK;
    }
    struct cw_key_parts parts = cw_key_parts(key);
    j->payload.n = 0;
    return cw_cell_join(&parts, x, &j->x, y, &j->y, &j->payload, pick);
}

enum cw_err cw_joiner_cell(struct cw_joiner *j, struct cw_bytes key, const struct cw_bytes *x,
                           const struct cw_bytes *y) {
    enum cw_pick pick;
    enum cw_err err = pick_cell(j, key, x, y, &pick);
    if (err)
        return err;
    bool same = x && y && cw_bytes_eq(*x, *y);
    bool from_x = (pick == CW_PICK_NONE && !x) || pick == CW_PICK_X || (pick == CW_PICK_Y && same);
    bool from_y = (pick == CW_PICK_NONE && !y) || pick == CW_PICK_Y || (pick == CW_PICK_X && same);
    j->differs_y += !from_y;
    if (j->touch_y ? !from_y : !from_x)
        touch(j, key);
    if (from_x)
        return CW_OK;
    struct cw_bytes payload = {NULL, 0};
    if (pick == CW_PICK_Y) {
        payload = *y;
    } else if (pick == CW_PICK_NEW) {
        payload = cw_arena_copy(&j->arena, cw_buf_slice(&j->payload, 0));
        if (!payload.p)
            return CW_ENOMEM;
    }
    return add_edit(j, key, pick == CW_PICK_NONE ? NULL : &payload);
}
