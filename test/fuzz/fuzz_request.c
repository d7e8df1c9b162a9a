/* port_request: a frame as it comes from a VM, or from whoever took its place. What the readers
 * accept can be walked to its end, and lies within the frame. */
#include "../../c_src/port/port_request.h"
#include "fuzz.h"

static struct cw_bytes frame;

static void within(struct cw_bytes s) {
    CHECK(s.n == 0 || (s.p >= frame.p && s.n <= (size_t)(frame.p + frame.n - s.p)));
}

static void text_within(struct cw_bytes s) {
    within(s);
    CHECK(s.n == 0 || !memchr(s.p, 0, s.n));
}

static void walk_values(const struct port_step *step) {
    struct cw_bytes left = step->params;
    for (size_t i = 0; i < step->formats.n; i++) {
        const char *value;
        int32_t n = port_next_value(&left, &value);
        CHECK(n >= -1 && (n == -1) == !value);
        if (n >= 0)
            within(cw_bytes(value, (size_t)n));
    }
    CHECK(left.n == 0);
}

static void walk_run(struct port_steps steps) {
    for (uint32_t i = 0; i < steps.n; i++) {
        struct port_step step;
        port_next_step(&steps, &step);
        CHECK(!steps.rest.bad);
        text_within(step.name);
        text_within(step.sql);
        within(step.types);
        walk_values(&step);
    }
}

static void walk_connect(struct port_pairs pairs) {
    for (uint32_t i = 0; i < pairs.n; i++) {
        struct cw_bytes key, value;
        port_next_pair(&pairs, &key, &value);
        CHECK(!pairs.rest.bad);
        text_within(key);
        text_within(value);
    }
}

static void walk_others(const struct port_request *request) {
    struct cw_bytes text;
    struct port_replicate replicate;
    uint32_t n;
    uint64_t lsn;
    if (port_read_text(request, &text) || port_read_copy_out(request, &text, &n))
        text_within(text);
    if (port_read_replicate(request, &replicate))
        text_within(replicate.sql);
    CHECK(!(port_read_number(request, &n) && port_read_nothing(request)));
    port_read_confirm(request, &n, &lsn);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct port_request request;
    struct port_pairs pairs;
    struct port_steps steps;
    frame = cw_bytes(data, size);
    if (!port_request_read(frame, &request))
        return 0;
    within(request.data);
    if (request.op == PORT_copy_data)
        return 0;
    if (port_read_connect(&request, &pairs))
        walk_connect(pairs);
    if (port_read_run(&request, &steps))
        walk_run(steps);
    walk_others(&request);
    return 0;
}
