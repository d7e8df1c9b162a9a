/* One writer at a steady rate: inserts the numbers from 1 into a table of one column, each in a
 * transaction of its own, and prints each with the time in nanoseconds right before its COMMIT was
 * sent.
 *
 *     pg_wal_writer CONNINFO TABLE RATE COUNT */
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static int64_t now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void run(PGconn *conn, const char *sql) {
    PGresult *result = PQexec(conn, sql);
    if (PQresultStatus(result) != PGRES_COMMAND_OK) {
        fprintf(stderr, "%s: %s", sql, PQerrorMessage(conn));
        exit(1);
    }
    PQclear(result);
}

int main(int argc, char **argv) {
    if (argc < 5)
        return 0;
    PGconn *conn = PQconnectdb(argv[1]);
    long count = atol(argv[4]);
    int64_t *sent = calloc((size_t)count, sizeof *sent);
    if (!sent)
        return 1;
    int64_t next = now(CLOCK_MONOTONIC), interval = 1000000000 / atol(argv[3]);
    for (long i = 0; i < count; i++, next += interval) {
        struct timespec at = {next / 1000000000, next % 1000000000};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
        char sql[256];
        snprintf(sql, sizeof sql, "BEGIN; INSERT INTO %s VALUES (%ld)", argv[2], i + 1);
        run(conn, sql);
        sent[i] = now(CLOCK_REALTIME);
        run(conn, "COMMIT");
    }
    for (long i = 0; i < count; i++)
        printf("%ld %" PRId64 "\n", i + 1, sent[i]);
    free(sent);
    PQfinish(conn);
    return 0;
}
