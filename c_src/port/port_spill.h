/* Files for streamed transactions that memory is too small for (cw_spool.h): without a name, in a
 * folder of the VM's choice, so that they are gone with the program whatever it ends by. */
#ifndef PORT_SPILL_H
#define PORT_SPILL_H

#include "../wal/cw_spool.h"

struct port_spill {
    const char *dir;
    const char *failed; /* what the system refused last: "open", "write" or "read" */
    int error;          /* its errno */
};

/* The callbacks of cw_spool.h; `spill` and its `dir` must outlive them. Nothing here waits for a
 * disk: what is written is the system's to keep in memory or not. */
struct cw_spill port_spill_callbacks(struct port_spill *spill);

#endif
