/* What the job of logical replication tells the VM, beside frames of transactions. */
#ifndef PORT_WAL_H
#define PORT_WAL_H

#include "../wal/cw_assembly.h"
#include "port.h"

struct port_wal_report {
    uint64_t server;    /* how far the server has sent, as it says */
    int64_t sent_at;    /* its clock when it last sent, in microseconds since the year 2000 */
    uint64_t confirmed; /* what it was told */
    uint64_t bytes;     /* of messages, since the beginning */
    struct cw_assembly_info assembly;
};

/* Record {replicating}: the server has begun to send. */
void port_answer_replicating(struct port *port);
/* Event {wal, [{Key, Number}]}. */
void port_tell_wal(struct port *port, const struct port_wal_report *report);

#endif
