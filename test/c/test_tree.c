/* cw_tree against a sorted array: the obvious model. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "../../c_src/core/cw_forest.h"
#include "check.h"

/* ---- the model ---- */

struct pair {
    uint8_t *key, *payload;
    size_t klen, vlen;
};

struct model {
    struct pair *at;
    size_t n;
};

static struct cw_bytes pair_key(const struct pair *p) {
    return cw_bytes(p->key, p->klen);
}

static struct cw_bytes pair_payload(const struct pair *p) {
    return cw_bytes(p->payload, p->vlen);
}

static size_t model_find(const struct model *m, struct cw_bytes key, bool *found) {
    size_t i = 0;
    while (i < m->n && cw_bytes_cmp(pair_key(&m->at[i]), key) < 0)
        i++;
    *found = i < m->n && cw_bytes_eq(pair_key(&m->at[i]), key);
    return i;
}

static uint8_t *dup(struct cw_bytes s) {
    uint8_t *p = malloc(s.n + 1);
    if (s.n)
        memcpy(p, s.p, s.n);
    return p;
}

static void model_apply(struct model *m, const struct cw_edit *e) {
    bool found;
    size_t i = model_find(m, e->key, &found);
    if (found) {
        free(m->at[i].key);
        free(m->at[i].payload);
        memmove(m->at + i, m->at + i + 1, (--m->n - i) * sizeof *m->at);
    }
    if (e->del)
        return;
    m->at = realloc(m->at, (m->n + 1) * sizeof *m->at);
    memmove(m->at + i + 1, m->at + i, (m->n++ - i) * sizeof *m->at);
    m->at[i] = (struct pair){dup(e->key), dup(e->payload), e->key.n, e->payload.n};
}

static struct model model_copy(const struct model *m) {
    struct model c = {malloc((m->n + 1) * sizeof *m->at), m->n};
    for (size_t i = 0; i < m->n; i++)
        c.at[i] = (struct pair){dup(pair_key(&m->at[i])), dup(pair_payload(&m->at[i])),
                                m->at[i].klen, m->at[i].vlen};
    return c;
}

static void model_free(struct model *m) {
    for (size_t i = 0; i < m->n; i++) {
        free(m->at[i].key);
        free(m->at[i].payload);
    }
    free(m->at);
    *m = (struct model){0};
}

static struct cw_hash model_hash(const struct model *m, size_t from, size_t to) {
    struct cw_hash h = {0, 0};
    for (size_t i = from; i < to; i++)
        h = cw_hash_add(h, cw_hash_cell(pair_key(&m->at[i]), pair_payload(&m->at[i])));
    return h;
}

/* ---- random edits ---- */

static uint8_t key_space[CW_KEY_MAX];
static uint8_t payload_space[4096];

/* Short keys that collide, keys that share long prefixes, keys over the inline limit. */
static struct cw_bytes random_key(unsigned universe) {
    uint64_t id = check_below(universe);
    size_t n = 0;
    if (id % 3)
        n = (size_t)sprintf((char *)key_space, "common/prefix/%llu/", (unsigned long long)(id % 3));
    if (id % 11 == 0) {
        memset(key_space + n, 'x', 300);
        n += 300;
    }
    n += (size_t)sprintf((char *)key_space + n, "%llx", (unsigned long long)id);
    if (id % 5 == 0)
        key_space[n++] = 0;
    return cw_bytes(key_space, id % 997 == 3 ? 0 : n);
}

static struct cw_bytes random_payload(void) {
    size_t n = check_below(8) ? check_below(40) : check_below(sizeof payload_space);
    for (size_t i = 0; i < n; i++)
        payload_space[i] = (uint8_t)check_random();
    return cw_bytes(payload_space, n);
}

struct batch {
    struct cw_edit at[256];
    size_t n;
};

static void batch_add(struct batch *b, struct cw_bytes key, struct cw_bytes payload, bool del) {
    size_t i = b->n;
    while (i > 0 && cw_bytes_cmp(b->at[i - 1].key, key) > 0)
        i--;
    if (i > 0 && cw_bytes_eq(b->at[i - 1].key, key))
        return;
    memmove(b->at + i + 1, b->at + i, (b->n++ - i) * sizeof b->at[0]);
    b->at[i] = (struct cw_edit){cw_bytes(dup(key), key.n), cw_bytes(dup(payload), payload.n), del};
}

static void batch_free(struct batch *b) {
    for (size_t i = 0; i < b->n; i++) {
        free((void *)b->at[i].key.p);
        free((void *)b->at[i].payload.p);
    }
    b->n = 0;
}

static void random_batch(struct batch *b, size_t n, unsigned universe, unsigned dels) {
    b->n = 0;
    for (size_t i = 0; i < n; i++) {
        struct cw_bytes key = random_key(universe);
        batch_add(b, key, random_payload(), check_below(100) < dels);
    }
}

/* ---- comparing ---- */

static void same(const struct cw_tree *tree, const struct model *m) {
    const char *fault = cw_tree_check(tree);
    if (fault)
        check_failed(__FILE__, __LINE__, fault);
    CHECK(cw_tree_count(tree) == m->n);
    CHECK(cw_hash_eq(cw_tree_hash(tree), model_hash(m, 0, m->n)));
    static struct cw_cursor cur;
    bool more = cw_cursor_seek(&cur, tree, cw_bytes("", 0));
    for (size_t i = 0; i < m->n; i++) {
        CHECK(more);
        CHECK(cw_bytes_eq(cw_cursor_key(&cur), pair_key(&m->at[i])));
        CHECK(cw_bytes_eq(cur.payload, pair_payload(&m->at[i])));
        more = cw_cursor_next(&cur);
    }
    CHECK(!more);
}

static void same_reads(const struct cw_tree *tree, const struct model *m, unsigned universe) {
    static struct cw_cursor cur;
    for (int k = 0; k < 20; k++) {
        struct cw_bytes key = random_key(universe), payload;
        bool found;
        size_t i = model_find(m, key, &found);
        CHECK(cw_tree_get(tree, key, &payload) == found);
        CHECK(!found || cw_bytes_eq(payload, pair_payload(&m->at[i])));
        CHECK(cw_cursor_seek(&cur, tree, key) == (i < m->n));
        CHECK(i == m->n || cw_bytes_eq(cw_cursor_key(&cur), pair_key(&m->at[i])));
        uint8_t lo_space[512];
        struct cw_bytes lo = cw_bytes(lo_space, key.n);
        memcpy(lo_space, key.p, key.n);
        struct cw_bytes hi = random_key(universe);
        size_t j = model_find(m, hi, &found);
        struct cw_range r = cw_tree_range(tree, lo, k % 4 ? &hi : NULL);
        if (k % 4 == 0)
            j = m->n;
        if (j < i)
            j = i;
        CHECK(r.count == j - i && cw_hash_eq(r.hash, model_hash(m, i, j)));
    }
}

/* ---- tests ---- */

static struct cw_tree *step(struct cw_tree *tree, struct model *m, struct batch *b) {
    struct cw_tree *next;
    CHECK_OK(cw_tree_apply(tree, b->at, b->n, &next));
    for (size_t i = 0; i < b->n; i++)
        model_apply(m, &b->at[i]);
    batch_free(b);
    cw_tree_release(tree);
    return next;
}

static void random_walk(unsigned universe, int steps, size_t max_batch) {
    struct cw_tree *tree = cw_tree_new(&check_mem);
    struct model m = {0};
    static struct batch b;
    for (int i = 0; i < steps; i++) {
        unsigned dels = i / 50 % 3 == 2 ? 80 : 30;
        random_batch(&b, 1 + check_below(max_batch), universe, dels);
        tree = step(tree, &m, &b);
        same(tree, &m);
        same_reads(tree, &m, universe);
    }
    cw_tree_release(tree);
    model_free(&m);
}

static void test_single_edits(void) {
    random_walk(60, check_rounds(400), 1);
    random_walk(2000, check_rounds(400), 1);
}

static void test_batches(void) {
    random_walk(300, check_rounds(200), 60);
    random_walk(5000, check_rounds(60), 256);
}

static void test_levels_by_secret(void) {
    for (int i = 0; i < check_rounds(10); i++) {
        cw_tree_secret(check_random());
        random_walk(500, 40, 40);
    }
}

/* The same content by another history has the same hash, and the diff of the two is empty. */
static enum cw_err never(void *ctx, struct cw_bytes key, const struct cw_bytes *x,
                         const struct cw_bytes *y) {
    (void)ctx, (void)key, (void)x, (void)y;
    check_failed(__FILE__, __LINE__, "a difference between equal trees");
}

static void test_history_does_not_matter(void) {
    static struct batch b;
    for (int round = 0; round < check_rounds(20); round++) {
        struct cw_tree *x = cw_tree_new(&check_mem), *y = cw_tree_new(&check_mem);
        struct model m = {0}, my = {0};
        for (int i = 0; i < 20; i++) {
            random_batch(&b, 40, 400, 30);
            x = step(x, &m, &b);
        }
        for (int i = 0; i < 5; i++) { /* something else first */
            random_batch(&b, 40, 400, 10);
            y = step(y, &my, &b);
        }
        b.n = 0;
        for (size_t i = 0; i < my.n; i++) {
            bool found;
            model_find(&m, pair_key(&my.at[i]), &found);
            if (!found)
                batch_add(&b, pair_key(&my.at[i]), cw_bytes("", 0), true);
        }
        struct cw_tree *next;
        CHECK_OK(cw_tree_apply(y, b.at, b.n, &next));
        batch_free(&b);
        cw_tree_release(y);
        y = next;
        for (size_t k = 0; k < m.n; k++) {
            size_t i = (k * 7919) % m.n;
            struct cw_edit e = {pair_key(&m.at[i]), pair_payload(&m.at[i]), false};
            CHECK_OK(cw_tree_apply(y, &e, 1, &next));
            cw_tree_release(y);
            y = next;
        }
        for (size_t i = 0; i < m.n; i++) { /* 7919 may share a factor with n */
            struct cw_edit e = {pair_key(&m.at[i]), pair_payload(&m.at[i]), false};
            CHECK_OK(cw_tree_apply(y, &e, 1, &next));
            cw_tree_release(y);
            y = next;
        }
        same(y, &m);
        CHECK(cw_hash_eq(cw_tree_hash(x), cw_tree_hash(y)));
        CHECK_OK(cw_tree_diff(x, y, SIZE_MAX, never, NULL));
        cw_tree_release(x);
        cw_tree_release(y);
        model_free(&m);
        model_free(&my);
    }
}

struct expect {
    const struct model *x, *y;
    size_t i, j;
};

static enum cw_err expect_next(void *ctx, struct cw_bytes key, const struct cw_bytes *x,
                               const struct cw_bytes *y) {
    struct expect *ex = ctx;
    for (;;) { /* the models' next difference */
        bool hx = ex->i < ex->x->n, hy = ex->j < ex->y->n;
        CHECK(hx || hy);
        const struct pair *px = hx ? &ex->x->at[ex->i] : NULL, *py = hy ? &ex->y->at[ex->j] : NULL;
        int c = !hx ? 1 : !hy ? -1 : cw_bytes_cmp(pair_key(px), pair_key(py));
        ex->i += c <= 0;
        ex->j += c >= 0;
        if (c == 0 && cw_bytes_eq(pair_payload(px), pair_payload(py)))
            continue;
        CHECK(cw_bytes_eq(key, pair_key(c <= 0 ? px : py)));
        CHECK(!x == (c > 0) && !y == (c < 0));
        CHECK(!x || cw_bytes_eq(*x, pair_payload(px)));
        CHECK(!y || cw_bytes_eq(*y, pair_payload(py)));
        return CW_OK;
    }
}

static void diff_is(const struct cw_tree *x, const struct cw_tree *y, const struct model *mx,
                    const struct model *my) {
    struct expect ex = {mx, my, 0, 0};
    CHECK_OK(cw_tree_diff(x, y, SIZE_MAX, expect_next, &ex));
    while (ex.i < mx->n && ex.j < my->n &&
           cw_bytes_eq(pair_key(&mx->at[ex.i]), pair_key(&my->at[ex.j])) &&
           cw_bytes_eq(pair_payload(&mx->at[ex.i]), pair_payload(&my->at[ex.j])))
        ex.i++, ex.j++;
    CHECK(ex.i == mx->n && ex.j == my->n);
}

static void test_diff(void) {
    static struct batch b;
    for (int round = 0; round < check_rounds(150); round++) {
        unsigned universe = round % 2 ? 3000 : 200;
        struct cw_tree *x = cw_tree_new(&check_mem), *y;
        struct model mx = {0};
        for (uint64_t i = check_below(12); i > 0; i--) {
            random_batch(&b, 100, universe, 20);
            x = step(x, &mx, &b);
        }
        y = round % 3 ? cw_tree_retain(x) : cw_tree_new(&check_mem);
        struct model my = round % 3 ? model_copy(&mx) : (struct model){0};
        for (uint64_t i = check_below(4); i > 0; i--) {
            random_batch(&b, 1 + check_below(100), universe, 50);
            y = step(y, &my, &b);
        }
        diff_is(x, y, &mx, &my);
        diff_is(y, x, &my, &mx);
        cw_tree_release(x);
        cw_tree_release(y);
        model_free(&mx);
        model_free(&my);
    }
}

static enum cw_err count_one(void *ctx, struct cw_bytes key, const struct cw_bytes *x,
                             const struct cw_bytes *y) {
    (void)key, (void)x, (void)y;
    ++*(size_t *)ctx;
    return CW_OK;
}

/* Two trees of 20,000 cells that differ in one are compared by looking at a few hundred. */
static void test_diff_cost(void) {
    struct cw_tree *x = cw_tree_new(&check_mem), *y, *next;
    char key[32];
    for (int i = 0; i < 20000; i++) {
        int n = sprintf(key, "%d", i);
        struct cw_edit e = {cw_bytes(key, (size_t)n), cw_bytes("v", 1), false};
        CHECK_OK(cw_tree_apply(x, &e, 1, &next));
        cw_tree_release(x);
        x = next;
    }
    struct cw_edit e = {cw_bytes("7777", 4), cw_bytes("w", 1), false};
    CHECK_OK(cw_tree_apply(x, &e, 1, &y));
    size_t found = 0;
    CHECK_OK(cw_tree_diff(x, y, 2000, count_one, &found));
    CHECK(found == 1);
    struct cw_tree *empty = cw_tree_new(&check_mem);
    CHECK(cw_tree_diff(x, empty, 2000, count_one, &found) == CW_EBUDGET);
    cw_tree_release(empty);
    cw_tree_release(x);
    cw_tree_release(y);
}

/* Versions kept, dropped and branched in any order stay what they were; nothing leaks. */
#define VERSIONS 24

static void test_versions(void) {
    static struct batch b;
    struct cw_tree *trees[VERSIONS] = {NULL};
    struct model models[VERSIONS] = {{0}};
    trees[0] = cw_tree_new(&check_mem);
    for (int i = 0; i < check_rounds(3000); i++) {
        size_t from = check_below(VERSIONS), to = check_below(VERSIONS);
        if (!trees[from])
            continue;
        random_batch(&b, 1 + check_below(i % 100 ? 4 : 200), 600, i / 300 % 2 ? 60 : 20);
        struct cw_tree *next;
        CHECK_OK(cw_tree_apply(trees[from], b.at, b.n, &next));
        struct model m = model_copy(&models[from]);
        for (size_t k = 0; k < b.n; k++)
            model_apply(&m, &b.at[k]);
        batch_free(&b);
        if (check_below(4) == 0) { /* a rollback */
            cw_tree_release(next);
            model_free(&m);
            continue;
        }
        cw_tree_release(trees[to]);
        model_free(&models[to]);
        trees[to] = next;
        models[to] = m;
        size_t look = check_below(VERSIONS);
        if (trees[look])
            same(trees[look], &models[look]);
    }
    for (size_t i = 0; i < VERSIONS; i++) {
        if (trees[i])
            same(trees[i], &models[i]);
        cw_tree_release(trees[i]);
        model_free(&models[i]);
    }
}

/* A long line of versions behind one that is kept does not pile up. */
static void test_a_kept_version_does_not_pin_its_heirs(void) {
    static struct batch b;
    struct cw_tree *tree = cw_tree_new(&check_mem);
    struct model m = {0};
    for (int i = 0; i < 10; i++) {
        random_batch(&b, 200, 1000, 0);
        tree = step(tree, &m, &b);
    }
    struct cw_tree *kept = cw_tree_retain(tree);
    struct model mk = model_copy(&m);
    size_t peak = 0;
    for (int i = 0; i < 4000; i++) {
        random_batch(&b, 1, 1000, 50);
        tree = step(tree, &m, &b);
        if (check_mem_live() > peak)
            peak = check_mem_live();
    }
    CHECK(peak < 5000);
    same(kept, &mk);
    same(tree, &m);
    cw_tree_release(tree);
    cw_tree_release(kept);
    model_free(&m);
    model_free(&mk);
}

/* Every cell of `tree` with a new payload. */
static struct cw_tree *rewritten(struct cw_tree *tree, int cells, const char *payload) {
    struct cw_edit *edits = calloc((size_t)cells, sizeof *edits);
    uint8_t(*keys)[8] = calloc((size_t)cells, sizeof *keys);
    struct cw_tree *next;
    for (int i = 0; i < cells; i++) {
        cw_store64be(keys[i], (uint64_t)i);
        edits[i] = (struct cw_edit){cw_bytes(keys[i], 8), cw_bytes(payload, 1), false};
    }
    CHECK_OK(cw_tree_apply(tree, edits, (size_t)cells, &next));
    free(edits);
    free(keys);
    return next;
}

/* Between one that is kept and one in which everything is new goes a version that needs next to
 * nothing. To find that out takes a look at all that was replaced after it, in as many steps as the
 * budget says; and then once more, when the kept one goes. */
static void test_a_long_list_in_steps(void) {
    struct cw_tree *empty = cw_tree_new(&check_mem), *kept = rewritten(empty, 20000, "a"), *one,
                   *all;
    struct cw_edit e = {cw_bytes("key", 3), cw_bytes("x", 1), false};
    cw_tree_release(empty);
    CHECK_OK(cw_tree_apply(kept, &e, 1, &one));
    all = rewritten(one, 20000, "b");
    size_t live = check_mem_live();
    size_t steps = 0;
    for (struct cw_forest *rest = cw_tree_release_some(one, 1); rest; steps++)
        if (!cw_forest_serve(rest, 1)) {
            cw_forest_drop_token(rest);
            rest = NULL;
        }
    CHECK(steps > 20000 / 16 / CW_FOREST_LOOKS / 2 && check_mem_live() > live - 20);
    CHECK(!cw_tree_check(kept) && !cw_tree_check(all));
    struct cw_forest *rest = cw_tree_release_some(kept, 10);
    CHECK(rest);
    CHECK_OK(cw_tree_apply(all, &e, 1, &one)); /* what is going on keeps nobody from writing */
    cw_tree_release(all);
    CHECK(!cw_tree_check(one));
    cw_forest_drain(rest);
    CHECK(check_mem_live() < live - 20000 / 16 / 2);
    cw_tree_release(one);
}

static void test_allocation_failures(void) {
    static struct batch b;
    struct cw_tree *tree = cw_tree_new(&check_mem);
    struct model m = {0};
    for (int i = 0; i < check_rounds(150); i++) {
        random_batch(&b, 1 + check_below(i % 3 ? 1 : 100), 500, 40);
        for (long k = 0;; k++) {
            struct cw_tree *next = NULL;
            size_t before = check_mem_live();
            check_mem_fail_after(k);
            enum cw_err err = cw_tree_apply(tree, b.at, b.n, &next);
            check_mem_fail_after(-1);
            if (!err) {
                cw_tree_release(next);
                break;
            }
            CHECK(err == CW_ENOMEM && !next && check_mem_live() == before);
        }
        tree = step(tree, &m, &b);
        same(tree, &m);
    }
    cw_tree_release(tree);
    model_free(&m);
}

/* Threads that branch from shared versions and drop them in any order. */
struct crowd {
    struct cw_tree *base;
    uint64_t seed;
};

static void *crowd_member(void *arg) {
    struct crowd *crowd = arg;
    uint64_t x = crowd->seed;
    struct cw_tree *mine[4] = {NULL};
    for (int i = 0; i < 3000; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        size_t from = x >> 60 & 3, to = x >> 50 & 3;
        struct cw_tree *tree = mine[from] ? mine[from] : crowd->base, *next;
        char key[16];
        int n = sprintf(key, "%u", (unsigned)(x >> 33) % 500);
        struct cw_edit e = {cw_bytes(key, (size_t)n), cw_bytes(&x, 8), (x >> 20 & 3) == 0};
        CHECK_OK(cw_tree_apply(tree, &e, 1, &next));
        cw_tree_release(mine[to]);
        mine[to] = next;
    }
    for (int i = 0; i < 4; i++) {
        if (mine[i])
            CHECK(cw_tree_check(mine[i]) == NULL);
        struct cw_forest *rest = cw_tree_release_some(mine[i], 3);
        if (rest)
            cw_forest_drain(rest);
    }
    return NULL;
}

static void test_threads(void) {
    static struct batch b;
    struct cw_tree *base = cw_tree_new(&check_mem);
    struct model m = {0};
    for (int i = 0; i < 5; i++) {
        random_batch(&b, 200, 1000, 0);
        base = step(base, &m, &b);
    }
    pthread_t threads[4];
    struct crowd crowds[4];
    for (int i = 0; i < 4; i++) {
        crowds[i] = (struct crowd){base, check_random()};
        CHECK(pthread_create(&threads[i], NULL, crowd_member, &crowds[i]) == 0);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    same(base, &m);
    cw_tree_release(base);
    model_free(&m);
}

static void test_limits(void) {
    static uint8_t big[CW_KEY_MAX + 1];
    struct cw_tree *tree = cw_tree_new(&check_mem), *next = NULL;
    struct cw_edit e = {cw_bytes(big, sizeof big), cw_bytes("", 0), false};
    CHECK(cw_tree_apply(tree, &e, 1, &next) == CW_ELIMIT && !next);
    e.key.n = CW_KEY_MAX;
    CHECK_OK(cw_tree_apply(tree, &e, 1, &next));
    CHECK(cw_tree_count(next) == 1);
    cw_tree_release(next);
    CHECK_OK(cw_tree_apply(tree, NULL, 0, &next));
    CHECK(next == tree);
    cw_tree_release(next);
    cw_tree_release(tree);
}

int main(int argc, char **argv) {
    static const struct check_test tests[] = {
        {"single edits", test_single_edits},
        {"batches", test_batches},
        {"levels by secret", test_levels_by_secret},
        {"history does not matter", test_history_does_not_matter},
        {"diff", test_diff},
        {"diff cost", test_diff_cost},
        {"versions", test_versions},
        {"a kept version does not pin its heirs", test_a_kept_version_does_not_pin_its_heirs},
        {"a long list in steps", test_a_long_list_in_steps},
        {"allocation failures", test_allocation_failures},
        {"threads", test_threads},
        {"limits", test_limits},
    };
    return check_main(argc, argv, "tree", tests, sizeof tests / sizeof tests[0]);
}
