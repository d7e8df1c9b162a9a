/* Reading a document: finding what is at a path, and walking it. */
#ifndef CW_VISIT_H
#define CW_VISIT_H

#include "cw_doc.h"
#include "cw_wide.h"

/* Finds what a path shows: the kind that comes first there, or `want` (0: any). On true, `key`
 * holds the object's key up to and with its kind's tag. `key` is emptied first; its error is the
 * caller's to look at. An empty path is the document itself, a map, whose key is the map's tag. */
bool cw_doc_find(const struct cw_doc *doc, const struct cw_bytes *fields, size_t n,
                 enum cw_kind want, struct cw_buf *key, enum cw_kind *kind);

/* What cw_doc_visit calls, in order:
 *
 *     object = begin (field object)* end        maps
 *            | begin element* end               sets
 *            | begin value* end                 multi-value registers, in the order of dots
 *            | value | counter | flag
 *
 * Fields and elements are key-encoded terms, values value-encoded ones, valid during the call. A
 * code other than CW_OK ends the walk and is returned. */
struct cw_visitor {
    enum cw_err (*begin)(void *ctx, enum cw_kind kind);
    enum cw_err (*end)(void *ctx, enum cw_kind kind);
    enum cw_err (*field)(void *ctx, struct cw_bytes field);
    enum cw_err (*element)(void *ctx, struct cw_bytes element);
    enum cw_err (*value)(void *ctx, struct cw_bytes value);
    enum cw_err (*counter)(void *ctx, struct cw_wide value);
    enum cw_err (*flag)(void *ctx, bool value);
};

/* Walks the object with this key, of a kind other than 0, in order of fields and elements. */
enum cw_err cw_doc_visit(const struct cw_doc *doc, struct cw_bytes object, enum cw_kind kind,
                         const struct cw_visitor *visitor, void *ctx);

/* How many cells an object has: what visiting it costs. O(log n). Less those not in the tree yet
 * when there is no memory to bring them there. */
uint64_t cw_doc_cells(const struct cw_doc *doc, struct cw_bytes object);

/* Hash and count of the cells whose keys begin with `prefix`. O(log n); the same reservation. */
struct cw_range cw_doc_range(const struct cw_doc *doc, struct cw_bytes prefix);

/* Whether a set with this key has an element. */
bool cw_doc_has_element(const struct cw_doc *doc, struct cw_bytes object, enum cw_kind kind,
                        struct cw_bytes element);

/* The rights of this replica and of all others in a bounded counter. */
enum cw_err cw_doc_rights(const struct cw_doc *doc, struct cw_bytes object, uint64_t *here,
                          uint64_t *elsewhere);

#endif
