#include "cw_assembly.h"

#include "cw_pgoutput.h"

enum state { START, TRANSACTION, STREAM, REPLAY };

/* A streamed transaction. */
struct streamed {
    struct streamed *next;
    uint32_t xid;
    uint64_t origin_lsn;
    struct cw_buf origin;
    struct cw_spool spool;
};

struct cw_assembly {
    struct cw_assembly_config config;
    struct cw_frame frame;
    struct cw_positions positions;
    enum state state;
    struct cw_block block;    /* of the transaction that goes into frames */
    struct cw_buf origin;     /* its name */
    bool begun;               /* some message of it has gone there */
    struct streamed *streams; /* all that are kept, the one that came last first */
    struct streamed *current; /* of the stream, or of the replay */
    uint64_t end_lsn;         /* of the replay */
    uint64_t arrival;
    uint64_t frames; /* that have been handed on */
    const char *what;
    struct cw_assembly_info info;
};

/* ---- life ---- */

struct cw_assembly *cw_assembly_new(const struct cw_assembly_config *config, uint64_t start) {
    struct cw_assembly *a = cw_alloc(config->mem, sizeof *a);
    if (!a)
        return NULL;
    *a = (struct cw_assembly){.config = *config, .positions = cw_positions_at(start), .what = ""};
    cw_frame_init(&a->frame, config->mem);
    cw_buf_init(&a->origin, config->mem, NULL, 0);
    return a;
}

static void free_streamed(struct cw_assembly *a, struct streamed *s) {
    cw_buf_free(&s->origin);
    cw_spool_free(&s->spool);
    cw_free(a->config.mem, s);
}

void cw_assembly_free(struct cw_assembly *a) {
    if (!a)
        return;
    for (struct streamed *s = a->streams, *next; s; s = next) {
        next = s->next;
        free_streamed(a, s);
    }
    cw_frame_free(&a->frame);
    cw_buf_free(&a->origin);
    cw_free(a->config.mem, a);
}

static enum cw_err refuse(struct cw_assembly *a, const char *what) {
    a->what = what;
    return CW_EPROTOCOL;
}

/* ---- frames ---- */

static enum cw_err hand_on(struct cw_assembly *a) {
    if (a->frame.buf.err)
        return CW_ENOMEM;
    enum cw_err err = a->config.sink(a->config.sink_ctx, cw_bytes(a->frame.buf.p, a->frame.closed));
    if (err)
        return err;
    cw_positions_deliver(&a->positions);
    cw_frame_shift(&a->frame);
    a->frames++;
    return CW_OK;
}

enum cw_err cw_assembly_flush(struct cw_assembly *a) {
    return a->frame.closed > 1 ? hand_on(a) : CW_OK;
}

static bool is_full(const struct cw_assembly *a) {
    return a->frame.buf.n >= a->config.frame_bytes;
}

static void open_block(struct cw_assembly *a) {
    a->block.flags &= ~CW_BLOCK_FIRST;
    if (!a->begun)
        a->block.flags |= CW_BLOCK_FIRST;
    a->begun = true;
    cw_frame_open(&a->frame, &a->block);
}

/* Adds a message of the transaction that goes into frames. When there are enough, those before it
 * leave; a transaction that fills a frame by itself leaves in parts. */
static enum cw_err put_message(struct cw_assembly *a, struct cw_bytes head, struct cw_bytes rest) {
    if (!a->frame.open)
        open_block(a);
    cw_frame_add(&a->frame, head, rest);
    a->info.messages++;
    if (!is_full(a))
        return a->frame.buf.err;
    if (a->frame.closed == 1)
        cw_frame_close(&a->frame, 0, 0);
    return hand_on(a);
}

static void begin(struct cw_assembly *a, uint8_t flags, uint32_t xid, uint64_t commit_lsn,
                  int64_t commit_time) {
    a->block = (struct cw_block){
        .flags = flags, .xid = xid, .commit_lsn = commit_lsn, .commit_time = commit_time};
    a->begun = false;
}

/* A part without messages tells the end, when all others have left. */
static enum cw_err finish(struct cw_assembly *a, uint64_t end_lsn) {
    a->state = START;
    if (!a->begun) {
        cw_positions_idle(&a->positions, end_lsn);
        return CW_OK;
    }
    if (!a->frame.open)
        open_block(a);
    cw_frame_close(&a->frame, CW_BLOCK_LAST, end_lsn);
    cw_positions_complete(&a->positions, end_lsn);
    a->info.transactions++;
    return is_full(a) ? hand_on(a) : a->frame.buf.err;
}

/* ---- transactions that are sent when they have committed ---- */

static enum cw_err take_begin(struct cw_assembly *a, const struct cw_pg_begin *m) {
    if (a->state != START)
        return refuse(a, "Begin within a transaction");
    begin(a, 0, m->xid, m->commit_lsn, m->commit_time);
    a->state = TRANSACTION;
    return CW_OK;
}

static enum cw_err take_commit(struct cw_assembly *a, const struct cw_pg_commit *m) {
    if (a->state != TRANSACTION)
        return refuse(a, "Commit without Begin");
    if (m->commit_lsn != a->block.commit_lsn)
        return refuse(a, "Commit of another transaction than Begin");
    return finish(a, m->end_lsn);
}

static enum cw_err take_origin(struct cw_assembly *a, const struct cw_pg_origin *m) {
    bool streamed = a->state == STREAM;
    if (m->name.n > CW_ORIGIN_MAX)
        return refuse(a, "the name of an origin is too long");
    if (!streamed && (a->state != TRANSACTION || a->begun))
        return refuse(a, "Origin not at the start of a transaction");
    struct cw_buf *name = streamed ? &a->current->origin : &a->origin;
    name->n = 0;
    cw_buf_bytes(name, m->name);
    if (streamed) {
        a->current->origin_lsn = m->lsn;
    } else {
        a->block.origin_lsn = m->lsn;
        a->block.origin = cw_buf_slice(name, 0);
    }
    return name->err;
}

/* ---- streamed transactions ---- */

static struct streamed *find_streamed(const struct cw_assembly *a, uint32_t xid) {
    struct streamed *s = a->streams;
    while (s && s->xid != xid)
        s = s->next;
    return s;
}

static void drop_streamed(struct cw_assembly *a, struct streamed *s) {
    struct streamed **at = &a->streams;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    free_streamed(a, s);
}

static enum cw_err new_streamed(struct cw_assembly *a, uint32_t xid, struct streamed **out) {
    struct streamed *s = cw_alloc(a->config.mem, sizeof *s);
    if (!s)
        return CW_ENOMEM;
    *s = (struct streamed){.next = a->streams, .xid = xid};
    cw_buf_init(&s->origin, a->config.mem, NULL, 0);
    cw_spool_init(&s->spool, a->config.mem, &a->config.spill);
    *out = a->streams = s;
    return CW_OK;
}

static enum cw_err take_stream_start(struct cw_assembly *a, const struct cw_pg_stream_start *m) {
    struct streamed *s = find_streamed(a, m->xid);
    if (a->state != START)
        return refuse(a, "Stream Start within a transaction");
    if (!s != m->first)
        return refuse(a, m->first ? "a streamed transaction starts twice"
                                  : "a streamed transaction goes on that has not started");
    if (!s && new_streamed(a, m->xid, &s))
        return CW_ENOMEM;
    a->current = s;
    a->state = STREAM;
    return CW_OK;
}

static enum cw_err take_stream_stop(struct cw_assembly *a) {
    if (a->state != STREAM)
        return refuse(a, "Stream Stop without Stream Start");
    a->current = NULL;
    a->state = START;
    return CW_OK;
}

static enum cw_err take_stream_commit(struct cw_assembly *a, const struct cw_pg_commit *m) {
    struct streamed *s = find_streamed(a, m->xid);
    if (a->state != START)
        return refuse(a, "Stream Commit within a transaction");
    if (!s)
        return refuse(a, "Stream Commit of a transaction that was not streamed");
    begin(a, CW_BLOCK_STREAMED, m->xid, m->commit_lsn, m->commit_time);
    a->block.origin_lsn = s->origin_lsn;
    a->block.origin = cw_buf_slice(&s->origin, 0);
    a->current = s;
    a->end_lsn = m->end_lsn;
    a->state = REPLAY;
    return CW_OK;
}

/* Of one that is not known there is nothing to drop. */
static enum cw_err take_stream_abort(struct cw_assembly *a, const struct cw_pg_stream_abort *m) {
    struct streamed *s = find_streamed(a, m->xid);
    if (a->state != START)
        return refuse(a, "Stream Abort within a transaction");
    if (s && m->subxid != m->xid)
        return cw_spool_abort(&s->spool, m->subxid);
    if (s)
        drop_streamed(a, s);
    return CW_OK;
}

/* Moves the largest to files until the rest is within the limit. */
static enum cw_err spill_some(struct cw_assembly *a) {
    size_t kept = 0;
    struct streamed *largest = a->streams;
    for (struct streamed *s = a->streams; s; s = s->next) {
        kept += s->spool.memory;
        if (s->spool.memory > largest->spool.memory)
            largest = s;
    }
    if (kept <= a->config.spool_bytes)
        return CW_OK;
    enum cw_err err = cw_spool_spill(&largest->spool);
    return err ? err : spill_some(a);
}

bool cw_assembly_replaying(const struct cw_assembly *a) {
    return a->state == REPLAY;
}

enum cw_err cw_assembly_replay(struct cw_assembly *a) {
    struct cw_bytes record;
    bool more = true;
    uint64_t frames = a->frames;
    while (more && a->frames == frames) {
        enum cw_err err = cw_spool_next(&a->current->spool, &record, &more);
        if (!err && more && !record.n)
            return CW_OK;
        if (!err && more)
            err = put_message(a, record, cw_bytes("", 0));
        if (err)
            return err;
    }
    if (more)
        return CW_OK;
    enum cw_err err = finish(a, a->end_lsn);
    drop_streamed(a, a->current);
    a->current = NULL;
    return err;
}

/* ---- messages ---- */

/* What of a message is delivered: without the xid, a relation with its arrival. `space` has room
 * for what stands in front. */
static void split_message(struct cw_assembly *a, struct cw_bytes s, bool streamed,
                          uint8_t space[CW_ARRIVAL + 1], struct cw_bytes *head,
                          struct cw_bytes *rest) {
    size_t from = streamed ? 5 : 1, n = 0;
    if (s.p[0] == CW_PG_RELATION) {
        space[0] = CW_FRAME_RELATION;
        cw_store64be(space + 1, ++a->arrival);
        n = CW_ARRIVAL;
    }
    space[n] = s.p[0];
    *head = cw_bytes(space, n + 1);
    *rest = cw_bytes(s.p + from, s.n - from);
}

/* A logical message that no transaction holds back: a block of its own. */
static enum cw_err take_single(struct cw_assembly *a, struct cw_bytes s, uint64_t lsn) {
    begin(a, CW_BLOCK_MESSAGE, 0, lsn, 0);
    open_block(a);
    cw_frame_add(&a->frame, s, cw_bytes("", 0));
    a->info.messages++;
    return finish(a, lsn);
}

static enum cw_err take_content(struct cw_assembly *a, struct cw_bytes s,
                                const struct cw_pg_message *m) {
    uint8_t space[CW_ARRIVAL + 1];
    struct cw_bytes head, rest;
    if (a->state == START) {
        if (m->type == CW_PG_MESSAGE && !(m->as.logical.flags & CW_PG_TRANSACTIONAL))
            return take_single(a, s, m->as.logical.lsn);
        return refuse(a, "a change outside of a transaction");
    }
    split_message(a, s, a->state == STREAM, space, &head, &rest);
    if (a->state == TRANSACTION)
        return put_message(a, head, rest);
    struct cw_spool *spool = &a->current->spool;
    size_t memory = spool->memory;
    enum cw_err err = cw_spool_add(spool, m->xid, head, rest);
    return err || spool->memory == memory ? err : spill_some(a);
}

static enum cw_err take_message(struct cw_assembly *a, struct cw_bytes s,
                                const struct cw_pg_message *m) {
    switch (m->type) {
    case CW_PG_BEGIN:
        return take_begin(a, &m->as.begin);
    case CW_PG_COMMIT:
        return take_commit(a, &m->as.commit);
    case CW_PG_ORIGIN:
        return take_origin(a, &m->as.origin);
    case CW_PG_STREAM_START:
        return take_stream_start(a, &m->as.stream_start);
    case CW_PG_STREAM_STOP:
        return take_stream_stop(a);
    case CW_PG_STREAM_COMMIT:
        return take_stream_commit(a, &m->as.commit);
    case CW_PG_STREAM_ABORT:
        return take_stream_abort(a, &m->as.stream_abort);
    default:
        return take_content(a, s, m);
    }
}

enum cw_err cw_assembly_feed(struct cw_assembly *a, struct cw_bytes message) {
    struct cw_pg_message m;
    if (a->state == REPLAY)
        return refuse(a, "a message while a streamed transaction is delivered");
    enum cw_err err = cw_pg_parse(message, a->state == STREAM, &m);
    if (err) {
        a->what = cw_err_sentence(err);
        return err;
    }
    return take_message(a, message, &m);
}

void cw_assembly_keepalive(struct cw_assembly *a, uint64_t wal_end) {
    if (a->state == START)
        cw_positions_idle(&a->positions, wal_end);
}

struct cw_positions *cw_assembly_positions(struct cw_assembly *a) {
    return &a->positions;
}

const char *cw_assembly_what(const struct cw_assembly *a) {
    return a->what;
}

void cw_assembly_info(const struct cw_assembly *a, struct cw_assembly_info *info) {
    *info = a->info;
    for (const struct streamed *s = a->streams; s; s = s->next) {
        info->streamed++;
        info->memory += s->spool.memory;
        info->spilled += s->spool.file_size;
    }
}

const char *cw_assembly_check(const struct cw_assembly *a) {
    const struct cw_positions *p = &a->positions;
    if ((a->state == STREAM || a->state == REPLAY) != (a->current != NULL))
        return "a current stream outside of streams";
    if (a->current && find_streamed(a, a->current->xid) != a->current)
        return "the current stream is not kept";
    if (a->state == START && a->frame.open)
        return "an open block outside of transactions";
    if (p->delivered > p->complete || cw_positions_confirmed(p) < p->acked)
        return "positions are out of order";
    return NULL;
}
