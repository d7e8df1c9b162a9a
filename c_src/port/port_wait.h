#ifndef PORT_WAIT_H
#define PORT_WAIT_H

/* Waiting for something to be read or written. A process that sleeps takes its time to be woken,
 * on a virtual machine whose processor has gone to sleep with it some 30 us, and a short statement
 * waits twice: for the server, and for the VM's next request. So where the last wait of the same
 * kind was a short one the next begins with looking again and again, giving way to whoever else
 * wants the processor. In vain it does so once, until a short wait has been seen again.
 *
 * To look takes time from others. Of a pool's connections many are in use at once, and each caller
 * does something between two statements: there it costs a sixth of the throughput and brings
 * nothing (docs/ecto_path.md). So a program may be told to be patient. */

#include <poll.h>
#include <stdbool.h>

enum port_wait_for { PORT_WAIT_VM, PORT_WAIT_SERVER, PORT_WAIT_PATIENTLY };

struct port_wait {
    bool patient; /* never looks */
    bool soon[PORT_WAIT_PATIENTLY];
};

/* With but one processor, who looks keeps the others from working. */
void port_wait_init(struct port_wait *wait, bool patient);

/* As poll(2). */
int port_wait(struct port_wait *wait, enum port_wait_for what, struct pollfd *fds, nfds_t n,
              int timeout);

#endif
