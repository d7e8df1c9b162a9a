#include "cw_spool.h"

/* A record is size:32 xid:32 bytes:size, big-endian like the rest of what is written here. */
#define HEAD 8u

#define CHUNK (256u << 10)
#define WINDOW (256u << 10) /* what is read from the file at once */
#define SKIP_MOST (1u << 20)

struct cw_spool_chunk {
    struct cw_spool_chunk *next;
    size_t n;
    size_t cap;
    uint8_t bytes[];
};

void cw_spool_init(struct cw_spool *spool, const struct cw_mem *mem, const struct cw_spill *spill) {
    *spool = (struct cw_spool){.mem = mem, .spill = spill};
    cw_buf_init(&spool->window, mem, NULL, 0);
}

static void free_chunks(struct cw_spool *spool) {
    for (struct cw_spool_chunk *chunk = spool->first, *next; chunk; chunk = next) {
        next = chunk->next;
        cw_free(spool->mem, chunk);
    }
    spool->first = spool->last = NULL;
    spool->memory = 0;
}

void cw_spool_free(struct cw_spool *spool) {
    free_chunks(spool);
    cw_free(spool->mem, spool->aborted);
    cw_buf_free(&spool->window);
    if (spool->file)
        spool->spill->close(spool->file);
    spool->file = NULL;
}

/* ---- writing ---- */

static uint8_t *reserve(struct cw_spool *spool, size_t n) {
    struct cw_spool_chunk *chunk = spool->last;
    if (!chunk || chunk->cap - chunk->n < n) {
        size_t cap = n > CHUNK ? n : CHUNK;
        chunk = cw_alloc(spool->mem, sizeof *chunk + cap);
        if (!chunk)
            return NULL;
        chunk->next = NULL;
        chunk->n = 0;
        chunk->cap = cap;
        if (spool->last)
            spool->last->next = chunk;
        else
            spool->first = chunk;
        spool->last = chunk;
        spool->memory += cap;
    }
    uint8_t *p = chunk->bytes + chunk->n;
    chunk->n += n;
    return p;
}

enum cw_err cw_spool_add(struct cw_spool *spool, uint32_t xid, struct cw_bytes head,
                         struct cw_bytes rest) {
    uint8_t *p = reserve(spool, HEAD + head.n + rest.n);
    if (!p)
        return CW_ENOMEM;
    cw_store32be(p, (uint32_t)(head.n + rest.n));
    cw_store32be(p + 4, xid);
    if (head.n)
        memcpy(p + HEAD, head.p, head.n);
    if (rest.n)
        memcpy(p + HEAD + head.n, rest.p, rest.n);
    return CW_OK;
}

enum cw_err cw_spool_spill(struct cw_spool *spool) {
    enum cw_err err = spool->file ? CW_OK : spool->spill->open(spool->spill->ctx, &spool->file);
    for (struct cw_spool_chunk *chunk = spool->first; chunk && !err; chunk = chunk->next) {
        err = spool->spill->append(spool->file, cw_bytes(chunk->bytes, chunk->n));
        spool->file_size += chunk->n;
    }
    if (!err)
        free_chunks(spool);
    return err;
}

/* ---- aborted subtransactions ---- */

/* Where `xid` is in the list, or would be. They come mostly in order. */
static uint32_t find(const struct cw_spool *spool, uint32_t xid) {
    uint32_t lo = 0, hi = spool->n_aborted;
    if (hi && spool->aborted[hi - 1] < xid)
        return hi;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (spool->aborted[mid] < xid)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static bool is_aborted(const struct cw_spool *spool, uint32_t xid) {
    uint32_t at = find(spool, xid);
    return at < spool->n_aborted && spool->aborted[at] == xid;
}

static enum cw_err grow_aborted(struct cw_spool *spool) {
    uint32_t cap = spool->cap_aborted ? 2 * spool->cap_aborted : 16;
    uint32_t *at = cw_alloc(spool->mem, (size_t)cap * sizeof *at);
    if (!at)
        return CW_ENOMEM;
    if (spool->n_aborted)
        memcpy(at, spool->aborted, spool->n_aborted * sizeof *at);
    cw_free(spool->mem, spool->aborted);
    spool->aborted = at;
    spool->cap_aborted = cap;
    return CW_OK;
}

enum cw_err cw_spool_abort(struct cw_spool *spool, uint32_t xid) {
    if (is_aborted(spool, xid))
        return CW_OK;
    if (spool->n_aborted == spool->cap_aborted && grow_aborted(spool))
        return CW_ENOMEM;
    uint32_t at = find(spool, xid);
    memmove(spool->aborted + at + 1, spool->aborted + at,
            (spool->n_aborted - at) * sizeof *spool->aborted);
    spool->aborted[at] = xid;
    spool->n_aborted++;
    return CW_OK;
}

/* ---- reading ---- */

/* Has at least `n` bytes of the file in the window, from `window_at` on. */
static enum cw_err fill(struct cw_spool *spool, size_t n) {
    struct cw_buf *w = &spool->window;
    size_t left = w->n - spool->window_at;
    uint64_t rest = spool->file_size - spool->file_at;
    if (left >= n)
        return CW_OK;
    if (n - left > rest)
        return CW_ESPILL;
    if (left)
        memmove(w->p, w->p + spool->window_at, left);
    w->n = left;
    spool->window_at = 0;
    size_t want = n - left > WINDOW ? n - left : WINDOW;
    if (want > rest)
        want = (size_t)rest;
    if (!cw_buf_reserve(w, want))
        return CW_ENOMEM;
    enum cw_err err = spool->spill->read(spool->file, spool->file_at, w->p + w->n, want);
    if (err)
        return err;
    w->n += want;
    spool->file_at += want;
    return CW_OK;
}

static enum cw_err next_in_file(struct cw_spool *spool, uint32_t *xid, struct cw_bytes *record) {
    enum cw_err err = fill(spool, HEAD);
    size_t n = err ? 0 : cw_load32be(spool->window.p + spool->window_at);
    if (!err)
        err = fill(spool, HEAD + n);
    if (err)
        return err;
    const uint8_t *p = spool->window.p + spool->window_at;
    *xid = cw_load32be(p + 4);
    *record = cw_bytes(p + HEAD, n);
    spool->window_at += HEAD + n;
    return CW_OK;
}

static void next_in_memory(struct cw_spool *spool, uint32_t *xid, struct cw_bytes *record) {
    const uint8_t *p = spool->first->bytes + spool->chunk_at;
    *xid = cw_load32be(p + 4);
    *record = cw_bytes(p + HEAD, cw_load32be(p));
    spool->chunk_at += HEAD + record->n;
}

/* Drops the first chunk when it has been read. */
static bool has_memory(struct cw_spool *spool) {
    struct cw_spool_chunk *chunk = spool->first;
    if (chunk && spool->chunk_at == chunk->n) {
        spool->first = chunk->next;
        spool->memory -= chunk->cap;
        spool->chunk_at = 0;
        if (!spool->first)
            spool->last = NULL;
        cw_free(spool->mem, chunk);
    }
    return spool->first != NULL;
}

static bool has_file(const struct cw_spool *spool) {
    return spool->file_at < spool->file_size || spool->window_at < spool->window.n;
}

enum cw_err cw_spool_next(struct cw_spool *spool, struct cw_bytes *record, bool *more) {
    uint32_t xid = 0;
    size_t skipped = 0;
    struct cw_bytes found = {NULL, 0};
    bool skip;
    do {
        enum cw_err err = CW_OK;
        *more = true;
        if (has_file(spool))
            err = next_in_file(spool, &xid, &found);
        else if (has_memory(spool))
            next_in_memory(spool, &xid, &found);
        else
            *more = false;
        if (err)
            return err;
        skip = *more && spool->n_aborted && is_aborted(spool, xid);
        if (skip) {
            skipped += HEAD + found.n;
            found = (struct cw_bytes){NULL, 0};
        }
    } while (skip && skipped < SKIP_MOST);
    *record = found;
    return CW_OK;
}
