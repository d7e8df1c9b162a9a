/* Transactions put together from pgoutput's messages: random streams beside what was to be
 * delivered of them, with little memory, with files that fail, without memory; what may be
 * confirmed; and what no server sends. */
#include <stdlib.h>

#include "wal_world.h"

/* ---- random streams ---- */

static void run(size_t frame_bytes, size_t spool_bytes, int steps) {
    struct wal_world w;
    wal_world_open(&w, frame_bytes, spool_bytes);
    for (int i = 0; i < steps; i++)
        wal_world_step(&w);
    wal_world_end(&w);
    wal_world_check(&w);
    wal_world_close(&w);
    CHECK(check_mem_live() == 0);
}

static void test_streams(void) {
    for (int i = 0; i < check_rounds(150); i++)
        run(1 + check_below(check_below(2) ? 200 : 20000), SIZE_MAX, 60);
}

/* Each chunk goes to a file as soon as it is there. */
static void test_spilled(void) {
    for (int i = 0; i < check_rounds(100); i++)
        run(1 + check_below(5000), check_below(2) ? 0 : 300u << 10, 100);
}

static void test_failing_files(void) {
    for (int i = 0; i < check_rounds(100); i++) {
        struct wal_world w;
        wal_world_open(&w, 1000, 0);
        w.spill_fails_after = (long)check_below(40);
        for (int k = 0; k < 80; k++)
            wal_world_step(&w);
        wal_world_end(&w);
        CHECK(w.err == CW_OK || w.err == CW_ESPILL);
        wal_world_close(&w);
        CHECK(check_mem_live() == 0);
    }
}

static void test_failing_sink(void) {
    for (int i = 0; i < check_rounds(100); i++) {
        struct wal_world w;
        wal_world_open(&w, 300, SIZE_MAX);
        w.sink_fails_after = (long)check_below(60);
        for (int k = 0; k < 60; k++)
            wal_world_step(&w);
        wal_world_end(&w);
        CHECK(w.err == CW_OK || w.err == CW_EBUDGET);
        wal_world_close(&w);
        CHECK(check_mem_live() == 0);
    }
}

static void test_out_of_memory(void) {
    for (int i = 0; i < check_rounds(300); i++) {
        struct wal_world w;
        check_mem_fail_after((long)check_below(300));
        wal_world_open(&w, 1000, 0);
        for (int k = 0; k < 40; k++)
            wal_world_step(&w);
        wal_world_end(&w);
        CHECK(w.err == (check_mem_failed() ? CW_ENOMEM : CW_OK));
        check_mem_fail_after(-1);
        wal_world_close(&w);
        CHECK(check_mem_live() == 0);
    }
}

/* ---- sizes ---- */

/* Transactions whose frames end before, at and after their last message and their commit. */
static void test_frame_borders(void) {
    static const char *const row[] = {"some text"};
    for (size_t bytes = 1; bytes < 400; bytes++) {
        struct wal_world w;
        wal_world_open(&w, bytes, SIZE_MAX);
        for (uint32_t n = 1; n < 6; n++) {
            struct cw_buf m = msg_begin(n, 100 * n, 0);
            CHECK_OK(cw_assembly_feed(w.assembly, cw_buf_slice(&m, 0)));
            cw_buf_free(&m);
            m = msg_insert(0, 1, row, 1);
            for (uint32_t k = 0; k < n; k++)
                CHECK_OK(cw_assembly_feed(w.assembly, cw_buf_slice(&m, 0)));
            cw_buf_free(&m);
            m = msg_commit(100 * n, 100 * n + 50, 0);
            CHECK_OK(cw_assembly_feed(w.assembly, cw_buf_slice(&m, 0)));
            cw_buf_free(&m);
        }
        wal_world_end(&w);
        size_t lines = 0;
        for (size_t i = 0; i < w.got.n; i++)
            lines += w.got.p[i] == '\n';
        CHECK(lines == 5 + 15 && w.part.n == 0);
        wal_world_close(&w);
    }
}

/* ---- positions ---- */

struct commit {
    uint64_t lsn;
    uint64_t end;
};

/* The server's side of a slot: it does not send again what begins before the position confirmed,
 * so that may be anything up to where the first commit begins that the consumer has not confirmed.
 */
static void check_confirmed(const struct cw_positions *p, const struct commit *commits, size_t n) {
    uint64_t confirmed = cw_positions_confirmed(p);
    for (size_t i = 0; i < n; i++)
        CHECK(commits[i].lsn < p->acked || confirmed <= commits[i].lsn);
}

static void test_positions(void) {
    for (int i = 0; i < check_rounds(2000); i++) {
        struct commit commits[30];
        size_t n = 0;
        uint64_t lsn = 1000, last = 0;
        struct cw_positions p = cw_positions_at(lsn);
        while (n < 30) {
            switch (check_below(4)) {
            case 0: /* often the next record begins where the last one ended */
                commits[n].lsn = lsn += check_below(2) * check_below(10);
                commits[n].end = lsn += 1 + check_below(5);
                cw_positions_complete(&p, commits[n++].end);
                break;
            case 1:
                cw_positions_deliver(&p);
                break;
            case 2: /* sometimes of what there is not yet */
                cw_positions_ack(&p, 990 + check_below(lsn - 980));
                break;
            default:
                cw_positions_idle(&p, lsn += check_below(2) * check_below(9));
            }
            CHECK(cw_positions_confirmed(&p) >= last);
            last = cw_positions_confirmed(&p);
            check_confirmed(&p, commits, n);
        }
        cw_positions_deliver(&p);
        cw_positions_ack(&p, UINT64_MAX);
        CHECK(!cw_positions_waiting(&p));
        cw_positions_idle(&p, lsn + 7);
        CHECK(cw_positions_confirmed(&p) == lsn + 7); /* an idle database advances the slot */
    }
}

/* A keepalive that comes while a transaction is on its way, or is not confirmed, says nothing. */
static void test_keepalives(void) {
    static const char *const row[] = {"1"};
    struct wal_world w;
    wal_world_open(&w, 1000, SIZE_MAX);
    struct cw_positions *p = cw_assembly_positions(w.assembly);
    struct cw_buf begin = msg_begin(1, 2000, 0), commit = msg_commit(2000, 2100, 0);
    struct cw_buf insert = msg_insert(0, 1, row, 1);
    cw_assembly_keepalive(w.assembly, 1500);
    CHECK(cw_positions_confirmed(p) == 1500);
    CHECK_OK(cw_assembly_feed(w.assembly, cw_buf_slice(&begin, 0)));
    CHECK_OK(cw_assembly_feed(w.assembly, cw_buf_slice(&insert, 0)));
    cw_assembly_keepalive(w.assembly, 3000);
    CHECK(cw_positions_confirmed(p) == 1500);
    CHECK_OK(cw_assembly_feed(w.assembly, cw_buf_slice(&commit, 0)));
    cw_assembly_keepalive(w.assembly, 3000); /* complete, and still in the frame */
    cw_positions_ack(p, 2100);
    CHECK(cw_positions_confirmed(p) == 1500);
    CHECK_OK(cw_assembly_flush(w.assembly));
    CHECK(cw_positions_confirmed(p) == 1500);
    cw_positions_ack(p, 2099);
    CHECK(cw_positions_confirmed(p) == 2099);
    cw_positions_ack(p, 2100);
    CHECK(cw_positions_confirmed(p) == 3000);
    /* What changes nothing is not delivered, and need not be confirmed. */
    begin.p[8] = 0xff;
    commit.p[9] = 0xff;
    commit.p[17] = 0xff;
    commit.p[16] = 0xff;
    CHECK_OK(cw_assembly_feed(w.assembly, cw_buf_slice(&begin, 0)));
    CHECK_OK(cw_assembly_feed(w.assembly, cw_buf_slice(&commit, 0)));
    CHECK(!cw_positions_waiting(p) && cw_positions_confirmed(p) == 0xffff);
    cw_buf_free(&begin);
    cw_buf_free(&insert);
    cw_buf_free(&commit);
    wal_world_close(&w);
}

/* ---- aborted subtransactions ---- */

static void feed(struct wal_world *w, struct cw_buf m) {
    CHECK_OK(cw_assembly_feed(w->assembly, cw_buf_slice(&m, 0)));
    cw_buf_free(&m);
}

/* The first of them has the relation, which comes once more after it. What is skipped takes many
 * calls. */
static void test_first_aborted(void) {
    struct wal_world w;
    struct cw_assembly_info info;
    char text[5000] = {0};
    const char *row[] = {memset(text, 'x', sizeof text - 1)};
    int calls = 0;
    wal_world_open(&w, 1000, 0);
    feed(&w, msg_stream_start(9, true));
    feed(&w, msg_relation(10, 1, "t", 1));
    for (int i = 0; i < 1000; i++)
        feed(&w, msg_insert(10, 1, row, 1));
    feed(&w, msg_stream_stop());
    feed(&w, msg_stream_abort(9, 10));
    feed(&w, msg_stream_start(9, false));
    feed(&w, msg_relation(9, 1, "t", 1));
    feed(&w, msg_insert(9, 1, row, 1));
    feed(&w, msg_stream_stop());
    feed(&w, msg_stream_commit(9, 500, 600, 0));
    for (; cw_assembly_replaying(w.assembly); calls++)
        CHECK_OK(cw_assembly_replay(w.assembly));
    CHECK(calls > 4);
    CHECK_OK(cw_assembly_flush(w.assembly));
    cw_assembly_info(w.assembly, &info);
    CHECK(info.transactions == 1 && info.messages == 2 && !info.streamed);
    wal_world_close(&w);
    CHECK(check_mem_live() == 0);
}

/* ---- what no server sends ---- */

static struct cw_buf named(char name) {
    static const char *const row[] = {"1"};
    switch (name) {
    case 'B':
        return msg_begin(1, 100, 0);
    case 'C':
        return msg_commit(100, 200, 0);
    case 'X': /* of another transaction */
        return msg_commit(300, 400, 0);
    case 'O':
        return msg_origin(1, "there");
    case 'I':
        return msg_insert(0, 1, row, 1);
    case 'i':
        return msg_insert(9, 1, row, 1);
    case 'S':
        return msg_stream_start(9, true);
    case 's':
        return msg_stream_start(9, false);
    case 'E':
        return msg_stream_stop();
    case 'c':
        return msg_stream_commit(9, 500, 600, 0);
    case 'P':
        return msg_new('P');
    default:
        return msg_stream_abort(9, 9);
    }
}

/* The last of these messages is refused, those before it are not. */
static void refuse(const char *names, enum cw_err want) {
    struct wal_world w;
    wal_world_open(&w, 1000, SIZE_MAX);
    for (; *names; names++) {
        struct cw_buf m = named(*names);
        enum cw_err err = cw_assembly_feed(w.assembly, cw_buf_slice(&m, 0));
        CHECK(err == (names[1] ? CW_OK : want));
        CHECK((err != CW_OK) == (cw_assembly_what(w.assembly)[0] != 0));
        CHECK(cw_assembly_check(w.assembly) == NULL);
        cw_buf_free(&m);
    }
    wal_world_close(&w);
    CHECK(check_mem_live() == 0);
}

static void test_refusals(void) {
    static const char *const all[] = {"C",  "I",   "O",   "E",   "c",   "s",    "BB",   "BX",  "BS",
                                      "BE", "BIO", "SS",  "SB",  "SC",  "SEc",  "SES",  "BCC", "Bc",
                                      "BA", "SA",  "SEB", "SiE", "SOE", "SEsB", "SEAs", "BIC"};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        const char *names = all[i];
        bool good = !strcmp(names, "SEc") || !strcmp(names, "SEB") || !strcmp(names, "SiE") ||
                    !strcmp(names, "SOE") || !strcmp(names, "BIC");
        refuse(names, good ? CW_OK : CW_EPROTOCOL);
    }
    refuse("A", CW_OK); /* of a transaction nothing is known of, there is nothing to drop */
    refuse("P", CW_ETWOPHASE);
    refuse("SEcB", CW_EPROTOCOL); /* while it is delivered */
}

int main(int argc, char **argv) {
    static const struct check_test tests[] = {
        {"random streams", test_streams},        {"little memory", test_spilled},
        {"failing files", test_failing_files},   {"failing sink", test_failing_sink},
        {"out of memory", test_out_of_memory},   {"frame borders", test_frame_borders},
        {"positions", test_positions},           {"keepalives", test_keepalives},
        {"what no server sends", test_refusals}, {"aborted subtransaction", test_first_aborted},
    };
    return check_main(argc, argv, "assembly", tests, sizeof tests / sizeof tests[0]);
}
