#include "cw_pgoutput.h"

/* ---- the parts ---- */

static void bad(struct cw_reader *r) {
    cw_reader_fail(r, CW_EPROTOCOL);
}

static uint32_t read_u16(struct cw_reader *r) {
    struct cw_bytes s = cw_read_bytes(r, 2);
    return s.n ? (uint32_t)s.p[0] << 8 | s.p[1] : 0;
}

static uint32_t read_u32(struct cw_reader *r) {
    struct cw_bytes s = cw_read_bytes(r, 4);
    return s.n ? cw_load32be(s.p) : 0;
}

static uint64_t read_u64(struct cw_reader *r) {
    struct cw_bytes s = cw_read_bytes(r, 8);
    return s.n ? cw_load64be(s.p) : 0;
}

static int64_t read_i64(struct cw_reader *r) {
    return (int64_t)read_u64(r);
}

static uint8_t read_flags(struct cw_reader *r, uint8_t known) {
    uint8_t flags = cw_read_byte(r);
    if (flags & ~known)
        bad(r);
    return flags;
}

static struct cw_bytes read_name(struct cw_reader *r) {
    const uint8_t *end = memchr(r->p, 0, cw_reader_left(r));
    if (!end) {
        cw_reader_fail(r, CW_ETRUNCATED);
        return cw_bytes(r->p, 0);
    }
    struct cw_bytes name = cw_bytes(r->p, (size_t)(end - r->p));
    r->p = end + 1;
    return name;
}

/* Most of the time that parsing takes is spent here, so the reader is used only to fail. */
static struct cw_pg_tuple read_tuple(struct cw_reader *r) {
    struct cw_pg_tuple tuple = {read_u16(r), {r->p, 0}};
    const uint8_t *p = r->p, *end = r->end;
    enum cw_err err = CW_OK;
    for (uint32_t i = 0; i < tuple.n && !err; i++) {
        if (p == end) {
            err = CW_ETRUNCATED;
        } else if (*p == CW_PG_TEXT || *p == CW_PG_BINARY) {
            size_t left = (size_t)(end - p);
            if (left < 5 || cw_load32be(p + 1) > left - 5)
                err = CW_ETRUNCATED;
            else
                p += 5 + cw_load32be(p + 1);
        } else {
            err = *p == CW_PG_NULL || *p == CW_PG_UNCHANGED ? CW_OK : CW_EPROTOCOL;
            p++;
        }
    }
    tuple.bytes = cw_bytes(r->p, (size_t)(p - r->p));
    r->p = p;
    if (err)
        cw_reader_fail(r, err);
    return tuple;
}

/* ---- the messages ---- */

static void read_begin(struct cw_reader *r, struct cw_pg_begin *m) {
    m->commit_lsn = read_u64(r);
    m->commit_time = read_i64(r);
    m->xid = read_u32(r);
}

static void read_commit(struct cw_reader *r, struct cw_pg_commit *m) {
    read_flags(r, 0);
    m->commit_lsn = read_u64(r);
    m->end_lsn = read_u64(r);
    m->commit_time = read_i64(r);
    if (m->end_lsn < m->commit_lsn)
        bad(r);
}

static void read_origin(struct cw_reader *r, struct cw_pg_origin *m) {
    m->lsn = read_u64(r);
    m->name = read_name(r);
}

static struct cw_pg_column read_column(struct cw_reader *r) {
    struct cw_pg_column column;
    column.flags = read_flags(r, CW_PG_KEY);
    column.name = read_name(r);
    column.type = read_u32(r);
    column.modifier = (int32_t)read_u32(r);
    return column;
}

static void read_relation(struct cw_reader *r, struct cw_pg_relation *m) {
    m->oid = read_u32(r);
    m->schema = read_name(r);
    m->name = read_name(r);
    m->identity = (char)cw_read_byte(r);
    m->n = read_u16(r);
    if (!r->err && !memchr("dnfi", m->identity, 4))
        bad(r);
    const uint8_t *from = r->p;
    for (uint32_t i = 0; i < m->n && !r->err; i++)
        read_column(r);
    m->columns = cw_bytes(from, (size_t)(r->p - from));
}

struct cw_pg_column cw_pg_column_next(const uint8_t **p) {
    const uint8_t *name = *p + 1;
    size_t n = strlen((const char *)name);
    const uint8_t *type = name + n + 1;
    struct cw_pg_column column = {**p, cw_bytes(name, n), cw_load32be(type),
                                  (int32_t)cw_load32be(type + 4)};
    *p = type + 8;
    return column;
}

static void read_typename(struct cw_reader *r, struct cw_pg_typename *m) {
    m->oid = read_u32(r);
    m->schema = read_name(r);
    m->name = read_name(r);
}

/* Insert: 'N' new. Update: ['K' or 'O' old] 'N' new. Delete: 'K' or 'O' old. */
static void read_change(struct cw_reader *r, uint8_t type, struct cw_pg_change *m) {
    m->relation = read_u32(r);
    uint8_t tag = cw_read_byte(r);
    if (type != CW_PG_INSERT && (tag == 'K' || tag == 'O')) {
        m->old_kind = (char)tag;
        m->old = read_tuple(r);
        if (type == CW_PG_DELETE)
            return;
        tag = cw_read_byte(r);
    }
    if (tag != 'N' || type == CW_PG_DELETE)
        bad(r);
    m->new = read_tuple(r);
}

static void read_truncate(struct cw_reader *r, struct cw_pg_truncate *m) {
    m->n = read_u32(r);
    m->flags = read_flags(r, CW_PG_CASCADE | CW_PG_RESTART_IDENTITY);
    m->relations = cw_read_bytes(r, 4 * (uint64_t)m->n);
}

static void read_logical(struct cw_reader *r, struct cw_pg_logical *m) {
    m->flags = read_flags(r, CW_PG_TRANSACTIONAL);
    m->lsn = read_u64(r);
    m->prefix = read_name(r);
    m->content = cw_read_bytes(r, read_u32(r));
}

static void read_stream_start(struct cw_reader *r, struct cw_pg_stream_start *m) {
    m->xid = read_u32(r);
    m->first = read_flags(r, 1);
}

static void read_stream_abort(struct cw_reader *r, struct cw_pg_stream_abort *m) {
    m->xid = read_u32(r);
    m->subxid = read_u32(r);
    m->placed = cw_reader_left(r) > 0;
    if (m->placed) {
        m->lsn = read_u64(r);
        m->time = read_i64(r);
    }
}

bool cw_pg_has_xid(uint8_t type) {
    return type && memchr("IUDTMRY", type, 7) != NULL;
}

static void read_message(struct cw_reader *r, struct cw_pg_message *m) {
    switch ((uint8_t)m->type) {
    case CW_PG_INSERT:
    case CW_PG_UPDATE:
    case CW_PG_DELETE:
        read_change(r, (uint8_t)m->type, &m->as.change);
        break;
    case CW_PG_BEGIN:
        read_begin(r, &m->as.begin);
        break;
    case CW_PG_COMMIT:
        read_commit(r, &m->as.commit);
        break;
    case CW_PG_ORIGIN:
        read_origin(r, &m->as.origin);
        break;
    case CW_PG_RELATION:
        read_relation(r, &m->as.relation);
        break;
    case CW_PG_TYPE:
        read_typename(r, &m->as.typename);
        break;
    case CW_PG_TRUNCATE:
        read_truncate(r, &m->as.truncate);
        break;
    case CW_PG_MESSAGE:
        read_logical(r, &m->as.logical);
        break;
    case CW_PG_STREAM_START:
        read_stream_start(r, &m->as.stream_start);
        break;
    case CW_PG_STREAM_STOP:
        break;
    case CW_PG_STREAM_COMMIT:
        m->as.commit.xid = read_u32(r);
        read_commit(r, &m->as.commit);
        break;
    case CW_PG_STREAM_ABORT:
        read_stream_abort(r, &m->as.stream_abort);
        break;
    case 'b': /* Begin Prepare */
    case 'P': /* Prepare */
    case 'K': /* Commit Prepared */
    case 'r': /* Rollback Prepared */
    case 'p': /* Stream Prepare */
        cw_reader_fail(r, CW_ETWOPHASE);
        break;
    default:
        bad(r);
    }
}

enum cw_err cw_pg_parse(struct cw_bytes s, bool streamed, struct cw_pg_message *out) {
    struct cw_reader r = cw_reader(s);
    struct cw_pg_message m = {.type = (enum cw_pg_type)cw_read_byte(&r)};
    if (streamed && cw_pg_has_xid((uint8_t)m.type))
        m.xid = read_u32(&r);
    read_message(&r, &m);
    if (!r.err && r.p != r.end)
        bad(&r);
    if (!r.err)
        *out = m;
    return r.err;
}
