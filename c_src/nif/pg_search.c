/* Text search: tsvector, a list of lexemes with their positions, and tsquery, which is read as the
 * server's text.
 *
 *     tsvector: | lexemes, 32 bits | word, zero | positions, 16 bits | position ... | ... |
 *
 * A position has its weight, D to A, in the upper two of its 16 bits. */
#include "pg_type.h"

#define WORD_MOST 2046u
#define POSITIONS_MOST 255u
#define POSITION_MOST 16383u
#define POSITION_BITS 14

/* Bytes up to a zero, which is taken off as well. */
static bool take_string(struct cw_bytes *s, struct cw_bytes *string) {
    const uint8_t *end = s->n ? memchr(s->p, 0, s->n) : NULL;
    struct cw_bytes zero;
    return end && pg_take(s, (size_t)(end - s->p), string) && pg_take(s, 1, &zero);
}

/* ---- tsvector ---- */

static ERL_NIF_TERM make_position(struct pg_decode *d, unsigned v) {
    const ERL_NIF_TERM weights[] = {d->lib->a_nil, d->lib->a_C, d->lib->a_B, d->lib->a_A};
    return enif_make_tuple2(d->env, enif_make_uint(d->env, v & POSITION_MOST),
                            weights[v >> POSITION_BITS]);
}

static ERL_NIF_TERM make_positions(struct pg_decode *d, struct cw_bytes s) {
    ERL_NIF_TERM list = enif_make_list(d->env, 0);
    for (size_t i = s.n / 2; i-- > 0;)
        list = enif_make_list_cell(d->env, make_position(d, pg_load16(s.p + 2 * i)), list);
    return list;
}

static enum cw_err get_lexeme(struct pg_decode *d, struct cw_bytes *s, ERL_NIF_TERM *term) {
    struct cw_bytes word, count, positions;
    if (!take_string(s, &word) || !pg_take(s, 2, &count) ||
        !pg_take(s, 2 * (size_t)pg_load16(count.p), &positions))
        return CW_EMALFORMED;
    if (!pg_more_work(d, 4 + positions.n / 2))
        return CW_EBUDGET;
    const ERL_NIF_TERM fields[] = {pg_make_text(d, word), make_positions(d, positions)};
    *term = pg_make(d, PG_LEXEME, fields);
    return CW_OK;
}

enum cw_err pg_get_tsvector(struct pg_decode *d, const struct pg_node *node, struct cw_bytes s,
                            unsigned depth, ERL_NIF_TERM *term) {
    uint32_t n;
    ERL_NIF_TERM lexeme, list = enif_make_list(d->env, 0);
    (void)node, (void)depth;
    if (!pg_take32(&s, &n))
        return CW_EMALFORMED;
    for (; n > 0; n--) {
        enum cw_err err = get_lexeme(d, &s, &lexeme);
        if (err)
            return err;
        list = enif_make_list_cell(d->env, lexeme, list);
    }
    return !s.n && enif_make_reverse_list(d->env, list, term) ? CW_OK : CW_EMALFORMED;
}

static bool get_weight(struct pg_encode *e, ERL_NIF_TERM term, unsigned *weight) {
    const ERL_NIF_TERM weights[] = {e->lib->a_nil, e->lib->a_C, e->lib->a_B, e->lib->a_A};
    for (*weight = 0; *weight < 4; ++*weight)
        if (term == weights[*weight])
            return true;
    return false;
}

/* Positions beyond the last are the last one, as the server has it in text. */
static bool put_position(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    int n;
    ErlNifSInt64 v;
    unsigned weight;
    const ERL_NIF_TERM *at;
    if (!enif_get_tuple(e->env, term, &n, &at) || n != 2 || !enif_get_int64(e->env, at[0], &v) ||
        !get_weight(e, at[1], &weight))
        return PG_REFUSE(e, node, wrong, term);
    if (v < 1)
        return PG_REFUSE(e, node, out_of_range, term);
    return pg_put16(
        e, (uint16_t)(weight << POSITION_BITS | (v > POSITION_MOST ? POSITION_MOST : (unsigned)v)));
}

static bool put_lexeme(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    ERL_NIF_TERM f[2], position, list;
    unsigned n;
    if (!pg_fields(e, node, PG_LEXEME, term, f) || !pg_put_utf8(e, node, f[0], WORD_MOST) ||
        !pg_put8(e, 0))
        return false;
    if (!pg_get_length(e, node, f[1], &n))
        return false;
    if (n > POSITIONS_MOST)
        return PG_REFUSE(e, node, too_large, term);
    if (!pg_put16(e, (uint16_t)n))
        return false;
    for (list = f[1]; enif_get_list_cell(e->env, list, &position, &list);)
        if (!put_position(e, node, position))
            return false;
    return true;
}

bool pg_put_tsvector(struct pg_encode *e, const struct pg_node *node, ERL_NIF_TERM term) {
    ERL_NIF_TERM lexeme, list = term;
    unsigned n;
    if (!pg_get_length(e, node, term, &n) || !pg_put32(e, n))
        return false;
    while (enif_get_list_cell(e->env, list, &lexeme, &list))
        if (!put_lexeme(e, node, lexeme))
            return false;
    return true;
}
