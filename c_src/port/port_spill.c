#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* O_TMPFILE */
#endif
#include "port_spill.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "port_mem.h"

struct file {
    struct port_spill *spill;
    int fd;
    uint64_t size;
};

static enum cw_err refused(struct port_spill *spill, const char *what) {
    spill->failed = what;
    spill->error = errno;
    return CW_ESPILL;
}

/* Where the system has no files without a name, or the file system does not. */
static int open_and_unlink(const char *dir) {
    char path[4096];
    int n = snprintf(path, sizeof path, "%s/causeway-XXXXXX", dir);
    if (n < 0 || (size_t)n >= sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    int fd = mkstemp(path);
    if (fd >= 0) {
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        unlink(path);
    }
    return fd;
}

static int open_unnamed(const char *dir) {
#ifdef O_TMPFILE
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
        return fd;
#endif
    return open_and_unlink(dir);
}

static enum cw_err file_open(void *ctx, void **file) {
    int fd = open_unnamed(((struct port_spill *)ctx)->dir);
    if (fd < 0)
        return refused(ctx, "open");
    struct file *f = port_alloc(sizeof *f);
    *f = (struct file){ctx, fd, 0};
    *file = f;
    return CW_OK;
}

static enum cw_err file_append(void *file, struct cw_bytes s) {
    struct file *f = file;
    while (s.n) {
        ssize_t n = pwrite(f->fd, s.p, s.n, (off_t)f->size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return refused(f->spill, "write");
        f->size += (uint64_t)n;
        s = cw_bytes(s.p + n, s.n - (size_t)n);
    }
    return CW_OK;
}

static enum cw_err file_read(void *file, uint64_t at, void *p, size_t n) {
    struct file *f = file;
    uint8_t *to = p;
    while (n) {
        ssize_t got = pread(f->fd, to, n, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got == 0)
            errno = EIO; /* shorter than what was written */
        if (got <= 0)
            return refused(f->spill, "read");
        to += got;
        at += (uint64_t)got;
        n -= (size_t)got;
    }
    return CW_OK;
}

static void file_close(void *file) {
    struct file *f = file;
    close(f->fd);
    port_free(f);
}

struct cw_spill port_spill_callbacks(struct port_spill *spill) {
    return (struct cw_spill){spill, file_open, file_append, file_read, file_close};
}
