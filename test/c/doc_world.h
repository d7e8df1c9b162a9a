/* Several replicas, what they sent each other, and the model of it all. Every document that appears
 * is checked against the model, and against all others that have seen the same writes. */
#ifndef DOC_WORLD_H
#define DOC_WORLD_H

#include "doc_wishes.h"

#define KEPT 12
#define LETTERS 24

struct letter { /* a fragment on its way */
    uint8_t *p; /* NULL: none */
    size_t n;
    struct cut from;
    struct cut to;
    bool net;
};

/* What whoever has seen just these writes encodes to. */
struct truth {
    struct cut cut;
    struct cw_hash hash;
    struct cw_bytes state;
};

struct world {
    struct model model;
    struct theme theme;
    struct cw_doc *docs[REPLICAS]; /* NULL: not born */
    struct cw_doc *kept[KEPT];
    struct letter letters[LETTERS];
    size_t posted; /* goes round in them */
    struct truth *truths;
    size_t truths_n;
    uint64_t now_ms;
};

/* Prints, as printf, when CW_TRACE is set: a failing seed's history. */
__attribute__((format(printf, 1, 2))) void world_tell(const char *format, ...);

void world_open(struct world *w, int replicas, const struct theme *theme);
void world_close(struct world *w);

/* ---- looking ---- */

struct cut doc_cut(const struct cw_doc *doc);
struct cw_bytes doc_state(const struct cw_doc *doc); /* malloc'd */
uint64_t doc_receipts(const struct cw_doc *doc);

/* Everything that must hold of a document. */
void world_check(struct world *w, const struct cw_doc *doc);

struct cw_doc *world_any(struct world *w);     /* a living replica's document */
struct cw_doc *world_any_old(struct world *w); /* or one that was kept */
int world_alive(struct world *w);              /* a living replica */

/* ---- changing ---- */

/* `doc` (taken over, checked) is replica `r`'s document from now on. */
void world_become(struct world *w, int r, struct cw_doc *doc);

/* Runs a batch in the model and on the document; fails where they do not agree. */
void world_update(struct world *w, int r, const struct wish *wishes, size_t n);
void world_update_randomly(struct world *w, int r);

/* Decodes, so as to know what it claims, and keeps it in place of the oldest. */
struct letter *world_post(struct world *w, const struct cw_buf *fragment);
const struct letter *world_any_letter(struct world *w); /* often a new one; NULL: none yet */

/* A document with the letter's content; NULL, and all checked, when it does not connect. */
struct cw_doc *world_apply(struct world *w, const struct cw_doc *doc, const struct letter *letter);

#endif
