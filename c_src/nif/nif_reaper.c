#include "nif_reaper.h"

struct job {
    struct job *next;
    struct cw_forest *rest;
};

struct nif_reaper {
    ErlNifTid thread;
    ErlNifMutex *mutex;
    ErlNifCond *cond;
    struct job *jobs;
};

static struct job *take(struct nif_reaper *reaper) {
    enif_mutex_lock(reaper->mutex);
    while (!reaper->jobs)
        enif_cond_wait(reaper->cond, reaper->mutex);
    struct job *jobs = reaper->jobs;
    reaper->jobs = NULL;
    enif_mutex_unlock(reaper->mutex);
    return jobs;
}

static void *run(void *arg) {
    for (;;) {
        for (struct job *job = take(arg), *next; job; job = next) {
            next = job->next;
            cw_forest_drain(job->rest);
            enif_free(job);
        }
    }
    return NULL;
}

static void destroy(struct nif_reaper *reaper) {
    if (reaper->cond)
        enif_cond_destroy(reaper->cond);
    if (reaper->mutex)
        enif_mutex_destroy(reaper->mutex);
    enif_free(reaper);
}

struct nif_reaper *nif_reaper_start(void) {
    struct nif_reaper *reaper = enif_alloc(sizeof *reaper);
    if (!reaper)
        return NULL;
    *reaper = (struct nif_reaper){.mutex = enif_mutex_create("causeway_reaper"),
                                  .cond = enif_cond_create("causeway_reaper")};
    if (reaper->mutex && reaper->cond &&
        enif_thread_create("causeway_reaper", &reaper->thread, run, reaper, NULL) == 0)
        return reaper;
    destroy(reaper);
    return NULL;
}

void nif_reaper_give(struct nif_reaper *reaper, struct cw_forest *rest) {
    struct job *job = enif_alloc(sizeof *job);
    if (!job) { /* better late than never */
        cw_forest_drain(rest);
        return;
    }
    job->rest = rest;
    enif_mutex_lock(reaper->mutex);
    job->next = reaper->jobs;
    reaper->jobs = job;
    enif_cond_signal(reaper->cond);
    enif_mutex_unlock(reaper->mutex);
}
