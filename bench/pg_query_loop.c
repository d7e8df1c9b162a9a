/* A prepared statement with one parameter, again and again, as plain as libpq allows, with results
 * in the binary format that nobody looks at: what the server and its socket take.
 *
 *     pg_query_loop CONNINFO TIMES SQL PARAMETER
 *
 * Prints microseconds a call. */
#define _POSIX_C_SOURCE 200809L
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static void expect(PGconn *conn, PGresult *result, ExecStatusType status) {
    if (PQresultStatus(result) != status) {
        fprintf(stderr, "%s", PQerrorMessage(conn));
        exit(1);
    }
    PQclear(result);
}

int main(int argc, char **argv) {
    if (argc < 5)
        return 0;
    PGconn *conn = PQconnectdb(argv[1]);
    const char *values[] = {argv[4]};
    expect(conn, PQprepare(conn, "s", argv[3], 1, NULL), PGRES_COMMAND_OK);
    long times = atol(argv[2]);
    double began = now();
    for (long i = 0; i < times; i++)
        expect(conn, PQexecPrepared(conn, "s", 1, values, NULL, NULL, 1), PGRES_TUPLES_OK);
    printf("%.2f\n", (now() - began) / (double)times);
    PQfinish(conn);
    return 0;
}
