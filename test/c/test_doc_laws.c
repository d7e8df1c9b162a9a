/* Documents over random schedules: several replicas that edit, merge, send deltas late, twice, out
 * of order or never, fork, and go on from old versions. doc_world.h checks all that comes out. */
#include <stdlib.h>

#include "../../c_src/core/cw_changes.h"
#include "check.h"
#include "doc_world.h"

/* ---- merging ---- */

static struct cw_doc *merged(const struct cw_doc *a, const struct cw_doc *b) {
    struct cw_doc *out;
    struct cut ca = doc_cut(a), cb = doc_cut(b), want = cut_join(&ca, &cb);
    CHECK_OK(cw_doc_merge(a, b, SIZE_MAX, &out));
    struct cut cut = doc_cut(out);
    CHECK(cut_equal(&cut, &want));
    CHECK(cw_doc_replica(out) == cw_doc_replica(a));
    return out;
}

static void step_merge(struct world *w) {
    int a = world_alive(w), b = world_alive(w);
    struct cw_doc *x = merged(w->docs[a], w->docs[b]), *y = merged(w->docs[b], w->docs[a]);
    if (a == b || check_below(2))
        cw_doc_free(y);
    else
        world_become(w, b, y);
    world_become(w, a, x);
}

static void step_merge_old(struct world *w) {
    int a = world_alive(w);
    world_become(w, a, merged(w->docs[a], world_any_old(w)));
}

static bool same_state(const struct cw_doc *a, const struct cw_doc *b) {
    struct cw_bytes x = doc_state(a), y = doc_state(b);
    bool same = cw_bytes_eq(x, y) && cw_hash_eq(cw_doc_hash(a), cw_doc_hash(b));
    free((void *)x.p);
    free((void *)y.p);
    return same;
}

static void step_laws(struct world *w) {
    const struct cw_doc *a = world_any_old(w), *b = world_any_old(w), *c = world_any_old(w);
    struct cw_doc *ab = merged(a, b), *ba = merged(b, a), *bc = merged(b, c);
    struct cw_doc *ab_c = merged(ab, c), *a_bc = merged(a, bc), *aa = merged(a, a);
    struct cw_doc *ab_b = merged(ab, b);
    CHECK(same_state(ab, ba));
    CHECK(same_state(ab_c, a_bc));
    CHECK(same_state(aa, a));
    CHECK(same_state(ab_b, ab));
    world_check(w, ab_c);
    cw_doc_free(ab);
    cw_doc_free(bc);
    cw_doc_free(ab_b);
    cw_doc_free(a_bc);
    cw_doc_free(aa);
    cw_doc_free(ab_c);
    cw_doc_free(ba);
}

/* ---- letters ---- */

static struct cut since_of(const struct cw_doc *doc, struct cw_vv **vv) {
    CHECK_OK(cw_doc_clock(doc, vv));
    return doc_cut(doc);
}

/* What `from` has that one who has seen what `since` has lacks. */
static const struct letter *post_delta(struct world *w, const struct cw_doc *from,
                                       const struct cw_doc *since) {
    struct cw_buf buf;
    struct cw_vv *vv;
    struct cut seen = since_of(since, &vv), clock = doc_cut(from);
    struct cut common = cut_meet(&seen, &clock), none = {{0}};
    cw_buf_init(&buf, &check_mem, NULL, 0);
    CHECK_OK(cw_doc_delta(from, vv, SIZE_MAX, &buf));
    const struct letter *l = world_post(w, &buf);
    CHECK(cut_equal(&l->to, &clock));
    CHECK(cut_equal(&l->from, &common) || cut_equal(&l->from, &none));
    cw_buf_free(&buf);
    cw_vv_release(vv);
    return l;
}

static void step_delta(struct world *w) {
    int r = world_alive(w);
    const struct letter *l = post_delta(w, world_any_old(w), w->docs[r]);
    struct cw_doc *doc = world_apply(w, w->docs[r], l);
    CHECK(doc);
    world_become(w, r, doc);
}

static void step_post_delta(struct world *w) {
    post_delta(w, world_any_old(w), world_any_old(w));
}

static enum cw_err post_between(struct world *w, const struct cw_doc *old,
                                const struct cw_doc *doc) {
    struct cut from = doc_cut(old), to = doc_cut(doc);
    struct cw_buf buf;
    cw_buf_init(&buf, &check_mem, NULL, 0);
    enum cw_err err = cw_doc_delta_between(old, doc, SIZE_MAX, &buf);
    CHECK(err == (cut_contains(&to, &from) ? CW_OK : CW_ECLOCK));
    if (!err) {
        const struct letter *l = world_post(w, &buf);
        CHECK(cut_equal(&l->from, &from) && cut_equal(&l->to, &to));
    }
    cw_buf_free(&buf);
    return err;
}

static void step_post_between(struct world *w) {
    post_between(w, world_any_old(w), world_any_old(w));
}

/* What each of two lacks of the other. */
static void step_post_halves(struct world *w) {
    const struct cw_doc *a = world_any_old(w), *b = world_any_old(w);
    struct cw_doc *ab = merged(a, b);
    CHECK_OK(post_between(w, a, ab));
    if (check_below(2))
        CHECK_OK(post_between(w, b, ab));
    cw_doc_free(ab);
}

static void step_post_state(struct world *w) {
    struct cw_buf buf;
    cw_buf_init(&buf, &check_mem, NULL, 0);
    CHECK_OK(cw_doc_encode(world_any_old(w), &buf));
    world_post(w, &buf);
    cw_buf_free(&buf);
}

/* An old letter arrives: late, again, or too early. */
static void step_arrival(struct world *w) {
    const struct letter *l = world_any_letter(w);
    int r = world_alive(w);
    struct cw_doc *doc = l ? world_apply(w, w->docs[r], l) : NULL;
    if (doc)
        world_become(w, r, doc);
}

static void step_old_arrival(struct world *w) {
    const struct letter *l = world_any_letter(w);
    cw_doc_free(l ? world_apply(w, world_any_old(w), l) : NULL);
}

/* A budget that is too small leaves no trace; one that is enough changes nothing. */
static void merge_within(struct world *w, size_t budget) {
    struct cw_doc *out = NULL;
    enum cw_err err = cw_doc_merge(world_any_old(w), world_any_old(w), budget, &out);
    CHECK(err == CW_OK || err == CW_EBUDGET);
    CHECK(!err == (out != NULL));
    if (out)
        world_check(w, out);
    cw_doc_free(out);
}

static void apply_within(struct world *w, size_t budget) {
    const struct letter *l = world_any_letter(w);
    struct cw_fault fault = {0};
    struct cw_doc *out = NULL;
    if (!l)
        return;
    enum cw_err err = cw_doc_apply(world_any_old(w), cw_bytes(l->p, l->n), budget, &out, &fault);
    CHECK(err == CW_OK || err == CW_EBUDGET || err == CW_EGAP);
    CHECK(!err == (out != NULL));
    if (out)
        world_check(w, out);
    cw_doc_free(out);
    cw_name_release(fault.replica);
}

static void delta_within(struct world *w, size_t budget) {
    const struct cw_doc *a = world_any_old(w), *b = world_any_old(w);
    struct cw_buf buf;
    struct cw_vv *since;
    cw_buf_init(&buf, &check_mem, NULL, 0);
    CHECK_OK(cw_doc_clock(b, &since));
    enum cw_err err = cw_doc_delta(a, since, budget, &buf);
    CHECK(err == CW_OK || err == CW_EBUDGET);
    if (!err)
        world_post(w, &buf);
    buf.n = 0;
    err = cw_doc_delta_between(b, a, budget, &buf);
    CHECK(err == CW_OK || err == CW_EBUDGET || err == CW_ECLOCK);
    if (!err)
        world_post(w, &buf);
    cw_buf_free(&buf);
    cw_vv_release(since);
}

static void step_budget(struct world *w) {
    merge_within(w, check_below(40));
    apply_within(w, check_below(40));
    delta_within(w, check_below(20));
}

/* ---- joins of letters ---- */

static bool connect(const struct letter *a, const struct letter *b) {
    struct cut from = cut_join(&a->from, &b->from), to = cut_meet(&a->to, &b->to);
    if (!cut_contains(&to, &from))
        return false;
    /* what changed to and fro in both may have changed between their beginnings */
    return !(a->net && b->net) || cut_contains(&a->from, &b->from) ||
           cut_contains(&b->from, &a->from);
}

static enum cw_err join_letters(const struct letter *a, const struct letter *b,
                                struct cw_buf *out) {
    cw_buf_init(out, &check_mem, NULL, 0);
    enum cw_err err =
        cw_fragment_join(&check_mem, cw_bytes(a->p, a->n), cw_bytes(b->p, b->n), SIZE_MAX, out);
    CHECK(err == (connect(a, b) ? CW_OK : CW_EGAP));
    return err;
}

static struct letter copy_letter(const struct letter *l) {
    struct letter copy = *l;
    copy.p = malloc(l->n);
    memcpy(copy.p, l->p, l->n);
    return copy;
}

/* Tries a letter on whoever has seen what it builds on, as it may be right for most. */
static void show_all(struct world *w, const struct letter *l) {
    for (size_t i = 0; i < REPLICAS + KEPT; i++) {
        const struct cw_doc *doc = i < REPLICAS ? w->docs[i] : w->kept[i - REPLICAS];
        struct cut have = doc ? doc_cut(doc) : l->from;
        if (doc && cut_contains(&have, &l->from) && !cut_contains(&have, &l->to))
            cw_doc_free(world_apply(w, doc, l));
    }
}

static void step_join(struct world *w) {
    const struct letter *x = world_any_letter(w), *y = world_any_letter(w);
    struct cw_buf ab, ba;
    if (!x || !y)
        return;
    struct cut from = cut_meet(&x->from, &y->from), to = cut_join(&x->to, &y->to);
    enum cw_err err = join_letters(x, y, &ab);
    CHECK(err == join_letters(y, x, &ba));
    if (!err) {
        CHECK(cw_bytes_eq(cw_buf_slice(&ab, 0), cw_buf_slice(&ba, 0)));
        const struct letter *l = world_post(w, &ab);
        CHECK(cut_equal(&l->from, &from) && cut_equal(&l->to, &to));
        show_all(w, l);
    }
    cw_buf_free(&ab);
    cw_buf_free(&ba);
}

/* (x + y) + z, posted; false when something is missing in between. */
static bool post_three(struct world *w, const struct letter *x, const struct letter *y,
                       const struct letter *z, struct letter *out) {
    struct cw_buf xy, xyz;
    bool good = join_letters(x, y, &xy) == CW_OK;
    if (good) {
        struct letter l = copy_letter(world_post(w, &xy));
        good = join_letters(&l, z, &xyz) == CW_OK;
        if (good)
            *out = copy_letter(world_post(w, &xyz));
        cw_buf_free(&xyz);
        free(l.p);
    }
    cw_buf_free(&xy);
    return good;
}

static void step_associativity(struct world *w) {
    struct letter at[3], left = {0}, right = {0};
    for (int i = 0; i < 3; i++) {
        const struct letter *l = world_any_letter(w);
        if (!l) {
            while (i-- > 0)
                free(at[i].p);
            return;
        }
        at[i] = copy_letter(l);
    }
    if (post_three(w, &at[0], &at[1], &at[2], &left) &&
        post_three(w, &at[1], &at[2], &at[0], &right)) {
        CHECK(left.n == right.n && memcmp(left.p, right.p, left.n) == 0);
        show_all(w, &left);
    }
    free(left.p);
    free(right.p);
    for (int i = 0; i < 3; i++)
        free(at[i].p);
}

/* ---- life ---- */

static void step_fork(struct world *w) {
    int r = (int)check_below(REPLICAS);
    struct cw_doc *doc;
    struct cw_doc *from = world_any_old(w);
    if (w->docs[r])
        return;
    struct cut cut = doc_cut(from);
    for (size_t i = 0; i < w->truths_n; i++)
        CHECK(w->truths[i].cut.seen[r] == 0); /* a name is not used a second time */
    CHECK_OK(cw_doc_fork(from, term_replica(r), &doc));
    struct cut forked = doc_cut(doc);
    CHECK(cut_equal(&cut, &forked));
    world_check(w, doc);
    w->docs[r] = doc;
}

/* From somebody who has seen all that it wrote. */
static void step_resume(struct world *w) {
    int r = world_alive(w);
    const struct cw_doc *from = world_any_old(w);
    struct cut mine = doc_cut(w->docs[r]), theirs = doc_cut(from);
    struct cw_doc *doc;
    if (mine.seen[r] > theirs.seen[r])
        return;
    CHECK_OK(cw_doc_fork(from, term_replica(r), &doc));
    world_become(w, r, doc);
}

/* From its own bytes alone, without memory of what it was before. */
static void step_restart(struct world *w) {
    int r = world_alive(w);
    struct cw_bytes state = doc_state(w->docs[r]);
    struct cw_doc *empty = cw_doc_new(&check_mem, term_replica(r)), *doc;
    struct cw_fault fault;
    CHECK_OK(cw_doc_apply(empty, state, SIZE_MAX, &doc, &fault));
    cw_doc_free(empty);
    free((void *)state.p);
    world_become(w, r, doc);
}

static void step_forget(struct world *w) {
    size_t i = check_below(KEPT);
    cw_doc_free(w->kept[i]);
    w->kept[i] = NULL;
}

/* ---- changes ---- */

/* Whether two views differ in what is alive of one object, or one element of a set. */
static bool differs(const struct view *x, const struct view *y, const struct object *o,
                    int element) {
    const struct view *both[] = {x, y};
    for (int side = 0; side < 2; side++)
        for (size_t i = 0; i < both[side]->n; i++) {
            const struct act *a = both[side]->at[i];
            const struct view *other = both[!side];
            bool found = !object_equal(&a->wish.on, o) || (element >= 0 && a->wish.arg != element);
            for (size_t k = 0; k < other->n && !found; k++)
                found = other->at[k] == a;
            if (!found)
                return true;
        }
    return false;
}

/* Whether a counter's value, or anybody's part in it, differs. */
static bool counts_differ(const struct view *x, const struct view *y, const struct object *o) {
    bool differ = view_cells(x, o) != view_cells(y, o);
    for (int r = 0; r < REPLICAS; r++)
        differ |= view_rights(x, o, r) != view_rights(y, o, r);
    return differ;
}

static bool is_listed(const struct cw_changes *ch, const struct object *o, int element) {
    struct cw_buf key;
    struct cw_bytes e = element >= 0 ? term_element(element) : cw_bytes("", 0);
    bool listed = false;
    cw_buf_init(&key, &cw_mem_std, NULL, 0);
    object_key(o, &key);
    for (size_t i = 0; i < ch->n && !listed; i++)
        listed = cw_bytes_eq(ch->at[i].object, cw_buf_slice(&key, 0)) &&
                 ch->at[i].kind == o->kind && cw_bytes_eq(ch->at[i].element, e);
    cw_buf_free(&key);
    return listed;
}

static void check_listed(const struct cw_changes *ch, const struct view *x, const struct view *y,
                         const struct object *o) {
    if (cw_kind_is_set(o->kind)) {
        for (int e = 0; e < 14; e++)
            CHECK(is_listed(ch, o, e) == differs(x, y, o, e));
    } else if (cw_kind_is_counter(o->kind)) {
        CHECK(is_listed(ch, o, -1) || !counts_differ(x, y, o)); /* receipts may come and go */
    } else if (o->kind && !cw_kind_is_map(o->kind)) {
        CHECK(is_listed(ch, o, -1) == differs(x, y, o, -1));
    }
}

static void check_order(const struct cw_changes *ch) {
    for (size_t i = 1; i < ch->n; i++) {
        int c = cw_bytes_cmp(ch->at[i - 1].object, ch->at[i].object);
        CHECK(c < 0 || (c == 0 && cw_bytes_cmp(ch->at[i - 1].element, ch->at[i].element) < 0));
    }
}

static void step_changes(struct world *w) {
    const struct cw_doc *a = world_any_old(w), *b = world_any_old(w);
    struct cut ca = doc_cut(a), cb = doc_cut(b);
    struct cw_changes ch;
    struct view x, y;
    CHECK_OK(cw_doc_changes(a, b, SIZE_MAX, &ch));
    check_order(&ch);
    view_open(&x, &w->model, &ca);
    view_open(&y, &w->model, &cb);
    for (size_t i = 0; i < w->model.objects_n; i++)
        check_listed(&ch, &x, &y, &w->model.objects[i]);
    view_close(&x);
    view_close(&y);
    cw_changes_free(&ch);
}

/* ---- schedules ---- */

static void step_update(struct world *w) {
    world_update_randomly(w, world_alive(w));
}

/* What happens beside updates, and how often. */
static const struct {
    int share;
    void (*run)(struct world *w);
} steps[] = {
    {10, step_merge},        {5, step_merge_old},  {6, step_laws},         {1, step_budget},
    {12, step_delta},        {8, step_post_delta}, {5, step_post_between}, {5, step_post_halves},
    {1, step_post_state},    {15, step_arrival},   {5, step_old_arrival},  {14, step_join},
    {4, step_associativity}, {3, step_fork},       {1, step_restart},      {1, step_resume},
    {1, step_forget},        {3, step_changes},
};

static void random_step(struct world *w) {
    int at = (int)check_below(100);
    if ((int)check_below(100) < w->theme.updates) {
        step_update(w);
        return;
    }
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        at -= steps[i].share;
        if (at < 0) {
            world_tell("-- step %zu\n", i);
            steps[i].run(w);
            return;
        }
    }
}

/* All meet, twice over a write of everybody: they are equal, and no receipt is left. */
static void meet(struct world *w) {
    for (int round = 0; round < 2; round++)
        for (int r = 0; r < REPLICAS; r++)
            for (int other = 0; other < REPLICAS; other++)
                if (w->docs[r] && w->docs[other] && r != other)
                    world_become(w, r, merged(w->docs[r], w->docs[other]));
    struct cut cut = doc_cut(world_any(w));
    for (int r = 0; r < REPLICAS; r++) {
        struct cut mine = w->docs[r] ? doc_cut(w->docs[r]) : cut;
        CHECK(cut_equal(&cut, &mine));
    }
}

static void settle(struct world *w) {
    struct wish tick = {.verb = CW_ENABLE};
    tick.on.place = (struct place){1, {{CW_MAP, 4}}};
    meet(w);
    for (int r = 0; r < REPLICAS; r++)
        if (w->docs[r])
            world_update(w, r, &tick, 1);
    meet(w);
    CHECK(doc_receipts(world_any(w)) == 0);
}

static void run_world(const struct theme *theme, int n) {
    struct world w;
    world_open(&w, 2 + (int)check_below(4), theme);
    for (int i = 0; i < n; i++)
        random_step(&w);
    settle(&w);
    world_close(&w);
}

static void test_schedules(void) {
    for (int i = 0; i < check_rounds(1500); i++) {
        struct theme theme = random_theme();
        run_world(&theme, 150);
    }
}

static void test_one_object(void) {
    for (int i = 0; i < check_rounds(1800); i++) {
        struct theme theme = random_theme();
        theme.objects_n = 1;
        theme.objects[0].kind = model_kinds[2 + i % MODEL_LEAVES];
        theme.removals = 10 + (int)check_below(50);
        run_world(&theme, 100);
    }
}

static void test_skewed_clocks(void) {
    for (int i = 0; i < check_rounds(400); i++) {
        struct theme theme = random_theme();
        for (int k = 0; k < theme.objects_n; k++)
            theme.objects[k].kind = check_below(2) ? CW_REGISTER : CW_REGISTER_MULTI;
        theme.skewed = true;
        run_world(&theme, 120);
    }
}

/* Long elements: documents forget what they changed, and give all they have instead. */
static void test_short_memories(void) {
    for (int i = 0; i < check_rounds(20); i++) {
        struct theme theme = random_theme();
        for (int k = 0; k < theme.objects_n; k++)
            theme.objects[k].kind = CW_SET;
        theme.bulky = true;
        theme.updates = 70;
        theme.batch = 1 + (int)check_below(8);
        run_world(&theme, 200);
    }
}

/* More operations in one write, and more cells under one removal, than are collected at a time. */
static void large_batch(struct world *w, int r) {
    struct wish wishes[180];
    size_t n = 100 + check_below(80);
    for (size_t i = 0; i < n; i++) {
        wishes[i] = (struct wish){.verb = check_below(5) ? CW_ADD : CW_REMOVE};
        wishes[i].on = (struct object){{2, {{CW_MAP, 1}, {CW_MAP, (int)check_below(2)}}}, CW_SET};
        wishes[i].arg = (int)check_below(220);
        if (check_below(150) == 0) {
            wishes[i].verb = CW_DELETE;
            wishes[i].on.place.n = 1;
            wishes[i].on.kind = CW_KIND_NONE;
        }
    }
    world_update(w, r, wishes, n);
}

static void test_large_batches(void) {
    for (int i = 0; i < check_rounds(10); i++) {
        struct theme theme = random_theme();
        struct world w;
        world_open(&w, 2, &theme);
        for (int k = 0; k < 5; k++) {
            large_batch(&w, world_alive(&w));
            step_merge(&w);
            step_delta(&w);
            step_changes(&w);
        }
        world_close(&w);
    }
}

int main(int argc, char **argv) {
    static const struct check_test tests[] = {
        {"schedules", test_schedules},         {"one object", test_one_object},
        {"skewed clocks", test_skewed_clocks}, {"short memories", test_short_memories},
        {"large batches", test_large_batches},
    };
    return check_main(argc, argv, "doc_laws", tests, sizeof tests / sizeof tests[0]);
}
