/* What the VM and the port program say to each other, by name: docs/port.md says what it means. The
 * Elixir side is Causeway.Postgres.Protocol; a test compares the two. */
#ifndef PORT_PROTOCOL_H
#define PORT_PROTOCOL_H

/* clang-format off */

/* Of requests: the first element of the tuple. */
#define PORT_REQUESTS(X) \
    X(connect) X(run) X(copy_in) X(copy_out) X(copy_done) X(copy_fail) X(credit) X(cancel) X(info) \
    X(replicate) X(confirm)

/* Of the steps of a run. */
#define PORT_STEPS(X) \
    X(prepare) X(describe) X(execute) X(query) X(simple) X(close) X(sync)

/* Of events and of terms within answers. */
#define PORT_REPLIES(X) \
    X(connected) X(failed) X(closed) X(notification) X(notice) X(parameters) \
    X(described) X(columns) X(error) X(uncommitted) X(aborted) X(copying) X(taken) X(replicating) X(wal)

/* Of an error: who ended the statement. Of a failed connect and a closed connection: why. */
#define PORT_REASONS(X) \
    X(server) X(timeout) X(cancelled) X(lost) X(protocol) X(refused) X(options) X(spill) X(wal)

/* The fields of an error or a notice, and libpq's letters for them. */
#define PORT_FIELDS(X) \
    X(severity, PG_DIAG_SEVERITY_NONLOCALIZED) X(code, PG_DIAG_SQLSTATE) \
    X(message, PG_DIAG_MESSAGE_PRIMARY) X(detail, PG_DIAG_MESSAGE_DETAIL) \
    X(hint, PG_DIAG_MESSAGE_HINT) X(position, PG_DIAG_STATEMENT_POSITION) \
    X(internal_position, PG_DIAG_INTERNAL_POSITION) X(internal_query, PG_DIAG_INTERNAL_QUERY) \
    X(where, PG_DIAG_CONTEXT) X(schema, PG_DIAG_SCHEMA_NAME) X(table, PG_DIAG_TABLE_NAME) \
    X(column, PG_DIAG_COLUMN_NAME) X(data_type, PG_DIAG_DATATYPE_NAME) \
    X(constraint, PG_DIAG_CONSTRAINT_NAME) X(file, PG_DIAG_SOURCE_FILE) \
    X(line, PG_DIAG_SOURCE_LINE) X(routine, PG_DIAG_SOURCE_FUNCTION)

/* clang-format on */

/* The first byte of a frame to the VM. */
#define PORT_FRAME_TERM 131u  /* an event, as an external term */
#define PORT_FRAME_ANSWER 'A' /* records of the answer to a request */
#define PORT_FRAME_WAL 'T'    /* transactions: cw_wal_frame.h */

/* The first byte of a record. */
#define PORT_RECORD_TERM 131u
#define PORT_RECORD_ROWS 'R' /* more of the same statement follows */
#define PORT_RECORD_END 'E'  /* the statement's last rows, and its command tag */
#define PORT_RECORD_COPY 'C'

/* The first byte of a request's body, where it is no term. */
#define PORT_BODY_COPY 'C'

#define PORT_FRAME_BYTES (64u << 10)   /* about where answers are cut into frames */
#define PORT_REQUEST_BYTES 0x7ffffff0u /* the longest request that is taken */
#define PORT_PARAMS 65535              /* of one statement: a limit of PostgreSQL's protocol */
#define PORT_COPY_WINDOW (1u << 20)    /* bytes of COPY data ahead of what is taken */

/* Exit statuses other than 0. */
#define PORT_EXIT_MEMORY 70
#define PORT_EXIT_RESOLVE 71 /* the deadline passed while a host's name was being resolved */
#define PORT_EXIT_STUCK 72   /* the VM did not read what it had to be told last */

#endif
