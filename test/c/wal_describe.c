#include "wal_describe.h"

#include <inttypes.h>
#include <stdarg.h>

#include "check.h"

#define SHOWN 24 /* bytes of a value; of more, their number */

static void put(struct cw_buf *text, const char *format, ...) {
    char line[128];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    CHECK(n >= 0 && (size_t)n < sizeof line);
    cw_buf_put(text, line, (size_t)n);
}

static void put_bytes(struct cw_buf *text, struct cw_bytes s) {
    if (s.n > SHOWN)
        put(text, "(%zu bytes)", s.n);
    for (size_t i = 0; s.n <= SHOWN && i < s.n; i++)
        put(text, s.p[i] >= ' ' && s.p[i] < 127 ? "%c" : "\\%02x", s.p[i]);
}

static void put_tuple(struct cw_buf *text, const char *name, struct cw_pg_tuple tuple) {
    const uint8_t *p = tuple.bytes.p;
    put(text, " %s[", name);
    for (uint32_t i = 0; i < tuple.n; i++) {
        struct cw_pg_value v = cw_pg_value_next(&p);
        put(text, "%s%c", i ? " " : "", v.kind);
        if (v.kind == CW_PG_TEXT || v.kind == CW_PG_BINARY)
            put(text, ":");
        put_bytes(text, v.bytes);
    }
    put(text, "]");
}

static void put_relation(struct cw_buf *text, const struct cw_pg_relation *m) {
    const uint8_t *p = m->columns.p;
    put(text, " %" PRIu32 " ", m->oid);
    put_bytes(text, m->schema);
    put(text, ".");
    put_bytes(text, m->name);
    put(text, " identity %c", m->identity);
    for (uint32_t i = 0; i < m->n; i++) {
        struct cw_pg_column c = cw_pg_column_next(&p);
        put(text, " %s", c.flags & CW_PG_KEY ? "key " : "");
        put_bytes(text, c.name);
        put(text, ":%" PRIu32 ":%" PRId32, c.type, c.modifier);
    }
}

static void put_change(struct cw_buf *text, const struct cw_pg_message *m) {
    const struct cw_pg_change *c = &m->as.change;
    put(text, " %" PRIu32, c->relation);
    if (c->old_kind)
        put_tuple(text, c->old_kind == 'K' ? "key" : "old", c->old);
    if (m->type != CW_PG_DELETE)
        put_tuple(text, "new", c->new);
}

static void put_truncate(struct cw_buf *text, const struct cw_pg_truncate *m) {
    put(text, " flags %u", m->flags);
    for (uint32_t i = 0; i < m->n; i++)
        put(text, " %" PRIu32, cw_load32be(m->relations.p + 4 * (size_t)i));
}

static void put_named(struct cw_buf *text, struct cw_bytes one, struct cw_bytes other) {
    put(text, " ");
    put_bytes(text, one);
    put(text, " ");
    put_bytes(text, other);
}

static void put_commit(struct cw_buf *text, const struct cw_pg_commit *m) {
    put(text, " xid %" PRIu32 " commit %" PRIX64 " end %" PRIX64 " time %" PRId64, m->xid,
        m->commit_lsn, m->end_lsn, m->commit_time);
}

static void put_fields(struct cw_buf *text, const struct cw_pg_message *m) {
    switch (m->type) {
    case CW_PG_BEGIN:
        put(text, " xid %" PRIu32 " commit %" PRIX64 " time %" PRId64, m->as.begin.xid,
            m->as.begin.commit_lsn, m->as.begin.commit_time);
        break;
    case CW_PG_COMMIT:
    case CW_PG_STREAM_COMMIT:
        put_commit(text, &m->as.commit);
        break;
    case CW_PG_ORIGIN:
        put(text, " lsn %" PRIX64, m->as.origin.lsn);
        put_named(text, m->as.origin.name, cw_bytes("", 0));
        break;
    case CW_PG_RELATION:
        put_relation(text, &m->as.relation);
        break;
    case CW_PG_TYPE:
        put(text, " %" PRIu32, m->as.typename.oid);
        put_named(text, m->as.typename.schema, m->as.typename.name);
        break;
    case CW_PG_TRUNCATE:
        put_truncate(text, &m->as.truncate);
        break;
    case CW_PG_MESSAGE:
        put(text, " flags %u lsn %" PRIX64, m->as.logical.flags, m->as.logical.lsn);
        put_named(text, m->as.logical.prefix, m->as.logical.content);
        break;
    case CW_PG_STREAM_START:
        put(text, " xid %" PRIu32 "%s", m->as.stream_start.xid,
            m->as.stream_start.first ? " first" : "");
        break;
    case CW_PG_STREAM_ABORT:
        put(text, " xid %" PRIu32 " subxid %" PRIu32, m->as.stream_abort.xid,
            m->as.stream_abort.subxid);
        break;
    case CW_PG_STREAM_STOP:
        break;
    default:
        put_change(text, m);
    }
}

void wal_describe(struct cw_buf *text, const struct cw_pg_message *m) {
    put(text, "%c", m->type);
    if (m->xid)
        put(text, " in %" PRIu32, m->xid);
    put_fields(text, m);
    put(text, "\n");
}
