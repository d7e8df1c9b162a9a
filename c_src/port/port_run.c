/* Running statements: one, or a pipeline of steps. Rows are taken from libpq one by one, so that no
 * result is ever whole in memory here, and put into the frame that is being made.
 *
 * Of each step but a sync the answer has one record that ends it: of rows and tag, described, error
 * or aborted. Before it may come records of columns and of rows. A simple step has as many as it
 * has statements, until one fails. A sync at which a transaction cannot be committed has one. */
#include <poll.h>
#include <stdio.h>

#include "port_answer.h"
#include "port_mem.h"

struct run {
    bool pipeline;
    bool limited; /* by credit */
    bool headed;  /* the columns of the statement have been told */
    bool copying; /* a COPY that was not asked for as one is being ended */
    bool refused; /* it was, and its result is an error whatever the server says */
    bool failed;  /* a step since the last sync */
    bool dropped; /* rows of the statement were left out, so its result is an error too */
    uint32_t credit;
    uint32_t max_rows;
    uint32_t n;              /* of steps, and the sync that ends a pipeline */
    uint32_t at;             /* the step whose results come next */
    uint32_t given;          /* how many libpq has been given */
    struct port_steps steps; /* the others */
    uint8_t *kept;           /* NULL, or what they are in */
    char tag[64];            /* of the statement, when its last rows have brought it */
    uint8_t ops[];
};

/* ---- sending ---- */

/* The arrays that libpq takes, in scratch memory: pointers, lengths, formats, of a step's
 * parameters. */
struct values {
    int n;
    const char *const *values;
    const int *lengths;
    const int *formats;
};

/* Texts need a zero byte behind them, and so are copied. */
static void copy_texts(struct port *port, const struct port_step *step) {
    struct cw_bytes left = step->params;
    for (size_t i = 0; i < step->formats.n; i++) {
        const char *value;
        int32_t n = port_next_value(&left, &value);
        if (n >= 0 && !step->formats.p[i])
            port_string(port, cw_bytes(value, (size_t)n));
    }
}

static struct values make_values(struct port *port, const struct port_step *step, size_t strings) {
    size_t n = step->formats.n;
    struct cw_buf *buf = &port->pointers;
    buf->n = 0;
    cw_buf_reserve(buf, n * (sizeof(char *) + 2 * sizeof(int)));
    const char **values = (const char **)(void *)buf->p;
    int *lengths = (int *)(void *)(values + n), *formats = lengths + n;
    copy_texts(port, step);
    struct cw_bytes left = step->params;
    for (size_t i = 0; i < n; i++) {
        lengths[i] = port_next_value(&left, &values[i]);
        formats[i] = step->formats.p[i];
        if (!values[i] || formats[i])
            continue;
        values[i] = port_string_at(port, strings);
        strings += (size_t)lengths[i] + 1;
    }
    return (struct values){(int)n, values, lengths, formats};
}

/* OIDs in the machine's order. Not with values at the same time. */
static const Oid *make_types(struct port *port, struct cw_bytes types, Oid *few, size_t few_n) {
    size_t n = types.n / 4;
    Oid *oids = few;
    if (n > few_n) {
        port->pointers.n = 0;
        cw_buf_reserve(&port->pointers, n * sizeof(Oid));
        oids = (Oid *)(void *)port->pointers.p;
    }
    for (size_t i = 0; i < n; i++)
        oids[i] = port_load32(types.p + 4 * i);
    return oids;
}

static int send_prepare(struct port *port, const struct port_step *step) {
    Oid few[16];
    size_t name = port_string(port, step->name), sql = port_string(port, step->sql);
    const Oid *types = make_types(port, step->types, few, 16);
    return PQsendPrepare(port->conn, port_string_at(port, name), port_string_at(port, sql),
                         (int)(step->types.n / 4), types);
}

static int send_execute(struct port *port, const struct port_step *step) {
    size_t name = port_string(port, step->name);
    struct values v = make_values(port, step, port->strings.n);
    return PQsendQueryPrepared(port->conn, port_string_at(port, name), v.n, v.values, v.lengths,
                               v.formats, step->binary);
}

static int send_query(struct port *port, const struct port_step *step) {
    size_t n = step->types.n / 4;
    Oid few[64], *types = n > 64 ? port_alloc(n * sizeof *types) : few;
    make_types(port, step->types, types, n);
    size_t sql = port_string(port, step->sql);
    struct values v = make_values(port, step, port->strings.n);
    /* libpq takes as many types as values, or none. */
    int sent =
        PQsendQueryParams(port->conn, port_string_at(port, sql), v.n, (int)n == v.n ? types : NULL,
                          v.values, v.lengths, v.formats, step->binary);
    if (types != few)
        port_free(types);
    return sent;
}

static int send_close(struct port *port, const struct port_step *step) {
    size_t name = port_string(port, step->name);
#ifdef LIBPQ_HAS_CLOSE_PREPARED
    return PQsendClosePrepared(port->conn, port_string_at(port, name));
#else
    char *quoted = PQescapeIdentifier(port->conn, port_string_at(port, name), step->name.n);
    if (!quoted)
        return 0;
    size_t sql = port_string(port, cw_bytes("DEALLOCATE ", 11));
    port->strings.n--;
    port_string(port, cw_bytes(quoted, strlen(quoted)));
    PQfreemem(quoted);
    return PQsendQueryParams(port->conn, port_string_at(port, sql), 0, NULL, NULL, NULL, NULL, 0);
#endif
}

static int send_step(struct port *port, const struct port_step *step) {
    port_strings_reset(port);
    switch (step->op) {
    case PORT_STEP_prepare:
        return send_prepare(port, step);
    case PORT_STEP_execute:
        return send_execute(port, step);
    case PORT_STEP_query:
        return send_query(port, step);
    case PORT_STEP_close:
        return send_close(port, step);
    case PORT_STEP_describe:
        return PQsendDescribePrepared(port->conn,
                                      port_string_at(port, port_string(port, step->name)));
    case PORT_STEP_simple:
        return PQsendQuery(port->conn, port_string_at(port, port_string(port, step->sql)));
    case PORT_STEP_sync:
        return PQpipelineSync(port->conn);
    }
    return 0;
}

#define GROUP_ROWS 16

/* Rows one by one, or where libpq can in small groups, which cost it less; but a group may take
 * more frames than there is credit for. */
static void ask_for_rows(struct port *port) {
#ifdef LIBPQ_HAS_CHUNK_MODE
    const struct run *run = port->work;
    if (!run->limited) {
        PQsetChunkedRowsMode(port->conn, GROUP_ROWS);
        return;
    }
#endif
    PQsetSingleRowMode(port->conn);
}

/* About how many bytes libpq is given between two looks at whether they were sent. */
#define GIVEN_BYTES (64u << 10)
#define STEP_BYTES 64u /* what a step takes beside its SQL and parameters */

static bool is_given(const struct run *run) {
    return run->given == run->n;
}

static size_t give_step(struct port *port, struct run *run) {
    struct port_step step = {.op = PORT_STEP_sync};
    if (run->given < run->steps.n)
        port_next_step(&run->steps, &step);
    run->ops[run->given] = (uint8_t)step.op;
    if (!send_step(port, &step))
        return 0;
    /* Of later ones that is done when their turn comes. */
    if (run->given++ == run->at)
        ask_for_rows(port);
    return STEP_BYTES + step.sql.n + step.params.n;
}

/* libpq moves what it could not send to the front each time it has sent some: of a long pipeline it
 * is given what the socket takes, and no more than a little beyond. False after a failure. */
static bool give_steps(struct port *port, struct run *run) {
    size_t bytes = 0;
    while (!is_given(run)) {
        size_t n = give_step(port, run);
        if (!n)
            return false;
        bytes += n;
        if (bytes < GIVEN_BYTES && !is_given(run))
            continue;
        if (!port_flush(port) || port->unsent)
            break;
        bytes = 0;
    }
    return true;
}

static bool begin(struct port *port, struct run *run) {
    if ((run->pipeline && !PQenterPipelineMode(port->conn)) || !give_steps(port, run))
        return false;
    if (!is_given(run)) /* what they are read from has to stay */
        run->kept = port_in_keep(&port->in);
    return true;
}

/* ---- results ---- */

/* Of a statement that was not prepared, nobody knows the columns yet. */
static void tell_columns(struct port *port, struct run *run, const PGresult *res) {
    uint8_t op = run->ops[run->at];
    if (run->headed || (op != PORT_STEP_query && op != PORT_STEP_simple))
        return;
    port_answer_columns(port, res);
    run->headed = true;
}

static void take_rows(struct port *port, struct run *run, const PGresult *res) {
    /* Who reads piece by piece may be long about those that were on their way. */
    if (run->limited && port->stop != PORT_GO_ON) {
        run->dropped |= PQntuples(res) > 0;
        return;
    }
    tell_columns(port, run, res);
    uint32_t frames = port_rows_add(port, res, run->max_rows);
    if (run->limited)
        run->credit -= frames < run->credit ? frames : run->credit;
}

#ifdef LIBPQ_HAS_CHUNK_MODE
/* libpq puts the tag into the last result that has rows, if that is a group which is not full; the
 * one after it, the statement's end, has none then. */
static void keep_tag(struct run *run, PGresult *res) {
    snprintf(run->tag, sizeof run->tag, "%s", PQcmdStatus(res));
}
#endif

static const char copy_out[] = "COPY TO STDOUT is for copy_out";

static void forget_statement(struct run *run) {
    run->headed = run->refused = run->dropped = false;
    *run->tag = 0;
}

static void take_end(struct port *port, struct run *run, PGresult *res) {
    if (run->dropped)
        port_answer_stopped(port);
    else if (run->refused)
        port_answer_refusal(port, copy_out);
    else if (run->ops[run->at] == PORT_STEP_describe)
        port_answer_described(port, res);
    else
        port_rows_end(port, *run->tag ? run->tag : PQcmdStatus(res));
    forget_statement(run);
}

static bool is_at_sync(const struct run *run) {
    return run->ops[run->at] == PORT_STEP_sync;
}

static void take_error(struct port *port, struct run *run, const PGresult *res) {
    port_rows_break(port);
    if (run->refused)
        port_answer_refusal(port, copy_out);
    else if (is_at_sync(run))
        port_answer_uncommitted(port, res);
    else
        port_answer_error(port, res);
    forget_statement(run);
    run->failed = true;
}

/* An error of libpq's own making. What the server has done is not known, unless a step has failed
 * and none that matters was to come. */
static bool is_lost(const struct port *port, const PGresult *res) {
    return PQstatus(port->conn) == CONNECTION_BAD && !PQresultErrorField(res, PG_DIAG_SQLSTATE);
}

static void take_loss(struct port *port, struct run *run, const PGresult *res) {
    if (run->failed && run->at + 1 == run->n)
        port_job_end(port);
    else
        port_lost(port, PQresultErrorMessage(res));
}

/* A COPY that was not asked for by its own request. In a pipeline, the server reads what follows as
 * its data. */
static void refuse_copy(struct port *port, struct run *run, ExecStatusType status) {
    if (run->pipeline || status == PGRES_COPY_BOTH) {
        port_lost(port, "COPY cannot be a part of a pipeline, so the connection was closed");
    } else if (status == PGRES_COPY_IN) {
        PQputCopyEnd(port->conn, "COPY FROM STDIN is for copy_in");
        port_flush(port);
    } else {
        run->copying = run->refused = true;
        port_cancel(port);
    }
}

static void take_result(struct port *port, struct run *run, PGresult *res) {
    ExecStatusType status = PQresultStatus(res);
    switch (status) {
#ifdef LIBPQ_HAS_CHUNK_MODE
    case PGRES_TUPLES_CHUNK:
        keep_tag(run, res);
        take_rows(port, run, res);
        break;
#endif
    case PGRES_SINGLE_TUPLE:
        take_rows(port, run, res);
        break;
    case PGRES_TUPLES_OK:
        take_rows(port, run, res);
        take_end(port, run, res);
        break;
    case PGRES_COMMAND_OK:
    case PGRES_EMPTY_QUERY:
        take_end(port, run, res);
        break;
    case PGRES_PIPELINE_ABORTED:
        port_answer_aborted(port);
        break;
    case PGRES_COPY_IN:
    case PGRES_COPY_OUT:
    case PGRES_COPY_BOTH:
        refuse_copy(port, run, status);
        break;
    default:
        (is_lost(port, res) ? take_loss : take_error)(port, run, res);
    }
}

/* ---- going on ---- */

static void finish(struct port *port, struct run *run) {
    if (run->pipeline && !PQexitPipelineMode(port->conn))
        port_lost(port, NULL);
    else
        port_job_end(port);
}

/* The step `at` is done. */
static void next_step(struct port *port, struct run *run) {
    bool sync = is_at_sync(run);
    run->at++;
    run->failed &= !sync;
    if (run->at == run->n) {
        finish(port, run);
        return;
    }
    /* What a cancel has hit ends at the sync. */
    if (sync && port->stop != PORT_GO_ON)
        port_cancel(port);
    ask_for_rows(port);
}

/* Takes the next result. False when the job is over. */
static bool take_next(struct port *port, struct run *run) {
    PGresult *res = PQgetResult(port->conn);
    bool sync = res && PQresultStatus(res) == PGRES_PIPELINE_SYNC;
    /* A sync at which the transaction fails has a result more, and is over after its own. */
    bool more = !res && run->pipeline && is_at_sync(run) && PQstatus(port->conn) == CONNECTION_OK;
    if (res && !sync)
        take_result(port, run, res);
    PQclear(res);
    if (sync || (!res && !more))
        (run->pipeline ? next_step : finish)(port, run);
    return port->work == run && !port->over && !port->leaving;
}

/* False when the copy has not ended. */
static bool skip_copy(struct port *port, struct run *run) {
    char *data;
    int n;
    while ((n = PQgetCopyData(port->conn, &data, 1)) > 0)
        PQfreemem(data);
    run->copying = n == 0;
    return !run->copying;
}

static bool has_credit(const struct run *run, const struct port *port) {
    return !run->limited || run->credit || port->stop != PORT_GO_ON;
}

static void take_all(struct port *port, struct run *run) {
    while (run->at < run->given && !port->over && has_credit(run, port) && port_may_go_on(port) &&
           !PQisBusy(port->conn))
        if ((run->copying && !skip_copy(port, run)) || !take_next(port, run))
            return;
}

/* In this order, as libpq reads, too, when it cannot send. On a connection that is gone, trying to
 * would have it forget what the server has said. */
static void advance(struct port *port) {
    struct run *run = port->work;
    bool may_give = !port->unsent && PQstatus(port->conn) == CONNECTION_OK;
    bool good = !may_give || give_steps(port, run);
    take_all(port, run);
    if (!good)
        port_lost(port, NULL);
}

static short wants(struct port *port) {
    return has_credit(port->work, port) && port_may_go_on(port) ? POLLIN : 0;
}

static bool message(struct port *port, const struct port_request *request) {
    struct run *run = port->work;
    uint32_t more;
    if (request->op != PORT_credit || !port_read_number(request, &more))
        return false;
    run->credit = more > UINT32_MAX - run->credit ? UINT32_MAX : run->credit + more;
    advance(port);
    return true;
}

static void free_work(void *work) {
    port_free(((struct run *)work)->kept);
    port_free(work);
}

const struct port_job port_run_job = {
    .wants = wants, .advance = advance, .message = message, .free = free_work};

bool port_run(struct port *port, const struct port_request *request) {
    struct port_steps steps;
    if (!port_read_run(request, &steps))
        return false;
    struct run *run = port_alloc(sizeof *run + steps.n + 1);
    *run = (struct run){.pipeline = steps.n > 1,
                        .limited = steps.credit > 0,
                        .credit = steps.credit,
                        .max_rows = steps.max_rows,
                        .n = steps.n + (steps.n > 1 && !steps.synced),
                        .steps = steps};
    port_job_start(port, &port_run_job, run, request);
    if (!begin(port, run))
        port_lost(port, NULL);
    return true;
}
