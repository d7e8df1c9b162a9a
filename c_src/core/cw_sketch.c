#include "cw_sketch.h"

#include <math.h>

/* The finalizer of MurmurHash3 as varied by D. Stafford (mix 13). */
static uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static uint32_t check_of(uint64_t item) {
    return (uint32_t)mix(item ^ 0x6a09e667f3bcc908u);
}

/* ---- which symbols an item is in ---- */

struct walk {
    uint64_t random;
    uint64_t at;
};

static struct walk walk_of(uint64_t item) {
    return (struct walk){item, 0};
}

/* The gap to the next symbol, drawn by inverting its distribution: with r even in (0, 1], the next
 * is the first one after (at + 1.5) / sqrt(r) - 1.5. Far beyond all symbols, it stops. */
static void step(struct walk *w) {
    w->random += 0x9e3779b97f4a7c15u;
    double r = ((double)(mix(w->random) >> 32) + 1.0) / 4294967296.0;
    double gap = ceil(((double)w->at + 1.5) * (1.0 / sqrt(r) - 1.0));
    w->at = gap < 1e15 ? w->at + (uint64_t)(gap < 1 ? 1 : gap) : UINT64_MAX;
}

static void add(struct cw_symbol *s, uint64_t item, int sign) {
    s->sum ^= item;
    s->check ^= check_of(item);
    s->count = (int32_t)((uint32_t)s->count + (uint32_t)sign);
}

void cw_sketch_add(struct cw_symbol *symbols, uint64_t from, size_t n, uint64_t item, int sign) {
    for (struct walk w = walk_of(item); w.at < from + n; step(&w))
        if (w.at >= from)
            add(&symbols[w.at - from], item, sign);
}

void cw_sketch_subtract(struct cw_symbol *symbols, const struct cw_symbol *less, size_t n) {
    for (size_t i = 0; i < n; i++) {
        symbols[i].sum ^= less[i].sum;
        symbols[i].check ^= less[i].check;
        symbols[i].count = (int32_t)((uint32_t)symbols[i].count - (uint32_t)less[i].count);
    }
}

/* ---- how many items ---- */

/* Each of d items is in symbol i with probability p, whatever its sign: with c the signed count of
 * all, which is what symbol 0 says, the count there has a mean of p c and a variance of p (1 - p)
 * d. */
uint64_t cw_sketch_estimate(const struct cw_symbol *symbols, size_t n) {
    double all = n ? symbols[0].count : 0, sum = 0;
    for (size_t i = 1; i < n; i++) {
        double p = 1 / (1 + (double)i / 2), off = symbols[i].count - p * all;
        sum += off * off / (p * (1 - p));
    }
    double d = n > 1 ? sum / (double)(n - 1) : 0;
    return (uint64_t)fmax(d, fabs(all));
}

/* ---- peeling ---- */

static bool is_single(const struct cw_symbol *s) {
    return (s->count == 1 || s->count == -1) && s->check == check_of(s->sum);
}

static bool is_zero(const struct cw_symbol *s) {
    return !s->sum && !s->check && !s->count;
}

/* Later symbols hold fewer items, so they show theirs first; a few rounds are enough. Every item
 * taken out empties a symbol, but in symbols of no difference it may fill others without end. */
bool cw_sketch_peel(struct cw_symbol *symbols, size_t n, uint64_t *items, size_t *plus) {
    size_t taken = 0, found = 0;
    for (bool more = true; more;) {
        more = false;
        for (size_t i = n; i-- > 0;) {
            if (!is_single(&symbols[i]))
                continue;
            if (taken++ == n)
                return false;
            if (symbols[i].count > 0)
                items[found++] = symbols[i].sum;
            cw_sketch_add(symbols, 0, n, symbols[i].sum, -symbols[i].count);
            more = true;
        }
    }
    *plus = found;
    return n > 0 && is_zero(&symbols[0]);
}
