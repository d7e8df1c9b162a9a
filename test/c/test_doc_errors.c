/* What each error of an update says, and that it leaves nothing behind. */
#include "../../c_src/core/cw_hlc.h"
#include "../../c_src/core/cw_term.h"
#include "../../c_src/core/cw_wide.h"
#include "check.h"
#include "doc_dump.h"
#include "doc_lines.h"
#include "doc_world.h"

static void test_another_kind_is_there(void) {
    struct cw_doc *doc = doc_new(0);
    doc_edit(&doc, CW_PUT, 0, "a", "one", 0);
    doc_edit(&doc, CW_ADD, 0, "bc", "x", 0);
    struct cw_fault f = doc_refuse(doc, CW_EKIND, CW_ADD, 0, "a", "x", 0);
    CHECK(f.field == 1 && f.have == CW_REGISTER && f.want == CW_SET);
    f = doc_refuse(doc, CW_EKIND, CW_PUT, CW_REGISTER_MULTI, "a", "x", 0);
    CHECK(f.field == 1 && f.have == CW_REGISTER && f.want == CW_REGISTER_MULTI);
    f = doc_refuse(doc, CW_EKIND, CW_PUT, 0, "ab", "x", 0);
    CHECK(f.field == 1 && f.have == CW_REGISTER && f.want == CW_MAP);
    f = doc_refuse(doc, CW_EKIND, CW_PUT, 0, "bcd", "x", 0);
    CHECK(f.field == 2 && f.have == CW_SET && f.want == CW_MAP);
    f = doc_refuse(doc, CW_EKIND, CW_INCREMENT, 0, "b", NULL, 1);
    CHECK(f.field == 1 && f.have == CW_MAP && f.want == CW_COUNTER);
    f = doc_refuse(doc, CW_EKIND, CW_PUT, 0, "b+x", "x", 0);
    CHECK(f.field == 1 && f.have == CW_MAP && f.want == CW_MAP_GROW);
    f = doc_refuse(doc, CW_EKIND, CW_DELETE, 0, "ab", NULL, 0);
    CHECK(f.field == 1 && f.have == CW_REGISTER && f.want == CW_MAP);
    cw_doc_free(doc);
}

static void test_no_such_operation(void) {
    struct cw_doc *doc = doc_new(0);
    CHECK(doc_refuse(doc, CW_EOP, CW_PUT, CW_SET, "a", "x", 0).want == CW_SET);
    CHECK(doc_refuse(doc, CW_EOP, CW_TRANSFER, CW_COUNTER, "a", "1", 0).want == CW_COUNTER);
    CHECK(doc_refuse(doc, CW_EOP, CW_REMOVE, CW_SET_GROW, "a", "x", 0).want == CW_SET_GROW);
    CHECK(doc_refuse(doc, CW_EOP, CW_ENABLE, CW_MAP, "a", NULL, 0).want == CW_MAP);
    doc_edit(&doc, CW_ADD, CW_SET_GROW, "a", "x", 0);
    CHECK(doc_refuse(doc, CW_EOP, CW_REMOVE, 0, "a", "x", 0).want == CW_SET_GROW);
    doc_edit(&doc, CW_PUT, 0, "b+c", "x", 0);
    CHECK(doc_refuse(doc, CW_EOP, CW_DELETE, 0, "bc", NULL, 0).want == CW_MAP_GROW);
    CHECK(doc_refuse(doc, CW_EOP, CW_DELETE, 0, "b+d", NULL, 0).want == CW_MAP_GROW);
    doc_edit(&doc, CW_DELETE, 0, "b", NULL, 0); /* the map itself may go */
    doc_edit(&doc, CW_DELETE, 0, "a", NULL, 0);
    CHECK(cw_tree_count(cw_doc_tree(doc)) == 0);
    cw_doc_free(doc);
}

static enum cw_err update_path(const struct cw_doc *doc, const struct cw_step *path, size_t n,
                               struct cw_fault *fault) {
    struct cw_op op = {.verb = CW_ENABLE, .path = path, .path_len = n};
    struct cw_doc *next = NULL;
    enum cw_err err = cw_doc_update(doc, &op, 1, DOC_NOW, &next, fault);
    cw_doc_free(next);
    return err;
}

static void test_paths(void) {
    struct cw_doc *doc = doc_new(0);
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
    struct cw_doc *a = doc_new(0), *b;
    struct cw_fault f = doc_refuse(a, CW_ERIGHTS, CW_DECREMENT, CW_COUNTER_BOUNDED, "a", NULL, 1);
    CHECK(f.here == 0 && f.elsewhere == 0);
    doc_edit(&a, CW_INCREMENT, CW_COUNTER_BOUNDED, "a", NULL, 10);
    doc_edit(&a, CW_TRANSFER, 0, "a", "1", 4);
    f = doc_refuse(a, CW_ERIGHTS, CW_DECREMENT, 0, "a", NULL, 7);
    CHECK(f.here == 6 && f.elsewhere == 4);
    f = doc_refuse(a, CW_ERIGHTS, CW_TRANSFER, 0, "a", "2", 7);
    CHECK(f.here == 6 && f.elsewhere == 4);
    b = doc_fork(a, 1);
    doc_edit(&b, CW_DECREMENT, 0, "a", NULL, 3);
    doc_edit(&a, CW_DECREMENT, 0, "a", NULL, 6);
    doc_pull(&a, b);
    CHECK(doc_counts(a, "a", 1));
    f = doc_refuse(a, CW_ERIGHTS, CW_DECREMENT, 0, "a", NULL, 1);
    CHECK(f.here == 0 && f.elsewhere == 1);
    cw_doc_free(a);
    cw_doc_free(b);
}

static void test_rights_given_to_many(void) {
    struct cw_doc *doc = doc_new(0), *next;
    struct doc_line l;
    struct cw_fault fault;
    doc_edit(&doc, CW_INCREMENT, CW_COUNTER_BOUNDED, "a", NULL, 1000);
    for (uint64_t i = 1; i <= 40; i++) {
        struct cw_op op = *doc_line(&l, CW_TRANSFER, 0, "a", "1", i);
        uint8_t name[] = {0x50, 'a', 'a' + (uint8_t)i, 0};
        op.arg = cw_bytes(name, sizeof name);
        CHECK_OK(cw_doc_update(doc, &op, 1, DOC_NOW, &next, &fault));
        cw_doc_free(doc);
        doc = next;
    }
    struct cw_fault f = doc_refuse(doc, CW_ERIGHTS, CW_DECREMENT, 0, "a", NULL, 1000);
    CHECK(f.here == 1000 - 820 && f.elsewhere == 820);
    CHECK(doc_counts(doc, "a", 1000));
    cw_doc_free(doc);
}

/* Removed at one replica while another spends: nobody goes below zero, and who spent what was gone
 * owes nothing. */
static void test_rights_and_removal(void) {
    struct cw_doc *a = doc_new(0), *b;
    doc_edit(&a, CW_INCREMENT, CW_COUNTER_BOUNDED, "a", NULL, 10);
    b = doc_fork(a, 1);
    doc_edit(&b, CW_DELETE, 0, "a", NULL, 0);
    doc_edit(&a, CW_DECREMENT, 0, "a", NULL, 4);
    doc_pull(&a, b);
    CHECK(doc_counts(a, "a", 0));
    doc_edit(&a, CW_INCREMENT, 0, "a", NULL, 2);
    CHECK(doc_counts(a, "a", 2));
    doc_pull(&b, a);
    CHECK(doc_counts(b, "a", 2) && doc_same(a, b));
    cw_doc_free(a);
    cw_doc_free(b);
}

/* Debts in several counters at once, and increments of all of them in one write: what is forgiven
 * to one moves the cells of the others. */
static void test_debts_in_a_batch(void) {
    static const char *const counters[] = {"b", "c", "e", "f"};
    struct cw_doc *a = doc_new(0), *b, *next;
    struct doc_line l[4];
    struct cw_op ops[4];
    struct cw_fault fault;
    for (int i = 0; i < 4; i++) {
        doc_edit(&a, CW_INCREMENT, CW_COUNTER_BOUNDED, counters[i], NULL, 10);
        doc_edit(&a, CW_TRANSFER, 0, counters[i], "1", 4);
        ops[i] = *doc_line(&l[i], CW_INCREMENT, 0, counters[i], NULL, 1);
    }
    b = doc_fork(a, 1);
    for (int i = 0; i < 4; i++) {
        doc_edit(&b, CW_DECREMENT, 0, counters[i], NULL, 3);
        doc_edit(&a, CW_DELETE, 0, counters[i], NULL, 0);
    }
    doc_pull(&b, a);
    CHECK_OK(cw_doc_update(b, ops, 4, DOC_NOW, &next, &fault));
    for (int i = 0; i < 4; i++)
        CHECK(doc_counts(next, counters[i], 1));
    cw_doc_free(next);
    cw_doc_free(a);
    cw_doc_free(b);
}

static void test_ranges(void) {
    struct cw_doc *doc = doc_new(0), *next = NULL;
    struct cw_fault fault;
    uint64_t most = UINT64_MAX >> 2;
    doc_refuse(doc, CW_ERANGE, CW_INCREMENT, 0, "a", NULL, most + 1);
    doc_edit(&doc, CW_INCREMENT, 0, "a", NULL, most);
    doc_refuse(doc, CW_ERANGE, CW_INCREMENT, 0, "a", NULL, 1);
    doc_edit(&doc, CW_DECREMENT, 0, "a", NULL, most);
    CHECK(doc_counts(doc, "a", 0));
    doc_refuse(doc, CW_ERANGE, CW_DECREMENT, 0, "a", NULL, 1);
    uint64_t last = CW_HLC_MAX >> 16;
    CHECK(doc_try(doc, last + 1, CW_PUT, 0, "r", "x", 0, &next, &fault) == CW_ERANGE);
    CHECK(!next);
    CHECK_OK(doc_try(doc, last, CW_PUT, 0, "r", "x", 0, &next, &fault));
    cw_doc_free(next);
    cw_doc_free(doc);
}

/* A clock that is as far ahead as can be keeps nobody from writing: after the last stamp a put
 * still replaces what it has seen, and of two apart all prefer the same. */
static void test_the_last_stamp(void) {
    struct cw_doc *a = doc_new(0), *b = doc_new(1), *next;
    struct cw_fault fault;
    CHECK_OK(doc_try(a, CW_HLC_MAX >> 16, CW_PUT, 0, "r", "x", 0, &next, &fault));
    cw_doc_free(a);
    a = next;
    for (int i = 0; i < 0x10010; i++)
        doc_edit(&a, CW_PUT, 0, "r", i % 2 ? "odd" : "even", 0);
    CHECK(doc_holds(a, "r", "odd"));
    doc_pull(&b, a);
    doc_edit(&b, CW_PUT, 0, "r", "seen", 0);
    CHECK(doc_holds(b, "r", "seen"));
    doc_edit(&a, CW_PUT, 0, "r", "apart", 0);
    doc_pull(&a, b);
    doc_pull(&b, a);
    CHECK(doc_same(a, b));
    CHECK(doc_holds(a, "r", "seen") == (term_replica_id(1) > term_replica_id(0)));
    cw_doc_free(a);
    cw_doc_free(b);
}

/* Sums over several replicas may be more than 64 bits hold. */
static void test_wide_sums(void) {
    struct cw_doc *a = doc_new(0);
    for (int i = 0; i < REPLICAS; i++) {
        struct cw_doc *b = doc_new(i == 0 ? 0 : i);
        if (i > 0) {
            doc_edit(&b, CW_INCREMENT, 0, "a", NULL, UINT64_MAX >> 2);
            doc_pull(&a, b);
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
    CHECK(doc_shows(a, "a", &expect));
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
    enum cw_err err = cw_doc_update(doc, &op, 1, DOC_NOW, &next, &fault);
    CHECK(!err == (next != NULL));
    if (next)
        CHECK(cw_tree_check(cw_doc_tree(next)) == NULL);
    cw_doc_free(next);
    return err;
}

static void test_long_keys(void) {
    struct cw_doc *doc = doc_new(0);
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
    struct cw_doc *a, *b, *doc = doc_new(0);
    memset(text, 'x', sizeof text);
    cw_buf_init(&term, &cw_mem_std, space, sizeof space);
    cw_put_string(&term, CW_KEY, CW_T_BINARY, cw_bytes(text, CW_CONTENT_KEY_MAX - 12));
    struct cw_step step = {cw_buf_slice(&term, 0), CW_KIND_NONE};
    struct cw_op op = {.verb = CW_INCREMENT, .path = &step, .path_len = 1, .amount = 1};
    CHECK_OK(cw_doc_update(doc, &op, 1, DOC_NOW, &a, &fault));
    cw_doc_free(doc);
    doc = doc_fork(a, 1);
    op.verb = CW_DELETE;
    CHECK_OK(cw_doc_update(doc, &op, 1, DOC_NOW, &b, &fault));
    CHECK(doc_receipts(b) == 1 && cw_tree_count(cw_doc_tree(b)) == 1);
    doc_pull(&a, b);
    CHECK(doc_same(a, b));
    cw_doc_free(doc);
    cw_doc_free(a);
    cw_doc_free(b);
}

/* A batch is done whole or not at all, and the fault says which operation it was. */
static void test_batch_with_an_error(void) {
    struct cw_doc *doc = doc_new(0), *next = NULL;
    struct doc_line l[3];
    struct cw_op ops[3] = {*doc_line(&l[0], CW_PUT, 0, "a", "one", 0),
                           *doc_line(&l[1], CW_INCREMENT, 0, "b", NULL, 3),
                           *doc_line(&l[2], CW_ADD, 0, "a", "x", 0)};
    struct cw_fault fault;
    CHECK(cw_doc_update(doc, ops, 3, DOC_NOW, &next, &fault) == CW_EKIND && !next);
    CHECK(fault.op == 2 && fault.have == CW_REGISTER && fault.want == CW_SET);
    CHECK(cw_tree_count(cw_doc_tree(doc)) == 0);
    CHECK_OK(cw_doc_update(doc, ops, 2, DOC_NOW, &next, &fault));
    CHECK(doc_holds(next, "a", "one") && doc_counts(next, "b", 3));
    CHECK(doc_cut(next).seen[0] == 1);
    cw_doc_free(next);
    cw_doc_free(doc);
}

int main(int argc, char **argv) {
    static const struct check_test tests[] = {
        {"another kind is there", test_another_kind_is_there},
        {"no such operation", test_no_such_operation},
        {"paths", test_paths},
        {"rights", test_rights},
        {"rights given to many", test_rights_given_to_many},
        {"rights and removal", test_rights_and_removal},
        {"debts in a batch", test_debts_in_a_batch},
        {"ranges", test_ranges},
        {"the last stamp", test_the_last_stamp},
        {"wide sums", test_wide_sums},
        {"long keys", test_long_keys},
        {"a long receipt", test_a_long_receipt},
        {"batch with an error", test_batch_with_an_error},
    };
    return check_main(argc, argv, "doc_errors", tests, sizeof tests / sizeof tests[0]);
}
