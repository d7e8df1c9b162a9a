/* Erlang has no lock on a file that outlives neither the process nor a crash of the VM. */
#define _DEFAULT_SOURCE /* flock */
#define _DARWIN_C_SOURCE
#include "nif_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

#define PATH_MOST 4096u

struct nif_lock {
    int fd; /* -1 while there is none */
};

void nif_lock_destroy(ErlNifEnv *env, void *obj) {
    struct nif_lock *lock = obj;
    (void)env;
    if (lock->fd >= 0)
        close(lock->fd); /* which unlocks */
}

static ERL_NIF_TERM posix_error(ErlNifEnv *env, int code) {
    const char *name = code == EWOULDBLOCK ? "locked"
                       : code == EACCES    ? "eacces"
                       : code == EPERM     ? "eperm"
                       : code == ENOENT    ? "enoent"
                       : code == ENOTDIR   ? "enotdir"
                       : code == EROFS     ? "erofs"
                       : code == ENOSPC    ? "enospc"
                       : code == EDQUOT    ? "edquot"
                       : code == EMFILE    ? "emfile"
                       : code == ENFILE    ? "enfile"
                       : code == ENOLCK    ? "enolck"
                                           : "eio";
    return enif_make_tuple2(env, ATOM(env, error), enif_make_atom(env, name));
}

/* The open, locked file, or -1 with `errno` set. */
static int open_locked(const char *path) {
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return fd;
    int code = errno;
    close(fd);
    errno = code;
    return -1;
}

/* (Path): makes the file if need be. The lock is held until the term it returns is collected. */
ERL_NIF_TERM nif_file_lock(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    ErlNifBinary path;
    char name[PATH_MOST];
    (void)argc;
    if (!enif_inspect_binary(env, argv[0], &path) || path.size >= sizeof name ||
        memchr(path.data, 0, path.size))
        return enif_make_badarg(env);
    memcpy(name, path.data, path.size);
    name[path.size] = 0;
    struct nif_lock *lock = enif_alloc_resource(nif_lib(env)->lock_type, sizeof *lock);
    if (!lock)
        return nif_error(env, CW_ENOMEM);
    lock->fd = open_locked(name);
    ERL_NIF_TERM term = lock->fd < 0
                            ? posix_error(env, errno)
                            : enif_make_tuple2(env, ATOM(env, ok), enif_make_resource(env, lock));
    enif_release_resource(lock);
    return term;
}
