/* The job of logical replication: START_REPLICATION, and then the stream both ways.
 *
 * What the server sends is put together to transactions (cw_assembly.h), which leave in frames of
 * their own (cw_wal_frame.h) as far as the VM has given credit, in bytes. Without credit nothing is
 * read from the server: then the stream backs up into the server's own files, whatever it comes to.
 *
 * The server ends a connection it has not heard of for wal_sender_timeout. It asks before it does,
 * but what is not read is not heard, so it is told at an interval, unasked, what the VM has
 * confirmed (cw_positions.h), besides when it asks and when there is something new to tell. It is
 * then asked to answer: a server that is silent for too long, while it is listened to, counts as
 * lost. */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "port_answer.h"
#include "port_mem.h"
#include "port_spill.h"
#include "port_wal.h"

#define NEWS_MS 100    /* between two confirmations of something new */
#define ANSWER_MS 10   /* between two answers that tell nothing new */
#define REPORT_MS 1000 /* between two reports to the VM, when there was something to report */

/* Waiting a moment after a turn lets messages gather: the server sends each by itself and wakes the
 * reader each time, so less of that is less work for both, and faster. It is done only when there
 * is so much to read that it does not delay a single transaction. */
#define GATHER_NS 50000 /* with what the system adds, about 100 us */
#define BUSY_WINDOW_US 1000
#define BUSY_MESSAGES 40 /* in that time */

/* Then transactions wait a moment, too, so that a frame, which wakes the VM, has more of them. */
#define HOLD_BYTES (32u << 10)
#define HOLD_MS 2

struct wal {
    enum { RESULTS, STREAMING, ENDING } phase;
    struct port *port;
    struct cw_assembly *assembly;
    struct port_spill spill;
    int64_t credit;
    int64_t interval;
    int64_t patience; /* how long the server may be silent, 0 for any time */
    uint64_t told;    /* what the server was told is confirmed */
    int64_t told_at;
    int64_t tell_at;     /* when to tell it again at the latest */
    int64_t asked_at;    /* for an answer */
    uint32_t unanswered; /* how often it was asked since it last said something */
    int64_t report_at;
    bool lacking; /* the server has left something out */
    bool resting; /* in a replay, until the loop has been round */
    bool news;    /* something has come since the last report */
    struct port_wal_report report;
    int64_t window;     /* when it began, in microseconds */
    uint32_t in_window; /* messages */
    int64_t flush_at;   /* when what is complete goes to the VM at the latest */
    char dir[];
};

/* ---- clocks ---- */

static int64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* The server's way to tell the time: microseconds since the year 2000. */
static int64_t server_clock(void) {
    struct timeval t;
    gettimeofday(&t, NULL);
    return ((int64_t)t.tv_sec - 946684800) * 1000000 + t.tv_usec;
}

/* ---- failures ---- */

static void give_up(struct wal *w, enum cw_err err, uint64_t lsn) {
    char text[512];
    if (err == CW_ENOMEM)
        port_out_of_memory();
    if (err == CW_ESPILL) {
        snprintf(text, sizeof text,
                 "a streamed transaction could not be kept in %.300s: %s failed: %s", w->dir,
                 w->spill.failed, strerror(w->spill.error));
        port_end(w->port, "spill", text);
    } else {
        snprintf(text, sizeof text,
                 "the server sent what its protocol does not allow, at WAL position %" PRIX32
                 "/%" PRIX32 ": %s",
                 (uint32_t)(lsn >> 32), (uint32_t)lsn, cw_assembly_what(w->assembly));
        port_end(w->port, "wal", text);
    }
}

/* ---- to the server ---- */

static void put64(uint8_t **p, uint64_t v) {
    cw_store64be(*p, v);
    *p += 8;
}

/* 'r', written, flushed and applied positions, our clock, whether an answer is wanted. Nothing is
 * called written that is not confirmed. */
static void tell_server(struct port *port, struct wal *w, bool ask) {
    uint8_t message[34] = {'r'}, *p = message + 1;
    uint64_t confirmed = cw_positions_confirmed(cw_assembly_positions(w->assembly));
    put64(&p, confirmed);
    put64(&p, confirmed);
    put64(&p, confirmed);
    put64(&p, (uint64_t)server_clock());
    *p = ask;
    if (PQputCopyData(port->conn, (const char *)message, sizeof message) < 0) {
        port_lost(port, NULL);
        return;
    }
    w->told = w->report.confirmed = confirmed;
    w->told_at = port_now();
    if (ask)
        w->asked_at = w->told_at;
    w->tell_at = w->told_at + w->interval;
    w->news = true;
    port_flush(port);
}

static void tell_by(struct wal *w, int64_t at) {
    if (at < w->tell_at)
        w->tell_at = at;
}

/* Something may be confirmed that the server does not know. */
static void confirm(struct port *port, struct wal *w) {
    if (cw_positions_confirmed(cw_assembly_positions(w->assembly)) == w->told)
        return;
    int64_t at = w->told_at + NEWS_MS;
    if (port_now() >= at)
        tell_server(port, w, false);
    else
        tell_by(w, at);
}

/* ---- from the server ---- */

static enum cw_err send_frame(void *ctx, struct cw_bytes frame) {
    struct wal *w = ctx;
    port_out_begin(&w->port->out);
    cw_buf_bytes(&w->port->out.buf, frame);
    port_out_end(&w->port->out);
    w->credit -= (int64_t)frame.n;
    return CW_OK;
}

#define DATA_HEAD 25 /* 'w', where the data is, how far the server is, its clock */
#define KEEPALIVE 18 /* 'k', how far the server is, its clock, whether it wants an answer */

static void take_data(struct port *port, struct wal *w, const uint8_t *s, size_t n) {
    w->report.server = cw_load64be(s + 9);
    w->report.sent_at = (int64_t)cw_load64be(s + 17);
    w->report.bytes += n - DATA_HEAD;
    enum cw_err err = cw_assembly_feed(w->assembly, cw_bytes(s + DATA_HEAD, n - DATA_HEAD));
    if (err)
        give_up(w, err, cw_load64be(s + 1));
    (void)port;
}

/* A server that shuts down asks again at each answer, until all that it has sent is confirmed: what
 * it knows already it is told a little later. */
static void take_keepalive(struct port *port, struct wal *w, const uint8_t *s) {
    w->report.server = cw_load64be(s + 1);
    w->report.sent_at = (int64_t)cw_load64be(s + 9);
    if (!w->lacking)
        cw_assembly_keepalive(w->assembly, w->report.server);
    uint64_t confirmed = cw_positions_confirmed(cw_assembly_positions(w->assembly));
    if (s[17] && (confirmed != w->told || port_now() >= w->told_at + ANSWER_MS))
        tell_server(port, w, false);
    else if (s[17])
        tell_by(w, w->told_at + ANSWER_MS);
    else
        confirm(port, w);
}

/* PostgreSQL 18 goes on without a publication that is not there. The VM ends the connection when it
 * is told; until then nothing is confirmed that the server only seems to have sent. */
static void take_notice(struct port *port, const PGresult *res) {
    struct wal *w = port->work;
    const char *code = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    const char *routine = PQresultErrorField(res, PG_DIAG_SOURCE_FUNCTION);
    if (code && routine && !strcmp(code, "55000") && !strcmp(routine, "LoadPublications"))
        w->lacking = true;
}

static void take_message(struct port *port, struct wal *w, const uint8_t *s, size_t n) {
    w->news = true;
    w->unanswered = 0;
    w->in_window++;
    if (n > DATA_HEAD && s[0] == 'w')
        take_data(port, w, s, n);
    else if (n == KEEPALIVE && s[0] == 'k')
        take_keepalive(port, w, s);
    else
        port_end(port, "wal", "the server sent a message of replication that is none");
}

/* False when there is nothing more now. */
static bool take_copy_data(struct port *port, struct wal *w) {
    char *data;
    int n = PQgetCopyData(port->conn, &data, 1);
    if (n > 0) {
        if (w->phase == STREAMING)
            take_message(port, w, (const uint8_t *)data, (size_t)n);
        PQfreemem(data);
    } else if (n < 0) {
        w->phase = RESULTS;
    }
    return n != 0;
}

/* False when the loop should have a look at other things first: what is long, and makes no frames,
 * costs no credit either. */
static bool replay(struct wal *w) {
    int64_t credit = w->credit;
    enum cw_err err = cw_assembly_replay(w->assembly);
    if (err)
        give_up(w, err, 0);
    w->resting = w->credit == credit && cw_assembly_replaying(w->assembly);
    return !w->resting;
}

static bool is_busy(struct wal *w) {
    int64_t now = now_us();
    if (now - w->window < BUSY_WINDOW_US)
        return w->in_window >= BUSY_MESSAGES;
    bool busy = (int64_t)w->in_window * BUSY_WINDOW_US >= BUSY_MESSAGES * (now - w->window);
    w->window = now;
    w->in_window = 0;
    return busy;
}

static void gather(struct port *port) {
    static const struct timespec moment = {0, GATHER_NS};
    port_out_flush(&port->out, STDOUT_FILENO);
    nanosleep(&moment, NULL);
}

/* False after a failure. */
static bool flush(struct wal *w) {
    enum cw_err err = cw_assembly_flush(w->assembly);
    w->flush_at = PORT_NEVER;
    if (err)
        give_up(w, err, 0);
    return !err;
}

/* Whether what is complete may wait on. */
static bool may_hold(struct wal *w) {
    size_t pending = cw_assembly_pending(w->assembly);
    int64_t now = port_now();
    if (pending && w->flush_at == PORT_NEVER)
        w->flush_at = now + HOLD_MS;
    return pending < HOLD_BYTES && now < w->flush_at;
}

static bool has_credit(const struct wal *w) {
    return w->credit > 0 || w->phase != STREAMING;
}

/* What has come is delivered, before more is waited for; or waited for a moment longer. */
static void drained(struct port *port, struct wal *w) {
    bool busy = is_busy(w) && !port->nobody;
    if (!(busy && may_hold(w)) && !flush(w))
        return;
    confirm(port, w);
    if (busy)
        gather(port);
}

/* False when nothing more can be done now. */
static bool stream(struct port *port, struct wal *w) {
    if (!has_credit(w) || !port_may_go_on(port))
        return false;
    if (cw_assembly_replaying(w->assembly))
        return replay(w);
    if (take_copy_data(port, w))
        return true;
    drained(port, w);
    return false;
}

/* ---- the beginning and the end ---- */

static void begin_stream(struct port *port, struct wal *w) {
    port_answer_replicating(port);
    port_answer_cut(port);
    w->phase = STREAMING;
    tell_server(port, w, true);
}

static void take_result(struct port *port, struct wal *w, PGresult *res) {
    switch (PQresultStatus(res)) {
    case PGRES_COPY_BOTH:
        begin_stream(port, w);
        break;
    case PGRES_COMMAND_OK:
    case PGRES_TUPLES_OK: /* START_REPLICATION tells the next timeline, of physical replication */
        break;
    case PGRES_FATAL_ERROR:
    case PGRES_BAD_RESPONSE:
        port_answer_error(port, res);
        break;
    default:
        port_end(port, "wal", "the statement does not start a replication");
    }
}

/* False when nothing more can be done now, or the job is over, and `w` with it. */
static bool take_next(struct port *port, struct wal *w) {
    if (PQisBusy(port->conn))
        return false;
    PGresult *res = PQgetResult(port->conn);
    if (res)
        take_result(port, w, res);
    else
        port_job_end(port);
    PQclear(res);
    return res && !port->leaving;
}

static bool step(struct port *port) {
    struct wal *w = port->work;
    return w->phase == STREAMING ? stream(port, w)
           : w->phase == ENDING  ? take_copy_data(port, w)
                                 : take_next(port, w);
}

static void advance(struct port *port) {
    while (!port->over && !port->leaving && step(port))
        continue;
}

static short wants(struct port *port) {
    return has_credit(port->work) && port_may_go_on(port) ? POLLIN : 0;
}

/* Ends the stream in order: the last confirmation, the end of our data, then the server's. */
static void stop(struct port *port) {
    struct wal *w = port->work;
    if (w->phase == ENDING)
        return;
    if (w->phase == RESULTS) {
        port_cancel(port);
        return;
    }
    tell_server(port, w, false);
    w->phase = ENDING;
    if (PQputCopyEnd(port->conn, NULL) < 0)
        port_lost(port, NULL);
    else if (port_flush(port))
        advance(port);
}

/* ---- time ---- */

static int64_t wake(const struct port *port) {
    const struct wal *w = port->work;
    if (w->phase != STREAMING)
        return PORT_NEVER;
    if (w->resting)
        return port_now();
    int64_t at = w->news && w->report_at < w->tell_at ? w->report_at : w->tell_at;
    return w->flush_at < at && has_credit(w) && port_may_read(port) ? w->flush_at : at;
}

/* What is not listened to may well have said something. Questions are counted, not the time, as
 * this program may have been stopped meanwhile; only those that were asked an interval apart. */
static bool is_silent(struct port *port, struct wal *w) {
    if (!has_credit(w) || !port_may_go_on(port))
        w->unanswered = 0;
    return w->patience && w->unanswered++ * w->interval >= w->patience;
}

static void keep_time(struct port *port) {
    struct wal *w = port->work;
    int64_t now = port_now();
    bool ask = now - w->asked_at >= w->interval;
    if (now >= w->tell_at && ask && is_silent(port, w))
        port_end(port, "silent", "the server has not answered for too long");
    else if (now >= w->tell_at)
        tell_server(port, w, ask);
    if (!w->news || now < w->report_at || port->leaving)
        return;
    cw_assembly_info(w->assembly, &w->report.assembly);
    port_tell_wal(port, &w->report);
    w->news = false;
    w->report_at = now + REPORT_MS;
}

static void tick(struct port *port) {
    struct wal *w = port->work;
    keep_time(port);
    if (w->resting || port_now() >= w->flush_at)
        advance(port);
}

/* ---- requests ---- */

/* {confirm, Credit, Lsn}: so many bytes more may be sent; up to `Lsn` all is done, if it is not
 * 0. */
static bool message(struct port *port, const struct port_request *request) {
    struct wal *w = port->work;
    uint32_t credit;
    uint64_t lsn;
    if (request->op != PORT_confirm || !port_read_confirm(request, &credit, &lsn))
        return false;
    w->credit += credit;
    cw_positions_ack(cw_assembly_positions(w->assembly), lsn);
    if (w->phase == STREAMING)
        confirm(port, w);
    advance(port);
    return true;
}

static void free_work(void *work) {
    struct wal *w = work;
    cw_assembly_free(w->assembly);
    port_free(w);
}

const struct port_job port_wal_job = {.wants = wants,
                                      .advance = advance,
                                      .message = message,
                                      .stop = stop,
                                      .wake = wake,
                                      .tick = tick,
                                      .notice = take_notice,
                                      .free = free_work,
                                      .patient = true};

static struct wal *new_work(struct port *port, const struct port_replicate *r) {
    struct wal *w = port_alloc(sizeof *w + r->dir.n + 1);
    *w = (struct wal){.port = port,
                      .credit = r->credit,
                      .interval = r->interval,
                      .patience = r->patience,
                      .told_at = port_now(),
                      .tell_at = PORT_NEVER,
                      .flush_at = PORT_NEVER,
                      .report_at = port_now()};
    memcpy(w->dir, r->dir.p, r->dir.n);
    w->dir[r->dir.n] = 0;
    w->spill.dir = w->dir;
    struct cw_assembly_config config = {.mem = &port_mem,
                                        .frame_bytes = PORT_FRAME_BYTES,
                                        .spool_bytes = r->spool,
                                        .spill = port_spill_callbacks(&w->spill),
                                        .sink_ctx = w,
                                        .sink = send_frame};
    w->assembly = cw_assembly_new(&config, r->start);
    return w;
}

bool port_replicate(struct port *port, const struct port_request *request) {
    struct port_replicate r;
    if (!port_read_replicate(request, &r))
        return false;
    port_job_start(port, &port_wal_job, new_work(port, &r), request);
    port_strings_reset(port);
    if (!PQsendQuery(port->conn, port_string_at(port, port_string(port, r.sql))))
        port_lost(port, NULL);
    else
        port_flush(port);
    return true;
}
