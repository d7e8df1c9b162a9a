/* A logical replication client as plain as can be: what libpq and the server's walsender give. It
 * reads pgoutput's messages until a transaction ends behind a position, and counts rows and
 * transactions by their first byte.
 *
 *     pg_wal_loop CONNINFO SLOT PUBLICATION UNTIL [count|latency] [NAP_US] [STREAMING]
 *
 * count prints seconds, CPU seconds, rows, transactions. latency, whose UNTIL is a number of
 * transactions, prints for each, of one row of one column, its value and the time in nanoseconds at
 * which its commit was read. NAP_US is how long to wait after each wakeup. STREAMING asks for
 * protocol 2, with transactions sent before they end. */
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <libpq-fe.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

typedef struct reader {
    PGconn *conn;
    uint64_t until;     /* the position to end behind, or how many transactions */
    uint64_t confirmed; /* the end of the last transaction read */
    long rows, transactions;
    bool streaming; /* within a block of a transaction that goes on */
    bool latency;
    long value; /* of the last row */
} reader_t;

static double seconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void die(const char *what, PGconn *conn) {
    fprintf(stderr, "%s: %s", what, conn ? PQerrorMessage(conn) : "\n");
    exit(1);
}

static uint64_t big_endian(const unsigned char *at, int bytes) {
    uint64_t n = 0;
    for (int i = 0; i < bytes; i++)
        n = n << 8 | at[i];
    return n;
}

static uint64_t position(const char *text) {
    unsigned hi, lo;
    if (sscanf(text, "%X/%X", &hi, &lo) != 2)
        die("UNTIL is no position", NULL);
    return (uint64_t)hi << 32 | lo;
}

static void start(reader_t *r, const char *slot, const char *publication) {
    char sql[512];
    snprintf(sql, sizeof sql,
             "START_REPLICATION SLOT \"%s\" LOGICAL 0/0 (proto_version '%d', publication_names "
             "'\"%s\"'%s)",
             slot, r->streaming ? 2 : 1, publication, r->streaming ? ", streaming 'on'" : "");
    PGresult *result = PQexec(r->conn, sql);
    if (PQresultStatus(result) != PGRES_COPY_BOTH)
        die("START_REPLICATION", r->conn);
    PQclear(result);
    r->streaming = false;
}

/* Standby status: written, flushed and applied up to the last commit. */
static void confirm(reader_t *r) {
    unsigned char status[34] = {'r'};
    for (int i = 0; i < 24; i++)
        status[1 + i] = (unsigned char)(r->confirmed >> (56 - 8 * (i % 8)));
    if (PQputCopyData(r->conn, (char *)status, sizeof status) != 1 || PQflush(r->conn) < 0)
        die("status", r->conn);
}

static void committed(reader_t *r, const unsigned char *end_lsn) {
    r->transactions++;
    r->confirmed = big_endian(end_lsn, 8);
    if (r->latency) {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        printf("%ld %" PRId64 "\n", r->value, (int64_t)t.tv_sec * 1000000000 + t.tv_nsec);
    }
}

/* In a streamed block, a transaction's number stands between the letter and the rest. */
static void message(reader_t *r, const unsigned char *at) {
    switch (*at) {
    case 'I':
        r->rows++;
        /* relation 4, 'N', columns 2, 't', length 4, text; the text of the last column ends the
         * message */
        if (r->latency)
            r->value = strtol((const char *)at + 13, NULL, 10);
        break;
    case 'U':
    case 'D':
        r->rows++;
        break;
    case 'C':
        committed(r, at + 10);
        break;
    case 'c':
        committed(r, at + 14);
        break;
    }
}

static void frame(reader_t *r, const unsigned char *at, int length) {
    if (*at == 'w' && length > 25)
        message(r, at + 25);
    else if (*at == 'k' && at[17])
        confirm(r);
}

/* Reads what is there; false when the position is reached. */
static bool drain(reader_t *r) {
    char *copy;
    int length;
    while ((length = PQgetCopyData(r->conn, &copy, 1)) > 0) {
        frame(r, (unsigned char *)copy, length);
        PQfreemem(copy);
        if (r->latency ? (uint64_t)r->transactions >= r->until : r->confirmed > r->until)
            return false;
    }
    if (length < 0)
        die("the stream ended", r->conn);
    return true;
}

static void read_all(reader_t *r, long nap_us) {
    struct timespec nap = {0, nap_us * 1000};
    struct pollfd fd = {PQsocket(r->conn), POLLIN, 0};
    while (drain(r)) {
        poll(&fd, 1, 1000);
        if (nap_us > 0)
            nanosleep(&nap, NULL);
        if (!PQconsumeInput(r->conn))
            die("the connection was lost", r->conn);
    }
}

int main(int argc, char **argv) {
    if (argc < 5)
        return 0;
    reader_t r = {0};
    r.latency = argc > 5 && strcmp(argv[5], "latency") == 0;
    r.until = r.latency ? strtoull(argv[4], NULL, 10) : position(argv[4]);
    r.streaming = argc > 7;
    char conninfo[1024];
    snprintf(conninfo, sizeof conninfo, "%s replication=database", argv[1]);
    r.conn = PQconnectdb(conninfo);
    if (PQstatus(r.conn) != CONNECTION_OK)
        die("connect", r.conn);

    double began = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    start(&r, argv[2], argv[3]);
    read_all(&r, argc > 6 ? atol(argv[6]) : 0);
    if (!r.latency)
        printf("%.3f %.3f %ld %ld\n", seconds(CLOCK_MONOTONIC) - began,
               seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu, r.rows, r.transactions);
    PQfinish(r.conn);
    return 0;
}
