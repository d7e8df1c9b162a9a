#ifndef PORT_WAIT_H
#define PORT_WAIT_H

/* Waiting for something to be read or written. A process that sleeps takes its time to be woken,
 * on a virtual machine whose processor has gone to sleep with it some 30 us, and a short statement
 * waits twice: for the server, and for the VM's next request. So where the last wait of the same
 * kind was a short one the next begins with looking again and again, giving way to whoever else
 * wants the processor. In vain it does so once, until a short wait has been seen again. */

#include <poll.h>
#include <stdbool.h>

enum port_wait_for { PORT_WAIT_VM, PORT_WAIT_SERVER, PORT_WAIT_PATIENTLY };

struct port_wait {
    bool alone; /* there is but one processor: who looks keeps the others from working */
    bool soon[PORT_WAIT_PATIENTLY];
};

void port_wait_init(struct port_wait *wait);

/* As poll(2). */
int port_wait(struct port_wait *wait, enum port_wait_for what, struct pollfd *fds, nfds_t n,
              int timeout);

#endif
