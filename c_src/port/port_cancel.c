#include "port_cancel.h"

#include <fcntl.h>
#include <unistd.h>

bool port_cancel_init(struct port_cancel *cancel) {
    *cancel = (struct port_cancel){.handle = NULL};
    if (pipe(cancel->ends))
        return false;
    fcntl(cancel->ends[0], F_SETFD, FD_CLOEXEC);
    fcntl(cancel->ends[1], F_SETFD, FD_CLOEXEC);
    return true;
}

static void *run(void *arg) {
    struct port_cancel *cancel = arg;
    char error[256];
    PQcancel(cancel->handle, error, sizeof error);
    while (write(cancel->ends[1], "", 1) < 0)
        ;
    return NULL;
}

void port_cancel_start(struct port_cancel *cancel, PGconn *conn) {
    if (cancel->handle)
        return;
    cancel->handle = PQgetCancel(conn);
    if (cancel->handle && pthread_create(&cancel->thread, NULL, run, cancel)) {
        PQfreeCancel(cancel->handle);
        cancel->handle = NULL;
    }
}

void port_cancel_finish(struct port_cancel *cancel) {
    char byte;
    if (read(cancel->ends[0], &byte, 1) != 1)
        return;
    pthread_join(cancel->thread, NULL);
    PQfreeCancel(cancel->handle);
    cancel->handle = NULL;
}
