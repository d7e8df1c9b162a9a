/* The golden files in test/vectors, which Elixir and JavaScript read as well. With --write the
 * files are made anew: only for a new version of the format, or to add some; files of old releases
 * stay.
 *
 * good/manifest.tsv: name, type, base, expected, what it is. The file is good/<name>.bin.
 * `expected` is term_key, term_value   the term in Erlang's syntax clock                  a map
 * from names to counters, in Erlang's syntax fragment               the content hash, 32 digits, of
 * the document it makes when it is applied to an empty one, or to the one that the file `base`
 * makes bad/manifest.tsv: name, type, the error's name, what it is. */
#include <stdarg.h>
#include <sys/stat.h>

#include "../../c_src/core/cw_clock.h"
#include "../../c_src/core/cw_fragment.h"
#include "small_doc.h"
#include "terms.h"

#define ROWS 160
#define TEXT 512

struct row {
    char name[48];
    char type[16];
    char base[48]; /* good */
    char expected[TEXT];
    char what[96];
    struct cw_buf bytes;
};

struct table {
    struct row at[ROWS];
    size_t n;
};

static const char *folder(void) {
    const char *env = getenv("CW_VECTORS");
    return env ? env : "test/vectors";
}

static struct cw_buf new_buf(void) {
    struct cw_buf buf;
    cw_buf_init(&buf, &check_mem, NULL, 0);
    return buf;
}

static struct row *add(struct table *t, const char *name, const char *type, const char *what) {
    CHECK(t->n < ROWS);
    struct row *row = &t->at[t->n++];
    memset(row, 0, sizeof *row);
    snprintf(row->name, sizeof row->name, "%s", name);
    snprintf(row->type, sizeof row->type, "%s", type);
    snprintf(row->base, sizeof row->base, "-");
    snprintf(row->what, sizeof row->what, "%s", what);
    row->bytes = new_buf();
    return row;
}

static void free_table(struct table *t) {
    for (size_t i = 0; i < t->n; i++)
        cw_buf_free(&t->at[i].bytes);
    t->n = 0;
}

/* ---- terms in Erlang's syntax ---- */

struct text {
    char *p;
    size_t n;
};

static void put(struct text *to, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(to->p + to->n, TEXT - to->n, format, args);
    va_end(args);
    CHECK(n >= 0 && to->n + (size_t)n < TEXT);
    to->n += (size_t)n;
}

static void put_quoted(struct text *to, char quote, const struct term *t) {
    put(to, "%c", quote);
    for (size_t i = 0; i < t->n; i++) {
        char c = (char)t->s[i];
        put(to, t->s[i] < 0x20 || c == quote || c == '\\' ? "\\x{%x}" : "%c", t->s[i]);
    }
    put(to, "%c", quote);
}

static void put_binary(struct text *to, const struct term *t) {
    bool plain = t->n > 0;
    for (size_t i = 0; i < t->n; i++)
        plain &= t->s[i] >= 0x20 && t->s[i] < 0x7f;
    put(to, "<<");
    if (plain)
        put_quoted(to, '"', t);
    for (size_t i = 0; i < t->n && !plain; i++)
        put(to, i ? ",%u" : "%u", t->s[i]);
    put(to, ">>");
}

static void put_integer(struct text *to, const struct term *t) {
    put(to, t->negative ? "-16#" : "16#");
    for (size_t i = 0; i < t->n; i++)
        put(to, "%02x", t->s[i]);
    put(to, t->n ? "" : "0");
}

static void put_term(struct text *to, const struct term *t);

static void put_elements(struct text *to, const char *open, const struct term *t,
                         const char *close) {
    put(to, "%s", open);
    for (size_t i = 0; i < t->count; i++) {
        put(to, i == 0 ? "" : t->type == CW_T_MAP && i % 2 ? "=>" : ",");
        put_term(to, t->at[i]);
    }
    put(to, "%s", close);
}

static void put_term(struct text *to, const struct term *t) {
    static const char *const simple[] = {"nil", "false", "true"};
    switch (t->type) {
    case CW_T_BIG:
        put_integer(to, t);
        return;
    case CW_T_FLOAT:
        put(to, "%.17e", t->f);
        return;
    case CW_T_ATOM:
        put_quoted(to, '\'', t);
        return;
    case CW_T_BINARY:
        put_binary(to, t);
        return;
    case CW_T_TUPLE:
        put_elements(to, "{", t, "}");
        return;
    case CW_T_LIST:
        put_elements(to, "[", t, "]");
        return;
    case CW_T_MAP:
        put_elements(to, "#{", t, "}");
        return;
    default:
        put(to, "%s", simple[t->type]);
    }
}

/* ---- reading each type: what a manifest expects of it ---- */

static enum cw_err read_term(struct cw_bytes s, enum cw_encoding enc, struct text *to,
                             struct cw_buf *again) {
    struct cw_reader r = cw_reader(s);
    cw_check_term(&r, enc);
    if (r.err || cw_reader_left(&r))
        return r.err ? r.err : CW_EMALFORMED;
    r = cw_reader(s);
    struct term *t = term_read(&r, enc);
    put_term(to, t);
    term_put(again, enc, t);
    terms_reset();
    return CW_OK;
}

static enum cw_err read_clock(struct cw_bytes s, struct text *to, struct cw_buf *again) {
    struct cw_vv *vv;
    enum cw_err err = cw_clock_read(&check_mem, s, &vv);
    if (err)
        return err;
    put(to, "#{");
    for (uint32_t i = 0; i < vv->n; i++) {
        struct cw_reader r = cw_reader(cw_name_bytes(vv->at[i].name));
        put(to, i ? "," : "");
        put_term(to, term_read(&r, CW_KEY));
        put(to, "=>%llu", (unsigned long long)vv->at[i].counter);
    }
    put(to, "}");
    cw_clock_put(again, vv);
    cw_vv_release(vv);
    terms_reset();
    return CW_OK;
}

static struct cw_doc *apply(const struct cw_doc *doc, struct cw_bytes fragment) {
    struct cw_doc *to = NULL;
    struct cw_fault fault = {.op = 0};
    CHECK_OK(cw_doc_apply(doc, fragment, SIZE_MAX, &to, &fault));
    return to;
}

static enum cw_err read_fragment(struct cw_bytes s, const struct cw_bytes *base, struct text *to,
                                 struct cw_buf *again) {
    struct cw_fragment f;
    enum cw_err err = cw_fragment_read(&f, &check_mem, SIZE_MAX, s);
    if (err)
        return err;
    CHECK_OK(cw_fragment_write(&f, again));
    cw_fragment_free(&f);
    struct cw_doc *doc = cw_doc_new(&check_mem, cw_bytes("\x50reader", 8)), *next;
    if (base) {
        next = apply(doc, *base);
        cw_doc_free(doc);
        doc = next;
    }
    next = apply(doc, s);
    struct cw_hash hash = cw_doc_hash(next);
    put(to, "%016llx%016llx", (unsigned long long)hash.hi, (unsigned long long)hash.lo);
    cw_doc_free(doc);
    cw_doc_free(next);
    return CW_OK;
}

/* On success what is expected is in `text`; the bytes are canonical. */
static enum cw_err read_row(const char *type, struct cw_bytes s, const struct cw_bytes *base,
                            char *text) {
    struct text to = {text, 0};
    struct cw_buf again = new_buf();
    enum cw_err err = CW_EOP;
    text[0] = 0;
    if (!strcmp(type, "term_key"))
        err = read_term(s, CW_KEY, &to, &again);
    else if (!strcmp(type, "term_value"))
        err = read_term(s, CW_VALUE, &to, &again);
    else if (!strcmp(type, "clock"))
        err = read_clock(s, &to, &again);
    else if (!strcmp(type, "fragment"))
        err = read_fragment(s, base, &to, &again);
    CHECK(err || cw_bytes_eq(s, cw_buf_slice(&again, 0)));
    cw_buf_free(&again);
    return err;
}

/* ---- the good ones ---- */

static struct term *list_of(enum cw_term_type type, size_t n, struct term **at) {
    struct term *t = term_open(type, n);
    memcpy(t->at, at, n * sizeof *at);
    if (type == CW_T_MAP)
        term_tidy_map(t);
    return t;
}

static struct term *binary(const char *s) {
    return term_string(CW_T_BINARY, s, strlen(s));
}

static void add_term(struct table *to, const char *name, const struct term *t, const char *what) {
    for (int enc = CW_KEY; enc <= CW_VALUE; enc++) {
        char full[48];
        snprintf(full, sizeof full, "%s_%s", enc == CW_KEY ? "key" : "value", name);
        struct row *row = add(to, full, enc == CW_KEY ? "term_key" : "term_value", what);
        struct text text = {row->expected, 0};
        term_put(&row->bytes, (enum cw_encoding)enc, t);
        put_term(&text, t);
    }
}

static void add_terms(struct table *to) {
    static const uint8_t m[] = {0x80, 0, 0, 0, 0, 0, 0, 0, 0x01};
    add_term(to, "nil", term_new(CW_T_NIL), "nil");
    add_term(to, "false", term_new(CW_T_FALSE), "false");
    add_term(to, "true", term_new(CW_T_TRUE), "true");
    add_term(to, "zero", term_int(0), "zero");
    add_term(to, "one", term_int(1), "one");
    add_term(to, "minus_one", term_int(-1), "minus one");
    add_term(to, "255", term_int(255), "the greatest of one byte");
    add_term(to, "256", term_int(256), "the least of two bytes");
    add_term(to, "minus_256", term_int(-256), "two bytes, negative");
    add_term(to, "int64_max", term_int(INT64_MAX), "2^63 - 1");
    add_term(to, "int64_min", term_int(INT64_MIN), "-2^63");
    add_term(to, "2_63", term_big(false, m, 8), "2^63: eight bytes, no int64");
    add_term(to, "big", term_big(false, m, 9), "nine bytes");
    add_term(to, "minus_big", term_big(true, m, 9), "nine bytes, negative");
    add_term(to, "float", term_float(1.5), "a float");
    add_term(to, "minus_float", term_float(-1.5), "a negative float");
    add_term(to, "minus_zero", term_float(-0.0), "the negative zero");
    add_term(to, "denormal", term_float(5e-324), "the least float above zero");
    add_term(to, "atom", term_string(CW_T_ATOM, "paris", 5), "an atom");
    add_term(to, "atom_utf8", term_string(CW_T_ATOM, "\xc3\xa9\xe2\x82\xac", 5),
             "an atom, not ASCII");
    add_term(to, "binary", binary("hello"), "a binary");
    add_term(to, "binary_empty", binary(""), "an empty binary");
    add_term(to, "binary_low", term_string(CW_T_BINARY, "a\0\x01\x02\xff", 5),
             "bytes that keys escape");
    add_term(to, "tuple", list_of(CW_T_TUPLE, 2, (struct term *[]){binary("a"), term_int(7)}),
             "a tuple");
    add_term(to, "tuple_empty", term_open(CW_T_TUPLE, 0), "an empty tuple");
    add_term(to, "list",
             list_of(CW_T_LIST, 2, (struct term *[]){term_open(CW_T_LIST, 0), term_int(7)}),
             "a list with an empty list in it");
    add_term(to, "map",
             list_of(CW_T_MAP, 6,
                     (struct term *[]){binary("b"), term_int(1), binary("a"), term_int(300),
                                       term_int(-1), term_new(CW_T_NIL)}),
             "a map: pairs in the order of their encoded keys");
    add_term(to, "map_of_integers",
             list_of(CW_T_MAP, 6,
                     (struct term *[]){term_int(1), binary("x"), term_int(-100), binary("y"),
                                       term_int(2), binary("z")}),
             "a map whose pairs stand in another order in each encoding");
    terms_reset();
}

static void add_clock(struct table *to, const char *name, const char *names, uint64_t counter,
                      const char *what) {
    struct row *row = add(to, name, "clock", what);
    struct cw_vv *vv = cw_vv_new(&check_mem, 0), *next;
    for (size_t i = 0; names[i]; i++) {
        uint8_t bytes[3] = {0x50, (uint8_t)names[i], 0};
        struct cw_name *n = cw_name_new(&check_mem, cw_bytes(bytes, 3));
        CHECK_OK(cw_vv_raise(vv, n, i ? i : counter, &next));
        cw_name_release(n);
        cw_vv_release(vv);
        vv = next;
    }
    cw_clock_put(&row->bytes, vv);
    cw_vv_release(vv);
    struct cw_buf again = new_buf();
    struct text text = {row->expected, 0};
    CHECK_OK(read_clock(cw_buf_slice(&row->bytes, 0), &text, &again));
    cw_buf_free(&again);
}

static void add_clocks(struct table *to) {
    add_clock(to, "clock_empty", "", 0, "nobody wrote");
    add_clock(to, "clock_one", "a", 1, "one replica");
    add_clock(to, "clock_1_byte", "abcd", 255, "counters of one byte");
    add_clock(to, "clock_2_bytes", "abcd", 256, "counters of two bytes");
    add_clock(to, "clock_4_bytes", "abcd", 65536, "counters of four bytes");
    add_clock(to, "clock_8_bytes", "abcd", UINT64_C(1) << 32, "counters of eight bytes");
    add_clock(to, "clock_greatest", "a", CW_COUNTER_MAX, "the greatest counter");
}

/* ---- fragments ---- */

static void expect_hash(struct row *row, const struct cw_bytes *base) {
    CHECK_OK(read_row(row->type, cw_buf_slice(&row->bytes, 0), base, row->expected));
}

static void add_state(struct table *to, const char *name, const struct cw_doc *doc,
                      const char *what) {
    struct row *row = add(to, name, "fragment", what);
    CHECK_OK(cw_doc_encode(doc, &row->bytes));
    expect_hash(row, NULL);
}

/* From the state in the last row of this name to `doc`. */
static void add_delta(struct table *to, const char *name, const char *base,
                      const struct cw_doc *old, const struct cw_doc *doc, bool net,
                      const char *what) {
    struct row *row = add(to, name, "fragment", what);
    struct cw_buf bytes = new_buf();
    struct cw_vv *clock;
    CHECK_OK(cw_doc_clock(old, &clock));
    if (net)
        CHECK_OK(cw_doc_delta_between(old, doc, SIZE_MAX, &row->bytes));
    else
        CHECK_OK(cw_doc_delta(doc, clock, SIZE_MAX, &row->bytes));
    CHECK_OK(cw_doc_encode(old, &bytes));
    struct cw_bytes s = cw_buf_slice(&bytes, 0);
    snprintf(row->base, sizeof row->base, "%s", base);
    expect_hash(row, &s);
    cw_vv_release(clock);
    cw_buf_free(&bytes);
}

/* Replaces the document by one with a further write. */
static void edit(struct cw_doc **doc, enum cw_verb verb, enum cw_kind kind, const char *path,
                 const char *arg, uint64_t amount) {
    struct cw_doc *next = small_op(*doc, verb, kind, path, arg, amount);
    CHECK(next);
    cw_doc_free(*doc);
    *doc = next;
}

static struct cw_doc *fork(const struct cw_doc *doc, const char *name) {
    struct cw_doc *to;
    uint8_t bytes[3] = {0x50, (uint8_t)name[0], 0};
    CHECK_OK(cw_doc_fork(doc, cw_bytes(bytes, 3), &to));
    return to;
}

static struct cw_doc *merged(const struct cw_doc *a, const struct cw_doc *b) {
    struct cw_doc *to;
    CHECK_OK(cw_doc_merge(a, b, SIZE_MAX, &to));
    return to;
}

struct one {
    const char *name, *what;
    struct small_row x, y; /* by two replicas, concurrently */
};

static const struct one ones[] = {
    {"set",
     "an add-wins set: two elements",
     {CW_ADD, CW_SET, "s", "x", 0},
     {CW_ADD, CW_SET, "s", "y", 0}},
    {"set_dots",
     "an element added twice at once",
     {CW_ADD, CW_SET, "s", "x", 0},
     {CW_ADD, CW_SET, "s", "x", 0}},
    {"set_grow",
     "a grow-only set",
     {CW_ADD, CW_SET_GROW, "s", "x", 0},
     {CW_ADD, CW_SET_GROW, "s", "y", 0}},
    {"set_remove_wins",
     "an element added and removed at once",
     {CW_ADD, CW_SET_REMOVE_WINS, "s", "x", 0},
     {CW_REMOVE, CW_SET_REMOVE_WINS, "s", "x", 0}},
    {"counter",
     "a counter: plus 300, minus 5",
     {CW_INCREMENT, CW_COUNTER, "c", NULL, 300},
     {CW_DECREMENT, CW_COUNTER, "c", NULL, 5}},
    {"counter_bounded",
     "a bounded counter: rights of two replicas",
     {CW_INCREMENT, CW_COUNTER_BOUNDED, "c", NULL, 10},
     {CW_INCREMENT, CW_COUNTER_BOUNDED, "c", NULL, 20}},
    {"register",
     "a register written twice at once",
     {CW_PUT, CW_REGISTER, "r", "one", 0},
     {CW_PUT, CW_REGISTER, "r", "two", 0}},
    {"register_multi",
     "a multi-value register with two values",
     {CW_PUT, CW_REGISTER_MULTI, "r", "one", 0},
     {CW_PUT, CW_REGISTER_MULTI, "r", "two", 0}},
    {"flag",
     "a flag enabled twice at once",
     {CW_ENABLE, CW_FLAG, "f", NULL, 0},
     {CW_ENABLE, CW_FLAG, "f", NULL, 0}},
    {"flag_disable_wins",
     "a flag enabled and disabled at once",
     {CW_ENABLE, CW_FLAG_DISABLE_WINS, "f", NULL, 0},
     {CW_DISABLE, CW_FLAG_DISABLE_WINS, "f", NULL, 0}},
    {"map",
     "registers in a map in a map",
     {CW_PUT, CW_REGISTER, "abc", "one", 0},
     {CW_PUT, CW_REGISTER, "abd", "two", 0}},
    {"map_grow",
     "a register in a grow-only map",
     {CW_PUT, CW_REGISTER, "a+b", "one", 0},
     {CW_PUT, CW_REGISTER, "a+c", "two", 0}},
    {"two_kinds",
     "a set and a counter at one path",
     {CW_ADD, CW_SET, "p", "x", 0},
     {CW_INCREMENT, CW_COUNTER, "p", NULL, 1}},
};

static void add_one(struct table *to, const struct one *one) {
    struct cw_doc *x = cw_doc_new(&check_mem, cw_bytes("\x50x", 3)), *y = fork(x, "y");
    char name[48];
    edit(&x, one->x.verb, one->x.kind, one->x.path, one->x.arg, one->x.amount);
    edit(&y, one->y.verb, one->y.kind, one->y.path, one->y.arg, one->y.amount);
    struct cw_doc *both = merged(x, y);
    snprintf(name, sizeof name, "state_%s", one->name);
    add_state(to, name, both, one->what);
    cw_doc_free(x);
    cw_doc_free(y);
    cw_doc_free(both);
}

/* A counter that is removed while it is counted on; then its owner settles. */
static void add_receipts(struct table *to) {
    struct cw_doc *x = cw_doc_new(&check_mem, cw_bytes("\x50x", 3)), *y, *both;
    edit(&x, CW_INCREMENT, CW_COUNTER, "c", NULL, 5);
    y = fork(x, "y");
    edit(&y, CW_DELETE, CW_KIND_NONE, "c", NULL, 0);
    edit(&x, CW_INCREMENT, CW_COUNTER, "c", NULL, 3);
    both = merged(x, y);
    add_state(to, "state_receipt", both, "a counter of 3, with the receipt for the 5 removed");
    edit(&both, CW_INCREMENT, CW_COUNTER, "c", NULL, 1);
    add_state(to, "state_settled", both, "the same after the owner's next write: 4, no receipt");
    cw_doc_free(x);
    cw_doc_free(y);
    cw_doc_free(both);
}

static void add_transfer(struct table *to) {
    struct cw_doc *x = cw_doc_new(&check_mem, cw_bytes("\x50x", 3));
    edit(&x, CW_INCREMENT, CW_COUNTER_BOUNDED, "c", NULL, 10);
    edit(&x, CW_TRANSFER, CW_COUNTER_BOUNDED, "c", "y", 4);
    edit(&x, CW_DECREMENT, CW_COUNTER_BOUNDED, "c", NULL, 1);
    add_state(to, "state_transfer", x, "rights given to a replica that never wrote");
    cw_doc_free(x);
}

static void add_deltas(struct table *to) {
    struct cw_doc *base = small_doc(), *x = fork(base, "n");
    add_state(to, "state_all", base, "a cell of every kind, by two replicas");
    edit(&x, CW_ADD, CW_SET, "s", "z", 0);
    add_delta(to, "delta_add", "state_all", base, x, false, "exact: one element added");
    edit(&x, CW_REMOVE, CW_SET, "s", "x", 0);
    edit(&x, CW_DELETE, CW_KIND_NONE, "a", NULL, 0);
    add_delta(to, "delta_remove", "state_all", base, x, false,
              "exact: absent keys, and a range with nothing below");
    edit(&x, CW_DELETE, CW_REGISTER, "r", NULL, 0);
    edit(&x, CW_PUT, CW_REGISTER, "r", "new", 0);
    add_delta(to, "delta_prefix_is_key", "state_all", base, x, false,
              "exact: a range whose prefix is a key in it");
    add_delta(to, "delta_net", "state_all", base, x, true, "net: the same changes together");
    add_delta(to, "delta_nothing", "state_all", base, base, false, "exact: no news");
    cw_doc_free(base);
    cw_doc_free(x);
}

static void add_good(struct table *to) {
    add_terms(to);
    add_clocks(to);
    struct cw_doc *empty = cw_doc_new(&check_mem, cw_bytes("\x50x", 3));
    add_state(to, "state_empty", empty, "an empty document");
    cw_doc_free(empty);
    for (size_t i = 0; i < sizeof ones / sizeof ones[0]; i++)
        add_one(to, &ones[i]);
    add_receipts(to);
    add_transfer(to);
    add_deltas(to);
}

/* ---- the bad ones ---- */

#define BAD(name, type, err, bytes, what)                                                          \
    { name, type, err, bytes, sizeof bytes - 1, what }
#define HEAD "\xca\x11\x01\x03\x50r\x00\x00\x05" /* one replica, 5 writes, from nothing */
#define FLAG_A "\x01\x00\x05\x10\x50\x61\x00\x50"
#define REGISTER_A "\x01\x00\x05\x10\x50\x61\x00\x40\x00\x05"
#define STAMP "\x01\x00\x00\x00\x00\x00\x00\x00"

static const struct {
    const char *name, *type;
    enum cw_err err;
    const char *bytes;
    size_t n;
    const char *what;
} bad[] = {
    BAD("key_nothing", "term_key", CW_ETRUNCATED, "", "no bytes"),
    BAD("key_cut_string", "term_key", CW_ETRUNCATED,
        "\x50"
        "abc",
        "a string without an end"),
    BAD("key_tag", "term_key", CW_EMALFORMED, "\x04", "no such tag"),
    BAD("key_leading_zero", "term_key", CW_EMALFORMED, "\x22\x00\x01",
        "an integer with a leading zero"),
    BAD("key_infinity", "term_key", CW_EMALFORMED, "\x30\xff\xf0\x00\x00\x00\x00\x00\x00",
        "an infinity"),
    BAD("key_nan", "term_key", CW_EMALFORMED, "\x30\xff\xf8\x00\x00\x00\x00\x00\x00",
        "not a number"),
    BAD("key_escape", "term_key", CW_EMALFORMED, "\x50\x01\x03\x00", "no such escape"),
    BAD("key_atom_nil", "term_key", CW_EMALFORMED, "\x40nil\x00", "the atom nil spelled out"),
    BAD("key_utf8", "term_key", CW_EMALFORMED, "\x40\xc0\x80\x00", "an atom of overlong UTF-8"),
    BAD("key_map_order", "term_key", CW_EMALFORMED, "\x80\x06\x05\x05\x05\x00",
        "a map's keys out of order"),
    BAD("key_map_odd", "term_key", CW_EMALFORMED, "\x80\x06\x00", "a key without a value"),
    BAD("key_more", "term_key", CW_EMALFORMED, "\x05\x05", "a second term"),
    BAD("value_varint", "term_value", CW_EMALFORMED, "\x03\x80\x00", "a varint that is too long"),
    BAD("value_small_big", "term_value", CW_EMALFORMED, "\x04\x01\x01",
        "a big integer that is small"),
    BAD("value_big_limit", "term_value", CW_ELIMIT, "\x04\x81\x80\x04",
        "a big integer of 65537 bytes"),
    BAD("value_count", "term_value", CW_ETRUNCATED, "\x09\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        "a list of 2^64 - 1"),
    BAD("value_map_twice", "term_value", CW_EMALFORMED, "\x0a\x02\x00\x00\x00\x00", "a key twice"),
    BAD("clock_magic", "clock", CW_EMALFORMED, "\xcb\x13\x00\x01", "another magic byte"),
    BAD("clock_version", "clock", CW_EVERSION, "\xca\x23\x00\x01", "version 2"),
    BAD("clock_type", "clock", CW_EMALFORMED, "\xca\x11\x00\x01", "a fragment's type"),
    BAD("clock_width", "clock", CW_EMALFORMED, "\xca\x13\x01\x02\x07\x00\x03\x50\x61\x00",
        "wider than need be"),
    BAD("clock_zero", "clock", CW_EMALFORMED, "\xca\x13\x01\x01\x00\x03\x50\x61\x00",
        "a counter of 0"),
    BAD("clock_range", "clock", CW_ERANGE,
        "\xca\x13\x01\x08\x00\x00\x00\x00\x00\x00\x00\x40\x03\x50\x61\x00", "a counter of 2^62"),
    BAD("clock_twice", "clock", CW_EMALFORMED,
        "\xca\x13\x02\x01\x07\x07\x03\x50\x61\x00\x03\x50\x61\x00", "a replica twice"),
    BAD("clock_name", "clock", CW_EMALFORMED, "\xca\x13\x01\x01\x07\x02\x20\x05",
        "a name that is an integer"),
    BAD("clock_more", "clock", CW_EMALFORMED, "\xca\x13\x00\x01\x00", "a byte too many"),
    BAD("fragment_magic", "fragment", CW_EMALFORMED, "\xcb\x11\x00\x00", "another magic byte"),
    BAD("fragment_version", "fragment", CW_EVERSION, "\xca\x21\x00\x00", "version 2"),
    BAD("fragment_type", "fragment", CW_EMALFORMED, "\xca\x14\x00\x00", "no such type"),
    BAD("fragment_cut", "fragment", CW_ETRUNCATED, HEAD, "no end"),
    BAD("fragment_more", "fragment", CW_EMALFORMED, HEAD "\x00\x00", "bytes after the end"),
    BAD("fragment_no_write", "fragment", CW_EMALFORMED, "\xca\x11\x01\x03\x50r\x00\x00\x00\x00",
        "a replica that never wrote"),
    BAD("fragment_range", "fragment", CW_ERANGE,
        "\xca\x11\x01\x03\x50r\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff\x3f\x00",
        "a counter of 2^62"),
    BAD("fragment_tag", "fragment", CW_EMALFORMED, HEAD "\x04", "no such area"),
    BAD("fragment_dot", "fragment", CW_EMALFORMED, HEAD FLAG_A "\x00\x06\x00",
        "a dot that is not covered"),
    BAD("fragment_dot_zero", "fragment", CW_EMALFORMED, HEAD FLAG_A "\x00\x00\x00",
        "a dot of counter 0"),
    BAD("fragment_dot_wide", "fragment", CW_EMALFORMED,
        HEAD FLAG_A "\x00\x85\x80\x80\x80\x80\x80\x80\x80\x80\x01\x00", "a counter of 2^63 + 5"),
    BAD("fragment_dot_twice", "fragment", CW_EMALFORMED, HEAD FLAG_A "\x01\x05\x00\x05\x00",
        "a dot twice"),
    BAD("fragment_replica", "fragment", CW_EMALFORMED, HEAD FLAG_A "\x02\x05\x00",
        "a replica that is not listed"),
    BAD("fragment_kind", "fragment", CW_EMALFORMED,
        HEAD "\x01\x00\x05\x10\x50\x61\x00\x60\x00\x05\x00", "no such kind"),
    BAD("fragment_map_cell", "fragment", CW_EMALFORMED,
        HEAD "\x01\x00\x05\x10\x50\x61\x00\x10\x00\x05\x00", "a map with a cell"),
    BAD("fragment_half_key", "fragment", CW_EMALFORMED, HEAD "\x02\x00\x04\x10\x50\x61\x00\x00",
        "a key without a kind"),
    BAD("fragment_half_prefix", "fragment", CW_EMALFORMED, HEAD "\x03\x00\x03\x10\x50\x61\x00\x00",
        "a prefix within a field"),
    BAD("fragment_key_order", "fragment", CW_EMALFORMED,
        HEAD "\x02\x00\x05\x10\x50\x61\x00\x50\x02\x04\x01\x40\x00", "keys out of order"),
    BAD("fragment_key_limit", "fragment", CW_ELIMIT, HEAD "\x02\x00\x81\x40",
        "a key of 8193 bytes"),
    BAD("fragment_overlap", "fragment", CW_EMALFORMED,
        HEAD "\x03\x00\x00\x00\x02\x00\x05\x10\x50\x61\x00\x50\x00", "an area in another"),
    BAD("fragment_stamp", "fragment", CW_ERANGE,
        HEAD REGISTER_A "\x00\x00\x00\x00\x00\x00\x00\x40\x01\x00\x00", "a stamp of 2^62"),
    BAD("fragment_value", "fragment", CW_EMALFORMED, HEAD REGISTER_A STAMP "\x02\x00\x00\x00",
        "two terms in a value"),
    BAD("fragment_value_limit", "fragment", CW_ELIMIT, HEAD REGISTER_A STAMP "\x81\x80\x80\x20\x00",
        "a value over 64 MB"),
};

/* 65 lists in one another. */
static void add_deep(struct table *to, enum cw_encoding enc) {
    struct row *row = add(to, enc == CW_KEY ? "key_deep" : "value_deep",
                          enc == CW_KEY ? "term_key" : "term_value", "65 lists in one another");
    snprintf(row->expected, TEXT, "%s", cw_err_name(CW_ELIMIT));
    for (int i = 0; i <= CW_TERM_DEPTH; i++)
        cw_put_open(&row->bytes, enc, CW_T_LIST, i < CW_TERM_DEPTH);
    for (int i = 0; i <= CW_TERM_DEPTH; i++)
        cw_put_close(&row->bytes, enc);
}

static void add_bad(struct table *to) {
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct row *row = add(to, bad[i].name, bad[i].type, bad[i].what);
        cw_buf_put(&row->bytes, bad[i].bytes, bad[i].n);
        snprintf(row->expected, TEXT, "%s", cw_err_name(bad[i].err));
    }
    add_deep(to, CW_KEY);
    add_deep(to, CW_VALUE);
}

/* ---- files ---- */

static FILE *open_file(const char *kind, const char *name, const char *end, const char *mode) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s/%s%s", folder(), kind, name, end);
    FILE *f = fopen(path, mode);
    if (!f)
        check_failed(__FILE__, __LINE__, path);
    return f;
}

static void write_table(const struct table *t, const char *kind) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder(), kind);
    mkdir(path, 0777);
    FILE *list = open_file(kind, "manifest", ".tsv", "wb");
    for (size_t i = 0; i < t->n; i++) {
        const struct row *row = &t->at[i];
        FILE *f = open_file(kind, row->name, ".bin", "wb");
        CHECK(fwrite(row->bytes.p, 1, row->bytes.n, f) == row->bytes.n && fclose(f) == 0);
        if (!strcmp(kind, "good"))
            fprintf(list, "%s\t%s\t%s\t%s\t%s\n", row->name, row->type, row->base, row->expected,
                    row->what);
        else
            fprintf(list, "%s\t%s\t%s\t%s\n", row->name, row->type, row->expected, row->what);
    }
    CHECK(fclose(list) == 0);
}

static void read_file(const char *kind, const char *name, struct cw_buf *out) {
    uint8_t space[4096];
    FILE *f = open_file(kind, name, ".bin", "rb");
    for (size_t n; (n = fread(space, 1, sizeof space, f)) > 0;)
        cw_buf_put(out, space, n);
    fclose(f);
}

/* The fields of a manifest's line, in place. */
static size_t split(char *line, char **fields, size_t most) {
    size_t n = 0;
    line[strcspn(line, "\r\n")] = 0;
    for (char *p = line; p && n < most; n++) {
        fields[n] = p;
        p = strchr(p, '\t');
        if (p)
            *p++ = 0;
    }
    return n;
}

static void read_table(struct table *t, const char *kind) {
    char line[2 * TEXT], *f[5];
    bool good = !strcmp(kind, "good");
    FILE *list = open_file(kind, "manifest", ".tsv", "rb");
    while (fgets(line, sizeof line, list)) {
        CHECK(split(line, f, 5) == (good ? 5u : 4u));
        struct row *row = add(t, f[0], f[1], f[good ? 4 : 3]);
        snprintf(row->base, sizeof row->base, "%s", good ? f[2] : "-");
        snprintf(row->expected, TEXT, "%s", f[good ? 3 : 2]);
        read_file(kind, row->name, &row->bytes);
    }
    fclose(list);
}

static const struct row *find(const struct table *t, const char *name) {
    for (size_t i = 0; i < t->n; i++)
        if (!strcmp(t->at[i].name, name))
            return &t->at[i];
    return NULL;
}

/* ---- tests ---- */

static void row_failed(const struct row *row, const char *got) {
    char text[2 * TEXT];
    snprintf(text, sizeof text, "%s: expected %s, is %s", row->name, row->expected, got);
    check_failed(__FILE__, __LINE__, text);
}

static void test_good(void) {
    static struct table files;
    char text[TEXT];
    read_table(&files, "good");
    CHECK(files.n > 0);
    for (size_t i = 0; i < files.n; i++) {
        const struct row *row = &files.at[i], *base = find(&files, row->base);
        CHECK((base != NULL) == (strcmp(row->base, "-") != 0));
        struct cw_bytes s = base ? cw_buf_slice(&base->bytes, 0) : cw_bytes(NULL, 0);
        enum cw_err err = read_row(row->type, cw_buf_slice(&row->bytes, 0), base ? &s : NULL, text);
        if (err || strcmp(text, row->expected))
            row_failed(row, err ? cw_err_name(err) : text);
    }
    free_table(&files);
}

static void test_bad(void) {
    static struct table files;
    char text[TEXT];
    read_table(&files, "bad");
    CHECK(files.n > 0);
    for (size_t i = 0; i < files.n; i++) {
        const struct row *row = &files.at[i];
        enum cw_err err = read_row(row->type, cw_buf_slice(&row->bytes, 0), NULL, text);
        if (strcmp(cw_err_name(err), row->expected))
            row_failed(row, cw_err_name(err));
    }
    free_table(&files);
}

/* What this release writes is in the files, byte for byte. */
static void is_in_files(struct table *made, const char *kind) {
    static struct table files;
    read_table(&files, kind);
    for (size_t i = 0; i < made->n; i++) {
        const struct row *row = &made->at[i], *file = find(&files, row->name);
        if (!file || strcmp(file->expected, row->expected) || strcmp(file->what, row->what) ||
            !cw_bytes_eq(cw_buf_slice(&row->bytes, 0), cw_buf_slice(&file->bytes, 0)))
            row_failed(row, file ? "another file" : "no file: run with --write");
    }
    free_table(&files);
    free_table(made);
}

static void test_made(void) {
    static struct table made;
    add_good(&made);
    is_in_files(&made, "good");
    add_bad(&made);
    is_in_files(&made, "bad");
}

static int write_all(void) {
    static struct table made;
    add_good(&made);
    write_table(&made, "good");
    free_table(&made);
    add_bad(&made);
    write_table(&made, "bad");
    free_table(&made);
    return 0;
}

int main(int argc, char **argv) {
    static const struct check_test tests[] = {
        {"good", test_good},
        {"bad", test_bad},
        {"made", test_made},
    };
    if (argc > 1 && !strcmp(argv[1], "--write"))
        return write_all();
    return check_main(argc, argv, "vectors", tests, sizeof tests / sizeof tests[0]);
}
