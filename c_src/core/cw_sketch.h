/* Finds the differences of two sets of 64-bit items in bytes proportional to their number: rateless
 * invertible Bloom lookup tables, from Yang, Gilad, Alizadeh, "Practical Rateless Set
 * Reconciliation", SIGCOMM 2024.
 *
 * A sketch is an endless row of symbols. Item x is in symbol 0, and in symbol i with a probability
 * of 1 / (1 + i / 2), decided by x alone. The symbols of two sets, subtracted, are those of their
 * difference; one with a single item shows it, and that item taken out of all symbols lets others
 * show theirs. About 1.4 symbols an item are enough for many items, twice as many for a few.
 *
 * Which symbols an item is in must come out the same everywhere: by additions, multiplications,
 * divisions and square roots of IEEE 754 doubles, which are exact to the bit. */
#ifndef CW_SKETCH_H
#define CW_SKETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cw_symbol {
    uint64_t sum;   /* of the items, by exclusive or */
    uint32_t check; /* the same, of a hash of each */
    int32_t count;
};

/* Adds an item to symbols [from, from + n), the first of which is at `symbols`; takes it out with
 * `sign` -1 instead of 1. O(log(from + n)). */
void cw_sketch_add(struct cw_symbol *symbols, uint64_t from, size_t n, uint64_t item, int sign);

/* symbols[i] -= less[i]. */
void cw_sketch_subtract(struct cw_symbol *symbols, const struct cw_symbol *less, size_t n);

/* About how many items are in a difference of which these are the first symbols. */
uint64_t cw_sketch_estimate(const struct cw_symbol *symbols, size_t n);

/* Takes the items out of a difference's first symbols: those that were only in the set subtracted
 * from go to the front of `items`, `*plus` of them, the others are dropped. `items` has room for
 * `n`. False if they are not all to be had from so few symbols, or the symbols are of no
 * difference; then they are of no further use. O(n log n). */
bool cw_sketch_peel(struct cw_symbol *symbols, size_t n, uint64_t *items, size_t *plus);

#endif
