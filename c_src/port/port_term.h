/* A bounds-checked reader of external terms, of the few kinds that requests are made of. (ei reads
 * without knowing where the bytes end, so it only writes here.) The first failure sticks: every
 * later read gives zero or nothing, so whoever reads a tuple checks once, at its end. Strings are
 * not copied. */
#ifndef PORT_TERM_H
#define PORT_TERM_H

#include "../core/cw_bytes.h"

struct port_term {
    const uint8_t *p;
    const uint8_t *end;
    bool bad;
};

/* Of a whole term, with its version byte. */
struct port_term port_term_read(struct cw_bytes s);

/* The arity of a tuple. */
uint32_t port_term_tuple(struct port_term *t);
/* The length of a proper list. Its elements come next, and then its end must be read. */
uint32_t port_term_list(struct port_term *t);
void port_term_list_end(struct port_term *t, uint32_t n);
/* A number from 0 to 2^32 - 1. */
uint32_t port_term_uint(struct port_term *t);
struct cw_bytes port_term_atom(struct port_term *t);
struct cw_bytes port_term_binary(struct port_term *t);
/* A binary that has no zero byte, for what has to be a string in C. */
struct cw_bytes port_term_text(struct port_term *t);

/* Whether all was read, and was what it should be. */
static inline bool port_term_done(const struct port_term *t) {
    return !t->bad && t->p == t->end;
}

#endif
