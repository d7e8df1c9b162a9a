#include "cw_pending.h"

#include <stdatomic.h>

/* Edit i is `bytes` from ends[i - 1] (0 for the first) to ends[i]: klen u16 | del u8 | key |
 * payload. */
#define EDIT_HEAD 3u

struct cw_pending_log {
    const struct cw_mem *mem;
    atomic_uint refs;
    atomic_uint used; /* edits; whoever moves it from its own number on owns those in between */
    uint64_t hashes[CW_PENDING_MAX]; /* of keys */
    uint32_t ends[CW_PENDING_MAX];
    uint8_t bytes[CW_PENDING_BYTES];
};

struct cw_pending cw_pending_retain(const struct cw_pending *pending) {
    if (pending->log)
        atomic_fetch_add_explicit(&pending->log->refs, 1, memory_order_relaxed);
    return *pending;
}

void cw_pending_release(struct cw_pending *pending) {
    struct cw_pending_log *log = pending->log;
    if (log && atomic_fetch_sub(&log->refs, 1) == 1)
        cw_free(log->mem, log);
    *pending = (struct cw_pending){NULL, 0, 0, false};
}

size_t cw_pending_bytes(const struct cw_pending *pending) {
    return pending->log ? sizeof *pending->log : 0;
}

/* ---- reading ---- */

static struct cw_edit edit_at(const struct cw_pending_log *log, uint32_t i) {
    const uint8_t *p = log->bytes + (i ? log->ends[i - 1] : 0), *end = log->bytes + log->ends[i];
    size_t klen = (size_t)p[0] | (size_t)p[1] << 8;
    const uint8_t *key = p + EDIT_HEAD;
    return (struct cw_edit){cw_bytes(key, klen), cw_bytes(key + klen, (size_t)(end - key) - klen),
                            p[2]};
}

bool cw_pending_find(const struct cw_pending *pending, struct cw_bytes key, struct cw_edit *edit) {
    if (!pending->n)
        return false;
    uint64_t hash = cw_hash_key(key);
    for (uint32_t i = pending->n; i-- > 0;) {
        if (pending->log->hashes[i] != hash)
            continue;
        *edit = edit_at(pending->log, i);
        if (cw_bytes_eq(edit->key, key))
            return true;
    }
    return false;
}

bool cw_pending_puts_below(const struct cw_pending *pending, struct cw_bytes prefix) {
    for (uint32_t i = pending->n; i-- > 0;) {
        struct cw_edit e = edit_at(pending->log, i), last;
        if (!e.del && cw_bytes_has_prefix(e.key, prefix) &&
            (!pending->dels || (cw_pending_find(pending, e.key, &last) && !last.del)))
            return true;
    }
    return false;
}

/* Where `key` stands, or belongs, among sorted edits. */
static size_t lower(const struct cw_edit *edits, size_t n, struct cw_bytes key, bool *found) {
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = cw_bytes_cmp(edits[mid].key, key);
        if (c == 0) {
            *found = true;
            return mid;
        }
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    *found = false;
    return lo;
}

size_t cw_pending_edits(const struct cw_pending *pending, struct cw_edit *edits) {
    size_t n = 0;
    for (uint32_t i = 0; i < pending->n; i++) {
        struct cw_edit e = edit_at(pending->log, i);
        bool found;
        size_t at = lower(edits, n, e.key, &found);
        if (!found)
            memmove(edits + at + 1, edits + at, (n++ - at) * sizeof *edits);
        edits[at] = e;
    }
    return n;
}

/* ---- adding ---- */

static bool ensure_log(struct cw_pending *pending, const struct cw_mem *mem) {
    if (pending->log)
        return true;
    struct cw_pending_log *log = cw_alloc(mem, sizeof *log);
    if (!log)
        return false;
    log->mem = mem;
    atomic_init(&log->refs, 1);
    atomic_init(&log->used, 0);
    *pending = (struct cw_pending){log, 0, 0, false};
    return true;
}

static void put_edit(struct cw_pending *pending, const struct cw_edit *e) {
    struct cw_pending_log *log = pending->log;
    uint8_t *p = log->bytes + pending->bytes;
    *p++ = (uint8_t)e->key.n;
    *p++ = (uint8_t)(e->key.n >> 8);
    *p++ = e->del;
    memcpy(p, e->key.p, e->key.n);
    p += e->key.n;
    if (!e->del && e->payload.n) {
        memcpy(p, e->payload.p, e->payload.n);
        p += e->payload.n;
    }
    log->hashes[pending->n] = cw_hash_key(e->key);
    pending->bytes = (uint32_t)(p - log->bytes);
    log->ends[pending->n++] = pending->bytes;
    pending->dels |= e->del;
}

bool cw_pending_add(struct cw_pending *pending, const struct cw_mem *mem,
                    const struct cw_edit *edits, size_t n) {
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++)
        bytes += EDIT_HEAD + edits[i].key.n + (edits[i].del ? 0 : edits[i].payload.n);
    if (n > CW_PENDING_MAX - pending->n || bytes > CW_PENDING_BYTES - pending->bytes ||
        !ensure_log(pending, mem))
        return false;
    unsigned used = pending->n;
    if (!atomic_compare_exchange_strong(&pending->log->used, &used, used + (unsigned)n))
        return false;
    for (size_t i = 0; i < n; i++)
        put_edit(pending, &edits[i]);
    return true;
}
