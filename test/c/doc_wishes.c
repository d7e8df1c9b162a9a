#include "doc_wishes.h"

#include "check.h"

/* ---- terms ---- */

void spell(struct spelled *s, const struct wish *wish) {
    const struct place *p = &wish->on.place;
    for (int i = 0; i < p->n; i++)
        s->path[i] = (struct cw_step){term_field(p->at[i].field), p->at[i].map};
    s->op = (struct cw_op){.verb = wish->verb,
                           .kind = wish->on.kind,
                           .path = s->path,
                           .path_len = (size_t)p->n,
                           .amount = wish->amount};
    if (wish->verb == CW_PUT)
        s->op.arg = term_value(wish->arg, s->value);
    else if (wish->verb == CW_TRANSFER)
        s->op.arg = term_replica(wish->arg);
    else if (wish->verb == CW_ADD || wish->verb == CW_REMOVE)
        s->op.arg = term_element(wish->arg);
}

/* ---- themes ---- */

static struct place random_place(void) {
    struct place p = {.n = 1 + (int)check_below(MODEL_DEPTH)};
    for (int i = 0; i < p.n; i++) {
        p.at[i].map = i > 0 && check_below(4) == 0 ? CW_MAP_GROW : CW_MAP;
        p.at[i].field = (int)check_below(i == 0 ? 3 : FIELDS);
    }
    return p;
}

struct theme random_theme(void) {
    struct theme t = {.objects_n = 1 + (int)check_below(OBJECTS), .elements = 4, .batch = 1};
    for (int i = 0; i < t.objects_n; i++) {
        bool shared = i > 0 && check_below(4) == 0; /* two kinds at one place */
        t.objects[i].place = shared ? t.objects[i - 1].place : random_place();
        t.objects[i].kind = model_kinds[2 + check_below(MODEL_LEAVES)];
    }
    if (check_below(4) == 0)
        t.elements = 14;
    t.batch = check_below(2) ? 1 : 2 + (int)check_below(6);
    t.removals = (int)check_below(50);
    t.lazy = check_below(2) ? 0 : 50 + (int)check_below(50);
    t.updates = 30 + (int)check_below(50);
    return t;
}

/* ---- operations ---- */

static enum cw_verb random_verb(enum cw_kind kind, int removals) {
    bool removal = (int)check_below(100) < removals;
    if (cw_kind_is_set(kind))
        return removal && kind != CW_SET_GROW ? CW_REMOVE : CW_ADD;
    if (kind == CW_COUNTER_BOUNDED && check_below(4) == 0)
        return CW_TRANSFER;
    if (cw_kind_is_counter(kind))
        return removal && check_below(4) == 0 ? CW_RESET
               : check_below(2)               ? CW_INCREMENT
                                              : CW_DECREMENT;
    if (kind == CW_REGISTER || kind == CW_REGISTER_MULTI)
        return CW_PUT;
    return removal ? CW_DISABLE : CW_ENABLE;
}

static uint64_t random_amount(void) {
    return check_below(20) ? check_below(8) : check_below(UINT64_C(1) << 50);
}

/* Leaves out what can be left out, and says something unfitting now and then. */
static void blur(struct wish *wish) {
    for (int i = 0; i < wish->on.place.n; i++)
        if (check_below(2))
            wish->on.place.at[i].map = CW_KIND_NONE;
    if (check_below(2))
        wish->on.kind = CW_KIND_NONE;
    if (check_below(40) == 0)
        wish->on.kind = model_kinds[check_below(MODEL_KINDS)];
    if (wish->on.place.n > 1 && check_below(40) == 0)
        wish->on.place.at[1].map = check_below(2) ? CW_MAP_GROW : CW_MAP;
}

static int random_arg(struct theme *t, enum cw_verb verb) {
    if (verb == CW_PUT)
        return t->serial++;
    if (verb == CW_TRANSFER)
        return (int)check_below(REPLICAS);
    if (t->bulky && check_below(2))
        return LONG_ELEMENTS + (int)check_below(ELEMENTS - LONG_ELEMENTS);
    return (int)check_below((uint64_t)t->elements);
}

struct wish random_wish(struct theme *t) {
    struct wish wish = {.amount = random_amount()};
    wish.on = t->objects[check_below((uint64_t)t->objects_n)];
    wish.verb = random_verb(wish.on.kind, t->removals);
    wish.arg = random_arg(t, wish.verb);
    if ((int)check_below(300) < t->removals) {
        wish.verb = CW_DELETE;
        wish.on.place.n = 1 + (int)check_below((uint64_t)wish.on.place.n);
    }
    blur(&wish);
    return wish;
}
