/* Whole transactions from the stream of pgoutput's messages, in the order of their commits.
 *
 *     start --Begin--> transaction --Commit--> start
 *     start --Stream Start--> stream --Stream Stop--> start
 *     start --Stream Commit--> replay --(all of it delivered)--> start
 *     start --Stream Abort--> start
 *
 * What is sent between Begin and Commit is committed already, and goes into frames at once: one
 * that does not fit into a frame leaves in parts. What is streamed is not, and is kept by
 * transaction until it commits or aborts, in memory up to a limit, then in files. While a streamed
 * transaction is delivered no messages are taken in.
 *
 * Frames (cw_wal_frame.h) are handed to the sink as they become full, and by cw_assembly_flush. A
 * transaction that changes nothing is not delivered; its end counts as a position where nothing was
 * to be delivered (cw_positions.h). */
#ifndef CW_ASSEMBLY_H
#define CW_ASSEMBLY_H

#include "cw_positions.h"
#include "cw_spool.h"
#include "cw_wal_frame.h"

struct cw_assembly_config {
    const struct cw_mem *mem;
    size_t frame_bytes; /* a frame is handed on when it has so many; one message may be more */
    size_t spool_bytes; /* what streamed transactions may take in memory, all together */
    struct cw_spill spill;
    void *sink_ctx;
    /* Is given each frame, for the time of the call. What it returns, the caller gets. */
    enum cw_err (*sink)(void *ctx, struct cw_bytes frame);
};

struct cw_assembly;

/* NULL without memory. `start` is where the stream starts. */
struct cw_assembly *cw_assembly_new(const struct cw_assembly_config *config, uint64_t start);
void cw_assembly_free(struct cw_assembly *a);

/* Takes one message. CW_ETRUNCATED, CW_ETWOPHASE and CW_EPROTOCOL: it is none, or not one that may
 * come now (cw_assembly_what); CW_ENOMEM, CW_ESPILL, and what the sink returned. After any failure
 * the stream cannot go on: what was not delivered must be asked for again. */
enum cw_err cw_assembly_feed(struct cw_assembly *a, struct cw_bytes message);

/* While true, a streamed transaction waits to be delivered, and cw_assembly_replay makes one more
 * frame of it, or gets past some of what is not to be delivered. */
bool cw_assembly_replaying(const struct cw_assembly *a);
enum cw_err cw_assembly_replay(struct cw_assembly *a);

/* Hands on the transactions that are complete. */
enum cw_err cw_assembly_flush(struct cw_assembly *a);

/* The server has nothing to send up to `wal_end`. */
void cw_assembly_keepalive(struct cw_assembly *a, uint64_t wal_end);

struct cw_positions *cw_assembly_positions(struct cw_assembly *a);

/* What was wrong with the message that cw_assembly_feed refused; a static string, never NULL. */
const char *cw_assembly_what(const struct cw_assembly *a);

struct cw_assembly_info {
    uint64_t transactions; /* that have been complete */
    uint64_t messages;     /* of these */
    uint32_t streamed;     /* transactions that are kept */
    size_t memory;         /* what they take */
    uint64_t spilled;      /* bytes in files */
};

void cw_assembly_info(const struct cw_assembly *a, struct cw_assembly_info *info);

/* For tests: NULL, or what does not hold. */
const char *cw_assembly_check(const struct cw_assembly *a);

#endif
