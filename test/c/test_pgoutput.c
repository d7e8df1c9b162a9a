/* The parser of pgoutput's messages: each kind field by field, each cut off at every byte and with
 * one byte more, and what must be refused. Then messages that a server has sent. */
#include <stdlib.h>

#include "wal_messages.h"

static const char *const row[] = {"1", NULL, UNCHANGED, "", "some text"};

static struct cw_pg_message parse(const struct cw_buf *m, bool streamed) {
    struct cw_pg_message out;
    CHECK_OK(cw_pg_parse(cw_buf_slice(m, 0), streamed, &out));
    return out;
}

/* In a block of its own size, so that a sanitizer sees a read past it. */
static enum cw_err parse_copy(struct cw_bytes s, bool streamed) {
    struct cw_pg_message out;
    uint8_t *copy = malloc(s.n ? s.n : 1);
    if (s.n)
        memcpy(copy, s.p, s.n);
    enum cw_err err = cw_pg_parse(cw_bytes(copy, s.n), streamed, &out);
    free(copy);
    return err;
}

/* A stream abort is complete after its ids, and again after lsn and time. */
static void refuse_cuts(struct cw_buf *m, bool streamed, size_t also) {
    for (size_t n = 0; n < m->n; n++)
        CHECK((parse_copy(cw_bytes(m->p, n), streamed) == CW_ETRUNCATED) == (!also || n != also));
    cw_buf_byte(m, 0);
    if (also || m->p[0] != 'A')
        CHECK(parse_copy(cw_buf_slice(m, 0), streamed) == CW_EPROTOCOL);
    cw_buf_free(m);
}

static bool is(struct cw_bytes s, const char *text) {
    return cw_bytes_eq(s, cw_bytes(text, strlen(text)));
}

static void check_row(struct cw_pg_tuple tuple) {
    const uint8_t *p = tuple.bytes.p;
    CHECK(tuple.n == 5);
    for (int i = 0; i < 5; i++) {
        struct cw_pg_value v = cw_pg_value_next(&p);
        if (!row[i] || row[i] == UNCHANGED)
            CHECK(v.kind == (row[i] ? CW_PG_UNCHANGED : CW_PG_NULL) && v.bytes.n == 0);
        else
            CHECK(v.kind == CW_PG_TEXT && is(v.bytes, row[i]));
    }
    CHECK(p == tuple.bytes.p + tuple.bytes.n);
}

/* ---- one of each ---- */

static void test_transaction(void) {
    struct cw_buf m = msg_begin(7, 0x1122334455667788, -5);
    struct cw_pg_message out = parse(&m, false);
    CHECK(out.type == CW_PG_BEGIN && out.as.begin.xid == 7 && out.as.begin.commit_time == -5);
    CHECK(out.as.begin.commit_lsn == 0x1122334455667788);
    refuse_cuts(&m, false, 0);
    m = msg_commit(0x10, 0x20, 9);
    out = parse(&m, true); /* never with an xid */
    CHECK(out.type == CW_PG_COMMIT && out.as.commit.commit_lsn == 0x10);
    CHECK(out.as.commit.end_lsn == 0x20 && out.as.commit.commit_time == 9);
    refuse_cuts(&m, false, 0);
    m = msg_origin(0x30, "else\xc3\xa9where");
    out = parse(&m, false);
    CHECK(out.as.origin.lsn == 0x30 && is(out.as.origin.name, "else\xc3\xa9where"));
    refuse_cuts(&m, false, 0);
}

static void check_relation(uint32_t xid) {
    struct cw_buf m = msg_relation(xid, 16384, "things", 3);
    struct cw_pg_message out = parse(&m, xid != 0);
    const struct cw_pg_relation *r = &out.as.relation;
    CHECK(out.xid == xid && r->oid == 16384 && is(r->schema, "public") && is(r->name, "things"));
    CHECK(r->identity == 'd' && r->n == 3);
    const uint8_t *p = r->columns.p;
    for (int i = 0; i < 3; i++) {
        struct cw_pg_column c = cw_pg_column_next(&p);
        CHECK(c.flags == (i == 0 ? CW_PG_KEY : 0) && c.name.n == 2 && c.name.p[1] == '0' + i);
        CHECK(c.type == 25 && c.modifier == -1);
    }
    CHECK(p == r->columns.p + r->columns.n);
    refuse_cuts(&m, xid != 0, 0);
}

static void test_schema(void) {
    check_relation(0);
    check_relation(77);
    struct cw_buf m = msg_type(0, 16400, "mood");
    struct cw_pg_message out = parse(&m, false);
    CHECK(out.as.typename.oid == 16400 && is(out.as.typename.name, "mood"));
    refuse_cuts(&m, false, 0);
}

static void check_change(char type, char old, bool with_new, uint32_t xid) {
    struct cw_buf m = msg_change(type, xid, 16384);
    if (old)
        msg_tuple(&m, old, row, 5);
    if (with_new)
        msg_tuple(&m, 'N', row, 5);
    struct cw_pg_message out = parse(&m, xid != 0);
    CHECK((char)out.type == type && out.xid == xid && out.as.change.relation == 16384);
    CHECK(out.as.change.old_kind == old);
    if (old)
        check_row(out.as.change.old);
    if (with_new)
        check_row(out.as.change.new);
    refuse_cuts(&m, xid != 0, 0);
}

static void test_changes(void) {
    for (uint32_t xid = 0; xid <= 88; xid += 88) {
        check_change('I', 0, true, xid);
        check_change('U', 0, true, xid);
        check_change('U', 'K', true, xid);
        check_change('U', 'O', true, xid);
        check_change('D', 'K', false, xid);
        check_change('D', 'O', false, xid);
    }
    static const uint32_t oids[] = {16384, 16390};
    struct cw_buf m = msg_truncate(0, oids, 2, CW_PG_CASCADE | CW_PG_RESTART_IDENTITY);
    struct cw_pg_message out = parse(&m, false);
    CHECK(out.as.truncate.n == 2 && out.as.truncate.flags == 3);
    CHECK(cw_load32be(out.as.truncate.relations.p + 4) == 16390);
    refuse_cuts(&m, false, 0);
}

static void test_logical(void) {
    for (uint8_t flags = 0; flags <= 1; flags++) {
        struct cw_buf m = msg_logical(0, flags, 0x77, "app", "\1\2\3");
        struct cw_pg_message out = parse(&m, false);
        CHECK(out.as.logical.flags == flags && out.as.logical.lsn == 0x77);
        CHECK(is(out.as.logical.prefix, "app") && is(out.as.logical.content, "\1\2\3"));
        refuse_cuts(&m, false, 0);
    }
}

static void test_stream(void) {
    struct cw_buf m = msg_stream_start(9, true);
    struct cw_pg_message out = parse(&m, false);
    CHECK(out.as.stream_start.xid == 9 && out.as.stream_start.first);
    refuse_cuts(&m, false, 0);
    m = msg_stream_stop();
    CHECK(parse(&m, true).type == CW_PG_STREAM_STOP);
    refuse_cuts(&m, false, 0);
    m = msg_stream_commit(9, 1, 2, 3);
    out = parse(&m, false);
    CHECK(out.as.commit.xid == 9 && out.as.commit.commit_lsn == 1 && out.as.commit.end_lsn == 2);
    refuse_cuts(&m, false, 0);
    m = msg_stream_abort(9, 10);
    out = parse(&m, false);
    CHECK(out.as.stream_abort.xid == 9 && out.as.stream_abort.subxid == 10);
    CHECK(!out.as.stream_abort.placed);
    msg_u64(&m, 0x55);
    msg_u64(&m, 66);
    out = parse(&m, false);
    CHECK(out.as.stream_abort.placed && out.as.stream_abort.lsn == 0x55);
    CHECK(out.as.stream_abort.time == 66);
    refuse_cuts(&m, false, 9);
}

/* ---- what is refused ---- */

static enum cw_err end(struct cw_buf *m, bool streamed) {
    enum cw_err err = parse_copy(cw_buf_slice(m, 0), streamed);
    cw_buf_free(m);
    return err;
}

static void test_two_phase(void) {
    for (const char *type = "bPKrp"; *type; type++) {
        struct cw_buf m = msg_new(*type);
        msg_u64(&m, 1);
        CHECK(end(&m, false) == CW_ETWOPHASE);
    }
}

static void test_unknown_types(void) {
    for (int type = 0; type < 256; type++) {
        struct cw_buf m = msg_new((char)type);
        bool known = type && strchr("BCORYIUDTMSEcAbPKrp", type);
        if (!known)
            CHECK(end(&m, false) == CW_EPROTOCOL);
        else
            cw_buf_free(&m);
    }
}

static void test_bad_fields(void) {
    struct cw_buf m = msg_commit(0x20, 0x10, 9); /* ends before it begins */
    CHECK(end(&m, false) == CW_EPROTOCOL);
    m = msg_commit(0x10, 0x20, 9);
    m.p[1] = 1; /* flags that do not exist */
    CHECK(end(&m, false) == CW_EPROTOCOL);
    m = msg_logical(0, 't', 1, "", "");
    CHECK(end(&m, false) == CW_EPROTOCOL);
    m = msg_change('I', 0, 1);
    msg_tuple(&m, 'O', row, 5);
    CHECK(end(&m, false) == CW_EPROTOCOL);
    m = msg_change('D', 0, 1);
    msg_tuple(&m, 'N', row, 5);
    CHECK(end(&m, false) == CW_EPROTOCOL);
    m = msg_insert(0, 1, row, 5);
    m.p[8] = 'x'; /* the kind of the first value */
    CHECK(end(&m, false) == CW_EPROTOCOL);
    m = msg_insert(0, 1, row, 5);
    m.p[9] = 0xff; /* its length */
    CHECK(end(&m, false) == CW_ETRUNCATED);
    m = msg_relation(0, 1, "t", 1);
    m.p[1 + 4 + 7 + 2] = 'x'; /* the replica identity */
    CHECK(end(&m, false) == CW_EPROTOCOL);
    m = msg_insert(0, 1, row, 5);
    CHECK(end(&m, true) != CW_OK); /* the relation is taken for an xid */
}

/* Whatever byte is changed, it parses or is refused, and nothing beyond the message is read. */
static void test_random_bytes(void) {
    for (int i = 0; i < check_rounds(20000); i++) {
        struct cw_buf m = check_below(2) ? msg_insert(3, 1, row, 5) : msg_relation(3, 1, "t", 4);
        for (uint64_t n = 1 + check_below(3); n > 0; n--)
            m.p[check_below(m.n)] = (uint8_t)check_random();
        end(&m, check_below(2));
    }
}

int main(int argc, char **argv) {
    static const struct check_test tests[] = {
        {"transaction", test_transaction},
        {"relation and type", test_schema},
        {"changes", test_changes},
        {"logical messages", test_logical},
        {"stream", test_stream},
        {"two-phase commit is refused", test_two_phase},
        {"unknown types", test_unknown_types},
        {"bad fields", test_bad_fields},
        {"random bytes", test_random_bytes},
    };
    return check_main(argc, argv, "pgoutput", tests, sizeof tests / sizeof tests[0]);
}
