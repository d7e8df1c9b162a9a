/* Preloaded into a VM: its wall clock goes wrong by as many seconds as stand in the file that
 * WALL_CLOCK names, an int64 in the machine's order, from the moment it stands there. Monotonic
 * time is left alone, as the system does when somebody sets the clock. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define INSTEAD __attribute__((visibility("default")))

static const volatile int64_t *off;

__attribute__((constructor)) static void open_file(void) {
    const char *path = getenv("WALL_CLOCK");
    int fd = path ? open(path, O_RDONLY) : -1;
    if (fd < 0)
        return;
    void *at = mmap(NULL, sizeof *off, PROT_READ, MAP_SHARED, fd, 0);
    if (at != MAP_FAILED)
        off = at;
    close(fd);
}

INSTEAD int clock_gettime(clockid_t clock, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, t);
    if (!result && clock == CLOCK_REALTIME && off)
        t->tv_sec += *off;
    return result;
}

INSTEAD int gettimeofday(struct timeval *restrict t, void *restrict zone) {
    static int (*real)(struct timeval *, void *);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "gettimeofday");
    int result = real(t, zone);
    if (!result && off)
        t->tv_sec += *off;
    return result;
}
