#include "doc_model.h"

#include <stdlib.h>

#include "check.h"
#include "doc_dump.h"

const enum cw_kind model_kinds[] = {
#define X(NAME, tag, name, class) CW_##NAME,
    CW_KIND_LIST(X)
#undef X
};

/* ---- cuts ---- */

bool cut_contains(const struct cut *big, const struct cut *small) {
    for (int i = 0; i < REPLICAS; i++)
        if (small->seen[i] > big->seen[i])
            return false;
    return true;
}

bool cut_equal(const struct cut *a, const struct cut *b) {
    return cut_contains(a, b) && cut_contains(b, a);
}

struct cut cut_join(const struct cut *a, const struct cut *b) {
    struct cut c = *a;
    for (int i = 0; i < REPLICAS; i++)
        if (b->seen[i] > c.seen[i])
            c.seen[i] = b->seen[i];
    return c;
}

struct cut cut_meet(const struct cut *a, const struct cut *b) {
    struct cut c = *a;
    for (int i = 0; i < REPLICAS; i++)
        if (b->seen[i] < c.seen[i])
            c.seen[i] = b->seen[i];
    return c;
}

/* ---- places and objects ---- */

static bool place_begins(const struct place *p, const struct place *with) {
    if (p->n < with->n)
        return false;
    for (int i = 0; i < with->n; i++)
        if (p->at[i].map != with->at[i].map || p->at[i].field != with->at[i].field)
            return false;
    return true;
}

bool object_equal(const struct object *a, const struct object *b) {
    return a->kind == b->kind && a->place.n == b->place.n && place_begins(&a->place, &b->place);
}

/* Whether `o` is the object or inside it; kind 0 is whatever is at the place. */
static bool object_within(const struct object *o, const struct object *outer) {
    if (!place_begins(&o->place, &outer->place))
        return false;
    int n = outer->place.n;
    enum cw_kind next = o->place.n > n ? o->place.at[n].map : o->kind;
    return !outer->kind || outer->kind == next;
}

void object_key(const struct object *o, struct cw_buf *key) {
    key->n = 0;
    for (int i = 0; i < o->place.n; i++) {
        cw_buf_byte(key, (uint8_t)o->place.at[i].map);
        cw_buf_bytes(key, term_field(o->place.at[i].field));
    }
    cw_buf_byte(key, (uint8_t)o->kind);
}

/* ---- verbs ---- */

enum cw_kind model_usual_kind(enum cw_verb verb) {
    static const enum cw_kind usual[] = {
        [CW_PUT] = CW_REGISTER,      [CW_INCREMENT] = CW_COUNTER,
        [CW_DECREMENT] = CW_COUNTER, [CW_TRANSFER] = CW_COUNTER_BOUNDED,
        [CW_ADD] = CW_SET,           [CW_REMOVE] = CW_SET,
        [CW_ENABLE] = CW_FLAG,       [CW_DISABLE] = CW_FLAG,
        [CW_RESET] = CW_COUNTER,     [CW_DELETE] = CW_KIND_NONE,
    };
    return usual[verb];
}

static bool fits(enum cw_verb verb, enum cw_kind kind) {
    if (verb == CW_DELETE)
        return true;
    if (verb == CW_TRANSFER)
        return kind == CW_COUNTER_BOUNDED;
    enum cw_class class = cw_kind_class(kind);
    enum cw_kind usual = model_usual_kind(verb);
    return class == cw_kind_class(usual) && cw_kind_is_set(kind) == cw_kind_is_set(usual);
}

static bool is_count(const struct act *a) {
    return a->wish.verb == CW_INCREMENT || a->wish.verb == CW_DECREMENT ||
           a->wish.verb == CW_TRANSFER;
}

static bool is_negative(const struct act *a) {
    return a->wish.verb == CW_REMOVE || a->wish.verb == CW_DISABLE;
}

/* Removing leaves nothing but where removes win. */
static bool leaves_something(const struct act *a) {
    if (a->wish.verb == CW_DELETE || a->wish.verb == CW_RESET)
        return false;
    return !is_negative(a) || cw_kind_has_marks(a->wish.on.kind);
}

/* ---- alive ---- */

static bool in_cut(const struct cut *cut, const struct act *a) {
    return a->counter <= cut->seen[a->replica];
}

/* Whether who did `b` had seen `a`, which was made before. */
static bool saw(const struct act *b, const struct act *a) {
    bool together = a->replica == b->replica && a->counter == b->counter;
    return together || in_cut(&b->known, a);
}

static bool overrides(const struct act *b, const struct act *a) {
    if (b->wish.verb == CW_DELETE || b->wish.verb == CW_RESET)
        return object_within(&a->wish.on, &b->wish.on);
    if (is_count(b) || !object_equal(&a->wish.on, &b->wish.on))
        return false;
    return !cw_kind_is_set(a->wish.on.kind) || a->wish.arg == b->wish.arg;
}

static bool is_alive(const struct model *m, const struct cut *cut, size_t i) {
    const struct act *a = &m->at[i];
    if (!in_cut(cut, a))
        return false;
    for (size_t k = i + 1; k < m->n; k++)
        if (in_cut(cut, &m->at[k]) && overrides(&m->at[k], a) && saw(&m->at[k], a))
            return false;
    return true;
}

void view_open(struct view *v, const struct model *m, const struct cut *cut) {
    v->at = malloc((m->n + 1) * sizeof *v->at);
    v->n = 0;
    for (size_t i = 0; i < m->n; i++)
        if (leaves_something(&m->at[i]) && is_alive(m, cut, i))
            v->at[v->n++] = &m->at[i];
}

void view_close(struct view *v) {
    free(v->at);
}

/* ---- what is there ---- */

bool view_exists(const struct view *v, const struct object *o) {
    for (size_t i = 0; i < v->n; i++)
        if (object_within(&v->at[i]->wish.on, o))
            return true;
    return false;
}

enum cw_kind view_first_kind(const struct view *v, const struct place *place) {
    struct object o = {.place = *place};
    for (size_t i = 0; i < MODEL_KINDS; i++) {
        o.kind = model_kinds[i];
        if (view_exists(v, &o))
            return o.kind;
    }
    return CW_KIND_NONE;
}

/* Whether two acts alive are in one cell. */
static bool share_cell(const struct act *a, const struct act *b) {
    if (!object_equal(&a->wish.on, &b->wish.on))
        return false;
    if (is_count(a))
        return a->replica == b->replica;
    return !cw_kind_is_set(a->wish.on.kind) || a->wish.arg == b->wish.arg;
}

uint64_t view_cells(const struct view *v, const struct object *o) {
    uint64_t n = 0;
    for (size_t i = 0; i < v->n; i++) {
        bool first = object_within(&v->at[i]->wish.on, o);
        for (size_t k = 0; k < i && first; k++)
            first = !share_cell(v->at[k], v->at[i]);
        n += first;
    }
    return n;
}

static bool is_on(const struct view *v, const struct object *o, int element) {
    bool on = false;
    for (size_t i = 0; i < v->n; i++) {
        const struct act *a = v->at[i];
        if (!object_equal(&a->wish.on, o) || (element >= 0 && a->wish.arg != element))
            continue;
        if (is_negative(a))
            return false;
        on = true;
    }
    return on;
}

bool view_has(const struct view *v, const struct object *set, int element) {
    return is_on(v, set, element);
}

int64_t view_counter(const struct view *v, const struct object *o) {
    int64_t sum = 0;
    for (size_t i = 0; i < v->n; i++) {
        const struct wish *w = &v->at[i]->wish;
        if (object_equal(&w->on, o))
            sum += w->verb == CW_INCREMENT ? (int64_t)w->amount : -(int64_t)w->amount;
    }
    return sum;
}

int64_t view_rights(const struct view *v, const struct object *o, int replica) {
    int64_t sum = 0;
    for (size_t i = 0; i < v->n; i++) {
        const struct wish *w = &v->at[i]->wish;
        if (!object_equal(&w->on, o))
            continue;
        if (v->at[i]->replica == replica)
            sum += w->verb == CW_INCREMENT ? (int64_t)w->amount : -(int64_t)w->amount;
        if (w->verb == CW_TRANSFER && w->arg == replica)
            sum += (int64_t)w->amount;
    }
    return sum;
}

int64_t view_rights_but(const struct view *v, const struct object *o, int replica) {
    int64_t sum = 0;
    for (int i = 0; i < REPLICAS; i++) {
        int64_t rights = view_rights(v, o, i);
        sum += i != replica && rights > 0 ? rights : 0;
    }
    return sum;
}

/* ---- dumps ---- */

static int cmp_elements(const void *x, const void *y) {
    return cw_bytes_cmp(term_element(*(const int *)x), term_element(*(const int *)y));
}

static void dump_set(const struct view *v, const struct object *o, struct cw_buf *out) {
    int *elements = malloc((v->n + 1) * sizeof *elements);
    size_t n = 0;
    for (size_t i = 0; i < v->n; i++)
        if (object_equal(&v->at[i]->wish.on, o) && is_on(v, o, v->at[i]->wish.arg))
            elements[n++] = v->at[i]->wish.arg;
    qsort(elements, n, sizeof *elements, cmp_elements);
    dump_kind(out, 'B', o->kind);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || elements[i] != elements[i - 1])
            dump_bytes(out, 'e', term_element(elements[i]));
    dump_kind(out, 'E', o->kind);
    free(elements);
}

static void dump_value(const struct act *a, struct cw_buf *out) {
    uint8_t space[TERM_VALUE_MAX];
    dump_bytes(out, 'v', term_value(a->wish.arg, space));
}

static void dump_register(const struct view *v, const struct object *o, struct cw_buf *out) {
    const struct act *last = NULL;
    for (size_t i = 0; i < v->n; i++) {
        const struct act *a = v->at[i];
        if (object_equal(&a->wish.on, o) &&
            (!last || a->stamp > last->stamp ||
             (a->stamp == last->stamp &&
              term_replica_id(a->replica) > term_replica_id(last->replica))))
            last = a;
    }
    dump_value(last, out);
}

static int cmp_dots(const void *x, const void *y) {
    const struct act *a = *(const struct act *const *)x, *b = *(const struct act *const *)y;
    return cw_dot_cmp((struct cw_dot){term_replica_id(a->replica), a->counter},
                      (struct cw_dot){term_replica_id(b->replica), b->counter});
}

static void dump_values(const struct view *v, const struct object *o, struct cw_buf *out) {
    const struct act **at = malloc((v->n + 1) * sizeof *at);
    size_t n = 0;
    for (size_t i = 0; i < v->n; i++)
        if (object_equal(&v->at[i]->wish.on, o))
            at[n++] = v->at[i];
    qsort(at, n, sizeof *at, cmp_dots);
    dump_kind(out, 'B', o->kind);
    for (size_t i = 0; i < n; i++)
        dump_value(at[i], out);
    dump_kind(out, 'E', o->kind);
    free(at);
}

static struct cw_wide wide(int64_t v) {
    return (struct cw_wide){(uint64_t)v, v < 0 ? UINT64_MAX : 0};
}

/* A field shows the first of its kinds. */
static void dump_map(const struct view *v, const struct object *o, struct cw_buf *out) {
    struct object in = {.place = o->place};
    struct place_step *step = &in.place.at[in.place.n++];
    step->map = o->kind;
    dump_kind(out, 'B', o->kind);
    for (step->field = 0; step->field < FIELDS; step->field++) {
        in.kind = view_first_kind(v, &in.place);
        if (!in.kind)
            continue;
        dump_bytes(out, 'F', term_field(step->field));
        view_dump(v, &in, out);
    }
    dump_kind(out, 'E', o->kind);
}

void view_dump(const struct view *v, const struct object *o, struct cw_buf *out) {
    if (cw_kind_is_map(o->kind))
        dump_map(v, o, out);
    else if (cw_kind_is_set(o->kind))
        dump_set(v, o, out);
    else if (o->kind == CW_COUNTER)
        dump_counter(out, wide(view_counter(v, o)));
    else if (o->kind == CW_COUNTER_BOUNDED)
        dump_counter(out, wide(view_rights_but(v, o, -1)));
    else if (o->kind == CW_REGISTER)
        dump_register(v, o, out);
    else if (o->kind == CW_REGISTER_MULTI)
        dump_values(v, o, out);
    else
        dump_flag(out, is_on(v, o, -1));
}

/* ---- events ---- */

static void note_object(struct model *m, const struct object *o) {
    if (!o->kind)
        return;
    for (size_t i = 0; i < m->objects_n; i++)
        if (object_equal(&m->objects[i], o))
            return;
    m->objects = realloc(m->objects, (m->objects_n + 1) * sizeof *m->objects);
    m->objects[m->objects_n++] = *o;
}

static void append(struct model *m, const struct event *ev, const struct wish *wish) {
    if (m->n == m->cap) {
        m->cap = m->cap ? 2 * m->cap : 64;
        m->at = realloc(m->at, m->cap * sizeof *m->at);
    }
    m->at[m->n++] = (struct act){.wish = *wish,
                                 .replica = ev->replica,
                                 .counter = ev->known.seen[ev->replica] + 1,
                                 .known = ev->known};
    note_object(m, &wish->on);
}

void model_begin(struct model *m) {
    m->event = m->n;
}

void model_undo(struct model *m) {
    m->n = m->event;
}

void model_stamp(struct model *m, uint64_t stamp) {
    for (size_t i = m->event; i < m->n; i++)
        m->at[i].stamp = stamp;
}

void model_free(struct model *m) {
    free(m->at);
    free(m->objects);
    *m = (struct model){.n = 0};
}

/* What is meant by `want` at a place: a kind that is there, or, when nothing is, `usual`. */
static enum cw_err choose(const struct view *v, const struct place *place, enum cw_kind want,
                          enum cw_kind usual, bool (*fit)(enum cw_verb, enum cw_kind),
                          enum cw_verb verb, enum cw_kind *kind, struct cw_fault *fault) {
    enum cw_kind have = view_first_kind(v, place);
    *kind = want ? want : usual;
    if (!have)
        return CW_OK;
    struct object o = {.place = *place};
    for (size_t i = 0; i < MODEL_KINDS; i++) {
        o.kind = model_kinds[i];
        if ((want ? o.kind == want : fit(verb, o.kind)) && view_exists(v, &o)) {
            *kind = o.kind;
            return CW_OK;
        }
    }
    fault->have = have;
    fault->want = *kind;
    fault->field = (size_t)place->n;
    return CW_EKIND;
}

static bool is_map(enum cw_verb verb, enum cw_kind kind) {
    (void)verb;
    return cw_kind_is_map(kind);
}

static enum cw_err resolve_place(const struct view *v, const struct place *asked,
                                 struct place *place, struct cw_fault *fault) {
    *place = (struct place){.n = 0};
    for (int i = 0; i < asked->n; i++) {
        enum cw_kind map = CW_MAP;
        enum cw_err err = CW_OK;
        if (i > 0)
            err = choose(v, place, asked->at[i].map, CW_MAP, is_map, CW_PUT, &map, fault);
        if (err)
            return err;
        place->at[place->n++] = (struct place_step){map, asked->at[i].field};
    }
    return CW_OK;
}

/* Spending and giving need rights. Debt, from a removal that crossed a spending, is forgiven first.
 */
static enum cw_err run_bounded(struct model *m, const struct event *ev, const struct view *v,
                               const struct wish *wish, struct cw_fault *fault) {
    int64_t here = view_rights(v, &wish->on, ev->replica), debt = here < 0 ? -here : 0;
    here += debt;
    if (wish->verb != CW_INCREMENT && wish->amount > (uint64_t)here) {
        fault->here = (uint64_t)here;
        fault->elsewhere = (uint64_t)view_rights_but(v, &wish->on, ev->replica);
        return CW_ERIGHTS;
    }
    struct wish forgive = {CW_INCREMENT, wish->on, 0, (uint64_t)debt};
    if (debt)
        append(m, ev, &forgive);
    if (wish->verb != CW_TRANSFER || wish->arg != ev->replica)
        append(m, ev, wish);
    return CW_OK;
}

static enum cw_err run_delete(struct model *m, const struct event *ev, const struct view *v,
                              struct wish wish, struct cw_fault *fault) {
    struct place place;
    enum cw_err err = resolve_place(v, &wish.on.place, &place, fault);
    if (err)
        return err;
    if (place.at[place.n - 1].map == CW_MAP_GROW) {
        fault->want = CW_MAP_GROW;
        return CW_EOP;
    }
    wish.on.place = place;
    append(m, ev, &wish);
    return CW_OK;
}

static enum cw_err run(struct model *m, const struct event *ev, const struct view *v,
                       struct wish wish, struct cw_fault *fault) {
    struct object o;
    enum cw_kind want = wish.on.kind, usual = model_usual_kind(wish.verb);
    if (wish.verb == CW_DELETE)
        return run_delete(m, ev, v, wish, fault);
    if (want && !fits(wish.verb, want)) {
        fault->want = want;
        return CW_EOP;
    }
    enum cw_err err = resolve_place(v, &wish.on.place, &o.place, fault);
    if (!err)
        err = choose(v, &o.place, want, usual, fits, wish.verb, &o.kind, fault);
    if (err)
        return err;
    wish.on = o;
    if (wish.verb == CW_REMOVE && o.kind == CW_SET_GROW) {
        fault->want = CW_SET_GROW;
        return CW_EOP;
    }
    if (o.kind == CW_COUNTER_BOUNDED && wish.verb != CW_RESET)
        return run_bounded(m, ev, v, &wish, fault);
    append(m, ev, &wish);
    return CW_OK;
}

enum cw_err model_run(struct model *m, const struct event *ev, const struct wish *wish,
                      struct cw_fault *fault) {
    struct cut now = ev->known; /* with the acts before of this event */
    struct view v;
    now.seen[ev->replica]++;
    view_open(&v, m, &now);
    enum cw_err err = run(m, ev, &v, *wish, fault);
    view_close(&v);
    return err;
}
