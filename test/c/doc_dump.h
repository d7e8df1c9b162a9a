/* A document, or an object in it, as a line of tagged bytes: what a visitor is told, in its order.
 *
 *     B kind | E kind | F field | e element | v value | c counter | f flag */
#ifndef DOC_DUMP_H
#define DOC_DUMP_H

#include "../../c_src/core/cw_visit.h"

void dump_kind(struct cw_buf *out, char tag, enum cw_kind kind);
void dump_bytes(struct cw_buf *out, char tag, struct cw_bytes s);
void dump_counter(struct cw_buf *out, struct cw_wide value);
void dump_flag(struct cw_buf *out, bool on);

/* Appends what cw_doc_visit tells of an object. */
enum cw_err dump_object(const struct cw_doc *doc, struct cw_bytes object, enum cw_kind kind,
                        struct cw_buf *out);

#endif
