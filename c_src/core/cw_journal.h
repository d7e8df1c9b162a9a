/* What a document remembers of its recent changes, so that a delta since a clock need not look at
 * the whole state: for each write, or group of writes that arrived together, the keys it touched.
 *
 * It is kept in pages. Successive versions share them; each knows how much of the last one is its
 * own, and the newest appends in place. A version that is not the newest any more takes a page of
 * its own to go on, and shares those before. It is a memory, not state: never encoded, not part of
 * any hash, and beyond a limit the oldest pages are dropped. What had been seen before the oldest
 * that is left are the writes that it knows nothing about. */
#ifndef CW_JOURNAL_H
#define CW_JOURNAL_H

#include "cw_buf.h"
#include "cw_cell.h"
#include "cw_reader.h"

/* Bytes of entries, by the size of the document; half as many in one entry. A page more may be
 * held.
 */
#define CW_JOURNAL_MIN (64u << 10)
#define CW_JOURNAL_MAX (4u << 20)
#define CW_JOURNAL_PAGE (64u << 10) /* or an eighth of the limit; or one large entry */

static inline size_t cw_journal_limit(uint64_t cells) {
    uint64_t bytes = 16 * cells; /* a fifth of what the cells take, or so */
    return bytes < CW_JOURNAL_MIN   ? CW_JOURNAL_MIN
           : bytes > CW_JOURNAL_MAX ? CW_JOURNAL_MAX
                                    : (size_t)bytes;
}

struct cw_journal_pages;

/* Zeroed, it remembers nothing; then it needs no release either. */
struct cw_journal {
    struct cw_journal_pages *pages;
    size_t len; /* in the last page */
};

struct cw_journal cw_journal_retain(const struct cw_journal *journal);
void cw_journal_release(struct cw_journal *journal);
size_t cw_journal_bytes(const struct cw_journal *journal);

/* A touched key or, `below`, all keys with a prefix; appended to a list of touches. */
void cw_touch(struct cw_buf *touches, struct cw_bytes key, bool below);
bool cw_touch_next(struct cw_reader *touches, struct cw_bytes *key, bool *below);

/* A span of one replica's writes: those after `from`, up to and with `to`. */
struct cw_span {
    uint64_t id;
    uint64_t from;
    uint64_t to;
};

/* Adds an entry: these writes, the first ones after `before`, touched these keys. A `net` entry
 * lists only the keys that all its writes together changed. Without memory, or when the entry is
 * over the limit, the journal forgets everything. It may keep a reference to `before->vv`. */
void cw_journal_add(struct cw_journal *journal, const struct cw_mem *mem, size_t limit,
                    const struct cw_context *before, const struct cw_span *spans, size_t n,
                    struct cw_bytes touches, bool net);

/* Appends to `touches` what was touched by the writes not in `since`, of which the context has
 * `news`; looks from the newest entry back until it has them. `*net` tells whether that is only
 * what they changed together. CW_EGAP when the journal cannot tell: it does not reach back that
 * far, or `since` is in the middle of a net entry. CW_EBUDGET when there are more than `budget`
 * touches. On failure `touches` may have some. */
enum cw_err cw_journal_since(const struct cw_journal *journal, const struct cw_vv *since,
                             uint64_t news, size_t budget, struct cw_buf *touches, bool *net);

#endif
