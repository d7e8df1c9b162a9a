/* pgoutput's messages, written as a server would write them. For tests and fuzz targets. */
#ifndef CW_TEST_WAL_MESSAGES_H
#define CW_TEST_WAL_MESSAGES_H

#include "../../c_src/core/cw_buf.h"
#include "../../c_src/wal/cw_pgoutput.h"
#include "check.h"

#define UNCHANGED ((const char *)1) /* as a value; NULL is NULL */

static inline struct cw_buf msg_new(char type) {
    struct cw_buf m;
    cw_buf_init(&m, &check_mem, NULL, 0);
    cw_buf_byte(&m, (uint8_t)type);
    return m;
}

static inline void msg_u8(struct cw_buf *m, uint8_t v) {
    cw_buf_byte(m, v);
}

static inline void msg_u16(struct cw_buf *m, uint16_t v) {
    cw_buf_byte(m, (uint8_t)(v >> 8));
    cw_buf_byte(m, (uint8_t)v);
}

static inline void msg_u32(struct cw_buf *m, uint32_t v) {
    uint8_t b[4];
    cw_store32be(b, v);
    cw_buf_put(m, b, 4);
}

static inline void msg_u64(struct cw_buf *m, uint64_t v) {
    cw_buf_u64be(m, v);
}

static inline void msg_name(struct cw_buf *m, const char *s) {
    cw_buf_put(m, s, strlen(s) + 1);
}

/* `xid` 0: not within a stream. */
static inline void msg_xid(struct cw_buf *m, uint32_t xid) {
    if (xid)
        msg_u32(m, xid);
}

static inline struct cw_buf msg_begin(uint32_t xid, uint64_t commit_lsn, int64_t time) {
    struct cw_buf m = msg_new('B');
    msg_u64(&m, commit_lsn);
    msg_u64(&m, (uint64_t)time);
    msg_u32(&m, xid);
    return m;
}

static inline void msg_commit_tail(struct cw_buf *m, uint64_t lsn, uint64_t end, int64_t time) {
    msg_u8(m, 0);
    msg_u64(m, lsn);
    msg_u64(m, end);
    msg_u64(m, (uint64_t)time);
}

static inline struct cw_buf msg_commit(uint64_t commit_lsn, uint64_t end_lsn, int64_t time) {
    struct cw_buf m = msg_new('C');
    msg_commit_tail(&m, commit_lsn, end_lsn, time);
    return m;
}

static inline struct cw_buf msg_origin(uint64_t lsn, const char *name) {
    struct cw_buf m = msg_new('O');
    msg_u64(&m, lsn);
    msg_name(&m, name);
    return m;
}

/* Columns c0, c1, ...: the first is the key. */
static inline struct cw_buf msg_relation(uint32_t xid, uint32_t oid, const char *name,
                                         uint16_t columns) {
    struct cw_buf m = msg_new('R');
    msg_xid(&m, xid);
    msg_u32(&m, oid);
    msg_name(&m, "public");
    msg_name(&m, name);
    msg_u8(&m, 'd');
    msg_u16(&m, columns);
    for (uint16_t i = 0; i < columns; i++) {
        char column[16];
        snprintf(column, sizeof column, "c%u", i);
        msg_u8(&m, i == 0);
        msg_name(&m, column);
        msg_u32(&m, 25);
        msg_u32(&m, UINT32_MAX);
    }
    return m;
}

static inline struct cw_buf msg_type(uint32_t xid, uint32_t oid, const char *name) {
    struct cw_buf m = msg_new('Y');
    msg_xid(&m, xid);
    msg_u32(&m, oid);
    msg_name(&m, "public");
    msg_name(&m, name);
    return m;
}

static inline void msg_tuple(struct cw_buf *m, char tag, const char *const *values, uint16_t n) {
    msg_u8(m, (uint8_t)tag);
    msg_u16(m, n);
    for (uint16_t i = 0; i < n; i++) {
        msg_u8(m, !values[i] ? 'n' : values[i] == UNCHANGED ? 'u' : 't');
        if (!values[i] || values[i] == UNCHANGED)
            continue;
        msg_u32(m, (uint32_t)strlen(values[i]));
        cw_buf_put(m, values[i], strlen(values[i]));
    }
}

static inline struct cw_buf msg_change(char type, uint32_t xid, uint32_t relation) {
    struct cw_buf m = msg_new(type);
    msg_xid(&m, xid);
    msg_u32(&m, relation);
    return m;
}

static inline struct cw_buf msg_insert(uint32_t xid, uint32_t relation, const char *const *values,
                                       uint16_t n) {
    struct cw_buf m = msg_change('I', xid, relation);
    msg_tuple(&m, 'N', values, n);
    return m;
}

static inline struct cw_buf msg_truncate(uint32_t xid, const uint32_t *relations, uint32_t n,
                                         uint8_t flags) {
    struct cw_buf m = msg_new('T');
    msg_xid(&m, xid);
    msg_u32(&m, n);
    msg_u8(&m, flags);
    for (uint32_t i = 0; i < n; i++)
        msg_u32(&m, relations[i]);
    return m;
}

static inline struct cw_buf msg_logical(uint32_t xid, uint8_t flags, uint64_t lsn,
                                        const char *prefix, const char *content) {
    struct cw_buf m = msg_new('M');
    msg_xid(&m, xid);
    msg_u8(&m, flags);
    msg_u64(&m, lsn);
    msg_name(&m, prefix);
    msg_u32(&m, (uint32_t)strlen(content));
    cw_buf_put(&m, content, strlen(content));
    return m;
}

static inline struct cw_buf msg_stream_start(uint32_t xid, bool first) {
    struct cw_buf m = msg_new('S');
    msg_u32(&m, xid);
    msg_u8(&m, first);
    return m;
}

static inline struct cw_buf msg_stream_stop(void) {
    return msg_new('E');
}

static inline struct cw_buf msg_stream_commit(uint32_t xid, uint64_t lsn, uint64_t end,
                                              int64_t time) {
    struct cw_buf m = msg_new('c');
    msg_u32(&m, xid);
    msg_commit_tail(&m, lsn, end, time);
    return m;
}

static inline struct cw_buf msg_stream_abort(uint32_t xid, uint32_t subxid) {
    struct cw_buf m = msg_new('A');
    msg_u32(&m, xid);
    msg_u32(&m, subxid);
    return m;
}

#endif
