/* cw_fragment_join: two fragments. The join is canonical and does not depend on their order. */
#include "fuzz.h"
#include "fuzz_small.h"

static enum cw_err join(struct cw_bytes a, struct cw_bytes b, struct cw_buf *out) {
    *out = fuzz_buf();
    return cw_fragment_join(&check_mem, a, b, SIZE_MAX, out);
}

static void is_good(struct cw_bytes s) {
    struct cw_doc *empty = fuzz_doc("empty"), *small = small_doc();
    struct cw_buf state = fuzz_buf();
    CHECK(fuzz_fragment_good(s));
    struct cw_doc *x = fuzz_apply(empty, s), *y = fuzz_apply(small, s);
    if (x)
        fuzz_doc_check(x, &state);
    if (y)
        fuzz_doc_check(y, &state);
    cw_doc_free(x);
    cw_doc_free(y);
    cw_doc_free(empty);
    cw_doc_free(small);
    cw_buf_free(&state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_two in = fuzz_split(data, size);
    struct cw_buf ab, ba, aa;
    bool good = fuzz_fragment_good(in.a) && fuzz_fragment_good(in.b);
    enum cw_err err = join(in.a, in.b, &ab), back = join(in.b, in.a, &ba);
    CHECK(good || err);
    CHECK(!good || (!err == !back));
    CHECK(!good || !err || err == CW_EGAP || err == CW_EREPLICA || err == CW_EDUPLICATE);
    if (good && !err) {
        CHECK(cw_bytes_eq(cw_buf_slice(&ab, 0), cw_buf_slice(&ba, 0)));
        is_good(cw_buf_slice(&ab, 0));
        CHECK_OK(join(in.a, in.a, &aa));
        CHECK(cw_bytes_eq(in.a, cw_buf_slice(&aa, 0)));
        cw_buf_free(&aa);
    }
    cw_buf_free(&ab);
    cw_buf_free(&ba);
    CHECK(check_mem_live() == 0);
    return 0;
}
