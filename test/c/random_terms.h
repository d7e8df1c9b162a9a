/* Random terms that like borders: byte lengths of integers, escapes in strings, odd floats,
 * nesting. */
#ifndef CW_TEST_RANDOM_TERMS_H
#define CW_TEST_RANDOM_TERMS_H

#include "check.h"
#include "terms.h"

static inline struct term *random_integer(void) {
    uint8_t m[12];
    size_t n = check_below(check_below(3) ? 4 : sizeof m + 1);
    uint64_t style = check_below(4);
    for (size_t i = 0; i < n; i++)
        m[i] = style == 0   ? 0xff
               : style == 1 ? (uint8_t)(i ? 0 : 1 << check_below(8))
                            : (uint8_t)check_random();
    if (n && style < 2 && check_below(2))
        m[n - 1] += (uint8_t)check_below(3) - 1;
    return term_big(check_below(2), m, n);
}

static inline double random_double(void) {
    static const double odd[] = {0.0,      -0.0,      1.0,     -1.0,     0.5,  5e-324, -5e-324,
                                 2.2e-308, -2.2e-308, 1.7e308, -1.7e308, 1e16, 3.0};
    if (check_below(2))
        return odd[check_below(sizeof odd / sizeof odd[0])];
    double v;
    do {
        uint64_t bits = check_random();
        memcpy(&v, &bits, 8);
    } while (v - v != 0);
    return v;
}

static inline struct term *random_binary(void) {
    static const uint8_t few[] = {0, 1, 2, 3, 'a', 0x7f, 0x80, 0xfe, 0xff};
    uint8_t s[40];
    size_t n = check_below(check_below(4) ? 6 : sizeof s + 1);
    bool wild = check_below(3) == 0;
    for (size_t i = 0; i < n; i++)
        s[i] = wild ? (uint8_t)check_random() : few[check_below(sizeof few)];
    return term_string(CW_T_BINARY, s, n);
}

static inline struct term *random_atom(void) {
    static const char *const chars[] = {"a",       "b",        "\x01",         "\x02",
                                        "z",       "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x8c\x8a",
                                        "Elixir.", "nil",      "true"};
    char s[80];
    size_t n = 0;
    for (uint64_t k = check_below(6); k > 0; k--) {
        const char *c = chars[check_below(sizeof chars / sizeof chars[0])];
        memcpy(s + n, c, strlen(c));
        n += strlen(c);
        if (check_below(8) == 0)
            s[n++] = 0;
    }
    if ((n == 3 && !memcmp(s, "nil", 3)) || (n == 4 && !memcmp(s, "true", 4)))
        s[n++] = '_';
    return term_string(CW_T_ATOM, s, n);
}

static inline struct term *random_term(int depth) {
    uint64_t kind = check_below(depth > 0 ? 11 : 8);
    if (kind < 3)
        return kind == 0 ? term_new((enum cw_term_type)check_below(3)) : random_integer();
    if (kind < 8)
        return kind == 3   ? term_float(random_double())
               : kind == 4 ? random_atom()
                           : random_binary();
    enum cw_term_type type = kind == 8 ? CW_T_TUPLE : kind == 9 ? CW_T_LIST : CW_T_MAP;
    struct term *t = term_open(type, check_below(4) * (type == CW_T_MAP ? 2 : 1));
    for (size_t i = 0; i < t->count; i++)
        t->at[i] = random_term(depth - 1);
    if (type == CW_T_MAP)
        term_tidy_map(t);
    return t;
}

#endif
