/* A document with changes that are not in it yet: what the operations of one write see and add to.
 */
#ifndef CW_VIEW_H
#define CW_VIEW_H

#include "cw_arena.h"
#include "cw_doc_struct.h"

#define CW_VIEW_EDITS 128 /* then they are applied to the tree */

struct cw_view {
    const struct cw_doc *doc;
    struct cw_arena *arena;
    struct cw_tree *tree;      /* owned */
    struct cw_pending pending; /* the document's edits that `tree` lacks */
    bool flushed;              /* `tree` may have changes that neither `at` nor the document has */
    enum cw_err err;           /* of a look for which the document had to be settled */
    size_t n;
    struct cw_edit at[CW_VIEW_EDITS]; /* sorted */
};

/* Keys and payloads of changes are copied to the arena. The document must outlive the view. */
void cw_view_open(struct cw_view *view, struct cw_arena *arena, const struct cw_doc *doc);
void cw_view_close(struct cw_view *view);

bool cw_view_get(const struct cw_view *view, struct cw_bytes key, struct cw_bytes *payload);

/* As cw_tree_probe, in tree and changes. */
bool cw_view_probe(const struct cw_view *view, struct cw_bytes key, size_t shared,
                   struct cw_bytes *payload, bool *near);

/* `payload` NULL deletes. */
enum cw_err cw_view_set(struct cw_view *view, struct cw_bytes key, const struct cw_bytes *payload);

/* The first key >= `from`, copied to `key` (room for CW_KEY_MAX), and its payload. False as well
 * when `view->err` is set. */
bool cw_view_next(struct cw_view *view, struct cw_bytes from, uint8_t *key, size_t *key_len,
                  struct cw_bytes *payload);

/* Applies all changes, so that `view->tree` shows them. */
enum cw_err cw_view_flush(struct cw_view *view);

#endif
