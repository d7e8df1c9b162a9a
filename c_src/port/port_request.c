#include "port_request.h"

#include "port_frame.h"

#define ARRAY_LENGTH(a) (sizeof(a) / sizeof *(a))

#define X(name) #name,
static const char *const requests[] = {PORT_REQUESTS(X)};
static const char *const steps_by_op[] = {PORT_STEPS(X)};
#undef X

/* Where a name is in a list, or -1. */
static int find(const char *const *names, size_t n, struct cw_bytes name) {
    for (size_t i = 0; i < n; i++)
        if (strlen(names[i]) == name.n && memcmp(names[i], name.p, name.n) == 0)
            return (int)i;
    return -1;
}

bool port_request_read(struct cw_bytes frame, struct port_request *request) {
    if (frame.n < 9)
        return false;
    struct port_request r = {.id = port_load32(frame.p), .timeout = port_load32(frame.p + 4)};
    if (frame.p[8] == PORT_BODY_COPY) {
        r.op = PORT_copy_data;
        r.data = cw_bytes(frame.p + 9, frame.n - 9);
        *request = r;
        return true;
    }
    r.rest = port_term_read(cw_bytes(frame.p + 8, frame.n - 8));
    uint32_t arity = port_term_tuple(&r.rest);
    int op = find(requests, ARRAY_LENGTH(requests), port_term_atom(&r.rest));
    if (r.rest.bad || op < 0)
        return false;
    r.op = (enum port_op)op;
    r.args = arity - 1;
    *request = r;
    return true;
}

/* ---- connect ---- */

void port_next_pair(struct port_pairs *pairs, struct cw_bytes *key, struct cw_bytes *value) {
    if (port_term_tuple(&pairs->rest) != 2)
        pairs->rest.bad = true;
    *key = port_term_text(&pairs->rest);
    *value = port_term_text(&pairs->rest);
}

bool port_read_connect(const struct port_request *request, struct port_pairs *pairs) {
    struct port_term t = request->rest;
    struct cw_bytes key, value;
    uint32_t n = port_term_list(&t);
    struct port_pairs all = {n, t}, walk = all;
    for (uint32_t i = 0; i < all.n; i++)
        port_next_pair(&walk, &key, &value);
    port_term_list_end(&walk.rest, all.n);
    if (request->args != 1 || !port_term_done(&walk.rest))
        return false;
    *pairs = all;
    return true;
}

/* ---- run ---- */

int32_t port_next_value(struct cw_bytes *params, const char **value) {
    int32_t n = (int32_t)port_load32(params->p);
    size_t taken = 4 + (n < 0 ? 0 : (size_t)n);
    *value = n < 0 ? NULL : (const char *)params->p + 4;
    *params = cw_bytes(params->p + taken, params->n - taken);
    return n;
}

/* Whether there are values and formats of as many parameters, and a text has no zero byte in it. */
static bool values_good(const struct port_step *step) {
    struct cw_bytes left = step->params;
    for (size_t i = 0; i < step->formats.n; i++) {
        if (left.n < 4 || step->formats.p[i] > 1)
            return false;
        int32_t n = (int32_t)port_load32(left.p);
        if (n < -1 || (n > 0 && (size_t)n > left.n - 4))
            return false;
        const char *value;
        port_next_value(&left, &value);
        if (n > 0 && !step->formats.p[i] && memchr(value, 0, (size_t)n))
            return false;
    }
    return left.n == 0 && step->formats.n <= PORT_PARAMS;
}

static bool types_good(const struct port_step *step) {
    return step->types.n % 4 == 0 && step->types.n / 4 <= PORT_PARAMS;
}

static void read_values(struct port_term *t, struct port_step *step) {
    step->params = port_term_binary(t);
    step->formats = port_term_binary(t);
    uint32_t binary = port_term_uint(t);
    step->binary = binary == 1;
    if (binary > 1)
        t->bad = true;
}

static uint32_t arity_of(enum port_step_op op) {
    switch (op) {
    case PORT_STEP_prepare:
        return 4;
    case PORT_STEP_execute:
        return 5;
    case PORT_STEP_query:
        return 6;
    case PORT_STEP_sync:
        return 1;
    default:
        return 2;
    }
}

static void read_step_args(struct port_term *t, struct port_step *step) {
    switch (step->op) {
    case PORT_STEP_prepare:
        step->name = port_term_text(t);
        step->sql = port_term_text(t);
        step->types = port_term_binary(t);
        break;
    case PORT_STEP_execute:
        step->name = port_term_text(t);
        read_values(t, step);
        break;
    case PORT_STEP_query:
        step->sql = port_term_text(t);
        step->types = port_term_binary(t);
        read_values(t, step);
        break;
    case PORT_STEP_simple:
        step->sql = port_term_text(t);
        break;
    case PORT_STEP_describe:
    case PORT_STEP_close:
        step->name = port_term_text(t);
        break;
    case PORT_STEP_sync:
        break;
    }
}

void port_next_step(struct port_steps *steps, struct port_step *step) {
    struct port_term *t = &steps->rest;
    uint32_t arity = port_term_tuple(t);
    int op = find(steps_by_op, ARRAY_LENGTH(steps_by_op), port_term_atom(t));
    *step = (struct port_step){.op = op < 0 ? PORT_STEP_sync : (enum port_step_op)op};
    if (op < 0 || arity != arity_of(step->op))
        t->bad = true;
    else
        read_step_args(t, step);
}

static bool step_good(const struct port_step *step, uint32_t of) {
    bool place = step->op == PORT_STEP_simple ? of == 1 : step->op != PORT_STEP_sync || of > 1;
    return place && values_good(step) && types_good(step);
}

bool port_read_run(const struct port_request *request, struct port_steps *steps) {
    struct port_term t = request->rest;
    struct port_steps all = {.n = 0};
    all.credit = port_term_uint(&t);
    all.max_rows = port_term_uint(&t);
    all.n = port_term_list(&t);
    all.rest = t;
    struct port_steps walk = all;
    struct port_step step = {.op = PORT_STEP_sync};
    for (uint32_t i = 0; i < all.n && !walk.rest.bad; i++) {
        port_next_step(&walk, &step);
        if (!step_good(&step, all.n))
            return false;
    }
    port_term_list_end(&walk.rest, all.n);
    if (request->args != 3 || !all.n || !port_term_done(&walk.rest))
        return false;
    *steps = all;
    steps->synced = step.op == PORT_STEP_sync;
    return true;
}

/* ---- the others ---- */

bool port_read_text(const struct port_request *request, struct cw_bytes *text) {
    struct port_term t = request->rest;
    struct cw_bytes s = port_term_text(&t);
    if (request->args != 1 || !port_term_done(&t))
        return false;
    *text = s;
    return true;
}

bool port_read_number(const struct port_request *request, uint32_t *n) {
    struct port_term t = request->rest;
    uint32_t v = port_term_uint(&t);
    if (request->args != 1 || !port_term_done(&t))
        return false;
    *n = v;
    return true;
}

bool port_read_copy_out(const struct port_request *request, struct cw_bytes *sql,
                        uint32_t *credit) {
    struct port_term t = request->rest;
    struct cw_bytes s = port_term_text(&t);
    uint32_t n = port_term_uint(&t);
    if (request->args != 2 || !port_term_done(&t))
        return false;
    *sql = s;
    *credit = n;
    return true;
}

/* ---- replication ---- */

static uint64_t read_lsn(struct port_term *t) {
    struct cw_bytes s = port_term_binary(t);
    if (s.n == 8)
        return cw_load64be(s.p);
    t->bad = true;
    return 0;
}

bool port_read_confirm(const struct port_request *request, uint32_t *credit, uint64_t *lsn) {
    struct port_term t = request->rest;
    uint32_t bytes = port_term_uint(&t);
    uint64_t position = read_lsn(&t);
    if (request->args != 2 || !port_term_done(&t))
        return false;
    *credit = bytes;
    *lsn = position;
    return true;
}

bool port_read_replicate(const struct port_request *request, struct port_replicate *r) {
    struct port_term t = request->rest;
    struct port_replicate got = {.sql = port_term_text(&t)};
    got.start = read_lsn(&t);
    got.credit = port_term_uint(&t);
    got.spool = port_term_uint(&t);
    got.interval = port_term_uint(&t);
    got.patience = port_term_uint(&t);
    got.dir = port_term_text(&t);
    if (request->args != 7 || !port_term_done(&t) || got.interval == 0)
        return false;
    *r = got;
    return true;
}

bool port_read_nothing(const struct port_request *request) {
    return request->args == 0 && port_term_done(&request->rest);
}
