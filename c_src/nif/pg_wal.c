#include "pg_wal.h"

#include "../wal/cw_pgoutput.h"
#include "../wal/cw_wal_frame.h"
#include "pg_type.h"

#define COLUMNS_ON_STACK 64u
#define RELATIONS 16u /* that are remembered for the time of a call, by oid */

/* What a change costs beside its values, in values. */
#define CHANGE_WORK 3u

/* Bytes that are copied in the time of one value. */
#define VALUE_BYTES 256u

/* Of more keys the VM makes a tree, key by key. */
#define FLAT_MAP_MOST 32u

/* A call ends at the first message after this much work: before the limit, as a row that goes over
 * it is for a dirty scheduler, with all that was done before it done again. */
static bool is_enough(const struct pg_decode *values) {
    return values->work > values->limit - values->limit / 4;
}

/* A layout's entry: the column's place among the names, whether it is of the key. */
#define LAYOUT_ENTRY 3u

struct relation {
    uint32_t oid;
    bool streamed;
    const struct pg_codec *codec; /* NULL: the entry is not in use */
    ERL_NIF_TERM term;
    const ERL_NIF_TERM *names;
    const uint8_t *layout;
    uint32_t n;
    ERL_NIF_TERM changes[3]; /* of an insert, update and delete, without rows; 0 until one is met */
};

struct decode {
    struct pg_decode values;
    const struct pg_codec *text;
    ERL_NIF_TERM session;
    ERL_NIF_TERM stream;
    bool streamed; /* the block at hand */
    struct relation relations[RELATIONS];
    ERL_NIF_TERM *space; /* for the values of a row, twice: in the server's order and in ours */
    uint32_t space_n;    /* columns that there is room for */
    ERL_NIF_TERM on_stack[2 * COLUMNS_ON_STACK];
    ERL_NIF_TERM reason; /* of CW_EKIND */
};

/* How decoding a block ended, when it did not fail. */
enum stop { END, MORE, SCHEMA };

/* ---- relations ---- */

static enum cw_err unknown(struct decode *d, ERL_NIF_TERM why, uint32_t oid) {
    ErlNifEnv *env = d->values.env;
    d->reason = enif_make_tuple2(env, why, enif_make_uint(env, oid));
    return CW_EKIND;
}

static bool get_relation(struct decode *d, ERL_NIF_TERM entry, struct relation *r) {
    int arity, n;
    const ERL_NIF_TERM *at;
    struct cw_bytes layout;
    ErlNifEnv *env = d->values.env;
    if (!enif_get_tuple(env, entry, &arity, &at) || arity != 4 ||
        !pg_get_codec(env, at[0], &r->codec) || !enif_get_tuple(env, at[2], &n, &r->names) ||
        !nif_get_bytes(env, at[3], &layout) || layout.n != LAYOUT_ENTRY * (size_t)n)
        return false;
    r->term = at[1];
    r->layout = layout.p;
    r->n = (uint32_t)n;
    memset(r->changes, 0, sizeof r->changes);
    return true;
}

static enum cw_err find_relation(struct decode *d, uint32_t oid, struct relation **out) {
    struct relation *r = &d->relations[oid % RELATIONS];
    ErlNifEnv *env = d->values.env;
    ERL_NIF_TERM key = enif_make_uint(env, oid), entry;
    *out = r;
    if (r->codec && r->oid == oid && r->streamed == d->streamed)
        return CW_OK;
    r->codec = NULL;
    if (!(d->streamed && enif_get_map_value(env, d->stream, key, &entry)) &&
        !enif_get_map_value(env, d->session, key, &entry))
        return unknown(d, ATOM(env, unknown_relation), oid);
    if (!get_relation(d, entry, r)) {
        r->codec = NULL;
        return CW_EMALFORMED;
    }
    r->oid = oid;
    r->streamed = d->streamed;
    return CW_OK;
}

/* ---- rows ---- */

static enum cw_err reserve(struct decode *d, uint32_t n) {
    if (n <= d->space_n)
        return CW_OK;
    ERL_NIF_TERM *space = enif_alloc(2 * (size_t)n * sizeof *space);
    if (!space)
        return CW_ENOMEM;
    if (d->space != d->on_stack)
        enif_free(d->space);
    d->space = space;
    d->space_n = n;
    return CW_OK;
}

/* pg_decode_text, in the one place where a call for each value is felt. */
static inline enum cw_err make_text(struct decode *d, const struct pg_codec *codec,
                                    struct cw_bytes s, ERL_NIF_TERM *term) {
    ErlNifEnv *env = d->values.env;
    if (!pg_more_work(&d->values, 1 + (codec->reference ? 0 : s.n / VALUE_BYTES)))
        return CW_EBUDGET;
    if (codec->reference)
        *term = enif_make_sub_binary(env, d->values.frame, (size_t)(s.p - d->values.base), s.n);
    else
        memcpy(enif_make_new_binary(env, s.n, term), s.p, s.n);
    return CW_OK;
}

/* One value that cannot be decoded does not stop the stream, once all else was tried. */
static enum cw_err make_binary_value(struct decode *d, const struct relation *r, uint32_t column,
                                     struct cw_bytes s, ERL_NIF_TERM *term) {
    enum cw_err err = pg_decode_value(&d->values, r->codec, column, s, term);
    if (!r->codec->lenient || (err != CW_EMALFORMED && err != CW_ELIMIT))
        return err;
    *term = pg_make_undecoded(&d->values, s);
    return CW_OK;
}

static enum cw_err make_value(struct decode *d, const struct relation *r, uint32_t column,
                              struct cw_pg_value v, ERL_NIF_TERM *term) {
    ErlNifEnv *env = d->values.env;
    switch (v.kind) {
    case CW_PG_NULL:
        *term = ATOM(env, nil);
        return CW_OK;
    case CW_PG_UNCHANGED:
        *term = ATOM(env, unchanged_toast);
        return CW_OK;
    case CW_PG_TEXT:
        return make_text(d, r->codec, v.bytes, term);
    default:
        return make_binary_value(d, r, column, v.bytes, term);
    }
}

static uint32_t place(const struct relation *r, uint32_t column) {
    const uint8_t *p = r->layout + LAYOUT_ENTRY * column;
    return (uint32_t)p[0] << 8 | p[1];
}

static bool is_key(const struct relation *r, uint32_t column) {
    return r->layout[LAYOUT_ENTRY * column + 2];
}

/* Values go to their names' places; those of a key's columns only are then moved together. */
static enum cw_err make_map(struct decode *d, const struct relation *r, ERL_NIF_TERM *values,
                            bool key_only, ERL_NIF_TERM *map) {
    ERL_NIF_TERM *names = (ERL_NIF_TERM *)r->names, *all = d->space + d->space_n;
    uint32_t n = r->n;
    if (key_only) {
        names = all;
        n = 0;
        for (uint32_t i = 0; i < r->n; i++)
            if (values[i]) {
                names[n] = r->names[i];
                values[n++] = values[i];
            }
    }
    d->values.work += n > FLAT_MAP_MOST ? 8 * n : n;
    return enif_make_map_from_arrays(d->values.env, names, values, n, map) ? CW_OK : CW_EMALFORMED;
}

static enum cw_err make_row(struct decode *d, const struct relation *r, struct cw_pg_tuple tuple,
                            bool key_only, ERL_NIF_TERM *map) {
    const uint8_t *p = tuple.bytes.p;
    if (tuple.n != r->n)
        return unknown(d, ATOM(d->values.env, wrong_columns), r->oid);
    enum cw_err err = reserve(d, r->n);
    if (!err)
        memset(d->space, 0, r->n * sizeof *d->space);
    for (uint32_t i = 0; i < r->n && !err; i++) {
        struct cw_pg_value v = cw_pg_value_next(&p);
        uint32_t at = place(r, i);
        /* Two columns at one place would leave another without a value. */
        if (at >= r->n || d->space[at])
            return CW_EMALFORMED;
        if (!key_only || is_key(r, i))
            err = make_value(d, r, i, v, &d->space[at]);
    }
    return err ? err : make_map(d, r, d->space, key_only, map);
}

/* ---- changes ---- */

static ERL_NIF_TERM make_struct(struct decode *d, enum pg_struct which,
                                const ERL_NIF_TERM *fields) {
    return pg_make_struct(d->values.env, &d->values.lib->shapes[which], false, fields);
}

/* A change to be filled in. Maps that are updates of another share its keys. */
static ERL_NIF_TERM blank(struct decode *d, struct relation *r, enum cw_pg_type type) {
    ErlNifEnv *env = d->values.env;
    ERL_NIF_TERM nil = ATOM(env, nil);
    bool insert = type == CW_PG_INSERT, update = type == CW_PG_UPDATE;
    ERL_NIF_TERM *change = &r->changes[insert ? 0 : update ? 1 : 2];
    if (!*change) {
        ERL_NIF_TERM op = insert   ? ATOM(env, insert)
                          : update ? ATOM(env, update)
                                   : ATOM(env, delete);
        *change = make_struct(d, PG_WAL_CHANGE, (ERL_NIF_TERM[]){op, r->term, nil, nil, nil});
    }
    return *change;
}

/* Where rows stand among a change's fields. */
enum field { NEW = 2, OLD, KEY };

static enum cw_err put_row(struct decode *d, const struct relation *r, struct cw_pg_tuple tuple,
                           enum field field, ERL_NIF_TERM *change) {
    ERL_NIF_TERM row, name = d->values.lib->shapes[PG_WAL_CHANGE].fields[field];
    enum cw_err err = make_row(d, r, tuple, field == KEY, &row);
    /* Cannot fail: the field is there. */
    if (!err)
        enif_make_map_update(d->values.env, *change, name, row, change);
    return err;
}

static enum cw_err make_change(struct decode *d, const struct cw_pg_message *m,
                               ERL_NIF_TERM *term) {
    const struct cw_pg_change *change = &m->as.change;
    struct relation *r;
    enum cw_err err = find_relation(d, change->relation, &r);
    if (err)
        return err;
    *term = blank(d, r, m->type);
    if (m->type != CW_PG_DELETE)
        err = put_row(d, r, change->new, NEW, term);
    if (!err && change->old_kind == 'O')
        err = put_row(d, r, change->old, OLD, term);
    if (!err && change->old_kind == 'K')
        err = put_row(d, r, change->old, KEY, term);
    return err;
}

static enum cw_err make_truncate(struct decode *d, const struct cw_pg_truncate *m,
                                 ERL_NIF_TERM *term) {
    ErlNifEnv *env = d->values.env;
    const struct nif_atoms *a = &nif_lib(env)->atoms;
    ERL_NIF_TERM list = enif_make_list(env, 0);
    struct relation *r;
    for (uint32_t i = m->n; i-- > 0;) {
        enum cw_err err = find_relation(d, cw_load32be(m->relations.p + 4 * (size_t)i), &r);
        if (err)
            return err;
        list = enif_make_list_cell(env, r->term, list);
    }
    d->values.work += m->n;
    *term =
        make_struct(d, PG_WAL_TRUNCATE,
                    (ERL_NIF_TERM[]){list, m->flags & CW_PG_CASCADE ? a->a_true : a->a_false,
                                     m->flags & CW_PG_RESTART_IDENTITY ? a->a_true : a->a_false});
    return CW_OK;
}

static enum cw_err make_logical(struct decode *d, const struct cw_pg_logical *m,
                                ERL_NIF_TERM *term) {
    ErlNifEnv *env = d->values.env;
    const struct nif_atoms *a = &nif_lib(env)->atoms;
    ERL_NIF_TERM content;
    d->values.work += m->prefix.n / VALUE_BYTES;
    enum cw_err err = make_text(d, d->text, m->content, &content);
    if (!err)
        *term =
            make_struct(d, PG_WAL_MESSAGE,
                        (ERL_NIF_TERM[]){m->flags & CW_PG_TRANSACTIONAL ? a->a_true : a->a_false,
                                         enif_make_uint64(env, m->lsn),
                                         nif_make_binary(env, m->prefix), content});
    return err;
}

static enum cw_err make_message(struct decode *d, const struct cw_pg_message *m,
                                ERL_NIF_TERM *term) {
    switch (m->type) {
    case CW_PG_INSERT:
    case CW_PG_UPDATE:
    case CW_PG_DELETE:
        return make_change(d, m, term);
    case CW_PG_TRUNCATE:
        return make_truncate(d, &m->as.truncate, term);
    case CW_PG_MESSAGE:
        return make_logical(d, &m->as.logical, term);
    default:
        return CW_EMALFORMED;
    }
}

/* ---- schema ---- */

static ERL_NIF_TERM make_columns(ErlNifEnv *env, const struct cw_pg_relation *m) {
    const struct nif_atoms *a = &nif_lib(env)->atoms;
    ERL_NIF_TERM list = enif_make_list(env, 0), reversed;
    const uint8_t *p = m->columns.p;
    for (uint32_t i = 0; i < m->n; i++) {
        struct cw_pg_column c = cw_pg_column_next(&p);
        ERL_NIF_TERM column = enif_make_tuple4(
            env, c.flags & CW_PG_KEY ? a->a_true : a->a_false, nif_make_binary(env, c.name),
            enif_make_uint(env, c.type), enif_make_int(env, c.modifier));
        list = enif_make_list_cell(env, column, list);
    }
    enif_make_reverse_list(env, list, &reversed);
    return reversed;
}

static ERL_NIF_TERM make_relation(ErlNifEnv *env, uint64_t arrival,
                                  const struct cw_pg_relation *m) {
    return enif_make_tuple7(env, ATOM(env, relation), enif_make_uint64(env, arrival),
                            enif_make_uint(env, m->oid), nif_make_binary(env, m->schema),
                            nif_make_binary(env, m->name),
                            enif_make_uint(env, (uint8_t)m->identity), make_columns(env, m));
}

static ERL_NIF_TERM make_typename(ErlNifEnv *env, const struct cw_pg_typename *m) {
    return enif_make_tuple4(env, ATOM(env, type), enif_make_uint(env, m->oid),
                            nif_make_binary(env, m->schema), nif_make_binary(env, m->name));
}

/* Sets `schema` when the message describes a relation or a type. */
static enum cw_err parse(ErlNifEnv *env, struct cw_bytes s, struct cw_pg_message *m,
                         ERL_NIF_TERM *schema) {
    uint64_t arrival = 0;
    bool relation = s.n > CW_ARRIVAL && s.p[0] == CW_FRAME_RELATION;
    if (relation) {
        arrival = cw_load64be(s.p + 1);
        s = cw_bytes(s.p + CW_ARRIVAL, s.n - CW_ARRIVAL);
    }
    if (cw_pg_parse(s, false, m) || relation != (m->type == CW_PG_RELATION))
        return CW_EMALFORMED;
    if (relation)
        *schema = make_relation(env, arrival, &m->as.relation);
    else if (m->type == CW_PG_TYPE)
        *schema = make_typename(env, &m->as.typename);
    return CW_OK;
}

/* ---- blocks ---- */

/* The changes of the block at hand; the memory serves for all blocks. */
struct items {
    ERL_NIF_TERM *at;
    size_t n;
    size_t cap;
};

/* A message has at least this many bytes, with its length. */
#define MESSAGE_LEAST 5u

/* Room for a block's messages; that it has more bytes than a block that says so many could have, is
 * found out on the way. */
static enum cw_err clear_items(struct items *items, const struct cw_block *b, size_t bytes) {
    size_t n = bytes / MESSAGE_LEAST < b->messages ? bytes / MESSAGE_LEAST : b->messages;
    items->n = 0;
    if (n <= items->cap)
        return CW_OK;
    enif_free(items->at);
    items->cap = n;
    items->at = enif_alloc(n * sizeof *items->at);
    return items->at ? CW_OK : CW_ENOMEM;
}

/* Decodes messages until there are no more, a schema comes, or the work is enough; `next` is left
 * before the first message that was not taken. */
static enum cw_err decode_messages(struct decode *d, struct cw_reader *next, struct items *items,
                                   enum stop *stop, ERL_NIF_TERM *schema) {
    *stop = END;
    while (cw_reader_left(next) && *stop == END) {
        struct cw_reader r = *next;
        struct cw_pg_message m;
        struct cw_bytes s = cw_block_message(&r);
        enum cw_err err = r.err ? CW_EMALFORMED : parse(d->values.env, s, &m, schema);
        if (!err && *schema)
            *stop = SCHEMA;
        else if (!err)
            err =
                items->n < items->cap ? make_message(d, &m, &items->at[items->n++]) : CW_EMALFORMED;
        d->values.work += CHANGE_WORK;
        if (err)
            return err;
        *next = r;
        if (is_enough(&d->values) && cw_reader_left(next) && *stop == END)
            *stop = MORE;
    }
    return CW_OK;
}

static ERL_NIF_TERM make_list(ErlNifEnv *env, const struct items *items) {
    ERL_NIF_TERM list = enif_make_list(env, 0);
    for (size_t i = items->n; i-- > 0;)
        list = enif_make_list_cell(env, items->at[i], list);
    return list;
}

static enum cw_err make_time(struct decode *d, int64_t time, ERL_NIF_TERM *term) {
    static const struct pg_node node = {.kind = PG_TIMESTAMPTZ, .precision = 6};
    uint8_t bytes[8];
    cw_store64be(bytes, (uint64_t)time);
    d->values.codec = d->text;
    return pg_get_timestamptz(&d->values, &node, cw_bytes(bytes, 8), 0, term);
}

static ERL_NIF_TERM make_origin(ErlNifEnv *env, const struct cw_block *b) {
    if (!b->origin.n)
        return ATOM(env, nil);
    return enif_make_tuple2(env, nif_make_binary(env, b->origin),
                            enif_make_uint64(env, b->origin_lsn));
}

static enum cw_err make_block(struct decode *d, const struct cw_block *b, size_t bytes,
                              const struct items *items, ERL_NIF_TERM *term) {
    ErlNifEnv *env = d->values.env;
    ERL_NIF_TERM time = ATOM(env, nil);
    enum cw_err err = b->flags & CW_BLOCK_MESSAGE ? CW_OK : make_time(d, b->commit_time, &time);
    *term = enif_make_tuple8(env, enif_make_uint(env, b->flags), enif_make_uint(env, b->xid),
                             enif_make_uint64(env, b->commit_lsn),
                             enif_make_uint64(env, b->end_lsn), time, make_origin(env, b),
                             enif_make_uint64(env, bytes), make_list(env, items));
    return err;
}

/* ---- the call ---- */

/* A place in the frame. */
struct place {
    size_t block;
    size_t message;
};

static size_t offset(const struct decode *d, const uint8_t *p) {
    return (size_t)(p - d->values.base);
}

/* Sets the reader of a block's messages to the one that is to be decoded next. */
static bool resume(const struct decode *d, struct place from, struct cw_reader *messages) {
    if (from.message < offset(d, messages->p) || from.message > offset(d, messages->end))
        return false;
    messages->p = d->values.base + from.message;
    return true;
}

/* Decodes one block, or the rest of it, or a part of that; `at` becomes the place of what is next.
 */
static enum cw_err decode_block(struct decode *d, struct cw_reader *blocks, struct place *at,
                                struct items *items, enum stop *stop, ERL_NIF_TERM *schema,
                                ERL_NIF_TERM *term) {
    struct cw_block b;
    struct cw_reader messages;
    if (!cw_block_next(blocks, &b, &messages))
        return CW_EMALFORMED;
    if (at->message && !resume(d, *at, &messages))
        return CW_EMALFORMED;
    if (at->message)
        b.flags &= (uint8_t)~CW_BLOCK_FIRST;
    const uint8_t *from = messages.p;
    d->streamed = b.flags & CW_BLOCK_STREAMED;
    enum cw_err err = clear_items(items, &b, cw_reader_left(&messages));
    if (!err)
        err = decode_messages(d, &messages, items, stop, schema);
    if (err)
        return err;
    if (*stop != END) {
        b.flags &= (uint8_t)~CW_BLOCK_LAST;
        b.end_lsn = 0;
        at->message = offset(d, messages.p);
    } else {
        at->block = offset(d, blocks->p);
        at->message = 0;
        if (d->streamed && b.flags & CW_BLOCK_LAST)
            *stop = MORE;
    }
    return make_block(d, &b, (size_t)(messages.p - from), items, term);
}

static ERL_NIF_TERM make_result(struct decode *d, enum stop stop, ERL_NIF_TERM blocks,
                                ERL_NIF_TERM schema, struct place at) {
    ErlNifEnv *env = d->values.env;
    ERL_NIF_TERM list, block = enif_make_uint64(env, at.block);
    ERL_NIF_TERM message = enif_make_uint64(env, at.message);
    enif_make_reverse_list(env, blocks, &list);
    if (stop == END)
        return enif_make_tuple2(env, ATOM(env, done), list);
    if (stop == MORE)
        return enif_make_tuple4(env, ATOM(env, more), list, block, message);
    return enif_make_tuple5(env, ATOM(env, schema), list, schema, block, message);
}

static enum cw_err decode(struct decode *d, struct cw_bytes frame, struct place at,
                          struct items *items, ERL_NIF_TERM *result) {
    struct cw_reader blocks = cw_reader(cw_bytes(frame.p + at.block, frame.n - at.block));
    ERL_NIF_TERM list = enif_make_list(d->values.env, 0), block, schema = 0;
    enum stop stop = END;
    while (cw_reader_left(&blocks) && stop == END) {
        enum cw_err err = decode_block(d, &blocks, &at, items, &stop, &schema, &block);
        if (err)
            return err;
        list = enif_make_list_cell(d->values.env, block, list);
        if (is_enough(&d->values) && stop == END)
            stop = MORE;
    }
    *result = make_result(d, stop, list, schema, at);
    return CW_OK;
}

static ERL_NIF_TERM decode_error(struct decode *d, enum cw_err err) {
    if (err == CW_EKIND && d->reason)
        return enif_make_tuple2(d->values.env, ATOM(d->values.env, error), d->reason);
    return pg_decode_error(&d->values, err);
}

ERL_NIF_TERM nif_pg_wal_decode(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    struct decode d;
    struct cw_bytes frame;
    ErlNifUInt64 block, message;
    ERL_NIF_TERM result = 0;
    d.session = argv[1];
    d.stream = argv[2];
    if (!pg_get_codec(env, argv[0], &d.text) || !enif_is_map(env, d.session) ||
        !enif_is_map(env, d.stream) || !nif_get_bytes(env, argv[3], &frame) ||
        !enif_get_uint64(env, argv[4], &block) || !enif_get_uint64(env, argv[5], &message) ||
        !frame.n || frame.p[0] != CW_FRAME_TAG || block < 1 || block > frame.n)
        return enif_make_badarg(env);
    d.values = pg_decode_begin(env, argv[3], frame);
    d.reason = 0;
    d.space = d.on_stack;
    d.space_n = COLUMNS_ON_STACK;
    memset(d.relations, 0, sizeof d.relations);
    struct items items = {NULL, 0, 0};
    ErlNifTime began = nif_begin(frame.n);
    enum cw_err err =
        decode(&d, frame, (struct place){(size_t)block, (size_t)message}, &items, &result);
    enif_free(items.at);
    if (d.space != d.on_stack)
        enif_free(d.space);
    nif_report(env, began);
    if (err == CW_EBUDGET)
        return nif_go_dirty(env, "pg_wal_decode", nif_pg_wal_decode, argc, argv);
    return err ? decode_error(&d, err) : result;
}
