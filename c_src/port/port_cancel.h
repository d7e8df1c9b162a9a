/* Asking the server to cancel what the connection runs. libpq's call for it opens a connection of
 * its own and waits, so it is made in a thread. A job whose cancel is under way is not over before
 * that is: it would hit the next. */
#ifndef PORT_CANCEL_H
#define PORT_CANCEL_H

#include <libpq-fe.h>
#include <pthread.h>
#include <stdbool.h>

struct port_cancel {
    PGcancel *handle; /* not NULL: under way */
    pthread_t thread;
    int ends[2]; /* of a pipe; the thread writes to it when it is done */
};

/* False when there can be no pipe. */
bool port_cancel_init(struct port_cancel *cancel);

static inline bool port_cancel_running(const struct port_cancel *cancel) {
    return cancel->handle != NULL;
}

/* Does nothing when one is under way. Failures to start are ignored: whoever cancels tries again.
 */
void port_cancel_start(struct port_cancel *cancel, PGconn *conn);

/* To be called when ends[0] is readable. */
void port_cancel_finish(struct port_cancel *cancel);

#endif
