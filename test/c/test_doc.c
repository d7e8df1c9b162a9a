/* Documents by example: what each error says, what writes and what does not, what happens to counters
 * that are removed, and how a name that is used twice is noticed. */
#include <pthread.h>
#include <stdlib.h>

#include "../../c_src/core/cw_hlc.h"
#include "../../c_src/core/cw_term.h"
#include "../../c_src/core/cw_visit.h"
#include "check.h"
#include "doc_dump.h"
#include "doc_world.h"

#define NOW 1700000000000u

/* ---- operations in a line ---- */

/* Fields are letters; one after + is in a grow-only map, one after . in an ordinary one, and others
 * in what is there. */
struct line {
    struct cw_op op;
    struct cw_step path[8];
    uint8_t fields[8][4];
    uint8_t arg[64];
};

static struct cw_bytes put_term(uint8_t *space, size_t size, enum cw_encoding enc, const char *s) {
    struct cw_buf buf;
    cw_buf_init(&buf, &check_mem, space, size);
    cw_put_string(&buf, enc, CW_T_BINARY, cw_bytes(s, strlen(s)));
    CHECK(buf.p == space);
    return cw_buf_slice(&buf, 0);
}

/* `arg` is an element or a value, `amount` a number or, of a transfer, a replica's too. */
static const struct cw_op *line(struct line *l, enum cw_verb verb, enum cw_kind kind,
                                const char *path, const char *arg, uint64_t amount) {
    l->op = (struct cw_op){.verb = verb, .kind = kind, .path = l->path, .amount = amount};
    for (; *path; path++) {
        size_t i = l->op.path_len++;
        enum cw_kind map = *path == '+' ? CW_MAP_GROW : *path == '.' ? CW_MAP : CW_KIND_NONE;
        char name[2] = {map ? *++path : *path, 0};
        l->path[i] = (struct cw_step){put_term(l->fields[i], 4, CW_KEY, name), map};
    }
    if (verb == CW_TRANSFER)
        l->op.arg = term_replica(atoi(arg));
    else if (arg)
        l->op.arg = put_term(l->arg, sizeof l->arg, verb == CW_PUT ? CW_VALUE : CW_KEY, arg);
    return &l->op;
}

static enum cw_err try_at(const struct cw_doc *doc, uint64_t now_ms, enum cw_verb verb,
                          enum cw_kind kind, const char *path, const char *arg, uint64_t amount,
                          struct cw_doc **out, struct cw_fault *fault) {
    struct line l;
    return cw_doc_update(doc, line(&l, verb, kind, path, arg, amount), 1, now_ms, out, fault);
}

/* Replaces the document. */
static void edit(struct cw_doc **doc, enum cw_verb verb, enum cw_kind kind, const char *path,
                 const char *arg, uint64_t amount) {
    struct cw_doc *next;
    struct cw_fault fault;
    CHECK_OK(try_at(*doc, NOW, verb, kind, path, arg, amount, &next, &fault));
    cw_doc_free(*doc);
    *doc = next;
}

/* The fault of an edit that is refused. */
static struct cw_fault refuse(const struct cw_doc *doc, enum cw_err want, enum cw_verb verb,
                              enum cw_kind kind, const char *path, const char *arg,
                              uint64_t amount) {
    struct cw_doc *next = NULL;
    struct cw_fault fault = {.op = 99, .field = 99};
    CHECK(try_at(doc, NOW, verb, kind, path, arg, amount, &next, &fault) == want && !next);
    CHECK(fault.op == 0);
    return fault;
}

static struct cw_doc *new_doc(int replica) {
    return cw_doc_new(&check_mem, term_replica(replica));
}

static struct cw_doc *fork_of(const struct cw_doc *doc, int replica) {
    struct cw_doc *out;
    CHECK_OK(cw_doc_fork(doc, term_replica(replica), &out));
    return out;
}

static void pull(struct cw_doc **doc, const struct cw_doc *from) {
    struct cw_doc *next;
    CHECK_OK(cw_doc_merge(*doc, from, SIZE_MAX, &next));
    cw_doc_free(*doc);
    *doc = next;
}

/* ---- looking ---- */

static bool find(const struct cw_doc *doc, const char *path, enum cw_kind want, struct cw_buf *key,
                 enum cw_kind *kind) {
    struct line l;
    struct cw_bytes fields[8];
    line(&l, CW_RESET, 0, path, NULL, 0);
    for (size_t i = 0; i < l.op.path_len; i++)
        fields[i] = l.path[i].field;
    return cw_doc_find(doc, fields, l.op.path_len, want, key, kind);
}

static bool exists(const struct cw_doc *doc, const char *path) {
    struct cw_buf key;
    enum cw_kind kind;
    cw_buf_init(&key, &check_mem, NULL, 0);
    bool found = find(doc, path, CW_KIND_NONE, &key, &kind);
    cw_buf_free(&key);
    return found;
}

/* Whether the object at a path is told as `expect` has it. */
static bool shows(const struct cw_doc *doc, const char *path, const struct cw_buf *expect) {
    struct cw_buf key, dump;
    enum cw_kind kind;
    cw_buf_init(&key, &check_mem, NULL, 0);
    cw_buf_init(&dump, &check_mem, NULL, 0);
    CHECK(find(doc, path, CW_KIND_NONE, &key, &kind));
    CHECK_OK(dump_object(doc, cw_buf_slice(&key, 0), kind, &dump));
    bool same = cw_bytes_eq(cw_buf_slice(&dump, 0), cw_buf_slice(expect, 0));
    cw_buf_free(&key);
    cw_buf_free(&dump);
    return same;
}

static bool counts(const struct cw_doc *doc, const char *path, int64_t value) {
    struct cw_buf expect;
    uint8_t space[32];
    cw_buf_init(&expect, &check_mem, space, sizeof space);
    dump_counter(&expect, (struct cw_wide){(uint64_t)value, value < 0 ? UINT64_MAX : 0});
    return shows(doc, path, &expect);
}

static bool holds(const struct cw_doc *doc, const char *path, const char *value) {
    struct cw_buf expect;
    uint8_t space[64], term[64];
    cw_buf_init(&expect, &check_mem, space, sizeof space);
    dump_bytes(&expect, 'v', put_term(term, sizeof term, CW_VALUE, value));
    return shows(doc, path, &expect);
}

static bool same(const struct cw_doc *a, const struct cw_doc *b) {
    struct cw_bytes x = doc_state(a), y = doc_state(b);
    bool equal = cw_bytes_eq(x, y);
    free((void *)x.p);
    free((void *)y.p);
    return equal;
}

/* ---- errors ---- */

static void test_another_kind_is_there(void) {
    struct cw_doc *doc = new_doc(0);
    edit(&doc, CW_PUT, 0, "a", "one", 0);
    edit(&doc, CW_ADD, 0, "bc", "x", 0);
    struct cw_fault f = refuse(doc, CW_EKIND, CW_ADD, 0, "a", "x", 0);
    CHECK(f.field == 1 && f.have == CW_REGISTER && f.want == CW_SET);
    f = refuse(doc, CW_EKIND, CW_PUT, CW_REGISTER_MULTI, "a", "x", 0);
    CHECK(f.field == 1 && f.have == CW_REGISTER && f.want == CW_REGISTER_MULTI);
    f = refuse(doc, CW_EKIND, CW_PUT, 0, "ab", "x", 0);
    CHECK(f.field == 1 && f.have == CW_REGISTER && f.want == CW_MAP);
    f = refuse(doc, CW_EKIND, CW_PUT, 0, "bcd", "x", 0);
    CHECK(f.field == 2 && f.have == CW_SET && f.want == CW_MAP);
    f = refuse(doc, CW_EKIND, CW_INCREMENT, 0, "b", NULL, 1);
    CHECK(f.field == 1 && f.have == CW_MAP && f.want == CW_COUNTER);
    f = refuse(doc, CW_EKIND, CW_PUT, 0, "b+x", "x", 0);
    CHECK(f.field == 1 && f.have == CW_MAP && f.want == CW_MAP_GROW);
    f = refuse(doc, CW_EKIND, CW_DELETE, 0, "ab", NULL, 0);
    CHECK(f.field == 1 && f.have == CW_REGISTER && f.want == CW_MAP);
    cw_doc_free(doc);
}

static void test_no_such_operation(void) {
    struct cw_doc *doc = new_doc(0);
    CHECK(refuse(doc, CW_EOP, CW_PUT, CW_SET, "a", "x", 0).want == CW_SET);
    CHECK(refuse(doc, CW_EOP, CW_TRANSFER, CW_COUNTER, "a", "1", 0).want == CW_COUNTER);
    CHECK(refuse(doc, CW_EOP, CW_REMOVE, CW_SET_GROW, "a", "x", 0).want == CW_SET_GROW);
    CHECK(refuse(doc, CW_EOP, CW_ENABLE, CW_MAP, "a", NULL, 0).want == CW_MAP);
    edit(&doc, CW_ADD, CW_SET_GROW, "a", "x", 0);
    CHECK(refuse(doc, CW_EOP, CW_REMOVE, 0, "a", "x", 0).want == CW_SET_GROW);
    edit(&doc, CW_PUT, 0, "b+c", "x", 0);
    CHECK(refuse(doc, CW_EOP, CW_DELETE, 0, "bc", NULL, 0).want == CW_MAP_GROW);
    CHECK(refuse(doc, CW_EOP, CW_DELETE, 0, "b+d", NULL, 0).want == CW_MAP_GROW);
    edit(&doc, CW_DELETE, 0, "b", NULL, 0); /* the map itself may go */
    edit(&doc, CW_DELETE, 0, "a", NULL, 0);
    CHECK(cw_tree_count(cw_doc_tree(doc)) == 0);
    cw_doc_free(doc);
}

static enum cw_err update_path(const struct cw_doc *doc, const struct cw_step *path, size_t n,
                               struct cw_fault *fault) {
    struct cw_op op = {.verb = CW_ENABLE, .path = path, .path_len = n};
    struct cw_doc *next = NULL;
    enum cw_err err = cw_doc_update(doc, &op, 1, NOW, &next, fault);
    cw_doc_free(next);
    return err;
}

static void test_paths(void) {
    struct cw_doc *doc = new_doc(0);
    struct cw_step path[CW_PATH_MAX + 1];
    struct cw_fault fault;
    for (size_t i = 0; i <= CW_PATH_MAX; i++)
        path[i] = (struct cw_step){term_field(0), CW_KIND_NONE};
    CHECK(update_path(doc, path, 0, &fault) == CW_EPATH);
    CHECK(update_path(doc, path, CW_PATH_MAX + 1, &fault) == CW_EPATH);
    CHECK_OK(update_path(doc, path, CW_PATH_MAX, &fault));
    path[2].map = CW_SET;
    CHECK(update_path(doc, path, 4, &fault) == CW_EPATH && fault.field == 2);
    path[2].map = CW_MAP_GROW;
    CHECK_OK(update_path(doc, path, 4, &fault));
    path[0].map = CW_MAP_GROW; /* the document itself is a map from which fields can be removed */
    CHECK(update_path(doc, path, 4, &fault) == CW_EPATH && fault.field == 0);
    cw_doc_free(doc);
}

static void test_rights(void) {
    struct cw_doc *a = new_doc(0), *b;
    struct cw_fault f = refuse(a, CW_ERIGHTS, CW_DECREMENT, CW_COUNTER_BOUNDED, "a", NULL, 1);
    CHECK(f.here == 0 && f.elsewhere == 0);
    edit(&a, CW_INCREMENT, CW_COUNTER_BOUNDED, "a", NULL, 10);
    edit(&a, CW_TRANSFER, 0, "a", "1", 4);
    f = refuse(a, CW_ERIGHTS, CW_DECREMENT, 0, "a", NULL, 7);
    CHECK(f.here == 6 && f.elsewhere == 4);
    f = refuse(a, CW_ERIGHTS, CW_TRANSFER, 0, "a", "2", 7);
    CHECK(f.here == 6 && f.elsewhere == 4);
    b = fork_of(a, 1);
    edit(&b, CW_DECREMENT, 0, "a", NULL, 3);
    edit(&a, CW_DECREMENT, 0, "a", NULL, 6);
    pull(&a, b);
    CHECK(counts(a, "a", 1));
    f = refuse(a, CW_ERIGHTS, CW_DECREMENT, 0, "a", NULL, 1);
    CHECK(f.here == 0 && f.elsewhere == 1);
    cw_doc_free(a);
    cw_doc_free(b);
}

/* Removed at one replica while another spends: nobody goes below zero, and who spent what was gone
 * owes nothing. */
static void test_rights_and_removal(void) {
    struct cw_doc *a = new_doc(0), *b;
    edit(&a, CW_INCREMENT, CW_COUNTER_BOUNDED, "a", NULL, 10);
    b = fork_of(a, 1);
    edit(&b, CW_DELETE, 0, "a", NULL, 0);
    edit(&a, CW_DECREMENT, 0, "a", NULL, 4);
    pull(&a, b);
    CHECK(counts(a, "a", 0));
    edit(&a, CW_INCREMENT, 0, "a", NULL, 2);
    CHECK(counts(a, "a", 2));
    pull(&b, a);
    CHECK(counts(b, "a", 2) && same(a, b));
    cw_doc_free(a);
    cw_doc_free(b);
}

static void test_ranges(void) {
    struct cw_doc *doc = new_doc(0), *next = NULL;
    struct cw_fault fault;
    uint64_t most = UINT64_MAX >> 2;
    refuse(doc, CW_ERANGE, CW_INCREMENT, 0, "a", NULL, most + 1);
    edit(&doc, CW_INCREMENT, 0, "a", NULL, most);
    refuse(doc, CW_ERANGE, CW_INCREMENT, 0, "a", NULL, 1);
    edit(&doc, CW_DECREMENT, 0, "a", NULL, most);
    CHECK(counts(doc, "a", 0));
    refuse(doc, CW_ERANGE, CW_DECREMENT, 0, "a", NULL, 1);
    uint64_t last = cw_hlc_ms(CW_HLC_MAX);
    CHECK(try_at(doc, last + 1, CW_PUT, 0, "r", "x", 0, &next, &fault) == CW_ERANGE);
    CHECK(!next);
    CHECK_OK(try_at(doc, last, CW_PUT, 0, "r", "x", 0, &next, &fault));
    cw_doc_free(next);
    cw_doc_free(doc);
}

/* Sums over several replicas may be more than 64 bits hold. */
static void test_wide_sums(void) {
    struct cw_doc *a = new_doc(0);
    for (int i = 0; i < REPLICAS; i++) {
        struct cw_doc *b = new_doc(i == 0 ? 0 : i);
        if (i > 0) {
            edit(&b, CW_INCREMENT, 0, "a", NULL, UINT64_MAX >> 2);
            pull(&a, b);
        }
        cw_doc_free(b);
    }
    struct cw_buf expect;
    struct cw_wide sum = {0, 0};
    for (int i = 1; i < REPLICAS; i++)
        sum = cw_wide_add(sum, UINT64_MAX >> 2);
    CHECK(sum.hi == 1);
    cw_buf_init(&expect, &check_mem, NULL, 0);
    dump_counter(&expect, sum);
    CHECK(shows(a, "a", &expect));
    cw_buf_free(&expect);
    cw_doc_free(a);
}

/* A field and an element of so many bytes. */
static enum cw_err update_long(const struct cw_doc *doc, size_t field, size_t arg) {
    static uint8_t space[3 * CW_KEY_MAX], text[CW_KEY_MAX];
    struct cw_buf term;
    memset(text, 'x', sizeof text);
    cw_buf_init(&term, &cw_mem_std, space, sizeof space);
    cw_put_string(&term, CW_KEY, CW_T_BINARY, cw_bytes(text, field));
    size_t n = term.n;
    cw_put_string(&term, CW_KEY, CW_T_BINARY, cw_bytes(text, arg));
    struct cw_step step = {cw_bytes(space, n), CW_KIND_NONE};
    struct cw_op op = {.verb = CW_ADD, .path = &step, .path_len = 1, .arg = cw_buf_slice(&term, n)};
    struct cw_doc *next = NULL;
    struct cw_fault fault;
    enum cw_err err = cw_doc_update(doc, &op, 1, NOW, &next, &fault);
    CHECK(!err == (next != NULL));
    if (next)
        CHECK(cw_tree_check(cw_doc_tree(next)) == NULL);
    cw_doc_free(next);
    return err;
}

static void test_long_keys(void) {
    struct cw_doc *doc = new_doc(0);
    size_t most = CW_CONTENT_KEY_MAX - 6; /* map, tag, field, end | set, tag, element, end */
    CHECK_OK(update_long(doc, 4000, most - 4000));
    CHECK(update_long(doc, 4000, most - 3999) == CW_ELIMIT);
    CHECK_OK(update_long(doc, most, 0));
    CHECK(update_long(doc, most + 1, 0) == CW_ELIMIT);
    CHECK(update_long(doc, CW_KEY_MAX, 0) == CW_ELIMIT);
    cw_doc_free(doc);
}

/* Of a counter whose key is as long as can be there can be a receipt. */
static void test_a_long_receipt(void) {
    static uint8_t text[CW_KEY_MAX], space[CW_KEY_MAX];
    struct cw_buf term;
    struct cw_fault fault;
    struct cw_doc *a, *b, *doc = new_doc(0);
    memset(text, 'x', sizeof text);
    cw_buf_init(&term, &cw_mem_std, space, sizeof space);
    cw_put_string(&term, CW_KEY, CW_T_BINARY, cw_bytes(text, CW_CONTENT_KEY_MAX - 12));
    struct cw_step step = {cw_buf_slice(&term, 0), CW_KIND_NONE};
    struct cw_op op = {.verb = CW_INCREMENT, .path = &step, .path_len = 1, .amount = 1};
    CHECK_OK(cw_doc_update(doc, &op, 1, NOW, &a, &fault));
    cw_doc_free(doc);
    doc = fork_of(a, 1);
    op.verb = CW_DELETE;
    CHECK_OK(cw_doc_update(doc, &op, 1, NOW, &b, &fault));
    CHECK(doc_receipts(b) == 1 && cw_tree_count(cw_doc_tree(b)) == 1);
    pull(&a, b);
    CHECK(same(a, b));
    cw_doc_free(doc);
    cw_doc_free(a);
    cw_doc_free(b);
}

/* A batch is done whole or not at all, and the fault says which operation it was. */
static void test_batch_with_an_error(void) {
    struct cw_doc *doc = new_doc(0), *next = NULL;
    struct line l[3];
    struct cw_op ops[3] = {*line(&l[0], CW_PUT, 0, "a", "one", 0),
                           *line(&l[1], CW_INCREMENT, 0, "b", NULL, 3),
                           *line(&l[2], CW_ADD, 0, "a", "x", 0)};
    struct cw_fault fault;
    CHECK(cw_doc_update(doc, ops, 3, NOW, &next, &fault) == CW_EKIND && !next);
    CHECK(fault.op == 2 && fault.have == CW_REGISTER && fault.want == CW_SET);
    CHECK(cw_tree_count(cw_doc_tree(doc)) == 0);
    CHECK_OK(cw_doc_update(doc, ops, 2, NOW, &next, &fault));
    CHECK(holds(next, "a", "one") && counts(next, "b", 3));
    CHECK(doc_cut(next).seen[0] == 1);
    cw_doc_free(next);
    cw_doc_free(doc);
}

/* ---- what does not write ---- */

static void test_idle_updates(void) {
    static const struct {
        enum cw_verb verb;
        enum cw_kind kind;
        const char *path, *arg;
    } idle[] = {
        {CW_REMOVE, 0, "n", "x"},           {CW_REMOVE, 0, "s", "y"},
        {CW_DISABLE, 0, "n", NULL},         {CW_DELETE, 0, "n", NULL},
        {CW_DELETE, 0, "mn", NULL},         {CW_DELETE, CW_COUNTER, "s", NULL},
        {CW_RESET, 0, "n", NULL},           {CW_TRANSFER, 0, "b", "0"},
        {CW_DELETE, 0, "no", NULL},         {CW_DELETE, CW_MAP_GROW, "m", NULL},
    };
    struct cw_doc *doc = new_doc(0), *next;
    edit(&doc, CW_ADD, 0, "s", "x", 0);
    edit(&doc, CW_ENABLE, 0, "mf", NULL, 0);
    edit(&doc, CW_INCREMENT, CW_COUNTER_BOUNDED, "b", NULL, 1);
    for (size_t i = 0; i < sizeof idle / sizeof idle[0]; i++) {
        struct cw_fault fault;
        CHECK_OK(try_at(doc, NOW, idle[i].verb, idle[i].kind, idle[i].path, idle[i].arg, 0, &next,
                        &fault));
        CHECK(same(doc, next));
        cw_doc_free(next);
    }
    cw_doc_free(doc);
}

static void test_a_batch_that_cancels_out(void) {
    struct cw_doc *doc = new_doc(0), *next;
    struct line l[4];
    struct cw_fault fault;
    edit(&doc, CW_ADD, 0, "s", "x", 0);
    struct cw_op ops[4] = {*line(&l[0], CW_ADD, 0, "s", "y", 0),
                           *line(&l[1], CW_INCREMENT, 0, "c", NULL, 1),
                           *line(&l[2], CW_REMOVE, 0, "s", "y", 0),
                           *line(&l[3], CW_DELETE, 0, "c", NULL, 0)};
    CHECK_OK(cw_doc_update(doc, ops, 4, NOW, &next, &fault));
    CHECK(same(doc, next));
    cw_doc_free(next);
    CHECK_OK(cw_doc_update(doc, NULL, 0, NOW, &next, &fault));
    CHECK(same(doc, next));
    cw_doc_free(next);
    cw_doc_free(doc);
}

/* A cell deleted earlier in the batch says nothing about what is at its path. */
static void test_kinds_within_a_batch(void) {
    struct cw_doc *doc = new_doc(0), *next = NULL;
    struct line l[3];
    struct cw_fault fault;
    edit(&doc, CW_ADD, CW_SET_REMOVE_WINS, "a", "x", 0);
    struct cw_op ops[3] = {*line(&l[0], CW_DELETE, 0, "a", NULL, 0),
                           *line(&l[1], CW_ADD, CW_SET, "a", "y", 0),
                           *line(&l[2], CW_ADD, CW_SET_REMOVE_WINS, "a", "x", 0)};
    CHECK(cw_doc_update(doc, ops, 3, NOW, &next, &fault) == CW_EKIND);
    CHECK(fault.op == 2 && fault.have == CW_SET && fault.want == CW_SET_REMOVE_WINS);
    CHECK_OK(cw_doc_update(doc, ops, 2, NOW, &next, &fault));
    CHECK(cw_tree_count(cw_doc_tree(next)) == 1);
    cw_doc_free(next);
    cw_doc_free(doc);
}

/* ---- several kinds at one path ---- */

static void test_two_kinds_at_one_path(void) {
    struct cw_doc *a = new_doc(0), *b = new_doc(1);
    struct cw_buf key;
    enum cw_kind kind;
    cw_buf_init(&key, &check_mem, NULL, 0);
    edit(&a, CW_PUT, 0, "a", "one", 0);
    edit(&b, CW_INCREMENT, 0, "a", NULL, 7);
    pull(&a, b);
    CHECK(counts(a, "a", 7)); /* counters come before registers */
    CHECK(find(a, "a", CW_REGISTER, &key, &kind) && kind == CW_REGISTER);
    edit(&a, CW_PUT, 0, "a", "two", 0); /* both can be written on */
    edit(&a, CW_INCREMENT, 0, "a", NULL, 1);
    CHECK(counts(a, "a", 8));
    edit(&a, CW_DELETE, CW_COUNTER, "a", NULL, 0);
    CHECK(holds(a, "a", "two"));
    edit(&a, CW_DELETE, 0, "a", NULL, 0);
    CHECK(!exists(a, "a"));
    cw_buf_free(&key);
    cw_doc_free(a);
    cw_doc_free(b);
}

/* ---- counters that are removed ---- */

/* However it is removed: three that were added meanwhile are three afterwards. */
static void three_remain(enum cw_verb verb, const char *target, const char *counter) {
    struct cw_doc *a = new_doc(0), *b, *c;
    edit(&a, CW_INCREMENT, 0, counter, NULL, 5);
    b = fork_of(a, 1);
    c = fork_of(a, 2);
    edit(&b, verb, 0, target, NULL, 0);
    CHECK(!exists(b, counter));
    edit(&a, CW_INCREMENT, 0, counter, NULL, 3);
    pull(&c, b);
    pull(&c, a);
    CHECK(counts(c, counter, 3));
    pull(&a, b);
    CHECK(counts(a, counter, 3) && doc_receipts(a) == 1);
    edit(&a, CW_ENABLE, 0, "x", NULL, 0); /* the owner's next write, of whatever kind */
    CHECK(counts(a, counter, 3) && doc_receipts(a) == 0);
    pull(&c, a);
    CHECK(counts(c, counter, 3) && doc_receipts(c) == 0 && same(a, c));
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
    struct cw_doc *a = new_doc(0), *b, *c;
    edit(&a, CW_INCREMENT, 0, "c", NULL, 5);
    b = fork_of(a, 1);
    edit(&b, CW_RESET, 0, "c", NULL, 0);
    edit(&a, CW_INCREMENT, 0, "c", NULL, 3);
    c = fork_of(a, 2);
    pull(&c, b);
    CHECK(counts(c, "c", 3));
    edit(&c, CW_DELETE, 0, "c", NULL, 0);
    pull(&a, b);
    edit(&a, CW_ENABLE, 0, "x", NULL, 0);
    CHECK(counts(a, "c", 3));
    pull(&a, c);
    CHECK(!exists(a, "c"));
    pull(&c, a);
    CHECK(!exists(c, "c") && same(a, c));
    edit(&a, CW_INCREMENT, 0, "c", NULL, 1);
    pull(&c, a);
    CHECK(counts(c, "c", 1) && doc_receipts(c) == 0);
    cw_doc_free(a);
    cw_doc_free(b);
    cw_doc_free(c);
}

/* ---- fragments ---- */

static struct cw_buf between(const struct cw_doc *old, const struct cw_doc *doc) {
    struct cw_buf buf;
    cw_buf_init(&buf, &check_mem, NULL, 0);
    CHECK_OK(cw_doc_delta_between(old, doc, SIZE_MAX, &buf));
    return buf;
}

/* Both have removed x, and get the other's removal in a fragment that shows no change. Joined, the two
 * would hide the removals from who has seen neither. */
static void test_fragments_that_cross(void) {
    struct cw_doc *a = new_doc(0), *b, *ab, *out = NULL;
    struct cw_buf joined;
    edit(&a, CW_ADD, 0, "s", "x", 0);
    struct cw_doc *old = fork_of(a, 2);
    b = fork_of(a, 1);
    edit(&a, CW_REMOVE, 0, "s", "x", 0);
    edit(&b, CW_REMOVE, 0, "s", "x", 0);
    CHECK_OK(cw_doc_merge(a, b, SIZE_MAX, &ab));
    struct cw_buf for_a = between(a, ab), for_b = between(b, ab), whole = between(old, ab);
    cw_buf_init(&joined, &check_mem, NULL, 0);
    CHECK(cw_fragment_join(&check_mem, cw_buf_slice(&for_a, 0), cw_buf_slice(&for_b, 0), &joined) ==
          CW_EGAP);
    joined.n = 0;
    CHECK_OK(cw_fragment_join(&check_mem, cw_buf_slice(&for_a, 0), cw_buf_slice(&whole, 0),
                              &joined));
    struct cw_fault fault;
    CHECK_OK(cw_doc_apply(old, cw_buf_slice(&joined, 0), SIZE_MAX, &out, &fault));
    CHECK(!exists(out, "s") && same(out, ab));
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
    struct cw_doc *base = new_doc(0), *out = NULL;
    edit(&base, CW_ADD, 0, "s", "x", 0);
    struct cw_doc *a = fork_of(base, 0), *b = fork_of(base, 0);
    edit(&a, CW_ADD, 0, "s", "y", 0);
    edit(&b, CW_ADD, 0, "s", "z", 0);
    CHECK(cw_doc_merge(a, b, SIZE_MAX, &out) == CW_EDUPLICATE && !out);
    CHECK(cw_doc_merge(b, a, SIZE_MAX, &out) == CW_EDUPLICATE && !out);
    cw_doc_free(a);
    cw_doc_free(b);
    cw_doc_free(base);
}

/* One dot, two contents under one key; the rest of what they have seen differs. */
static void clash(enum cw_verb verb, enum cw_kind kind, const char *x, const char *y, uint64_t nx,
                  uint64_t ny) {
    struct cw_doc *a = new_doc(0), *b = new_doc(0), *c = new_doc(1), *out = NULL;
    struct cw_bytes state;
    struct cw_fault fault = {.op = 0};
    edit(&a, verb, kind, "a", x, nx);
    edit(&b, verb == CW_ADD && y[0] == '-' ? CW_REMOVE : verb, kind, "a",
         y && y[0] == '-' ? y + 1 : y, ny);
    edit(&c, CW_ENABLE, 0, "f", NULL, 0);
    pull(&c, b);
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
    struct cw_doc *a = new_doc(0), *b = new_doc(0), *out = NULL;
    struct cw_fault fault = {.op = 0};
    edit(&a, CW_ADD, 0, "s", "x", 0);
    edit(&b, CW_ADD, 0, "s", "y", 0);
    edit(&b, CW_ADD, 0, "s", "z", 0);
    CHECK(cw_doc_merge(a, b, SIZE_MAX, &out) == CW_EDUPLICATE && !out);
    CHECK(cw_doc_merge(b, a, SIZE_MAX, &out) == CW_EDUPLICATE && !out);
    struct cw_bytes state = doc_state(a);
    CHECK(cw_doc_apply(b, state, SIZE_MAX, &out, &fault) == CW_EDUPLICATE && !out);
    free((void *)state.p);
    cw_doc_free(a);
    cw_doc_free(b);
}

/* ---- life ---- */

/* Freed a few nodes at a time. */
static void test_free_in_steps(void) {
    struct cw_doc *doc = new_doc(0);
    char name[16];
    for (int i = 0; i < 3000; i++) {
        sprintf(name, "%d", i);
        edit(&doc, CW_ADD, 0, "s", name, 0);
    }
    CHECK(cw_doc_bytes(doc) > 3000 * 16);
    struct cw_doc *other = fork_of(doc, 1);
    edit(&doc, CW_DELETE, 0, "s", NULL, 0);
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
    pthread_barrier_t *start;
};

static void *crowd_member(void *arg) {
    struct crowd *crowd = arg;
    struct cw_buf bytes;
    char name[16];
    pthread_barrier_wait(crowd->start);
    cw_buf_init(&bytes, &check_mem, NULL, 0);
    crowd->mine = fork_of(crowd->base, crowd->replica);
    for (int i = 0; i < 500; i++) {
        sprintf(name, "%d", i % 40);
        edit(&crowd->mine, CW_ADD, 0, "s", name, 0);
        edit(&crowd->mine, CW_INCREMENT, 0, "c", NULL, 1);
        if (i % 50 == 0) {
            bytes.n = 0;
            CHECK_OK(cw_doc_encode(crowd->base, &bytes));
            CHECK(counts(crowd->base, "c", 7));
            pull(&crowd->mine, crowd->base);
            struct cw_doc *aside = fork_of(crowd->base, crowd->replica);
            edit(&aside, CW_INCREMENT, 0, "c", NULL, 2);
            CHECK(counts(aside, "c", 9));
            cw_doc_free(aside);
        }
    }
    cw_buf_free(&bytes);
    return NULL;
}

static void run_crowd(void) {
    pthread_t threads[THREADS];
    struct crowd crowd[THREADS];
    pthread_barrier_t start;
    struct cw_doc *base = new_doc(0), *up, *down;
    for (int i = 0; i < 7; i++) /* nobody has looked at these yet */
        edit(&base, CW_INCREMENT, 0, "c", NULL, 1);
    CHECK(pthread_barrier_init(&start, NULL, THREADS) == 0);
    for (int i = 0; i < THREADS; i++) {
        crowd[i] = (struct crowd){base, NULL, i + 1, &start};
        CHECK(pthread_create(&threads[i], NULL, crowd_member, &crowd[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    up = fork_of(base, 7);
    down = fork_of(base, 7);
    for (int i = 0; i < THREADS; i++) {
        pull(&up, crowd[i].mine);
        pull(&down, crowd[THREADS - 1 - i].mine);
    }
    CHECK(same(up, down) && counts(up, "c", 7 + THREADS * 500));
    for (int i = 0; i < THREADS; i++)
        cw_doc_free(crowd[i].mine);
    cw_doc_free(base);
    cw_doc_free(up);
    cw_doc_free(down);
    pthread_barrier_destroy(&start);
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
        {"another kind is there", test_another_kind_is_there},
        {"no such operation", test_no_such_operation},
        {"paths", test_paths},
        {"rights", test_rights},
        {"rights and removal", test_rights_and_removal},
        {"ranges", test_ranges},
        {"wide sums", test_wide_sums},
        {"long keys", test_long_keys},
        {"a long receipt", test_a_long_receipt},
        {"batch with an error", test_batch_with_an_error},
        {"idle updates", test_idle_updates},
        {"a batch that cancels out", test_a_batch_that_cancels_out},
        {"kinds within a batch", test_kinds_within_a_batch},
        {"two kinds at one path", test_two_kinds_at_one_path},
        {"removed while counted", test_removed_while_counted},
        {"settling is not counting", test_settling_is_not_counting},
        {"fragments that cross", test_fragments_that_cross},
        {"same clock, other content", test_same_clock_other_content},
        {"one dot, two contents", test_one_dot_two_contents},
        {"news from the past", test_news_from_the_past},
        {"free in steps", test_free_in_steps},
        {"threads", test_threads},
    };
    return check_main(argc, argv, "doc", tests, sizeof tests / sizeof tests[0]);
}
