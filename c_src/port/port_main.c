#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "port_answer.h"
#include "port_mem.h"

#define SCRATCH_KEPT (1u << 20)

int64_t port_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

size_t port_string(struct port *port, struct cw_bytes s) {
    size_t at = port->strings.n;
    cw_buf_put(&port->strings, s.p, s.n);
    cw_buf_byte(&port->strings, 0);
    return at;
}

/* ---- the end ---- */

static void leave(struct port *port) {
    if (port->leaving)
        return;
    port->leaving = true;
    port->leave_at = port_now() + PORT_LEAVE_GRACE;
}

void port_end(struct port *port, const char *why, const char *message) {
    if (!port->leaving)
        port_tell_closed(port, why, message);
    leave(port);
}

void port_lost(struct port *port, const char *message) {
    port_end(port, "lost", message ? message : PQerrorMessage(port->conn));
}

void port_protocol_error(struct port *port, const char *message) {
    port_end(port, "protocol", message);
}

/* The VM is gone, or wants no more. What runs on the server must not go on running. */
static void owner_gone(struct port *port) {
    port->nobody = true;
    leave(port);
    if (port->conn && !port->job->raw && PQtransactionStatus(port->conn) == PQTRANS_ACTIVE) {
        port_cancel_start(&port->cancel, port->conn);
        port->leave_at = port_now() + PORT_LEAVE_GRACE;
    } else {
        port->leave_at = port_now();
    }
}

static bool may_leave(const struct port *port) {
    if (port->nobody ? !port_cancel_running(&port->cancel) : !port_out_pending(&port->out))
        return true;
    return port_now() >= port->leave_at;
}

/* ---- jobs ---- */

static short idle_wants(struct port *port) {
    return port->conn && port_may_go_on(port) ? POLLIN : 0;
}

static void idle_advance(struct port *port) {
    (void)port;
}

const struct port_job port_idle_job = {.wants = idle_wants, .advance = idle_advance};

void port_job_start(struct port *port, const struct port_job *job, void *work,
                    const struct port_request *request) {
    port->job = job;
    port->work = work;
    port->id = request->id;
    port->deadline = request->timeout ? port_now() + request->timeout : PORT_NEVER;
    port->stop = PORT_GO_ON;
}

/* Scratch memory of an unusual request is given back. */
static void shrink(struct cw_buf *buf) {
    if (buf->cap <= SCRATCH_KEPT)
        return;
    cw_buf_free(buf);
    cw_buf_init(buf, &port_mem, NULL, 0);
}

void port_job_end(struct port *port) {
    if (port_cancel_running(&port->cancel)) {
        port->over = true;
        return;
    }
    if (!port->job->raw)
        port_answer_end(port);
    (port->job->free ? port->job->free : port_free)(port->work);
    port->job = &port_idle_job;
    port->work = NULL;
    port->deadline = PORT_NEVER;
    port->over = port->cancel_again = false;
    shrink(&port->strings);
    shrink(&port->pointers);
}

void port_cancel(struct port *port) {
    port->cancel_again = port_cancel_running(&port->cancel);
    port_cancel_start(&port->cancel, port->conn);
}

static void stop_job(struct port *port) {
    if (port->job->stop)
        port->job->stop(port);
    else
        port_cancel(port);
}

void port_job_stop(struct port *port, enum port_stop why) {
    if (port->stop != PORT_GO_ON || port->over)
        return;
    port->stop = why;
    port->stopped_at = port_now();
    port->press_at = port->stopped_at + PORT_CANCEL_AGAIN;
    port->deadline = PORT_NEVER;
    stop_job(port);
}

/* A cancel may have come too early, and a server may be deaf to it. */
static void press_on(struct port *port, int64_t now) {
    port->press_at = now + PORT_CANCEL_AGAIN;
    if (now >= port->stopped_at + PORT_CANCEL_GRACE)
        port_lost(port,
                  "the server did not answer a request to cancel, so the connection was closed");
    else if (!port->over)
        stop_job(port);
}

/* ---- requests ---- */

static bool info(struct port *port, const struct port_request *request) {
    if (!port_read_nothing(request))
        return false;
    port_job_start(port, &port_idle_job, NULL, request);
    port_answer_parameters(port);
    port_job_end(port);
    return true;
}

/* False when it is malformed. */
static bool start(struct port *port, const struct port_request *request) {
    switch (request->op) {
    case PORT_connect:
        return !port->conn && port_connect(port, request);
    case PORT_run:
        return port->conn && port_run(port, request);
    case PORT_copy_in:
        return port->conn && port_copy_in(port, request);
    case PORT_copy_out:
        return port->conn && port_copy_out(port, request);
    case PORT_info:
        return port->conn && info(port, request);
    case PORT_replicate:
        return port->conn && port_replicate(port, request);
    default:
        return false;
    }
}

/* What belongs to a request that is under way; when it no longer is, it comes late and is for
 * nobody. */
static bool belongs(const struct port_request *request) {
    switch (request->op) {
    case PORT_credit:
    case PORT_cancel:
    case PORT_copy_data:
    case PORT_copy_done:
    case PORT_copy_fail:
    case PORT_confirm:
        return true;
    default:
        return false;
    }
}

static bool tell_job(struct port *port, const struct port_request *request) {
    if (port->job == &port_idle_job || request->id != port->id || port->over)
        return true;
    if (request->op != PORT_cancel)
        return port->job->message && port->job->message(port, request);
    if (!port_read_nothing(request))
        return false;
    port_job_stop(port, PORT_STOP_CANCELLED);
    return true;
}

static void take(struct port *port, struct cw_bytes frame) {
    struct port_request request;
    if (!port_request_read(frame, &request))
        port_protocol_error(port, "a request that cannot be read");
    else if (belongs(&request) ? !tell_job(port, &request)
                               : port->job != &port_idle_job || !start(port, &request))
        port_protocol_error(port, "a request that is malformed, or out of turn");
}

static void read_requests(struct port *port) {
    if (port_in_fill(&port->in, STDIN_FILENO) == PORT_READ_END) {
        owner_gone(port);
        return;
    }
    struct cw_bytes frame;
    enum port_frame got = PORT_FRAME_PART;
    while (!port->leaving && (got = port_in_next(&port->in, &frame)) == PORT_FRAME)
        take(port, frame);
    if (got == PORT_FRAME_TOO_LONG)
        port_protocol_error(port, "a request that is longer than 2 GB");
}

/* ---- the server ---- */

bool port_flush(struct port *port) {
    int left = PQflush(port->conn);
    port->unsent = left > 0;
    if (left < 0)
        port_lost(port, NULL);
    return left >= 0;
}

static void tell_notifications(struct port *port) {
    PGnotify *notify;
    while ((notify = PQnotifies(port->conn))) {
        port_tell_notification(port, notify);
        PQfreemem(notify);
    }
}

/* What of an encrypted record is decrypted and has not been read. OpenSSL is only libpq's, and may
 * not be there: without it no record is known to be left. */
static bool has_pending(struct port *port) {
    static int (*pending)(const void *);
    void *ssl = PQsslStruct(port->conn, "OpenSSL");
    if (ssl && !pending)
        *(void **)&pending = dlsym(RTLD_DEFAULT, "SSL_pending");
    return ssl && pending && pending(ssl) > 0;
}

/* An encrypted record may be longer than the room that libpq reads into, and what is left of it
 * does not make the socket readable. Where nobody tells how much that is, as with GSSAPI, reading
 * twice gets all of a record, unless that began where one read ended. */
static bool consume(struct port *port) {
    int ok = PQconsumeInput(port->conn);
    if (ok && (PQsslInUse(port->conn) || PQgssEncInUse(port->conn)))
        ok = PQconsumeInput(port->conn);
    while (ok && has_pending(port))
        ok = PQconsumeInput(port->conn);
    return ok;
}

/* When the server is gone, what it sent last is read whether the job may go on or not: it is not
 * more than the system has kept, and its end tells that the connection is lost. */
static void serve(struct port *port, short ready) {
    if (port->job->raw) {
        port->job->advance(port);
        return;
    }
    bool in = ready & ~POLLOUT;
    bool good = !in || consume(port);
    if (good && (port->unsent || in) && !port_flush(port))
        return;
    /* What came before the end is still worth telling. */
    port->job->advance(port);
    tell_notifications(port);
    if (!good || PQstatus(port->conn) == CONNECTION_BAD)
        port_lost(port, NULL);
}

/* A write that fails closes libpq's socket at times, and tells nobody: in the midst of a COPY
 * nothing else would. */
static void notice_loss(struct port *port) {
    if (!port->conn || port->job->raw || port->leaving || PQstatus(port->conn) != CONNECTION_BAD)
        return;
    port->job->advance(port);
    port_lost(port, NULL);
}

/* ---- the loop ---- */

/* That the other end is gone, where the system tells it of one that still has something to say. */
#ifdef POLLRDHUP
#define GONE POLLRDHUP
#else
#define GONE 0
#endif

enum { STDIN, STDOUT, CANCEL, SOCKET, FDS };

static short socket_events(struct port *port) {
    short events = port->over ? 0 : port->job->wants(port);
    if (port->job->raw)
        return events;
    return (short)(events | GONE | (port->unsent ? POLLOUT : 0));
}

static void watch(struct port *port, struct pollfd *fds) {
    fds[STDIN] = (struct pollfd){.fd = port->nobody ? -1 : STDIN_FILENO, .events = POLLIN};
    bool write = port_out_pending(&port->out) && !port->nobody;
    fds[STDOUT] = (struct pollfd){.fd = write ? STDOUT_FILENO : -1, .events = POLLOUT};
    bool cancel = port_cancel_running(&port->cancel);
    fds[CANCEL] = (struct pollfd){.fd = cancel ? port->cancel.ends[0] : -1, .events = POLLIN};
    /* libpq may have another socket than a moment ago, even under the same number. */
    bool open = port->conn && !port->leaving;
    fds[SOCKET] = (struct pollfd){.fd = open ? PQsocket(port->conn) : -1,
                                  .events = open ? socket_events(port) : 0};
}

static int64_t next_time(const struct port *port) {
    if (port->leaving)
        return port->leave_at;
    if (port->job == &port_idle_job)
        return PORT_NEVER;
    int64_t at = port->stop == PORT_GO_ON ? port->deadline : port->press_at;
    int64_t wake = port->job->wake ? port->job->wake(port) : PORT_NEVER;
    return wake < at ? wake : at;
}

static int wait_time(const struct port *port) {
    int64_t at = next_time(port);
    if (at == PORT_NEVER)
        return -1;
    int64_t left = at - port_now();
    return left <= 0 ? 0 : left > 60000 ? 60000 : (int)left;
}

static void tick(struct port *port) {
    int64_t now = port_now();
    if (port->leaving || port->job == &port_idle_job)
        return;
    if (now >= port->deadline && port->over)
        port_lost(port, "a request to cancel took too long, so the connection was closed");
    else if (now >= port->deadline)
        port_job_stop(port, PORT_STOP_TIMEOUT);
    if (port->stop != PORT_GO_ON && now >= port->press_at)
        press_on(port, now);
    if (port->job->wake && now >= port->job->wake(port))
        port->job->tick(port);
}

static void cancelled(struct port *port) {
    port_cancel_finish(&port->cancel);
    if (port_cancel_running(&port->cancel))
        return;
    if (port->over)
        port_job_end(port);
    else if (port->cancel_again)
        port_cancel(port);
}

/* The VM has read on: so may the job, of what libpq has too. */
static void release(struct port *port) {
    port->held = false;
    port->job->advance(port);
    port_out_flush(&port->out, STDOUT_FILENO);
}

static void turn(struct port *port) {
    struct pollfd fds[FDS];
    /* It was released, is held again, and the VM has read that, too. What it is to go on with is
     * libpq's already, and no socket tells of it. */
    bool again = port->held && port_may_read(port);
    watch(port, fds);
    port->held |= again;
    enum port_wait_for what = port->job == &port_idle_job ? PORT_WAIT_VM
                              : port->job->patient        ? PORT_WAIT_PATIENTLY
                                                          : PORT_WAIT_SERVER;
    if (port_wait(&port->wait, what, fds, FDS, again ? 0 : wait_time(port)) < 0) {
        if (errno != EINTR)
            _exit(errno);
        return;
    }
    if (fds[CANCEL].revents)
        cancelled(port);
    if (fds[SOCKET].revents && !port->leaving)
        serve(port, fds[SOCKET].revents);
    if (fds[STDIN].revents)
        read_requests(port);
    notice_loss(port);
    tick(port);
    if (!port->nobody && !port_out_flush(&port->out, STDOUT_FILENO))
        owner_gone(port);
    if (port->held && port_may_read(port) && !port->leaving)
        release(port);
    /* A request may have had libpq take in what came with an answer. */
    if (port->conn && !port->job->raw && !port->leaving)
        tell_notifications(port);
}

/* ---- beginning ---- */

static int end_of_file; /* reads as one */

/* A request to end is the end of the input. */
static void on_terminate(int signal) {
    (void)signal;
    dup2(end_of_file, STDIN_FILENO);
}

static bool prepare(struct port *port, bool patient) {
    port_in_init(&port->in, PORT_REQUEST_BYTES);
    port_out_init(&port->out);
    cw_buf_init(&port->strings, &port_mem, NULL, 0);
    cw_buf_init(&port->pointers, &port_mem, NULL, 0);
    port_wait_init(&port->wait, patient);
    port->job = &port_idle_job;
    port->deadline = PORT_NEVER;
    for (int fd = STDIN_FILENO; fd <= STDOUT_FILENO; fd++) {
        int flags = fcntl(fd, F_GETFL);
        if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK))
            return false;
    }
    end_of_file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    /* What a terminal sends to the VM's group is the VM's to answer. */
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    struct sigaction terminate = {.sa_handler = on_terminate};
    return end_of_file >= 0 && !sigaction(SIGTERM, &terminate, NULL) &&
           port_cancel_init(&port->cancel);
}

static int finish(struct port *port) {
    bool stuck = !port->nobody && port_out_pending(&port->out);
    if (port_cancel_running(&port->cancel))
        _exit(0); /* its thread uses what would be freed; the server sees the socket close */
    if (port->job->free)
        port->job->free(port->work);
    else
        port_free(port->work);
    PQfinish(port->conn);
    cw_buf_free(&port->strings);
    cw_buf_free(&port->pointers);
    port_in_free(&port->in);
    port_out_free(&port->out);
    return stuck ? PORT_EXIT_STUCK : 0;
}

/* --patient: see port_wait.h. */
int main(int argc, char **argv) {
    struct port port = {.conn = NULL};
    if (!prepare(&port, argc > 1 && !strcmp(argv[1], "--patient"))) {
        perror("causeway_port is started by a VM, with pipes to it");
        return 1;
    }
    while (!port.leaving || !may_leave(&port))
        turn(&port);
    return finish(&port);
}
