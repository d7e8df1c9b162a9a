/* Documents: the bytes drive what replicas write, send, lose and repeat. Whatever happens, in the
 * end they know the same and are the same, byte for byte. */
#include "fuzz.h"

#define DOCS 3
#define MAIL 4
#define STEPS 150
#define OPS 3
#define PATH 3

/* ---- choices ---- */

struct input {
    const uint8_t *p;
    size_t n;
};

static uint8_t byte(struct input *in) {
    return in->n ? (in->n--, *in->p++) : 0;
}

static size_t choose(struct input *in, size_t n) {
    return byte(in) % n;
}

/* ---- the world ---- */

struct world {
    struct cw_doc *docs[DOCS];
    struct cw_doc *old[DOCS]; /* an earlier version of the same */
    struct cw_buf mail[MAIL];
    unsigned names;
    uint64_t now;
};

static void replace(struct cw_doc **at, struct cw_doc *doc) {
    cw_doc_free(*at);
    *at = doc;
}

static struct cw_doc *merge(const struct cw_doc *a, const struct cw_doc *b) {
    struct cw_doc *to;
    CHECK_OK(cw_doc_merge(a, b, SIZE_MAX, &to));
    return to;
}

static void delta(const struct cw_doc *doc, const struct cw_doc *since, struct cw_buf *out) {
    struct cw_vv *clock;
    CHECK_OK(cw_doc_clock(since, &clock));
    cw_buf_free(out);
    CHECK_OK(cw_doc_delta(doc, clock, SIZE_MAX, out));
    CHECK(fuzz_fragment_good(cw_buf_slice(out, 0)));
    cw_vv_release(clock);
}

/* Fragments of honest replicas are never refused but for a gap. */
static struct cw_doc *apply(const struct cw_doc *doc, const struct cw_buf *mail) {
    struct cw_doc *to = NULL;
    struct cw_fault fault = {.op = 0};
    enum cw_err err = cw_doc_apply(doc, cw_buf_slice(mail, 0), SIZE_MAX, &to, &fault);
    CHECK(err == CW_OK || err == CW_EGAP);
    cw_name_release(fault.replica);
    return to;
}

/* ---- one write ---- */

static const enum cw_kind kinds[] = {CW_KIND_NONE,
#define X(NAME, tag, name, class) CW_##NAME,
                                     CW_KIND_LIST(X)
#undef X
};

static const struct {
    const char *s;
    size_t n;
} words[] = {{"a", 1}, {"a\0b", 3}, {"b", 1}, {"\xff", 1}, {"", 0}, {"a\x01", 2}};

#define SPACE 512

static struct cw_bytes choose_term(struct input *in, enum cw_encoding enc, uint8_t *space) {
    struct cw_buf buf;
    static const uint8_t zeros[300];
    cw_buf_init(&buf, &check_mem, space, SPACE);
    size_t k = choose(in, 10);
    if (k < 6)
        cw_put_string(&buf, enc, CW_T_BINARY, cw_bytes(words[k].s, words[k].n));
    else if (k == 6)
        cw_put_string(&buf, enc, CW_T_BINARY, cw_bytes(zeros, enc == CW_KEY ? 200 : 300));
    else
        cw_put_int(&buf, enc, (int64_t)byte(in) - 128);
    CHECK(buf.p == space && !buf.err);
    return cw_buf_slice(&buf, 0);
}

static struct cw_bytes replica_name(unsigned i, uint8_t *space) {
    struct cw_buf buf;
    char s[16];
    int n = snprintf(s, sizeof s, "%u", i);
    cw_buf_init(&buf, &check_mem, space, SPACE);
    cw_put_string(&buf, CW_KEY, CW_T_ATOM, cw_bytes(s, (size_t)n));
    return cw_buf_slice(&buf, 0);
}

struct written {
    struct cw_step steps[PATH];
    uint8_t fields[PATH][SPACE];
    uint8_t arg[SPACE];
};

static void choose_op(struct input *in, const struct world *w, struct cw_op *op,
                      struct written *space) {
    *op = (struct cw_op){.verb = (enum cw_verb)choose(in, CW_DELETE + 1), .path = space->steps};
    op->kind = byte(in) & 1 ? kinds[choose(in, sizeof kinds / sizeof kinds[0])] : CW_KIND_NONE;
    op->path_len = 1 + choose(in, PATH);
    for (size_t i = 0; i < op->path_len; i++) {
        space->steps[i].field = choose_term(in, CW_KEY, space->fields[i]);
        space->steps[i].map = i ? kinds[choose(in, 3)] : CW_KIND_NONE;
    }
    op->amount = byte(in);
    if (op->amount > 250) /* sums over 64 bits */
        op->amount = CW_AMOUNT_MAX - (255 - op->amount);
    if (op->verb == CW_TRANSFER)
        op->arg = replica_name(byte(in) % (w->names + 1), space->arg);
    else
        op->arg = choose_term(in, op->verb == CW_PUT ? CW_VALUE : CW_KEY, space->arg);
}

static void update(struct input *in, struct world *w, size_t r) {
    static struct written space[OPS];
    struct cw_op ops[OPS];
    struct cw_doc *to = NULL;
    struct cw_fault fault = {.op = 0};
    size_t n = 1 + choose(in, OPS);
    for (size_t i = 0; i < n; i++)
        choose_op(in, w, &ops[i], &space[i]);
    w->now += byte(in) % 3;
    enum cw_err err = cw_doc_update(w->docs[r], ops, n, w->now, &to, &fault);
    CHECK((err == CW_OK) == (to != NULL));
    CHECK(!err || err == CW_EKIND || err == CW_EOP || err == CW_ERANGE || err == CW_ERIGHTS ||
          err == CW_EPATH || err == CW_ELIMIT);
    if (to)
        replace(&w->docs[r], to);
}

/* ---- between replicas ---- */

/* A delta does what merging the states does. */
static void meet(struct world *w, size_t r, size_t s, bool by_delta) {
    struct cw_buf d = fuzz_buf();
    struct cw_doc *merged = merge(w->docs[r], w->docs[s]);
    delta(w->docs[s], w->docs[r], &d);
    struct cw_doc *applied = apply(w->docs[r], &d);
    CHECK(applied && fuzz_same(applied, merged));
    cw_buf_free(&d);
    cw_doc_free(by_delta ? merged : applied);
    replace(&w->docs[r], by_delta ? applied : merged);
}

static void receive(struct world *w, size_t r, const struct cw_buf *mail) {
    struct cw_doc *to = mail->n ? apply(w->docs[r], mail) : NULL;
    if (to)
        replace(&w->docs[r], to);
}

/* The join of two fragments does what both do, one after the other. */
static void join(struct world *w, size_t r, size_t k, size_t l) {
    struct cw_buf joined = fuzz_buf();
    if (!w->mail[k].n || !w->mail[l].n)
        return;
    enum cw_err err = cw_fragment_join(&check_mem, cw_buf_slice(&w->mail[k], 0),
                                       cw_buf_slice(&w->mail[l], 0), SIZE_MAX, &joined);
    CHECK(err == CW_OK || err == CW_EGAP);
    struct cw_doc *one = err ? NULL : apply(w->docs[r], &w->mail[k]);
    struct cw_doc *two = one ? apply(one, &w->mail[l]) : NULL;
    if (two) {
        CHECK(fuzz_fragment_good(cw_buf_slice(&joined, 0)));
        struct cw_doc *both = apply(w->docs[r], &joined);
        CHECK(both && fuzz_same(both, two));
        cw_doc_free(both);
    }
    cw_doc_free(one);
    cw_doc_free(two);
    if (err) {
        cw_buf_free(&joined);
        return;
    }
    cw_buf_free(&w->mail[k]);
    w->mail[k] = joined;
}

/* Starts again from the bytes of its state; what it remembered of its changes is lost. */
static void restart(struct world *w, size_t r) {
    struct cw_buf state = fuzz_buf();
    const struct cw_name *name = cw_doc_replica(w->docs[r]);
    CHECK_OK(cw_doc_encode(w->docs[r], &state));
    struct cw_doc *empty = cw_doc_new(&check_mem, cw_name_bytes(name));
    struct cw_doc *doc = apply(empty, &state);
    CHECK(doc && fuzz_same(doc, w->docs[r]));
    replace(&w->docs[r], doc);
    cw_doc_free(empty);
    cw_buf_free(&state);
}

static void rename_replica(struct world *w, size_t r) {
    uint8_t space[SPACE];
    struct cw_doc *doc;
    CHECK_OK(cw_doc_fork(w->docs[r], replica_name(w->names++, space), &doc));
    CHECK(fuzz_same(doc, w->docs[r]));
    replace(&w->docs[r], doc);
}

static void keep(struct world *w, size_t r) {
    replace(&w->old[r], merge(w->docs[r], w->docs[r])); /* a copy */
}

static void send_change(struct world *w, size_t r, struct cw_buf *mail) {
    if (!w->old[r])
        return;
    cw_buf_free(mail);
    CHECK_OK(cw_doc_delta_between(w->old[r], w->docs[r], SIZE_MAX, mail));
    struct cw_doc *again = apply(w->old[r], mail);
    CHECK(again && fuzz_same(again, w->docs[r]));
    cw_doc_free(again);
}

static void step(struct input *in, struct world *w) {
    size_t what = choose(in, 14), r = choose(in, DOCS), s = (r + 1 + choose(in, DOCS - 1)) % DOCS;
    size_t k = what < 6 ? 0 : choose(in, MAIL);
    switch (what) {
    case 6:
        meet(w, r, s, k & 1);
        break;
    case 7:
        delta(w->docs[r], w->docs[s], &w->mail[k]);
        break;
    case 8:
        receive(w, r, &w->mail[k]);
        break;
    case 9:
        join(w, r, k, (k + 1) % MAIL);
        break;
    case 10:
        keep(w, r);
        break;
    case 11:
        send_change(w, r, &w->mail[k]);
        break;
    case 12:
        restart(w, r);
        break;
    case 13:
        rename_replica(w, r);
        break;
    default:
        update(in, w, r);
    }
}

/* ---- the end ---- */

static void converge(struct world *w) {
    struct cw_buf state = fuzz_buf();
    struct cw_doc *all = merge(w->docs[0], w->docs[1]);
    replace(&all, merge(all, w->docs[2]));
    fuzz_doc_check(all, &state);
    fuzz_doc_find(all);
    for (size_t r = 0; r < DOCS; r++) {
        for (size_t i = 1; i < DOCS; i++)
            replace(&w->docs[r], merge(w->docs[r], w->docs[(r + i) % DOCS]));
        CHECK(fuzz_same(w->docs[r], all));
    }
    for (size_t k = 0; k < MAIL; k++) { /* nothing is news */
        struct cw_doc *again = w->mail[k].n ? apply(all, &w->mail[k]) : NULL;
        CHECK(!w->mail[k].n || (again && fuzz_same(again, all)));
        cw_doc_free(again);
    }
    cw_doc_free(all);
    cw_buf_free(&state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct input in = {data, size};
    struct world w = {.now = 1000};
    uint8_t space[SPACE];
    for (; w.names < DOCS; w.names++)
        CHECK((w.docs[w.names] = cw_doc_new(&check_mem, replica_name(w.names, space))));
    for (size_t k = 0; k < MAIL; k++)
        w.mail[k] = fuzz_buf();
    for (int i = 0; i < STEPS && in.n; i++)
        step(&in, &w);
    converge(&w);
    for (size_t r = 0; r < DOCS; r++) {
        cw_doc_free(w.docs[r]);
        cw_doc_free(w.old[r]);
    }
    for (size_t k = 0; k < MAIL; k++)
        cw_buf_free(&w.mail[k]);
    CHECK(check_mem_live() == 0);
    return 0;
}
