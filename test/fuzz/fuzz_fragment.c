/* cw_fragment and cw_doc_apply: a fragment that is accepted is canonical, and a document that it
 * was applied to is sound, whatever lies the fragment tells. */
#include "../../c_src/core/cw_changes.h"
#include "fuzz.h"
#include "fuzz_small.h"

/* From `old` to `doc`, as a delta and as a list of changes. */
static void between(const struct cw_doc *old, const struct cw_doc *doc) {
    struct cw_buf delta = fuzz_buf();
    struct cw_changes changes;
    CHECK_OK(cw_doc_delta_between(old, doc, SIZE_MAX, &delta));
    CHECK(fuzz_fragment_good(cw_buf_slice(&delta, 0)));
    struct cw_doc *again = fuzz_apply(old, cw_buf_slice(&delta, 0));
    CHECK(again && fuzz_same(again, doc));
    CHECK_OK(cw_doc_changes(old, doc, SIZE_MAX, &changes));
    CHECK((changes.n == 0) == cw_hash_eq(cw_doc_hash(old), cw_doc_hash(doc)));
    cw_changes_free(&changes);
    cw_doc_free(again);
    cw_buf_free(&delta);
}

/* Merging does not depend on the order, whatever the two have been told. */
static void meet(const struct cw_doc *a, const struct cw_doc *b) {
    struct cw_doc *ab = NULL, *ba = NULL;
    struct cw_buf state = fuzz_buf();
    enum cw_err err = cw_doc_merge(a, b, SIZE_MAX, &ab);
    CHECK(!err || err == CW_EREPLICA || err == CW_EDUPLICATE);
    CHECK(!err == !cw_doc_merge(b, a, SIZE_MAX, &ba));
    if (!err) {
        fuzz_doc_check(ab, &state);
        CHECK(fuzz_same(ab, ba));
    }
    cw_doc_free(ab);
    cw_doc_free(ba);
    cw_buf_free(&state);
}

/* NULL when it cannot be applied. */
static struct cw_doc *apply(const struct cw_doc *old, struct cw_bytes fragment) {
    struct cw_doc *doc = fuzz_apply(old, fragment);
    if (!doc)
        return NULL;
    struct cw_buf state = fuzz_buf();
    fuzz_doc_check(doc, &state);
    struct cw_doc *twice = fuzz_apply(doc, fragment), *other = fuzz_doc("other");
    CHECK(twice && fuzz_same(twice, doc));
    struct cw_doc *copy = fuzz_apply(other, cw_buf_slice(&state, 0));
    CHECK(copy && fuzz_same(copy, doc));
    between(old, doc);
    fuzz_doc_find(doc);
    small_edit(doc);
    cw_doc_free(copy);
    cw_doc_free(other);
    cw_doc_free(twice);
    cw_buf_free(&state);
    return doc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct cw_bytes s = cw_bytes(data, size);
    if (!fuzz_fragment_good(s))
        return 0;
    struct cw_doc *empty = fuzz_doc("empty"), *small = small_doc();
    struct cw_doc *x = apply(empty, s), *y = apply(small, s);
    if (x)
        meet(x, small);
    if (x && y)
        meet(x, y);
    cw_doc_free(x);
    cw_doc_free(y);
    cw_doc_free(empty);
    cw_doc_free(small);
    CHECK(check_mem_live() == 0);
    return 0;
}
