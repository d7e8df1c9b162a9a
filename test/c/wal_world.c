#include "wal_world.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>

#define SUBS 6

struct wal_stream {
    struct wal_stream *next;
    uint32_t xid;
    uint32_t subs[SUBS]; /* subtransactions, the xid first */
    bool aborted[SUBS];
    uint32_t n_subs;
    bool started;
    bool has_origin;
    struct line {
        int sub;
        struct cw_buf text;
    } * lines;
    size_t n, cap;
};

/* ---- text ---- */

static void put(struct cw_buf *buf, const char *format, ...) {
    char text[256];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    CHECK(n >= 0 && (size_t)n < sizeof text);
    cw_buf_put(buf, text, (size_t)n);
}

static struct cw_buf text_new(void) {
    struct cw_buf buf;
    cw_buf_init(&buf, &cw_mem_std, NULL, 0);
    return buf;
}

static void put_hex(struct cw_buf *buf, struct cw_bytes s) {
    for (size_t i = 0; i < s.n; i++)
        put(buf, "%02x", s.p[i]);
    put(buf, "\n");
}

static void put_header(struct cw_buf *buf, const struct cw_block *b) {
    put(buf, "tx xid %" PRIu32 " commit %" PRIu64 " end %" PRIu64 " time %" PRId64, b->xid,
        b->commit_lsn, b->end_lsn, b->commit_time);
    put(buf, " %s%s origin %" PRIu64 " ", b->flags & CW_BLOCK_STREAMED ? "streamed" : "",
        b->flags & CW_BLOCK_MESSAGE ? "message" : "", b->origin_lsn);
    cw_buf_bytes(buf, b->origin);
    put(buf, "\n");
}

/* ---- the consumer ---- */

static void take_block(struct wal_world *w, struct cw_block *b, struct cw_reader *messages) {
    CHECK((b->flags & CW_BLOCK_FIRST) ? w->part.n == 0 : w->part.n > 0);
    w->parts++;
    if (b->flags & CW_BLOCK_FIRST)
        put(&w->part, "\n"); /* so that it is not empty */
    for (uint32_t i = 0; i < b->messages; i++)
        put_hex(&w->part, cw_block_message(messages));
    CHECK_OK(cw_reader_whole(messages));
    CHECK(b->end_lsn ? b->flags & CW_BLOCK_LAST : !(b->flags & CW_BLOCK_LAST));
    if (!(b->flags & CW_BLOCK_LAST))
        return;
    put_header(&w->got, b);
    cw_buf_put(&w->got, w->part.p + 1, w->part.n - 1);
    w->part.n = 0;
}

static enum cw_err sink(void *ctx, struct cw_bytes frame) {
    struct wal_world *w = ctx;
    struct cw_block block;
    struct cw_reader r = cw_reader(frame), messages;
    if (w->sink_fails_after >= 0 && w->sink_fails_after-- == 0)
        return CW_EBUDGET;
    CHECK(cw_read_byte(&r) == CW_FRAME_TAG && frame.n > 1);
    while (cw_block_next(&r, &block, &messages))
        take_block(w, &block, &messages);
    CHECK_OK(r.err);
    w->frames++;
    return CW_OK;
}

/* ---- files ---- */

struct file {
    struct wal_world *world;
    struct cw_buf bytes;
};

static bool spill_fails(struct wal_world *w) {
    return w->spill_fails_after >= 0 && w->spill_fails_after-- == 0;
}

static enum cw_err file_open(void *ctx, void **file) {
    struct wal_world *w = ctx;
    if (spill_fails(w))
        return CW_ESPILL;
    struct file *f = malloc(sizeof *f);
    *f = (struct file){w, text_new()};
    w->files++;
    *file = f;
    return CW_OK;
}

static enum cw_err file_append(void *file, struct cw_bytes s) {
    struct file *f = file;
    if (spill_fails(f->world))
        return CW_ESPILL;
    cw_buf_bytes(&f->bytes, s);
    return CW_OK;
}

static enum cw_err file_read(void *file, uint64_t at, void *p, size_t n) {
    struct file *f = file;
    CHECK(at <= f->bytes.n && n <= f->bytes.n - at);
    if (spill_fails(f->world))
        return CW_ESPILL;
    memcpy(p, f->bytes.p + at, n);
    return CW_OK;
}

static void file_close(void *file) {
    struct file *f = file;
    f->world->files--;
    cw_buf_free(&f->bytes);
    free(f);
}

/* ---- the server ---- */

void wal_world_open(struct wal_world *w, size_t frame_bytes, size_t spool_bytes) {
    *w = (struct wal_world){.expected = text_new(),
                            .got = text_new(),
                            .part = text_new(),
                            .lsn = 1000,
                            .next_xid = 700,
                            .sink_fails_after = -1,
                            .spill_fails_after = -1};
    struct cw_assembly_config config = {
        .mem = &check_mem,
        .frame_bytes = frame_bytes,
        .spool_bytes = spool_bytes,
        .spill = {w, file_open, file_append, file_read, file_close},
        .sink_ctx = w,
        .sink = sink,
    };
    w->assembly = cw_assembly_new(&config, w->lsn);
    w->err = w->assembly ? CW_OK : CW_ENOMEM;
}

static void note(struct wal_world *w, enum cw_err err) {
    if (!w->err)
        w->err = err;
    if (w->err)
        return;
    const char *fault = cw_assembly_check(w->assembly);
    if (fault)
        check_failed(__FILE__, __LINE__, fault);
}

/* Sends a message, and frees it. */
static void send_message(struct wal_world *w, struct cw_buf *m) {
    if (m->err) /* the failure that a test asked for */
        note(w, m->err);
    if (!w->err)
        note(w, cw_assembly_feed(w->assembly, cw_buf_slice(m, 0)));
    while (!w->err && cw_assembly_replaying(w->assembly))
        note(w, cw_assembly_replay(w->assembly));
    cw_buf_free(m);
}

static struct cw_buf random_change(uint32_t xid) {
    static char large[3000];
    const char *values[] = {"1", NULL, UNCHANGED, "abc"};
    uint32_t oids[] = {5, 6};
    memset(large, 'x', sizeof large - 1);
    large[check_below(20) ? check_below(200) : sizeof large - 1] = 0;
    values[check_below(4)] = large;
    switch (check_below(8)) {
    case 0:
        return msg_relation(xid, 5, "t", (uint16_t)check_below(5));
    case 1:
        return msg_type(xid, 9, "mood");
    case 2:
        return msg_truncate(xid, oids, 2, 1);
    case 3:
        return msg_logical(xid, 1, 5, "prefix", "content");
    default:
        return msg_insert(xid, 5, values, 4);
    }
}

/* What is to be delivered of a message. */
static void put_expected(struct wal_world *w, struct cw_buf *text, const struct cw_buf *m,
                         bool streamed) {
    struct cw_buf cut = text_new();
    size_t from = streamed && cw_pg_has_xid(m->p[0]) ? 5 : 1;
    if (m->p[0] == 'R') {
        cw_buf_byte(&cut, CW_FRAME_RELATION);
        cw_buf_u64be(&cut, ++w->arrival);
    }
    cw_buf_byte(&cut, m->p[0]);
    cw_buf_put(&cut, m->p + from, m->n - from);
    put_hex(text, cw_buf_slice(&cut, 0));
    cw_buf_free(&cut);
}

static struct cw_block next_commit(struct wal_world *w, uint32_t xid, uint8_t flags) {
    struct cw_block b = {.flags = flags, .xid = xid, .commit_time = (int64_t)check_below(1000)};
    b.commit_lsn = w->lsn += check_below(3);
    b.end_lsn = w->lsn += 1 + check_below(100);
    return b;
}

static void send_transaction(struct wal_world *w) {
    struct cw_block b = next_commit(w, w->next_xid++, 0);
    struct cw_buf m = msg_begin(b.xid, b.commit_lsn, b.commit_time), lines = text_new();
    send_message(w, &m);
    if (check_below(3) == 0) {
        b.origin_lsn = 77;
        b.origin = cw_bytes("paris", 5);
        m = msg_origin(77, "paris");
        send_message(w, &m);
    }
    for (uint64_t n = check_below(check_below(10) ? 5 : 60); n > 0 && !w->err; n--) {
        m = random_change(0);
        if (!m.err)
            put_expected(w, &lines, &m, false);
        send_message(w, &m);
    }
    m = msg_commit(b.commit_lsn, b.end_lsn, b.commit_time);
    send_message(w, &m);
    if (lines.n) {
        put_header(&w->expected, &b);
        cw_buf_bytes(&w->expected, cw_buf_slice(&lines, 0));
    }
    cw_buf_free(&lines);
}

/* ---- streamed transactions ---- */

static struct wal_stream *new_stream(struct wal_world *w) {
    struct wal_stream *s = calloc(1, sizeof *s);
    s->xid = s->subs[0] = w->next_xid++;
    s->n_subs = 1;
    s->next = w->streams;
    return w->streams = s;
}

static void free_stream(struct wal_world *w, struct wal_stream *s) {
    struct wal_stream **at = &w->streams;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    for (size_t i = 0; i < s->n; i++)
        cw_buf_free(&s->lines[i].text);
    free(s->lines);
    free(s);
}

static int random_sub(struct wal_world *w, struct wal_stream *s) {
    if (s->n_subs < SUBS && check_below(4) == 0)
        s->subs[s->n_subs++] = w->next_xid++;
    int sub;
    do
        sub = (int)check_below(s->n_subs);
    while (s->aborted[sub]);
    return sub;
}

static void add_line(struct wal_world *w, struct wal_stream *s, int sub, const struct cw_buf *m) {
    if (s->n == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 16;
        s->lines = realloc(s->lines, s->cap * sizeof *s->lines);
    }
    struct line *line = &s->lines[s->n++];
    *line = (struct line){sub, text_new()};
    put_expected(w, &line->text, m, true);
}

static void send_piece(struct wal_world *w, struct wal_stream *s) {
    struct cw_buf m = msg_stream_start(s->xid, !s->started);
    send_message(w, &m);
    if (!s->started && check_below(3) == 0) {
        m = msg_origin(88, "tokyo");
        send_message(w, &m);
        s->has_origin = true;
    }
    s->started = true;
    for (uint64_t n = check_below(30); n > 0 && !w->err; n--) {
        int sub = random_sub(w, s);
        m = random_change(s->subs[sub]);
        if (!m.err)
            add_line(w, s, sub, &m);
        send_message(w, &m);
    }
    m = msg_stream_stop();
    send_message(w, &m);
}

static void commit_stream(struct wal_world *w, struct wal_stream *s) {
    struct cw_block b = next_commit(w, s->xid, CW_BLOCK_STREAMED);
    struct cw_buf m = msg_stream_commit(s->xid, b.commit_lsn, b.end_lsn, b.commit_time);
    bool any = false;
    if (s->has_origin) {
        b.origin_lsn = 88;
        b.origin = cw_bytes("tokyo", 5);
    }
    for (size_t i = 0; i < s->n; i++) {
        if (s->aborted[s->lines[i].sub])
            continue;
        if (!any)
            put_header(&w->expected, &b);
        any = true;
        cw_buf_bytes(&w->expected, cw_buf_slice(&s->lines[i].text, 0));
    }
    send_message(w, &m);
    free_stream(w, s);
}

static void abort_sub(struct wal_world *w, struct wal_stream *s) {
    uint32_t sub = (uint32_t)check_below(s->n_subs);
    struct cw_buf m = msg_stream_abort(s->xid, s->subs[sub]);
    send_message(w, &m);
    s->aborted[sub] = true;
    if (sub == 0)
        free_stream(w, s);
}

static void step_stream(struct wal_world *w) {
    struct wal_stream *s = w->streams;
    for (uint64_t i = check_below(4); s && i > 0; i--)
        s = s->next;
    if (!s)
        s = new_stream(w);
    if (!s->started || check_below(4))
        send_piece(w, s);
    else if (check_below(2))
        abort_sub(w, s);
    else
        commit_stream(w, s);
}

static void send_single(struct wal_world *w) {
    struct cw_block b = {.flags = CW_BLOCK_MESSAGE, .commit_lsn = ++w->lsn, .end_lsn = w->lsn};
    struct cw_buf m = msg_logical(0, 0, w->lsn, "alone", "now");
    if (!m.err) {
        put_header(&w->expected, &b);
        put_hex(&w->expected, cw_buf_slice(&m, 0));
    }
    send_message(w, &m);
}

void wal_world_step(struct wal_world *w) {
    if (w->err)
        return;
    switch (check_below(8)) {
    case 0:
        note(w, cw_assembly_flush(w->assembly));
        break;
    case 1:
        cw_assembly_keepalive(w->assembly, w->lsn += check_below(2));
        break;
    case 2:
        send_single(w);
        break;
    case 3:
    case 4:
        send_transaction(w);
        break;
    default:
        step_stream(w);
    }
}

void wal_world_end(struct wal_world *w) {
    while (w->streams && !w->err)
        if (check_below(2))
            commit_stream(w, w->streams);
        else
            abort_sub(w, w->streams);
    if (!w->err)
        note(w, cw_assembly_flush(w->assembly));
}

void wal_world_check(const struct wal_world *w) {
    CHECK_OK(w->err);
    CHECK(w->part.n == 0);
    CHECK(cw_bytes_eq(cw_buf_slice(&w->expected, 0), cw_buf_slice(&w->got, 0)));
}

void wal_world_close(struct wal_world *w) {
    while (w->streams)
        free_stream(w, w->streams);
    cw_assembly_free(w->assembly);
    CHECK(w->files == 0);
    cw_buf_free(&w->expected);
    cw_buf_free(&w->got);
    cw_buf_free(&w->part);
}
