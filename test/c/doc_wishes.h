/* Random operations, in the model's numbers and in terms. */
#ifndef DOC_WISHES_H
#define DOC_WISHES_H

#include "doc_model.h"

#define OBJECTS 10

/* What random operations are about. Few things make many conflicts. */
struct theme {
    struct object objects[OBJECTS];
    int objects_n;
    int elements;
    bool bulky;   /* every second element is a long one */
    int batch;    /* operations in one, at most */
    int removals; /* percent */
    bool skewed;  /* wall clocks go as they like */
    int serial;   /* of values */
    int lazy;     /* percent of the updates that nobody looks at, so that they pile up */
    int updates;  /* percent of all that happens; the rest is talk */
};

struct theme random_theme(void);
struct wish random_wish(struct theme *theme);

/* A wish in terms, for cw_doc_update. */
struct spelled {
    struct cw_op op; /* points into the rest */
    struct cw_step path[MODEL_DEPTH];
    uint8_t value[TERM_VALUE_MAX];
};

void spell(struct spelled *s, const struct wish *wish);

#endif
