/* What the fuzz targets share. Each is a function of its input alone, frees all it takes, and
 * aborts on what must not be (CHECK). */
#ifndef CW_FUZZ_H
#define CW_FUZZ_H

#include "../c/check.h"
#include "../c/doc_dump.h"

#include "../../c_src/core/cw_fragment.h"
#include "../../c_src/core/cw_term.h"
#include "../../c_src/core/cw_tree.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline struct cw_buf fuzz_buf(void) {
    struct cw_buf buf;
    cw_buf_init(&buf, &check_mem, NULL, 0);
    return buf;
}

/* Two inputs in one: a length of two bytes, the first, the second. */
struct fuzz_two {
    struct cw_bytes a;
    struct cw_bytes b;
};

static inline struct fuzz_two fuzz_split(const uint8_t *data, size_t size) {
    size_t n = size < 2 ? 0 : (size_t)data[0] | (size_t)data[1] << 8;
    size_t head = size < 2 ? size : 2;
    if (n > size - head)
        n = size - head;
    return (struct fuzz_two){cw_bytes(data + head, n), cw_bytes(data + head + n, size - head - n)};
}

/* Whether the decoder takes the fragment; then it encodes to the same bytes. */
static inline bool fuzz_fragment_good(struct cw_bytes s) {
    struct cw_fragment f;
    if (cw_fragment_read(&f, &check_mem, SIZE_MAX, s))
        return false;
    struct cw_buf again = fuzz_buf();
    CHECK_OK(cw_fragment_write(&f, &again));
    CHECK(cw_bytes_eq(s, cw_buf_slice(&again, 0)));
    cw_buf_free(&again);
    cw_fragment_free(&f);
    return true;
}

static inline struct cw_doc *fuzz_doc(const char *name) {
    struct cw_buf buf = fuzz_buf();
    cw_put_string(&buf, CW_KEY, CW_T_BINARY, cw_bytes(name, strlen(name)));
    struct cw_doc *doc = cw_doc_new(&check_mem, cw_buf_slice(&buf, 0));
    cw_buf_free(&buf);
    CHECK(doc);
    return doc;
}

#define FUZZ_FIELDS (CW_PATH_MAX + 1)

/* The fields of a content key; returns how many. */
static inline size_t fuzz_fields(struct cw_bytes key, struct cw_bytes *fields) {
    struct cw_reader r = cw_reader(key);
    size_t n = 0;
    while (cw_kind_is_map((enum cw_kind)cw_read_byte(&r))) {
        const uint8_t *at = r.p;
        cw_skip_key_term(&r);
        CHECK(!r.err && n < FUZZ_FIELDS);
        fields[n++] = cw_bytes(at, (size_t)(r.p - at));
    }
    return n;
}

/* Reading by path: an object is found, unless a kind that comes first hides one of the maps it is
 * in. */
static inline void fuzz_find(const struct cw_doc *doc, struct cw_bytes cell) {
    struct cw_key_parts parts = cw_key_parts(cell);
    struct cw_bytes fields[FUZZ_FIELDS];
    struct cw_buf key = fuzz_buf();
    enum cw_kind kind;
    uint64_t here, elsewhere;
    if (parts.class == CW_RECEIPT)
        return;
    size_t n = fuzz_fields(cell, fields);
    CHECK(cw_doc_cells(doc, parts.object) >= 1);
    if (cw_doc_find(doc, fields, n, parts.kind, &key, &kind))
        CHECK(kind == parts.kind && key.n == parts.object.n);
    if (cw_doc_find(doc, fields, n, CW_KIND_NONE, &key, &kind))
        CHECK(cw_kind_name(kind) && key.p[key.n - 1] == (uint8_t)kind);
    if (cw_kind_is_set(parts.kind))
        cw_doc_has_element(doc, parts.object, parts.kind, parts.suffix);
    if (parts.kind == CW_COUNTER_BOUNDED)
        CHECK_OK(cw_doc_rights(doc, parts.object, &here, &elsewhere));
    cw_buf_free(&key);
}

static inline void fuzz_doc_find(const struct cw_doc *doc) {
    struct cw_cursor cur;
    bool more = cw_cursor_seek(&cur, cw_doc_tree(doc), cw_bytes("", 0));
    for (; more; more = cw_cursor_next(&cur))
        fuzz_find(doc, cw_cursor_key(&cur));
}

/* All that a document must be able to do; appends its state to `out`. */
static inline void fuzz_doc_check(const struct cw_doc *doc, struct cw_buf *out) {
    static const uint8_t map = CW_MAP;
    const char *fault = cw_tree_check(cw_doc_tree(doc));
    if (fault)
        check_failed(__FILE__, __LINE__, fault);
    struct cw_buf dump = fuzz_buf();
    CHECK_OK(dump_object(doc, cw_bytes(&map, 1), CW_MAP, &dump));
    cw_buf_free(&dump);
    size_t from = out->n;
    CHECK_OK(cw_doc_encode(doc, out));
    CHECK(fuzz_fragment_good(cw_buf_slice(out, from)));
}

/* NULL when the fragment cannot be applied, for a reason the caller gave no cause for. */
static inline struct cw_doc *fuzz_apply(const struct cw_doc *doc, struct cw_bytes fragment) {
    struct cw_doc *to = NULL;
    struct cw_fault fault = {.op = 0};
    enum cw_err err = cw_doc_apply(doc, fragment, SIZE_MAX, &to, &fault);
    CHECK((err == CW_OK) == (to != NULL));
    CHECK((err == CW_EGAP) == (fault.replica != NULL));
    CHECK(!err || err == CW_EGAP || err == CW_EREPLICA || err == CW_EDUPLICATE);
    cw_name_release(fault.replica);
    return to;
}

static inline bool fuzz_same(const struct cw_doc *a, const struct cw_doc *b) {
    struct cw_buf x = fuzz_buf(), y = fuzz_buf();
    CHECK_OK(cw_doc_encode(a, &x));
    CHECK_OK(cw_doc_encode(b, &y));
    bool same = cw_bytes_eq(cw_buf_slice(&x, 0), cw_buf_slice(&y, 0));
    CHECK(!same || cw_hash_eq(cw_doc_hash(a), cw_doc_hash(b)));
    cw_buf_free(&x);
    cw_buf_free(&y);
    return same;
}

#endif
