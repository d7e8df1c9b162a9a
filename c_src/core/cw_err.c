#include "cw_err.h"

struct row {
    const char *name;
    const char *sentence;
};

static const struct row rows[] = {
#define X(name, number, sentence) [number] = {#name, sentence},
    CW_ERR_MAP(X)
#undef X
};

static const struct row *find(enum cw_err err) {
    static const struct row unknown = {"UNKNOWN", "unknown error"};
    if ((unsigned)err < sizeof rows / sizeof rows[0] && rows[err].name)
        return &rows[err];
    return &unknown;
}

const char *cw_err_name(enum cw_err err) {
    return find(err)->name;
}

const char *cw_err_sentence(enum cw_err err) {
    return find(err)->sentence;
}
