#include "doc_world.h"

#include <stdarg.h>
#include <stdlib.h>

#include "../../c_src/core/cw_fragment.h"
#include "check.h"
#include "doc_dump.h"

#define BATCH_MAX 320

/* ---- traces ---- */

void world_tell(const char *format, ...) {
    va_list args;
    if (!getenv("CW_TRACE"))
        return;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
}

static void tell_cut(const char *what, const struct cut *cut) {
    world_tell("%s", what);
    for (int i = 0; i < REPLICAS; i++)
        if (cut->seen[i])
            world_tell(" %d:%llu", i, (unsigned long long)cut->seen[i]);
    world_tell("\n");
}

static void tell_wish(const struct wish *wish) {
    static const char *const verbs[] = {"put",    "increment", "decrement", "transfer", "add",
                                        "remove", "enable",    "disable",   "reset",    "delete"};
    world_tell("    %s", verbs[wish->verb]);
    for (int i = 0; i < wish->on.place.n; i++)
        world_tell(" %x/%d", wish->on.place.at[i].map, wish->on.place.at[i].field);
    world_tell(" kind %x arg %d amount %llu\n", wish->on.kind, wish->arg,
               (unsigned long long)wish->amount);
}

/* ---- life ---- */

void world_open(struct world *w, int replicas, const struct theme *theme) {
    *w = (struct world){.theme = *theme, .now_ms = 1000};
    for (int i = 0; i < replicas; i++) {
        int r = (int)check_below(REPLICAS);
        while (w->docs[r])
            r = (r + 1) % REPLICAS;
        w->docs[r] = cw_doc_new(&check_mem, term_replica(r));
    }
}

/* From a random one on, so that versions die in any order. */
void world_close(struct world *w) {
    size_t from = check_below(KEPT);
    for (size_t i = 0; i < KEPT; i++)
        cw_doc_free(w->kept[(from + i) % KEPT]);
    for (int i = REPLICAS; i-- > 0;)
        cw_doc_free(w->docs[i]);
    for (size_t i = 0; i < LETTERS; i++)
        free(w->letters[i].p);
    for (size_t i = 0; i < w->truths_n; i++)
        free((void *)w->truths[i].state.p);
    free(w->truths);
    model_free(&w->model);
}

/* ---- looking ---- */

struct cut doc_cut(const struct cw_doc *doc) {
    struct cw_vv *vv;
    struct cut cut = {{0}};
    CHECK_OK(cw_doc_clock(doc, &vv));
    for (uint32_t i = 0; i < vv->n; i++) {
        int r = term_replica_of(vv->at[i].id);
        CHECK(r >= 0 && vv->at[i].counter > 0);
        CHECK(cw_bytes_eq(cw_name_bytes(vv->at[i].name), term_replica(r)));
        cut.seen[r] = vv->at[i].counter;
    }
    cw_vv_release(vv);
    return cut;
}

struct cw_bytes doc_state(const struct cw_doc *doc) {
    struct cw_buf buf;
    cw_buf_init(&buf, &cw_mem_std, NULL, 0);
    CHECK_OK(cw_doc_encode(doc, &buf));
    return cw_buf_slice(&buf, 0);
}

uint64_t doc_receipts(const struct cw_doc *doc) {
    struct cw_bytes hi = cw_bytes("\x02", 1);
    return cw_tree_range(cw_doc_tree(doc), cw_bytes("\x01", 1), &hi).count;
}

static int doc_self(const struct cw_doc *doc) {
    return term_replica_of(cw_doc_replica(doc)->id);
}

struct look {
    const struct cw_doc *doc;
    struct view view;
    struct cw_buf key;
    struct cw_buf dump;
    struct cw_buf expect;
};

static void check_dump(struct look *l, struct cw_bytes key, const struct object *o) {
    l->dump.n = l->expect.n = 0;
    CHECK_OK(dump_object(l->doc, key, o->kind, &l->dump));
    view_dump(&l->view, o, &l->expect);
    CHECK(cw_bytes_eq(cw_buf_slice(&l->dump, 0), cw_buf_slice(&l->expect, 0)));
}

static void check_rights(struct look *l, struct cw_bytes key, const struct object *o) {
    uint64_t here, elsewhere;
    int self = doc_self(l->doc);
    int64_t rights = view_rights(&l->view, o, self);
    CHECK_OK(cw_doc_rights(l->doc, key, &here, &elsewhere));
    CHECK(here == (uint64_t)(rights > 0 ? rights : 0));
    CHECK(elsewhere == (uint64_t)view_rights_but(&l->view, o, self));
}

static void check_elements(struct look *l, struct cw_bytes key, const struct object *o) {
    for (int e = 0; e < 14; e++)
        CHECK(cw_doc_has_element(l->doc, key, o->kind, term_element(e)) ==
              view_has(&l->view, o, e));
}

static void check_object(struct look *l, const struct object *o) {
    object_key(o, &l->key);
    struct cw_bytes key = cw_buf_slice(&l->key, 0);
    CHECK(cw_doc_cells(l->doc, key) == view_cells(&l->view, o));
    if (!view_exists(&l->view, o))
        return;
    check_dump(l, key, o);
    if (o->kind == CW_COUNTER_BOUNDED)
        check_rights(l, key, o);
    if (cw_kind_is_set(o->kind))
        check_elements(l, key, o);
}

/* The object that a reader finds at a path; its kind is 0 when none is there. */
static struct object expected_find(const struct view *v, const struct place *path,
                                   enum cw_kind want) {
    struct object o = {.kind = CW_MAP};
    for (int i = 0; i < path->n; i++) {
        if (!cw_kind_is_map(o.kind))
            return (struct object){.kind = CW_KIND_NONE};
        o.place.at[o.place.n++] = (struct place_step){o.kind, path->at[i].field};
        o.kind = view_first_kind(v, &o.place);
    }
    if (want) {
        o.kind = want;
        if (!view_exists(v, &o))
            o.kind = CW_KIND_NONE;
    }
    return o;
}

static void check_find(struct look *l, const struct place *path, enum cw_kind want) {
    struct cw_bytes fields[MODEL_DEPTH];
    struct object o = expected_find(&l->view, path, want);
    struct cw_buf expect;
    enum cw_kind kind;
    for (int i = 0; i < path->n; i++)
        fields[i] = term_field(path->at[i].field);
    bool found = cw_doc_find(l->doc, fields, (size_t)path->n, want, &l->key, &kind);
    CHECK(found == (o.kind != CW_KIND_NONE));
    if (!found)
        return;
    cw_buf_init(&expect, &cw_mem_std, NULL, 0);
    object_key(&o, &expect);
    CHECK(kind == o.kind && cw_bytes_eq(cw_buf_slice(&l->key, 0), cw_buf_slice(&expect, 0)));
    cw_buf_free(&expect);
}

static void check_finds(struct look *l, const struct model *m) {
    for (size_t i = 0; i < m->objects_n; i++) {
        const struct object *o = &m->objects[i];
        check_find(l, &o->place, CW_KIND_NONE);
        check_find(l, &o->place, o->kind);
        check_find(l, &o->place, model_kinds[check_below(MODEL_KINDS)]);
    }
}

static void check_against_model(const struct world *w, const struct cw_doc *doc,
                                const struct cut *cut) {
    struct look l = {.doc = doc};
    struct object all = {.kind = CW_MAP};
    cw_buf_init(&l.key, &cw_mem_std, NULL, 0);
    cw_buf_init(&l.dump, &cw_mem_std, NULL, 0);
    cw_buf_init(&l.expect, &cw_mem_std, NULL, 0);
    view_open(&l.view, &w->model, cut);
    CHECK(cw_tree_count(cw_doc_tree(doc)) == view_cells(&l.view, &all) + doc_receipts(doc));
    check_dump(&l, cw_bytes("\x10", 1), &all);
    for (size_t i = 0; i < w->model.objects_n; i++)
        check_object(&l, &w->model.objects[i]);
    check_finds(&l, &w->model);
    view_close(&l.view);
    cw_buf_free(&l.key);
    cw_buf_free(&l.dump);
    cw_buf_free(&l.expect);
}

/* ---- equal knowledge, equal bytes ---- */

/* Reading back what was written gives the same again. */
static void check_decode(const struct cw_doc *doc, struct cw_bytes state) {
    struct cw_doc *empty = cw_doc_new(&check_mem, cw_name_bytes(cw_doc_replica(doc))), *again;
    struct cw_fault fault;
    CHECK_OK(cw_doc_apply(empty, state, SIZE_MAX, &again, &fault));
    struct cw_bytes bytes = doc_state(again);
    CHECK(cw_bytes_eq(bytes, state));
    CHECK(cw_hash_eq(cw_doc_hash(again), cw_doc_hash(doc)));
    free((void *)bytes.p);
    cw_doc_free(empty);
    cw_doc_free(again);
}

static const struct truth *find_truth(const struct world *w, const struct cut *cut) {
    for (size_t i = w->truths_n; i-- > 0;)
        if (cut_equal(&w->truths[i].cut, cut))
            return &w->truths[i];
    return NULL;
}

static void add_truth(struct world *w, const struct cw_doc *doc, const struct cut *cut,
                      struct cw_bytes state) {
    w->truths = realloc(w->truths, (w->truths_n + 1) * sizeof *w->truths);
    w->truths[w->truths_n++] = (struct truth){*cut, cw_doc_hash(doc), state};
}

void world_check(struct world *w, const struct cw_doc *doc) {
    struct cut cut = doc_cut(doc);
    struct cw_bytes state = doc_state(doc);
    const char *fault = cw_tree_check(cw_doc_tree(doc));
    if (fault)
        check_failed(__FILE__, __LINE__, fault);
    const struct truth *truth = find_truth(w, &cut);
    if (!truth || check_below(4) == 0)
        check_against_model(w, doc, &cut);
    if (!truth) {
        check_decode(doc, state);
        add_truth(w, doc, &cut, state);
        return;
    }
    CHECK(cw_hash_eq(truth->hash, cw_doc_hash(doc)));
    CHECK(cw_bytes_eq(truth->state, state));
    free((void *)state.p);
}

int world_alive(struct world *w) {
    int r = (int)check_below(REPLICAS);
    while (!w->docs[r])
        r = (r + 1) % REPLICAS;
    return r;
}

struct cw_doc *world_any(struct world *w) {
    return w->docs[world_alive(w)];
}

struct cw_doc *world_any_old(struct world *w) {
    struct cw_doc *doc = w->kept[check_below(KEPT)];
    return doc && check_below(3) ? doc : world_any(w);
}

/* ---- changing ---- */

static void become(struct world *w, int r, struct cw_doc *doc, bool look) {
    struct cw_doc *old = w->docs[r];
    struct cut cut = doc_cut(doc);
    world_tell("%d", r);
    tell_cut(" is at", &cut);
    if (look)
        world_check(w, doc);
    w->docs[r] = doc;
    if (check_below(3) == 0) {
        size_t i = check_below(KEPT);
        cw_doc_free(w->kept[i]);
        w->kept[i] = old;
    } else {
        cw_doc_free(old);
    }
}

void world_become(struct world *w, int r, struct cw_doc *doc) {
    become(w, r, doc, true);
}

static uint64_t random_clock(struct world *w) {
    static const uint64_t walls[] = {0, 1, 1000, 1u << 20, UINT64_C(1) << 40, UINT64_C(1) << 45};
    w->now_ms += 1 + check_below(1000);
    return w->theme.skewed ? walls[check_below(6)] + check_below(3) : w->now_ms;
}

static enum cw_err run_model(struct world *w, const struct event *ev, const struct wish *wishes,
                             size_t n, struct cw_fault *fault) {
    enum cw_err err = CW_OK;
    model_begin(&w->model);
    for (size_t i = 0; i < n && !err; i++) {
        fault->op = i;
        err = model_run(&w->model, ev, &wishes[i], fault);
    }
    return err;
}

static void check_fault(enum cw_err err, const struct cw_fault *have, const struct cw_fault *want) {
    CHECK(have->op == want->op);
    CHECK(err != CW_EKIND || (have->field == want->field && have->have == want->have));
    CHECK((err != CW_EKIND && err != CW_EOP) || have->want == want->want);
    CHECK(err != CW_ERIGHTS || (have->here == want->here && have->elsewhere == want->elsewhere));
}

/* Whether the event at hand leaves or overrides anything. */
static bool makes_a_difference(const struct world *w, const struct event *ev) {
    struct cut after = ev->known;
    struct view x, y;
    after.seen[ev->replica]++;
    view_open(&x, &w->model, &ev->known);
    view_open(&y, &w->model, &after);
    bool differ = x.n != y.n;
    for (size_t i = 0; i < x.n && !differ; i++)
        differ = x.at[i] != y.at[i];
    view_close(&x);
    view_close(&y);
    return differ;
}

/* The stamp a write gave to its registers; 0 when it left none. To look is to bring what is pending
 * into the tree. */
static uint64_t stamp_of(const struct world *w, const struct cw_doc *doc, const struct event *ev) {
    uint64_t stamp = 0;
    struct cw_buf key;
    cw_buf_init(&key, &cw_mem_std, NULL, 0);
    for (size_t i = w->model.event; i < w->model.n && !stamp; i++) {
        const struct act *a = &w->model.at[i];
        struct cw_bytes cell;
        struct cw_entry e;
        object_key(&a->wish.on, &key);
        if (a->wish.verb != CW_PUT || !cw_tree_get(cw_doc_tree(doc), cw_buf_slice(&key, 0), &cell))
            continue;
        while (cw_entry_next(CW_VALUES, &cell, &e))
            if (e.dot.id == term_replica_id(ev->replica) &&
                e.dot.counter == ev->known.seen[ev->replica] + 1)
                stamp = e.hlc;
    }
    cw_buf_free(&key);
    return stamp;
}

/* A stamp is above all stamps that can be seen from where it is given. */
static void check_stamp(const struct world *w, const struct event *ev, uint64_t stamp,
                        uint64_t now_ms) {
    struct view v;
    view_open(&v, &w->model, &ev->known);
    for (size_t i = 0; i < v.n; i++)
        CHECK(v.at[i]->wish.verb != CW_PUT || v.at[i]->stamp < stamp);
    view_close(&v);
    CHECK(w->theme.skewed ? stamp >= now_ms << 16 : stamp == now_ms << 16);
}

/* `doc` is what the event at hand made, or did not. */
static void accept(struct world *w, const struct event *ev, struct cw_doc *doc, uint64_t now_ms,
                   size_t ops, bool look) {
    struct cut cut = doc_cut(doc), after = ev->known;
    after.seen[ev->replica]++;
    bool wrote = makes_a_difference(w, ev);
    if (cut_equal(&cut, &ev->known)) {
        CHECK(!wrote);
        model_undo(&w->model);
        return;
    }
    CHECK(cut_equal(&cut, &after));
    if (!wrote) /* of several that cancel out, what they settle stays */
        CHECK(ops > 1 && doc_receipts(w->docs[ev->replica]) > 0);
    uint64_t stamp = look || w->theme.skewed ? stamp_of(w, doc, ev) : 0;
    if (stamp)
        check_stamp(w, ev, stamp, now_ms);
    model_stamp(&w->model, stamp ? stamp : now_ms << 16);
}

void world_update(struct world *w, int r, const struct wish *wishes, size_t n) {
    static struct spelled spelled[BATCH_MAX];
    struct cw_op ops[BATCH_MAX];
    struct cw_fault fault = {0}, expect = {0};
    struct cw_doc *doc = NULL;
    struct event ev = {r, doc_cut(w->docs[r])};
    uint64_t now_ms = random_clock(w);
    CHECK(n <= BATCH_MAX);
    world_tell("update by %d", r);
    tell_cut(", has seen", &ev.known);
    for (size_t i = 0; i < n; i++) {
        tell_wish(&wishes[i]);
        spell(&spelled[i], &wishes[i]);
        ops[i] = spelled[i].op;
    }
    enum cw_err want = run_model(w, &ev, wishes, n, &expect);
    enum cw_err err = cw_doc_update(w->docs[r], ops, n, now_ms, &doc, &fault);
    if (err != want)
        check_failed_code(__FILE__, __LINE__, "an update that must give another code", (int)err);
    bool look = (int)check_below(100) >= w->theme.lazy;
    if (!err) {
        accept(w, &ev, doc, now_ms, n, look);
        become(w, r, doc, look);
        return;
    }
    CHECK(!doc);
    check_fault(err, &fault, &expect);
    model_undo(&w->model);
    if (look)
        world_check(w, w->docs[r]);
}

void world_update_randomly(struct world *w, int r) {
    struct wish wishes[16];
    size_t n = 1 + check_below((uint64_t)w->theme.batch);
    for (size_t i = 0; i < n; i++)
        wishes[i] = random_wish(&w->theme);
    world_update(w, r, wishes, n);
}

/* ---- letters ---- */

static struct cut vv_cut(const struct cw_vv *vv) {
    struct cut cut = {{0}};
    for (uint32_t i = 0; i < vv->n; i++)
        cut.seen[term_replica_of(vv->at[i].id)] = vv->at[i].counter;
    return cut;
}

struct letter *world_post(struct world *w, const struct cw_buf *fragment) {
    struct letter *l = &w->letters[w->posted++ % LETTERS];
    struct cw_fragment f;
    free(l->p);
    l->p = malloc(fragment->n);
    l->n = fragment->n;
    memcpy(l->p, fragment->p, fragment->n);
    CHECK_OK(cw_fragment_read(&f, &check_mem, SIZE_MAX, cw_bytes(l->p, l->n)));
    l->from = vv_cut(f.from);
    l->to = vv_cut(f.to);
    l->net = f.net;
    cw_fragment_free(&f);
    return l;
}

const struct letter *world_any_letter(struct world *w) {
    size_t age = check_below(2) ? check_below(3) : check_below(LETTERS);
    const struct letter *l = &w->letters[(w->posted + LETTERS - 1 - age) % LETTERS];
    return l->p ? l : NULL;
}

static void check_gap(const struct cut *have, const struct cut *from, struct cw_fault *fault) {
    int r = term_replica_of(fault->replica->id);
    CHECK(r >= 0 && have->seen[r] < from->seen[r]);
    CHECK(fault->seen == have->seen[r] && fault->needed == from->seen[r]);
    cw_name_release(fault->replica);
}

struct cw_doc *world_apply(struct world *w, const struct cw_doc *doc, const struct letter *l) {
    struct cut have = doc_cut(doc);
    struct cw_fault fault = {0};
    struct cw_doc *out = NULL;
    tell_cut(l->net ? "apply, net, from" : "apply, exact, from", &l->from);
    tell_cut("    to", &l->to);
    tell_cut("    at", &have);
    enum cw_err err = cw_doc_apply(doc, cw_bytes(l->p, l->n), SIZE_MAX, &out, &fault);
    if (!cut_contains(&have, &l->from)) {
        CHECK(err == CW_EGAP && !out);
        check_gap(&have, &l->from, &fault);
        world_check(w, doc);
        return NULL;
    }
    CHECK_OK(err);
    struct cut after = doc_cut(out), all = cut_join(&have, &l->to);
    CHECK(cut_equal(&after, &all));
    world_check(w, out);
    return out;
}
