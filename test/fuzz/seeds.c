/* Writes the first inputs of each corpus: `seeds test/fuzz/corpus`. Nothing random: the same files
 * every time. `make fuzz-keep` adds what fuzzing finds. */
#include <sys/stat.h>

#include "../../c_src/core/cw_clock.h"
#include "../c/terms.h"
#include "../c/wal_messages.h"
#include "fuzz_small.h"

static const char *root;

static void save(const char *corpus, const char *name, struct cw_bytes s) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", root, corpus);
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/%s/%s", root, corpus, name);
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(s.p, 1, s.n, f) == s.n && fclose(f) == 0);
}

/* Two inputs in one (fuzz_split). */
static void save_two(const char *corpus, const char *name, struct cw_bytes a, struct cw_bytes b) {
    struct cw_buf buf = fuzz_buf();
    cw_buf_byte(&buf, (uint8_t)a.n);
    cw_buf_byte(&buf, (uint8_t)(a.n >> 8));
    cw_buf_bytes(&buf, a);
    cw_buf_bytes(&buf, b);
    save(corpus, name, cw_buf_slice(&buf, 0));
    cw_buf_free(&buf);
}

/* ---- terms ---- */

static struct term *sample(void) {
    struct term *t = term_open(CW_T_LIST, 0), *map = term_open(CW_T_MAP, 8);
    static const uint8_t big[] = {0x80, 0, 0, 0, 0, 0, 0, 0, 1};
    struct term *all[] = {
        term_new(CW_T_NIL),
        term_new(CW_T_FALSE),
        term_new(CW_T_TRUE),
        term_int(0),
        term_int(-256),
        term_int(INT64_MAX),
        term_int(INT64_MIN),
        term_big(false, big, 9),
        term_big(true, big, 9),
        term_float(-0.0),
        term_float(1.5),
        term_string(CW_T_ATOM, "\xc3\xa9\0", 3),
        map,
        term_open(CW_T_TUPLE, 0),
        term_string(CW_T_BINARY, "a\0\1\2\xff", 5),
    };
    t->at = terms_alloc(sizeof all);
    memcpy(t->at, all, sizeof all);
    t->count = sizeof all / sizeof all[0];
    for (size_t i = 0; i < map->count; i++)
        map->at[i] = all[i];
    term_tidy_map(map);
    return t;
}

static void seed_terms(void) {
    struct term *t = sample();
    for (int enc = CW_KEY; enc <= CW_VALUE; enc++) {
        struct cw_buf buf = fuzz_buf();
        cw_buf_byte(&buf, (uint8_t)enc);
        for (size_t i = 0; i < t->count; i++)
            term_put(&buf, (enum cw_encoding)enc, t->at[i]);
        term_put(&buf, (enum cw_encoding)enc, t);
        save("term", enc == CW_KEY ? "key" : "value", cw_buf_slice(&buf, 0));
        cw_buf_free(&buf);
    }
    terms_reset();
}

/* ---- clocks ---- */

static struct cw_buf clock_of(const char *letters, uint64_t counter) {
    struct cw_vv *vv = cw_vv_new(&check_mem, 0), *next;
    for (size_t i = 0; letters[i]; i++) {
        uint8_t bytes[3] = {0x50, (uint8_t)letters[i], 0};
        struct cw_name *name = cw_name_new(&check_mem, cw_bytes(bytes, 3));
        CHECK_OK(cw_vv_raise(vv, name, counter + i, &next));
        cw_name_release(name);
        cw_vv_release(vv);
        vv = next;
    }
    struct cw_buf buf = fuzz_buf();
    cw_clock_put(&buf, vv);
    cw_vv_release(vv);
    return buf;
}

static void seed_clocks(void) {
    static const struct {
        const char *name, *a, *b;
        uint64_t ca, cb;
    } rows[] = {{"same_names", "abc", "abc", 7, 5},
                {"widths", "abc", "abc", 7, 70000},
                {"other_names", "abd", "acd", 254, UINT64_C(1) << 40},
                {"empty", "", "a", 1, 1}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct cw_buf a = clock_of(rows[i].a, rows[i].ca), b = clock_of(rows[i].b, rows[i].cb);
        save_two("clock", rows[i].name, cw_buf_slice(&a, 0), cw_buf_slice(&b, 0));
        cw_buf_free(&a);
        cw_buf_free(&b);
    }
}

/* ---- fragments ---- */

static struct cw_buf state_of(const struct cw_doc *doc) {
    struct cw_buf buf = fuzz_buf();
    CHECK_OK(cw_doc_encode(doc, &buf));
    return buf;
}

static struct cw_buf delta_of(const struct cw_doc *old, const struct cw_doc *doc, bool net) {
    struct cw_buf buf = fuzz_buf();
    struct cw_vv *clock;
    CHECK_OK(cw_doc_clock(old, &clock));
    if (net)
        CHECK_OK(cw_doc_delta_between(old, doc, SIZE_MAX, &buf));
    else
        CHECK_OK(cw_doc_delta(doc, clock, SIZE_MAX, &buf));
    cw_vv_release(clock);
    return buf;
}

static struct cw_doc *edited(const struct cw_doc *doc, const char *name,
                             const struct small_row *rows, size_t n) {
    struct cw_doc *to, *next;
    uint8_t bytes[3] = {0x50, (uint8_t)name[0], 0};
    CHECK_OK(cw_doc_fork(doc, cw_bytes(bytes, 3), &to));
    for (size_t i = 0; i < n; i++) {
        next = small_op(to, rows[i].verb, rows[i].kind, rows[i].path, rows[i].arg, rows[i].amount);
        if (!next)
            continue;
        cw_doc_free(to);
        to = next;
    }
    return to;
}

static void seed_fragments(void) {
    struct cw_doc *base = small_doc(), *merged;
    struct cw_doc *x = edited(base, "m", small_removals, 9), *y = edited(base, "n", small_rows, 9);
    CHECK_OK(cw_doc_merge(x, y, SIZE_MAX, &merged));
    struct cw_buf all[] = {state_of(base),
                           state_of(x),
                           state_of(merged),
                           delta_of(base, x, false),
                           delta_of(base, y, false),
                           delta_of(base, x, true),
                           delta_of(base, merged, true),
                           delta_of(x, merged, false)};
    static const char *const names[] = {"base",  "removed", "merged",  "delta_removed",
                                        "delta", "net",     "net_all", "after_merge"};
    const size_t n = sizeof all / sizeof all[0];
    for (size_t i = 0; i < n; i++)
        save("fragment", names[i], cw_buf_slice(&all[i], 0));
    for (size_t i = 0; i + 1 < n; i++)
        save_two("fragment_join", names[i], cw_buf_slice(&all[i], 0), cw_buf_slice(&all[i + 1], 0));
    save_two("fragment_join", "net_and_exact", cw_buf_slice(&all[3], 0), cw_buf_slice(&all[6], 0));
    for (size_t i = 0; i < n; i++)
        cw_buf_free(&all[i]);
    cw_doc_free(base);
    cw_doc_free(merged);
    cw_doc_free(x);
    cw_doc_free(y);
}

/* ---- operations: bytes that look random ---- */

static void seed_ops(void) {
    uint8_t s[1200];
    uint32_t x = 1;
    for (int k = 0; k < 4; k++) {
        char name[16];
        for (size_t i = 0; i < sizeof s; i++) {
            x = x * 1664525 + 1013904223;
            s[i] = (uint8_t)(x >> 24);
        }
        snprintf(name, sizeof name, "bytes_%d", k);
        save("ops", name, cw_bytes(s, sizeof s >> k));
    }
}

/* ---- streams of pgoutput ---- */

static void put_message(struct cw_buf *stream, struct cw_buf m) {
    cw_buf_byte(stream, (uint8_t)m.n);
    cw_buf_byte(stream, (uint8_t)(m.n >> 8));
    cw_buf_bytes(stream, cw_buf_slice(&m, 0));
    cw_buf_free(&m);
}

static const char *const wal_row[] = {"1", NULL, UNCHANGED, "some text"};

static void put_changes(struct cw_buf *stream, uint32_t xid) {
    static const uint32_t oids[] = {16384, 16385};
    put_message(stream, msg_type(xid, 16400, "mood"));
    put_message(stream, msg_relation(xid, 16384, "things", 4));
    put_message(stream, msg_insert(xid, 16384, wal_row, 4));
    for (const char *p = "UKUODKDO"; *p; p += 2) {
        struct cw_buf m = msg_change(*p, xid, 16384);
        msg_tuple(&m, p[1], wal_row, 4);
        if (*p == 'U')
            msg_tuple(&m, 'N', wal_row, 4);
        put_message(stream, m);
    }
    put_message(stream, msg_truncate(xid, oids, 2, 1));
    put_message(stream, msg_logical(xid, 1, 99, "app", "content"));
}

static void seed_pgoutput(void) {
    struct cw_buf one = fuzz_buf(), streamed = fuzz_buf();
    cw_buf_byte(&one, 255);
    put_message(&one, msg_begin(7, 100, 5));
    put_message(&one, msg_origin(3, "there"));
    put_changes(&one, 0);
    put_message(&one, msg_commit(100, 150, 5));
    put_message(&one, msg_logical(0, 0, 160, "alone", "x"));
    cw_buf_byte(&streamed, 20);
    for (uint32_t xid = 9; xid <= 10; xid++) {
        put_message(&streamed, msg_stream_start(xid, true));
        put_changes(&streamed, xid);
        put_changes(&streamed, xid + 100);
        put_message(&streamed, msg_stream_stop());
    }
    put_message(&streamed, msg_stream_abort(10, 110));
    put_message(&streamed, msg_stream_commit(10, 200, 250, 5));
    put_message(&streamed, msg_stream_abort(9, 9));
    save("pgoutput", "transaction", cw_buf_slice(&one, 0));
    save("pgoutput", "streamed", cw_buf_slice(&streamed, 0));
    cw_buf_free(&one);
    cw_buf_free(&streamed);
}

/* ---- requests to the port program ---- */

static void put_u32(struct cw_buf *buf, uint32_t v) {
    for (int shift = 24; shift >= 0; shift -= 8)
        cw_buf_byte(buf, (uint8_t)(v >> shift));
}

/* As an external term: a tuple of so many elements, of which the tag is the first. */
static void put_tuple(struct cw_buf *buf, uint8_t n, const char *tag) {
    cw_buf_byte(buf, 104);
    cw_buf_byte(buf, n);
    cw_buf_byte(buf, 119);
    cw_buf_byte(buf, (uint8_t)strlen(tag));
    cw_buf_put(buf, tag, strlen(tag));
}

static void put_binary(struct cw_buf *buf, const void *p, size_t n) {
    cw_buf_byte(buf, 109);
    put_u32(buf, (uint32_t)n);
    cw_buf_put(buf, p, n);
}

static void put_list(struct cw_buf *buf, uint32_t n) {
    cw_buf_byte(buf, 108);
    put_u32(buf, n);
}

static void put_small(struct cw_buf *buf, uint8_t v) {
    cw_buf_byte(buf, 97);
    cw_buf_byte(buf, v);
}

/* Id, timeout, version, and the tuple. */
static struct cw_buf request(uint8_t n, const char *tag) {
    struct cw_buf buf = fuzz_buf();
    put_u32(&buf, 1);
    put_u32(&buf, 5000);
    cw_buf_byte(&buf, 131);
    put_tuple(&buf, n, tag);
    return buf;
}

static void save_request(const char *name, struct cw_buf buf) {
    save("request", name, cw_buf_slice(&buf, 0));
    cw_buf_free(&buf);
}

static void put_values(struct cw_buf *buf) {
    put_binary(buf, "\0\0\0\2ab\377\377\377\377", 10);
    put_binary(buf, "\0\1", 2);
    put_small(buf, 1);
}

static struct cw_buf run_request(void) {
    struct cw_buf run = request(4, "run");
    put_small(&run, 4);
    put_small(&run, 100);
    put_list(&run, 6);
    put_tuple(&run, 4, "prepare");
    put_binary(&run, "name", 4);
    put_binary(&run, "select $1, $2", 13);
    put_binary(&run, "\0\0\0\24\0\0\0\31", 8);
    put_tuple(&run, 2, "describe");
    put_binary(&run, "name", 4);
    put_tuple(&run, 5, "execute");
    put_binary(&run, "name", 4);
    put_values(&run);
    put_tuple(&run, 1, "sync");
    put_tuple(&run, 6, "query");
    put_binary(&run, "select $1, $2", 13);
    put_binary(&run, "", 0);
    put_values(&run);
    put_tuple(&run, 2, "close");
    put_binary(&run, "name", 4);
    cw_buf_byte(&run, 106);
    return run;
}

static void seed_requests(void) {
    struct cw_buf connect = request(2, "connect"), simple = request(4, "run");
    put_list(&connect, 2);
    for (int i = 0; i < 2; i++) {
        cw_buf_put(&connect, "h\2", 2);
        put_binary(&connect, i ? "port" : "host", 4);
        put_binary(&connect, "5432", 4);
    }
    cw_buf_byte(&connect, 106);
    save_request("connect", connect);
    save_request("run", run_request());
    put_small(&simple, 0);
    put_small(&simple, 0);
    put_list(&simple, 1);
    put_tuple(&simple, 2, "simple");
    put_binary(&simple, "select 1", 8);
    cw_buf_byte(&simple, 106);
    save_request("simple", simple);
    struct cw_buf copy = request(3, "copy_out"), credit = request(2, "credit");
    put_binary(&copy, "copy t to stdout", 16);
    put_small(&copy, 4);
    save_request("copy_out", copy);
    cw_buf_byte(&credit, 98);
    put_u32(&credit, 1000);
    save_request("credit", credit);
    save_request("cancel", request(1, "cancel"));
    struct cw_bytes data = cw_bytes("\0\0\0\1\0\0\0\0Cdata", 13);
    save("request", "data", data);
}

int main(int argc, char **argv) {
    root = argc > 1 ? argv[1] : "test/fuzz/corpus";
    mkdir(root, 0777);
    seed_terms();
    seed_clocks();
    seed_fragments();
    seed_ops();
    seed_pgoutput();
    seed_requests();
    CHECK(check_mem_live() == 0);
    return 0;
}
