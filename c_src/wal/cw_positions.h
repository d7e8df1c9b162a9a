/* What may be confirmed to the server: never more than the consumer has confirmed, and never a byte
 * beyond what the server said.
 *
 * A slot starts again from what was confirmed, and sends the transactions whose commit record
 * begins at or after it. The next commit record may begin exactly where the last one ended. So a
 * confirmation is the end of a commit that the consumer has confirmed, as the server gave it, or a
 * position that a keepalive gave when nothing before it was still to be delivered or confirmed.
 * One byte more is a transaction lost. */
#ifndef CW_POSITIONS_H
#define CW_POSITIONS_H

#include <stdbool.h>
#include <stdint.h>

struct cw_positions {
    uint64_t complete;   /* where the last transaction ends that has come as a whole */
    uint64_t delivered;  /* ... that has been given to the consumer */
    uint64_t acked;      /* what the consumer has confirmed of that */
    uint64_t idle;       /* where the server was when it had nothing more to send ... */
    uint64_t idle_after; /* ... and what had been complete then */
};

static inline uint64_t cw__lsn_max(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}

/* From where a connection starts: what the slot has confirmed, or what the consumer asked for. */
static inline struct cw_positions cw_positions_at(uint64_t start) {
    return (struct cw_positions){start, start, start, 0, 0};
}

static inline void cw_positions_complete(struct cw_positions *p, uint64_t end_lsn) {
    p->complete = cw__lsn_max(p->complete, end_lsn);
}

/* All that is complete has been given to the consumer. */
static inline void cw_positions_deliver(struct cw_positions *p) {
    p->delivered = p->complete;
}

/* The consumer has done with what begins before `lsn`. What was not delivered it cannot confirm. */
static inline void cw_positions_ack(struct cw_positions *p, uint64_t lsn) {
    p->acked = cw__lsn_max(p->acked, lsn < p->delivered ? lsn : p->delivered);
}

static inline uint64_t cw_positions_confirmed(const struct cw_positions *p) {
    return p->acked >= p->idle_after ? cw__lsn_max(p->acked, p->idle) : p->acked;
}

/* Up to `lsn`, nothing has been committed that has not come. To be called between transactions
 * only. What may be confirmed by the position before this one stays confirmed. */
static inline void cw_positions_idle(struct cw_positions *p, uint64_t lsn) {
    p->acked = cw_positions_confirmed(p);
    p->idle = cw__lsn_max(p->idle, lsn);
    p->idle_after = p->complete;
}

/* Whether the consumer has still something to confirm. */
static inline bool cw_positions_waiting(const struct cw_positions *p) {
    return p->acked < p->complete;
}

#endif
