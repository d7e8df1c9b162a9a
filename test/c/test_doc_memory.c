/* Documents when memory runs out: each call is made with its first allocation failing, then its
 * second, and so on. It says CW_ENOMEM or does without; it leaks nothing; what it was given stays
 * as it was and can be used again. */
#include <stdlib.h>

#include "../../c_src/core/cw_changes.h"
#include "check.h"
#include "doc_dump.h"
#include "doc_world.h"

/* How to make a document whose last updates nobody has looked at. */
#define FRESH 40

struct recipe {
    const struct cw_doc *from;
    int replica; /* nobody else */
    struct spelled updates[FRESH];
    int n;
};

/* A call that may fail. What it makes is in one of `out`, `bytes` and `changes`. */
struct call {
    enum cw_err (*run)(struct call *c);
    const struct recipe *recipe; /* of `a`, made for each attempt; or NULL */
    const struct cw_doc *a;
    const struct cw_doc *b;
    struct cw_bytes x;
    struct cw_bytes y;
    const struct cw_op *ops;
    size_t ops_n;
    uint64_t now_ms;
    struct cw_vv *since;
    struct cw_doc *out;
    struct cw_buf bytes;
    struct cw_changes changes;
    struct cw_fault fault;
};

static enum cw_err run_new(struct call *c) {
    c->out = cw_doc_new(&check_mem, term_replica(6));
    return c->out ? CW_OK : CW_ENOMEM;
}

/* Everything a result says, in bytes of the test's own; then the result is freed. */
static struct cw_bytes take_result(struct call *c) {
    struct cw_buf buf;
    cw_buf_init(&buf, &cw_mem_std, NULL, 0);
    cw_buf_reserve(&buf, 1); /* so that there is something to free */
    if (c->out) {
        struct cw_bytes state = doc_state(c->out);
        CHECK(cw_tree_check(cw_doc_tree(c->out)) == NULL);
        cw_buf_bytes(&buf, state);
        free((void *)state.p);
    }
    cw_buf_bytes(&buf, cw_buf_slice(&c->bytes, 0));
    for (size_t i = 0; i < c->changes.n; i++) {
        cw_buf_bytes(&buf, c->changes.at[i].object);
        cw_buf_bytes(&buf, c->changes.at[i].element);
    }
    return cw_buf_slice(&buf, 0);
}

static void drop_result(struct call *c) {
    cw_doc_free(c->out);
    cw_buf_free(&c->bytes);
    cw_changes_free(&c->changes);
    cw_name_release(c->fault.replica);
}

static enum cw_err make(struct call *c, long fail_after) {
    c->out = NULL;
    c->changes = (struct cw_changes){.n = 0};
    c->fault = (struct cw_fault){.op = 0};
    cw_buf_init(&c->bytes, &check_mem, NULL, 0);
    check_mem_fail_after(fail_after);
    enum cw_err err = c->run(c);
    check_mem_fail_after(-1);
    return err;
}

static struct cw_doc *cook(const struct recipe *recipe) {
    struct cw_doc *doc, *next;
    struct cw_fault fault;
    CHECK_OK(cw_doc_fork(recipe->from, term_replica(recipe->replica), &doc));
    for (int i = 0; i < recipe->n; i++) {
        if (cw_doc_update(doc, &recipe->updates[i].op, 1, 7, &next, &fault) != CW_OK)
            continue;
        cw_doc_free(doc);
        doc = next;
    }
    return doc;
}

/* With all looked at, so that what is allocated is what was. */
static enum cw_err make_first(struct call *c, struct cw_bytes *result) {
    if (c->recipe)
        c->a = cook(c->recipe);
    enum cw_err err = make(c, -1);
    *result = take_result(c);
    drop_result(c);
    if (c->recipe)
        cw_doc_free((struct cw_doc *)c->a);
    return err;
}

/* A document that had to forget what it changed still knows what the one before lacks. */
static void check_delta(const struct cw_doc *from, const struct cw_doc *to) {
    struct cw_vv *since;
    struct cw_buf delta;
    struct cw_doc *got;
    struct cw_fault fault;
    cw_buf_init(&delta, &check_mem, NULL, 0);
    CHECK_OK(cw_doc_clock(to, &since));
    CHECK_OK(cw_doc_delta(from, since, SIZE_MAX, &delta));
    CHECK_OK(cw_doc_apply(to, cw_buf_slice(&delta, 0), SIZE_MAX, &got, &fault));
    CHECK(cw_hash_eq(cw_doc_hash(got), cw_doc_hash(from)));
    cw_vv_release(since);
    cw_buf_free(&delta);
    cw_doc_free(got);
}

static void fail_at_each(struct call *c) {
    struct cw_bytes expect;
    enum cw_err want = make_first(c, &expect), err;
    long k = 0;
    do {
        size_t live = check_mem_live();
        if (c->recipe)
            c->a = cook(c->recipe);
        err = make(c, k++);
        CHECK(err == want || (err == CW_ENOMEM && check_mem_failed()));
        CHECK(err != CW_ENOMEM || (!c->out && !c->changes.n && !c->fault.replica));
        if (err == want && !err) { /* what is wrong is wrong in no particular state */
            struct cw_bytes bytes = take_result(c);
            CHECK(cw_bytes_eq(bytes, expect));
            free((void *)bytes.p);
            if (c->out && c->run != run_new && check_mem_failed())
                check_delta(c->out, c->a);
        }
        drop_result(c);
        if (c->recipe)
            cw_doc_free((struct cw_doc *)c->a);
        CHECK(check_mem_live() == live);
    } while (check_mem_failed());
    CHECK(err == want);
    free((void *)expect.p);
}

/* ---- the calls ---- */

static enum cw_err run_update(struct call *c) {
    return cw_doc_update(c->a, c->ops, c->ops_n, c->now_ms, &c->out, &c->fault);
}

static enum cw_err run_merge(struct call *c) {
    return cw_doc_merge(c->a, c->b, SIZE_MAX, &c->out);
}

static enum cw_err run_apply(struct call *c) {
    return cw_doc_apply(c->a, c->x, SIZE_MAX, &c->out, &c->fault);
}

static enum cw_err run_fork(struct call *c) {
    return cw_doc_fork(c->a, term_replica(6), &c->out);
}

static enum cw_err run_encode(struct call *c) {
    return cw_doc_encode(c->a, &c->bytes);
}

static enum cw_err run_delta(struct call *c) {
    return cw_doc_delta(c->a, c->since, SIZE_MAX, &c->bytes);
}

static enum cw_err run_between(struct call *c) {
    return cw_doc_delta_between(c->b, c->a, SIZE_MAX, &c->bytes);
}

static enum cw_err run_join(struct call *c) {
    return cw_fragment_join(&check_mem, c->x, c->y, SIZE_MAX, &c->bytes);
}

static enum cw_err run_changes(struct call *c) {
    return cw_doc_changes(c->a, c->b, SIZE_MAX, &c->changes);
}

static enum cw_err run_visit(struct call *c) {
    enum cw_err err = dump_object(c->a, cw_bytes("\x10", 1), CW_MAP, &c->bytes);
    return err ? err : c->bytes.err;
}

static enum cw_err run_clock(struct call *c) {
    struct cw_vv *vv;
    enum cw_err err = cw_doc_clock(c->a, &vv);
    if (!err)
        cw_vv_release(vv);
    return err;
}

/* A sum: it is always known. */
static enum cw_err run_hash(struct call *c) {
    struct cw_hash hash = cw_doc_hash(c->a);
    check_mem_fail_after(-1); /* room for the answer */
    cw_buf_u64le(&c->bytes, hash.lo);
    cw_buf_u64le(&c->bytes, hash.hi);
    return CW_OK;
}

/* ---- documents that nobody has looked at yet ---- */

static void write_recipe(struct world *w, struct recipe *recipe, const struct cw_doc *from,
                         uint64_t most) {
    recipe->from = from;
    recipe->replica = 0;
    while (w->docs[recipe->replica])
        recipe->replica++;
    recipe->n = (int)check_below(most);
    CHECK(cw_doc_tree(from)); /* looks at it */
    for (int i = 0; i < recipe->n; i++) {
        struct wish wish = random_wish(&w->theme);
        spell(&recipe->updates[i], &wish);
    }
}

/* On a document that was looked at, and on one that was not. */
static void fail_on_both(struct world *w, struct call *c, const struct cw_doc *a, uint64_t most) {
    static struct recipe recipe;
    c->a = a;
    CHECK(cw_doc_tree(a));
    fail_at_each(c);
    write_recipe(w, &recipe, a, most);
    c->recipe = &recipe;
    fail_at_each(c);
    c->recipe = NULL;
}

/* ---- worlds ---- */

static void calls_on_one(struct world *w, struct call *c) {
    static enum cw_err (*const calls[])(struct call *) = {
        run_encode, run_delta, run_changes, run_visit, run_clock, run_fork, run_hash, run_merge,
    };
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        c->run = calls[i];
        fail_on_both(w, c, world_any_old(w), 6);
    }
}

static void calls_on_two(struct world *w, struct call *c) {
    c->a = world_any_old(w);
    c->b = world_any_old(w);
    c->run = run_between;
    fail_at_each(c);
    c->run = run_changes;
    fail_at_each(c);
    c->run = run_merge;
    fail_at_each(c);
}

static void calls_on_letters(struct world *w, struct call *c) {
    const struct letter *x = world_any_letter(w), *y = world_any_letter(w);
    if (!x || !y)
        return;
    c->x = cw_bytes(x->p, x->n);
    c->y = cw_bytes(y->p, y->n);
    c->run = run_join;
    fail_at_each(c);
    c->run = run_apply;
    fail_on_both(w, c, world_any_old(w), 6);
}

static void calls_with_updates(struct world *w, struct call *c) {
    static struct spelled spelled[8];
    struct cw_op ops[8];
    c->ops_n = 1 + check_below(8);
    for (size_t i = 0; i < c->ops_n; i++) {
        struct wish wish = random_wish(&w->theme);
        spell(&spelled[i], &wish);
        ops[i] = spelled[i].op;
    }
    c->ops = ops;
    c->run = run_update;
    c->now_ms = w->now_ms;
    fail_on_both(w, c, world_any_old(w), FRESH);
}

/* Letters for the world: deltas, states, differences. */
static void post_something(struct world *w) {
    struct cw_buf buf;
    struct cw_vv *since;
    const struct cw_doc *a = world_any_old(w), *b = world_any_old(w);
    cw_buf_init(&buf, &check_mem, NULL, 0);
    CHECK_OK(cw_doc_clock(b, &since));
    CHECK_OK(cw_doc_delta(a, since, SIZE_MAX, &buf));
    world_post(w, &buf);
    buf.n = 0;
    if (cw_doc_delta_between(b, a, SIZE_MAX, &buf) == CW_OK)
        world_post(w, &buf);
    cw_vv_release(since);
    cw_buf_free(&buf);
}

static void live_a_little(struct world *w) {
    int r = world_alive(w);
    struct cw_doc *out;
    for (int i = 0; i < 4; i++)
        world_update_randomly(w, world_alive(w));
    CHECK_OK(cw_doc_merge(w->docs[r], world_any_old(w), SIZE_MAX, &out));
    world_become(w, r, out);
    post_something(w);
}

static void run_world(void) {
    struct theme theme = random_theme();
    struct world w;
    struct call c = {.run = run_new};
    theme.elements = check_below(2) ? 14 : 4; /* with one that no stack buffer holds */
    world_open(&w, 2 + (int)check_below(3), &theme);
    fail_at_each(&c);
    for (int i = 0; i < 6; i++) {
        live_a_little(&w);
        c.b = world_any_old(&w);
        CHECK(cw_doc_tree(c.b)); /* looked at, so that it allocates no more */
        CHECK_OK(cw_doc_clock(c.b, &c.since));
        calls_on_one(&w, &c);
        cw_vv_release(c.since);
        calls_on_two(&w, &c);
        calls_on_letters(&w, &c);
        calls_with_updates(&w, &c);
    }
    for (int r = 0; r < REPLICAS; r++) /* all inputs are what they were */
        if (w.docs[r])
            world_check(&w, w.docs[r]);
    for (int i = 0; i < KEPT; i++)
        if (w.kept[i])
            world_check(&w, w.kept[i]);
    world_close(&w);
}

static void test_every_call(void) {
    for (int i = 0; i < check_rounds(600); i++)
        run_world();
}

int main(int argc, char **argv) {
    static const struct check_test tests[] = {
        {"every call, every allocation", test_every_call},
    };
    return check_main(argc, argv, "doc_memory", tests, sizeof tests / sizeof tests[0]);
}
