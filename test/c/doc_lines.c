#include "doc_lines.h"

#include <stdlib.h>

#include "../../c_src/core/cw_term.h"
#include "../../c_src/core/cw_visit.h"
#include "check.h"
#include "doc_dump.h"
#include "doc_world.h"

/* ---- operations in a line ---- */

struct cw_bytes doc_term(uint8_t *space, size_t size, enum cw_encoding enc, const char *s) {
    struct cw_buf buf;
    cw_buf_init(&buf, &check_mem, space, size);
    cw_put_string(&buf, enc, CW_T_BINARY, cw_bytes(s, strlen(s)));
    CHECK(buf.p == space);
    return cw_buf_slice(&buf, 0);
}

/* `arg` is an element or a value, `amount` a number or, of a transfer, a replica's too. */
const struct cw_op *doc_line(struct doc_line *l, enum cw_verb verb, enum cw_kind kind,
                             const char *path, const char *arg, uint64_t amount) {
    l->op = (struct cw_op){.verb = verb, .kind = kind, .path = l->path, .amount = amount};
    for (; *path; path++) {
        size_t i = l->op.path_len++;
        enum cw_kind map = *path == '+' ? CW_MAP_GROW : *path == '.' ? CW_MAP : CW_KIND_NONE;
        char name[2] = {map ? *++path : *path, 0};
        l->path[i] = (struct cw_step){doc_term(l->fields[i], 4, CW_KEY, name), map};
    }
    if (verb == CW_TRANSFER)
        l->op.arg = term_replica(atoi(arg));
    else if (arg)
        l->op.arg = doc_term(l->arg, sizeof l->arg, verb == CW_PUT ? CW_VALUE : CW_KEY, arg);
    return &l->op;
}

enum cw_err doc_try(const struct cw_doc *doc, uint64_t now_ms, enum cw_verb verb, enum cw_kind kind,
                    const char *path, const char *arg, uint64_t amount, struct cw_doc **out,
                    struct cw_fault *fault) {
    struct doc_line l;
    return cw_doc_update(doc, doc_line(&l, verb, kind, path, arg, amount), 1, now_ms, out, fault);
}

/* Replaces the document. */
void doc_edit(struct cw_doc **doc, enum cw_verb verb, enum cw_kind kind, const char *path,
              const char *arg, uint64_t amount) {
    struct cw_doc *next;
    struct cw_fault fault;
    CHECK_OK(doc_try(*doc, DOC_NOW, verb, kind, path, arg, amount, &next, &fault));
    cw_doc_free(*doc);
    *doc = next;
}

/* The fault of an edit that is refused. */
struct cw_fault doc_refuse(const struct cw_doc *doc, enum cw_err want, enum cw_verb verb,
                           enum cw_kind kind, const char *path, const char *arg, uint64_t amount) {
    struct cw_doc *next = NULL;
    struct cw_fault fault = {.op = 99, .field = 99};
    CHECK(doc_try(doc, DOC_NOW, verb, kind, path, arg, amount, &next, &fault) == want && !next);
    CHECK(fault.op == 0);
    return fault;
}

struct cw_doc *doc_new(int replica) {
    return cw_doc_new(&check_mem, term_replica(replica));
}

struct cw_doc *doc_fork(const struct cw_doc *doc, int replica) {
    struct cw_doc *out;
    CHECK_OK(cw_doc_fork(doc, term_replica(replica), &out));
    return out;
}

void doc_pull(struct cw_doc **doc, const struct cw_doc *from) {
    struct cw_doc *next;
    CHECK_OK(cw_doc_merge(*doc, from, SIZE_MAX, &next));
    cw_doc_free(*doc);
    *doc = next;
}

/* ---- looking ---- */

bool doc_find(const struct cw_doc *doc, const char *path, enum cw_kind want, struct cw_buf *key,
              enum cw_kind *kind) {
    struct doc_line l;
    struct cw_bytes fields[8];
    doc_line(&l, CW_RESET, 0, path, NULL, 0);
    for (size_t i = 0; i < l.op.path_len; i++)
        fields[i] = l.path[i].field;
    return cw_doc_find(doc, fields, l.op.path_len, want, key, kind);
}

bool doc_exists(const struct cw_doc *doc, const char *path) {
    struct cw_buf key;
    enum cw_kind kind;
    cw_buf_init(&key, &check_mem, NULL, 0);
    bool found = doc_find(doc, path, CW_KIND_NONE, &key, &kind);
    cw_buf_free(&key);
    return found;
}

/* Whether the object at a path is told as `expect` has it. */
bool doc_shows(const struct cw_doc *doc, const char *path, const struct cw_buf *expect) {
    struct cw_buf key, dump;
    enum cw_kind kind;
    cw_buf_init(&key, &check_mem, NULL, 0);
    cw_buf_init(&dump, &check_mem, NULL, 0);
    CHECK(doc_find(doc, path, CW_KIND_NONE, &key, &kind));
    CHECK_OK(dump_object(doc, cw_buf_slice(&key, 0), kind, &dump));
    bool same = cw_bytes_eq(cw_buf_slice(&dump, 0), cw_buf_slice(expect, 0));
    cw_buf_free(&key);
    cw_buf_free(&dump);
    return same;
}

bool doc_counts(const struct cw_doc *doc, const char *path, int64_t value) {
    struct cw_buf expect;
    uint8_t space[32];
    cw_buf_init(&expect, &check_mem, space, sizeof space);
    dump_counter(&expect, (struct cw_wide){(uint64_t)value, value < 0 ? UINT64_MAX : 0});
    return doc_shows(doc, path, &expect);
}

bool doc_holds(const struct cw_doc *doc, const char *path, const char *value) {
    struct cw_buf expect;
    uint8_t space[64], term[64];
    cw_buf_init(&expect, &check_mem, space, sizeof space);
    dump_bytes(&expect, 'v', doc_term(term, sizeof term, CW_VALUE, value));
    return doc_shows(doc, path, &expect);
}

bool doc_same(const struct cw_doc *a, const struct cw_doc *b) {
    struct cw_bytes x = doc_state(a), y = doc_state(b);
    bool equal = cw_bytes_eq(x, y);
    free((void *)x.p);
    free((void *)y.p);
    return equal;
}
