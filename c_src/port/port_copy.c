/* COPY, both ways. The statement goes as a simple query; until the server has answered that it is a
 * COPY, and after the last of its data, results are taken as those of any statement.
 *
 * In: the VM sends data without being asked, PORT_COPY_WINDOW bytes ahead at most of what it was
 * told is taken: what libpq has given to the socket. libpq does not look for an error of the
 * server's before the end of the data.
 *
 * Out: data is read from the server as far as the VM has given credit, in frames. */
#include <poll.h>

#include "port_answer.h"
#include "port_mem.h"

struct copy {
    enum { BEGINNING, COPYING, SKIPPING, ENDING } phase;
    uint32_t credit;  /* out: frames */
    uint32_t waiting; /* in: bytes that the VM was not yet told are taken */
    bool dropped;     /* out: data was left out, as the VM no longer reads */
    bool refused;     /* the statement's result is an error, whatever the server says */
};

#define TAKEN_BYTES (PORT_COPY_WINDOW / 4) /* the VM is told in such steps */

/* ---- both ---- */

static bool begin(struct port *port, const struct port_job *job, struct cw_bytes sql,
                  uint32_t credit, const struct port_request *request) {
    struct copy *copy = port_alloc(sizeof *copy);
    *copy = (struct copy){.credit = credit};
    port_job_start(port, job, copy, request);
    port_strings_reset(port);
    if (!PQsendQuery(port->conn, port_string_at(port, port_string(port, sql))))
        port_lost(port, NULL);
    else
        port_flush(port);
    return true;
}

/* A COPY that is not the one that was asked for: the other way, or a second one. What it would
 * copy out is dropped, and the server told to stop. */
static void refuse(struct port *port, struct copy *copy, ExecStatusType status) {
    if (status == PGRES_COPY_IN) {
        PQputCopyEnd(port->conn, "COPY FROM STDIN is for copy_in, one at a time");
        port_flush(port);
    } else if (status == PGRES_COPY_OUT) {
        copy->phase = SKIPPING;
        copy->refused = true;
        port_cancel(port);
    } else {
        port_lost(port, "replication is no COPY, so the connection was closed");
    }
}

static void take_error(struct port *port, struct copy *copy, const PGresult *res) {
    port_rows_break(port);
    if (copy->refused)
        port_answer_refusal(port, "COPY TO STDOUT is for copy_out, one at a time; "
                                  "statements beside it may have been run");
    else
        port_answer_error(port, res);
}

/* The server has answered the statement. */
static void take_result(struct port *port, struct copy *copy, PGresult *res,
                        ExecStatusType wanted) {
    ExecStatusType status = PQresultStatus(res);
    bool failed = status == PGRES_FATAL_ERROR || status == PGRES_BAD_RESPONSE;
    if (status == wanted && copy->phase == BEGINNING) {
        port_answer_copying(port, res);
        port_answer_cut(port);
        copy->phase = COPYING;
    } else if (failed || (status == PGRES_COMMAND_OK && copy->refused)) {
        take_error(port, copy, res);
        copy->refused = false;
    } else if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH) {
        refuse(port, copy, status);
    } else if (status == PGRES_COMMAND_OK && copy->dropped) {
        port_answer_stopped(port);
        copy->dropped = false;
    } else if (status == PGRES_COMMAND_OK) {
        port_rows_end(port, PQcmdStatus(res));
    }
}

/* False when the end has not come. */
static bool skip_data(struct port *port, struct copy *copy) {
    char *data;
    int n;
    while ((n = PQgetCopyData(port->conn, &data, 1)) > 0)
        PQfreemem(data);
    if (n < 0)
        copy->phase = ENDING;
    return n < 0;
}

/* False when nothing more can be done now, or the job is over, and `copy` with it. */
static bool take_next(struct port *port, struct copy *copy, ExecStatusType wanted) {
    if ((copy->phase == SKIPPING && !skip_data(port, copy)) || PQisBusy(port->conn))
        return false;
    PGresult *res = PQgetResult(port->conn);
    if (res)
        take_result(port, copy, res, wanted);
    else
        port_job_end(port);
    PQclear(res);
    return res && !port->leaving;
}

/* ---- in ---- */

static void tell_taken(struct port *port, struct copy *copy) {
    if (port->unsent || copy->waiting < TAKEN_BYTES)
        return;
    port_answer_taken(port, copy->waiting);
    port_answer_cut(port);
    copy->waiting = 0;
}

static void in_advance(struct port *port) {
    struct copy *copy = port->work;
    while (copy->phase != COPYING)
        if (port->over || !take_next(port, copy, PGRES_COPY_IN))
            return;
    tell_taken(port, copy);
}

static short in_wants(struct port *port) {
    return port_may_go_on(port) ? POLLIN : 0;
}

/* One frame may be longer than the window, when nothing is ahead of it. */
static void in_data(struct port *port, struct copy *copy, struct cw_bytes data) {
    if (copy->waiting > 2 * PORT_COPY_WINDOW) {
        port_protocol_error(port, "COPY data beyond the window");
        return;
    }
    if (PQputCopyData(port->conn, (const char *)data.p, (int)data.n) <= 0 || !port_flush(port)) {
        port_lost(port, NULL);
        return;
    }
    copy->waiting += (uint32_t)data.n;
    tell_taken(port, copy);
}

static void in_end(struct port *port, struct copy *copy, const char *error) {
    copy->phase = ENDING;
    if (PQputCopyEnd(port->conn, error) < 0)
        port_lost(port, NULL);
    else if (port_flush(port))
        in_advance(port); /* the answer to data that was refused may have been read long since */
}

static bool in_message(struct port *port, const struct port_request *request) {
    struct copy *copy = port->work;
    struct cw_bytes text;
    if (request->op == PORT_copy_fail
            ? !port_read_text(request, &text)
            : request->op == PORT_copy_done && !port_read_nothing(request))
        return false;
    /* Else it has failed, or been stopped, before this came. */
    bool open = copy->phase == COPYING;
    switch (request->op) {
    case PORT_copy_data:
        if (open)
            in_data(port, copy, request->data);
        return true;
    case PORT_copy_done:
        if (open)
            in_end(port, copy, NULL);
        return true;
    case PORT_copy_fail:
        port_strings_reset(port);
        if (open)
            in_end(port, copy, port_string_at(port, port_string(port, text)));
        return true;
    default:
        return false;
    }
}

/* A server that waits for data does not hear a cancel, but ends when the data does. */
static void in_stop(struct port *port) {
    struct copy *copy = port->work;
    if (copy->phase == COPYING)
        in_end(port, copy,
               port->stop == PORT_STOP_TIMEOUT ? "the deadline has passed" : "cancelled");
    else
        port_cancel(port);
}

const struct port_job port_copy_in_job = {
    .wants = in_wants, .advance = in_advance, .message = in_message, .stop = in_stop};

bool port_copy_in(struct port *port, const struct port_request *request) {
    struct cw_bytes sql;
    return port_read_text(request, &sql) && begin(port, &port_copy_in_job, sql, 0, request);
}

/* ---- out ---- */

static bool has_credit(const struct port *port, const struct copy *copy) {
    return copy->credit || port->stop != PORT_GO_ON;
}

static void put_data(struct port *port, struct copy *copy, const char *data, size_t n) {
    if (port->stop != PORT_GO_ON) {
        copy->dropped = true;
        return;
    }
    struct cw_buf *buf =
        port->record_open ? &port->out.buf : port_record_begin(port, PORT_RECORD_COPY);
    cw_buf_put(buf, data, n);
    if (port_out_size(&port->out) < PORT_FRAME_BYTES)
        return;
    port_record_end(port);
    port_answer_cut(port);
    copy->credit -= copy->credit > 0;
}

/* False when nothing more can be done now. */
static bool take_data(struct port *port, struct copy *copy) {
    char *data;
    int n = PQgetCopyData(port->conn, &data, 1);
    if (n > 0) {
        put_data(port, copy, data, (size_t)n);
        PQfreemem(data);
    } else if (n < 0) {
        port_rows_break(port);
        copy->phase = ENDING;
    }
    return n != 0;
}

static void out_advance(struct port *port) {
    struct copy *copy = port->work;
    while (!port->over && has_credit(port, copy) && port_may_go_on(port))
        if (!(copy->phase == COPYING ? take_data(port, copy)
                                     : take_next(port, copy, PGRES_COPY_OUT)))
            return;
}

static short out_wants(struct port *port) {
    return has_credit(port, port->work) && port_may_go_on(port) ? POLLIN : 0;
}

static bool out_message(struct port *port, const struct port_request *request) {
    struct copy *copy = port->work;
    uint32_t more;
    if (request->op != PORT_credit || !port_read_number(request, &more))
        return false;
    copy->credit = more > UINT32_MAX - copy->credit ? UINT32_MAX : copy->credit + more;
    out_advance(port);
    return true;
}

const struct port_job port_copy_out_job = {
    .wants = out_wants, .advance = out_advance, .message = out_message};

bool port_copy_out(struct port *port, const struct port_request *request) {
    struct cw_bytes sql;
    uint32_t credit;
    return port_read_copy_out(request, &sql, &credit) &&
           begin(port, &port_copy_out_job, sql, credit, request);
}
