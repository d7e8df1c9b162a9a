/* What has come of one streamed transaction, until it commits or aborts: a list of records, each of
 * a subtransaction, appended in memory, moved to a file when the owner says so, and read back once,
 * from the start, without those of subtransactions that were aborted.
 *
 *     | file: the records before | memory: chunks, no record is cut in two | */
#ifndef CW_SPOOL_H
#define CW_SPOOL_H

#include "../core/cw_buf.h"

/* Where spools go when memory is short; the port program has it write to temporary files, tests
 * where they like. Each returns CW_OK or an error, which whoever called the spool gets. `close`
 * removes the file. */
struct cw_spill {
    void *ctx;
    enum cw_err (*open)(void *ctx, void **file);
    enum cw_err (*append)(void *file, struct cw_bytes s);
    enum cw_err (*read)(void *file, uint64_t at, void *p, size_t n);
    void (*close)(void *file);
};

struct cw_spool_chunk;

struct cw_spool {
    const struct cw_mem *mem;
    const struct cw_spill *spill;
    struct cw_spool_chunk *first, *last;
    size_t memory; /* bytes of chunks, their unused ends included */
    void *file;    /* NULL: nothing has been spilled */
    uint64_t file_size;
    uint32_t *aborted; /* sorted */
    uint32_t n_aborted;
    uint32_t cap_aborted;
    /* reading */
    uint64_t file_at;     /* how much of the file has been read */
    struct cw_buf window; /* a piece of it */
    size_t window_at;
    size_t chunk_at;
};

void cw_spool_init(struct cw_spool *spool, const struct cw_mem *mem, const struct cw_spill *spill);
void cw_spool_free(struct cw_spool *spool);

/* Appends a record made of two pieces. CW_ENOMEM: it is as it was. */
enum cw_err cw_spool_add(struct cw_spool *spool, uint32_t xid, struct cw_bytes head,
                         struct cw_bytes rest);

/* The records of this subtransaction will not be read. CW_ENOMEM: they would be. */
enum cw_err cw_spool_abort(struct cw_spool *spool, uint32_t xid);

/* Moves all that is in memory to the file. What `spill` returned, then the spool can only be
 * freed. */
enum cw_err cw_spool_spill(struct cw_spool *spool);

/* The next record that is to be read, or false at the end. It is valid until the next call. After
 * the first, nothing may be added or spilled. An empty record is none: so much was skipped that
 * whoever has other things to do should see to them before the next call. */
enum cw_err cw_spool_next(struct cw_spool *spool, struct cw_bytes *record, bool *more);

#endif
