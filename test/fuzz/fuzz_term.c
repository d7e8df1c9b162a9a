/* cw_term: the first byte chooses the encoding, then terms follow one another. */
#include "../c/terms.h"
#include "fuzz.h"

/* The next term, canonical or not at all. NULL when it is refused. */
static struct term *next_term(struct cw_reader *r, enum cw_encoding enc, struct cw_bytes *bytes) {
    struct cw_reader checked = *r, read = *r;
    cw_check_term(&checked, enc);
    if (checked.err)
        return NULL;
    struct term *t = term_read(&read, enc);
    CHECK(!read.err && read.p == checked.p);
    *bytes = cw_bytes(r->p, (size_t)(read.p - r->p));
    struct cw_buf again = fuzz_buf();
    term_put(&again, enc, t);
    CHECK(cw_bytes_eq(*bytes, cw_buf_slice(&again, 0)));
    cw_buf_free(&again);
    if (enc == CW_KEY) {
        struct cw_reader skipped = *r;
        cw_skip_key_term(&skipped);
        CHECK(!skipped.err && skipped.p == read.p);
    }
    *r = read;
    return t;
}

/* What cw_check_term refuses, token by token: no crash. */
static void read_tokens(struct cw_reader r, enum cw_encoding enc) {
    uint8_t *space = malloc(cw_reader_left(&r) + 1);
    while (!r.err && cw_reader_left(&r)) {
        struct cw_token t = cw_read_token(&r, enc);
        if (!r.err && t.escaped)
            cw_unescape(space, t.s);
    }
    free(space);
}

static int sign(int c) {
    return (c > 0) - (c < 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    enum cw_encoding enc = data[0] & 1 ? CW_VALUE : CW_KEY;
    struct cw_reader r = cw_reader(cw_bytes(data + 1, size - 1));
    struct cw_bytes before = {NULL, 0}, bytes;
    read_tokens(r, enc);
    for (struct term *t, *last = NULL; (t = next_term(&r, enc, &bytes)); last = t, before = bytes)
        if (last && enc == CW_KEY)
            CHECK(sign(term_cmp(last, t)) == sign(cw_bytes_cmp(before, bytes)));
    terms_reset();
    CHECK(check_mem_live() == 0);
    return 0;
}
