#include "cw_journal.h"

/* An entry: len u32 | n << 1 | net u32 | n * (id u64, from u64, to u64) | touches | len u32. */
#define ENTRY_HEAD 8u
#define ENTRY_TAIL 4u
#define SPAN_SIZE 24u

/* A page holds entries, in the order in which they came, and knows what had been seen before the
 * first of them: all these writes are in earlier pages, or forgotten. `used` only grows; whoever
 * moves it from its own length on owns the bytes in between. */
struct page {
    const struct cw_mem *mem;
    atomic_uint refs;
    atomic_size_t used;
    size_t cap;
    struct cw_vv *vv; /* seen before, with those up to `own` of `self` */
    uint64_t self;
    uint64_t own;
    uint8_t bytes[];
};

/* The pages of some versions, oldest first. The list is never changed: a version that takes another
 * page makes another list, without the pages that are too old. (Pages that point to those before
 * them would need no list, but the oldest could not be dropped under those who read it.)
 *
 *     a line of versions, whose page D is full           [A B C D]  ->  [B C D E]
 *     a version that had less of D, and wants to go on   [A B C D]  ->  [A B C D'] D' is a copy
 *     the same, with more than half of a page in D       [A B C D]  ->  [A B C D E']
 */
struct cw_journal_pages {
    const struct cw_mem *mem;
    atomic_uint refs;
    uint32_t n;
    struct {
        struct page *page;
        size_t len; /* how much of it is meant; of the last one each version knows that itself */
    } at[];
};

/* ---- life ---- */

struct cw_journal cw_journal_retain(const struct cw_journal *journal) {
    if (journal->pages)
        atomic_fetch_add_explicit(&journal->pages->refs, 1, memory_order_relaxed);
    return *journal;
}

static void release_page(struct page *page) {
    if (atomic_fetch_sub(&page->refs, 1) != 1)
        return;
    cw_vv_release(page->vv);
    cw_free(page->mem, page);
}

void cw_journal_release(struct cw_journal *journal) {
    struct cw_journal_pages *pages = journal->pages;
    *journal = (struct cw_journal){NULL, 0};
    if (!pages || atomic_fetch_sub(&pages->refs, 1) != 1)
        return;
    for (uint32_t i = 0; i < pages->n; i++)
        release_page(pages->at[i].page);
    cw_free(pages->mem, pages);
}

size_t cw_journal_bytes(const struct cw_journal *journal) {
    const struct cw_journal_pages *pages = journal->pages;
    size_t sum = pages ? sizeof *pages + pages->n * sizeof pages->at[0] : 0;
    for (uint32_t i = 0; pages && i < pages->n; i++) {
        const struct page *page = pages->at[i].page;
        sum += sizeof *page + page->cap;
        if (i == 0 || page->vv != pages->at[i - 1].page->vv)
            sum += sizeof *page->vv + page->vv->n * sizeof page->vv->at[0];
    }
    return sum;
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

static size_t count_touches(struct cw_bytes touches) {
    struct cw_reader r = cw_reader(touches);
    struct cw_bytes key;
    bool below;
    size_t n = 0;
    while (cw_touch_next(&r, &key, &below))
        n++;
    return n;
}

/* ---- entries ---- */

struct entry {
    size_t n;
    bool net;
    const uint8_t *spans;
    struct cw_bytes touches;
};

static size_t entry_size(size_t spans, size_t touches) {
    return ENTRY_HEAD + SPAN_SIZE * spans + touches + ENTRY_TAIL;
}

static struct entry entry_at(const uint8_t *p) {
    size_t len = cw_load32le(p), word = cw_load32le(p + 4), n = word >> 1;
    size_t head = ENTRY_HEAD + SPAN_SIZE * n;
    return (struct entry){n, word & 1, p + ENTRY_HEAD, cw_bytes(p + head, len - head - ENTRY_TAIL)};
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

/* ---- adding ---- */

static struct page *last_page(const struct cw_journal *journal) {
    return journal->pages ? journal->pages->at[journal->pages->n - 1].page : NULL;
}

static uint8_t *append_in_place(struct cw_journal *journal, size_t len) {
    struct page *page = last_page(journal);
    size_t at = journal->len;
    if (!page || page->cap - at < len ||
        !atomic_compare_exchange_strong(&page->used, &at, at + len))
        return NULL;
    journal->len += len;
    return page->bytes + at;
}

/* How large pages get: small enough to be copied and dropped, but not smaller than the vector that
 * may come with each, as far as the limit allows. */
static size_t page_size(const struct cw_vv *vv, size_t limit) {
    size_t size = limit / 8 < CW_JOURNAL_PAGE ? limit / 8 : CW_JOURNAL_PAGE;
    size_t want = vv->n * sizeof vv->at[0], most = limit / 4;
    if (want > most)
        want = most;
    return size > want ? size : want;
}

/* A page for entries after what was seen in `before`, the first `used` bytes of them to be filled
 * in by the caller. */
static struct page *new_page(const struct cw_mem *mem, const struct cw_context *before, size_t cap,
                             size_t used) {
    struct page *page = cw_alloc(mem, sizeof *page + cap);
    if (!page)
        return NULL;
    page->mem = mem;
    atomic_init(&page->refs, 1);
    atomic_init(&page->used, used);
    page->cap = cap;
    page->vv = cw_vv_retain((struct cw_vv *)before->vv);
    page->self = before->self;
    page->own = before->own;
    return page;
}

static struct cw_context seen_before(const struct page *page) {
    return (struct cw_context){page->vv, NULL, page->self, page->own};
}

static size_t len_of(const struct cw_journal *journal, uint32_t i) {
    return i + 1 < journal->pages->n ? journal->pages->at[i].len : journal->len;
}

/* The newest of the journal's first `n` pages, as many as hold no more than `keep` bytes, and after
 * them `page`, which it takes over. */
static struct cw_journal_pages *list_pages(const struct cw_journal *journal, uint32_t n,
                                           struct page *page, size_t keep) {
    uint32_t first = n;
    while (first > 0 && len_of(journal, first - 1) <= keep)
        keep -= len_of(journal, --first);
    n -= first;
    struct cw_journal_pages *list;
    list = cw_alloc(page->mem, sizeof *list + (n + 1) * sizeof list->at[0]);
    if (!list)
        return NULL;
    list->mem = page->mem;
    atomic_init(&list->refs, 1);
    list->n = n + 1;
    for (uint32_t i = 0; i < n; i++) {
        list->at[i].page = journal->pages->at[first + i].page;
        list->at[i].len = len_of(journal, first + i);
        atomic_fetch_add_explicit(&list->at[i].page->refs, 1, memory_order_relaxed);
    }
    list->at[n].page = page;
    list->at[n].len = 0;
    return list;
}

/* Makes the last page one with room for `len` more bytes: a larger copy while that is at most half
 * of what pages get, else a new one. So neither small pages become many, nor is much copied. */
static bool turn_page(struct cw_journal *journal, const struct cw_mem *mem,
                      const struct cw_context *before, size_t len, size_t limit) {
    const struct page *last = last_page(journal);
    size_t most = page_size(before->vv, limit);
    bool copy = last && journal->len + len <= most / 2;
    size_t kept = copy ? journal->len : 0, cap = 2 * (kept + len);
    if (cap > most)
        cap = most > len ? most : len;
    struct cw_context cx = copy ? seen_before(last) : *before;
    struct page *page = new_page(mem, &cx, cap, kept);
    if (!page)
        return false;
    if (kept)
        memcpy(page->bytes, last->bytes, kept);
    uint32_t n = last ? journal->pages->n - copy : 0;
    struct cw_journal_pages *list = list_pages(journal, n, page, limit - kept - len);
    if (!list) {
        release_page(page);
        return false;
    }
    cw_journal_release(journal);
    *journal = (struct cw_journal){list, kept};
    return true;
}

void cw_journal_add(struct cw_journal *journal, const struct cw_mem *mem, size_t limit,
                    const struct cw_context *before, const struct cw_span *spans, size_t n,
                    struct cw_bytes touches, bool net) {
    size_t len = entry_size(n, touches.n);
    uint8_t *p = NULL;
    if (len <= limit / 2) {
        p = append_in_place(journal, len);
        if (!p && turn_page(journal, mem, before, len, limit))
            p = append_in_place(journal, len);
    }
    if (p)
        write_entry(p, spans, n, touches, net, len);
    else
        cw_journal_release(journal);
}

/* ---- reading ---- */

struct look {
    const struct cw_vv *since;
    uint64_t news; /* writes still to be found */
    size_t budget;
    struct cw_buf *touches;
    bool net;
};

/* Whether `since` has all that was seen before the page. */
static bool reaches(const struct page *page, const struct cw_vv *since) {
    if (cw_vv_get(since, page->self) < page->own)
        return false;
    enum cw_order order = cw_vv_compare(page->vv, since);
    return order == CW_EQUAL || order == CW_BEFORE;
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

static enum cw_err look_at(struct look *l, const struct entry *e) {
    uint64_t n = news_in(e, l->since);
    if (!n)
        return CW_OK;
    if (e->net && is_split(e, l->since))
        return CW_EGAP;
    size_t count = count_touches(e->touches);
    if (count > l->budget)
        return CW_EBUDGET;
    l->budget -= count;
    l->news -= n < l->news ? n : l->news;
    l->net |= e->net;
    cw_buf_bytes(l->touches, e->touches);
    return l->touches->err;
}

/* From the newest entry of a page back to its first. */
static enum cw_err look_through(struct look *l, const struct page *page, size_t len) {
    enum cw_err err = CW_OK;
    while (!err && l->news && len) {
        len -= cw_load32le(page->bytes + len - ENTRY_TAIL);
        struct entry e = entry_at(page->bytes + len);
        err = look_at(l, &e);
    }
    return err;
}

enum cw_err cw_journal_since(const struct cw_journal *journal, const struct cw_vv *since,
                             uint64_t news, size_t budget, struct cw_buf *touches, bool *net) {
    struct look l = {since, news, budget, touches, false};
    if (!journal->pages || !reaches(journal->pages->at[0].page, since))
        return CW_EGAP;
    enum cw_err err = CW_OK;
    for (uint32_t i = journal->pages->n; !err && i > 0; i--)
        err = look_through(&l, journal->pages->at[i - 1].page, len_of(journal, i - 1));
    if (!err)
        *net = l.net;
    return err;
}
