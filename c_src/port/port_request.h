/* Requests of the VM, read and checked. A frame is
 *
 *   | id: 32 | timeout in ms, 0 for none: 32 | body |
 *
 * and the body a tuple as an external term, or raw bytes behind PORT_BODY_COPY. What is read here
 * points into the frame. Nothing here knows libpq. */
#ifndef PORT_REQUEST_H
#define PORT_REQUEST_H

#include "port_protocol.h"
#include "port_term.h"

#define X(name) PORT_##name,
enum port_op { PORT_REQUESTS(X) PORT_copy_data };
#undef X

struct port_request {
    uint32_t id;
    uint32_t timeout;
    enum port_op op;
    uint32_t args;         /* how many follow the tag */
    struct port_term rest; /* they */
    struct cw_bytes data;  /* of PORT_copy_data */
};

/* False when the frame is none. That the arguments are what they should be is for the readers
 * below, which are false when they are not. */
bool port_request_read(struct cw_bytes frame, struct port_request *request);

/* ---- connect: {connect, [{Key, Value}]} ---- */

struct port_pairs {
    uint32_t n;
    struct port_term rest;
};

bool port_read_connect(const struct port_request *request, struct port_pairs *pairs);

/* To be called `n` times. */
void port_next_pair(struct port_pairs *pairs, struct cw_bytes *key, struct cw_bytes *value);

/* ---- run: {run, Credit, MaxRows, [Step]} ---- */

#define X(name) PORT_STEP_##name,
enum port_step_op { PORT_STEPS(X) };
#undef X

/*   {prepare, Name, Sql, Types}           {describe, Name}    {close, Name}
 *   {execute, Name, Params, Formats, Binary}
 *   {query, Sql, Types, Params, Formats, Binary}
 *   {simple, Sql}, which is alone          {sync} */
struct port_step {
    enum port_step_op op;
    struct cw_bytes name;
    struct cw_bytes sql;
    struct cw_bytes types;   /* an OID in 4 bytes for each parameter whose type is told */
    struct cw_bytes params;  /* of each its length in 4 bytes, -1 for NULL, and its bytes */
    struct cw_bytes formats; /* a byte for each parameter: 0 text, 1 binary */
    bool binary;             /* what the result shall be in */
};

struct port_steps {
    uint32_t credit;   /* how many frames may be answered before more is given; 0 for any number */
    uint32_t max_rows; /* of a frame; 0 for any number */
    uint32_t n;        /* 1 at least */
    bool synced;       /* the last one is a sync */
    struct port_term rest;
};

/* Every step is checked. */
bool port_read_run(const struct port_request *request, struct port_steps *steps);

/* To be called `n` times. */
void port_next_step(struct port_steps *steps, struct port_step *step);

/* The next parameter: its length or -1. `params` must be a checked step's, and not at its end. */
int32_t port_next_value(struct cw_bytes *params, const char **value);

/* ---- the others ---- */

/* {copy_in, Sql}, {copy_fail, Message} */
bool port_read_text(const struct port_request *request, struct cw_bytes *text);
/* {credit, N}, of which 0 is none */
bool port_read_number(const struct port_request *request, uint32_t *n);
/* {copy_out, Sql, Credit} */
bool port_read_copy_out(const struct port_request *request, struct cw_bytes *sql, uint32_t *credit);
/* {confirm, Credit, Lsn} */
bool port_read_confirm(const struct port_request *request, uint32_t *credit, uint64_t *lsn);

/* {replicate, Sql, Start, Credit, Spool, Interval, Patience, Dir}; positions are binaries of 64
 * bits. */
struct port_replicate {
    struct cw_bytes sql;
    uint64_t start;
    uint32_t credit;   /* bytes that may be sent before more is given */
    uint32_t spool;    /* bytes of streamed transactions in memory */
    uint32_t interval; /* ms between two words to the server */
    uint32_t patience; /* ms that it may be silent, 0 for any time */
    struct cw_bytes dir;
};
bool port_read_replicate(const struct port_request *request, struct port_replicate *r);

/* {cancel}, {copy_done}, {info} */
bool port_read_nothing(const struct port_request *request);

#endif
