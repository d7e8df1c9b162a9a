/* Examples in a line each: operations written as verb, kind, path, argument; and what is there. */
#ifndef DOC_LINES_H
#define DOC_LINES_H

#include "../../c_src/core/cw_doc.h"

#define DOC_NOW 1700000000000u /* always now */

/* A path is letters, one a field: one after + is in a grow-only map, one after . in an ordinary
 * one, others in what is there. */
struct doc_line {
    struct cw_op op; /* points into the rest */
    struct cw_step path[8];
    uint8_t fields[8][4];
    uint8_t arg[64];
};

/* `arg` is an element or a value, of a transfer the number of a replica (doc_terms.h). */
const struct cw_op *doc_line(struct doc_line *l, enum cw_verb verb, enum cw_kind kind,
                             const char *path, const char *arg, uint64_t amount);

/* ---- changing ---- */

struct cw_doc *doc_new(int replica);
struct cw_doc *doc_fork(const struct cw_doc *doc, int replica);

/* These replace the document. */
void doc_edit(struct cw_doc **doc, enum cw_verb verb, enum cw_kind kind, const char *path,
              const char *arg, uint64_t amount);
void doc_pull(struct cw_doc **doc, const struct cw_doc *from); /* merges */

enum cw_err doc_try(const struct cw_doc *doc, uint64_t now_ms, enum cw_verb verb, enum cw_kind kind,
                    const char *path, const char *arg, uint64_t amount, struct cw_doc **out,
                    struct cw_fault *fault);
/* The fault of an edit that must be refused. */
struct cw_fault doc_refuse(const struct cw_doc *doc, enum cw_err want, enum cw_verb verb,
                           enum cw_kind kind, const char *path, const char *arg, uint64_t amount);

/* ---- looking ---- */

/* As cw_doc_find. */
bool doc_find(const struct cw_doc *doc, const char *path, enum cw_kind want, struct cw_buf *key,
              enum cw_kind *kind);
bool doc_exists(const struct cw_doc *doc, const char *path);
/* Whether a visitor of the object is told just this (doc_dump.h), this number, this value. */
bool doc_shows(const struct cw_doc *doc, const char *path, const struct cw_buf *expect);
bool doc_counts(const struct cw_doc *doc, const char *path, int64_t value);
bool doc_holds(const struct cw_doc *doc, const char *path, const char *value);
/* Whether two documents are equal byte for byte. */
bool doc_same(const struct cw_doc *a, const struct cw_doc *b);

#endif
