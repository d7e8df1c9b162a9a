/* What the port program has that knows no server: frames through pipes, and terms. */
#include <fcntl.h>
#include <unistd.h>

#include "../../c_src/port/port_frame.h"
#include "../../c_src/port/port_mem.h"
#include "../../c_src/port/port_term.h"
#include "check.h"

struct pipes {
    int in, out;
    struct port_in reader;
    struct port_out writer;
};

static void open_pipes(struct pipes *p, size_t limit) {
    int ends[2];
    CHECK(pipe(ends) == 0);
    p->in = ends[0];
    p->out = ends[1];
    CHECK(fcntl(p->in, F_SETFL, O_NONBLOCK) == 0 && fcntl(p->out, F_SETFL, O_NONBLOCK) == 0);
    port_in_init(&p->reader, limit);
    port_out_init(&p->writer);
}

static void close_pipes(struct pipes *p) {
    port_in_free(&p->reader);
    port_out_free(&p->writer);
    close(p->in);
    close(p->out);
}

static void put_frame(struct port_out *out, size_t size, uint8_t first) {
    port_out_begin(out);
    for (size_t i = 0; i < size; i++)
        cw_buf_byte(&out->buf, (uint8_t)(first + i));
    CHECK(port_out_size(out) == size);
    port_out_end(out);
}

static void check_frame(struct cw_bytes frame, size_t size, uint8_t first) {
    CHECK(frame.n == size);
    for (size_t i = 0; i < size; i++)
        CHECK(frame.p[i] == (uint8_t)(first + i));
}

/* Frames of all sizes around those of the buffers come out as they went in, however slowly the pipe
 * is read. */
static void frames(void) {
    static const size_t sizes[] = {0,     1,     3,     4,     5,      1000,
                                   65531, 65532, 65533, 65536, 131072, 1000000};
    const size_t n = sizeof sizes / sizeof *sizes;
    struct pipes p;
    open_pipes(&p, 1u << 20);
    size_t put = 0, got = 0, total = (size_t)check_rounds(500);
    while (got < total) {
        if (put < total && port_out_pending(&p.writer) < 3000000) {
            put_frame(&p.writer, sizes[put % n], (uint8_t)put);
            put++;
        }
        CHECK(port_out_flush(&p.writer, p.out));
        if (check_below(3) == 0)
            continue;
        CHECK(port_in_fill(&p.reader, p.in) != PORT_READ_END);
        struct cw_bytes frame;
        while (port_in_next(&p.reader, &frame) == PORT_FRAME) {
            check_frame(frame, sizes[got % n], (uint8_t)got);
            got++;
        }
    }
    CHECK(p.writer.buf.cap <= 16u << 20 && p.reader.cap <= 8u << 20);
    close_pipes(&p);
}

/* A frame that is open stays so while those before it are written. */
static void open_frame(void) {
    struct pipes p;
    struct cw_bytes frame;
    open_pipes(&p, 100);
    put_frame(&p.writer, 10, 1);
    port_out_begin(&p.writer);
    cw_buf_put(&p.writer.buf, "ab", 2);
    CHECK(port_out_flush(&p.writer, p.out) && port_out_pending(&p.writer) == 0);
    CHECK(port_in_fill(&p.reader, p.in) == PORT_READ);
    CHECK(port_in_next(&p.reader, &frame) == PORT_FRAME);
    check_frame(frame, 10, 1);
    CHECK(port_in_next(&p.reader, &frame) == PORT_FRAME_PART);
    cw_buf_put(&p.writer.buf, "cd", 2);
    CHECK(port_out_size(&p.writer) == 4);
    port_out_end(&p.writer);
    CHECK(port_out_flush(&p.writer, p.out));
    CHECK(port_in_fill(&p.reader, p.in) == PORT_READ);
    CHECK(port_in_next(&p.reader, &frame) == PORT_FRAME);
    CHECK(cw_bytes_eq(frame, cw_bytes("abcd", 4)));
    close_pipes(&p);
}

static void limits(void) {
    struct pipes p;
    struct cw_bytes frame;
    open_pipes(&p, 100);
    CHECK(port_in_fill(&p.reader, p.in) == PORT_READ_NOTHING);
    put_frame(&p.writer, 100, 0);
    put_frame(&p.writer, 101, 0);
    CHECK(port_out_flush(&p.writer, p.out));
    CHECK(port_in_fill(&p.reader, p.in) == PORT_READ);
    CHECK(port_in_next(&p.reader, &frame) == PORT_FRAME && frame.n == 100);
    port_in_wipe(&p.reader);
    for (size_t i = 0; i < 100; i++)
        CHECK(frame.p[i] == 0);
    CHECK(port_in_next(&p.reader, &frame) == PORT_FRAME_TOO_LONG);
    close(p.out);
    CHECK(port_in_fill(&p.reader, p.in) == PORT_READ_END);
    p.out = open("/dev/null", O_WRONLY);
    close_pipes(&p);
}

/* ---- terms ---- */

#define TERM(bytes) port_term_read(cw_bytes(bytes, sizeof(bytes) - 1))

static void integers(void) {
    struct port_term t = TERM("\203a\377");
    CHECK(port_term_uint(&t) == 255 && port_term_done(&t));
    t = TERM("\203b\177\377\377\377");
    CHECK(port_term_uint(&t) == INT32_MAX && port_term_done(&t));
    t = TERM("\203n\4\0\377\377\377\377");
    CHECK(port_term_uint(&t) == UINT32_MAX && port_term_done(&t));
    t = TERM("\203b\377\377\377\377");
    CHECK(port_term_uint(&t) == 0 && t.bad);
    t = TERM("\203n\4\1\377\377\377\377");
    CHECK(port_term_uint(&t) == 0 && t.bad);
    t = TERM("\203n\5\0\1\1\1\1\1");
    CHECK(port_term_uint(&t) == 0 && t.bad);
}

static void compounds(void) {
    struct port_term t = TERM("\203h\2w\2okl\0\0\0\1m\0\0\0\3a\0bj");
    CHECK(port_term_tuple(&t) == 2);
    CHECK(cw_bytes_eq(port_term_atom(&t), cw_bytes("ok", 2)));
    uint32_t n = port_term_list(&t);
    CHECK(n == 1);
    CHECK(cw_bytes_eq(port_term_binary(&t), cw_bytes("a\0b", 3)));
    port_term_list_end(&t, n);
    CHECK(port_term_done(&t));
    t = TERM("\203j");
    CHECK(port_term_list(&t) == 0);
    port_term_list_end(&t, 0);
    CHECK(port_term_done(&t));
    t = TERM("\203m\0\0\0\3a\0b");
    CHECK(port_term_text(&t).n == 0 && t.bad);
}

/* Every part of a term is none, and is known as such at its end. */
static void truncated(void) {
    static const char whole[] = "\203h\2w\2okl\0\0\0\1m\0\0\0\3abcj";
    for (size_t n = 0; n < sizeof whole; n++) {
        struct port_term t = port_term_read(cw_bytes(whole, n));
        port_term_tuple(&t);
        port_term_atom(&t);
        uint32_t length = port_term_list(&t);
        port_term_text(&t);
        port_term_list_end(&t, length);
        CHECK(port_term_done(&t) == (n == sizeof whole - 1));
    }
}

int main(int argc, char **argv) {
    static const struct check_test tests[] = {{"frames", frames},       {"open frame", open_frame},
                                              {"limits", limits},       {"integers", integers},
                                              {"compounds", compounds}, {"truncated", truncated}};
    return check_main(argc, argv, "port", tests, sizeof tests / sizeof *tests);
}
