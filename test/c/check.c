#include "check.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t seed;
static uint64_t state;

void check_failed(const char *file, int line, const char *what) {
    printf("FAILED %s:%d: %s (CW_SEED=%llu)\n", file, line, what, (unsigned long long)seed);
    fflush(stdout);
    abort();
}

void check_failed_code(const char *file, int line, const char *what, int err) {
    printf("FAILED %s:%d: %s returned %d (CW_SEED=%llu)\n", file, line, what, err,
           (unsigned long long)seed);
    fflush(stdout);
    abort();
}

/* SplitMix64. */
uint64_t check_random(void) {
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

int check_rounds(int n) {
    const char *factor = getenv("CW_ROUNDS");
    return factor ? n * atoi(factor) : n;
}

static atomic_size_t live;
static long fail_after = -1;
static bool failed;

static void *counting_alloc(void *ctx, size_t size) {
    (void)ctx;
    if (fail_after >= 0 && fail_after-- == 0) {
        failed = true;
        return NULL;
    }
    void *p = malloc(size ? size : 1);
    if (p)
        atomic_fetch_add(&live, 1);
    return p;
}

static void counting_free(void *ctx, void *p) {
    (void)ctx;
    if (p)
        atomic_fetch_sub(&live, 1);
    free(p);
}

const struct cw_mem check_mem = {counting_alloc, counting_free, NULL};

size_t check_mem_live(void) {
    return atomic_load(&live);
}

void check_mem_fail_after(long n) {
    fail_after = n;
    if (n >= 0)
        failed = false;
}

bool check_mem_failed(void) {
    return failed;
}

int check_main(int argc, char **argv, const char *suite, const struct check_test *tests, size_t n) {
    const char *given = getenv("CW_SEED");
    seed = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL) * 2654435761u;
    int run = 0;
    printf("%s: CW_SEED=%llu\n", suite, (unsigned long long)seed);
    for (size_t i = 0; i < n; i++) {
        if (argc > 1 && !strstr(tests[i].name, argv[1]))
            continue;
        state = seed;
        size_t before = check_mem_live();
        tests[i].run();
        if (check_mem_live() != before)
            check_failed(suite, 0, "memory still allocated after the test");
        printf("ok   %s %s\n", suite, tests[i].name);
        fflush(stdout);
        run++;
    }
    printf("%s: %d passed, 0 failed\n", suite, run);
    return run ? 0 : 1;
}
