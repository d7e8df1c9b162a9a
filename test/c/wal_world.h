/* A server in the small: random transactions as pgoutput would send them, one after another or
 * streamed and interleaved, with what a consumer must be given in the end; and the consumer's side,
 * that reads frames and puts the parts of transactions together again. */
#ifndef CW_TEST_WAL_WORLD_H
#define CW_TEST_WAL_WORLD_H

#include "../../c_src/wal/cw_assembly.h"
#include "wal_messages.h"

/* A transaction, as text: one line a message, after a line of what the block's header says. */
struct wal_world {
    struct cw_assembly *assembly;
    struct cw_buf expected;
    struct cw_buf got;
    struct cw_buf part; /* what has come of the transaction that is on its way */
    uint64_t lsn;       /* of the server */
    uint64_t arrival;
    uint32_t next_xid;
    uint64_t frames, parts;
    enum cw_err err; /* the first that came from the assembly; then nothing more is sent */
    long sink_fails_after;
    long spill_fails_after;
    int files; /* that are open */
    struct wal_stream *streams;
};

/* `frame_bytes` and `spool_bytes` as of struct cw_assembly_config. */
void wal_world_open(struct wal_world *w, size_t frame_bytes, size_t spool_bytes);

/* Sends something: a transaction, a piece of a streamed one, its commit or abort, a message, a
 * keepalive, or a moment without news. */
void wal_world_step(struct wal_world *w);

/* Commits or aborts what is streamed, and has everything delivered. */
void wal_world_end(struct wal_world *w);

/* What was delivered is what was to be delivered. */
void wal_world_check(const struct wal_world *w);
void wal_world_close(struct wal_world *w);

#endif
