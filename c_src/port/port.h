/* The port program: one process, one connection to a server, one event loop over the VM's pipes and
 * libpq's socket. docs/port.md is its protocol.
 *
 * What it is doing is a job: connecting, running statements, copying, or nothing, which is the idle
 * job. A request of the VM starts one; it ends with the last frame of its answer. The loop asks the
 * job what it waits for, tells it of what happened, and writes the frames it made. Nothing here
 * blocks, but for the resolution of names in connecting.
 *
 *     port_main      the loop
 *     port_frame     frames, in and out
 *     port_request   requests, read
 *     port_term      terms, read
 *     port_answer    answers: records in frames
 *     port_reply     terms in records, and events
 *     port_connect   the job of connecting
 *     port_run       the job of running statements
 *     port_copy      the jobs of COPY in and out
 *     port_wal       the job of replication
 *     port_spill     its temporary files
 *     port_cancel    the thread that cancels
 *     port_mem       memory
 */
#ifndef PORT_H
#define PORT_H

#include <libpq-fe.h>

#include "port_cancel.h"
#include "port_frame.h"
#include "port_request.h"
#include "port_wait.h"

struct port;

/* ---- jobs ---- */

/* A job is these functions and a state of its own, `work`. Each may end the job with port_job_end.
 */
struct port_job {
    /* What it waits for on the socket: POLLIN, POLLOUT. Bytes of libpq's that wait to be sent are
     * the loop's matter; a job that has no credit left, or whose answer nobody reads, does not ask
     * for POLLIN. */
    short (*wants)(struct port *port);
    /* The socket is ready; input has been consumed, output flushed. Called too after what may have
     * changed what the job waits for. Goes on as far as it can without waiting. */
    void (*advance)(struct port *port);
    /* A request with the job's id while it is under way. False when it is none that this job takes.
     * NULL for none. */
    bool (*message)(struct port *port, const struct port_request *request);
    /* The deadline has passed, or the VM wants no more. NULL: what is under way is cancelled on the
     * server. */
    void (*stop)(struct port *port);
    /* When to call `tick` at the latest, in port_now's time, or PORT_NEVER. NULL for never. */
    int64_t (*wake)(const struct port *port);
    void (*tick)(struct port *port);
    /* The server says something beside what it answers. NULL where the VM is told, and that is all.
     */
    void (*notice)(struct port *port, const PGresult *res);
    /* Frees `work`. NULL where port_free is enough. */
    void (*free)(void *work);
    /* The socket is not to be read from: libpq does that by itself, in connecting. */
    bool raw;
    /* What comes is better taken in larger pieces than at once: it waits asleep. */
    bool patient;
};

extern const struct port_job port_idle_job, port_connect_job, port_run_job, port_copy_in_job,
    port_copy_out_job, port_wal_job;

/* Why a job was told to stop. */
enum port_stop { PORT_GO_ON, PORT_STOP_TIMEOUT, PORT_STOP_CANCELLED };

/* ---- the program's state ---- */

struct port {
    struct port_in in;
    struct port_out out;
    struct port_wait wait;
    PGconn *conn;
    bool unsent;  /* libpq has bytes for the server that the socket did not take */
    bool leaving; /* writes what there is to be told, and ends */
    bool nobody;  /* the VM has closed its end: there is nobody to tell */
    int64_t leave_at;

    const struct port_job *job;
    void *work;
    uint32_t id; /* of the request that the job answers */
    int64_t deadline;
    enum port_stop stop;
    int64_t stopped_at;
    int64_t press_at; /* when to cancel again */
    bool over;        /* the job is, but for a cancel that is still under way */
    bool held;        /* it waits for the VM to read */
    struct port_cancel cancel;
    bool cancel_again; /* when the one that is under way is done */

    bool record_open;
    size_t record;          /* where in the open frame the open record begins */
    struct cw_buf strings;  /* scratch: strings with their zero bytes */
    struct cw_buf pointers; /* scratch: arrays for libpq */
};

#define PORT_NEVER INT64_MAX

/* In ms: between cancels, as one that came before its statement had begun was for nothing; after
 * which a server that does not answer any counts as lost; to write the last frames in. */
#define PORT_CANCEL_AGAIN 250
#define PORT_CANCEL_GRACE 5000
#define PORT_LEAVE_GRACE 2000

/* Bytes unread by the VM, at which the server is no longer read from. */
#define PORT_OUT_BYTES (1u << 20)

/* Milliseconds of a clock that only goes forward. */
int64_t port_now(void);

/* Starts a job with its state, as the answer to a request; the idle job must be the current one. */
void port_job_start(struct port *port, const struct port_job *job, void *work,
                    const struct port_request *request);

/* The job is done: once no cancel is under way any more the answer is completed with the
 * transaction's state. */
void port_job_end(struct port *port);

/* Cancels what runs on the server; once more, if that is under way already: it may have hit what
 * came before. */
void port_cancel(struct port *port);

/* Tells the job to stop. What it has not finished fails, on the server too. */
void port_job_stop(struct port *port, enum port_stop why);

/* Flushes what libpq has for the server. False, and the connection is declared lost, when it cannot
 * be. */
bool port_flush(struct port *port);

/* Whether the VM has read most of what it was sent. */
static inline bool port_may_read(const struct port *port) {
    return port_out_pending(&port->out) < PORT_OUT_BYTES;
}

/* Whether the job may read on from the server; if not, it is told to advance when it may. */
static inline bool port_may_go_on(struct port *port) {
    port->held = !port_may_read(port);
    return !port->held;
}

/* The VM is told why nothing more can come, and the program ends. */
void port_end(struct port *port, const char *why, const char *message);

/* The connection is gone: the VM is told why, and the program ends. `message` is the last word of
 * the server, or NULL for libpq's. */
void port_lost(struct port *port, const char *message);

/* The VM has sent what no VM of this release sends: it is told, and the program ends. */
void port_protocol_error(struct port *port, const char *message);

/* A string of the bytes, in scratch memory that lasts until the next port_strings_reset: offsets,
 * as it moves. */
static inline void port_strings_reset(struct port *port) {
    port->strings.n = 0;
}
size_t port_string(struct port *port, struct cw_bytes s);
static inline const char *port_string_at(const struct port *port, size_t at) {
    return (const char *)port->strings.p + at;
}

/* ---- what starts jobs; false when the request is malformed ---- */

bool port_connect(struct port *port, const struct port_request *request);
bool port_run(struct port *port, const struct port_request *request);
bool port_copy_in(struct port *port, const struct port_request *request);
bool port_copy_out(struct port *port, const struct port_request *request);
bool port_replicate(struct port *port, const struct port_request *request);

#endif
