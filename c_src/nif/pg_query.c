/* Two types that are read as the server's text: tsquery, and snapshots of transactions.
 *
 *     tsquery:  | items, 32 bits | item ... |
 *       operand:  | 1 | weights | is a prefix | word, zero |
 *       operator: | 2 | which | distance, 16 bits, if it is a phrase's |
 *
 * Operators stand in front of their operands, the right one before the left one. */
#include <inttypes.h>
#include <stdio.h>

#include "../core/cw_buf.h"
#include "pg_type.h"

enum { OPERAND = 1, OPERATOR = 2 };
enum { NOT = 1, AND = 2, OR = 3, PHRASE = 4 };

struct item {
    uint8_t op;      /* 0: an operand */
    uint8_t weights; /* bits 3 to 0 for A to D */
    bool prefix;
    uint16_t distance;
    struct cw_bytes word;
    uint32_t size; /* of the items that it is made of, itself included */
};

/* ---- reading ---- */

static bool read_operand(struct cw_bytes *s, struct item *item) {
    struct cw_bytes head;
    if (!pg_take(s, 2, &head))
        return false;
    const uint8_t *end = s->n ? memchr(s->p, 0, s->n) : NULL;
    if (!end || !pg_take(s, (size_t)(end - s->p) + 1, &item->word))
        return false;
    item->word.n--;
    item->weights = head.p[0];
    item->prefix = head.p[1];
    return true;
}

static bool read_operator(struct cw_bytes *s, struct item *item) {
    struct cw_bytes which, distance;
    if (!pg_take(s, 1, &which) || which.p[0] < NOT || which.p[0] > PHRASE)
        return false;
    item->op = which.p[0];
    if (item->op != PHRASE)
        return true;
    if (!pg_take(s, 2, &distance))
        return false;
    item->distance = pg_load16(distance.p);
    return true;
}

static bool read_items(struct cw_bytes s, struct item *items, uint32_t n) {
    struct cw_bytes type;
    for (uint32_t i = 0; i < n; i++) {
        items[i] = (struct item){.size = 1};
        if (!pg_take(&s, 1, &type))
            return false;
        if (!(type.p[0] == OPERAND    ? read_operand(&s, &items[i])
              : type.p[0] == OPERATOR ? read_operator(&s, &items[i])
                                      : false))
            return false;
    }
    return s.n == 0;
}

/* From the last one on; all of them have to be one tree. */
static bool measure_items(struct item *items, uint32_t n) {
    for (uint32_t i = n; i-- > 0;) {
        struct item *item = &items[i];
        int operands = item->op ? item->op == NOT ? 1 : 2 : 0;
        while (operands-- > 0) {
            if (i + item->size >= n)
                return false;
            item->size += items[i + item->size].size;
        }
    }
    return n == 0 || items[0].size == n;
}

/* ---- writing ----
 *
 * What is still to be written is a stack, as a query may be as deep as it is long. */

struct todo {
    const struct item *item; /* NULL: `text` */
    const char *text;
    const struct item *link; /* text: the operator whose distance goes into it */
    uint8_t around;          /* the priority of the operator that this is an operand of */
    bool right;              /* of a phrase */
};

struct writer {
    struct cw_buf out;
    struct todo *todo;
    size_t n;
};

static unsigned priority(const struct item *item) {
    static const uint8_t of[] = {[NOT] = 4, [AND] = 2, [OR] = 1, [PHRASE] = 3};
    return of[item->op];
}

static void write_string(struct writer *w, const char *s) {
    cw_buf_put(&w->out, s, strlen(s));
}

static void write_operand(struct writer *w, const struct item *item) {
    cw_buf_byte(&w->out, '\'');
    for (size_t i = 0; i < item->word.n; i++) {
        uint8_t c = item->word.p[i];
        if (c == '\'' || c == '\\')
            cw_buf_byte(&w->out, c);
        cw_buf_byte(&w->out, c);
    }
    cw_buf_byte(&w->out, '\'');
    if (item->weights || item->prefix)
        cw_buf_byte(&w->out, ':');
    if (item->prefix)
        cw_buf_byte(&w->out, '*');
    for (int i = 0; i < 4; i++)
        if (item->weights & 8 >> i)
            cw_buf_byte(&w->out, (uint8_t)("ABCD"[i]));
}

static void write_link(struct writer *w, const struct item *item) {
    char text[16];
    if (item->op == PHRASE && item->distance != 1) {
        snprintf(text, sizeof text, " <%u> ", item->distance);
        write_string(w, text);
        return;
    }
    write_string(w, item->op == AND ? " & " : item->op == OR ? " | " : " <-> ");
}

static void push(struct writer *w, struct todo todo) {
    w->todo[w->n++] = todo;
}

/* Puts off an operator's parts, the last one first. */
static void open_operator(struct writer *w, const struct todo *at) {
    const struct item *item = at->item, *right = item + 1, *left = right + right->size;
    uint8_t around = (uint8_t)priority(item);
    bool phrase = item->op == PHRASE;
    bool parentheses = around < at->around || (phrase && at->right);
    if (parentheses) {
        write_string(w, "( ");
        push(w, (struct todo){.text = " )"});
    }
    if (item->op == NOT) {
        write_string(w, "!");
        push(w, (struct todo){.item = right, .around = around});
        return;
    }
    push(w, (struct todo){.item = right, .around = around, .right = phrase});
    push(w, (struct todo){.link = item});
    push(w, (struct todo){.item = left, .around = around});
}

static void write_query(struct writer *w, const struct item *items) {
    push(w, (struct todo){.item = items});
    while (w->n) {
        struct todo at = w->todo[--w->n];
        if (at.text)
            write_string(w, at.text);
        else if (at.link)
            write_link(w, at.link);
        else if (at.item->op)
            open_operator(w, &at);
        else
            write_operand(w, at.item);
    }
}

static enum cw_err get_query(struct pg_decode *d, struct cw_bytes s, uint32_t n, struct item *items,
                             struct todo *todo, ERL_NIF_TERM *term) {
    uint8_t space[1024];
    struct writer w = {.todo = todo};
    if (!read_items(s, items, n) || !measure_items(items, n))
        return CW_EMALFORMED;
    cw_buf_init(&w.out, &nif_mem, space, sizeof space);
    if (n)
        write_query(&w, items);
    enum cw_err err = w.out.err;
    if (!err)
        *term = nif_make_binary(d->env, cw_buf_slice(&w.out, 0));
    cw_buf_free(&w.out);
    return err;
}

/* What is allocated is a hundred times what came. */
#define ITEMS_MOST (1u << 20)

/* Each operator that is opened leaves four things to do at most. */
enum cw_err pg_get_tsquery(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                           unsigned depth, ERL_NIF_TERM *term) {
    uint32_t n;
    (void)node, (void)depth;
    if (!pg_take32(&s, &n) || n > s.n / 2)
        return CW_EMALFORMED;
    if (n > ITEMS_MOST)
        return CW_ELIMIT;
    if (!pg_more_work(d, 4 * (size_t)n))
        return CW_EBUDGET;
    struct item *items = enif_alloc(((size_t)n + 1) * sizeof *items);
    struct todo *todo = enif_alloc((4 * (size_t)n + 4) * sizeof *todo);
    enum cw_err err = items && todo ? get_query(d, s, n, items, todo, term) : CW_ENOMEM;
    enif_free(todo);
    enif_free(items);
    return err;
}

/* The server has to parse it: parameters are sent as text. */
bool pg_put_tsquery(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    return PG_REFUSE(e, node, unsupported, term);
}

/* ---- snapshots: | n, 32 bits | xmin | xmax | xid ... | to xmin:xmax:xid,xid ---- */

static void write_number(struct cw_buf *out, uint64_t v, const char *after) {
    char text[32];
    snprintf(text, sizeof text, "%" PRIu64 "%s", v, after);
    cw_buf_put(out, text, strlen(text));
}

enum cw_err pg_get_snapshot(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                            unsigned depth, ERL_NIF_TERM *term) {
    uint32_t n;
    uint8_t space[1024];
    struct cw_buf out;
    (void)node, (void)depth;
    if (!pg_take32(&s, &n) || s.n != 16 + 8 * (uint64_t)n)
        return CW_EMALFORMED;
    if (!pg_more_work(d, 8 * (size_t)n))
        return CW_EBUDGET;
    cw_buf_init(&out, &nif_mem, space, sizeof space);
    for (size_t i = 0; i < (size_t)n + 2; i++)
        write_number(&out, cw_load64be(s.p + 8 * i), i < 2 ? ":" : i < (size_t)n + 1 ? "," : "");
    enum cw_err err = out.err;
    if (!err)
        *term = nif_make_binary(d->env, cw_buf_slice(&out, 0));
    cw_buf_free(&out);
    return err;
}

bool pg_put_snapshot(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    return PG_REFUSE(e, node, unsupported, term);
}
