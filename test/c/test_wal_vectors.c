/* Messages as a server has sent them (PostgreSQL 15): the files test/vectors/wal/NAME.bin, each
 * message after 32 bits of length, and NAME.txt, what is in them. With CW_WRITE=1 the texts are
 * made anew, for somebody to read.
 *
 *     changes_text     each kind of change, messages, an origin; protocol 1, values as text
 *     changes_binary   the same, values in binary form, without messages
 *     streamed         a streamed transaction with a subtransaction that is rolled back, one that
 * is rolled back as a whole, and a small one */
#include <stdlib.h>

#include "../../c_src/wal/cw_assembly.h"
#include "check.h"
#include "wal_describe.h"

static const char *folder(void) {
    const char *env = getenv("CW_VECTORS");
    return env ? env : "test/vectors";
}

static struct cw_buf new_buf(void) {
    struct cw_buf buf;
    cw_buf_init(&buf, &check_mem, NULL, 0);
    return buf;
}

static FILE *open_file(const char *name, const char *suffix, const char *mode) {
    char path[256];
    snprintf(path, sizeof path, "%s/wal/%s.%s", folder(), name, suffix);
    FILE *f = fopen(path, mode);
    CHECK(f);
    return f;
}

static struct cw_buf read_file(const char *name, const char *suffix) {
    struct cw_buf buf = new_buf();
    FILE *f = open_file(name, suffix, "rb");
    char piece[4096];
    for (size_t n; (n = fread(piece, 1, sizeof piece, f)) > 0;)
        cw_buf_put(&buf, piece, n);
    fclose(f);
    return buf;
}

static struct cw_bytes next_message(struct cw_reader *r) {
    struct cw_bytes size = cw_read_bytes(r, 4);
    struct cw_bytes message = cw_read_bytes(r, size.n ? cw_load32be(size.p) : 0);
    CHECK_OK(r->err);
    return message;
}

/* ---- what is in them ---- */

static void describe(struct cw_bytes file, struct cw_buf *text) {
    struct cw_reader r = cw_reader(file);
    bool streamed = false;
    while (cw_reader_left(&r)) {
        struct cw_pg_message m;
        CHECK_OK(cw_pg_parse(next_message(&r), streamed, &m));
        streamed = m.type == CW_PG_STREAM_START || (streamed && m.type != CW_PG_STREAM_STOP);
        wal_describe(text, &m);
    }
}

static void check_text(const char *name) {
    struct cw_buf file = read_file(name, "bin"), text = new_buf();
    describe(cw_buf_slice(&file, 0), &text);
    if (getenv("CW_WRITE")) {
        FILE *f = open_file(name, "txt", "wb");
        CHECK(fwrite(text.p, 1, text.n, f) == text.n && fclose(f) == 0);
    }
    struct cw_buf want = read_file(name, "txt");
    CHECK(cw_bytes_eq(cw_buf_slice(&want, 0), cw_buf_slice(&text, 0)));
    cw_buf_free(&file);
    cw_buf_free(&text);
    cw_buf_free(&want);
}

static void test_texts(void) {
    check_text("changes_text");
    check_text("changes_binary");
    check_text("streamed");
}

/* ---- transactions made of them ---- */

struct seen {
    uint32_t transactions, singles, inserts, updates, deletes, truncates, messages, relations;
    bool origin;
};

static void see_message(struct seen *seen, struct cw_bytes s) {
    switch (s.p[0]) {
    case 'I':
        seen->inserts++;
        break;
    case 'U':
        seen->updates++;
        break;
    case 'D':
        seen->deletes++;
        break;
    case 'T':
        seen->truncates++;
        break;
    case 'M':
        seen->messages++;
        break;
    case CW_FRAME_RELATION:
        seen->relations++;
        break;
    }
}

static enum cw_err sink(void *ctx, struct cw_bytes frame) {
    struct seen *seen = ctx;
    struct cw_reader r = cw_reader(frame), messages;
    struct cw_block block;
    cw_read_byte(&r);
    while (cw_block_next(&r, &block, &messages)) {
        if (block.flags & CW_BLOCK_LAST)
            ++*(block.flags & CW_BLOCK_MESSAGE ? &seen->singles : &seen->transactions);
        seen->origin |= block.origin.n == 9 && !memcmp(block.origin.p, "elsewhere", 9);
        for (uint32_t i = 0; i < block.messages; i++)
            see_message(seen, cw_block_message(&messages));
        CHECK_OK(cw_reader_whole(&messages));
    }
    CHECK_OK(r.err);
    return CW_OK;
}

static struct seen assemble(const char *name) {
    struct seen seen = {0};
    struct cw_buf file = read_file(name, "bin");
    struct cw_reader r = cw_reader(cw_buf_slice(&file, 0));
    struct cw_assembly_config config = {.mem = &check_mem,
                                        .frame_bytes = 1000,
                                        .spool_bytes = SIZE_MAX,
                                        .sink_ctx = &seen,
                                        .sink = sink};
    struct cw_assembly *a = cw_assembly_new(&config, 0);
    while (cw_reader_left(&r)) {
        CHECK_OK(cw_assembly_feed(a, next_message(&r)));
        while (cw_assembly_replaying(a))
            CHECK_OK(cw_assembly_replay(a));
        CHECK(cw_assembly_check(a) == NULL);
    }
    CHECK_OK(cw_assembly_flush(a));
    cw_assembly_free(a);
    cw_buf_free(&file);
    CHECK(check_mem_live() == 0);
    return seen;
}

static void test_transactions(void) {
    struct seen text = assemble("changes_text"), binary = assemble("changes_binary");
    CHECK(text.transactions == 6 && text.singles == 1 && text.origin);
    CHECK(text.inserts == 6 && text.updates == 3 && text.deletes == 2);
    CHECK(text.truncates == 2 && text.messages == 2);
    CHECK(binary.transactions == 6 && binary.singles == 0 && binary.origin);
    CHECK(binary.inserts == 6 && binary.updates == 3 && binary.messages == 0);
    struct seen streamed = assemble("streamed");
    CHECK(streamed.transactions == 2 && streamed.inserts == 301 + 400 + 1);
    CHECK(streamed.updates == 2 && streamed.deletes == 1 && streamed.messages == 1);
}

int main(int argc, char **argv) {
    static const struct check_test tests[] = {
        {"texts", test_texts},
        {"transactions", test_transactions},
    };
    return check_main(argc, argv, "wal_vectors", tests, sizeof tests / sizeof tests[0]);
}
