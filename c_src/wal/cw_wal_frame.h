/* Frames of transactions, as the port program sends them and the NIF reads them: pgoutput's
 * messages, put together by transaction.
 *
 *     frame    'T' block*
 *     block    size:32 flags:8 xid:32 commit_lsn:64 end_lsn:64 commit_time:64
 *              origin_lsn:64 origin_size:16 messages:32   origin:origin_size   message*
 *     message  size:32 bytes:size
 *
 * All integers are big-endian; `size` counts what comes after it. A block is one transaction, or a
 * part of one: parts of a transaction come one after another, the first and the last are marked,
 * and only the last knows `end_lsn`. A message is as pgoutput sent it, but for two things. The xid
 * that it carries in a streamed block is taken out. And Relation has nine bytes in front:
 *
 *     'r' arrival:64 'R' oid:32 ...
 *
 * A streamed transaction is delivered when it commits, with relations as they were when its changes
 * were sent. Of two descriptions of a relation the one with the greater arrival is the server's
 * latest, whichever is delivered last. */
#ifndef CW_WAL_FRAME_H
#define CW_WAL_FRAME_H

#include "../core/cw_buf.h"
#include "../core/cw_reader.h"

#define CW_FRAME_TAG 'T'
#define CW_FRAME_RELATION 'r'
#define CW_ARRIVAL 9u /* bytes in front of a relation */

enum cw_block_flags {
    CW_BLOCK_FIRST = 1,
    CW_BLOCK_LAST = 2,
    CW_BLOCK_STREAMED = 4,
    CW_BLOCK_MESSAGE = 8, /* a logical message outside of transactions, by itself */
    CW_BLOCK_FLAGS = 15,
};

struct cw_block {
    uint8_t flags;
    uint32_t xid;
    uint64_t commit_lsn;
    uint64_t end_lsn;
    int64_t commit_time; /* microseconds since the year 2000 */
    uint64_t origin_lsn;
    struct cw_bytes origin;
    uint32_t messages;
};

#define CW_BLOCK_HEAD 47u /* with its size, without its origin */
#define CW_ORIGIN_MAX 65535u

/* ---- writing ---- */

struct cw_frame {
    struct cw_buf buf;
    size_t open;    /* where the block that is open begins, or 0 */
    size_t closed;  /* where the last block that is closed ends */
    uint32_t count; /* messages in the open block */
};

void cw_frame_init(struct cw_frame *frame, const struct cw_mem *mem);
void cw_frame_free(struct cw_frame *frame);

/* Begins a block; `block->end_lsn` and `block->messages` are written when it is closed. */
void cw_frame_open(struct cw_frame *frame, const struct cw_block *block);

/* Adds a message to the open block, in two pieces of which either may be empty. */
void cw_frame_add(struct cw_frame *frame, struct cw_bytes head, struct cw_bytes rest);

/* Ends the open block; with CW_BLOCK_LAST in `flags` it is the last of its transaction. `flags` are
 * added to those it was opened with. */
void cw_frame_close(struct cw_frame *frame, uint8_t flags, uint64_t end_lsn);

/* Forgets the blocks that are closed; the open one goes to the front. */
void cw_frame_shift(struct cw_frame *frame);

/* ---- reading ---- */

/* A frame's blocks, after its tag, are read with a reader of its own; a block's messages with the
 * one that is set here. The first failure sticks in `r->err`. */
bool cw_block_next(struct cw_reader *r, struct cw_block *block, struct cw_reader *messages);
struct cw_bytes cw_block_message(struct cw_reader *messages);

#endif
