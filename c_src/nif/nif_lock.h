/* A lock on a file, which the system lets go when the VM dies, however that comes. */
#ifndef NIF_LOCK_H
#define NIF_LOCK_H

#include "nif_env.h"

nif_fn nif_file_lock;

void nif_lock_destroy(ErlNifEnv *env, void *obj);

#endif
