/* What the document tests talk about, as encoded terms: a few fields, elements, values and
 * replicas, chosen where encodings go wrong: bytes 0x00 and 0xff inside and at the end, lengths
 * over the stack buffers of the core. They are numbered; the tests see numbers only. */
#ifndef DOC_TERMS_H
#define DOC_TERMS_H

#include "../../c_src/core/cw_vv.h"

#define FIELDS 6     /* ascending as keys */
#define ELEMENTS 600 /* the first dozen are odd ones, then integers, the last ten are long */
#define LONG_ELEMENTS 590
#define REPLICAS 8

struct cw_bytes term_field(int field);
struct cw_bytes term_element(int element);

/* Ids of the first begin with 0xff and 0x00 bytes: they stand in keys. */
struct cw_bytes term_replica(int replica);
uint64_t term_replica_id(int replica);
/* -1 when there is no replica with this id. */
int term_replica_of(uint64_t id);

/* Any number has a value of its own, written to `space`. */
#define TERM_VALUE_MAX 400
struct cw_bytes term_value(int value, uint8_t *space);

#endif
