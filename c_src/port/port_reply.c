/* The terms of answers and events, made with ei. */
#include <ei.h>
#include <stdlib.h>

#include "port_answer.h"
#include "port_mem.h"
#include "port_wal.h"

static void check(int failed) {
    if (failed)
        port_out_of_memory();
}

static void begin(ei_x_buff *x, const char *tag, int arity) {
    check(ei_x_new_with_version(x));
    check(ei_x_encode_tuple_header(x, arity));
    check(ei_x_encode_atom(x, tag));
}

/* As a record of the answer. The version byte is the record's type. */
static void record(struct port *port, ei_x_buff *x) {
    struct cw_buf *buf = port_record_begin(port, PORT_RECORD_TERM);
    cw_buf_put(buf, x->buff + 1, (size_t)x->index - 1);
    port_record_end(port);
    ei_x_free(x);
}

/* As a frame of its own, which may come in the middle of an answer. */
static void event(struct port *port, ei_x_buff *x) {
    port_rows_break(port);
    port_answer_cut(port);
    port_out_begin(&port->out);
    cw_buf_put(&port->out.buf, x->buff, (size_t)x->index);
    port_out_end(&port->out);
    ei_x_free(x);
}

static void text(ei_x_buff *x, const char *s) {
    check(ei_x_encode_binary(x, s, (int)strlen(s)));
}

static void pair(ei_x_buff *x, const char *key) {
    check(ei_x_encode_list_header(x, 1));
    check(ei_x_encode_tuple_header(x, 2));
    check(ei_x_encode_atom(x, key));
}

static void text_pair(ei_x_buff *x, const char *key, const char *value) {
    if (!value)
        return;
    pair(x, key);
    text(x, value);
}

static void number_pair(ei_x_buff *x, const char *key, long long value) {
    pair(x, key);
    check(ei_x_encode_longlong(x, value));
}

/* ---- errors and notices ---- */

static void fields(ei_x_buff *x, const PGresult *res) {
#define X(name, letter) text_pair(x, #name, PQresultErrorField(res, letter));
    PORT_FIELDS(X)
#undef X
    /* libpq's own failures have no fields. */
    if (!PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY))
        text_pair(x, "message", PQresultErrorMessage(res));
    check(ei_x_encode_empty_list(x));
}

static const char *stopped(const struct port *port) {
    return port->stop == PORT_STOP_TIMEOUT ? "timeout" : "cancelled";
}

static const char *why(const struct port *port, const PGresult *res) {
    const char *code = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    return port->stop == PORT_GO_ON || !code || strcmp(code, "57014") ? "server" : stopped(port);
}

void port_answer_stopped(struct port *port) {
    ei_x_buff x;
    port_rows_break(port);
    begin(&x, "error", 3);
    check(ei_x_encode_atom(&x, stopped(port)));
    check(ei_x_encode_empty_list(&x));
    record(port, &x);
}

static void answer_failure(struct port *port, const char *what, const PGresult *res) {
    ei_x_buff x;
    begin(&x, what, 3);
    check(ei_x_encode_atom(&x, why(port, res)));
    fields(&x, res);
    record(port, &x);
}

void port_answer_error(struct port *port, const PGresult *res) {
    answer_failure(port, "error", res);
}

void port_answer_uncommitted(struct port *port, const PGresult *res) {
    answer_failure(port, "uncommitted", res);
}

void port_answer_refusal(struct port *port, const char *message) {
    ei_x_buff x;
    begin(&x, "error", 3);
    check(ei_x_encode_atom(&x, "refused"));
    text_pair(&x, "message", message);
    check(ei_x_encode_empty_list(&x));
    record(port, &x);
}

void port_tell_notice(struct port *port, const PGresult *res) {
    ei_x_buff x;
    begin(&x, "notice", 2);
    fields(&x, res);
    event(port, &x);
}

/* ---- statements ---- */

static void column_list(ei_x_buff *x, const PGresult *res) {
    int n = PQnfields(res);
    if (n)
        check(ei_x_encode_list_header(x, n));
    for (int i = 0; i < n; i++) {
        check(ei_x_encode_tuple_header(x, 5));
        text(x, PQfname(res, i));
        check(ei_x_encode_ulong(x, PQftype(res, i)));
        check(ei_x_encode_long(x, PQfmod(res, i)));
        check(ei_x_encode_ulong(x, PQftable(res, i)));
        check(ei_x_encode_long(x, PQfformat(res, i)));
    }
    check(ei_x_encode_empty_list(x));
}

void port_answer_columns(struct port *port, const PGresult *res) {
    ei_x_buff x;
    begin(&x, "columns", 2);
    column_list(&x, res);
    record(port, &x);
}

void port_answer_described(struct port *port, const PGresult *res) {
    ei_x_buff x;
    begin(&x, "described", 3);
    int n = PQnparams(res);
    if (n)
        check(ei_x_encode_list_header(&x, n));
    for (int i = 0; i < n; i++)
        check(ei_x_encode_ulong(&x, PQparamtype(res, i)));
    check(ei_x_encode_empty_list(&x));
    column_list(&x, res);
    record(port, &x);
}

void port_answer_aborted(struct port *port) {
    ei_x_buff x;
    begin(&x, "aborted", 1);
    record(port, &x);
}

/* ---- COPY ---- */

void port_answer_copying(struct port *port, const PGresult *res) {
    ei_x_buff x;
    int n = PQnfields(res);
    begin(&x, "copying", 4);
    check(ei_x_encode_long(&x, PQbinaryTuples(res)));
    if (n)
        check(ei_x_encode_list_header(&x, n));
    for (int i = 0; i < n; i++)
        check(ei_x_encode_long(&x, PQfformat(res, i)));
    check(ei_x_encode_empty_list(&x));
    check(ei_x_encode_ulong(&x, PORT_COPY_WINDOW));
    record(port, &x);
}

void port_answer_taken(struct port *port, uint32_t bytes) {
    ei_x_buff x;
    begin(&x, "taken", 2);
    check(ei_x_encode_ulong(&x, bytes));
    record(port, &x);
}

/* ---- replication ---- */

void port_answer_replicating(struct port *port) {
    ei_x_buff x;
    begin(&x, "replicating", 1);
    record(port, &x);
}

void port_tell_wal(struct port *port, const struct port_wal_report *report) {
    const struct cw_assembly_info *info = &report->assembly;
    ei_x_buff x;
    begin(&x, "wal", 2);
    number_pair(&x, "server", (long long)report->server);
    number_pair(&x, "sent_at", report->sent_at);
    number_pair(&x, "confirmed", (long long)report->confirmed);
    number_pair(&x, "bytes", (long long)report->bytes);
    number_pair(&x, "transactions", (long long)info->transactions);
    number_pair(&x, "messages", (long long)info->messages);
    number_pair(&x, "streamed", info->streamed);
    number_pair(&x, "memory", (long long)info->memory);
    number_pair(&x, "spilled", (long long)info->spilled);
    check(ei_x_encode_empty_list(&x));
    event(port, &x);
}

/* ---- the connection ---- */

/* All that servers of any release report. */
static const char *const parameters[] = {"server_version",
                                         "server_encoding",
                                         "client_encoding",
                                         "application_name",
                                         "default_transaction_read_only",
                                         "in_hot_standby",
                                         "is_superuser",
                                         "session_authorization",
                                         "DateStyle",
                                         "IntervalStyle",
                                         "TimeZone",
                                         "integer_datetimes",
                                         "search_path",
                                         "scram_iterations",
                                         "standard_conforming_strings"};

static void parameter_list(ei_x_buff *x, PGconn *conn) {
    for (size_t i = 0; i < sizeof parameters / sizeof *parameters; i++) {
        const char *value = PQparameterStatus(conn, parameters[i]);
        if (!value)
            continue;
        check(ei_x_encode_list_header(x, 1));
        check(ei_x_encode_tuple_header(x, 2));
        text(x, parameters[i]);
        text(x, value);
    }
    check(ei_x_encode_empty_list(x));
}

void port_answer_parameters(struct port *port) {
    ei_x_buff x;
    begin(&x, "parameters", 2);
    parameter_list(&x, port->conn);
    record(port, &x);
}

void port_tell_connected(struct port *port, uint32_t id) {
    PGconn *conn = port->conn;
    ei_x_buff x;
    begin(&x, "connected", 3);
    check(ei_x_encode_ulong(&x, id));
    number_pair(&x, "pid", PQbackendPID(conn));
    number_pair(&x, "server_version", PQserverVersion(conn));
    number_pair(&x, "libpq_version", PQlibVersion());
    text_pair(&x, "user", PQuser(conn));
    text_pair(&x, "database", PQdb(conn));
    text_pair(&x, "host", PQhost(conn));
    text_pair(&x, "hostaddr", PQhostaddr(conn));
    text_pair(&x, "port", PQport(conn));
    if (PQsslInUse(conn)) {
        text_pair(&x, "tls", PQsslAttribute(conn, "protocol"));
        text_pair(&x, "tls_cipher", PQsslAttribute(conn, "cipher"));
    }
    pair(&x, "parameters");
    parameter_list(&x, conn);
    check(ei_x_encode_empty_list(&x));
    event(port, &x);
}

void port_tell_failed(struct port *port, uint32_t id, const char *why, const char *message) {
    ei_x_buff x;
    begin(&x, "failed", 4);
    check(ei_x_encode_ulong(&x, id));
    check(ei_x_encode_atom(&x, why));
    text(&x, message);
    event(port, &x);
}

void port_tell_closed(struct port *port, const char *why, const char *message) {
    ei_x_buff x;
    begin(&x, "closed", 3);
    check(ei_x_encode_atom(&x, why));
    text(&x, message);
    event(port, &x);
}

void port_tell_notification(struct port *port, const PGnotify *notify) {
    ei_x_buff x;
    begin(&x, "notification", 4);
    check(ei_x_encode_long(&x, notify->be_pid));
    text(&x, notify->relname);
    text(&x, notify->extra);
    event(port, &x);
}
