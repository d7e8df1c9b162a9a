/* Preloaded into a VM: what it does with files fails as the file says that DISK_FAULTS names, as
 * long as it is there. Each line is
 *
 *     CALL ERRNO PATH
 *
 * and lets a call fail with that number on files whose path has PATH in it. Calls are `read`,
 * `write`, `sync`, `truncate`, `rename`, and `half`: a write that does a half of it first, and
 * `lose`: a sync after which what was written since the last one is zeros, which is how systems
 * forget what they could not write. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define INSTEAD __attribute__((visibility("default")))
#define REAL(name) (__extension__(__typeof__(&name)) dlsym(RTLD_NEXT, #name))

/* Without the calls that are replaced here. */
static size_t read_orders(char *text, size_t size) {
    const char *path = getenv("DISK_FAULTS");
    int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0) : -1;
    if (fd < 0)
        return 0;
    ssize_t n = syscall(SYS_read, fd, text, size - 1);
    syscall(SYS_close, fd);
    return n > 0 ? (size_t)n : 0;
}

/* The number that a call on `path` is to fail with, or 0. */
static int fault(const char *call, const char *path) {
    char text[4096], *rest = text;
    text[read_orders(text, sizeof text)] = 0;
    for (char *line; (line = strsep(&rest, "\n"));) {
        char name[16], part[1024];
        int number;
        if (sscanf(line, "%15s %d %1023s", name, &number, part) == 3 && !strcmp(name, call) &&
            strstr(path, part))
            return number;
    }
    return 0;
}

static bool fails_at(const char *call, const char *path) {
    int number = fault(call, path);
    if (number)
        errno = number;
    return number != 0;
}

static bool fails(const char *call, int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n > 0 ? n : 0] = 0;
    return n > 0 && path[0] == '/' && fails_at(call, path);
}

/* ---- writing ---- */

/* The file that has taken the first half of something, plus one. */
static int halved;

/* A short count is no failure: the caller comes again with the rest, and that fails. */
static bool comes_for_the_rest(int fd) {
    bool again = halved == fd + 1;
    halved = again ? 0 : fd + 1;
    return again;
}

INSTEAD ssize_t writev(int fd, const struct iovec *at, int n) {
    if (fails("write", fd))
        return -1;
    if (!fails("half", fd))
        return REAL(writev)(fd, at, n);
    if (comes_for_the_rest(fd))
        return -1;
    return REAL(write)(fd, at->iov_base, (at->iov_len + 1) / 2);
}

INSTEAD ssize_t write(int fd, const void *bytes, size_t n) {
    return fails("write", fd) ? -1 : REAL(write)(fd, bytes, n);
}

INSTEAD ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at) {
    return fails("write", fd) ? -1 : REAL(pwrite)(fd, bytes, n, at);
}

/* PostgreSQL's, of new files of its log. */
INSTEAD ssize_t pwritev(int fd, const struct iovec *at, int n, off_t where) {
    return fails("write", fd) ? -1 : REAL(pwritev)(fd, at, n, where);
}

INSTEAD int ftruncate(int fd, off_t size) {
    return fails("truncate", fd) ? -1 : REAL(ftruncate)(fd, size);
}

/* How long files were when they were synced last. Whoever syncs one of more than there is room for
 * loses all of it. */
static struct {
    dev_t dev;
    ino_t ino;
    off_t size;
} synced[64];

static off_t *synced_size(const struct stat *file) {
    size_t i = 0;
    while (i < 63 && synced[i].ino &&
           !(synced[i].dev == file->st_dev && synced[i].ino == file->st_ino))
        i++;
    if (synced[i].ino != file->st_ino)
        synced[i].size = 0;
    synced[i].dev = file->st_dev;
    synced[i].ino = file->st_ino;
    return &synced[i].size;
}

static int sync_with(int (*real)(int), int fd) {
    struct stat file;
    bool known = !fstat(fd, &file) && S_ISREG(file.st_mode);
    if (fails("sync", fd))
        return -1;
    if (known && fails("lose", fd)) {
        int error = errno;
        if (*synced_size(&file) < file.st_size && !REAL(ftruncate)(fd, *synced_size(&file)))
            known = !REAL(ftruncate)(fd, file.st_size);
        errno = error;
        return -1;
    }
    int result = real(fd);
    if (known && !result)
        *synced_size(&file) = file.st_size;
    return result;
}

INSTEAD int fsync(int fd) {
    return sync_with(REAL(fsync), fd);
}

INSTEAD int fdatasync(int fd) {
    return sync_with(REAL(fdatasync), fd);
}

INSTEAD int rename(const char *from, const char *to) {
    return fails_at("rename", to) ? -1 : REAL(rename)(from, to);
}

/* ---- reading ---- */

INSTEAD ssize_t read(int fd, void *bytes, size_t n) {
    return fails("read", fd) ? -1 : REAL(read)(fd, bytes, n);
}

INSTEAD ssize_t readv(int fd, const struct iovec *at, int n) {
    return fails("read", fd) ? -1 : REAL(readv)(fd, at, n);
}

INSTEAD ssize_t pread(int fd, void *bytes, size_t n, off_t at) {
    return fails("read", fd) ? -1 : REAL(pread)(fd, bytes, n, at);
}
