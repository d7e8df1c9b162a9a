/* The messages of PostgreSQL's output plugin pgoutput, protocol versions 1 to 4.
 *
 * A message is parsed where it lies: what the structs point to are the message's own bytes, which
 * must outlive them. Nothing of a message is believed: lengths, counts, letters and flags are
 * checked, and so is that it ends where it should.
 *
 * Within the blocks of a streamed transaction (between Stream Start and Stream Stop) the messages
 * that change something, and Relation, Type and Message, carry the id of the transaction or
 * subtransaction they belong to after their first byte. Only the reader of the whole stream knows
 * whether it is in such a block, so it says so. */
#ifndef CW_PGOUTPUT_H
#define CW_PGOUTPUT_H

#include "../core/cw_reader.h"

/* The first byte of a message. */
enum cw_pg_type {
    CW_PG_BEGIN = 'B',
    CW_PG_COMMIT = 'C',
    CW_PG_ORIGIN = 'O',
    CW_PG_RELATION = 'R',
    CW_PG_TYPE = 'Y',
    CW_PG_INSERT = 'I',
    CW_PG_UPDATE = 'U',
    CW_PG_DELETE = 'D',
    CW_PG_TRUNCATE = 'T',
    CW_PG_MESSAGE = 'M',
    CW_PG_STREAM_START = 'S',
    CW_PG_STREAM_STOP = 'E',
    CW_PG_STREAM_COMMIT = 'c',
    CW_PG_STREAM_ABORT = 'A',
};

/* Of Truncate and Message. */
#define CW_PG_CASCADE 1u
#define CW_PG_RESTART_IDENTITY 2u
#define CW_PG_TRANSACTIONAL 1u

/* Of a column. */
#define CW_PG_KEY 1u

/* ---- tuples ---- */

enum cw_pg_kind {
    CW_PG_NULL = 'n',
    CW_PG_UNCHANGED = 'u', /* a TOASTed value that the update left alone: not sent, not NULL */
    CW_PG_TEXT = 't',
    CW_PG_BINARY = 'b',
};

struct cw_pg_tuple {
    uint32_t n; /* columns */
    struct cw_bytes bytes;
};

struct cw_pg_value {
    enum cw_pg_kind kind;
    struct cw_bytes bytes; /* empty for the first two kinds */
};

/* The values of a tuple that has been parsed, one after another, `n` of them: what was checked is
 * not checked again, and reading on after the last is not allowed. */
static inline struct cw_pg_value cw_pg_value_next(const uint8_t **p) {
    struct cw_pg_value v = {(enum cw_pg_kind) * (*p)++, {NULL, 0}};
    if (v.kind == CW_PG_TEXT || v.kind == CW_PG_BINARY) {
        v.bytes = cw_bytes(*p + 4, cw_load32be(*p));
        *p += 4 + v.bytes.n;
    }
    return v;
}

/* ---- messages ---- */

/* Times are microseconds since the year 2000; names are without their closing NUL. */
struct cw_pg_begin {
    uint64_t commit_lsn; /* where the commit record begins */
    int64_t commit_time;
    uint32_t xid;
};

struct cw_pg_commit { /* of Stream Commit as well, which has the xid */
    uint32_t xid;
    uint64_t commit_lsn;
    uint64_t end_lsn; /* where the commit record ends: what is confirmed */
    int64_t commit_time;
};

struct cw_pg_origin {
    uint64_t lsn; /* of the commit at the origin */
    struct cw_bytes name;
};

struct cw_pg_relation {
    uint32_t oid;
    struct cw_bytes schema; /* empty for pg_catalog */
    struct cw_bytes name;
    char identity; /* 'd' default, 'n' nothing, 'f' full, 'i' index */
    uint32_t n;
    struct cw_bytes columns;
};

struct cw_pg_column {
    uint8_t flags;
    struct cw_bytes name;
    uint32_t type;
    int32_t modifier;
};

struct cw_pg_typename {
    uint32_t oid;
    struct cw_bytes schema;
    struct cw_bytes name;
};

struct cw_pg_change {
    uint32_t relation;
    char old_kind;          /* 'K': only the key's columns; 'O': the whole row; 0: there is none */
    struct cw_pg_tuple old; /* of Update and Delete */
    struct cw_pg_tuple new; /* of Insert and Update */
};

struct cw_pg_truncate {
    uint8_t flags;
    uint32_t n;
    struct cw_bytes relations; /* n times 32 bits, big-endian */
};

struct cw_pg_logical {
    uint8_t flags;
    uint64_t lsn;
    struct cw_bytes prefix;
    struct cw_bytes content;
};

struct cw_pg_stream_start {
    uint32_t xid;
    bool first;
};

struct cw_pg_stream_abort {
    uint32_t xid;
    uint32_t subxid; /* equal to `xid` when all of it is aborted */
    bool placed;     /* whether the next two were sent, which protocol 4 does on request */
    uint64_t lsn;
    int64_t time;
};

struct cw_pg_message {
    enum cw_pg_type type;
    uint32_t xid; /* the prefix of a streamed message, or 0 */
    union {
        struct cw_pg_begin begin;
        struct cw_pg_commit commit;
        struct cw_pg_origin origin;
        struct cw_pg_relation relation;
        struct cw_pg_typename typename;
        struct cw_pg_change change;
        struct cw_pg_truncate truncate;
        struct cw_pg_logical logical;
        struct cw_pg_stream_start stream_start;
        struct cw_pg_stream_abort stream_abort;
    } as;
};

/* Whether messages of this type carry an xid within a streamed block. */
bool cw_pg_has_xid(uint8_t type);

/* Parses one message, `streamed` when it comes within a streamed block. CW_ETRUNCATED when it ends
 * too early, CW_ETWOPHASE for the messages of two-phase commit, CW_EPROTOCOL for anything else that
 * pgoutput does not send. */
enum cw_err cw_pg_parse(struct cw_bytes s, bool streamed, struct cw_pg_message *out);

/* The columns of a relation that has been parsed, one after another, `n` of them. */
struct cw_pg_column cw_pg_column_next(const uint8_t **p);

#endif
