#include "port_wait.h"

#include <sched.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

/* In ns: how long to look; what counts as short, which is longer, as a wait that slept counts the
 * waking. */
#define LOOK 50000
#define SHORT 120000

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void port_wait_init(struct port_wait *wait, bool patient) {
    *wait = (struct port_wait){.patient = patient || sysconf(_SC_NPROCESSORS_ONLN) == 1};
}

static int look(struct pollfd *fds, nfds_t n, int64_t until) {
    int ready = 0;
    while (!(ready = poll(fds, n, 0)) && now() < until)
        sched_yield();
    return ready;
}

int port_wait(struct port_wait *wait, enum port_wait_for what, struct pollfd *fds, nfds_t n,
              int timeout) {
    if (what == PORT_WAIT_PATIENTLY)
        return poll(fds, n, timeout);
    int64_t began = now();
    bool may_look = timeout && wait->soon[what] && !wait->patient;
    int ready = may_look ? look(fds, n, began + LOOK) : 0;
    if (!ready)
        ready = poll(fds, n, timeout);
    wait->soon[what] = now() - began < SHORT;
    return ready;
}
