#include "doc_terms.h"

#include "../../c_src/core/cw_term.h"
#include "check.h"

/* Made once and kept: they live as long as the program. */
static struct cw_bytes fields[FIELDS], elements[ELEMENTS], replicas[REPLICAS];

static struct cw_buf new_term(void) {
    struct cw_buf buf;
    cw_buf_init(&buf, &cw_mem_std, NULL, 0);
    return buf;
}

static struct cw_bytes an_int(int64_t v) {
    struct cw_buf buf = new_term();
    cw_put_int(&buf, CW_KEY, v);
    return cw_buf_slice(&buf, 0);
}

static struct cw_bytes a_string(enum cw_term_type type, const void *p, size_t n) {
    struct cw_buf buf = new_term();
    cw_put_string(&buf, CW_KEY, type, cw_bytes(p, n));
    return cw_buf_slice(&buf, 0);
}

static struct cw_bytes a_long_binary(size_t n) {
    static uint8_t space[5000];
    memset(space, 'z', sizeof space);
    return a_string(CW_T_BINARY, space, n);
}

static struct cw_bytes a_compound(enum cw_term_type type) {
    struct cw_buf buf = new_term();
    cw_put_open(&buf, CW_KEY, type, 2);
    for (int i = 0; i < (type == CW_T_MAP ? 4 : 2); i++)
        cw_put_int(&buf, CW_KEY, i * 255);
    cw_put_close(&buf, CW_KEY);
    return cw_buf_slice(&buf, 0);
}

static struct cw_bytes a_simple(enum cw_term_type type) {
    struct cw_buf buf = new_term();
    cw_put_simple(&buf, CW_KEY, type);
    return cw_buf_slice(&buf, 0);
}

static struct cw_bytes a_float(double v) {
    struct cw_buf buf = new_term();
    cw_put_float(&buf, CW_KEY, v);
    return cw_buf_slice(&buf, 0);
}

static void make_fields(void) {
    fields[0] = an_int(-1);
    fields[1] = an_int(255);
    fields[2] = a_string(CW_T_ATOM, "a", 1);
    fields[3] = a_string(CW_T_BINARY, "x\0y", 3);
    fields[4] = a_long_binary(300);
    fields[5] = a_compound(CW_T_TUPLE);
    for (int i = 1; i < FIELDS; i++)
        CHECK(cw_bytes_cmp(fields[i - 1], fields[i]) < 0);
}

static void make_elements(void) {
    elements[0] = a_simple(CW_T_NIL);
    elements[1] = an_int(-256);
    elements[2] = an_int(65535);
    elements[3] = a_float(-1.5);
    elements[4] = a_string(CW_T_ATOM, "\xc3\xa9", 2);
    elements[5] = a_string(CW_T_BINARY, "", 0);
    elements[6] = a_string(CW_T_BINARY, "\0", 1);
    elements[7] = a_string(CW_T_BINARY, "\xff\xff", 2);
    elements[8] = a_long_binary(3000);
    elements[9] = a_compound(CW_T_TUPLE);
    elements[10] = a_compound(CW_T_LIST);
    elements[11] = a_compound(CW_T_MAP);
    for (int i = 12; i < ELEMENTS; i++)
        elements[i] = i < LONG_ELEMENTS ? an_int(i) : a_long_binary((size_t)(4000 + i));
}

/* The first name of a series whose id has this high byte. */
static struct cw_bytes name_with(int high) {
    struct cw_buf buf = new_term();
    char name[24];
    for (int i = 0;; i++) {
        int n = snprintf(name, sizeof name, "replica %d", i);
        buf.n = 0;
        cw_put_string(&buf, CW_KEY, CW_T_BINARY, cw_bytes(name, (size_t)n));
        if (cw_name_id(cw_buf_slice(&buf, 0)) >> 56 == (uint64_t)high)
            return cw_buf_slice(&buf, 0);
    }
}

static void make_replicas(void) {
    static const char *const names[] = {"paris", "oslo", "rome"};
    replicas[0] = name_with(0xff);
    replicas[1] = name_with(0x00);
    replicas[2] = name_with(0x80);
    for (size_t i = 0; i < 3; i++)
        replicas[3 + i] = a_string(CW_T_ATOM, names[i], strlen(names[i]));
    replicas[6] = a_long_binary(1000);
    replicas[7] = a_string(CW_T_BINARY, "a\0b", 3);
}

static void make_all(void) {
    if (fields[0].p)
        return;
    make_fields();
    make_elements();
    make_replicas();
}

struct cw_bytes term_field(int field) {
    make_all();
    return fields[field];
}

struct cw_bytes term_element(int element) {
    make_all();
    return elements[element];
}

struct cw_bytes term_replica(int replica) {
    make_all();
    return replicas[replica];
}

uint64_t term_replica_id(int replica) {
    static uint64_t ids[REPLICAS];
    if (!ids[replica])
        ids[replica] = cw_name_id(term_replica(replica));
    return ids[replica];
}

int term_replica_of(uint64_t id) {
    for (int i = 0; i < REPLICAS; i++)
        if (term_replica_id(i) == id)
            return i;
    return -1;
}

/* Now and then a binary that no stack buffer holds. */
struct cw_bytes term_value(int value, uint8_t *space) {
    struct cw_buf buf;
    uint8_t long_one[300] = {0};
    cw_buf_init(&buf, &cw_mem_std, space, TERM_VALUE_MAX);
    cw_store32le(long_one, (uint32_t)value);
    if (value % 7 == 3)
        cw_put_string(&buf, CW_VALUE, CW_T_BINARY, cw_bytes(long_one, sizeof long_one));
    else
        cw_put_int(&buf, CW_VALUE, value - 100);
    CHECK(buf.p == space);
    return cw_buf_slice(&buf, 0);
}
