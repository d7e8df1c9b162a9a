/* A decoded fragment back to bytes. For tests and fuzz targets. */
#ifndef CW_TEST_FRAGMENTS_H
#define CW_TEST_FRAGMENTS_H

#include "../../c_src/core/cw_fragment.h"

static inline enum cw_err fragment_write(const struct cw_fragment *f, struct cw_buf *out) {
    struct cw_fragment_writer w;
    cw_fragment_begin(&w, out, f->from, f->to, f->net);
    for (size_t i = 0; i < f->n; i++) {
        const struct cw_area *area = &f->areas[i];
        const struct cw_piece *p = f->pieces + area->first;
        if (!area->below) {
            cw_fragment_key(&w, area->key, area->n ? &p->payload : NULL);
            continue;
        }
        cw_fragment_below(&w, area->key, area->n);
        for (size_t k = 0; k < area->n; k++)
            cw_fragment_cell(&w, p[k].key, p[k].payload);
    }
    return cw_fragment_end(&w);
}

#endif
