#include "port_term.h"

#include "port_frame.h"

/* The tags of the external term format. */
enum {
    VERSION = 131,
    SMALL_INTEGER = 97,
    INTEGER = 98,
    ATOM = 100,
    SMALL_TUPLE = 104,
    NIL = 106,
    LIST = 108,
    BINARY = 109,
    SMALL_BIG = 110,
    SMALL_ATOM = 115,
    ATOM_UTF8 = 118,
    SMALL_ATOM_UTF8 = 119
};

static void fail(struct port_term *t) {
    t->bad = true;
    t->p = t->end;
}

static struct cw_bytes take(struct port_term *t, size_t n) {
    if (n > (size_t)(t->end - t->p)) {
        fail(t);
        return cw_bytes(t->end, 0);
    }
    struct cw_bytes s = cw_bytes(t->p, n);
    t->p += n;
    return s;
}

/* 0 when there is nothing more, which is no tag. */
static uint8_t take_byte(struct port_term *t) {
    struct cw_bytes s = take(t, 1);
    return s.n ? *s.p : 0;
}

static uint32_t take_u32(struct port_term *t) {
    struct cw_bytes s = take(t, 4);
    return s.n ? port_load32(s.p) : 0;
}

struct port_term port_term_read(struct cw_bytes s) {
    struct port_term t = {s.p, s.p + s.n, false};
    if (take_byte(&t) != VERSION)
        fail(&t);
    return t;
}

uint32_t port_term_tuple(struct port_term *t) {
    if (take_byte(t) != SMALL_TUPLE)
        fail(t);
    return take_byte(t);
}

uint32_t port_term_list(struct port_term *t) {
    uint8_t tag = take_byte(t);
    if (tag == NIL)
        return 0;
    if (tag != LIST)
        fail(t);
    uint32_t n = take_u32(t);
    /* An element takes a byte at least. */
    if (n == 0 || n > (size_t)(t->end - t->p)) {
        fail(t);
        return 0;
    }
    return n;
}

void port_term_list_end(struct port_term *t, uint32_t n) {
    if (n && take_byte(t) != NIL)
        fail(t);
}

/* A small big: how many bytes, its sign, and the bytes from the lowest. */
static uint32_t take_big(struct port_term *t) {
    uint8_t n = take_byte(t), sign = take_byte(t);
    struct cw_bytes s = take(t, n);
    if (n > 4 || sign)
        fail(t);
    uint32_t v = 0;
    for (size_t i = 0; i < s.n && i < 4; i++)
        v |= (uint32_t)s.p[i] << 8 * i;
    return v;
}

uint32_t port_term_uint(struct port_term *t) {
    uint32_t v = 0;
    switch (take_byte(t)) {
    case SMALL_INTEGER:
        return take_byte(t);
    case INTEGER:
        v = take_u32(t);
        if (v > INT32_MAX)
            fail(t);
        break;
    case SMALL_BIG:
        v = take_big(t);
        break;
    default:
        fail(t);
    }
    return t->bad ? 0 : v;
}

struct cw_bytes port_term_atom(struct port_term *t) {
    size_t n = 0;
    switch (take_byte(t)) {
    case SMALL_ATOM:
    case SMALL_ATOM_UTF8:
        n = take_byte(t);
        break;
    case ATOM:
    case ATOM_UTF8:
        n = (size_t)take_byte(t) << 8;
        n |= take_byte(t);
        break;
    default:
        fail(t);
    }
    return take(t, n);
}

struct cw_bytes port_term_binary(struct port_term *t) {
    if (take_byte(t) != BINARY)
        fail(t);
    return take(t, take_u32(t));
}

struct cw_bytes port_term_text(struct port_term *t) {
    struct cw_bytes s = port_term_binary(t);
    if (s.n && memchr(s.p, 0, s.n))
        fail(t);
    return t->bad ? cw_bytes(t->end, 0) : s;
}
