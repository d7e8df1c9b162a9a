/* The journal beside a model that forgets nothing: what it remembers is right, it remembers enough,
 * and it takes no more than it should. */
#include <stdlib.h>
#include <string.h>

#include "../../c_src/core/cw_journal.h"
#include "check.h"

#define REPLICAS 4
#define VERSIONS 12

/* ---- the model ---- */

struct node { /* one entry; those before it, of this and other versions */
    struct node *parent;
    struct node *made; /* all there are, to be freed */
    struct cw_span spans[REPLICAS];
    size_t n;
    bool net;
    size_t touched;
    struct cw_bytes touches;
};

struct version {
    struct cw_journal journal;
    uint64_t at[REPLICAS];   /* what it has seen */
    uint64_t base[REPLICAS]; /* what it had seen when it last forgot everything */
    struct node *last;       /* since then */
};

static struct cw_name *names[REPLICAS]; /* by id */
static struct node *made;

static void open_names(void) {
    for (int i = 0; i < REPLICAS; i++) {
        uint8_t bytes[] = {0x50, (uint8_t)('a' + i), 0};
        struct cw_name *name = cw_name_new(&check_mem, cw_bytes(bytes, sizeof bytes));
        int at = i;
        for (; at > 0 && names[at - 1]->id > name->id; at--)
            names[at] = names[at - 1];
        names[at] = name;
    }
}

static void close_names(void) {
    for (int i = 0; i < REPLICAS; i++)
        cw_name_release(names[i]);
}

static struct cw_vv *vv_of(const uint64_t *at) {
    struct cw_vv *vv = cw_vv_new(&check_mem, REPLICAS);
    for (uint32_t i = 0; i < REPLICAS; i++)
        if (at[i])
            vv->at[vv->n++] = (struct cw_vv_entry){names[i]->id, at[i], cw_name_retain(names[i])};
    return vv;
}

static size_t size_of(const struct node *nd) {
    return 12 + 24 * nd->n + nd->touches.n;
}

static uint64_t news_in(const struct node *nd, const uint64_t *since, bool *split) {
    uint64_t news = 0;
    *split = false;
    for (size_t k = 0; k < nd->n; k++)
        for (int i = 0; i < REPLICAS; i++) {
            if (names[i]->id != nd->spans[k].id)
                continue;
            uint64_t from = since[i] > nd->spans[k].from ? since[i] : nd->spans[k].from;
            news += nd->spans[k].to > from ? nd->spans[k].to - from : 0;
            *split |= since[i] > nd->spans[k].from;
        }
    return news;
}

static void free_nodes(void) {
    for (struct node *next; made; made = next) {
        next = made->made;
        free((void *)made->touches.p);
        free(made);
    }
}

/* ---- adding ---- */

static void put_touches(struct node *nd, size_t most) {
    struct cw_buf buf;
    cw_buf_init(&buf, &cw_mem_std, NULL, 0);
    cw_buf_reserve(&buf, 1); /* so that there is something to free */
    nd->touched = check_below(4);
    for (size_t i = 0; i < nd->touched; i++) {
        static uint8_t key[4096];
        cw_store64le(key, check_random());
        cw_touch(&buf, cw_bytes(key, 1 + check_below(most)), check_below(2));
    }
    nd->touches = cw_buf_slice(&buf, 0);
}

/* An own write of `self`, or what several wrote and came together. */
static struct node *random_node(struct version *v, int self, size_t most) {
    struct node *nd = calloc(1, sizeof *nd);
    bool alone = check_below(4) > 0;
    nd->made = made;
    made = nd;
    nd->net = !alone && check_below(2);
    for (int i = 0; i < REPLICAS; i++) {
        uint64_t more = alone ? i == self : check_below(4);
        if (!more)
            continue;
        nd->spans[nd->n++] = (struct cw_span){names[i]->id, v->at[i], v->at[i] + more};
        v->at[i] += more;
    }
    put_touches(nd, most);
    return nd;
}

static void forget(struct version *v) {
    memcpy(v->base, v->at, sizeof v->at);
    v->last = NULL;
}

/* `fail`: once in a while there is no memory. */
static void add(struct version *v, int self, size_t limit, size_t most, bool fail) {
    uint64_t before[REPLICAS], own = v->at[self];
    memcpy(before, v->at, sizeof before);
    before[self] -= check_below(2) ? check_below(own + 1) : 0; /* the vector may lag behind */
    struct cw_vv *vv = vv_of(before);
    struct cw_context cx = {vv, NULL, names[self]->id, own};
    struct node *nd = random_node(v, self, most);
    fail = fail && check_below(200) == 0;
    check_mem_fail_after(fail ? (long)check_below(2) : -1);
    cw_journal_add(&v->journal, &check_mem, limit, &cx, nd->spans, nd->n, nd->touches, nd->net);
    check_mem_fail_after(-1);
    cw_vv_release(vv);
    if (size_of(nd) > limit / 2 || (fail && !v->journal.pages)) {
        CHECK(!v->journal.pages);
        forget(v);
    } else {
        CHECK(v->journal.pages);
        nd->parent = v->last;
        v->last = nd;
    }
}

/* ---- asking ---- */

/* What should be touched, into `touches`, and how deep one has to look. False when that is not to
 * be known. */
static bool expect(const struct version *v, const uint64_t *since, struct cw_buf *touches,
                   bool *net, size_t *count, size_t *depth) {
    uint64_t news = 0;
    *net = false;
    *count = *depth = 0;
    for (int i = 0; i < REPLICAS; i++) {
        news += v->at[i] - since[i];
        if (since[i] < v->base[i])
            return false;
    }
    for (const struct node *nd = v->last; news; nd = nd->parent) {
        bool split;
        uint64_t n = news_in(nd, since, &split);
        *depth += size_of(nd);
        if (!n)
            continue;
        if (nd->net && split)
            return false;
        *net |= nd->net;
        *count += nd->touched;
        cw_buf_bytes(touches, nd->touches);
        news -= n;
    }
    return true;
}

/* Some time ago; seldom before what the version knows. */
static void random_since(const struct version *v, uint64_t *since) {
    uint64_t most = UINT64_C(1) << check_below(12);
    for (int i = 0; i < REPLICAS; i++) {
        uint64_t low = check_below(8) ? v->base[i] : 0, back = check_below(most);
        since[i] = v->at[i] - low > back ? v->at[i] - back : low;
    }
}

static enum cw_err ask(const struct version *v, const uint64_t *since, size_t budget,
                       struct cw_buf *touches, bool *net) {
    uint64_t news = 0;
    struct cw_vv *vv = vv_of(since);
    for (int i = 0; i < REPLICAS; i++)
        news += v->at[i] - since[i];
    touches->n = 0;
    enum cw_err err = cw_journal_since(&v->journal, vv, news, budget, touches, net);
    cw_vv_release(vv);
    return err;
}

/* `enough`: so many bytes at least are remembered. */
static void check_since(const struct version *v, size_t enough) {
    uint64_t since[REPLICAS];
    struct cw_buf want, got;
    size_t count, depth;
    bool net, got_net = false;
    random_since(v, since);
    cw_buf_init(&want, &check_mem, NULL, 0);
    cw_buf_init(&got, &check_mem, NULL, 0);
    bool known = expect(v, since, &want, &net, &count, &depth);
    enum cw_err err = ask(v, since, SIZE_MAX, &got, &got_net);
    CHECK(err == CW_OK || err == CW_EGAP);
    if (v->journal.pages) {
        CHECK(err ? !known || depth > enough : known);
    } else {
        CHECK(err && (!known || depth == 0));
    }
    if (!err) {
        CHECK(net == got_net && cw_bytes_eq(cw_buf_slice(&want, 0), cw_buf_slice(&got, 0)));
        CHECK_OK(ask(v, since, count, &got, &got_net));
        CHECK(count == 0 || ask(v, since, count - 1, &got, &got_net) == CW_EBUDGET);
    }
    cw_buf_free(&want);
    cw_buf_free(&got);
}

/* ---- versions that branch ---- */

static struct version branch(const struct version *v) {
    struct version copy = *v;
    copy.journal = cw_journal_retain(&v->journal);
    return copy;
}

/* Lines of versions, each of which goes on from one before, or from another line's. */
static void run(size_t limit, size_t most, size_t enough, int steps) {
    struct version all[VERSIONS] = {{{NULL, 0}, {0}, {0}, NULL}};
    for (int i = 0; i < steps; i++) {
        size_t from = check_below(VERSIONS), to = check_below(8) ? from : check_below(VERSIONS);
        int self = (int)check_below(REPLICAS);
        struct version next = branch(&all[from]);
        if (check_below(6) == 0) { /* what comes of the same version is not seen there */
            struct version other = branch(&next);
            add(&other, self, limit, most, true);
            check_since(&other, enough);
            cw_journal_release(&other.journal);
        }
        add(&next, self, limit, most, true);
        cw_journal_release(&all[to].journal);
        all[to] = next;
        check_since(&next, enough);
        check_since(&all[check_below(VERSIONS)], enough);
        CHECK(cw_journal_bytes(&next.journal) < 4 * limit);
    }
    for (int i = 0; i < VERSIONS; i++)
        cw_journal_release(&all[i].journal);
    free_nodes();
}

static void test_small_entries(void) {
    open_names();
    for (int i = 0; i < check_rounds(10); i++)
        run(1u << (12 + check_below(4)), 40, 1u << 11, 3000);
    close_names();
}

/* Some that take pages of their own, and some that are too large. */
static void test_large_entries(void) {
    open_names();
    for (int i = 0; i < check_rounds(10); i++)
        run(1u << (11 + check_below(3)), 1000, 0, 2000);
    close_names();
}

/* A version that goes on from one that has a successor copies part of a page, and shares the rest.
 */
static void test_branches_share(void) {
    const size_t limit = 1u << 20;
    struct version v = {{NULL, 0}, {0}, {0}, NULL}, *many;
    open_names();
    for (int i = 0; i < 20000; i++)
        add(&v, 0, limit, 40, false);
    size_t bytes = cw_journal_bytes(&v.journal), live = check_mem_live();
    CHECK(bytes > limit / 2);
    many = calloc(100, sizeof *many);
    for (int i = 0; i < 100; i++) {
        many[i] = branch(&v);
        add(&many[i], 0, limit, 40, false);
        check_since(&many[i], limit / 2);
    }
    CHECK(check_mem_live() <= live + 3 * 100); /* a page, its vector, a list */
    cw_journal_release(&v.journal);
    for (int i = 0; i < 100; i++) {
        check_since(&many[i], limit / 2);
        cw_journal_release(&many[i].journal);
    }
    free(many);
    free_nodes();
    close_names();
}

int main(int argc, char **argv) {
    static const struct check_test tests[] = {
        {"small entries", test_small_entries},
        {"large entries", test_large_entries},
        {"branches share", test_branches_share},
    };
    return check_main(argc, argv, "journal", tests, sizeof tests / sizeof tests[0]);
}
