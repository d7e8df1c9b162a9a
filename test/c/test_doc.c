/* Documents by example: what writes and what does not, what happens to counters that are removed,
 * how a name that is used twice is noticed, threads. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "../../c_src/core/cw_fragment.h"
#include "../../c_src/core/cw_sort.h"
#include "../../c_src/core/cw_term.h"
#include "../../c_src/core/cw_visit.h"
#include "check.h"
#include "doc_lines.h"
#include "doc_world.h"

static struct cw_doc *applied(const struct cw_doc *doc, struct cw_bytes fragment) {
    struct cw_doc *out;
    struct cw_fault fault;
    CHECK_OK(cw_doc_apply(doc, fragment, SIZE_MAX, &out, &fault));
    return out;
}

/* ---- what does not write ---- */

static void test_idle_updates(void) {
    static const struct {
        enum cw_verb verb;
        enum cw_kind kind;
        const char *path, *arg;
    } idle[] = {
        {CW_REMOVE, 0, "n", "x"},   {CW_REMOVE, 0, "s", "y"},
        {CW_DISABLE, 0, "n", NULL}, {CW_DELETE, 0, "n", NULL},
        {CW_DELETE, 0, "mn", NULL}, {CW_DELETE, CW_COUNTER, "s", NULL},
        {CW_RESET, 0, "n", NULL},   {CW_TRANSFER, 0, "b", "0"},
        {CW_DELETE, 0, "no", NULL}, {CW_DELETE, CW_MAP_GROW, "m", NULL},
    };
    struct cw_doc *doc = doc_new(0), *next;
    doc_edit(&doc, CW_ADD, 0, "s", "x", 0);
    doc_edit(&doc, CW_ENABLE, 0, "mf", NULL, 0);
    doc_edit(&doc, CW_INCREMENT, CW_COUNTER_BOUNDED, "b", NULL, 1);
    for (size_t i = 0; i < sizeof idle / sizeof idle[0]; i++) {
        struct cw_fault fault;
        CHECK_OK(doc_try(doc, DOC_NOW, idle[i].verb, idle[i].kind, idle[i].path, idle[i].arg, 0,
                         &next, &fault));
        CHECK(doc_same(doc, next));
        cw_doc_free(next);
    }
    cw_doc_free(doc);
}

static void test_a_batch_that_cancels_out(void) {
    struct cw_doc *doc = doc_new(0), *next;
    struct doc_line l[4];
    struct cw_fault fault;
    doc_edit(&doc, CW_ADD, 0, "s", "x", 0);
    struct cw_op ops[4] = {
        *doc_line(&l[0], CW_ADD, 0, "s", "y", 0), *doc_line(&l[1], CW_INCREMENT, 0, "c", NULL, 1),
        *doc_line(&l[2], CW_REMOVE, 0, "s", "y", 0), *doc_line(&l[3], CW_DELETE, 0, "c", NULL, 0)};
    CHECK_OK(cw_doc_update(doc, ops, 4, DOC_NOW, &next, &fault));
    CHECK(doc_same(doc, next));
    cw_doc_free(next);
    CHECK_OK(cw_doc_update(doc, NULL, 0, DOC_NOW, &next, &fault));
    CHECK(doc_same(doc, next));
    cw_doc_free(next);
    cw_doc_free(doc);
}

/* A cell deleted earlier in the batch says nothing about what is at its path. */
static void test_kinds_within_a_batch(void) {
    struct cw_doc *doc = doc_new(0), *next = NULL;
    struct doc_line l[3];
    struct cw_fault fault;
    doc_edit(&doc, CW_ADD, CW_SET_REMOVE_WINS, "a", "x", 0);
    struct cw_op ops[3] = {*doc_line(&l[0], CW_DELETE, 0, "a", NULL, 0),
                           *doc_line(&l[1], CW_ADD, CW_SET, "a", "y", 0),
                           *doc_line(&l[2], CW_ADD, CW_SET_REMOVE_WINS, "a", "x", 0)};
    CHECK(cw_doc_update(doc, ops, 3, DOC_NOW, &next, &fault) == CW_EKIND);
    CHECK(fault.op == 2 && fault.have == CW_SET && fault.want == CW_SET_REMOVE_WINS);
    CHECK_OK(cw_doc_update(doc, ops, 2, DOC_NOW, &next, &fault));
    CHECK(cw_tree_count(cw_doc_tree(next)) == 1);
    cw_doc_free(next);
    cw_doc_free(doc);
}

/* ---- edits that nobody has looked at ---- */

static void key_of(const char *path, enum cw_kind kind, struct cw_buf *key) {
    struct doc_line l;
    doc_line(&l, CW_RESET, 0, path, NULL, 0);
    key->n = 0;
    cw_buf_byte(key, CW_MAP);
    cw_buf_bytes(key, l.path[0].field);
    cw_buf_byte(key, (uint8_t)kind);
}

/* Each question is answered right by a document that was asked nothing before. */
static void test_first_questions(void) {
    struct cw_doc *doc = doc_new(0), *next;
    struct cw_buf key;
    struct doc_line l;
    uint64_t here, elsewhere;
    cw_buf_init(&key, &check_mem, NULL, 0);
    for (int i = 0; i < 80; i++) { /* before and after edits are brought into the tree */
        doc_edit(&doc, i % 3 == 2 ? CW_REMOVE : CW_ADD, 0, "s", "x", 0);
        key_of("s", CW_SET, &key);
        doc_line(&l, CW_ADD, 0, "s", "x", 0);
        CHECK(cw_doc_has_element(doc, cw_buf_slice(&key, 0), CW_SET, l.op.arg) == (i % 3 != 2));
        doc_edit(&doc, CW_INCREMENT, CW_COUNTER_BOUNDED, "b", NULL, 1);
        next = doc_fork(doc, 1);
        CHECK(cw_doc_cells(next, cw_buf_slice(&key, 0)) == (i % 3 != 2));
        cw_doc_free(next);
        next = doc_fork(doc, 1);
        key_of("b", CW_COUNTER_BOUNDED, &key);
        CHECK_OK(cw_doc_rights(next, cw_buf_slice(&key, 0), &here, &elsewhere));
        CHECK(here == 0 && elsewhere == (uint64_t)i + 1);
        cw_doc_free(next);
    }
    cw_buf_free(&key);
    cw_doc_free(doc);
}

/* ---- several kinds at one path ---- */

static void test_two_kinds_at_one_path(void) {
    struct cw_doc *a = doc_new(0), *b = doc_new(1);
    struct cw_buf key;
    enum cw_kind kind;
    cw_buf_init(&key, &check_mem, NULL, 0);
    doc_edit(&a, CW_PUT, 0, "a", "one", 0);
    doc_edit(&b, CW_INCREMENT, 0, "a", NULL, 7);
    doc_pull(&a, b);
    CHECK(doc_counts(a, "a", 7)); /* counters come before registers */
    CHECK(doc_find(a, "a", CW_REGISTER, &key, &kind) && kind == CW_REGISTER);
    doc_edit(&a, CW_PUT, 0, "a", "two", 0); /* both can be written on */
    doc_edit(&a, CW_INCREMENT, 0, "a", NULL, 1);
    CHECK(doc_counts(a, "a", 8));
    doc_edit(&a, CW_DELETE, CW_COUNTER, "a", NULL, 0);
    CHECK(doc_holds(a, "a", "two"));
    doc_edit(&a, CW_DELETE, 0, "a", NULL, 0);
    CHECK(!doc_exists(a, "a"));
    cw_buf_free(&key);
    cw_doc_free(a);
    cw_doc_free(b);
}

/* A value may be as long as it may, whatever is written elsewhere meanwhile: a register holds all
 * that were written apart, until somebody who has seen them writes. */
static void test_long_values_meet(void) {
    static uint8_t text[(33u << 20) + 16];
    struct cw_doc *a = doc_new(0), *b = doc_new(1), *ab, *got, *next = NULL;
    struct doc_line l;
    struct cw_op op = *doc_line(&l, CW_PUT, 0, "r", "x", 0);
    struct cw_fault fault;
    struct cw_buf value;
    cw_buf_init(&value, &check_mem, NULL, 0);
    cw_put_string(&value, CW_VALUE, CW_T_BINARY, cw_bytes(text, sizeof text));
    op.arg = cw_buf_slice(&value, 0);
    CHECK_OK(cw_doc_update(a, &op, 1, DOC_NOW, &next, &fault));
    cw_doc_free(a);
    a = next;
    CHECK_OK(cw_doc_update(b, &op, 1, DOC_NOW, &next, &fault));
    cw_doc_free(b);
    b = next;
    CHECK_OK(cw_doc_merge(a, b, SIZE_MAX, &ab));
    struct cw_bytes state = doc_state(ab);
    got = applied(a, state);
    CHECK(cw_hash_eq(cw_doc_hash(got), cw_doc_hash(ab)));
    doc_edit(&got, CW_PUT, 0, "r", "y", 0);
    CHECK(doc_holds(got, "r", "y"));
    free((void *)state.p);
    cw_buf_free(&value);
    cw_doc_free(got);
    cw_doc_free(ab);
    cw_doc_free(a);
    cw_doc_free(b);
}

static void test_too_long_a_value(void) {
    static uint8_t text[CW_VALUE_MAX];
    struct cw_doc *doc = doc_new(0), *next = NULL;
    struct doc_line l;
    struct cw_op op = *doc_line(&l, CW_PUT, 0, "r", "x", 0);
    struct cw_fault fault;
    struct cw_buf value;
    cw_buf_init(&value, &check_mem, NULL, 0);
    cw_put_string(&value, CW_VALUE, CW_T_BINARY, cw_bytes(text, sizeof text - 5));
    CHECK(value.n == CW_VALUE_MAX);
    op.arg = cw_buf_slice(&value, 0);
    CHECK_OK(cw_doc_update(doc, &op, 1, DOC_NOW, &next, &fault));
    cw_doc_free(next);
    next = NULL;
    value.n = 0;
    cw_put_string(&value, CW_VALUE, CW_T_BINARY, cw_bytes(text, sizeof text - 4));
    op.arg = cw_buf_slice(&value, 0);
    CHECK(cw_doc_update(doc, &op, 1, DOC_NOW, &next, &fault) == CW_ELIMIT && !next);
    cw_buf_free(&value);
    cw_doc_free(doc);
}

/* ---- counters that are removed ---- */

/* However it is removed: three that were added meanwhile are three afterwards. */
static void three_remain(enum cw_verb verb, const char *target, const char *counter) {
    struct cw_doc *a = doc_new(0), *b, *c;
    doc_edit(&a, CW_INCREMENT, 0, counter, NULL, 5);
    b = doc_fork(a, 1);
    c = doc_fork(a, 2);
    doc_edit(&b, verb, 0, target, NULL, 0);
    CHECK(!doc_exists(b, counter));
    doc_edit(&a, CW_INCREMENT, 0, counter, NULL, 3);
    doc_pull(&c, b);
    doc_pull(&c, a);
    CHECK(doc_counts(c, counter, 3));
    doc_pull(&a, b);
    CHECK(doc_counts(a, counter, 3) && doc_receipts(a) == 1);
    doc_edit(&a, CW_ENABLE, 0, "x", NULL, 0); /* the owner's next write, of whatever kind */
    CHECK(doc_counts(a, counter, 3) && doc_receipts(a) == 0);
    doc_pull(&c, a);
    CHECK(doc_counts(c, counter, 3) && doc_receipts(c) == 0 && doc_same(a, c));
    cw_doc_free(a);
    cw_doc_free(b);
    cw_doc_free(c);
}

static void test_removed_while_counted(void) {
    three_remain(CW_RESET, "c", "c");
    three_remain(CW_DELETE, "c", "c");
    three_remain(CW_DELETE, "m", "mnc");
    three_remain(CW_DELETE, "mn", "mn+c");
}

/* Who removed all that was counted does not find the counter back because its owner, writing
 * something else, settled a receipt for an earlier removal. */
static void test_settling_is_not_counting(void) {
    struct cw_doc *a = doc_new(0), *b, *c;
    doc_edit(&a, CW_INCREMENT, 0, "c", NULL, 5);
    b = doc_fork(a, 1);
    doc_edit(&b, CW_RESET, 0, "c", NULL, 0);
    doc_edit(&a, CW_INCREMENT, 0, "c", NULL, 3);
    c = doc_fork(a, 2);
    doc_pull(&c, b);
    CHECK(doc_counts(c, "c", 3));
    doc_edit(&c, CW_DELETE, 0, "c", NULL, 0);
    doc_pull(&a, b);
    doc_edit(&a, CW_ENABLE, 0, "x", NULL, 0);
    CHECK(doc_counts(a, "c", 3));
    doc_pull(&a, c);
    CHECK(!doc_exists(a, "c"));
    doc_pull(&c, a);
    CHECK(!doc_exists(c, "c") && doc_same(a, c));
    doc_edit(&a, CW_INCREMENT, 0, "c", NULL, 1);
    doc_pull(&c, a);
    CHECK(doc_counts(c, "c", 1) && doc_receipts(c) == 0);
    cw_doc_free(a);
    cw_doc_free(b);
    cw_doc_free(c);
}

/* Who deletes as of an earlier state leaves the receipts alone that came since, as they may be of
 * more than was seen. */
static void test_unseen_receipts(void) {
    struct cw_doc *a = doc_new(0), *b, *c, *seen, *next;
    struct doc_line l;
    struct cw_fault fault;
    doc_edit(&a, CW_INCREMENT, 0, "c", NULL, 40);
    b = doc_fork(a, 1);
    doc_edit(&b, CW_ENABLE, 0, "x", NULL, 0);
    seen = doc_fork(b, 1);
    doc_edit(&a, CW_INCREMENT, 0, "c", NULL, 3);
    c = doc_fork(a, 2);
    doc_edit(&c, CW_RESET, 0, "c", NULL, 0); /* of 43 */
    doc_edit(&a, CW_INCREMENT, 0, "c", NULL, 1);
    doc_pull(&b, c);
    doc_pull(&b, a);
    CHECK(doc_counts(b, "c", 1));
    CHECK_OK(cw_doc_update_as_of(b, seen, doc_line(&l, CW_DELETE, 0, "c", NULL, 0), 1, DOC_NOW,
                                 &next, &fault));
    CHECK(doc_counts(next, "c", 1));
    cw_doc_free(next);
    cw_doc_free(seen);
    cw_doc_free(a);
    cw_doc_free(b);
    cw_doc_free(c);
}

/* ---- many writes, many replicas ---- */

static int cmp_entries(const void *ctx, const void *x, const void *y) {
    const struct cw_vv_entry *a = x, *b = y;
    (void)ctx;
    return (a->id > b->id) - (a->id < b->id);
}

/* An exact fragment that says of `n` replicas "00000000", "00000001"... that they have written so
 * often, and touched nothing. */
static struct cw_buf said_to_have_written(uint32_t n, uint64_t counter) {
    struct cw_vv *from = cw_vv_new(&check_mem, 0), *to = cw_vv_new(&check_mem, n);
    struct cw_fragment_writer w;
    struct cw_buf term, out;
    uint8_t space[16];
    char name[16];
    for (; to->n < n; to->n++) {
        cw_buf_init(&term, &check_mem, space, sizeof space);
        sprintf(name, "%08u", (unsigned)to->n);
        cw_put_string(&term, CW_KEY, CW_T_BINARY, cw_bytes(name, 8));
        struct cw_name *nm = cw_name_new(&check_mem, cw_buf_slice(&term, 0));
        to->at[to->n] = (struct cw_vv_entry){nm->id, counter, nm};
    }
    cw_sort(to->at, n, sizeof to->at[0], cmp_entries, NULL);
    cw_buf_init(&out, &check_mem, NULL, 0);
    cw_fragment_begin(&w, &out, from, to, false);
    CHECK_OK(cw_fragment_end(&w));
    cw_vv_release(from);
    cw_vv_release(to);
    return out;
}

static struct cw_buf delta_since(const struct cw_doc *doc, const struct cw_doc *seen) {
    struct cw_vv *since;
    struct cw_buf out;
    cw_buf_init(&out, &check_mem, NULL, 0);
    CHECK_OK(cw_doc_clock(seen, &since));
    CHECK_OK(cw_doc_delta(doc, since, SIZE_MAX, &out));
    cw_vv_release(since);
    return out;
}

/* Together more writes than can be counted, so that what is new seems to be nothing. */
static void test_uncounted_writes(void) {
    struct cw_doc *a = doc_new(0), *b = doc_new(1), *next, *got;
    char name[16];
    for (int i = 0; i < 4; i++) {
        sprintf(name, "%d", i);
        doc_edit(&a, CW_ADD, 0, "s", name, 0);
    }
    struct cw_buf said = said_to_have_written(4, CW_COUNTER_MAX);
    next = applied(a, cw_buf_slice(&said, 0));
    struct cw_buf delta = delta_since(next, b);
    got = applied(b, cw_buf_slice(&delta, 0));
    CHECK(doc_same(got, next));
    cw_buf_free(&said);
    cw_buf_free(&delta);
    cw_doc_free(got);
    cw_doc_free(next);
    cw_doc_free(a);
    cw_doc_free(b);
}

/* With a memory whose beginning is as long as the clock; what is touched afterwards is all that a
 * delta has beside the clock. (Finding out where it begins once took the square of the replicas.)
 */
static void test_many_replicas(void) {
    struct cw_doc *a = doc_new(0), *old, *got;
    struct cw_buf said = said_to_have_written(30000, 7);
    for (int i = 0; i < 2; i++) { /* before and after the first entry */
        struct cw_doc *next = applied(a, cw_buf_slice(&said, 0));
        cw_doc_free(a);
        a = next;
        doc_edit(&a, CW_ADD, 0, "s", "x", 0);
    }
    old = doc_fork(a, 1);
    doc_edit(&a, CW_ADD, 0, "s", "y", 0);
    struct cw_buf delta = delta_since(a, old);
    got = applied(old, cw_buf_slice(&delta, 0));
    CHECK(doc_same(got, a));
    cw_buf_free(&said);
    cw_buf_free(&delta);
    cw_doc_free(got);
    cw_doc_free(old);
    cw_doc_free(a);
}

/* ---- fragments ---- */

static struct cw_buf between(const struct cw_doc *old, const struct cw_doc *doc) {
    struct cw_buf buf;
    cw_buf_init(&buf, &check_mem, NULL, 0);
    CHECK_OK(cw_doc_delta_between(old, doc, SIZE_MAX, &buf));
    return buf;
}

/* Both have removed x, and get the other's removal in a fragment that shows no change. Joined, the
 * two would hide the removals from who has seen neither. */
static void test_fragments_that_cross(void) {
    struct cw_doc *a = doc_new(0), *b, *ab, *out = NULL;
    struct cw_buf joined;
    doc_edit(&a, CW_ADD, 0, "s", "x", 0);
    struct cw_doc *old = doc_fork(a, 2);
    b = doc_fork(a, 1);
    doc_edit(&a, CW_REMOVE, 0, "s", "x", 0);
    doc_edit(&b, CW_REMOVE, 0, "s", "x", 0);
    CHECK_OK(cw_doc_merge(a, b, SIZE_MAX, &ab));
    struct cw_buf for_a = between(a, ab), for_b = between(b, ab), whole = between(old, ab);
    cw_buf_init(&joined, &check_mem, NULL, 0);
    CHECK(cw_fragment_join(&check_mem, cw_buf_slice(&for_a, 0), cw_buf_slice(&for_b, 0), SIZE_MAX,
                           &joined) == CW_EGAP);
    joined.n = 0;
    CHECK_OK(cw_fragment_join(&check_mem, cw_buf_slice(&for_a, 0), cw_buf_slice(&whole, 0),
                              SIZE_MAX, &joined));
    struct cw_fault fault;
    CHECK_OK(cw_doc_apply(old, cw_buf_slice(&joined, 0), SIZE_MAX, &out, &fault));
    CHECK(!doc_exists(out, "s") && doc_same(out, ab));
    cw_buf_free(&for_a);
    cw_buf_free(&for_b);
    cw_buf_free(&whole);
    cw_buf_free(&joined);
    cw_doc_free(out);
    cw_doc_free(old);
    cw_doc_free(ab);
    cw_doc_free(a);
    cw_doc_free(b);
}

/* ---- one name twice ---- */

static void test_same_clock_other_content(void) {
    struct cw_doc *base = doc_new(0), *out = NULL;
    doc_edit(&base, CW_ADD, 0, "s", "x", 0);
    struct cw_doc *a = doc_fork(base, 0), *b = doc_fork(base, 0);
    doc_edit(&a, CW_ADD, 0, "s", "y", 0);
    doc_edit(&b, CW_ADD, 0, "s", "z", 0);
    CHECK(cw_doc_merge(a, b, SIZE_MAX, &out) == CW_EDUPLICATE && !out);
    CHECK(cw_doc_merge(b, a, SIZE_MAX, &out) == CW_EDUPLICATE && !out);
    cw_doc_free(a);
    cw_doc_free(b);
    cw_doc_free(base);
}

/* One dot, two contents under one key; the rest of what they have seen differs. */
static void clash(enum cw_verb verb, enum cw_kind kind, const char *x, const char *y, uint64_t nx,
                  uint64_t ny) {
    struct cw_doc *a = doc_new(0), *b = doc_new(0), *c = doc_new(1), *out = NULL;
    struct cw_bytes state;
    struct cw_fault fault = {.op = 0};
    doc_edit(&a, verb, kind, "a", x, nx);
    doc_edit(&b, verb == CW_ADD && y[0] == '-' ? CW_REMOVE : verb, kind, "a",
             y && y[0] == '-' ? y + 1 : y, ny);
    doc_edit(&c, CW_ENABLE, 0, "f", NULL, 0);
    doc_pull(&c, b);
    CHECK(cw_doc_merge(a, c, SIZE_MAX, &out) == CW_EDUPLICATE && !out);
    CHECK(cw_doc_merge(c, a, SIZE_MAX, &out) == CW_EDUPLICATE && !out);
    state = doc_state(c);
    CHECK(cw_doc_apply(a, state, SIZE_MAX, &out, &fault) == CW_EDUPLICATE && !out);
    free((void *)state.p);
    cw_doc_free(a);
    cw_doc_free(b);
    cw_doc_free(c);
}

static void test_one_dot_two_contents(void) {
    clash(CW_PUT, CW_REGISTER, "x", "y", 0, 0);
    clash(CW_PUT, CW_REGISTER_MULTI, "x", "y", 0, 0);
    clash(CW_INCREMENT, CW_COUNTER, NULL, NULL, 1, 2);
    clash(CW_INCREMENT, CW_COUNTER_BOUNDED, NULL, NULL, 1, 2);
    clash(CW_ADD, CW_SET_REMOVE_WINS, "x", "-x", 0, 0);
}

/* Content that is new to who has seen all of its writes. */
static void test_news_from_the_past(void) {
    struct cw_doc *a = doc_new(0), *b = doc_new(0), *out = NULL;
    struct cw_fault fault = {.op = 0};
    doc_edit(&a, CW_ADD, 0, "s", "x", 0);
    doc_edit(&b, CW_ADD, 0, "s", "y", 0);
    doc_edit(&b, CW_ADD, 0, "s", "z", 0);
    CHECK(cw_doc_merge(a, b, SIZE_MAX, &out) == CW_EDUPLICATE && !out);
    CHECK(cw_doc_merge(b, a, SIZE_MAX, &out) == CW_EDUPLICATE && !out);
    struct cw_bytes state = doc_state(a);
    CHECK(cw_doc_apply(b, state, SIZE_MAX, &out, &fault) == CW_EDUPLICATE && !out);
    free((void *)state.p);
    cw_doc_free(a);
    cw_doc_free(b);
}

/* ---- two names with one id ---- */

/* Found in how the hash treats 32 bytes: where 8 of them cancel out the secret they are added to,
 * the product of the two halves is 0 whatever the other half is. */
static struct cw_bytes twin(uint8_t *space, char c) {
    static const uint8_t cancels[8] = {0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb};
    memset(space, 'a', 32);
    space[0] = 0x50;
    memcpy(space + 16, cancels, 8);
    space[25] = (uint8_t)c;
    space[31] = 0;
    return cw_bytes(space, 32);
}

static void test_a_fork_with_a_twin_name(void) {
    uint8_t x[32], y[32];
    struct cw_bytes ada = twin(x, 'a'), bob = twin(y, 'b');
    struct cw_doc *doc = cw_doc_new(&check_mem, ada), *fork = NULL;
    CHECK(cw_name_id(ada) == cw_name_id(bob));
    CHECK_OK(cw_doc_fork(doc, bob, &fork)); /* nobody has written yet */
    cw_doc_free(fork);
    fork = NULL;
    doc_edit(&doc, CW_ADD, 0, "s", "1", 0);
    CHECK(cw_doc_fork(doc, bob, &fork) == CW_EREPLICA && !fork);
    CHECK_OK(cw_doc_fork(doc, ada, &fork));
    cw_doc_free(fork);
    cw_doc_free(doc);
}

/* ---- life ---- */

/* Freed a few nodes at a time. */
static void test_free_in_steps(void) {
    struct cw_doc *doc = doc_new(0);
    char name[16];
    for (int i = 0; i < 3000; i++) {
        sprintf(name, "%d", i);
        doc_edit(&doc, CW_ADD, 0, "s", name, 0);
    }
    CHECK(cw_doc_bytes(doc) > 3000 * 16);
    struct cw_doc *other = doc_fork(doc, 1);
    doc_edit(&doc, CW_DELETE, 0, "s", NULL, 0);
    struct cw_forest *rest = cw_doc_free_some(other, 1);
    CHECK(cw_doc_free_some(NULL, 1) == NULL);
    cw_doc_free(doc);
    if (rest)
        cw_forest_drain(rest);
}

/* Threads that read, settle, fork and write on from documents they share; what they make, merged in
 * any order, is the same. */
#define THREADS 4

struct crowd {
    struct cw_doc *base;
    struct cw_doc *mine;
    int replica;
    atomic_int *waiting; /* for all to begin at once */
};

static void *crowd_member(void *arg) {
    struct crowd *crowd = arg;
    struct cw_buf bytes;
    char name[16];
    atomic_fetch_sub(crowd->waiting, 1);
    while (atomic_load(crowd->waiting) > 0)
        ;
    cw_buf_init(&bytes, &check_mem, NULL, 0);
    crowd->mine = doc_fork(crowd->base, crowd->replica);
    for (int i = 0; i < 500; i++) {
        sprintf(name, "%d", i % 40);
        doc_edit(&crowd->mine, CW_ADD, 0, "s", name, 0);
        doc_edit(&crowd->mine, CW_INCREMENT, 0, "c", NULL, 1);
        if (i % 50 == 0) {
            bytes.n = 0;
            CHECK_OK(cw_doc_encode(crowd->base, &bytes));
            CHECK(doc_counts(crowd->base, "c", 7));
            doc_pull(&crowd->mine, crowd->base);
            struct cw_doc *aside = doc_fork(crowd->base, crowd->replica);
            doc_edit(&aside, CW_INCREMENT, 0, "c", NULL, 2);
            CHECK(doc_counts(aside, "c", 9));
            cw_doc_free(aside);
        }
    }
    cw_buf_free(&bytes);
    return NULL;
}

static void run_crowd(void) {
    pthread_t threads[THREADS];
    struct crowd crowd[THREADS];
    atomic_int waiting = THREADS;
    struct cw_doc *base = doc_new(0), *up, *down;
    for (int i = 0; i < 7; i++) /* nobody has looked at these yet */
        doc_edit(&base, CW_INCREMENT, 0, "c", NULL, 1);
    for (int i = 0; i < THREADS; i++) {
        crowd[i] = (struct crowd){base, NULL, i + 1, &waiting};
        CHECK(pthread_create(&threads[i], NULL, crowd_member, &crowd[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    up = doc_fork(base, 7);
    down = doc_fork(base, 7);
    for (int i = 0; i < THREADS; i++) {
        doc_pull(&up, crowd[i].mine);
        doc_pull(&down, crowd[THREADS - 1 - i].mine);
    }
    CHECK(doc_same(up, down) && doc_counts(up, "c", 7 + THREADS * 500));
    for (int i = 0; i < THREADS; i++)
        cw_doc_free(crowd[i].mine);
    cw_doc_free(base);
    cw_doc_free(up);
    cw_doc_free(down);
}

static void test_threads(void) {
    term_replica(0); /* makes all terms, before there are threads */
    for (int i = 0; i < REPLICAS; i++)
        term_replica_id(i);
    for (int i = 0; i < check_rounds(20); i++)
        run_crowd();
}

int main(int argc, char **argv) {
    static const struct check_test tests[] = {
        {"idle updates", test_idle_updates},
        {"a batch that cancels out", test_a_batch_that_cancels_out},
        {"kinds within a batch", test_kinds_within_a_batch},
        {"first questions", test_first_questions},
        {"two kinds at one path", test_two_kinds_at_one_path},
        {"long values meet", test_long_values_meet},
        {"too long a value", test_too_long_a_value},
        {"removed while counted", test_removed_while_counted},
        {"settling is not counting", test_settling_is_not_counting},
        {"unseen receipts", test_unseen_receipts},
        {"uncounted writes", test_uncounted_writes},
        {"many replicas", test_many_replicas},
        {"fragments that cross", test_fragments_that_cross},
        {"same clock, other content", test_same_clock_other_content},
        {"one dot, two contents", test_one_dot_two_contents},
        {"news from the past", test_news_from_the_past},
        {"a fork with a twin name", test_a_fork_with_a_twin_name},
        {"free in steps", test_free_in_steps},
        {"threads", test_threads},
    };
    return check_main(argc, argv, "doc", tests, sizeof tests / sizeof tests[0]);
}
