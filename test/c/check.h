/* The smallest test harness that does the job: named tests, seeded random numbers, an allocator
 * that counts and fails on request. Each test program prints one line a test and exits 1 on
 * failure.
 *
 *     CW_SEED=n    the seed (printed by every run)        CW_ROUNDS=n   multiplies random rounds */
#ifndef CW_CHECK_H
#define CW_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "../../c_src/core/cw_mem.h"

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond))                                                                               \
            check_failed(__FILE__, __LINE__, #cond);                                               \
    } while (0)

#define CHECK_OK(call)                                                                             \
    do {                                                                                           \
        int check_err_ = (int)(call);                                                              \
        if (check_err_)                                                                            \
            check_failed_code(__FILE__, __LINE__, #call, check_err_);                              \
    } while (0)

struct check_test {
    const char *name;
    void (*run)(void);
};

_Noreturn void check_failed(const char *file, int line, const char *what);
_Noreturn void check_failed_code(const char *file, int line, const char *what, int err);

/* Runs all, or those whose names contain argv[1]. */
int check_main(int argc, char **argv, const char *suite, const struct check_test *tests, size_t n);

/* Of the seed alone. */
uint64_t check_random(void);
static inline uint64_t check_below(uint64_t n) {
    return check_random() % n;
}

/* Scales the number of random rounds. */
int check_rounds(int n);

/* Counts live allocations, and lets `check_mem_fail_after(n)` make the n-th next one fail (and only
 * that one; negative: none). */
extern const struct cw_mem check_mem;
size_t check_mem_live(void);
void check_mem_fail_after(long n);
/* Whether that failure has happened since. */
bool check_mem_failed(void);

#endif
