/* cw_pg_parse and cw_assembly: a stream of messages, each after two bytes of length, as a server
 * gone mad would send it. Whatever it is, the frames that come of it can be read. */
#include <stdlib.h>

#include "../../c_src/wal/cw_assembly.h"
#include "../../c_src/wal/cw_pgoutput.h"
#include "fuzz.h"

static void walk_tuple(struct cw_pg_tuple tuple) {
    const uint8_t *p = tuple.bytes.p;
    for (uint32_t i = 0; i < tuple.n; i++)
        cw_pg_value_next(&p);
    CHECK(tuple.n == 0 || p == tuple.bytes.p + tuple.bytes.n);
}

static void walk(const struct cw_pg_message *m) {
    if (m->type == CW_PG_INSERT || m->type == CW_PG_UPDATE || m->type == CW_PG_DELETE) {
        walk_tuple(m->as.change.old);
        walk_tuple(m->as.change.new);
    } else if (m->type == CW_PG_RELATION) {
        const uint8_t *p = m->as.relation.columns.p;
        for (uint32_t i = 0; i < m->as.relation.n; i++)
            cw_pg_column_next(&p);
        CHECK(p == m->as.relation.columns.p + m->as.relation.columns.n);
    }
}

static void parse(struct cw_bytes s) {
    struct cw_pg_message m;
    for (int streamed = 0; streamed <= 1; streamed++)
        if (!cw_pg_parse(s, streamed, &m))
            walk(&m);
}

/* ---- the consumer ---- */

struct consumer {
    bool within; /* a transaction of which the last part has not come */
};

static enum cw_err sink(void *ctx, struct cw_bytes frame) {
    struct consumer *c = ctx;
    struct cw_block block;
    struct cw_reader r = cw_reader(frame), messages;
    CHECK(cw_read_byte(&r) == CW_FRAME_TAG);
    while (cw_block_next(&r, &block, &messages)) {
        CHECK(c->within == !(block.flags & CW_BLOCK_FIRST));
        c->within = !(block.flags & CW_BLOCK_LAST);
        for (uint32_t i = 0; i < block.messages; i++)
            CHECK(cw_block_message(&messages).n > 0);
        CHECK_OK(cw_reader_whole(&messages));
    }
    CHECK_OK(r.err);
    return CW_OK;
}

/* ---- files ---- */

static enum cw_err file_open(void *ctx, void **file) {
    struct cw_buf *buf = malloc(sizeof *buf);
    (void)ctx;
    cw_buf_init(buf, &check_mem, NULL, 0);
    *file = buf;
    return CW_OK;
}

static enum cw_err file_append(void *file, struct cw_bytes s) {
    cw_buf_bytes(file, s);
    return CW_OK;
}

static enum cw_err file_read(void *file, uint64_t at, void *p, size_t n) {
    struct cw_buf *buf = file;
    CHECK(at <= buf->n && n <= buf->n - at);
    memcpy(p, buf->p + at, n);
    return CW_OK;
}

static void file_close(void *file) {
    cw_buf_free(file);
    free(file);
}

static enum cw_err step(struct cw_assembly *a, struct cw_bytes message) {
    enum cw_err err = cw_assembly_feed(a, message);
    while (!err && cw_assembly_replaying(a))
        err = cw_assembly_replay(a);
    if (!err && message.n % 3 == 0)
        err = cw_assembly_flush(a);
    if (!err)
        cw_positions_ack(cw_assembly_positions(a), message.n * 1000);
    const char *fault = err ? NULL : cw_assembly_check(a);
    if (fault)
        check_failed(__FILE__, __LINE__, fault);
    return err;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct consumer consumer = {false};
    struct cw_assembly_config config = {
        .mem = &check_mem,
        .frame_bytes = size ? 1u + 4u * data[0] : 1,
        .spool_bytes = size & 1 ? 0 : SIZE_MAX,
        .spill = {NULL, file_open, file_append, file_read, file_close},
        .sink_ctx = &consumer,
        .sink = sink,
    };
    struct cw_assembly *a = cw_assembly_new(&config, 0);
    struct cw_reader r = cw_reader(cw_bytes(data + !!size, size - !!size));
    enum cw_err err = CW_OK;
    while (cw_reader_left(&r) >= 2 && !err) {
        struct cw_bytes n = cw_read_bytes(&r, 2);
        size_t length = (size_t)n.p[0] | (size_t)n.p[1] << 8;
        struct cw_bytes message =
            cw_read_bytes(&r, length < cw_reader_left(&r) ? length : cw_reader_left(&r));
        parse(message);
        err = step(a, message);
    }
    CHECK(!err || err == CW_EPROTOCOL || err == CW_ETRUNCATED || err == CW_ETWOPHASE);
    cw_assembly_free(a);
    CHECK(check_mem_live() == 0);
    return 0;
}
