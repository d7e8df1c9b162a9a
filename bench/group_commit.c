/* What the disk gives to a loop that writes a group of records and syncs, on one file: the ceiling
 * for commits that wait for the disk. Arguments: a file, records in a group, bytes of a record.
 * Prints records a second. */
#define _POSIX_C_SOURCE 200809L
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#ifdef __APPLE__
#define fdatasync fsync
#endif

int main(int argc, char **argv) {
    if (argc < 4)
        return 0;
    size_t group = (size_t)atol(argv[2]), size = group * (size_t)atol(argv[3]);
    int fd = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC, 0600);
    char *bytes = malloc(size);
    if (fd < 0 || !bytes)
        return 1;
    memset(bytes, 'x', size);
    double began = now();
    long n = 0;
    for (; now() - began < 2; n++)
        if (write(fd, bytes, size) != (ssize_t)size || fdatasync(fd) != 0)
            return 1;
    printf("%.0f\n", (double)n * (double)group / (now() - began));
    close(fd);
    unlink(argv[1]);
    free(bytes);
    return 0;
}
