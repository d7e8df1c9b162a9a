/* cw_clock: two clocks are read, merged and compared. */
#include "../../c_src/core/cw_clock.h"
#include "fuzz.h"

static struct cw_vv *read_clock(struct cw_bytes s) {
    struct cw_vv *vv = NULL;
    if (cw_clock_read(&check_mem, s, &vv))
        return NULL;
    struct cw_buf again = fuzz_buf();
    cw_clock_put(&again, vv);
    CHECK(cw_bytes_eq(s, cw_buf_slice(&again, 0)));
    cw_buf_free(&again);
    return vv;
}

/* Of good clocks the result is what merging the vectors gives; of others there is no crash. */
static void merge(struct cw_bytes a, struct cw_bytes b, struct cw_vv *va, struct cw_vv *vb) {
    struct cw_buf merged = fuzz_buf(), want = fuzz_buf();
    struct cw_vv *vv;
    enum cw_order order;
    enum cw_err err = cw_clock_merge(&check_mem, a, b, &merged);
    enum cw_err compared = cw_clock_compare(&check_mem, a, b, &order);
    if (va && vb) {
        CHECK_OK(err);
        CHECK_OK(compared);
        CHECK_OK(cw_vv_merge(va, vb, &vv));
        cw_clock_put(&want, vv);
        CHECK(cw_bytes_eq(cw_buf_slice(&merged, 0), cw_buf_slice(&want, 0)));
        CHECK(order == cw_vv_compare(va, vb));
        cw_vv_release(vv);
    }
    cw_buf_free(&merged);
    cw_buf_free(&want);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_two in = fuzz_split(data, size);
    struct cw_vv *a = read_clock(in.a), *b = read_clock(in.b);
    merge(in.a, in.b, a, b);
    merge(in.b, in.a, b, a);
    merge(in.a, in.a, a, a);
    cw_vv_release(a);
    cw_vv_release(b);
    CHECK(check_mem_live() == 0);
    return 0;
}
