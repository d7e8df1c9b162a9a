#include "cw_journal.h"

/* An entry: len u32 | n << 1 | net u32 | n * (id u64, from u64, to u64) | touches | len u32. The
 * first one in the pages is the floor: spans from 0, nothing touched. */
#define ENTRY_HEAD 8u
#define ENTRY_TAIL 4u
#define SPAN_SIZE 24u

/* `used` only grows; whoever moves it from its own length on owns the bytes in between. */
struct cw_journal_pages {
    const struct cw_mem *mem;
    atomic_uint refs;
    atomic_size_t used;
    size_t cap;
    uint8_t bytes[];
};

struct cw_journal cw_journal_retain(const struct cw_journal *journal) {
    if (journal->pages)
        atomic_fetch_add_explicit(&journal->pages->refs, 1, memory_order_relaxed);
    return *journal;
}

static void release_pages(struct cw_journal_pages *pages) {
    if (pages && atomic_fetch_sub(&pages->refs, 1) == 1)
        cw_free(pages->mem, pages);
}

void cw_journal_release(struct cw_journal *journal) {
    release_pages(journal->pages);
    *journal = (struct cw_journal){NULL, 0};
}

size_t cw_journal_bytes(const struct cw_journal *journal) {
    return journal->pages ? sizeof *journal->pages + journal->pages->cap : 0;
}

/* ---- touches: length varint, below byte, key ---- */

void cw_touch(struct cw_buf *touches, struct cw_bytes key, bool below) {
    cw_buf_varint(touches, key.n);
    cw_buf_byte(touches, below);
    cw_buf_bytes(touches, key);
}

bool cw_touch_next(struct cw_reader *r, struct cw_bytes *key, bool *below) {
    if (r->p == r->end)
        return false;
    uint64_t n = cw_read_varint(r);
    *below = cw_read_byte(r);
    *key = cw_read_bytes(r, n);
    return !r->err;
}

/* ---- entries ---- */

struct entry {
    size_t n;
    bool net;
    const uint8_t *spans;
    struct cw_bytes touches;
    size_t len;
};

static struct entry entry_at(const uint8_t *p) {
    size_t len = cw_load32le(p), word = cw_load32le(p + 4), n = word >> 1;
    size_t head = ENTRY_HEAD + SPAN_SIZE * n;
    return (struct entry){n, word & 1, p + ENTRY_HEAD, cw_bytes(p + head, len - head - ENTRY_TAIL),
                          len};
}

static struct cw_span span_at(const struct entry *e, size_t i) {
    const uint8_t *p = e->spans + SPAN_SIZE * i;
    return (struct cw_span){cw_load64le(p), cw_load64le(p + 8), cw_load64le(p + 16)};
}

static void write_entry(uint8_t *p, const struct cw_span *spans, size_t n, struct cw_bytes touches,
                        bool net, size_t len) {
    cw_store32le(p, (uint32_t)len);
    cw_store32le(p + 4, (uint32_t)n << 1 | net);
    p += ENTRY_HEAD;
    for (size_t i = 0; i < n; i++, p += SPAN_SIZE) {
        cw_store64le(p, spans[i].id);
        cw_store64le(p + 8, spans[i].from);
        cw_store64le(p + 16, spans[i].to);
    }
    if (touches.n)
        memcpy(p, touches.p, touches.n);
    cw_store32le(p + touches.n, (uint32_t)len);
}

/* ---- the floor ---- */

struct floor {
    struct cw_span *at;
    size_t n;
};

static void raise_floor(struct floor *floor, struct cw_span span) {
    size_t lo = 0, hi = floor->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (floor->at[mid].id < span.id)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == floor->n || floor->at[lo].id != span.id) {
        memmove(floor->at + lo + 1, floor->at + lo, (floor->n++ - lo) * sizeof *floor->at);
        floor->at[lo] = (struct cw_span){span.id, 0, 0};
    }
    if (floor->at[lo].to < span.to)
        floor->at[lo].to = span.to;
}

static void floor_of_context(struct floor *floor, const struct cw_context *cx) {
    for (uint32_t i = 0; i < cx->vv->n; i++)
        raise_floor(floor, (struct cw_span){cx->vv->at[i].id, 0, cx->vv->at[i].counter});
    if (cx->own)
        raise_floor(floor, (struct cw_span){cx->self, 0, cx->own});
}

static void floor_of_entries(struct floor *floor, const uint8_t *p, size_t upto) {
    struct entry e;
    for (size_t at = 0; at < upto; at += e.len) {
        e = entry_at(p + at);
        for (size_t i = 0; i < e.n; i++)
            raise_floor(floor, span_at(&e, i));
    }
}

/* ---- adding ---- */

static size_t entry_size(size_t spans, size_t touches) {
    return ENTRY_HEAD + SPAN_SIZE * spans + touches + ENTRY_TAIL;
}

static uint8_t *append_in_place(struct cw_journal *journal, size_t len) {
    struct cw_journal_pages *pages = journal->pages;
    size_t at = journal->len;
    if (!pages || pages->cap - at < len ||
        !atomic_compare_exchange_strong(&pages->used, &at, at + len))
        return NULL;
    journal->len += len;
    return pages->bytes + at;
}

/* Where the entries to be kept begin when `len` more bytes are to fit within the limit: after the
 * floor, or further on. */
static size_t cut_at(const struct cw_journal *journal, size_t len, size_t limit) {
    const uint8_t *p = journal->pages->bytes;
    size_t at = entry_at(p).len, keep = limit;
    if (journal->len - at + len > keep)
        keep /= 2;
    while (journal->len - at > (keep > len ? keep - len : 0))
        at += entry_at(p + at).len;
    return at;
}

/* New pages that begin with a floor and the entries kept, with room for `len` bytes. */
static enum cw_err renew(struct cw_journal *journal, const struct cw_mem *mem,
                         const struct cw_context *before, size_t len, size_t limit) {
    struct cw_journal_pages *old = journal->pages;
    size_t cut = old ? cut_at(journal, len, limit) : 0, kept = old ? journal->len - cut : 0;
    size_t room = before->vv->n + 1; /* every replica in an entry is in the context, or the self */
    struct floor floor = {cw_alloc(mem, room * sizeof *floor.at), 0};
    if (!floor.at)
        return CW_ENOMEM;
    if (old)
        floor_of_entries(&floor, old->bytes, cut);
    else
        floor_of_context(&floor, before);
    size_t head = entry_size(floor.n, 0), cap = 2 * (head + kept + len);
    struct cw_journal_pages *pages = cw_alloc(mem, sizeof *pages + cap);
    if (pages) {
        pages->mem = mem;
        atomic_init(&pages->refs, 1);
        atomic_init(&pages->used, head + kept);
        pages->cap = cap;
        write_entry(pages->bytes, floor.at, floor.n, cw_bytes(NULL, 0), false, head);
        if (kept)
            memcpy(pages->bytes + head, old->bytes + cut, kept);
        cw_journal_release(journal);
        *journal = (struct cw_journal){pages, head + kept};
    }
    cw_free(mem, floor.at);
    return pages ? CW_OK : CW_ENOMEM;
}

void cw_journal_add(struct cw_journal *journal, const struct cw_mem *mem, size_t limit,
                    const struct cw_context *before, const struct cw_span *spans, size_t n,
                    struct cw_bytes touches, bool net) {
    size_t len = entry_size(n, touches.n);
    uint8_t *p = NULL;
    if (len <= limit / 2) {
        p = append_in_place(journal, len);
        if (!p && renew(journal, mem, before, len, limit) == CW_OK)
            p = append_in_place(journal, len);
    }
    if (p)
        write_entry(p, spans, n, touches, net, len);
    else
        cw_journal_release(journal);
}

/* ---- reading ---- */

static bool reaches(const struct entry *floor, const struct cw_vv *since) {
    for (size_t i = 0; i < floor->n; i++) {
        struct cw_span span = span_at(floor, i);
        if (cw_vv_get(since, span.id) < span.to)
            return false;
    }
    return true;
}

/* How many of the entry's writes are not in `since`. */
static uint64_t news_in(const struct entry *e, const struct cw_vv *since) {
    uint64_t n = 0;
    for (size_t i = 0; i < e->n; i++) {
        struct cw_span span = span_at(e, i);
        uint64_t seen = cw_vv_get(since, span.id);
        uint64_t from = seen > span.from ? seen : span.from;
        n += span.to > from ? span.to - from : 0;
    }
    return n;
}

/* Whether `since` has some of the entry's writes. */
static bool is_split(const struct entry *e, const struct cw_vv *since) {
    for (size_t i = 0; i < e->n; i++) {
        struct cw_span span = span_at(e, i);
        if (cw_vv_get(since, span.id) > span.from)
            return true;
    }
    return false;
}

bool cw_journal_since(const struct cw_journal *journal, const struct cw_vv *since, uint64_t news,
                      struct cw_buf *touches, bool *net) {
    *net = false;
    if (!journal->pages)
        return false;
    const uint8_t *p = journal->pages->bytes;
    struct entry floor = entry_at(p);
    if (!reaches(&floor, since))
        return false;
    size_t at = journal->len;
    while (news && at > floor.len) {
        at -= cw_load32le(p + at - ENTRY_TAIL);
        struct entry e = entry_at(p + at);
        uint64_t n = news_in(&e, since);
        if (!n)
            continue;
        if (e.net && is_split(&e, since))
            return false;
        *net |= e.net;
        cw_buf_bytes(touches, e.touches);
        news -= n < news ? n : news;
    }
    return true;
}
